"""The semantic chunker: cuts where the subject changes, as the embedding model sees it.

Every sentence is embedded once, those of the documents that come next in few calls. At each gap between two sentences
the `window` sentences before it are compared with those after it, each side by the mean of its vectors, as TextTiling
compares blocks of words (Hearst, Computational Linguistics 1997). The gaps whose distance (1 - cosine) is at or above
the percentile are cuts. What is longer than the size between two cuts is cut again at its widest gap that leaves a
quarter of the size on both sides; a longer sentence, as `recursive` does.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from itertools import pairwise

import numpy as np
from tokenizers import Tokenizer

from nearest.chunkers import _cut, _sentences
from nearest.chunkers._words import Words
from nearest.contract import Document, Embedder, Float32, spending
from nearest.errors import InvalidInput, NearestError, TextsFailed

DEFAULT_PERCENTILE = 90
DEFAULT_WINDOW = 3
_AT_ONCE = 1024  # sentences
_MOST_AHEAD = 16 * _AT_ONCE  # their vectors are held until the documents are cut


class Semantic(_cut.Parted):
    """size, overlap: tokens; percentile: 1 to 99; window: sentences on each side. See the head of the file."""

    name = "semantic"
    embeds = True

    def __init__(self, tokenizer: Tokenizer, embedder: Embedder, size: int, percentile: int, window: int) -> None:
        for name, value, most in (("percentile", percentile, 99), ("window", window, 100)):
            if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= most:
                raise InvalidInput(f"chunker semantic: {name} must be an integer from 1 to {most}, got {value!r}")
        super().__init__(tokenizer, size, 0, percentile=percentile, window=window)
        self._embedder, self._percentile, self._window = embedder, percentile, window
        self._ahead: dict[str, Float32] = {}  # vectors of sentences of the documents that come next

    def ahead(self, documents: Sequence[Document]) -> None:
        found = (self._texts(*self._sentences(document.text)) for document in documents)
        texts = list(dict.fromkeys(text for some in found if len(some) > 1 for text in some))
        known: dict[str, Float32] = {}
        for start in range(0, min(len(texts), _MOST_AHEAD), _AT_ONCE):
            some = texts[start : start + _AT_ONCE]
            failed: Collection[int] = ()
            try:
                with spending(some):
                    vectors = self._embedder.embed_documents(some)
            except TextsFailed as error:
                vectors, failed = error.vectors, error.failed.keys()
            except NearestError:
                break  # each document asks for itself, and fails for itself
            known.update(
                (text, row) for i, (text, row) in enumerate(zip(some, vectors, strict=True)) if i not in failed
            )
        self._ahead = known

    def _sentences(self, text: str) -> tuple[Words, list[int]]:
        """The words of a text, and those that begin a sentence."""
        words = Words(self._counter, text, _sentences.starts(text))
        return words, [0, *dict.fromkeys(words.breaks), len(words)]

    def parts(self, document: Document) -> list[_cut.Part]:
        words, sentences = self._sentences(document.text)
        if len(sentences) < 3:
            return [_cut.Part(0)]
        distances = self._distances(words, sentences)
        least = float(np.percentile(distances, self._percentile))
        cuts = [0, *(np.flatnonzero(distances >= least) + 1).tolist(), len(sentences) - 1]
        starts = [s for a, b in pairwise(cuts) for s in self._fitting(words, sentences, distances, a, b)]
        return [_cut.Part(words.span(sentences[s], len(words))[0]) for s in starts]

    def _texts(self, words: Words, sentences: list[int]) -> list[str]:
        texts = []
        for i, j in pairwise(sentences):
            end = min(j, max(i + 1, words.within(i, self._size)))  # of a longer one its beginning is read
            start, stop = words.span(i, end)
            texts.append(words.text[start:stop])
        return texts

    def _vectors(self, texts: list[str]) -> Float32:
        known = self._ahead
        new = list(dict.fromkeys(text for text in texts if text not in known))
        if new:
            with spending(new):
                known = {**known, **dict(zip(new, self._embedder.embed_documents(new), strict=True))}
        return np.stack([known[text] for text in texts])

    def _distances(self, words: Words, sentences: list[int]) -> Float32:
        """Of what is before and what is after each sentence but the first, (sentences - 1,)."""
        texts = self._texts(words, sentences)
        vectors = self._vectors(texts)
        total = np.cumsum(np.vstack([np.zeros((1, self._embedder.dimension)), vectors]), 0)
        n = len(texts)
        gaps = np.arange(1, n)
        before = total[gaps] - total[np.maximum(gaps - self._window, 0)]
        after = total[np.minimum(gaps + self._window, n)] - total[gaps]
        lengths = np.linalg.norm(before, axis=1) * np.linalg.norm(after, axis=1)
        distances: Float32 = 1 - (before * after).sum(1) / np.maximum(lengths, 1e-12)
        return distances

    def _fitting(self, words: Words, sentences: list[int], distances: Float32, a: int, b: int) -> Iterator[int]:
        """Where the pieces of sentences a to b start that fit the size, as far as sentences can give them."""
        todo = [(a, b)]
        while todo:
            a, b = todo.pop()
            room = [k for k in range(a + 1, b) if self._quarter(words, sentences[a], sentences[k], sentences[b])]
            if not room or words.fits(sentences[a], sentences[b]):
                yield a
            else:
                k = max(room, key=lambda k: float(distances[k - 1]))
                todo += [(k, b), (a, k)]

    def _quarter(self, words: Words, i: int, k: int, j: int) -> bool:
        least = self._size // 4
        return words.total[k] - words.total[i] >= least and words.total[j] - words.total[k] >= least


def make(
    tokenizer: Tokenizer,
    embedder: Embedder,
    *,
    size: int = _cut.DEFAULT_SIZE,
    percentile: int = DEFAULT_PERCENTILE,
    window: int = DEFAULT_WINDOW,
) -> Semantic:
    """percentile: the lower, the more cuts. window: sentences that are compared on each side of a gap.

    Raises InvalidInput unless 1 <= size, 1 <= percentile <= 99 and 1 <= window <= 100.
    """
    return Semantic(tokenizer, embedder, size, percentile, window)
