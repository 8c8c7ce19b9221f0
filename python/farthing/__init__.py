"""farthing cuts what applications pay for LLM calls, and proves it.

    from farthing import OpenAI          # in place of: from openai import OpenAI

Everything here is loaded when it is first used (PEP 562): `import farthing` costs next to nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .client import AsyncAzureOpenAI, AsyncOpenAI, AzureOpenAI, OpenAI, savings, wrap
    from .exceptions import (
        CacheError,
        FarthingError,
        FarthingWarning,
        LocalModelsError,
        OptionsError,
        PolicyError,
        UnsupportedSDKError,
    )
    from .options import options
    from .policy import Cache, ModelPrice, Policy
    from .receipt import Receipt, receipt
    from .savings import Savings

__all__ = [
    "AsyncAzureOpenAI",
    "AsyncOpenAI",
    "AzureOpenAI",
    "Cache",
    "CacheError",
    "FarthingError",
    "FarthingWarning",
    "LocalModelsError",
    "ModelPrice",
    "OpenAI",
    "OptionsError",
    "Policy",
    "PolicyError",
    "Receipt",
    "Savings",
    "UnsupportedSDKError",
    "__version__",
    "options",
    "receipt",
    "savings",
    "wrap",
]

_HOMES = {
    "client": ("AsyncAzureOpenAI", "AsyncOpenAI", "AzureOpenAI", "OpenAI", "savings", "wrap"),
    "exceptions": (
        "CacheError",
        "FarthingError",
        "FarthingWarning",
        "LocalModelsError",
        "OptionsError",
        "PolicyError",
        "UnsupportedSDKError",
    ),
    "options": ("options",),
    "policy": ("Cache", "ModelPrice", "Policy"),
    "receipt": ("Receipt", "receipt"),
    "savings": ("Savings",),
}
_HOME = {name: module for module, names in _HOMES.items() for name in names}


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        return version("farthing")
    if name not in _HOME:
        raise AttributeError(f"module 'farthing' has no attribute {name!r}")
    from importlib import import_module

    # A function may have its module's name (options, receipt, savings): importing the module puts the module here, so
    # the name that users mean is put here afterwards, for every home at once.
    module = import_module(f".{_HOME[name]}", __name__)
    for each in _HOMES[_HOME[name]]:
        globals()[each] = getattr(module, each)
    return globals()[name]


def __dir__() -> list[str]:
    return sorted(__all__)
