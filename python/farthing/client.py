"""The clients: the SDK's own, with farthing between them and the upstream.

A subclass of each SDK client, with the SDK's name (the User-Agent is built from it). What is overridden: `chat`,
`responses` and `embeddings` (`resources.py`), and the three seams below `request()` (`transport.py`).
"""

from __future__ import annotations

import copy as copying
import os
from collections.abc import Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypeVar

import openai

from . import _core, resources, transport
from .exceptions import UnsupportedSDKError, explain
from .policy import Policy
from .receipts import Receipt, last_receipt
from .ledger import Savings
from .session import CacheControl, Session

__all__ = ["AsyncAzureOpenAI", "AsyncOpenAI", "AzureOpenAI", "OpenAI", "savings", "wrap"]

PolicyLike = Policy | str | os.PathLike[str] | Mapping[str, Any] | None
_Client = TypeVar("_Client", bound="openai.OpenAI | openai.AsyncOpenAI")


def _check_version(version: str) -> None:
    numbers = tuple(int(part) for part in version.split(".")[:2] if part.isdigit())
    if not (2, 31) <= numbers < (4, 0):
        raise UnsupportedSDKError(
            explain(
                "farthing does not know this version of the OpenAI SDK",
                where="openai",
                value=version,
                hint='pip install "openai>=2.31,<4"',
            )
        )


_check_version(openai.__version__)


class _Mixin:
    """What sync and async clients have in common."""

    _farthing: Session

    def __init__(self, *args: Any, policy: PolicyLike = None, _farthing: Session | None = None, **kwargs: Any) -> None:
        # First, so that a policy with a mistake in it leaves no half-made client behind.
        self._farthing = _farthing if _farthing is not None else Session(Policy.resolve(policy))
        super().__init__(*args, **kwargs)

    @property
    def cache(self) -> CacheControl:
        """The exact cache: `clear()`, `invalidate(tag=...)`, `stats()`."""
        return CacheControl(self._farthing)

    @property
    def policy(self) -> Policy:
        """The policy that this client works by."""
        return self._farthing.policy

    def savings(self) -> Savings:
        """The bill of this client and its copies: spent and saved, USD, by model and by tag."""
        return Savings.from_json(self._farthing.ledger.report())

    def last_receipt(self) -> Receipt | None:
        """The receipt of the newest call in this thread or task; None if there was none."""
        return last_receipt()

    if not TYPE_CHECKING:

        def copy(self, *, policy=None, _extra_kwargs=None, **kwargs):
            session = self._farthing
            if policy is not None:
                session = Session(Policy.resolve(policy), session.ledger)
            return super().copy(_extra_kwargs={"_farthing": session, **(_extra_kwargs or {})}, **kwargs)

        with_options = copy

        def _build_request(self, options, **kwargs):
            return transport.build(self, super()._build_request, options, kwargs)

        def _process_response_data(self, *, data, cast_to, response):
            made = super()._process_response_data(data=data, cast_to=cast_to, response=response)
            transport.note(made, response)
            return made


class _SyncMixin(_Mixin):
    if not TYPE_CHECKING:

        @cached_property
        def chat(self):
            return resources.Chat(self)

        @cached_property
        def responses(self):
            return resources.Responses(self)

        @cached_property
        def embeddings(self):
            return resources.Embeddings(self)

        def _send_request(self, request, *, stream, **kwargs):
            return transport.send(self, super()._send_request, request, stream, kwargs)

        def _process_response(self, *, response, retries_taken=0, **kwargs):
            retries_taken = transport.retries(response, retries_taken)
            made = super()._process_response(response=response, retries_taken=retries_taken, **kwargs)
            transport.note(made, response)
            return made


class _AsyncMixin(_Mixin):
    if not TYPE_CHECKING:

        @cached_property
        def chat(self):
            return resources.AsyncChat(self)

        @cached_property
        def responses(self):
            return resources.AsyncResponses(self)

        @cached_property
        def embeddings(self):
            return resources.AsyncEmbeddings(self)

        async def _send_request(self, request, *, stream, **kwargs):
            return await transport.send_async(self, super()._send_request, request, stream, kwargs)

        async def _process_response(self, *, response, retries_taken=0, **kwargs):
            retries_taken = transport.retries(response, retries_taken)
            made = await super()._process_response(response=response, retries_taken=retries_taken, **kwargs)
            transport.note(made, response)
            return made


class OpenAI(_SyncMixin, openai.OpenAI):
    """`openai.OpenAI` with farthing in it; takes `policy=` besides the SDK's arguments.

    Args:
        policy: a `Policy`, a mapping with its names, or the path of a TOML file. Without it, the file that
            `FARTHING_POLICY` names; without that, the exact cache, single-flight and the ledger.

    Raises:
        PolicyError: the policy has a mistake in it.
    """


class AsyncOpenAI(_AsyncMixin, openai.AsyncOpenAI):
    """`openai.AsyncOpenAI` with farthing in it; see `OpenAI`."""


class AzureOpenAI(_SyncMixin, openai.AzureOpenAI):
    """`openai.AzureOpenAI` with farthing in it; see `OpenAI`."""


class AsyncAzureOpenAI(_AsyncMixin, openai.AsyncAzureOpenAI):
    """`openai.AsyncAzureOpenAI` with farthing in it; see `OpenAI`."""


_OURS: dict[type, type] = {
    openai.OpenAI: OpenAI,
    openai.AsyncOpenAI: AsyncOpenAI,
    openai.AzureOpenAI: AzureOpenAI,
    openai.AsyncAzureOpenAI: AsyncAzureOpenAI,
}


def wrap(client: _Client, *, policy: PolicyLike = None) -> _Client:
    """A client that does what `client` does, through farthing. `client` itself stays as it is; both use one HTTP pool.

    Raises:
        TypeError: `client` is not an OpenAI client.
        PolicyError: the policy has a mistake in it.
    """
    if not isinstance(client, (openai.OpenAI, openai.AsyncOpenAI)):
        raise TypeError(
            explain(
                "farthing.wrap needs an OpenAI client",
                value=type(client).__name__,
                hint="wrap(openai.OpenAI(...)) or wrap(openai.AsyncOpenAI(...))",
            )
        )
    session = Session(Policy.resolve(policy))
    kind = type(client)
    if not isinstance(client, _Mixin):
        if kind not in _OURS:
            mixin = _SyncMixin if isinstance(client, openai.OpenAI) else _AsyncMixin
            _OURS[kind] = type(kind.__name__, (mixin, kind), {"__module__": kind.__module__})
        kind = _OURS[kind]
    wrapped = copying.copy(client)
    for name in list(vars(wrapped)):
        # Resources made for the old client hold the old client.
        if isinstance(getattr(kind, name, None), cached_property):
            del vars(wrapped)[name]
    wrapped.__class__ = kind  # type: ignore[assignment]
    wrapped._farthing = session  # type: ignore[union-attr]
    return wrapped


def savings() -> Savings:
    """The bill of all clients of this process, those that are gone included."""
    return Savings.from_json(_core.process_report())
