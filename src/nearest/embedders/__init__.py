"""Embedders: one file a provider. This file only finds them.

An embedder's module declares
    REQUIRES     its client: distribution name -> version specifier; the extra is named after the file
    load         (model: str, **options) -> Embedder
"""

from __future__ import annotations

import inspect
from typing import Any

from nearest import plugins
from nearest.contract import Embedder
from nearest.errors import InvalidInput


def load(spec: str, **options: Any) -> Embedder:
    """The embedder that a spec names, such as `local:all-MiniLM-L6-v2`; options are the provider's own.

    Raises InvalidInput for a spec that is not `provider:model`, an unknown provider or option, and
    ModelError where the model itself cannot be had.
    """
    provider, colon, model = spec.partition(":") if isinstance(spec, str) else ("", "", "")
    if not colon or not provider.strip() or not model.strip():
        raise InvalidInput(
            f"an embedder is written provider:model, such as local:all-MiniLM-L6-v2, got {spec!r}; "
            f"the providers are {', '.join(sorted(plugins.names('embedders')))}"
        )
    make = plugins.load("embedders", provider.strip()).load
    try:
        inspect.signature(make).bind(model, **options)
    except TypeError as error:
        raise InvalidInput(f"embedder {provider.strip()}: {error}") from None
    embedder: Embedder = make(model.strip(), **options)
    return embedder
