"""The words of a text and how many tokens stand before each, so that any passage is counted by a subtraction.

Encoding every candidate anew (as semantic-text-splitter does with a Hugging Face tokenizer) was 10 to 20
times slower. A word's count is remembered; what a word is, where lines and sentences end, is found in whole
arrays at once. Where the count of a passage may differ from the sum of its words', `Words.exact` says so, and
`Words.count` tells it.
"""

from __future__ import annotations

import re
import string
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from semantic_text_splitter import TextSplitter
from tokenizers import Tokenizer
from tokenizers.models import WordPiece
from tokenizers.normalizers import BertNormalizer
from tokenizers.pre_tokenizers import BertPreTokenizer

Ints = NDArray[np.int64]

_WORD = re.compile(r"\s*\S+")
# BERT's normalizer removes these spaces: the words beside them are one to it.
_VANISHING = "\x0b\x0c\x1c\x1d\x1e\x1f\x85"
_TERMINAL = ".!?…。！？؟।"
_CLOSING = "\"'”’»)]）」』"
_NOT_PUNCTUATION = re.compile(f"[^{re.escape(string.punctuation)}]+").findall
_SENTENCE = re.compile(f"[{_TERMINAL}][{re.escape(_CLOSING)}]*$")

# Kinds of characters, by code; those from 0xFFFF on are none of these.
_OTHER, _SPACE, _NEWLINE, _GONE, _ENDS, _CLOSES = range(6)
_KINDS = np.full(0x10000, _OTHER, np.uint8)
_KINDS[[i for i in range(0x3001) if chr(i).isspace()]] = _SPACE  # Unicode's last space is U+3000
for _characters, _kind in (("\n", _NEWLINE), (_VANISHING, _GONE), (_TERMINAL, _ENDS), (_CLOSING, _CLOSES)):
    _KINDS[[ord(c) for c in _characters]] = _kind

# Characters. A longer word (Chinese and Thai text, URLs, base64) may be cut inside, in pieces.
_LONG_WORD = 64
# Characters of a piece, and how many weigh as a token at least: control characters and stray accents are
# no tokens, and must end somewhere too.
_PIECE = 16
_SLICE = 1024  # characters; TextSplitter's time is quadratic in a text without boundaries
_REMEMBERED = 1 << 18  # words
_BATCH = 16  # fewer words are encoded sooner than threads are called
_REMEMBERED_PIECES = 1 << 14  # long words, of at most _SLICE characters


class _Pieces(NamedTuple):
    """A long word in parts. soft: whether each begins inside what may be one word to the tokenizer."""

    lengths: tuple[int, ...]
    weights: tuple[int, ...]
    soft: tuple[bool, ...]


class Counter:
    """Counts in the tokens of one tokenizer, without its special ones; `size` is what passages may hold.

    Safe to share between threads.
    """

    def __init__(self, tokenizer: Tokenizer, size: int) -> None:
        if tokenizer.truncation is not None or tokenizer.padding is not None:
            tokenizer = Tokenizer.from_str(tokenizer.to_str())
            tokenizer.no_truncation()
            tokenizer.no_padding()
        self.size = size
        self._tokenizer = tokenizer
        # BERT's tokenizers read each word for itself, so that counts add up.
        self.additive = (
            isinstance(tokenizer.model, WordPiece)
            and isinstance(tokenizer.pre_tokenizer, BertPreTokenizer)
            and isinstance(tokenizer.normalizer, BertNormalizer)
        )
        # Characters that are words to BERT's tokenizers wherever they stand.
        self._parting = frozenset(string.punctuation + "。，、！？；：（）「」")
        if self.additive and tokenizer.normalizer.handle_chinese_chars:
            self._parting |= set(map(chr, range(0x4E00, 0xA000)))
        self.added = tuple(token.content for token in tokenizer.get_added_tokens_decoder().values())
        self._wordpiece = _WordPiece(tokenizer) if self.additive else None
        self._known: dict[str, int] = {}
        self._known_pieces: dict[str, _Pieces] = {}
        self._known_groups: dict[str, int] = {}
        # Words that weigh more than their tokens; see _PIECE.
        self.stray: set[str] = set()
        self._splitters = [TextSplitter(n, trim=False) for n in (_PIECE, 4, 1)]

    def count(self, text: str) -> int:
        """The tokens of a text, as it is encoded for itself."""
        return len(self._tokenizer.encode(text, add_special_tokens=False))

    def count_group(self, text: str) -> int:
        """The same, remembered."""
        if (count := self._known_groups.get(text)) is None:
            if len(self._known_groups) >= _REMEMBERED_PIECES:
                self._known_groups = {}
            count = self._known_groups[text] = self.count(text)
        return count

    def weights(self, words: Sequence[str]) -> Ints:
        """The tokens of each word, or a little more; see _PIECE."""
        if len(self._known) > _REMEMBERED:
            self._known, self.stray = {}, set()
        known = self._known  # threads may fill one dict; none sees it shrink
        try:
            return np.fromiter(map(known.__getitem__, words), np.int64, len(words))
        except KeyError:
            self._learn(known, list(set(words).difference(known)))
            return np.fromiter(map(known.__getitem__, words), np.int64, len(words))

    def _learn(self, known: dict[str, int], words: list[str]) -> None:
        counts: dict[str, int] = {}
        if self._wordpiece is not None:
            counts = {word: count for word in words if (count := self._wordpiece.count(word))}
            words = [word for word in words if word not in counts]
        if len(words) < _BATCH:
            counts |= {word: self.count(word) for word in words}
        else:
            encodings = self._tokenizer.encode_batch_fast(words, add_special_tokens=False)
            counts |= zip(words, map(len, encodings), strict=True)
        for word in [word for word, count in counts.items() if len(word) >= _PIECE * (count + 1)]:
            if (weight := len(word.lstrip()) // _PIECE) > counts[word]:
                self.stray.add(word)
                counts[word] = weight
        known |= counts

    def joined(self, before: str, after: str) -> bool:
        """Whether two characters may be of one word to the tokenizer."""
        return before not in self._parting and after not in self._parting

    def pieces(self, word: str) -> _Pieces:
        """A long word in pieces, at Unicode's sentence, word and grapheme boundaries."""
        if (found := self._known_pieces.get(word)) is not None:
            return found
        pieces = [word[i : i + _SLICE] for i in range(0, len(word), _SLICE)]
        weights = [self.size + 1] * len(pieces)
        for splitter in self._splitters:
            pieces = [
                part
                for piece, weight in zip(pieces, weights, strict=True)
                for part in (splitter.chunks(piece) if weight > self.size else [piece])
            ]
            weights = self.weights(pieces).tolist()
        soft = (False, *(self.joined(a[-1], b[0]) for a, b in pairwise(pieces)))
        made = _Pieces(tuple(map(len, pieces)), tuple(weights), soft)
        if len(word) <= _SLICE:
            if len(self._known_pieces) >= _REMEMBERED_PIECES:
                self._known_pieces = {}
            self._known_pieces[word] = made
        return made


class _WordPiece:
    """What BERT's tokenizers make of words in ASCII, without asking them: to call them takes several times as long.

    Each character of punctuation is a token; of what is between them, the longest beginning that is in the
    vocabulary, again and again (Wu et al., 2016).
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        model = tokenizer.model
        self._lowercase: bool = tokenizer.normalizer.lowercase
        self._longest_word: int = model.max_input_chars_per_word
        prefix = model.continuing_subword_prefix
        self._begins = set(tokenizer.get_vocab(with_added_tokens=False))
        self._goes_on = {token.removeprefix(prefix) for token in self._begins if token.startswith(prefix)}
        self._longest = max(map(len, self._begins), default=1)
        added = [token.content for token in tokenizer.get_added_tokens_decoder().values()]
        lower = map(str.lower, added) if self._lowercase else added
        self._added = re.compile("|".join(map(re.escape, lower)) or "(?!)").search
        self._parts: dict[str, int] = {}

    def count(self, word: str) -> int:
        """The tokens of a word without spaces; 0 where only the tokenizer can tell."""
        if not (word.isascii() and word.isprintable()):
            return 0
        if self._lowercase:
            word = word.lower()
        if self._added(word):
            return 0
        parts = self._parts
        count = len(word)
        for part in _NOT_PUNCTUATION(word):
            if (n := parts.get(part)) is None:
                if len(parts) >= _REMEMBERED:
                    parts = self._parts = {}
                n = parts[part] = self._match(part)
            count += n - len(part)
        return count

    def _match(self, word: str) -> int:
        if word in self._begins:
            return 1
        start, count, end = 0, 0, len(word)
        if end > self._longest_word:
            return 1
        while start < end:
            among, stop = self._goes_on if start else self._begins, min(end, start + self._longest)
            while word[start:stop] not in among:
                stop -= 1
                if stop == start:
                    return 1  # unknown
            start, count = stop, count + 1
        return count


class Words:
    """The words of a text, numbered; a passage runs from word i to before word j.

    starts: where each begins. total: tokens before each, and of all. Spaces after a word are its own; those
    at the very start, the first word's. blank_lines, lines, sentences: the words that begin after those;
    breaks: those that begin at the breaks or after them.
    """

    def __init__(self, counter: Counter, text: str, breaks: Iterable[int] = ()) -> None:
        """breaks: offsets that are boundaries of words too, though there be no space."""
        self.text, self._counter = text, counter
        breaks = np.fromiter(breaks, np.int64)
        codes = (
            np.frombuffer(text.encode("ascii"), np.uint8)
            if text.isascii()
            else np.frombuffer(text.encode("utf-32-le", "surrogatepass"), np.uint32)
        )
        kinds = _KINDS[codes if codes.dtype == np.uint8 else np.minimum(codes, 0xFFFF)]
        starts, ends = _runs((kinds >= _SPACE) & (kinds <= _GONE))
        inside = _inside(starts, ends, breaks)
        soft: NDArray[np.bool_] | None = None
        if inside.size:
            starts, ends = np.sort(np.concatenate([starts, inside])), np.sort(np.concatenate([ends, inside]))
            soft = np.zeros(starts.size, np.bool_)
            soft[np.searchsorted(starts, inside)] = [counter.joined(text[i - 1], text[i]) for i in inside.tolist()]
            words = [text[s:e] for s, e in zip(starts.tolist(), ends.tolist(), strict=True)]
            before = [0, *ends[:-1].tolist()]
            parts = [text[s:e] for s, e in zip(before, ends.tolist(), strict=True)]
        else:
            words = text.split()
            parts = words if counter.additive else _WORD.findall(text.rstrip())
        if (kinds == _GONE).any():
            gaps = zip([0, *ends[:-1].tolist()], starts.tolist(), strict=True)
            gone = [i for i, (s, e) in enumerate(gaps) if e > s and not text[s:e].strip(_VANISHING)]
            soft = np.zeros(starts.size, np.bool_) if soft is None else soft
            soft[gone] = True
        # Spaces can be tokens, most often as a part of the word after them.
        keys = words if counter.additive else parts
        lengths = ends - starts
        if over := np.flatnonzero(lengths > _LONG_WORD).tolist():
            keys = list(keys)
            for i in over:
                keys[i] = ""
        weights = counter.weights(keys)
        # Half the size: without the space before it a word can be more tokens than with it.
        long = np.flatnonzero((lengths > _LONG_WORD) | (weights > min(_PIECE, counter.size // 2)))
        if long.size:
            starts, ends, weights, soft = _broken(counter, words, long, starts, ends, weights, soft)
        self.starts = starts
        self.total: list[int] = np.concatenate([[0], np.cumsum(weights)]).tolist()
        heavy = np.flatnonzero((weights > 0) & (weights == (ends - starts) // _PIECE)).tolist()
        self._stray: list[int] = [i for i in heavy if text[starts[i] : ends[i]] in counter.stray]
        self._soft: list[int] = [] if soft is None else np.flatnonzero(soft).tolist()
        # The word after each line end; those after the last word have none.
        after = np.searchsorted(starts, np.flatnonzero(kinds == _NEWLINE))
        after = after[after < starts.size]
        again = after[1:] == after[:-1]
        self.lines: list[int] = [*after[:1].tolist(), *after[1:][~again].tolist()]
        self.blank_lines: list[int] = list(dict.fromkeys(after[1:][again].tolist()))
        at = np.searchsorted(starts, breaks)
        self.breaks: list[int] = at[(at > 0) & (at < starts.size)].tolist()
        self._kinds, self._ends = kinds, ends
        self._sentences: list[int] | None = None

    def __len__(self) -> int:
        return len(self.total) - 1

    @property
    def sentences(self) -> list[int]:
        """By the end of the word before; a word in lower case begins none."""
        if self._sentences is None:
            text, starts, ends = self.text, self.starts, self._ends
            last = self._kinds[ends[:-1] - 1]
            at = np.flatnonzero(last >= _ENDS)
            candidates = zip((at + 1).tolist(), starts[at + 1].tolist(), (last[at] == _ENDS).tolist(), strict=True)
            self._sentences = [
                i
                for i, start, ended in candidates
                if not text[start].islower() and (ended or _SENTENCE.search(text, starts[i - 1], ends[i - 1]))
            ]
        return self._sentences

    def numbers(self, offsets: Iterable[int]) -> list[int]:
        """Of the first words that begin at these offsets or after them."""
        found: list[int] = np.searchsorted(self.starts, np.fromiter(offsets, np.int64)).tolist()
        return found

    def span(self, i: int, j: int) -> tuple[int, int]:
        """The characters of words i to j."""
        starts, end = self.starts, len(self.text)
        return (int(starts[i]) if i < starts.size else end) if i else 0, int(starts[j]) if j < starts.size else end

    def exact(self, i: int, j: int) -> bool:
        """Whether the tokens of words i to j are sure to be the sum of theirs, or fewer."""
        return self._counter.additive and bisect_right(self._soft, i) == bisect_left(self._soft, j)

    def count(self, i: int, j: int) -> int:
        """The tokens of words i to j, encoded together where that matters."""
        start, end = self.span(i, j)
        text = self.text[start:end]
        if not self._counter.additive or any(a in text for a in self._counter.added) or self._is_stray(i, j):
            return self._counter.count(text)
        # Words that are one to the tokenizer are encoded as one; the others add up.
        count, total, soft = 0, self.total, self._soft
        k, before = bisect_right(soft, i), i
        while k < len(soft) and soft[k] < j:
            first = soft[k] - 1
            while k + 1 < len(soft) and soft[k + 1] == soft[k] + 1 and soft[k + 1] < j:
                k += 1
            after = soft[k] + 1
            count += (
                total[first] - total[before] + self._counter.count_group(self.text[slice(*self.span(first, after))])
            )
            before, k = after, k + 1
        return count + total[j] - total[before]

    def fits(self, i: int, j: int) -> bool:
        """Whether words i to j are sure to be within the size."""
        size, weight = self._counter.size, self.total[j] - self.total[i]
        if i == j or (weight <= size and self.exact(i, j)):
            return True
        # Far more than the size is not looked at; of words that are none to the tokenizer, it could still fit.
        return weight <= 4 * size and not self.exact(i, j) and self.count(i, j) <= size

    def within(self, i: int, tokens: int) -> int:
        """The word after the last that is within so many tokens from word i on."""
        return bisect_right(self.total, self.total[i] + tokens) - 1

    def is_soft(self, i: int) -> bool:
        """Whether word i begins inside what may be one word to the tokenizer."""
        k = bisect_left(self._soft, i)
        return k < len(self._soft) and self._soft[k] == i

    def _is_stray(self, i: int, j: int) -> bool:
        """Whether some word weighs more than its tokens."""
        return bisect_left(self._stray, i) < bisect_left(self._stray, j)


def _runs(space: NDArray[np.bool_]) -> tuple[Ints, Ints]:
    """Where words start and end."""
    edges = np.flatnonzero(space[1:] != space[:-1]) + 1
    if not space.size:
        return edges, edges
    if not space[0]:
        edges = np.concatenate([[0], edges])
    if not space[-1]:
        edges = np.concatenate([edges, [space.size]])
    return edges[0::2], edges[1::2]


def _inside(starts: Ints, ends: Ints, breaks: Ints) -> Ints:
    """The breaks that stand inside a word."""
    if not starts.size or not breaks.size:
        return breaks[:0]
    at = np.unique(breaks)
    i = np.searchsorted(starts, at, "right") - 1
    return at[(i >= 0) & (starts[i] < at) & (at < ends[i])]


def _broken(
    counter: Counter,
    words: list[str],
    long: Ints,
    starts: Ints,
    ends: Ints,
    weights: Ints,
    soft: NDArray[np.bool_] | None,
) -> tuple[Ints, Ints, Ints, NDArray[np.bool_]]:
    """The same with the long words in pieces."""
    many = [counter.pieces(words[i]) for i in long.tolist()]
    repeats = np.ones(starts.size, np.int64)
    repeats[long] = [len(pieces.lengths) for pieces in many]
    first = np.cumsum(repeats) - repeats  # the number of each word's first piece
    lengths, weights = np.repeat(ends - starts, repeats), np.repeat(weights, repeats)
    is_long, broken = np.zeros(starts.size, np.bool_), np.zeros(lengths.size, np.bool_)
    is_long[long] = True
    at = np.repeat(is_long, repeats)
    lengths[at] = [n for pieces in many for n in pieces.lengths]
    weights[at] = [n for pieces in many for n in pieces.weights]
    broken[at] = [joint for pieces in many for joint in pieces.soft]
    if soft is not None:
        broken[first[soft]] = True
    before = np.cumsum(lengths) - lengths  # a piece begins where the one before it ends
    starts = np.repeat(starts - before[first], repeats) + before
    return starts, starts + lengths, weights, broken
