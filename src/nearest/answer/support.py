"""Citations, and whether they hold: each is checked against the passage that it names.

The check is about words, numbers, names and meaning (cosine of vectors) in the sentence and the passage; it
is no entailment. That a sentence says the opposite of its passage in nearly the same words is seen where one of them
negates, in English, what the other states, or where their numbers differ (`contradicts`).
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
_MARK = re.compile(r"\s*(?:\[|【)(\d{1,4}(?:\s*[,;]\s*\d{1,4})*)(?:\]|†[^】\n]{0,80}】|】)")
_NUMBER = re.compile(r"\d+(?:[.,]\d+)*")
_NAME = re.compile(r"(?<![.!?…\"“]\s)(?<!^)\b[A-Z][^\W\d_]+")
_LETTER = re.compile(r"\w")
_ALIKE = 0.5  # a sentence with no more than this share of a claim's words is about something else
_NEGATOR = re.compile(r"\b(?:not|never|cannot|without|no)\b|n['’]t\b", re.IGNORECASE)
_CLAUSE_END = re.compile(r"[.,;:()–—]")  # what is negated does not stand behind it: `No, keys do expire`
# What may negate without such a word, or only a part, or suppose; a sentence that has some is not judged.
_UNCLEAR = re.compile(
    r"\?|\b(?:fail\w*|lack\w*|absen\w+|refus\w+|den(?:y|ie[sd])|prevent\w*|avoid\w*|prohibit\w*|forb\w+|reject\w*"
    r"|exclud\w+|rule[ds]? out|free (?:of|from)|instead|rather|only|except|until|few|little|hardly|barely"
    r"|scarcely|rarely|seldom|nothing|nowhere|nobody|neither|false|wrong|impossible|non\w+|un(?!der|it|iv|ion|ique)\w{4,}"
    r"|in(?:effective|active|capable|sufficient|correct|valid|accurate)\w*|dis(?:able|agree|continu|allow|prove)\w*"
    r"|\w+less|if|whether|may|might|could|would"
    r"|not (?:just|all|each|very|so|more))\b",
    re.IGNORECASE,
)
_ENGLISH = re.compile(r"\b(?:the|of|is|are|was|were|it|and|with|by|to|from|after)\b", re.IGNORECASE)


def cited(raw: str) -> list[Sentence]:
    """The sentences of a text with marks like [1], [1][2], [1, 2] or 【1】; citations not yet checked.

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
            holds = confidence.SUPPORT(found) * (1 - found["numbers"])
            supports.append(0.0 if contradicts(text, source.text, terms) else holds)
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


def contradicts(claim: str, passage: str, terms: Terms) -> bool:
    """Whether each sentence of the passage that is most like the claim, by its words, says the opposite of it.

    That is so where one of the two negates what the other states, or where the claim is the sentence but for its
    numbers. Anything less clear is not: the words are English, and what one negates is the first word after it that
    means something.
    """
    words = _words(claim, terms)
    if not words:
        return False
    told = [passage[a:b] for a, b in sentences.spans(passage)]
    shares = [len(words & _words(sentence, terms)) / len(words) for sentence in told]
    most = max(shares, default=0.0)
    alike = [sentence for sentence, share in zip(told, shares, strict=True) if share == most]
    if most <= _ALIKE:
        return False
    return all(_opposite(claim, sentence, terms) or _other_numbers(claim, sentence, most) for sentence in alike)


def _opposite(claim: str, sentence: str, terms: Terms) -> bool:
    both = (claim, sentence)
    if not all(_ENGLISH.search(text) for text in both) or any(_UNCLEAR.search(text) for text in both):
        return False
    found = [list(_NEGATOR.finditer(text)) for text in both]
    if len(found[0]) + len(found[1]) != 1:
        return False
    negated, other = both if found[0] else (sentence, claim)
    scope = terms(_CLAUSE_END.split(negated[(*found[0], *found[1])[0].end() :], maxsplit=1)[0])
    # What is said with and without the negation, `treated or never treated`, is not opposed.
    return bool(scope) and scope[0] in terms(other) and terms(negated).count(scope[0]) == 1


def _other_numbers(claim: str, sentence: str, share: float) -> bool:
    """share: of the claim's words in the sentence."""
    mine, theirs = _numerals(claim), _numerals(sentence)
    return share == 1.0 and bool(mine) and bool(theirs) and not mine & theirs


def _words(text: str, terms: Terms) -> set[str]:
    """Without numbers and negations."""
    return set(terms(_NEGATOR.sub(" ", _NUMBER.sub(" ", text))))


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
