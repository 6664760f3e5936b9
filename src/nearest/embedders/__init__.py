"""Embedders: one file a provider. This file only finds them.

An embedder's module declares
    REQUIRES     its client: distribution name -> version specifier; the extra is named after the file
    load         (model: str, **options) -> Embedder
    CACHED       whether its vectors are kept in a cache unless the caller says otherwise (they cost money)
    SHORT        short spellings of models: what is written -> the model's name; may be left out

Options are keywords, or are written behind the model: `openai:text-embedding-3-large?dimensions=1024`. Those in
HOW below say how a model is asked, not what it answers, and are no part of an embedder's name; nor are those that
say what `load` takes for granted. `named` makes the name, for `load` and for `canonical` alike.
"""

from __future__ import annotations

import inspect
from collections.abc import Collection, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any
from urllib.parse import parse_qsl, quote

from nearest import plugins
from nearest.contract import Embedder
from nearest.errors import InvalidInput

HOW = frozenset({"cache", "fallback", "price", "batch", "parallel", "rpm", "tpm", "timeout", "device", "folder"})


def load(
    spec: str, *, cache: bool | str | Path | None = None, fallback: str | Embedder | None = None, **options: Any
) -> Embedder:
    """The embedder that a spec names, such as `local:all-MiniLM-L6-v2`; options are the provider's own.

    cache: True, False, a file, or `redis://host:6379/0?ttl=86400` (seconds); by default vectors that cost
    money are kept in the user's cache folder. fallback: another way to the same model, asked when the first
    does not answer. Raises InvalidInput for a spec that is not `provider:model`, an unknown provider or option
    and a fallback whose vectors are others, and ModelError where the model itself cannot be had.
    """
    provider, model, written = _parsed(spec)
    for name in written:
        if name in options or (name == "cache" and cache is not None) or (name == "fallback" and fallback is not None):
            raise InvalidInput(f"embedder {spec!r}: {name} is given twice")
    cache = written.pop("cache", cache)
    fallback = written.pop("fallback", fallback)
    module, options = _bound(provider, model, {**options, **written}, written.keys())
    embedder: Embedder = module.load(model, **options)
    if fallback is not None:
        from nearest.embedders import _fallback

        second = fallback if isinstance(fallback, Embedder) else load(fallback, cache=False)
        embedder = _fallback.Fallback(embedder, second)
    if cache is None:
        cache = bool(getattr(module, "CACHED", False))
    if cache in (False, "off", "false"):
        return embedder
    from nearest.embedders import _cache

    return _cache.Cached(embedder, _cache.connect(cache))


def canonical(spec: str) -> str:
    """The name that the embedder of a spec has, without loading it; raises InvalidInput for options that make no sense.

    That of a provider that is not installed is as it was written: a collection can be opened without its model.
    """
    provider, model, written = _parsed(spec)
    if provider.replace("-", "_") not in plugins.names("embedders"):
        return spec
    written = {name: text for name, text in written.items() if name not in HOW}
    _, options = _bound(provider, model, written, written.keys())
    return named(provider, model, options)


def named(provider: str, model: str, options: Mapping[str, Any]) -> str:
    """`provider:model?option=value`: what opening the collection again needs, and no secret.

    options: some of those that the provider's `load` takes; its defaults and those in HOW are left out.
    """
    module = plugins.load("embedders", provider.replace("-", "_"))
    parameters = inspect.signature(module.load).parameters
    some = []
    for key, value in sorted(options.items()):
        if key not in HOW and not (key in parameters and value == parameters[key].default):
            text = str(value).lower() if isinstance(value, bool) else str(value)
            some.append(f"{key}={quote(text, safe='/:')}")
    name = f"{provider.replace('_', '-')}:{getattr(module, 'SHORT', {}).get(model, model)}"
    return f"{name}?{'&'.join(some)}" if some else name


def _parsed(spec: str) -> tuple[str, str, dict[str, Any]]:
    provider, colon, rest = spec.partition(":") if isinstance(spec, str) else ("", "", "")
    model, _, query = rest.partition("?")
    if not colon or not provider.strip() or not model.strip():
        raise InvalidInput(
            f"an embedder is written provider:model, such as local:all-MiniLM-L6-v2, got {spec!r}; "
            f"the providers are {', '.join(sorted(plugins.names('embedders')))}"
        )
    options = parse_qsl(query, keep_blank_values=True)
    if len(dict(options)) != len(options) or (query and not options):
        raise InvalidInput(f"embedder {spec!r}: options are written ?name=value&name=value, each once")
    return provider.strip(), model.strip(), dict(options)


def _bound(
    provider: str, model: str, options: Mapping[str, Any], written: Collection[str]
) -> tuple[ModuleType, dict[str, Any]]:
    """The provider's module, and the options as its `load` takes them; raises InvalidInput for one that it does not.

    written: the names of those that are text, behind the model, and are converted.
    """
    module = plugins.load("embedders", provider.replace("-", "_"))
    signature = inspect.signature(module.load)
    converted = {
        name: _converted(provider, name, value, signature.parameters) if name in written else value
        for name, value in options.items()
    }
    try:
        signature.bind(model, **converted)
    except TypeError as error:
        raise InvalidInput(f"embedder {provider}: {error}") from None
    return module, converted


def _converted(provider: str, name: str, text: str, parameters: Mapping[str, inspect.Parameter]) -> Any:
    """A written option in the type that the provider's `load` declares for it."""
    kinds = str(parameters[name].annotation) if name in parameters else "str"
    for kind in (int, float):
        if kind.__name__ in kinds:
            try:
                return kind(text)
            except ValueError:
                raise InvalidInput(f"embedder {provider}: {name} must be a number, got {text!r}") from None
    if "bool" in kinds:
        if text.lower() not in ("true", "false"):
            raise InvalidInput(f"embedder {provider}: {name} must be true or false, got {text!r}")
        return text.lower() == "true"
    return text
