"""Chunkers: one file a strategy. This file only finds them.

A chunker's module declares
    make    (tokenizers.Tokenizer, *, settings) -> Chunker, or (tokenizers.Tokenizer, Embedder, *, settings) -> Chunker
            for one that asks the model where to cut; raises InvalidInput for a setting out of range

A chunker is named by a spec: `whole`, `recursive`, `recursive:size=200,overlap=20`. Each takes one setting more,
`prefix=title+headings` (or one of them): what is embedded before a chunk's text, see `_prefix`.
"""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any

from nearest import plugins
from nearest.contract import Chunker, Embedder
from nearest.errors import InvalidInput

if TYPE_CHECKING:
    from types import ModuleType

    from tokenizers import Tokenizer

DEFAULT = "recursive"


def make(spec: str | Chunker, tokenizer: Tokenizer, embedder: Embedder | None = None) -> Chunker:
    """The chunker of a spec, counting in the tokens of `tokenizer`; a Chunker is given back as it is.

    embedder: for one that asks it where to cut. Raises InvalidInput for an unknown name or setting, for a value out
    of range, and where the embedder is needed and not given.
    """
    if isinstance(spec, Chunker):
        return spec
    name, _, rest = spec.partition(":")
    module = plugins.load("chunkers", name)
    settings = _settings(spec, rest)
    prefix = settings.pop("prefix", None)
    parameters = inspect.signature(module.make).parameters.values()
    known = {p.name: p.default for p in parameters if p.kind is p.KEYWORD_ONLY}
    for key in settings:
        if key not in known:
            raise InvalidInput(f"chunker {name!r} has no setting {key!r}; it has {', '.join([*known, 'prefix'])}")
    given: list[Any] = [tokenizer, embedder][: len(parameters) - len(known)]
    if None in given:
        raise InvalidInput(f"chunker {name!r} embeds sentences to find its cuts; give it the embedder")
    if prefix is None:
        chunker: Chunker = module.make(*given, **settings)
        return chunker
    return _prefixed(module, given, settings, str(prefix), known.get("size"))


def _prefixed(
    module: ModuleType, given: list[Any], settings: dict[str, Any], kind: str, default: int | None
) -> Chunker:
    """default: the size of the chunker's chunks; None where they have none."""
    from nearest.chunkers import _cut, _prefix

    size = settings.get("size", default or _cut.DEFAULT_SIZE)
    if isinstance(size, int) and default is not None:
        settings = {**settings, "size": size - _prefix.room(size)}
    inner: Chunker = module.make(*given, **settings)
    return _prefix.Prefixed(inner, kind, given[0], size, default is not None)


def _settings(spec: str, text: str) -> dict[str, int | str]:
    settings: dict[str, int | str] = {}
    for part in text.split(",") if text else ():
        key, equals, value = (s.strip() for s in part.partition("="))
        if not (key and equals and value) or key in settings:
            raise InvalidInput(f"chunker {spec!r}: expected name:setting=value,setting=value")
        try:
            settings[key] = int(value)
        except ValueError:
            settings[key] = value
    return settings
