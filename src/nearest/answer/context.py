"""Hits to sources: duplicates merged, neighbouring chunks joined, packed to a budget without cutting a passage."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from nearest.answer.parts import Source, Sources
from nearest.contract import Hit

_WORD = re.compile(r"[^\s.,;:!?]+")  # signs that make no difference to what is said


@dataclass(slots=True)
class _Passage:
    """Hits of one document that overlap or touch, as one text; best: the one that came first."""

    best: Hit
    start: int
    text: str
    chunks: list[str]
    cosine: float | None
    also: list[str] = field(default_factory=list)

    @property
    def end(self) -> int:
        return self.start + len(self.text)


def pack(hits: Sequence[Hit], count: Callable[[str], int], budget: int) -> tuple[Sources, int]:
    """Sources of at most `budget` tokens together, numbered by falling score; and how many hits were left out.

    count: the tokens of a text. The best passages come first; one that does not fit is left out whole, and a
    smaller one after it may still be taken.
    """
    passages: list[_Passage] = []
    used, omitted = 0, 0
    for hit in hits:
        text = hit.text
        if not text.strip():
            continue
        same = next((p for p in passages if _within(text, p.text)), None)
        if same is not None:  # the same passage, again or in another document
            name = hit.document_id or hit.id
            if name == same.best.document_id:
                same.chunks.append(hit.id)
            elif name not in same.also:
                same.also.append(name)
            continue
        joined = _joined(passages, hit)
        near = [p for p in passages if _touches(p, hit) or _within(p.text, text)]
        cost = count(joined.text) - sum(count(p.text) for p in near)
        if used + cost > budget:
            omitted += 1
            continue
        used += cost
        place = min((i for i, p in enumerate(passages) if any(p is n for n in near)), default=len(passages))
        passages = [p for p in passages if not any(p is n for n in near)]
        passages.insert(place, joined)
    sources = Sources(
        Source(
            number, p.best.document_id or p.best.id, tuple(p.chunks), p.text, p.start, p.best.score, p.cosine,
            tuple(p.also), p.best.metadata, p.best.page, tuple(p.best.headings),
        )
        for number, p in enumerate(passages, 1)
    )  # fmt: skip
    return sources, omitted


def _joined(passages: Sequence[_Passage], hit: Hit) -> _Passage:
    """The hit with the passages that it overlaps or touches; the best of them gives its score and place."""
    start, text, chunks, also = _start(hit), hit.text, [hit.id], []
    best, cosine = hit, _cosine(hit)
    for passage in passages:
        if not _touches(passage, hit) and _within(passage.text, text):  # this one says more, in another document
            name = passage.best.document_id or passage.best.id
            chunks += passage.chunks if name == hit.document_id else []
            also += [other for other in (name, *passage.also) if other != hit.document_id and other not in also]
    for passage in sorted((p for p in passages if _touches(p, hit)), key=lambda p: p.start):
        first, second = sorted(((passage.start, passage.text), (start, text)))
        start, text = first[0], first[1] + second[1][first[0] + len(first[1]) - second[0] :]
        chunks = [*passage.chunks, *chunks]
        also += passage.also
        cosine = max((c for c in (cosine, passage.cosine) if c is not None), default=None)
        best = passage.best if passage.best.score >= best.score else best
    return _Passage(best, start, text, chunks, cosine, also)


def _touches(passage: _Passage, hit: Hit) -> bool:
    if passage.best.document_id is None or passage.best.document_id != hit.document_id:
        return False
    start = _start(hit)
    return start <= passage.end and passage.start <= start + len(hit.text)


def _start(hit: Hit) -> int:
    return int(hit.payload.get("start", 0))


def _cosine(hit: Hit) -> float | None:
    told: Any = (hit.explain or {}).get("dense")
    return float(told["score"]) if isinstance(told, dict) and "score" in told else None


def _within(small: str, large: str) -> bool:
    """Whether the words of one text are, in their order, among those of another."""
    return f" {_plain(small)} " in f" {_plain(large)} "


def _plain(text: str) -> str:
    return " ".join(_WORD.findall(text)).casefold()
