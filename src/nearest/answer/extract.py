"""The extractive answer: the sentences of the sources that most likely hold the answer, quoted.

Each sentence is scored by a logistic model over its similarity to the question (cosine of their vectors), the
question's words in it, the same of the sentences beside it, and its passage.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from nearest.answer import confidence, sentences
from nearest.answer.parts import Source
from nearest.contract import Embedder, Float32

Terms = Callable[[str], list[str]]
"""A text's searchable words: lower case, without stop words, stemmed."""
_RULE = re.compile(r"([^\w\s])\1{3,}")
_READ = 4  # sources whose sentences are looked at
_LEAST = 0.25  # of the best sentence's probability, for another to be quoted


@dataclass(frozen=True, slots=True)
class Candidate:
    """A sentence of a source. features: what its probability was computed from."""

    source: Source
    start: int
    end: int
    features: Mapping[str, float]
    probability: float

    @property
    def text(self) -> str:
        return self.source.text[self.start : self.end]


@dataclass(frozen=True, slots=True)
class Evidence:
    """The best sentences, by falling probability. probability: that they hold the answer, calibrated."""

    best: tuple[Candidate, ...]
    probability: float
    features: Mapping[str, float]


def evidence(question: str, sources: Sequence[Source], embedder: Embedder, terms: Terms, most: int = 3) -> Evidence:
    """At most `most` sentences, those with less than a quarter of the best one's probability left out."""
    ranked = rank(question, sources, embedder, terms)
    if not ranked:
        return Evidence((), 0.0, {})
    best = tuple(c for c in ranked[:most] if c.probability >= _LEAST * ranked[0].probability)
    asked = set(terms(question))
    together = {term for candidate in best for term in terms(candidate.text)}
    first = ranked[0]
    rival = next((c for c in ranked if c.source is not first.source), None)
    told = {
        "best": confidence.SENTENCE.logit(first.features),
        "cosine": max(c.features["cosine"] for c in ranked),
        "coverage": len(asked & together) / max(len(asked), 1),
        "passage": first.features["passage"],
        "lead": first.probability - (rival.probability if rival else 0.0),
    }
    return Evidence(best, confidence.EVIDENCE(told), told)


def rank(question: str, sources: Sequence[Source], embedder: Embedder, terms: Terms) -> list[Candidate]:
    """The sentences of the first sources, by falling probability of holding the answer."""
    read = sources[:_READ]
    every = [(source, start, end) for source in read for start, end in sentences.spans(source.text)]
    # A heading says what is spoken of, and nothing about it.
    places = [place for place in every if not _heading(place[0].text[place[1] : place[2]])] or every
    if not places:
        return []
    texts = [source.text[start:end] for source, start, end in places]
    vectors = embedder.embed_documents(texts, truncate=True)
    cosines: Float32 = vectors @ embedder.embed_query(question, truncate=True)
    coverages = _coverages(
        set(terms(question)), [set(terms(s.text[start:end])) for s, start, end in places], sources, terms
    )
    candidates = []
    for i, (source, start, end) in enumerate(places):
        beside = [j for j in (i - 1, i + 1) if 0 <= j < len(places) and places[j][0] is source]
        own = [float(cosines[j]) for j in range(len(places)) if places[j][0] is source]
        features = {
            "cosine": float(cosines[i]),
            "coverage": coverages[i],
            "beside_cosine": max((float(cosines[j]) for j in beside), default=0.0),
            "beside_coverage": max((coverages[j] for j in beside), default=0.0),
            "passage": max(own) if source.cosine is None else source.cosine,
            "rank": 1 / source.number,
        }
        candidates.append(Candidate(source, start, end, features, confidence.SENTENCE(features)))
    # Ties in the order of the text.
    return sorted(candidates, key=lambda c: (-c.probability, c.source.number, c.start))


def _heading(text: str) -> bool:
    """A line over a rule, as in reStructuredText, or after #."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    said = [line for line in lines if not _RULE.fullmatch(line)]
    return not said or (len(said) == 1 and (len(lines) > 1 or re.match(r"#{1,6} ", said[0]) is not None))


def _coverages(asked: set[str], held: Sequence[set[str]], sources: Sequence[Source], terms: Terms) -> list[float]:
    """The share of the question's words in each sentence; a word weighs by how few of the sources have it."""
    seen = Counter(term for source in sources for term in set(terms(source.text)) & asked)
    weights = {term: math.log(1 + (len(sources) - seen[term] + 0.5) / (seen[term] + 0.5)) for term in asked}
    total = sum(weights.values())
    return [float(sum(weights[t] for t in words & asked) / total) if total else 0.0 for words in held]
