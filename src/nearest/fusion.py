"""Fusion: several rankings of the same things into one. Pure functions on (id, score) lists.

Used by stores that fuse in the call (`contract.Fused`) and by the layer above them, so that a fused
score means the same everywhere.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Literal, TypeVar

Id = TypeVar("Id", bound=Hashable)
Ranking = Sequence[tuple[Id, float]]
"""(id, score), best first."""
RRF_K = 60


def rrf(rankings: Sequence[Ranking[Id]], weights: Sequence[float], k: int = RRF_K) -> dict[Id, float]:
    """Reciprocal rank fusion: the weighted sum of 1 / (k + rank), rank counted from 1.

    Cormack, Clarke and Büttcher, SIGIR 2009.
    """
    fused: dict[Id, float] = {}
    for ranking, weight in zip(rankings, weights, strict=True):
        for rank, (item, _) in enumerate(ranking, 1):
            fused[item] = fused.get(item, 0.0) + weight / (k + rank)
    return fused


def normalized(rankings: Sequence[Ranking[Id]], weights: Sequence[float]) -> dict[Id, float]:
    """The weighted mean of scores scaled to [0, 1] between the worst and the best of each ranking.

    An item that a ranking lacks gets that ranking's worst, 0. A ranking whose scores are all equal gives
    each of its items 1. Empty rankings leave the weights of the others as they are, so the best
    attainable score is then below 1.
    """
    total = sum(weights)
    fused: dict[Id, float] = {}
    for ranking, weight in zip(rankings, weights, strict=True):
        if not ranking:
            continue
        low, span, share = ranking[-1][1], ranking[0][1] - ranking[-1][1], weight / total
        # The quotient first: share / span is infinite where scores all but coincide.
        gains = {item: share * ((score - low) / span) if span > 0 else share for item, score in ranking}
        if fused:
            gains |= {item: score + gains.get(item, 0.0) for item, score in fused.items()}
        fused = gains
    # Shares may add up to a rounding error more than 1.
    return {item: min(score, 1.0) for item, score in fused.items()} if max(fused.values(), default=0.0) > 1 else fused


def scores(
    rankings: Sequence[Ranking[Id]],
    method: Literal["normalized", "rrf"],
    weights: Sequence[float] | None = None,
    rrf_k: int = RRF_K,
) -> dict[Id, float]:
    """The fused score of every item; equal weights where none are given."""
    weights = weights or [1.0] * len(rankings)
    return rrf(rankings, weights, rrf_k) if method == "rrf" else normalized(rankings, weights)


def fuse(
    rankings: Sequence[Ranking[Id]],
    method: Literal["normalized", "rrf"],
    weights: Sequence[float] | None = None,
    rrf_k: int = RRF_K,
) -> list[tuple[Id, float]]:
    """Fused (id, score) by falling score, ties by id as text."""
    fused = scores(rankings, method, weights, rrf_k)
    return sorted(fused.items(), key=lambda pair: (-pair[1], str(pair[0])))
