"""Fusion: several rankings of the same things into one. Pure functions on (id, score) lists.

Used by stores that fuse in the call (`contract.Fused`) and by the layer above them, so that a fused
score means the same everywhere.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from typing import Literal, TypeVar

Id = TypeVar("Id", bound=Hashable)
Ranking = Sequence[tuple[Id, float]]
"""(id, score), best first."""
Method = Literal["adaptive", "normalized", "rrf", "distribution"]
RRF_K = 60
SHARPNESS = 1.5  # the power of what a ranking tells of itself; see `adapted`


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


def distribution(rankings: Sequence[Ranking[Id]], weights: Sequence[float]) -> dict[Id, float]:
    """Distribution-based score fusion: the weighted mean of scores scaled so that mean - 3s is 0 and mean + 3s is 1.

    Mazzeschi, 2023, as Qdrant has it. s: the standard deviation of the ranking's scores (of a sample: n - 1). What lies
    further out is not cut off, so a score can exceed 1. An item that a ranking lacks gets 0 from it; the items of a
    ranking whose scores are all equal, or which has only one, get 0.5.
    """
    total = sum(weights)
    fused: dict[Id, float] = {}
    for ranking, weight in zip(rankings, weights, strict=True):
        values = [score for _, score in ranking]
        mean = sum(values) / len(values) if values else 0.0
        spread = math.sqrt(sum([(value - mean) ** 2 for value in values]) / max(len(values) - 1, 1))
        flat = not values or values[0] == values[-1] or not 0 < spread < math.inf
        for item, score in ranking:
            scaled = 0.5 if flat else 0.5 + (score - mean) / (6 * spread)
            fused[item] = fused.get(item, 0.0) + weight / total * scaled
    return fused


def adapted(rankings: Sequence[Ranking[Id]], weights: Sequence[float], flatness: Sequence[float]) -> list[float]:
    """The weights, each times what its ranking tells of itself, for `normalized`.

    A ranking that knows what it is looking for has a few scores that stand out; one that does not is a slope.
    So each weight is multiplied by the z-score of the first (its distance from the mean in standard deviations) to the
    power of 1.5, and by (1 - last / first) to the power of its flatness, since scores far above zero to the end do not
    tell items apart either. What a ranking lacks though a longer one has it is counted with a score of 0: three texts
    that share words with a query, and none besides, do stand out. The scores alone decide; an empty ranking weighs
    nothing.
    """
    found: list[float] = []
    depth = max(map(len, rankings), default=0)
    for ranking, weight, power in zip(rankings, weights, flatness, strict=True):
        values = [score for _, score in ranking]
        if not values:
            found.append(0.0)
            continue
        if len(values) < depth:
            values += [min(values[-1], 0.0)] * (depth - len(values))
        first, last, mean = values[0], values[-1], sum(values) / depth
        deviation = math.sqrt(sum([(value - mean) ** 2 for value in values]) / depth)
        if not 0 < deviation < math.inf or not first > mean:  # all are equal, but for rounding
            found.append(weight)
            continue
        told = (1 - last / first) ** power if last >= 0 else 1.0
        found.append(weight * ((first - mean) / deviation) ** SHARPNESS * told)
    return found if sum(found) > 0 else list(weights)


def scores(
    rankings: Sequence[Ranking[Id]],
    method: Method,
    weights: Sequence[float] | None = None,
    rrf_k: int = RRF_K,
    flatness: Sequence[float] | None = None,
) -> dict[Id, float]:
    """The fused score of every item; equal weights where none are given. flatness: see `adapted`; 1 if not given."""
    weights = weights or [1.0] * len(rankings)
    if method == "rrf":
        return rrf(rankings, weights, rrf_k)
    if method == "distribution":
        return distribution(rankings, weights)
    if method == "adaptive":
        weights = adapted(rankings, weights, flatness or [1.0] * len(rankings))
    return normalized(rankings, weights)
