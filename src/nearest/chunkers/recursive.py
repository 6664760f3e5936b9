"""The recursive chunker: cuts at the largest boundary that fits a size in tokens.

Boundaries, largest first: blank lines, line ends, sentence ends, words, and inside a word only where it
is long. Among those in the second half of what fits, the last of the largest kind is taken: a heading
does not become a chunk of its own, and no chunk but the last falls below half the size.

Tokens are counted a word at a time, and counts are remembered: encoding every candidate anew (as
semantic-text-splitter does with a Hugging Face tokenizer) was 10 to 20 times slower. Where the count of
a whole may differ from the sum of its words', the whole is encoded before it is accepted.
"""

from __future__ import annotations

import re
import string
from bisect import bisect_left, bisect_right
from collections.abc import Mapping
from itertools import accumulate, pairwise
from typing import Any

from semantic_text_splitter import TextSplitter
from tokenizers import Tokenizer
from tokenizers.models import WordPiece
from tokenizers.normalizers import BertNormalizer
from tokenizers.pre_tokenizers import BertPreTokenizer

from nearest.contract import Chunk, Chunker
from nearest.errors import InvalidInput

# With [CLS] and [SEP], 242 of the 256 tokens that the smallest common models read: the rest is room for
# models with prefixes. Each chunk repeats an eighth of the one before, about a sentence or two.
DEFAULT_SIZE = 240
_OVERLAP = 8

_WORD = re.compile(r"\s*\S+")
# BERT's normalizer removes these spaces: the words beside them are one to it.
_VANISHING = re.compile(r"[\x0b\x0c\x1c-\x1f\x85]+")
_SENTENCE = re.compile(r"[.!?…。！？؟।][\"'”’»)\]）」』]*$")
_LAST = frozenset(".!?…。！？؟।\"'”’»)]）」』")

# Characters. A longer word (Chinese and Thai text, URLs, base64) may be cut inside, in pieces.
_LONG_WORD = 64
# Characters of a piece, and how many weigh as a token at least: control characters and stray accents are
# no tokens, and must end somewhere too.
_PIECE = 16
_SLICE = 1024  # characters; TextSplitter's time is quadratic in a text without boundaries
_BLOCK = 1 << 20  # characters looked at at once
_REMEMBERED = 1 << 18  # words


class Recursive(Chunker):
    """size, overlap: tokens, without the model's special ones. See the head of the file."""

    def __init__(self, tokenizer: Tokenizer, size: int, overlap: int) -> None:
        """Raises InvalidInput unless 1 <= size and 0 <= overlap < size."""
        for name, value, least in (("size", size, 1), ("overlap", overlap, 0)):
            if not isinstance(value, int) or isinstance(value, bool) or value < least:
                raise InvalidInput(f"chunker recursive: {name} must be an integer of at least {least}, got {value!r}")
        if overlap >= size:
            raise InvalidInput(f"chunker recursive: overlap ({overlap}) must be less than size ({size})")
        if tokenizer.truncation is not None or tokenizer.padding is not None:
            tokenizer = Tokenizer.from_str(tokenizer.to_str())
            tokenizer.no_truncation()
            tokenizer.no_padding()
        self.settings: Mapping[str, Any] = {"name": "recursive", "size": size, "overlap": overlap}
        self._size, self._overlap, self._tokenizer = size, overlap, tokenizer
        # BERT's tokenizers read each word for itself, so that counts add up.
        self._additive = (
            isinstance(tokenizer.model, WordPiece)
            and isinstance(tokenizer.pre_tokenizer, BertPreTokenizer)
            and isinstance(tokenizer.normalizer, BertNormalizer)
        )
        # Characters that are words to BERT's tokenizers wherever they stand.
        self.parting = frozenset(string.punctuation + "。，、！？；：（）「」")
        if self._additive and tokenizer.normalizer.handle_chinese_chars:
            self.parting |= set(map(chr, range(0x4E00, 0xA000)))
        self._known: dict[str, int] = {}
        self._splitters = [TextSplitter(n, trim=False) for n in (_PIECE, 4, 1)]

    def chunk(self, text: str) -> list[Chunk]:
        """No chunk is blank, and each holds at most `size` tokens but where a single character or the
        spaces after a word are more; none for a blank text."""
        chunks: list[Chunk] = []
        start, length = 0, _BLOCK
        while text and not text.isspace():
            block = text[start : start + length]
            last = start + len(block) == len(text)
            spans = self._cut(block)
            # The end of a block is no boundary: its last chunk begins the next block.
            for begin, end in spans if last else spans[:-1]:
                chunks.append(Chunk(block[begin:end], start + begin, start + end, len(chunks)))
            if last:
                break
            start += spans[-1][0]
            length = _BLOCK if len(spans) > 1 else 2 * length
        return chunks

    def _cut(self, text: str) -> list[tuple[int, int]]:
        """The spans of a text. Words are numbered; a chunk runs from word i to before word j."""
        words = _Words(self, text)
        total, n, size = words.total, len(words.starts), self._size
        if not n:
            return [(0, len(text))]
        spans: list[tuple[int, int]] = []
        i, done = 0, 0  # the next chunk's first word; words already in a chunk
        while True:
            limit = total[i] + size
            while True:
                j = words.boundary(i, max(done, i), limit)
                if words.exact(i, j):
                    break
                over = self._count(words.between(i, j)) - size
                if over <= 0:
                    break
                if j - 1 <= max(done, i):  # nothing left to give at the end; less overlap, then
                    if i == done:
                        break
                    i = min(i + max(1, (done - i) // 2), done)
                    limit = total[i] + size
                else:
                    limit = min(limit, total[j]) - over
            spans.append(words.span(i, j))
            if j == n:
                return spans
            i, done = self._overlapping(words, i, j), j

    def _overlapping(self, words: _Words, i: int, j: int) -> int:
        """The first word of the chunk after words i to j: at most `overlap` tokens back."""
        total = words.total
        # Room for at least one new word.
        least = max(total[j] - self._overlap, total[j + 1] - self._size)
        k = max(i + 1, min(j, bisect_right(total, total[bisect_left(total, least)]) - 1))
        while k < j and not words.exact(k, j) and (over := self._count(words.between(k, j)) - self._overlap) > 0:
            k = min(j, max(k + 1, bisect_left(total, total[k] + over)))
        return k

    def _count(self, text: str) -> int:
        return len(self._tokenizer.encode_batch_fast([text], add_special_tokens=False)[0])

    def counts(self, words: list[str]) -> list[int]:
        """The weights of words: their tokens."""
        if len(self._known) > _REMEMBERED:
            self._known = {}
        known = self._known  # threads may fill one dict; none sees it shrink
        new = [word for word in set(words) if word not in known]
        if new:
            encoded = self._tokenizer.encode_batch_fast(new, add_special_tokens=False)
            known.update((w, max(len(e), len(w.lstrip()) // _PIECE)) for w, e in zip(new, encoded, strict=True))
        return [known[word] for word in words]

    def pieces(self, word: str) -> tuple[list[str], list[int]]:
        """A long word in pieces, at Unicode's sentence, word and grapheme boundaries, and their weights."""
        pieces = [word[i : i + _SLICE] for i in range(0, len(word), _SLICE)]
        counts = [self._size + 1] * len(pieces)
        for splitter in self._splitters:
            pieces = [
                part
                for piece, count in zip(pieces, counts, strict=True)
                for part in (splitter.chunks(piece) if count > self._size else [piece])
            ]
            counts = self.counts(pieces)
        return pieces, counts


class _Words:
    """The words of a text. starts: where each begins. total: tokens before each, and of all."""

    def __init__(self, chunker: Recursive, text: str) -> None:
        self._text, self._additive = text, chunker._additive
        parts = _WORD.findall(text.rstrip())  # spaces without a word after them would cost quadratic time
        words = [part.lstrip() for part in parts]
        # Spaces can be tokens, most often as a part of the word after them.
        keys = words if self._additive else parts
        counts = chunker.counts([key if len(word) <= _LONG_WORD else "" for key, word in zip(keys, words, strict=True)])
        # Numbers of the words that begin inside what may be one word to the tokenizer.
        self._soft: list[int] = []
        if _VANISHING.search(text):
            gaps = (part[: len(part) - len(word)] for part, word in zip(parts, words, strict=True))
            self._soft = [i for i, gap in enumerate(gaps) if _VANISHING.fullmatch(gap)]
        # Half the size: without the space before it a word can be more tokens than with it.
        most = min(_PIECE, chunker._size // 2)
        long = [i for i, word in enumerate(words) if len(word) > _LONG_WORD or counts[i] > most]
        if long:
            parts, words, counts = self._broken(chunker, long, parts, words, counts)
        self.total = list(accumulate(counts, initial=0))
        self.starts = [end - len(word) for end, word in zip(accumulate(map(len, parts)), words, strict=True)]
        lines = [i for i, part in enumerate(parts) if "\n" in part]
        sentences = [
            i
            for i, word in enumerate(words[:-1], 1)
            if word[-1] in _LAST and _SENTENCE.search(word) and not words[i][0].islower()
        ]
        self._levels = [[i for i in lines if parts[i].count("\n") > 1], lines, sentences]

    def _broken(
        self, chunker: Recursive, long: list[int], parts: list[str], words: list[str], counts: list[int]
    ) -> tuple[list[str], list[str], list[int]]:
        """The same with the long words in pieces."""
        broken_parts: list[str] = []
        broken_words: list[str] = []
        broken_counts: list[int] = []
        soft, before = set(self._soft), 0
        self._soft = []
        for i in [*long, len(words)]:
            if soft:
                self._soft += [len(broken_words) + s - before for s in range(before, i) if s in soft]
            broken_parts += parts[before:i]
            broken_words += words[before:i]
            broken_counts += counts[before:i]
            if i < len(words):
                pieces, weights = chunker.pieces(words[i])
                if i in soft:
                    self._soft.append(len(broken_words))
                joints = enumerate(pairwise(pieces), len(broken_words) + 1)
                self._soft += [
                    at for at, (a, b) in joints if a[-1] not in chunker.parting and b[0] not in chunker.parting
                ]
                broken_parts += [parts[i][: -len(words[i])] + pieces[0], *pieces[1:]]
                broken_words += pieces
                broken_counts += weights
            before = i + 1
        return broken_parts, broken_words, broken_counts

    def span(self, i: int, j: int) -> tuple[int, int]:
        """The spaces after a word are its own; those at the very start, the first word's."""
        return self.starts[i] if i else 0, self.starts[j] if j < len(self.starts) else len(self._text)

    def between(self, i: int, j: int) -> str:
        start, end = self.span(i, j)
        return self._text[start:end]

    def exact(self, i: int, j: int) -> bool:
        """Whether the tokens of words i to j are sure to be the sum of theirs, or fewer."""
        return self._additive and bisect_right(self._soft, i) == bisect_left(self._soft, j)

    def boundary(self, i: int, done: int, limit: int) -> int:
        """The best end after word `done` of a chunk from word i, the tokens up to it within the limit."""
        total, n = self.total, len(self.starts)
        last = bisect_right(total, limit) - 1
        if last >= n:
            return n
        last = max(last, done + 1)
        first = max(done + 1, bisect_left(total, (total[i] + limit + 1) // 2))
        for level in self._levels:
            k = bisect_right(level, last) - 1
            if k >= 0 and level[k] >= first:
                return level[k]
        k = last
        while k >= first and self._is_soft(k):
            k -= 1
        return k if k >= first else last

    def _is_soft(self, i: int) -> bool:
        k = bisect_left(self._soft, i)
        return k < len(self._soft) and self._soft[k] == i


def make(tokenizer: Tokenizer, *, size: int = DEFAULT_SIZE, overlap: int | None = None) -> Recursive:
    """overlap: an eighth of the size where it is not given.

    Raises InvalidInput unless 1 <= size and 0 <= overlap < size.
    """
    if overlap is None:
        overlap = size // _OVERLAP if isinstance(size, int) and size > 0 else 0
    return Recursive(tokenizer, size, overlap)
