"""Citations, and whether they hold: each is checked against the passage that it names.

The check is about words, numbers, names and meaning (cosine of vectors) in the sentence and the passage; it
is no entailment, and does not see that a sentence says the opposite in the passage's own words.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence

import numpy as np

from nearest.answer import confidence, sentences
from nearest.answer.extract import Terms
from nearest.answer.parts import Citation, Sentence, Source
from nearest.contract import Embedder, Float32

HOLDS = 0.5
_MARK = re.compile(r"\s*\[(\d{1,4}(?:\s*[,;]\s*\d{1,4})*)\]")
_NUMBER = re.compile(r"\d+(?:[.,]\d+)*")
_NAME = re.compile(r"(?<![.!?…\"“]\s)(?<!^)\b[A-Z][^\W\d_]+")
_LETTER = re.compile(r"\w")


def cited(raw: str) -> list[Sentence]:
    """The sentences of a text with marks like [1], [1][2] or [1, 2]; citations not yet checked.

    Marks that stand alone, after a sentence's full stop, are that sentence's. What holds no letter and no digit
    is no sentence.
    """
    found: list[Sentence] = []
    for start, end in sentences.spans(raw):
        lead = 0
        while (mark := _MARK.match(raw, start + lead, end)) is not None:
            lead = mark.end() - start
        if lead and found:
            before = found[-1]
            more = _numbers(raw[start : start + lead])
            citations = dict.fromkeys([c.source for c in before.citations] + more)
            found[-1] = Sentence(before.text, tuple(map(_unchecked, citations)), before.start, start + lead)
            start += lead
        text = _MARK.sub("", raw[start:end]).strip()
        if _LETTER.search(text):
            begin = start + len(raw[start:end]) - len(raw[start:end].lstrip())
            found.append(Sentence(text, tuple(map(_unchecked, _numbers(raw[start:end]))), begin, end))
    return found


def check(sentence: Sentence, sources: Sequence[Source], embedder: Embedder, terms: Terms) -> Sentence:
    """The sentence with each citation checked; a number that no source has is not supported."""
    by_number = {source.number: source for source in sources}
    known = [by_number[c.source] for c in sentence.citations if c.source in by_number]
    told = dict(zip((s.number for s in known), _supports(sentence.text, known, embedder, terms), strict=True))
    citations = tuple(
        Citation(c.source, told.get(c.source, 0.0), told.get(c.source, 0.0) >= HOLDS) for c in sentence.citations
    )
    return Sentence(sentence.text, citations, sentence.start, sentence.end)


def _supports(text: str, sources: Sequence[Source], embedder: Embedder, terms: Terms) -> list[float]:
    if not sources:
        return []
    pieces = [windows(source.text) for source in sources]
    vectors = embedder.embed_documents([text, *(w for some in pieces for w in some)], truncate=True)
    supports, at = [], 1
    for source, some in zip(sources, pieces, strict=True):
        if _plain(text) in _plain(source.text):
            supports.append(1.0)
        else:
            found = features(text, source.text, some, vectors[0], vectors[at : at + len(some)], terms)
            # A number that the passage lacks weighs more than words in common can.
            supports.append(confidence.SUPPORT(found) * (1 - found["numbers"]))
        at += len(some)
    return supports


def features(
    text: str, passage: str, windows: Sequence[str], vector: Float32, others: Float32, terms: Terms
) -> dict[str, float]:
    """What support is computed from. vector: of the text, (d,). others: of the passage's windows, (n, d).

    cosine: with the window that is nearest. coverage: the share of the text's words in the passage; window: in the
    window that has most. numbers, names: the shares of its numbers and capitalised words that the passage lacks.
    """
    words = set(terms(text))
    plain = passage.casefold()
    numbers = _numerals(text)
    names = {name.casefold() for name in _NAME.findall(text)}
    return {
        "cosine": float(np.max(others @ vector)),
        "coverage": len(words & set(terms(passage))) / max(len(words), 1),
        "window": max(len(words & set(terms(w))) for w in windows) / max(len(words), 1),
        "numbers": len(numbers - _numerals(passage)) / max(len(numbers), 1),
        "names": sum(name not in plain for name in names) / max(len(names), 1),
    }


def windows(passage: str) -> list[str]:
    """Each sentence, and each two that follow each other."""
    spans = sentences.spans(passage)
    pairs = itertools.pairwise(spans)
    return [passage[a:b] for a, b in spans] + [passage[a:d] for (a, _), (_, d) in pairs]


def _numerals(text: str) -> set[str]:
    """1,233 and 1233 are one."""
    return {number.replace(",", "") for number in _NUMBER.findall(text)}


def _numbers(text: str) -> list[int]:
    marks = (part for mark in _MARK.finditer(text) for part in re.split(r"[,;]", mark[1]))
    return list(dict.fromkeys(int(part) for part in marks))


def _unchecked(number: int) -> Citation:
    return Citation(number, 0.0, False)


def _plain(text: str) -> str:
    return " ".join(text.split()).casefold()
