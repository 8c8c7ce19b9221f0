"""Every snippet in the README and the docs runs, against a scripted upstream."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from upstream import Upstream, answer

from farthing import Policy

# What the SDK's way of sending has nothing to do with.
pytestmark = pytest.mark.once

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
# Its snippets need libraries: tests/python/integrations.
INTEGRATIONS = ROOT / "docs" / "integrations.md"
SNIPPET = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def snippets(page: Path, language: str) -> list[str]:
    return [text for name, text in SNIPPET.findall(page.read_text("utf-8")) if name == language]


@pytest.mark.parametrize(
    "page", [page for page in PAGES if page != INTEGRATIONS], ids=lambda page: str(page.relative_to(ROOT))
)
def test_python(page: Path, upstream: Upstream, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("OPENAI_BASE_URL", upstream.url)
    monkeypatch.setenv("OPENAI_API_KEY", "none")
    upstream.script = lambda seen, number: answer(seen)
    names: dict[str, Any] = {}
    for text in snippets(page, "python"):
        exec(compile(text, str(page), "exec"), names)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_toml(page: Path, tmp_path: Path) -> None:
    for text in snippets(page, "toml"):
        path = tmp_path / "farthing.toml"
        path.write_text(text)
        Policy.from_toml(path)


def test_the_snippets_of_libraries_are_run() -> None:
    """Each by the tests of its library, in an environment that `make integrations` makes."""
    files = (ROOT / "tests" / "python" / "integrations").glob("test_*.py")
    run = [name for file in files for name in re.findall(r'run_snippet\("(.+?)"', file.read_text("utf-8"))]
    assert sorted(run) == sorted(re.findall(r"^## (.+)$", INTEGRATIONS.read_text("utf-8"), re.MULTILINE))
    assert len(snippets(INTEGRATIONS, "python")) == len(run)


def test_links() -> None:
    for page in PAGES:
        for target in re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text("utf-8")):
            assert (page.parent / target).exists(), f"{page.name}: {target}"


def test_the_files_that_the_path_names() -> None:
    """docs/path.md names files by their place, in full or within the room it is in."""
    text = (ROOT / "docs" / "path.md").read_text("utf-8")
    known = {str(path.relative_to(ROOT)) for top in ("src", "python", "scripts") for path in (ROOT / top).rglob("*.*")}
    for name in set(re.findall(r"`([\w/]+\.(?:py|rs|json))`", text)):
        assert any(path == name or path.endswith("/" + name) for path in known), name


@pytest.mark.skipif(shutil.which("cargo") is None, reason="needs cargo")
def test_the_licences_of_all_that_is_linked() -> None:
    """After a change of Cargo.lock: `make licences`."""
    tree = "cargo tree --locked --features python --edges normal,no-proc-macro --prefix none --format {p}"
    listed = subprocess.run(tree.split(), cwd=ROOT, capture_output=True, text=True, check=True).stdout
    linked = {tuple(line.split()[:2]) for line in listed.splitlines() if not line.startswith("farthing ")}
    text = (ROOT / "THIRD-PARTY.md").read_text("utf-8")
    missing = [
        f"{name} {version}" for name, version in linked if f"\n- {name} {version.removeprefix('v')}\n" not in text
    ]
    assert len(linked) > 50 and not missing, missing
