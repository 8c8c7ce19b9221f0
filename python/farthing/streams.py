"""Streams of the plain path: one that is stored, one that is on its way. Both are the SDK's `Stream` to whoever looks.

Their chunks are made in Rust; what is odd about an event (an error in it, a shape that does not validate) is read by
the SDK's own code.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from functools import cached_property
from typing import Any

import openai
from openai import AsyncStream, Stream

from . import _core
from .answers import failure_in_stream, forked, http_response, wait_async
from .receipts import attach

__all__ = ["LIVE", "STORED"]


class _Ours:
    """What our streams have in common with the SDK's, and nothing of its network."""

    _call: Any
    _client: Any
    _iterator: Any
    _options = None

    def _begin(self, call: Any, receipt: _core.ReceiptCell) -> None:
        self._call = call
        self._cast_to = call.kind.chunk
        self._client = call.client
        attach(self, receipt)

    @cached_property
    def _decoder(self) -> Any:
        return self._client._make_sse_decoder()


class _Stored(_Ours):
    _hit: _core.Hit

    @cached_property
    def response(self) -> Any:
        return self._call.stored_response(self._hit, streams=True)


class StoredStream(_Stored, Stream[Any]):  # type: ignore[misc,override]
    """A stream of an answer that is stored."""

    def __init__(self, call: Any, hit: _core.Hit, chunks: list[Any]) -> None:
        self._begin(call, hit.receipt)
        self._hit = hit
        self._iterator = iter(chunks)

    def close(self) -> None:
        self._iterator = iter(())


class AsyncStoredStream(_Stored, AsyncStream[Any]):  # type: ignore[misc,override]
    """The same for async clients."""

    def __init__(self, call: Any, hit: _core.Hit, chunks: list[Any]) -> None:
        self._begin(call, hit.receipt)
        self._hit = hit
        self._iterator = self._each(chunks)

    @staticmethod
    async def _each(chunks: list[Any]) -> Any:
        for chunk in chunks:
            yield chunk

    async def close(self) -> None:
        self._iterator = self._each([])


class _Live(_Ours):
    _is_async: bool
    _answer: _core.Answer
    _pipe: _core.EventPipe

    def __init__(self, call: Any, answer: _core.Answer) -> None:
        assert answer.pipe is not None
        self._begin(call, answer.receipt)
        self._answer = answer
        self._pipe = answer.pipe
        self._reader = _core.ChunkReader(answer.pipe, call.kind.chunk_builder(), self._slow)
        self._read = self._closed = self._consumed = False
        self._iterator = self.__stream__()

    @cached_property
    def response(self) -> Any:
        made = http_response(self._call, self._answer, is_async=self._is_async)
        made.is_closed, made.is_stream_consumed = self._closed, self._consumed
        return made

    def _slow(self, raw: bytes) -> list[Any]:
        """The chunks in one event's bytes, read by the SDK."""
        call = self._call
        response = call.httpx.Response(200, content=raw, request=call.request)
        return list(Stream(cast_to=call.kind.chunk, response=response, client=call.client))

    def _end(self, consumed: bool) -> None:
        """Lets go of the connection, and notes it where the SDK's stream would show it."""
        self._pipe.close()
        self._closed, self._consumed = True, self._consumed or consumed
        made = vars(self).get("response")
        if made is not None:
            made.is_closed, made.is_stream_consumed = True, self._consumed

    def _check_open(self) -> None:
        if self._closed and not self._read:
            raise self._call.httpx.StreamClosed()
        self._read = True

    def __stream__(self) -> Any:
        raise NotImplementedError


_NOTHING_YET: Any = object()
_END: Any = object()


class LiveStream(_Live, Stream[Any]):  # type: ignore[misc,override]
    """A stream as it comes in."""

    _is_async = False

    def __iter__(self) -> Iterator[Any]:
        return iter(self._iterator)

    def __next__(self) -> Any:
        return next(self._iterator)

    def __stream__(self) -> Iterator[Any]:
        # A generator rather than the reader itself: it lets go of the connection, however it ends.
        self._check_open()
        ended = False
        try:
            yield from self._reader
            ended = True
        except _core.SendError as error:
            failed = failure_in_stream(self._call, error)
            raise failed from failed.__cause__
        except _core.CoreError as error:
            raise forked(error) from error
        finally:
            self._end(ended)

    def close(self) -> None:
        self._end(False)


class AsyncLiveStream(_Live, AsyncStream[Any]):  # type: ignore[misc,override]
    """The same for async clients."""

    _is_async = True

    def __aiter__(self) -> AsyncIterator[Any]:
        return aiter(self._iterator)

    async def __anext__(self) -> Any:
        return await self._iterator.__anext__()

    def __stream__(self) -> AsyncIterator[Any]:
        return _AsyncChunks(self)

    async def close(self) -> None:
        self._end(False)


class _AsyncChunks:
    """Not an async generator: asyncio would close one that is left early from outside, while it may be running."""

    def __init__(self, stream: AsyncLiveStream) -> None:
        self._stream = stream
        self._ready = stream._reader.ready

    def __aiter__(self) -> _AsyncChunks:
        return self

    async def __anext__(self) -> Any:
        stream = self._stream
        stream._check_open()
        try:
            while (chunk := self._ready(_NOTHING_YET, _END)) is _NOTHING_YET:
                await wait_async(stream._pipe)
        except _core.SendError as error:
            stream._end(False)
            failed = failure_in_stream(stream._call, error)
            raise failed from failed.__cause__
        except _core.CoreError as error:
            raise forked(error) from error
        except BaseException:
            stream._end(False)
            raise
        if chunk is _END:
            stream._end(True)
            raise StopAsyncIteration
        return chunk


STORED: dict[bool, Any] = {False: StoredStream, True: AsyncStoredStream}
"""By whether the client is async."""
LIVE: dict[bool, Any] = {False: LiveStream, True: AsyncLiveStream}
"""By whether the client is async."""

for _kind in (StoredStream, AsyncStoredStream, LiveStream, AsyncLiveStream):
    # To whoever prints one it is the SDK's.
    _name = "AsyncStream" if issubclass(_kind, AsyncStream) else "Stream"
    _kind.__module__, _kind.__name__, _kind.__qualname__ = getattr(openai, _name).__module__, _name, _name
