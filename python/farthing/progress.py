"""A progress bar, where somebody sees it. It costs nobody an answer: what it cannot show, it does not show."""

from __future__ import annotations

import contextlib
import sys
from typing import Any

__all__ = ["Bar"]


class Bar:
    """tqdm's, or none. To be used by one thread.

    Args:
        total: how many there are.
        wanted: None = where stderr is a terminal, and in notebooks.
    """

    def __init__(self, total: int, wanted: bool | None) -> None:
        self._bar: Any = None
        if not total or wanted is False or (wanted is None and not _is_watched()):
            return
        with contextlib.suppress(Exception):
            from tqdm.auto import tqdm

            self._bar = tqdm(total=total, unit=" questions")

    def advance(self) -> None:
        self._do("update")

    def __enter__(self) -> Bar:
        return self

    def __exit__(self, *_: object) -> None:
        self._do("close")

    def _do(self, name: str) -> None:
        if self._bar is not None:
            try:
                getattr(self._bar, name)()
            except Exception:
                self._bar = None


def _is_watched() -> bool:
    """Whether somebody sees stderr as it is written: a terminal, a notebook."""
    ask = getattr(sys.modules.get("IPython"), "get_ipython", None)
    if ask is not None and getattr(ask(), "kernel", None) is not None:
        return True
    with contextlib.suppress(Exception):  # there is none, it is closed
        return sys.stderr.isatty()
    return False
