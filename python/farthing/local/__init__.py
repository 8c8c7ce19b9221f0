"""Real small language models on this machine, to try things without a key: `farthing local`, the demo, the tests.

`weights.py` fetches, `server.py` serves, `child.py` is the process that holds one model. Nothing outside this folder
and `demo/` depends on it, and it is not imported with the package.
"""

from __future__ import annotations

from .server import LocalServer
from .weights import MODELS, Weights, fetch

__all__ = ["MODELS", "LocalServer", "Weights", "fetch"]
