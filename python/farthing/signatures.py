"""What editors and type checkers see of the clients' constructors: the SDK's arguments and `policy`.

Never imported at run time: there, the signatures are the installed SDK's own (`client.py`).
"""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, TypeAlias

import httpx
import openai
from openai import NotGiven, Timeout
from typing_extensions import TypedDict

from .policy import Policy

PolicyLike: TypeAlias = "Policy | str | os.PathLike[str] | Mapping[str, Any] | None"


class _Shared(TypedDict, total=False):
    admin_api_key: str | None
    organization: str | None
    project: str | None
    webhook_secret: str | None
    websocket_base_url: str | httpx.URL | None
    timeout: float | Timeout | NotGiven | None
    max_retries: int
    default_headers: Mapping[str, str] | None
    default_query: Mapping[str, object] | None


class _Plain(_Shared, total=False):
    workload_identity: Any
    provider: Any
    base_url: str | httpx.URL | NotGiven | None
    data_residency: Any


class _Azure(_Shared, total=False):
    azure_endpoint: str | None
    azure_deployment: str | None
    api_version: str | None
    azure_ad_token: str | None
    base_url: str | None


class Sync(_Plain, total=False):
    api_key: str | Callable[[], str] | None
    http_client: httpx.Client | Any | None


class Async(_Plain, total=False):
    api_key: str | Callable[[], Awaitable[str]] | None
    http_client: httpx.AsyncClient | Any | None


class SyncAzure(_Azure, total=False):
    api_key: str | Callable[[], str] | None
    azure_ad_token_provider: openai.lib.azure.AzureADTokenProvider | None
    http_client: httpx.Client | Any | None


class AsyncAzure(_Azure, total=False):
    api_key: str | Callable[[], Awaitable[str]] | None
    azure_ad_token_provider: openai.lib.azure.AsyncAzureADTokenProvider | None
    http_client: httpx.AsyncClient | Any | None
