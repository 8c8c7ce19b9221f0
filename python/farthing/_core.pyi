"""The core, as Python sees it. Internal: the package's own modules are its only callers."""

import asyncio
from collections.abc import Sequence
from contextvars import Context
from typing import Any, final

__all__ = [
    "Answer",
    "Completion",
    "CoreError",
    "Engine",
    "EventPipe",
    "Hit",
    "Job",
    "Ledger",
    "LoopQueue",
    "Prefix",
    "ReceiptCell",
    "SendError",
    "__version__",
    "after_fork_in_child",
    "at_exit",
    "process_report",
]

__version__: str

_RawHeaders = Sequence[tuple[bytes, bytes]]

class SendError(Exception):
    """No answer from the upstream. args: kind, message, cause."""

class CoreError(Exception):
    """farthing's own failure; the caller falls back to the plain call."""

@final
class Prefix: ...

@final
class ReceiptCell:
    def facts(self) -> dict[str, Any]: ...
    def __copy__(self) -> ReceiptCell: ...
    def __deepcopy__(self, _memo: Any) -> ReceiptCell: ...

@final
class Ledger:
    def __new__(cls) -> Ledger: ...
    def report(self) -> str: ...
    def reset(self) -> None: ...

@final
class Hit:
    @property
    def value(self) -> Any: ...
    @property
    def stream(self) -> bool: ...
    @property
    def receipt(self) -> ReceiptCell: ...
    @property
    def body(self) -> bytes: ...
    @property
    def headers(self) -> list[tuple[str, str]]: ...
    def events(self) -> str: ...
    def keep(self, value: Any) -> None: ...

@final
class Answer:
    @property
    def status(self) -> int: ...
    @property
    def headers(self) -> list[tuple[bytes, bytes]]: ...
    @property
    def body(self) -> bytes: ...
    @property
    def pipe(self) -> EventPipe | None: ...
    @property
    def receipt(self) -> ReceiptCell: ...

@final
class LoopQueue:
    def __new__(cls, event_loop: Any) -> LoopQueue: ...
    def drain(self) -> None: ...

@final
class Job:
    def cancel(self) -> None: ...

@final
class EventPipe:
    def take(self) -> bytes | None: ...
    def wait(self) -> None: ...
    def wait_async(self, queue: LoopQueue, future: asyncio.Future[None]) -> Job: ...
    def close(self) -> None: ...

@final
class Completion:
    @property
    def is_cancelled(self) -> bool: ...
    def head(self, status: int, headers: _RawHeaders) -> None: ...
    def chunk(self, chunk: bytes) -> None: ...
    def end(self) -> None: ...
    def fail(self, kind: str, message: str, exception: BaseException) -> None: ...

@final
class Engine:
    def __new__(cls, policy: str) -> Engine: ...
    def alias(self, model: str) -> str | None: ...
    def prefix(self, owner: bytes, url: str, headers: _RawHeaders) -> Prefix: ...
    def find(
        self,
        prefix: Prefix,
        kind: str,
        arguments: dict[str, Any],
        absent: tuple[type, ...],
        default: tuple[str, str] | None,
        slot: int,
        raw: bool,
        needs_value: bool,
        ledger: Ledger,
        mode_name: str | None,
        ttl: float | None,
        sample: str | None,
        tag: str | None,
    ) -> Hit | None: ...
    def keep(
        self,
        prefix: Prefix,
        arguments: dict[str, Any],
        absent: tuple[type, ...],
        default: tuple[str, str] | None,
        slot: int,
        sample: str | None,
        value: Any,
    ) -> None: ...
    def send(self, call: dict[str, Any], sender: Any) -> Answer | None: ...
    def send_async(
        self,
        call: dict[str, Any],
        sender: Any,
        queue: LoopQueue,
        future: asyncio.Future[Answer],
        event_loop: asyncio.AbstractEventLoop,
        context: Context,
    ) -> Job | None: ...
    def cache_clear(self) -> None: ...
    def cache_invalidate(self, tag: str) -> int: ...
    def cache_stats(self) -> dict[str, int]: ...

def process_report() -> str: ...
def after_fork_in_child() -> None: ...
def at_exit() -> None: ...
