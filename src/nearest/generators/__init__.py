"""Generators: one file a provider. This file only finds them.

A generator's module declares
    REQUIRES     its client: distribution name -> version specifier; the extra is named after the file
    load         (model: str, **options) -> Generator

Options are keywords, or are written behind the model: `openai:qwen3?base_url=http://localhost:8000/v1`.
"""

from __future__ import annotations

from typing import Any

from nearest import plugins
from nearest.contract import Generator


def load(spec: str, **options: Any) -> Generator:
    """The generator that a spec names, `provider:model`; options are the provider's own.

    No request is made. Raises InvalidInput for a spec of another form, an unknown provider or option, and
    MissingDependency.
    """
    generator: Generator = plugins.make("generators", spec, "ollama:llama3.2", **options)
    return generator
