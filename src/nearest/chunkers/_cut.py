"""What the chunkers share: passages of at most so many tokens, cut at the largest boundary that fits.

A `Cutter` prefers the boundaries that its strategy names; what is too long for them is cut as `recursive` does, see
there. A `Parted` one cuts each part of a document for itself: sections, pages, definitions.
"""

from __future__ import annotations

from abc import abstractmethod
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import takewhile
from typing import Any, ClassVar, NamedTuple

from tokenizers import Tokenizer

from nearest.chunkers._words import Counter, Words
from nearest.contract import Chunk, Chunker, Document
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

    def breaks(self, text: str) -> Iterable[int]:
        """Offsets where a unit begins, in ascending order, though there be no space before it."""
        return ()

    def units(self, words: Words) -> Sequence[int]:
        """The words that begin a unit (a sentence, say): cuts stand there, where one fits."""
        return words.breaks

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
            words = Words(self._counter, block, self.breaks(block))
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


class Part(NamedTuple):
    """What is cut for itself, from `start` to the next part. depth: that of a part that holds others is less."""

    start: int
    headings: tuple[str, ...] = ()
    depth: int = 0


class Parted(Cutter):
    """Cuts at the parts of a document; those that fit together with all that they hold stay in one chunk.

    merges: whether neighbours that fit together are one chunk, too. indents: whether the spaces at the start of a
    line are of that line's chunk.
    """

    merges: ClassVar[bool] = False
    indents: ClassVar[bool] = False

    @abstractmethod
    def parts(self, document: Document) -> list[Part]:
        """By rising start; the first starts at 0."""

    def chunk(self, text: str) -> list[Chunk]:
        return self.chunk_document(Document("", text))

    def chunk_document(self, document: Document) -> list[Chunk]:
        text = document.text
        if not text or text.isspace():
            return []
        found: list[tuple[int, int, tuple[str, ...]]] = []
        for part in _blocks(self.parts(document), len(text)):
            found += self._parts_spans(text, *part)
        # What is between two spans are spaces.
        starts = [0, *(start for start, _, _ in found[1:])]
        ends = [max(end, start) for (_, end, _), start in zip(found, [*starts[1:], len(text)], strict=True)]
        if self.indents:
            self._indent(text, starts, ends)
        chunks = [
            Chunk(text[start:end], start, end, i, headings)
            for i, (start, end, (_, _, headings)) in enumerate(zip(starts, ends, found, strict=True))
        ]
        if not document.marks:
            return chunks
        places = [tuple(document.place(chunk.start).get("headings", ())) for chunk in chunks]
        return [c if c.headings else replace(c, headings=place) for c, place in zip(chunks, places, strict=True)]

    def _parts_spans(self, text: str, parts: list[Part], end: int) -> Iterator[tuple[int, int, tuple[str, ...]]]:
        """The chunks of some parts, which end where `end` says, and their headings."""
        start = parts[0].start
        if len(parts) == 1 and end - start > _BLOCK:
            yield from ((start + s, start + e, parts[0].headings) for s, e in self.spans(text[start:end]))
            return
        block = text[start:end]
        offsets = [part.start - start for part in parts]
        words = Words(self._counter, block, offsets)
        numbers = [*words.numbers(offsets), len(words)]
        for first, label, last in self._ranges(words, block, parts, numbers):
            headings = _common([parts[k].headings for k in range(label, last) if numbers[k] < numbers[k + 1]])
            for i, j in self.cut(words, numbers[first], numbers[last]):
                s, e = words.span(i, j)
                yield start + s, start + e, headings

    def _indent(self, text: str, starts: list[int], ends: list[int]) -> None:
        """Spaces that begin a line go from the chunk before to the chunk of the line, where they fit."""
        for k in range(1, len(starts)):
            start, end = starts[k], ends[k]
            line = starts[k - 1] + 1 + len(text[starts[k - 1] + 1 : start].rstrip(" \t"))
            if line == start or text[line - 1] != "\n":
                continue
            if self._counter.additive or (
                self._counter.count(text[line:end]) <= self._size
                and (start == ends[k - 1] or self._counter.count(text[line : ends[k - 1]]) <= self._overlap)
            ):
                starts[k] = line
                if ends[k - 1] == start:
                    ends[k - 1] = line

    def units(self, words: Words) -> Sequence[int]:
        return ()

    def is_head(self, text: str, part: Part) -> bool:
        """Whether a part that holds others, and has this text before them, is but the title of what follows."""
        return not text or text.isspace()

    def _ranges(self, words: Words, text: str, parts: list[Part], numbers: list[int]) -> Iterator[tuple[int, int, int]]:
        """Parts that are cut together: the first, the first that says what it is about, and the one after the last."""
        ends = _subtrees(parts)
        first = label = last = 0
        heads = True  # so far only titles, signatures and the like, which go with what follows them
        while last < len(parts):
            k, end, is_head = last, ends[last], False
            whole = words.fits(numbers[first if heads else k], numbers[end])
            if not whole:
                is_head = end > k + 1 and self.is_head(text[slice(*words.span(numbers[k], numbers[k + 1]))], parts[k])
                end = k + 1
            joins = heads or (
                self.merges
                and whole
                and (parts[k].depth >= parts[first].depth or parts[k].headings == parts[first].headings)
                and words.fits(numbers[first], numbers[end])
            )
            if not joins:
                yield first, label, last
                first, heads = k, True
            if heads:
                label = k
            last, heads = end, heads and is_head
        yield first, label, last


def _blocks(parts: list[Part], length: int) -> Iterator[tuple[list[Part], int]]:
    """Parts by the block, each with its end; one that is longer stands alone."""
    first = 0
    for k in range(1, len(parts) + 1):
        end = parts[k].start if k < len(parts) else length
        if k > first + 1 and end - parts[first].start > _BLOCK:
            yield parts[first : k - 1], parts[k - 1].start
            first = k - 1
    yield parts[first:], length


def _subtrees(parts: list[Part]) -> list[int]:
    """For each part the first after it that it does not hold."""
    ends = [len(parts)] * len(parts)
    open_: list[int] = []
    for k, part in enumerate(parts):
        while open_ and parts[open_[-1]].depth >= part.depth:
            ends[open_.pop()] = k
        open_.append(k)
    return ends


def _common(paths: Sequence[tuple[str, ...]]) -> tuple[str, ...]:
    levels = zip(*paths, strict=False)
    return tuple(level[0] for level in takewhile(lambda level: len(set(level)) == 1, levels))
