"""Generators: one file a provider. This file only finds them.

A generator's module declares
    REQUIRES     its client: distribution name -> version specifier; the extra is named after the file
    load         (model: str, **options) -> Generator

Options are keywords, or are written behind the model: `openai:qwen3?base_url=http://localhost:8000/v1`.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any
from urllib.parse import parse_qsl

from nearest import plugins
from nearest.contract import Generator
from nearest.errors import InvalidInput


def load(spec: str, **options: Any) -> Generator:
    """The generator that a spec names, such as `anthropic:claude-haiku-4-5`; options are the provider's own.

    No request is made. Raises InvalidInput for a spec that is not `provider:model` and for an unknown provider
    or option, and MissingDependency.
    """
    provider, colon, rest = spec.partition(":") if isinstance(spec, str) else ("", "", "")
    model, _, query = rest.partition("?")
    if not colon or not provider.strip() or not model.strip():
        raise InvalidInput(
            f"a generator is written provider:model, such as ollama:llama3.2, got {spec!r}; "
            f"the providers are {', '.join(sorted(plugins.names('generators')))}"
        )
    make = plugins.load("generators", provider.strip()).load
    written = parse_qsl(query, keep_blank_values=True)
    if len({name for name, _ in written} | set(options)) != len(written) + len(options) or (query and not written):
        raise InvalidInput(f"generator {spec!r}: options are written ?name=value&name=value, each once")
    parameters = inspect.signature(make).parameters
    given = {**options, **{name: _converted(provider, name, text, parameters) for name, text in written}}
    try:
        inspect.signature(make).bind(model, **given)
    except TypeError as error:
        raise InvalidInput(f"generator {provider.strip()}: {error}") from None
    generator: Generator = make(model.strip(), **given)
    return generator


def _converted(provider: str, name: str, text: str, parameters: Mapping[str, inspect.Parameter]) -> Any:
    """A written option in the type that the provider's `load` declares for it."""
    declared = str(parameters[name].annotation) if name in parameters else "str"
    for kind in (int, float):
        if kind.__name__ in declared:
            try:
                return kind(text)
            except ValueError:
                raise InvalidInput(f"generator {provider}: {name} must be a number, got {text!r}") from None
    return text
