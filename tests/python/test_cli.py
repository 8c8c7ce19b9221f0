"""The command line's manners."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from farthing.cli import cli

pytestmark = pytest.mark.once


def run(*arguments: str, **options: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "farthing", *arguments], capture_output=True, text=True, timeout=60)


@pytest.mark.parametrize("command", [[], ["demo"], ["local"], ["policy"], ["policy", "check"]])
def test_help_has_examples(command: list[str]) -> None:
    shown = CliRunner().invoke(cli, [*command, "--help"])
    assert shown.exit_code == 0
    assert "Example" in shown.output
    assert "farthing " in shown.output


def test_help_imports_neither_the_sdk_nor_the_core() -> None:
    script = (
        "import sys; sys.argv = ['farthing', '--help']\n"
        "from farthing.cli import main\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "print([name for name in ('openai', 'farthing._core', 'pydantic') if name in sys.modules], file=sys.stderr)"
    )
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert ran.stderr.strip() == "[]"


def test_version() -> None:
    ran = run("--version")
    assert (ran.returncode, ran.stderr) == (0, "")
    assert ran.stdout.startswith("farthing 0.")


def test_a_good_policy(tmp_path: Path) -> None:
    path = tmp_path / "farthing.toml"
    path.write_text('[cache]\nttl = "1h"\n[aliases]\nchat = "deepseek-v4-flash"\n')
    ran = run("policy", "check", str(path))
    assert (ran.returncode, ran.stderr) == (0, "")
    first, _, rest = ran.stdout.partition("\n")
    assert first == f"{path}: ok"
    assert json.loads(rest)["cache"]["ttl"] == 3600


@pytest.mark.parametrize(
    ("text", "says"),
    [("[cahce]\n", 'hint: did you mean "cache"?'), ("[cache]\nttl = -1\n", "cache.ttl"), ("[", "invalid TOML")],
)
def test_a_bad_policy(tmp_path: Path, text: str, says: str) -> None:
    path = tmp_path / "farthing.toml"
    path.write_text(text)
    ran = run("policy", "check", str(path))
    assert ran.returncode == 1
    assert ran.stdout == ""
    assert says in ran.stderr
    assert str(path) in ran.stderr
    assert "Traceback" not in ran.stderr


def test_a_policy_that_is_not_there() -> None:
    ran = run("policy", "check", "nowhere.toml")
    assert ran.returncode == 1
    assert "nowhere.toml" in ran.stderr
    assert "Traceback" not in ran.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        ["nonsense"],
        ["demo", "--nonsense"],
        ["demo", "--base-url", "http://127.0.0.1:1/v1"],
        ["demo", "--cheap", "x"],
        ["local", "--port", "70000"],
        ["local", "--model", "nonsense"],
        ["policy", "check"],
    ],
    ids=" ".join,
)
def test_a_wrong_command_line(arguments: list[str]) -> None:
    ran = run(*arguments)
    assert ran.returncode == 2
    assert ran.stdout == ""
    assert "Error:" in ran.stderr
    assert "Traceback" not in ran.stderr


def test_an_endpoint_that_is_not_there() -> None:
    ran = run("demo", "--base-url", "http://127.0.0.1:9/v1", "--cheap", "a", "--dear", "b")
    assert ran.returncode == 1
    assert "error: the endpoint failed in http://127.0.0.1:9/v1" in ran.stderr
    assert "hint:" in ran.stderr
    assert "Traceback" not in ran.stderr


@pytest.mark.skipif(sys.platform == "win32", reason="pipes and signals as on Unix")
def test_a_reader_that_has_had_enough() -> None:
    ran = subprocess.run(
        f"{sys.executable} -m farthing --help | true", shell=True, capture_output=True, text=True, timeout=60
    )
    assert ran.stderr == ""


@pytest.mark.local
@pytest.mark.skipif(sys.platform == "win32", reason="signals as on Unix")
def test_local_until_ctrl_c() -> None:
    pytest.importorskip("xllamacpp")
    process = subprocess.Popen(
        [sys.executable, "-m", "farthing", "local", "--small", "--port", "0"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    line = process.stdout.readline()
    assert line.startswith("serving smollm2-135m at http://127.0.0.1:"), process.stderr and process.stderr.read()
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=30)
    assert process.returncode == 130
    assert "Traceback" not in err
