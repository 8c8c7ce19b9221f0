"""Installs a wheel into an empty environment, and uses it there: the command, a call, a hit.

python scripts/check_wheel.py dist/farthing-0.1.0-cp310-abi3-manylinux_2_17_x86_64.whl
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import venv
from pathlib import Path

CALLS = """
import http.server, json, threading
import farthing

calls = 0

class Handler(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        global calls
        calls += 1
        self.rfile.read(int(self.headers["content-length"]))
        choice = {"index": 0, "message": {"role": "assistant", "content": "pong"}, "finish_reason": "stop"}
        usage = {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}
        made = {"id": "1", "object": "chat.completion", "created": 1, "model": "m", "choices": [choice], "usage": usage}
        body = json.dumps(made).encode()
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass

server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
threading.Thread(target=server.serve_forever, daemon=True).start()
client = farthing.OpenAI(base_url=f"http://127.0.0.1:{server.server_address[1]}/v1", api_key="none")
answers = [client.chat.completions.create(model="m", messages=[{"role": "user", "content": "ping"}]) for _ in range(2)]
assert [answer.choices[0].message.content for answer in answers] == ["pong", "pong"]
outcomes = [farthing.receipt(answer).outcome for answer in answers]
assert (outcomes, calls) == (["miss", "hit"], 1), (outcomes, calls)
print("two equal calls:", *outcomes)
"""

LICENCES = "import importlib.metadata as m; print(*m.metadata('farthing').get_all('License-File'))"


def main(wheel: Path) -> None:
    # Nothing of the environment that this runs in: no path to a checkout, no settings of a user.
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "FARTHING", "OPENAI"))}
    with tempfile.TemporaryDirectory() as folder:
        venv.create(folder, with_pip=True)
        programs = Path(folder) / ("Scripts" if os.name == "nt" else "bin")

        def run(*command: str) -> str:
            program, *rest = command
            done = subprocess.run(
                [str(programs / program), *rest], cwd=folder, env=clean, check=True, capture_output=True, text=True
            )
            return done.stdout.strip()

        run("python", "-m", "pip", "--disable-pip-version-check", "install", "--quiet", str(wheel.resolve()))
        print(run("python", "-m", "pip", "list", "--format", "freeze").replace("\n", "  "))
        print(run("farthing", "--version"))
        print(run("python", "-c", CALLS))
        licences = run(
            "python", "-c", "import importlib.metadata as m; print(*m.metadata('farthing').get_all('License-File'))"
        )
        assert "THIRD-PARTY.md" in licences, licences


if __name__ == "__main__":
    main(Path(sys.argv[1]))
