"""What happened to one call: `farthing.receipt(response)`. The facts are the core's, sums are ledger.py's."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextvars import ContextVar
from dataclasses import dataclass, field
from decimal import Decimal
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ._core import ReceiptCell

__all__ = ["Attempt", "Compressed", "Packed", "Receipt", "Routed", "Rung", "Shortening", "receipt"]

# The name under which a receipt hangs on a response, next to the SDK's own `_request_id`.
ATTRIBUTE = "_farthing_receipt"

# By the number of the session (`session.py`): the newest call of each client family in this thread or task. Replaced,
# not changed, as tasks inherit it.
_last: ContextVar[Mapping[int, ReceiptCell]] = ContextVar("farthing_last_receipt", default=MappingProxyType({}))
_MOST_SESSIONS = 16


@dataclass(frozen=True)
class Attempt:
    """One request that went to an upstream.

    Attributes:
        upstream: its name in the policy; "default" is the client's own base URL and key.
        model: the model that was asked there.
        ending: "answered"; "refused" (an error status); "failed" (no answer); "abandoned" (nobody waited any more, or
            another answer was taken); None = under way.
        status: of the answer; None = there was none.
        error: what it failed with ("read_timeout", "connect_error", ...); None = there was an answer.
        seconds: until its answer was whole, or it ended otherwise.
        prompt_tokens, completion_tokens: tokens that were charged.
        cost: USD; 0 where nobody bills; None = unknown: no price, or nobody said what was used.
        stage: the stage whose own question it was (a classifier's, a judge's); None = it was for the answer.
    """

    upstream: str
    model: str
    ending: str | None = None
    status: int | None = None
    error: str | None = None
    seconds: float = 0.0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cost: Decimal | None = None
    stage: str | None = None


@dataclass(frozen=True)
class Routed:
    """Which tier a call was sent to, and why.

    Attributes:
        tier: its name in `[route] tiers`.
        model: its model or alias.
        by: "rules", "learned", "llm", "callable" (who chose), "gate" (others could not serve it), "affinity" (the
            conversation stays), "default".
        confidence: 0 to 1; None = nobody said.
        reasons: in words.
        features: what the request looks like (docs/stages/route.md has the names).
    """

    tier: str
    model: str
    by: str
    confidence: float | None = None
    reasons: tuple[str, ...] = ()
    features: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Rung:
    """One answer of the ladder.

    Attributes:
        model: model or alias, as the ladder has it.
        score: 0 to 1, after calibration; None = it was not judged: the last rung, a failure, or one passed over.
        scores: by scorer, 0 to 1; functions are "callable", "callable 2", and so on, in the policy's order.
        accepted: whether it became the answer.
        reasons: what spoke against it, or why it was not asked.
        cost: USD; None = unknown, or (the last rung) on the attempt.
    """

    model: str
    score: float | None = None
    scores: Mapping[str, float] = field(default_factory=dict)
    accepted: bool = False
    reasons: tuple[str, ...] = ()
    cost: Decimal | None = None


@dataclass(frozen=True)
class Packed:
    """A call that shared its request with others.

    Attributes:
        items: questions in the request.
        place: the call's place among them, from 1.
        saved_tokens: of what all of them begin with, that did not have to be sent again for each.
        overhead_tokens: what the pack took besides the questions: instruction, fences, ids, a schema.
    """

    items: int
    place: int
    saved_tokens: int
    overhead_tokens: int


@dataclass(frozen=True)
class Shortening:
    """A text that was said in fewer tokens.

    Attributes:
        part: of the prompt: "system", "history", "tools", "documents" or "last_user".
        method: "structural", "extractive", "summarise" or "callable".
        before, after: its tokens, counted here.
    """

    part: str
    method: str
    before: int
    after: int


@dataclass(frozen=True)
class Compressed:
    """A call whose prompt was shortened.

    Attributes:
        steps: what was shortened for this call; a message that was sent before, shorter, is not among them.
        saved_tokens: tokens that the prompt is shorter by, in all.
        saved: USD that they would have cost, an estimate, with the provider's discount for what it has in its cache;
            None = the price is unknown. What a summary cost is in the receipt's `overhead`.
        reordered_tokens: tokens that the provider would have found in its cache if the prompt began with what comes
            again and again.
    """

    steps: tuple[Shortening, ...]
    saved_tokens: int
    saved: Decimal | None
    reordered_tokens: int


@dataclass(frozen=True)
class Receipt:
    """The facts of one call, as they were when this object was made.

    Attributes:
        outcome: "hit" (from the cache), "joined" (an equal call in flight answered), "miss" (asked and paid), "bypass"
            (the cache was off, or not meant for this call), "error"; None = not known yet.
        model_asked, model_answered: as the request named it, and as the answer does.
        tag: the tag that the call ran under.
        prompt_tokens, completion_tokens, cached_tokens: tokens of the answer, paid for or (hit, joined) not.
        estimated: the tokens were not counted by the upstream but estimated.
        cost: USD charged for this call, `overhead` included; None = a price is unknown.
        saved: USD that were not charged thanks to farthing, after `overhead`; below 0: the call cost more with
            farthing; None = a price is unknown, or there was nothing to save. Where another model answered than the
            one that was asked it is an estimate: the asked model's price for the tokens of the answer.
        attempts: the requests that went to upstreams for this call, retries included, in the order in which they left.
        notes: what farthing changed about this call, or could not do for it.
        age: seconds since the answer was stored; None = it is new.
        stages: (stage, seconds in it with everything below it), outermost first.
        route: which tier the stage route chose; None = it had no say.
        rungs: the answers of the ladder, in the order in which they were asked.
        pack: the request that it shared with others; None = it was asked alone, or not at all. `cost` and the tokens
            are its part, and an estimate; they add up to what was billed.
        compress: what was said in fewer tokens; None = the stage had no say.
        overhead: USD spent on the call beyond its answer (classifier, judge, rejected drafts); None = a price is
            unknown.
        complete: False while a stream is still running.
    """

    outcome: str | None = None
    model_asked: str = ""
    model_answered: str | None = None
    tag: str | None = None
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cached_tokens: int = 0
    estimated: bool = False
    cost: Decimal | None = None
    saved: Decimal | None = None
    attempts: tuple[Attempt, ...] = ()
    notes: tuple[str, ...] = ()
    age: float | None = None
    stages: tuple[tuple[str, float], ...] = ()
    route: Routed | None = None
    rungs: tuple[Rung, ...] = ()
    pack: Packed | None = None
    compress: Compressed | None = None
    overhead: Decimal | None = Decimal(0)
    complete: bool = False

    @property
    def hit(self) -> bool:
        """Whether the answer cost nothing: from the cache, or from an equal call in flight."""
        return self.outcome in ("hit", "joined")

    @property
    def answered(self) -> Attempt | None:
        """The attempt that brought the answer; None for a hit, a joined call, an error."""
        good = (None, "answered")
        own = (made for made in reversed(self.attempts) if made.stage is None)
        answers = (made for made in own if made.ending in good and (made.status or 500) < 400)
        return next(answers, None)

    @property
    def upstream(self) -> str | None:
        """The name of the upstream that answered: "default" is the client's own; None as for `answered`."""
        return None if self.answered is None else self.answered.upstream


def receipt(response: object) -> Receipt | None:
    """The receipt of a response, a raw response or a stream; None if the call did not go through farthing.

    A stream's receipt is complete once the stream has ended.
    """
    # The SDK's stream helpers hold the stream that the call returned.
    response = getattr(response, "_raw_stream", response)
    cell = getattr(response, ATTRIBUTE, None)
    if cell is None:
        extensions = getattr(getattr(response, "http_response", response), "extensions", None)
        cell = extensions.get("farthing_receipt") if isinstance(extensions, Mapping) else None
    return None if cell is None else snapshot(cell)


def snapshot(cell: ReceiptCell | Mapping[str, Any]) -> Receipt:
    """A receipt as it stands now; of a response that was pickled, as it stood then."""
    return _restore(cell if isinstance(cell, Mapping) else cell.facts())


def last_receipt(session: int) -> Receipt | None:
    """The receipt of a session's newest call in this thread or task; None if there was none."""
    cell = _last.get().get(session)
    return None if cell is None else snapshot(cell)


def remember(session: int, cell: ReceiptCell) -> None:
    """Makes a receipt the session's last."""
    known = _last.get()
    if len(known) == 1 and session in known:
        _last.set({session: cell})
        return
    others = [item for item in known.items() if item[0] != session][1 - _MOST_SESSIONS :]
    _last.set({**dict(others), session: cell})


def refused(session: int, error: Exception) -> None:
    """A call that a budget refused: its receipt is the session's last, and hangs on the error."""
    cell = vars(error).pop("receipt", None)
    if cell is not None:
        attach(error, cell)
        remember(session, cell)


def attach(target: Any, cell: ReceiptCell) -> None:
    """Hangs a receipt on a response object, if it can carry one. Not a field: dumps and comparisons do not see it."""
    try:
        object.__setattr__(target, ATTRIBUTE, cell)
    except (AttributeError, TypeError):  # str, dict: the caller asked for a type of its own
        pass


def _restore(facts: Mapping[str, Any]) -> Receipt:
    known = dict(facts)
    for name in ("cost", "saved"):
        known[name] = _usd(known[name])
    known["attempts"] = tuple(Attempt(**{**made, "cost": _usd(made["cost"])}) for made in known["attempts"])
    known["overhead"] = _usd(known["overhead"])
    if known["route"] is not None:
        route = known["route"]
        features = json.loads(route["features"]) if route["features"] else {}
        known["route"] = Routed(**{**route, "reasons": tuple(route["reasons"]), "features": features})
    rungs = [{**made, "reasons": tuple(made["reasons"]), "cost": _usd(made["cost"])} for made in known["rungs"]]
    known["rungs"] = tuple(Rung(**made) for made in rungs)
    if known["pack"] is not None:
        known["pack"] = Packed(**known["pack"])
    if known["compress"] is not None:
        made = known["compress"]
        steps = tuple(Shortening(*step) for step in made["steps"])
        known["compress"] = Compressed(**{**made, "steps": steps, "saved": _usd(made["saved"])})
    known["notes"] = tuple(known["notes"])
    known["stages"] = tuple((str(name), float(seconds)) for name, seconds in known["stages"])
    return Receipt(**known)


def _usd(amount: str | None) -> Decimal | None:
    return None if amount is None else Decimal(amount)
