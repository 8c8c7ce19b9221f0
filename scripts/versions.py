"""Runs a part of the tests with other versions of openai and of Python, all from one wheel; says a line for each.

    python scripts/versions.py WHEEL            # all
    python scripts/versions.py WHEEL --quick    # less, with the oldest openai, and one that is too old: what CI runs

An interpreter that is not on this machine is said to be missing, and is no failure.
"""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

ROOT = Path(__file__).parents[1]
HOME = ROOT / "target" / "versions"

TESTS = ["clients", "cache", "faults", "hub"]
QUICK = ["clients", "cache"]
OLDEST, NEWEST = "openai==2.31.0", "openai<4"
SUPPORTED = [OLDEST, "openai<3", "openai==3.0.0", NEWEST]
TOO_OLD = ["openai==2.30.0", "openai<2"]
PYTHONS = ["3.10", "3.11", "3.12", "3.13", "3.14"]


def interpreter(version: str) -> str | None:
    """One of this version: on the path, or among pyenv's."""
    found = [shutil.which(f"python{version}")]
    found += sorted(map(str, Path("~/.pyenv/versions").expanduser().glob(f"{version}.*/bin/python{version}")))
    for path in filter(None, found):
        # pyenv's names on the path may stand for nothing.
        if subprocess.run([path, "-c", "import venv"], capture_output=True).returncode == 0:
            return path
    return None


def environment(python: str, name: str, *packages: str) -> Path:
    """An empty environment with these packages; one that was left behind is thrown away."""
    folder = HOME / name
    subprocess.run([python, "-m", "venv", "--clear", "--without-pip", str(folder)], check=True)
    made = folder / "bin" / "python"
    install(made, *packages)
    return made


def install(python: Path, *packages: str) -> None:
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--python", str(python), "install", "--quiet"]
    done = subprocess.run([*pip, *packages], cwd=ROOT, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(done.stderr[-1500:])


def installed(python: Path) -> str:
    ask = "import platform, openai; print(f'openai {openai.__version__:9} CPython {platform.python_version():8}')"
    return subprocess.run([str(python), "-c", ask], capture_output=True, text=True, check=True).stdout.strip("\n")


def tested(python: str, name: str, openai: str, wheel: Path, tests: list[str]) -> tuple[bool, str]:
    made = environment(python, name, str(wheel), openai, "--group", "test")
    files = [f"tests/python/test_{test}.py" for test in tests]
    begun = time.monotonic()
    run = [str(made), "-m", "pytest", "-p", "no:cacheprovider", *files]
    done = subprocess.run(run, cwd=ROOT, capture_output=True, text=True)
    lines = done.stdout.strip().splitlines() or done.stderr.strip().splitlines() or ["no word from pytest"]
    closing = re.sub(r" in [\d.]+s.*", "", lines[-1].strip("= "))
    text = f"{installed(made)}  {closing} in {time.monotonic() - begun:.0f} s"
    failed = [line for line in lines if line.startswith(("FAILED", "ERROR", "E "))]
    return done.returncode == 0, "\n  ".join([text, *failed])


def refused(python: str, name: str, openai: str, wheel: Path) -> tuple[bool, str]:
    """pip would not install the two together; somebody who makes it do so is told what to do."""
    made = environment(python, name, openai, "pydantic>=2", "click")
    install(made, "--no-deps", str(wheel))
    done = subprocess.run([str(made), "-c", "from farthing import OpenAI"], capture_output=True, text=True)
    said = done.stderr.strip().splitlines()[-2:]
    good = done.returncode == 1 and "UnsupportedSDKError" in said[0] and "openai>=2.31,<4" in said[-1]
    return good, f"{installed(made)}  {'refused' if good else 'NOT REFUSED'}: {' | '.join(said)}"


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("wheel", type=Path)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--jobs", type=int, default=2)
    given = parser.parse_args()
    wheel, here = given.wheel.resolve(), sys.executable
    HOME.mkdir(parents=True, exist_ok=True)

    jobs: list[Callable[[], tuple[bool, str]]] = []
    missing = []
    if given.quick:
        jobs.append(partial(tested, here, "oldest", OLDEST, wheel, QUICK))
        jobs.append(partial(refused, here, "too-old", TOO_OLD[0], wheel))
    else:
        for number, openai in enumerate(SUPPORTED):
            jobs.append(partial(tested, here, f"openai-{number}", openai, wheel, TESTS))
        for version in PYTHONS:
            if version == f"{sys.version_info.major}.{sys.version_info.minor}":
                continue  # it had its turn above
            python = interpreter(version)
            if python is None:
                missing.append(version)
            else:
                jobs.append(partial(tested, python, f"python-{version}", NEWEST, wheel, TESTS))
        for number, openai in enumerate(TOO_OLD):
            jobs.append(partial(refused, here, f"too-old-{number}", openai, wheel))

    good = True
    with ThreadPoolExecutor(given.jobs) as pool:
        for job in [pool.submit(job) for job in jobs]:
            try:
                passed, text = job.result()
            except RuntimeError as error:
                passed, text = False, f"could not be set up: {error}"
            good = good and passed
            print(f"{'ok  ' if passed else 'FAIL'} {text}", flush=True)
    for version in missing:
        print(f"--   CPython {version}: not on this machine")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
