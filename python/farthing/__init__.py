"""farthing cuts what applications pay for LLM calls, and proves it.

    from farthing import OpenAI          # in place of: from openai import OpenAI

Everything here is loaded when it is first used (PEP 562): `import farthing` costs next to nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .batch_policy import Batch
    from .budget import BudgetLine
    from .call_options import options
    from .client import AsyncAzureOpenAI, AsyncOpenAI, AzureOpenAI, OpenAI, savings, wrap
    from .compress_policy import Compress, Summarise
    from .escalate_policy import Agreement, Escalate, Judge
    from .exceptions import (
        BudgetExceeded,
        CacheError,
        DataError,
        FarthingError,
        FarthingWarning,
        LocalModelsError,
        OptionsError,
        PolicyError,
        QuestionsError,
        UnsupportedSDKError,
    )
    from .hook_requests import CompressRequest, Draft, RouteRequest
    from .labels import Label
    from .ledger import Savings
    from .policy import Budget, Cache, ModelPrice, Policy
    from .receipts import Attempt, Compressed, Packed, Receipt, Routed, Rung, Shortening, receipt
    from .route_policy import Classifier, Route, Rules
    from .tokens import TokenCount, count_tokens
    from .upstream_policy import Adapt, Alias, Breaker, Fallback, Hedge, Timeouts, Upstream

__all__ = [
    "Adapt",
    "Agreement",
    "Alias",
    "AsyncAzureOpenAI",
    "AsyncOpenAI",
    "Attempt",
    "AzureOpenAI",
    "Batch",
    "Breaker",
    "Budget",
    "BudgetExceeded",
    "BudgetLine",
    "Cache",
    "CacheError",
    "Classifier",
    "Compress",
    "CompressRequest",
    "Compressed",
    "DataError",
    "Draft",
    "Escalate",
    "Fallback",
    "FarthingError",
    "FarthingWarning",
    "Hedge",
    "Judge",
    "Label",
    "LocalModelsError",
    "ModelPrice",
    "OpenAI",
    "OptionsError",
    "Packed",
    "Policy",
    "PolicyError",
    "QuestionsError",
    "Receipt",
    "Route",
    "RouteRequest",
    "Routed",
    "Rules",
    "Rung",
    "Savings",
    "Shortening",
    "Summarise",
    "Timeouts",
    "TokenCount",
    "UnsupportedSDKError",
    "Upstream",
    "__version__",
    "count_tokens",
    "options",
    "receipt",
    "savings",
    "wrap",
]

_HOMES = {
    "client": ("AsyncAzureOpenAI", "AsyncOpenAI", "AzureOpenAI", "OpenAI", "savings", "wrap"),
    "batch_policy": ("Batch",),
    "compress_policy": ("Compress", "Summarise"),
    "budget": ("BudgetLine",),
    "escalate_policy": ("Agreement", "Escalate", "Judge"),
    "exceptions": (
        "BudgetExceeded",
        "CacheError",
        "DataError",
        "FarthingError",
        "FarthingWarning",
        "LocalModelsError",
        "OptionsError",
        "PolicyError",
        "QuestionsError",
        "UnsupportedSDKError",
    ),
    "call_options": ("options",),
    "hook_requests": ("CompressRequest", "Draft", "RouteRequest"),
    "labels": ("Label",),
    "ledger": ("Savings",),
    "policy": ("Budget", "Cache", "ModelPrice", "Policy"),
    "receipts": ("Attempt", "Compressed", "Packed", "Receipt", "Routed", "Rung", "Shortening", "receipt"),
    "route_policy": ("Classifier", "Route", "Rules"),
    "tokens": ("TokenCount", "count_tokens"),
    "upstream_policy": ("Adapt", "Alias", "Breaker", "Fallback", "Hedge", "Timeouts", "Upstream"),
}
_HOME = {name: module for module, names in _HOMES.items() for name in names}


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        return version("farthing")
    if name not in _HOME:
        raise AttributeError(f"module 'farthing' has no attribute {name!r}")
    from importlib import import_module

    # No module may have the name of something here: importing it would put the module in that thing's place.
    value = globals()[name] = getattr(import_module(f".{_HOME[name]}", __name__), name)
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
