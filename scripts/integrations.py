"""The libraries on top of farthing: each group of pyproject.toml in an environment of its own, one line a library.

A group is a dependency group named `integrations-...`; what it pins is tested by the file of that name in
tests/python/integrations. Usage: integrations.py WHEEL [GROUP ...]
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).parents[1]
TESTS = ROOT / "tests" / "python" / "integrations"
PREFIX = "integrations-"


def main(wheel: str, *wanted: str) -> int:
    groups = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["dependency-groups"]
    names = [name for name in groups if name.startswith(PREFIX)]
    if unknown := set(wanted) - {name.removeprefix(PREFIX) for name in names}:
        sys.exit(f"no such group: {', '.join(sorted(unknown))}\nhint: there are: {', '.join(names)}")
    failed = []
    for name in names:
        if wanted and name.removeprefix(PREFIX) not in wanted:
            continue
        python = environment(name, groups, wheel)
        pins = dict(pin for pin in map(pinned, groups[name]) if pin)
        for library in pins:
            if library != "openai" and not tested(python, library, pins):
                failed.append(library)
    if failed:
        print(f"failed: {', '.join(failed)}")
    return 1 if failed else 0


def pinned(requirement: Any) -> tuple[str, str] | None:
    """The name and version of a requirement that has one version."""
    found = re.fullmatch(r"([\w-]+)(?:\[[\w,-]+\])?==([\w.]+)", requirement) if isinstance(requirement, str) else None
    return (found[1], found[2]) if found else None


def environment(name: str, groups: dict[str, Any], wheel: str) -> Path:
    """The Python of a group's environment; made when it is not there, or when what it holds is not what is declared."""
    folder = ROOT / ".venv" / name
    python = folder / ("Scripts" if os.name == "nt" else "bin") / "python"
    stamp = folder / "declared"
    declared = repr((groups[name], groups["integrations"], sys.version))
    pip = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    if stamp.exists() and stamp.read_text("utf-8") == declared:
        # The same version number may be another build.
        subprocess.run([*pip, "--force-reinstall", "--no-deps", wheel], check=True)
        return python
    start = time.monotonic()
    subprocess.run([sys.executable, "-m", "venv", "--clear", str(folder)], check=True)
    subprocess.run([*pip, "--upgrade", "pip>=25.1"], check=True)
    subprocess.run([*pip, "--group", f"{ROOT / 'pyproject.toml'}:{name}", f"{wheel}[local]"], check=True)
    stamp.write_text(declared, "utf-8")
    print(f"{name}: made in {time.monotonic() - start:.0f} s", flush=True)
    return python


def tested(python: Path, library: str, pins: dict[str, str]) -> bool:
    """Runs a library's tests, in a process of their own: such libraries patch and report much."""
    start = time.monotonic()
    file = TESTS / f"test_{library.replace('-', '_')}.py"
    # deepeval's plugin for pytest is not what is tested, and its folder belongs with its environment.
    options = ["-p", "no:deepeval", "-p", "no:cacheprovider", "--disable-warnings"]
    environ = {**os.environ, "DEEPEVAL_CACHE_FOLDER": str(python.parents[1] / "deepeval")}
    ran = subprocess.run(
        [str(python), "-m", "pytest", *options, str(file)], cwd=ROOT, env=environ, capture_output=True, text=True
    )
    counted = re.search(r"^(.*\d+ passed.*?)( in [\d.]+s.*)?$", ran.stdout, re.MULTILINE)
    good = ran.returncode == 0 and counted is not None
    if not good:
        print(ran.stdout, ran.stderr, sep="\n")
    said = counted[1] if counted else "nothing ran"
    seconds = time.monotonic() - start
    verdict = said if good else f"FAILED: {said}"
    print(f"{library} {pins[library]}, openai {pins['openai']}: {verdict}, {seconds:.0f} s", flush=True)
    return good


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
