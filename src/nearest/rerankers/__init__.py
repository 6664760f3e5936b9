"""Rerankers: one file a provider. This file only finds them.

A reranker's module declares
    REQUIRES     its client: distribution name -> version specifier; the extra is named after the file
    load         (model: str, **options) -> Reranker

Options are keywords, or are written behind the model: `http:bge-reranker-v2-m3?base_url=http://localhost:8000`.
"""

from __future__ import annotations

from typing import Any

from nearest import plugins
from nearest.contract import Reranker


def load(spec: str, **options: Any) -> Reranker:
    """The reranker that a spec names, `provider:model`; options are the provider's own.

    No request is made. Raises InvalidInput for a spec of another form, an unknown provider or option,
    MissingDependency, and ModelError where the model itself cannot be had.
    """
    reranker: Reranker = plugins.make("rerankers", spec, "local:cross-encoder/ms-marco-MiniLM-L-6-v2", **options)
    return reranker
