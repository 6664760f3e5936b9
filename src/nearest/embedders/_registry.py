"""Known models of the providers, and the dimensions of unknown ones once they were found out.

A known model needs no request before its collection can be made. An unknown one is asked to embed one word,
once a machine: what it answered is kept in the cache folder, and every answer after it is held to that.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from nearest.contract import canonical_json
from nearest.encoder import files


@dataclass(frozen=True, slots=True)
class Model:
    """dimension: by default. max_tokens: a text. price: dollars a million tokens, as listed at `priced`
    (year-month); None where none is listed. shorter: the dimensions it can be asked for (Matryoshka; Kusupati et
    al., 2022), all up to its own if it says `any`. prefixes: put before a text, by kind, where the API has no
    parameter for the task."""

    dimension: int
    max_tokens: int
    price: float | None
    priced: str
    shorter: tuple[int, ...] | str = ()
    prefixes: Mapping[str, str] = field(default_factory=dict)

    def offers(self, dimension: int) -> bool:
        if dimension == self.dimension:
            return True
        return 1 <= dimension < self.dimension if self.shorter == "any" else dimension in self.shorter


MODELS: Mapping[str, Mapping[str, Model]] = {
    "openai": {
        "text-embedding-3-small": Model(1536, 8192, 0.02, "2026-06", "any"),
        "text-embedding-3-large": Model(3072, 8192, 0.13, "2026-06", "any"),
        "text-embedding-ada-002": Model(1536, 8192, 0.10, "2026-06"),
    },
    "cohere": {
        "embed-v4.0": Model(1536, 128_000, 0.12, "2026-06", (256, 512, 1024)),
        "embed-english-v3.0": Model(1024, 512, None, ""),
        "embed-multilingual-v3.0": Model(1024, 512, None, ""),
        "embed-english-light-v3.0": Model(384, 512, None, ""),
        "embed-multilingual-light-v3.0": Model(384, 512, None, ""),
    },
    "gemini": {
        "gemini-embedding-001": Model(3072, 2048, 0.15, "2026-06", "any"),
        "gemini-embedding-2": Model(
            3072, 8192, 0.20, "2026-03", "any",
            {"retrieval_document": "title: none | text: ", "retrieval_query": "task: search result | query: ",
             "semantic_similarity": "task: sentence similarity | query: ",
             "classification": "task: classification | query: ", "clustering": "task: clustering | query: "},
        ),
    },
}  # fmt: skip


def known(provider: str, model: str) -> Model | None:
    return MODELS[provider].get(model)


# --- what was found out ----------------------------------------------------------------------------


def _note(identity: Mapping[str, object]) -> Path | None:
    cache = files.cache_folder()
    name = hashlib.sha256(canonical_json(dict(identity)).encode()).hexdigest()[:32]
    return cache / "probed" / f"{name}.json" if cache else None


def remembered(identity: Mapping[str, object]) -> int | None:
    """The dimension that this model gave when it was asked; None if it never was."""
    note = _note(identity)
    if note is not None:
        with contextlib.suppress(OSError, ValueError, TypeError, KeyError):
            return int(json.loads(note.read_bytes())["dimension"])
    return None


def remember(identity: Mapping[str, object], dimension: int) -> None:
    if note := _note(identity):
        files.write(note, [json.dumps({**identity, "dimension": dimension}).encode()])


def forget(identity: Mapping[str, object]) -> None:
    """It answered with another dimension since."""
    if note := _note(identity):
        with contextlib.suppress(OSError):
            note.unlink()
