"""Known models of the providers, and the dimensions of unknown ones once they were found out; families of open models.

A known model needs no request before its collection can be made. An unknown one is asked to embed one word,
once a machine: what it answered is kept in the cache folder, and every answer after it is held to that.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
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


# --- families of open models -----------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Family:
    """What the files of open models do not tell, and those who trained them do, on the models' pages.

    name: a regular expression, for the whole of a model's name without its organisation. query, document: put before
    texts, where the files have no prompts. shorter: the dimensions that it was trained to be cut to, as in `Model`.
    """

    name: str
    query: str = ""
    document: str = ""
    shorter: tuple[int, ...] | str = ()

    def offers(self, dimension: int) -> bool:
        return self.shorter == "any" or dimension in self.shorter


_PASSAGES = "Represent this sentence for searching relevant passages: "
FAMILIES = (
    Family(r"(multilingual-)?e5-(small|base|large)(-v2|-unsupervised)?", "query: ", "passage: "),
    Family(
        "multilingual-e5-large-instruct",
        "Instruct: Given a web search query, retrieve relevant passages that answer the query\nQuery: ",
    ),
    Family(r"bge-(small|base|large)-en(-v1\.5)?", _PASSAGES),
    Family(r"bge-(small|base|large)-zh(-v1\.5)?", "为这个句子生成表示以用于检索相关文章："),
    Family(r"mxbai-embed(-2d)?-large-v1", _PASSAGES, shorter="any"),
    Family(r"snowflake-arctic-embed-m-v1\.5", _PASSAGES, shorter=(256,)),
    Family(r"snowflake-arctic-embed-l-v2\.0", "query: ", shorter=(256,)),
    Family(r"snowflake-arctic-embed-(xs|s|m|l)", _PASSAGES),
)


def family(model: str) -> Family | None:
    """The family of a model on the Hugging Face hub, or in a folder that is called like it."""
    last = model.rstrip("/").rpartition("/")[2]
    return next((family for family in FAMILIES if re.fullmatch(family.name, last, re.IGNORECASE)), None)


@dataclass(frozen=True, slots=True)
class Prefixes:
    """Put before queries and documents. source: `the caller`, `the model's files`, `the registry` or `nobody`."""

    query: str
    document: str
    source: str

    @property
    def note(self) -> str:
        """What to tell where nobody asked for them."""
        if self.source != "the registry":
            return ""
        return (
            f"the model's files have no prompts; as its family was trained, {self.query!r} is put before queries and "
            f"{self.document!r} before documents (query_prefix and document_prefix say otherwise)"
        )


def prefixes(model: str, prompts: Mapping[str, str], query: str | None, document: str | None) -> Prefixes:
    """A caller's, or else those among the model's own prompts, or else its family's.

    prompts: as sentence-transformers keeps them, by name; that writes empty ones where there are none.
    """
    own = next((prompts[key] for key in ("document", "passage", "corpus") if prompts.get(key)), "")
    known = family(model)
    if any(prompts.get(key) for key in ("query", "document", "passage", "corpus")):
        found = Prefixes(prompts.get("query") or "", own, "the model's files")
    elif known is not None and (known.query or known.document):
        found = Prefixes(known.query, known.document, "the registry")
    else:
        found = Prefixes("", "", "nobody")
    if query is None and document is None:
        return found
    return Prefixes(
        found.query if query is None else query, found.document if document is None else document, "the caller"
    )


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
