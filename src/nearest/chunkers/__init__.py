"""Chunkers: one file a strategy. This file only finds them.

A chunker's module declares
    make    (tokenizers.Tokenizer, **settings) -> Chunker; raises InvalidInput for a setting out of range

A chunker is named by a spec: `whole`, `recursive`, `recursive:size=200,overlap=20`.
"""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING

from nearest import plugins
from nearest.contract import Chunker
from nearest.errors import InvalidInput

if TYPE_CHECKING:
    from tokenizers import Tokenizer

DEFAULT = "recursive"


def make(spec: str | Chunker, tokenizer: Tokenizer) -> Chunker:
    """The chunker of a spec, counting in the tokens of `tokenizer`; a Chunker is given back as it is.

    Raises InvalidInput for an unknown name or setting, and for a value out of range.
    """
    if isinstance(spec, Chunker):
        return spec
    name, _, rest = spec.partition(":")
    module = plugins.load("chunkers", name)
    settings = _settings(spec, rest)
    known = [p.name for p in inspect.signature(module.make).parameters.values() if p.kind is p.KEYWORD_ONLY]
    for key in settings:
        if key not in known:
            raise InvalidInput(f"chunker {name!r} has no setting {key!r}; it has {', '.join(known) or 'none'}")
    chunker: Chunker = module.make(tokenizer, **settings)
    return chunker


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
