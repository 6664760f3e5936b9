"""Measures of a ranking against judgements; pure functions on document ids.

A ranking is a list of distinct ids, best first. Judgements map an id to its relevance: positive where the
document answers the query, 0 or less where somebody looked and it does not; what is absent was not judged,
and counts as not relevant. Each measure is 0 to 1, for a query with at least one positive judgement;
`mean` averages over those alone, as trec_eval does.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

Judgements = Mapping[str, int]


def ndcg(ranking: Sequence[str], judged: Judgements, k: int) -> float:
    """Normalised discounted cumulative gain of the first k (Järvelin and Kekäläinen, TOIS 2002).

    The gain is the relevance itself and the discount log2(rank + 1), as in trec_eval's `ndcg_cut`; the
    ideal ranking holds every positive judgement. Raises ValueError without one.
    """
    _need_positive(judged)
    gains = [max(judged.get(document, 0), 0) for document in ranking[:k]]
    ideal = sorted((relevance for relevance in judged.values() if relevance > 0), reverse=True)[:k]
    return _discounted(gains) / _discounted(ideal)


def recall(ranking: Sequence[str], judged: Judgements, k: int) -> float:
    """The share of the relevant documents that are among the first k. Raises ValueError if there are none."""
    _need_positive(judged)
    relevant = {document for document, relevance in judged.items() if relevance > 0}
    return len(relevant.intersection(ranking[:k])) / len(relevant)


def mrr(ranking: Sequence[str], judged: Judgements, k: int) -> float:
    """The reciprocal rank of the first relevant document among the first k, 0 if there is none.

    Its mean over queries is the mean reciprocal rank (Voorhees, TREC-8, 1999). Raises ValueError if no
    document is relevant.
    """
    _need_positive(judged)
    for rank, document in enumerate(ranking[:k], 1):
        if judged.get(document, 0) > 0:
            return 1 / rank
    return 0.0


def precision(ranking: Sequence[str], judged: Judgements, k: int) -> float:
    """The share of the first k that are relevant; places that a shorter ranking leaves empty are not.

    Raises ValueError if no document is relevant.
    """
    _need_positive(judged)
    return sum(judged.get(document, 0) > 0 for document in ranking[:k]) / k


def average_precision(ranking: Sequence[str], judged: Judgements, k: int) -> float:
    """The mean, over all relevant documents, of the precision at the place of each; 0 for those not in the first k.

    trec_eval's `map_cut`; its mean over queries is MAP. Raises ValueError if no document is relevant.
    """
    _need_positive(judged)
    found, total = 0, 0.0
    for rank, document in enumerate(ranking[:k], 1):
        if judged.get(document, 0) > 0:
            found += 1
            total += found / rank
    return total / sum(relevance > 0 for relevance in judged.values())


def mean(
    measure: Callable[[Sequence[str], Judgements, int], float],
    rankings: Mapping[str, Sequence[str]],
    qrels: Mapping[str, Judgements],
    k: int,
) -> float:
    """A measure's mean over the queries with a positive judgement; one without a ranking counts 0.

    Raises ValueError if no query has one.
    """
    counted = judged_queries(qrels)
    if not counted:
        raise ValueError("no query has a positive judgement")
    return math.fsum(measure(rankings.get(query, ()), qrels[query], k) for query in counted) / len(counted)


def judged_queries(qrels: Mapping[str, Judgements]) -> list[str]:
    """The queries with at least one positive judgement."""
    return [query for query, judged in qrels.items() if any(relevance > 0 for relevance in judged.values())]


def _discounted(gains: Sequence[int]) -> float:
    return math.fsum(gain / math.log2(rank + 1) for rank, gain in enumerate(gains, 1))


def _need_positive(judged: Judgements) -> None:
    if not any(relevance > 0 for relevance in judged.values()):
        raise ValueError("a query without a positive judgement has no score")
