"""What editors and type checkers see of the clients' constructors and copies: the SDK's arguments and `policy`.

Never imported at run time: there, the signatures are the installed SDK's own (`client.py`). openai 2.x takes the types
of httpx, 3.x those of httpx2; the one that is not installed is Any to a type checker.
"""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, TypeAlias

import httpx
import httpx2
import openai
from openai import NotGiven, Timeout
from typing_extensions import TypedDict

from .policy import Policy

PolicyLike: TypeAlias = "Policy | str | os.PathLike[str] | Mapping[str, Any] | None"
_URL: TypeAlias = "str | httpx.URL | httpx2.URL"
_Client: TypeAlias = "httpx.Client | httpx2.Client | None"
_AsyncClient: TypeAlias = "httpx.AsyncClient | httpx2.AsyncClient | None"
_Key: TypeAlias = "str | Callable[[], str] | None"
_AsyncKey: TypeAlias = "str | Callable[[], Awaitable[str]] | None"


class _Shared(TypedDict, total=False):
    admin_api_key: str | None
    workload_identity: Any
    organization: str | None
    project: str | None
    webhook_secret: str | None
    websocket_base_url: _URL | None
    timeout: float | Timeout | NotGiven | None
    default_headers: Mapping[str, str] | None
    default_query: Mapping[str, object] | None


class _Made(_Shared, total=False):
    max_retries: int
    _strict_response_validation: bool
    _enforce_credentials: bool


class _Copied(_Shared, total=False):
    provider: Any
    base_url: _URL | NotGiven | None
    data_residency: Any
    max_retries: int | NotGiven
    set_default_headers: Mapping[str, str] | None
    set_default_query: Mapping[str, object] | None
    _enforce_credentials: bool | None
    _extra_kwargs: Mapping[str, Any]


class _Plain(_Made, total=False):
    provider: Any
    base_url: _URL | NotGiven | None
    data_residency: Any


class _Azure(_Made, total=False):
    azure_endpoint: str | None
    azure_deployment: str | None
    api_version: str | None
    azure_ad_token: str | None
    base_url: str | None


class _AzureCopied(_Copied, total=False):
    api_version: str | None
    azure_ad_token: str | None


class Sync(_Plain, total=False):
    api_key: _Key
    http_client: _Client


class SyncCopy(_Copied, total=False):
    api_key: _Key
    http_client: _Client


class Async(_Plain, total=False):
    api_key: _AsyncKey
    http_client: _AsyncClient


class AsyncCopy(_Copied, total=False):
    api_key: _AsyncKey
    http_client: _AsyncClient


class SyncAzure(_Azure, total=False):
    api_key: _Key
    azure_ad_token_provider: openai.lib.azure.AzureADTokenProvider | None
    http_client: _Client


class SyncAzureCopy(_AzureCopied, total=False):
    api_key: _Key
    azure_ad_token_provider: openai.lib.azure.AzureADTokenProvider | None
    http_client: _Client


class AsyncAzure(_Azure, total=False):
    api_key: _AsyncKey
    azure_ad_token_provider: openai.lib.azure.AsyncAzureADTokenProvider | None
    http_client: _AsyncClient


class AsyncAzureCopy(_AzureCopied, total=False):
    api_key: _AsyncKey
    azure_ad_token_provider: openai.lib.azure.AsyncAzureADTokenProvider | None
    http_client: _AsyncClient
