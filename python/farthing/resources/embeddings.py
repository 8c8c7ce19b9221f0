"""`client.embeddings`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from openai.resources import embeddings as _embeddings
from openai.types import CreateEmbeddingResponse

from ..plain import Kind
from . import fast

EMBEDDINGS = Kind("embeddings", "/embeddings", CreateEmbeddingResponse, None, ("encoding_format", "base64"))


class Embeddings(_embeddings.Embeddings):
    if not TYPE_CHECKING:
        create = fast(_embeddings.Embeddings, EMBEDDINGS)


class AsyncEmbeddings(_embeddings.AsyncEmbeddings):
    if not TYPE_CHECKING:
        create = fast(_embeddings.AsyncEmbeddings, EMBEDDINGS)
