"""The clients: the SDK's own, with farthing between them and the upstream.

A subclass of each SDK client, with the SDK's name (the User-Agent is built from it). What is overridden: `chat`,
`responses` and `embeddings` (`resources/`), and the three seams below `request()` (`transport.py`).
"""

from __future__ import annotations

import functools
import inspect
import warnings
from collections.abc import Callable
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypeVar, cast, overload

import openai

from . import sdk  # noqa: F401 first: what follows needs insides that other versions do not have

# isort: split
from . import _core, transport
from .budget import BudgetLine, lines
from .exceptions import FarthingWarning, explain
from .labels import Label, labels
from .ledger import Savings
from .policy import Policy
from .receipts import Receipt, last_receipt
from .seams import resource
from .session import CacheControl, Session

if TYPE_CHECKING:
    from typing_extensions import Self, Unpack

    from . import signatures
    from .many import AsyncMany, Many
    from .signatures import PolicyLike

__all__ = ["AsyncAzureOpenAI", "AsyncOpenAI", "AzureOpenAI", "OpenAI", "savings", "wrap"]

_T = TypeVar("_T")


def _init(
    original: Any,
    self: Any,
    *args: Any,
    policy: PolicyLike = None,
    reload: bool = False,
    _farthing: Session | None = None,
    **kwargs: Any,
) -> None:
    # First, so that a policy with a mistake in it leaves no half-made client behind.
    self._farthing = _farthing if _farthing is not None else Session.of(policy, watch=reload)
    original(self, *args, **kwargs)


def _copy(original: Any, self: Any, *args: Any, policy: PolicyLike = None, reload: bool = False, **kwargs: Any) -> Any:
    session = self._farthing
    if policy is not None:
        session = Session.of(policy, session.ledger, watch=reload)
    if _takes_extra(original):
        kwargs["_extra_kwargs"] = {"_farthing": session, **(kwargs.get("_extra_kwargs") or {})}
    made = original(self, *args, **kwargs)
    if isinstance(made, _Mixin):
        made._farthing = session
    return made


@functools.cache
def _takes_extra(copy: Any) -> bool:
    """Whether it knows the SDK's way to what a subclass needs; a `copy` of the user's own may not."""
    return "_extra_kwargs" in inspect.signature(copy).parameters


def _with_policy(original: Callable[..., Any], ours: Callable[..., Any]) -> Callable[..., Any]:
    """The SDK's method, or that of a user's subclass, with `policy=` and `reload=`, also in its signature."""

    @functools.wraps(original)
    def method(self: Any, *args: Any, **kwargs: Any) -> Any:
        return ours(original, self, *args, **kwargs)

    signature = inspect.signature(original)
    given = list(signature.parameters.values())
    policy = inspect.Parameter("policy", inspect.Parameter.KEYWORD_ONLY, default=None, annotation="PolicyLike")
    own = [policy, inspect.Parameter("reload", inspect.Parameter.KEYWORD_ONLY, default=False, annotation="bool")]
    end = len(given) - (given[-1].kind is inspect.Parameter.VAR_KEYWORD)
    given[end:end] = [parameter for parameter in own if parameter.name not in signature.parameters]
    method.__signature__ = signature.replace(parameters=given)  # type: ignore[attr-defined]
    return method


def _face(kind: type[_T]) -> type[_T]:
    """Gives a client class, made of a mixin and an SDK class, the SDK's signatures with `policy=`."""
    original: Any = kind.__bases__[1]
    face: Any = kind
    face.__init__ = _with_policy(original.__init__, _init)
    face.copy = _with_policy(original.copy, _copy)
    # One method in the SDK, and maybe not in a user's subclass.
    one = original.with_options is original.copy
    face.with_options = face.copy if one else _with_policy(original.with_options, _copy)
    return kind


class _Mixin:
    """What sync and async clients have in common."""

    _farthing: Session

    @property
    def cache(self) -> CacheControl:
        """The exact cache: `clear()`, `invalidate(tag=...)`, `stats()`."""
        return CacheControl(self._farthing)

    @property
    def policy(self) -> Policy:
        """The policy that this client works by."""
        return self._farthing.policy

    def reload(self) -> None:
        """Reads the policy's file again, for this client and its copies. Calls in flight end with what they began with;
        answers in memory stay where the cache's part of the policy is the same.

        Raises:
            PolicyError: the policy was not read from a file, or has a mistake in it: then the running one stays.
        """
        self._farthing.reload()

    def savings(self) -> Savings:
        """The bill of this client and its copies: spent and saved, USD, by model and by tag."""
        return Savings.from_json(self._farthing.ledger.report())

    def budget(self) -> tuple[BudgetLine, ...]:
        """How the policy's budgets stand, this client's and those that it shares: USD spent, reserved, left. With a
        cache file, all processes that share it are in there."""
        return lines(self._farthing.engine.budget(self._farthing.ledger))

    def labels(self) -> list[Label]:
        """What the traffic of this client's policy taught, the oldest first: its escalations and shadows. With a cache
        file, all processes that share it are in there (100,000 at most, and a quarter of the file's bound); without
        one, 10,000 of this process. Clearing the cache leaves them; they go with the file.

        Raises:
            CacheError: the cache file cannot be read.
        """
        return labels(self._farthing.engine)

    def last_receipt(self) -> Receipt | None:
        """The receipt of this client's newest call in this thread or task, also of one that failed; None if there was
        none."""
        return last_receipt(self._farthing.number)

    if not TYPE_CHECKING:

        def _build_request(self, options, **kwargs):
            return transport.build(self, super()._build_request, options, kwargs)

        def _farthing_request(self, options):
            return transport.plain_request(super()._build_request, options)

        def _process_response_data(self, *, data, cast_to, response):
            made = super()._process_response_data(data=data, cast_to=cast_to, response=response)
            transport.note(made, response)
            return made


class _SyncMixin(_Mixin):
    @property
    def farthing(self) -> Many:
        """Calls about many questions at once: `client.farthing.map(...)`."""
        from .many import Many

        return Many(cast(openai.OpenAI, self))

    if not TYPE_CHECKING:

        @resource
        def chat(self):
            from .resources.chat import Chat

            return Chat(self)

        @resource
        def responses(self):
            from .resources.responses import Responses

            return Responses(self)

        @resource
        def embeddings(self):
            from .resources.embeddings import Embeddings

            return Embeddings(self)

        def close(self):
            super().close()
            self._farthing.written()

        def _prepare_request(self, request):
            if not transport.is_named(request):
                super()._prepare_request(request)

        def _send_request(self, request, *, stream, **kwargs):
            return transport.send(self, super()._send_request, request, stream, kwargs)

        def _process_response(self, *, response, retries_taken=0, **kwargs):
            retries_taken = transport.retries(response, retries_taken)
            made = super()._process_response(response=response, retries_taken=retries_taken, **kwargs)
            transport.note(made, response)
            return made


class _AsyncMixin(_Mixin):
    @property
    def farthing(self) -> AsyncMany:
        """Calls about many questions at once: `await client.farthing.map(...)`."""
        from .many import AsyncMany

        return AsyncMany(cast(openai.AsyncOpenAI, self))

    if not TYPE_CHECKING:

        @resource
        def chat(self):
            from .resources.chat import AsyncChat

            return AsyncChat(self)

        @resource
        def responses(self):
            from .resources.responses import AsyncResponses

            return AsyncResponses(self)

        @resource
        def embeddings(self):
            from .resources.embeddings import AsyncEmbeddings

            return AsyncEmbeddings(self)

        async def close(self):
            await super().close()
            self._farthing.written(wait=False)

        async def _prepare_request(self, request):
            if not transport.is_named(request):
                await super()._prepare_request(request)

        async def _send_request(self, request, *, stream, **kwargs):
            return await transport.send_async(self, super()._send_request, request, stream, kwargs)

        async def _process_response(self, *, response, retries_taken=0, **kwargs):
            retries_taken = transport.retries(response, retries_taken)
            made = await super()._process_response(response=response, retries_taken=retries_taken, **kwargs)
            transport.note(made, response)
            return made


@_face
class OpenAI(_SyncMixin, openai.OpenAI):
    """`openai.OpenAI` with farthing in it; takes `policy=` besides the SDK's arguments.

    Args:
        policy: a `Policy`, a mapping with its names, or the path of a TOML file. Without it, the file that
            `FARTHING_POLICY` names; without that, the exact cache, single-flight and the ledger.
        reload: look at the policy's file on calls, at most once a second, and take it over when it has changed. An edit
            with a mistake in it is warned about once, and the running policy stays.

    Raises:
        PolicyError: the policy has a mistake in it.
    """

    if TYPE_CHECKING:

        def __init__(
            self, *, policy: PolicyLike = None, reload: bool = False, **kwargs: Unpack[signatures.Sync]
        ) -> None: ...
        def copy(
            self, *, policy: PolicyLike = None, reload: bool = False, **kwargs: Unpack[signatures.SyncCopy]
        ) -> Self: ...

        with_options = copy


@_face
class AsyncOpenAI(_AsyncMixin, openai.AsyncOpenAI):
    """`openai.AsyncOpenAI` with farthing in it; see `OpenAI`."""

    if TYPE_CHECKING:

        def __init__(
            self, *, policy: PolicyLike = None, reload: bool = False, **kwargs: Unpack[signatures.Async]
        ) -> None: ...
        def copy(
            self, *, policy: PolicyLike = None, reload: bool = False, **kwargs: Unpack[signatures.AsyncCopy]
        ) -> Self: ...

        with_options = copy


@_face
class AzureOpenAI(_SyncMixin, openai.AzureOpenAI):
    """`openai.AzureOpenAI` with farthing in it; see `OpenAI`."""

    if TYPE_CHECKING:

        def __init__(
            self, *, policy: PolicyLike = None, reload: bool = False, **kwargs: Unpack[signatures.SyncAzure]
        ) -> None: ...
        def copy(
            self, *, policy: PolicyLike = None, reload: bool = False, **kwargs: Unpack[signatures.SyncAzureCopy]
        ) -> Self: ...

        with_options = copy


@_face
class AsyncAzureOpenAI(_AsyncMixin, openai.AsyncAzureOpenAI):
    """`openai.AsyncAzureOpenAI` with farthing in it; see `OpenAI`."""

    if TYPE_CHECKING:

        def __init__(
            self, *, policy: PolicyLike = None, reload: bool = False, **kwargs: Unpack[signatures.AsyncAzure]
        ) -> None: ...
        def copy(
            self, *, policy: PolicyLike = None, reload: bool = False, **kwargs: Unpack[signatures.AsyncAzureCopy]
        ) -> Self: ...

        with_options = copy


_OURS: dict[type, type] = {
    openai.OpenAI: OpenAI,
    openai.AsyncOpenAI: AsyncOpenAI,
    openai.AzureOpenAI: AzureOpenAI,
    openai.AsyncAzureOpenAI: AsyncAzureOpenAI,
}


@overload
def wrap(client: openai.AzureOpenAI, *, policy: PolicyLike = ..., reload: bool = ...) -> AzureOpenAI: ...  # type: ignore[overload-overlap]
@overload
def wrap(client: openai.AsyncAzureOpenAI, *, policy: PolicyLike = ..., reload: bool = ...) -> AsyncAzureOpenAI: ...  # type: ignore[overload-overlap]
@overload
def wrap(client: openai.OpenAI, *, policy: PolicyLike = ..., reload: bool = ...) -> OpenAI: ...
@overload
def wrap(client: openai.AsyncOpenAI, *, policy: PolicyLike = ..., reload: bool = ...) -> AsyncOpenAI: ...
def wrap(client: Any, *, policy: PolicyLike = None, reload: bool = False) -> Any:
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
    session = Session.of(policy, watch=reload)
    kind = type(client)
    if not isinstance(client, _Mixin):
        if kind not in _OURS:
            mixin = _SyncMixin if isinstance(client, openai.OpenAI) else _AsyncMixin
            _OURS[kind] = _face(type(kind.__name__, (mixin, kind), {"__module__": kind.__module__}))
        kind = _OURS[kind]
    _warn_of_patches(client)
    return _twin(client, kind, session)


def _twin(client: Any, kind: type[Any], session: Session) -> Any:
    """The same client, with its HTTP pool, as a `kind` with `session`."""
    twin = object.__new__(kind)
    for name, value in vars(client).items():
        # Resources made for the old client hold the old client.
        if not isinstance(getattr(kind, name, None), cached_property) and name != "_farthing_places":
            vars(twin)[name] = value
    vars(twin)["_farthing"] = session
    return twin


def _warn_of_patches(client: Any) -> None:
    """Resources are made anew for the wrapped client: what was set on the old ones would be lost in silence."""
    for path in ("chat.completions", "responses", "embeddings"):
        resource = client
        for name in path.split("."):
            resource = vars(resource).get(name)
            if resource is None:
                break
        else:
            if "create" in vars(resource):
                message = f"the wrapped client does not call what was set as {path}.create on the original"
                warnings.warn(
                    f"{message}\nhint: wrap first, then patch what wrap() returns", FarthingWarning, stacklevel=3
                )


def packing_twin(client: Any, model: str) -> Any:
    """The client whose policy packs calls to `model`: itself, or one like it with the same cache, ledger and HTTP pool.
    Its answers are set apart: nobody who asks alone gets one that was asked for in a pack."""
    from .resources.chat import AsyncCompletions, Completions

    session, resource = client._farthing.packing(model), client.chat.completions
    is_ours = isinstance(resource, Completions | AsyncCompletions) and "create" not in vars(resource)
    # A mock that stands there is not to be passed by.
    return _twin(client, type(client), session) if is_ours and session is not client._farthing else client


def savings() -> Savings:
    """The bill of all clients of this process, those that are gone included."""
    return Savings.from_json(_core.process_report())
