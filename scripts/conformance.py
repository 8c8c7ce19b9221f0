"""Runs the OpenAI SDK's own tests against farthing's classes, and compares with what the SDK itself makes of them.

    python scripts/conformance.py KIT WHEEL            # the core set, beside the result that is recorded for the SDK
    python scripts/conformance.py KIT WHEEL --set full # all tests, with the SDK and with farthing, test by test
    python scripts/conformance.py KIT WHEEL --set tests/lib/test_azure.py   # so too

The kit (a runner, the mock server's description of the API) is not part of this repository; where it is not to be
found, this says so and is content. Fails when a test fails with farthing that does not fail with the SDK.
"""

from __future__ import annotations

import argparse
import os
import socket
import subprocess
import sys
import venv
from collections import Counter
from pathlib import Path
from xml.etree import ElementTree

ROOT = Path(__file__).parents[1]
HOME = ROOT / "target" / "conformance"

VERSION = "3.54.0"
RECORDED = {"passed": 3528, "failed": 0, "skipped": 56}
"""What the SDK makes of its own core set, in that version."""

Results = dict[str, tuple[str, str]]
"""By test: passed, failed or skipped, and the first line of why."""


def environment(wheel: Path) -> Path:
    python = HOME / "venv" / "bin" / "python"
    if not python.exists():
        venv.create(HOME / "venv", with_pip=True)
    pip = [str(python), "-m", "pip", "--disable-pip-version-check", "install", "--quiet"]
    subprocess.run([*pip, str(wheel)], check=True)
    # The version stays the same when the code does not.
    subprocess.run([*pip, "--force-reinstall", "--no-deps", str(wheel)], check=True)
    return python


def run(kit: Path, python: Path, module: str, which: list[str]) -> Results:
    report = HOME / f"{module}.xml"
    report.unlink(missing_ok=True)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    more = {
        "MODULE": module,
        "PYTHON": str(python),
        "WORK": str(HOME),
        "PORT": str(port),
        "OPENAI_VERSION": VERSION,
        "INSTALL": "1",
        "PYTEST_ADDOPTS": f"--junitxml={report} --tb=line",
    }
    found = subprocess.run([str(kit / "run"), *which], env={**os.environ, **more}, capture_output=True, text=True)
    if not report.exists():
        sys.exit(f"the kit ran no test with {module}:\n{found.stdout[-2000:]}{found.stderr[-2000:]}")
    return read(report)


def read(report: Path) -> Results:
    results: Results = {}
    for case in ElementTree.parse(report).getroot().iter("testcase"):
        outcome, why = "passed", ""
        for child in case:
            if child.tag in ("failure", "error"):
                outcome, why = "failed", (child.get("message") or "").strip().partition("\n")[0][:160]
            elif child.tag == "skipped" and outcome != "failed":
                outcome = "skipped"
        name = f"{case.get('classname')}::{case.get('name')}"
        if results.get(name, ("", ""))[0] != "failed":
            results[name] = (outcome, why)
    return results


def counts(results: Results) -> Counter[str]:
    return Counter(outcome for outcome, _ in results.values())


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("kit", type=Path)
    parser.add_argument("wheel", type=Path)
    parser.add_argument("--set", dest="which", nargs="+", default=["core"], help="core, full, or paths of tests")
    given = parser.parse_args()
    if not (given.kit / "run").is_file():
        print(f"skipped: no conformance kit at {given.kit} (make conformance CONFORMANCE=path/to/it)")
        return 0
    HOME.mkdir(parents=True, exist_ok=True)
    python = environment(given.wheel)

    ours = run(given.kit.resolve(), python, "farthing", given.which)
    if given.which == ["core"]:
        lines = {"openai, recorded": Counter(RECORDED), "farthing": counts(ours)}
        worse = [name for name, (outcome, _) in ours.items() if outcome == "failed"]
    else:
        theirs = run(given.kit.resolve(), python, "openai", given.which)
        lines = {"openai": counts(theirs), "farthing": counts(ours)}
        fine = [name for name, (outcome, _) in theirs.items() if outcome != "failed"]
        worse = [name for name in fine if ours.get(name, ("missing", ""))[0] in ("failed", "missing")]
        worse += [name for name, (outcome, _) in ours.items() if name not in theirs and outcome == "failed"]
        better = [n for n, (outcome, _) in theirs.items() if outcome == "failed" and ours.get(n, ("",))[0] == "passed"]
        for name in better:
            print(f"better  {name}: {theirs[name][1]}")
    for name in worse:
        print(f"worse   {name}: {ours.get(name, ('', 'did not run'))[1]}")
    which = given.which[0] if len(given.which) == 1 else f"{len(given.which)} paths"
    print(f"the SDK's own tests, openai {VERSION}: {which}")
    print(f"{'':18}{'passed':>8}{'failed':>8}{'skipped':>9}")
    for name, count in lines.items():
        print(f"{name:18}{count['passed']:>8,}{count['failed']:>8,}{count['skipped']:>9,}")
    few = given.which == ["core"] and len(ours) < sum(RECORDED.values())
    if few:
        print(f"only {len(ours):,} of {sum(RECORDED.values()):,} tests ran")
    return 1 if worse or few else 0


if __name__ == "__main__":
    sys.exit(main())
