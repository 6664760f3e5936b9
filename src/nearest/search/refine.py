"""What is done with a ranking after it was retrieved: rerank, threshold, grouping, diversity, pages, in this order."""

from __future__ import annotations

import base64
import binascii
import json
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from nearest.contract import MAX_K, Float32, Hit, Reranker
from nearest.errors import InvalidQuery
from nearest.search.rerank import rerank

Group = Literal["document"]


@dataclass(frozen=True, slots=True)
class Refinement:
    """rerank: judges the `rerank_candidates` best, or k if that is more, within `rerank_seconds` (no limit: None).
    min_score: hits below it are left out; on the scale of the last stage that gave scores. group_by: `document`
    keeps the best chunk of each. diversity: from 0, the ranking as it is, to 1; see `mmr`. after: None for one answer;
    for pages "" and then the last page's `Hits.after`. stored: hits bring the token vectors of `rerank`.
    """

    rerank: Reranker | None = None
    rerank_candidates: int = 50
    rerank_seconds: float | None = None
    min_score: float | None = None
    group_by: Group | None = None
    diversity: float = 0.0
    after: str | None = None
    stored: bool = False

    @property
    def nothing(self) -> bool:
        return (
            self.rerank is None
            and self.rerank_seconds is None
            and self.min_score is None
            and self.group_by is None
            and self.diversity == 0.0
            and self.after is None
        )

    def check(self) -> None:
        """Raises InvalidQuery."""
        depth = self.rerank_candidates
        if not isinstance(depth, int) or isinstance(depth, bool) or not 1 <= depth <= MAX_K:
            raise InvalidQuery(f"rerank_candidates must be an integer from 1 to {MAX_K}, got {depth!r}")
        if self.rerank_seconds is not None and self.rerank is None:
            raise InvalidQuery("rerank_seconds limits a reranker, and there is none; give one, or leave it out")
        if self.rerank_seconds is not None and not (_number(self.rerank_seconds) and self.rerank_seconds > 0):
            raise InvalidQuery(f"rerank_seconds must be above 0, or None for no limit, got {self.rerank_seconds!r}")
        if self.min_score is not None and not _number(self.min_score):
            raise InvalidQuery(f"min_score must be a number, got {self.min_score!r}")
        if self.group_by not in (None, "document"):
            raise InvalidQuery(f"group_by must be document, or None, got {self.group_by!r}")
        if not (_number(self.diversity) and 0 <= self.diversity <= 1):
            raise InvalidQuery(f"diversity must be from 0 to 1, got {self.diversity!r}")
        if self.after is not None and self.rerank_seconds is not None:
            raise InvalidQuery(
                "pages are cut from one ranking, and rerank_seconds may change it; leave one of them out"
            )
        if self.after is not None and not isinstance(self.after, str):
            raise InvalidQuery(f'after must be "" or a page\'s cursor, got {self.after!r}')

    def depth(self, k: int, candidates: int) -> int:
        """How many hits of the first stage are needed, at first."""
        if self.after is not None:
            fixed = candidates if self.rerank is None else self.rerank_candidates
            if k > fixed:
                what = "candidates" if self.rerank is None else "rerank_candidates"
                raise InvalidQuery(f"k is {k}, and pages are cut from the {fixed} best; raise `{what}`")
            return fixed
        if self.rerank is not None:
            return max(k, self.rerank_candidates)
        depth = max(k, candidates) if self.diversity else k
        return min(max(depth, 4 * k), MAX_K) if self.group_by else depth

    @property
    def vectors(self) -> bool:
        """Whether the hits' vectors are needed."""
        return self.diversity > 0 or self.stored


@dataclass(slots=True)
class Refined:
    """hits: of this page. told: what to add to a hit's `explain`, by id. facts: of the search. more: whether a
    deeper ranking could fill the page up. skipped: why the reranker did not judge."""

    hits: list[Hit]
    told: dict[str, dict[str, Any]] = field(default_factory=dict)
    facts: dict[str, Any] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    skipped: str | None = None
    after: str | None = None
    more: bool = False


def refine(how: Refinement, query: str | None, found: Sequence[Hit], k: int, asked: int, key: str) -> Refined:
    """found: the first stage's hits, of which `asked` were asked for. key: equal for pages of one search."""
    started = time.perf_counter()
    done = Refined(list(found))
    done.told = {hit.id: {"first": {"rank": rank, "score": hit.score}} for rank, hit in enumerate(found, 1)}
    if how.rerank is not None:
        _reranked(how, query or "", done)
        now = time.perf_counter()
        done.seconds["rerank"] = now - started
        started = now
    below = len(done.hits)
    if how.min_score is not None and done.skipped is None:
        done.hits = [hit for hit in done.hits if hit.score >= how.min_score]
        below -= len(done.hits)
    if how.group_by is not None:
        best: dict[str, Hit] = {}
        for hit in done.hits:
            best.setdefault(str(hit.document_id), hit)
        done.hits = list(best.values())
    if how.diversity > 0:
        _diverse(how.diversity, done, k if how.after is None else len(done.hits))
    if how.after is None:
        # Beyond a reranked head, or below the threshold, there is nothing to be had.
        done.more = len(done.hits) < k and len(found) == asked < MAX_K and how.rerank is None and not (
            how.min_score is not None and below > 0
        )  # fmt: skip
        done.hits = done.hits[:k]
    else:
        _page(how.after, done, k, key, falling=how.diversity == 0)
    done.seconds["refine"] = time.perf_counter() - started
    return done


def _reranked(how: Refinement, query: str, done: Refined) -> None:
    assert how.rerank is not None
    first = done.hits
    done.hits, skipped = rerank(how.rerank, query, first, how.rerank_seconds, stored=how.stored)
    facts: dict[str, Any] = {"model": how.rerank.name, "candidates": len(first)}
    done.skipped = skipped
    if skipped is not None:
        facts["skipped"] = skipped
        for hit in first:
            done.told[hit.id]["rerank"] = {"model": how.rerank.name, "skipped": skipped}
    else:
        for rank, hit in enumerate(done.hits, 1):
            done.told[hit.id]["rerank"] = {"model": how.rerank.name, "rank": rank, "score": hit.score}
    done.facts["rerank"] = facts


def _diverse(diversity: float, done: Refined, k: int) -> None:
    if not done.hits:
        return
    vectors = np.stack([np.asarray(hit.vectors["dense"], np.float32) for hit in done.hits])
    order = mmr(np.array([hit.score for hit in done.hits], np.float32), vectors, diversity, k)
    for rank, (i, similarity) in enumerate(order, 1):
        told = {"rank": rank, "before": i + 1, "similarity": similarity}
        done.told[done.hits[i].id]["diversity"] = told
    done.hits = [done.hits[i] for i, _ in order]


def mmr(scores: Float32, vectors: Float32, diversity: float, k: int) -> list[tuple[int, float]]:
    """Maximal marginal relevance (Carbonell & Goldstein 1998): (index, similarity to those before) of k items.

    Each next item has the largest (1 - diversity) * relevance - diversity * similarity. relevance: the score, scaled to
    [0, 1] between the worst and the best. similarity: the largest cosine with an item already taken, 0 for the
    first. scores: (n,), falling. vectors: (n, d) of unit length. Ties go to the better score.
    """
    low, span = float(scores.min()), float(scores.max() - scores.min())
    relevance = (scores - low) / span if span > 0 else np.ones_like(scores)
    nearest = np.full(len(scores), -np.inf, np.float32)
    left = np.ones(len(scores), bool)
    taken: list[tuple[int, float]] = []
    while len(taken) < min(k, len(scores)):
        similarity = np.where(np.isneginf(nearest), 0, nearest)
        gain = np.where(left, (1 - diversity) * relevance - diversity * similarity, -np.inf)
        best = int(np.argmax(gain))
        taken.append((best, float(similarity[best])))
        left[best] = False
        nearest = np.maximum(nearest, vectors @ vectors[best])
    return taken


def _page(after: str, done: Refined, k: int, key: str, *, falling: bool) -> None:
    """Cut the page; see `Collection.search` for what holds while documents change. falling: hits are by score."""
    start = 0
    if after:
        place, last, score = _parsed(after, key)
        if falling:  # where the last hit would stand, if it is gone
            place = next((i for i, h in enumerate(done.hits) if (-h.score, h.id) > (-score, last)), len(done.hits))
        start = next((i + 1 for i, hit in enumerate(done.hits) if hit.id == last), place)
    page = done.hits[start : start + k]
    if start + k < len(done.hits):
        said = json.dumps([key, start + k, page[-1].id, float(page[-1].score)]).encode()
        done.after = base64.urlsafe_b64encode(said).decode()
    done.hits = page


def _parsed(after: str, key: str) -> tuple[int, str, float]:
    """Of the last hit: its place (from 1), id and score."""
    try:
        of, place, last, score = json.loads(base64.urlsafe_b64decode(after.encode()))
    except (ValueError, TypeError, binascii.Error):
        of, place, last, score = None, 0, "", 0.0
    if of is None or not (isinstance(place, int) and place >= 0 and isinstance(last, str) and _number(score)):
        raise InvalidQuery('after is not a cursor; give "" for the first page, and then what `Hits.after` says')
    if of != key:
        raise InvalidQuery("after belongs to another search: pages have the same query, condition and settings")
    return place, last, score


def _number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
