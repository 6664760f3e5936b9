"""What the chunkers share: passages of at most so many tokens, cut at the largest boundary that fits.

A strategy says which boundaries it prefers (`Cutter.units`), or which parts of a text are cut each for
itself (`Cutter.parts`). What is too long for it is cut as `recursive` does; see there.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar

from tokenizers import Tokenizer

from nearest.chunkers._words import Counter, Words
from nearest.contract import Chunk, Chunker
from nearest.errors import InvalidInput

# With [CLS] and [SEP], 242 of the 256 tokens that the smallest common models read: the rest is room for
# models with prefixes. Each chunk repeats an eighth of the one before, about a sentence or two.
DEFAULT_SIZE = 240
_OVERLAP = 8

_BLOCK = 1 << 20  # characters looked at at once


class Cutter(Chunker):
    """size, overlap: tokens, without the model's special ones. See the head of the file."""

    name: ClassVar[str]

    def __init__(self, tokenizer: Tokenizer, size: int, overlap: int | None, **settings: Any) -> None:
        """overlap: an eighth of the size if None. Raises InvalidInput unless 1 <= size and 0 <= overlap < size."""
        if overlap is None:
            overlap = size // _OVERLAP if isinstance(size, int) and size > 0 else 0
        for name, value, least in (("size", size, 1), ("overlap", overlap, 0)):
            if not isinstance(value, int) or isinstance(value, bool) or value < least:
                raise InvalidInput(f"chunker {self.name}: {name} must be an integer of at least {least}, got {value!r}")
        if overlap >= size:
            raise InvalidInput(f"chunker {self.name}: overlap ({overlap}) must be less than size ({size})")
        self.settings: Mapping[str, Any] = {"name": self.name, "size": size, "overlap": overlap, **settings}
        self._size, self._overlap = size, overlap
        self._counter = Counter(tokenizer, size)

    # --- what a strategy decides ---

    def units(self, words: Words) -> Sequence[int]:
        """The words that begin a unit (a sentence, say): cuts stand there, where one fits."""
        return ()

    def levels(self, words: Words) -> Sequence[Sequence[int]]:
        """The boundaries inside a unit that is too long, the largest kind first."""
        return words.blank_lines, words.lines, words.sentences

    # --- cutting ---

    def chunk(self, text: str) -> list[Chunk]:
        """No chunk is blank, and each holds at most `size` tokens but where a single character or the
        spaces after a word are more; none for a blank text."""
        return [Chunk(text[s:e], s, e, i) for i, (s, e) in enumerate(self.spans(text))]

    def spans(self, text: str) -> Iterator[tuple[int, int]]:
        """The chunks' characters, a block at a time, so that memory does not grow with the text."""
        start, length = 0, _BLOCK
        while text and not text.isspace():
            block = text[start : start + length]
            last = start + len(block) == len(text)
            words = Words(self._counter, block)
            spans = [words.span(i, j) for i, j in self.cut(words, 0, len(words))] or [(0, len(block))]
            # The end of a block is no boundary: its last chunk begins the next block.
            for begin, end in spans if last else spans[:-1]:
                yield start + begin, start + end
            if last:
                return
            start += spans[-1][0]
            length = _BLOCK if len(spans) > 1 else 2 * length

    def cut(self, words: Words, lo: int, hi: int) -> Iterator[tuple[int, int]]:
        """The chunks of words lo to hi: from word i to before word j."""
        if lo == hi:
            return
        total, size = words.total, self._size
        boundary = _Boundary(words, self.units(words), self.levels(words), hi)
        i, done = lo, lo  # the next chunk's first word; the first that is in no chunk yet
        while True:
            limit = total[i] + size
            while True:
                j = boundary(i, max(done, i), limit)
                if words.exact(i, j):
                    break
                over = words.count(i, j) - size
                if over <= 0:
                    break
                if j - 1 <= max(done, i):  # nothing left to give at the end; less overlap, then
                    if i == done:
                        break
                    i = min(i + max(1, (done - i) // 2), done)
                    limit = total[i] + size
                else:
                    limit = min(limit, total[j]) - over
            yield i, j
            if j == hi:
                return
            i, done = self._overlapping(words, boundary.units, i, j), j

    def _overlapping(self, words: Words, units: Sequence[int], i: int, j: int) -> int:
        """The first word of the chunk after words i to j: at most `overlap` tokens back, at a unit if j is one."""
        total = words.total
        # Room for at least one new word.
        least = max(total[j] - self._overlap, total[j + 1] - self._size)
        k = max(i + 1, min(j, bisect_right(total, total[bisect_left(total, least)]) - 1))
        while k < j and not words.exact(k, j) and (over := words.count(k, j) - self._overlap) > 0:
            k = min(j, max(k + 1, bisect_left(total, total[k] + over)))
        at = bisect_left(units, k)
        return units[at] if at < len(units) and units[at] <= j else k


class _Boundary:
    """Finds where a chunk ends."""

    def __init__(self, words: Words, units: Sequence[int], levels: Sequence[Sequence[int]], hi: int) -> None:
        self._words, self.units, self._levels, self._hi = words, units, levels, hi

    def __call__(self, i: int, done: int, limit: int) -> int:
        """The best end after word `done` of a chunk from word i, the tokens up to it within the limit."""
        total, hi = self._words.total, self._hi
        last = bisect_right(total, limit) - 1
        if last >= hi:
            return hi
        last = max(last, done + 1)
        k = bisect_right(self.units, last) - 1
        if k >= 0 and self.units[k] > done:
            return self.units[k]
        first = max(done + 1, bisect_left(total, (total[i] + limit + 1) // 2))
        for level in self._levels:
            k = bisect_right(level, last) - 1
            if k >= 0 and level[k] >= first:
                return level[k]
        k = last
        while k >= first and self._words.is_soft(k):
            k -= 1
        return k if k >= first else last
