"""The installed OpenAI SDK: whether farthing can sit on it. Checked on import, before its insides are asked for."""

from __future__ import annotations

import openai

from .exceptions import UnsupportedSDKError, explain

__all__ = ["check"]

# 2.31 brought `_send_request`, the seam that transport.py is at. The same range is in pyproject.toml.
FIRST, BEYOND = (2, 31), (4, 0)


def check(version: str) -> None:
    """Raises `UnsupportedSDKError` unless farthing knows this version."""
    numbers = tuple(int(part) for part in version.split(".")[:2] if part.isdigit())
    if not FIRST <= numbers < BEYOND:
        raise UnsupportedSDKError(
            explain(
                "farthing cannot sit on this version of the OpenAI SDK",
                where="openai",
                value=version,
                hint='pip install "openai>=2.31,<4"',
            )
        )


check(openai.__version__)
