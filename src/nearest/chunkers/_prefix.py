"""Context that is embedded before a chunk's text and shown nowhere: its document's title, its headings.

A chunk torn out of its document often does not say what it is about; with its title and headings before it the model
knows. A fifth of the size is kept for them, so that no chunk is longer than the size, and the text less. What does
not fit is left out, the outermost headings first, then the end of the title.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from tokenizers import Tokenizer

from nearest.chunkers._words import Counter
from nearest.contract import Chunk, Chunker, Document
from nearest.errors import InvalidInput

KINDS = ("title", "headings", "title+headings")
_SHARE = 5
_LEAST = 20  # tokens of a chunk
_ADORNMENT = "#=-~*_ \t\r\n"


def room(size: int) -> int:
    """Tokens of a chunk of `size` that are the prefix's; raises InvalidInput where that is too few."""
    if size < _LEAST:
        raise InvalidInput(f"a prefix needs chunks of a size of at least {_LEAST} tokens, got {size!r}")
    return size // _SHARE


class Prefixed(Chunker):
    """Chunks of another chunker, each with its prefix."""

    def __init__(self, inner: Chunker, kind: str, tokenizer: Tokenizer, size: int, limited: bool) -> None:
        """size: tokens of prefix and text together. limited: whether `inner` obeys one, which leaves `room(size)`.

        Raises InvalidInput for another kind than title, headings and title+headings.
        """
        if kind not in KINDS:
            raise InvalidInput(f"prefix must be {', '.join(KINDS)}, got {kind!r}")
        own = dict(inner.settings)
        self.settings: Mapping[str, Any] = {**own, **({"size": size} if limited else {}), "prefix": kind}
        self.embeds = inner.embeds
        self._inner, self._counter, self._room = inner, Counter(tokenizer, size), room(size)
        self._size = size if limited else 0
        self._titled, self._headed = "title" in kind, "headings" in kind

    def chunk(self, text: str) -> list[Chunk]:
        return self._inner.chunk(text)

    def ahead(self, documents: Sequence[Document]) -> None:
        self._inner.ahead(documents)

    def chunk_document(self, document: Document) -> list[Chunk]:
        title = document.metadata.get("title") if self._titled else None
        title = " ".join(title.split()) if isinstance(title, str) else ""
        made: dict[tuple[str, ...], str] = {}
        chunks = []
        for chunk in self._inner.chunk_document(document):
            path = self._path(chunk, title) if self._headed else ()
            if path not in made:
                made[path] = self._fitting(title, path)
            chunks.append(replace(chunk, prefix=self._checked(made[path], chunk.text)))
        return chunks

    def _path(self, chunk: Chunk, title: str) -> tuple[str, ...]:
        """The headings that neither the title nor the text's own beginning says."""
        path = [" ".join(heading.split()) for heading in chunk.headings]
        if path and path[0] == title:
            del path[0]
        if path and " ".join(chunk.text.lstrip(_ADORNMENT).split()[: len(path[-1])]).startswith(path[-1]):
            del path[-1]
        return tuple(path)

    def _fitting(self, title: str, path: tuple[str, ...]) -> str:
        for first in range(len(path) + 1):
            prefix = _lines(title, path[first:])
            if self._counter.count(prefix) <= self._room:
                return prefix
        words = title.split()
        while words and self._counter.count(_lines(" ".join(words), ())) > self._room:
            del words[-1 - len(words) // 8 :]
        return _lines(" ".join(words), ())

    def _checked(self, prefix: str, text: str) -> str:
        """Nothing where prefix and text are more tokens together than each for itself, and too many."""
        if not prefix or not self._size or self._counter.additive:
            return prefix
        return prefix if self._counter.count(prefix + text) <= self._size else ""


def _lines(title: str, path: tuple[str, ...]) -> str:
    lines = [line for line in (title, " > ".join(path)) if line]
    return "\n".join(lines) + "\n\n" if lines else ""
