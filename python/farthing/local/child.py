"""The process that holds one model: llama.cpp's own HTTP server, on loopback, until stdin closes.

    python -m farthing.local.child PATH NAME THREADS

Prints its address as one line of JSON. Nothing of farthing's is imported here.
"""

from __future__ import annotations

import json
import os
import sys

# Idle threads that spin would take the cores from the other models; read when the library is loaded.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

# Tokens, shared by the slots.
CONTEXT = 8192
SLOTS = 2


def main() -> None:
    path, name, threads = sys.argv[1:4]
    import xllamacpp

    params = xllamacpp.CommonParams()
    params.model.path = path
    params.model_alias = {name}
    params.n_ctx = CONTEXT
    params.n_parallel = SLOTS
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = int(threads)
    params.port = 0
    server = xllamacpp.Server(params)
    print(json.dumps({"address": server.listening_address}), flush=True)
    # The parent holds the other end: it closes however the parent ends.
    sys.stdin.read()
    # Without the library's own clean-up, which may wait for a request that runs.
    os._exit(0)


if __name__ == "__main__":
    main()
