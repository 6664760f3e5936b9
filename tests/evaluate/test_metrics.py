"""The measures: values worked out by hand, and properties against a definition written another way."""

from __future__ import annotations

import itertools
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nearest.evaluate import metrics

IDS = [f"d{i}" for i in range(8)]
rankings = st.permutations(IDS).flatmap(lambda ids: st.integers(0, len(ids)).map(lambda n: list(ids[:n])))
judgements = st.dictionaries(st.sampled_from([*IDS, "elsewhere"]), st.integers(-1, 3), min_size=1).filter(
    lambda judged: any(relevance > 0 for relevance in judged.values())
)
cutoffs = st.integers(1, 10)


def test_ndcg_by_hand() -> None:
    # Gains 0, 2, 1 at ranks 1 to 3: 2/log2(3) + 1/log2(4) = 1.26186 + 0.5; ideal 2/1 + 1/log2(3) = 2.63093.
    judged = {"a": 2, "b": 1, "c": 0}
    assert metrics.ndcg(["c", "a", "b"], judged, 10) == pytest.approx(1.7618595 / 2.6309298)
    # Cut after two: 2/log2(3), against the ideal of two.
    assert metrics.ndcg(["c", "a", "b"], judged, 2) == pytest.approx(1.2618595 / 2.6309298)
    assert metrics.ndcg(["a", "b"], judged, 10) == 1.0
    assert metrics.ndcg([], judged, 10) == 0.0


def test_ndcg_counts_relevant_documents_that_were_not_found() -> None:
    # One of two found, first: 1 / (1 + 1/log2(3)).
    assert metrics.ndcg(["a"], {"a": 1, "b": 1}, 10) == pytest.approx(1 / (1 + 1 / math.log2(3)))


def test_negative_relevance_is_not_relevant() -> None:
    judged = {"a": -1, "b": 1}
    assert metrics.ndcg(["a", "b"], judged, 10) == pytest.approx(1 / math.log2(3))
    assert metrics.recall(["a"], judged, 10) == 0.0
    assert metrics.mrr(["a", "b"], judged, 10) == 0.5


def test_recall_by_hand() -> None:
    judged = {"a": 1, "b": 2, "c": 1, "d": 0}
    assert metrics.recall(["d", "a", "x", "b"], judged, 4) == pytest.approx(2 / 3)
    assert metrics.recall(["d", "a", "x", "b"], judged, 2) == pytest.approx(1 / 3)


def test_mrr_by_hand() -> None:
    assert metrics.mrr(["x", "y", "a"], {"a": 1}, 10) == pytest.approx(1 / 3)
    assert metrics.mrr(["x", "y", "a"], {"a": 1}, 2) == 0.0


def test_the_mean_is_over_queries_with_a_positive_judgement() -> None:
    qrels = {"1": {"a": 1}, "2": {"a": 1}, "3": {"a": 0}, "4": {}}
    # Query 2 has no ranking and counts 0; 3 and 4 do not count.
    assert metrics.mean(metrics.mrr, {"1": ["a"], "3": ["a"], "9": ["a"]}, qrels, 10) == 0.5
    with pytest.raises(ValueError, match="no query"):
        metrics.mean(metrics.mrr, {}, {"3": {"a": 0}}, 10)


@pytest.mark.parametrize("measure", [metrics.ndcg, metrics.recall, metrics.mrr])
def test_a_query_without_a_positive_judgement_has_no_score(measure: object) -> None:
    assert callable(measure)
    with pytest.raises(ValueError, match="positive"):
        measure(["a"], {"a": 0}, 10)


@given(rankings, judgements, cutoffs)
def test_ndcg_is_the_gain_over_the_best_of_all_orders(ranking: list[str], judged: dict[str, int], k: int) -> None:
    def gain(order: list[str]) -> float:
        return sum(max(judged.get(d, 0), 0) / math.log2(i + 2) for i, d in enumerate(order[:k]))

    relevant = [d for d, relevance in judged.items() if relevance > 0][:5]
    judged = {d: relevance for d, relevance in judged.items() if relevance <= 0 or d in relevant}
    best = max(gain(list(order)) for order in itertools.permutations(relevant))
    assert metrics.ndcg(ranking, judged, k) == pytest.approx(gain(ranking) / best)


@given(rankings, judgements, cutoffs)
def test_every_measure_is_0_to_1_and_does_not_fall_with_a_better_ranking(
    ranking: list[str], judged: dict[str, int], k: int
) -> None:
    better = sorted(ranking, key=lambda d: -judged.get(d, 0))
    for measure in (metrics.ndcg, metrics.recall, metrics.mrr):
        value = measure(ranking, judged, k)
        assert 0 <= value <= 1
        assert measure(better, judged, k) >= value - 1e-12
    assert metrics.recall(ranking, judged, k) <= metrics.recall(ranking, judged, k + 1)
    assert metrics.mrr(ranking, judged, k) <= metrics.mrr(ranking, judged, k + 1)


@given(st.dictionaries(st.sampled_from("123"), st.tuples(rankings, judgements), min_size=1))
def test_trec_eval_gives_the_same(runs: dict[str, tuple[list[str], dict[str, int]]]) -> None:
    pytrec_eval = pytest.importorskip("pytrec_eval", reason="pytrec_eval-terrier is not installed")
    qrels = {query: judged for query, (_, judged) in runs.items()}
    found = {query: ranking for query, (ranking, _) in runs.items()}
    # trec_eval orders by score; a ranking that is empty is no run of its.
    scored = {q: {d: float(-i) for i, d in enumerate(ranking)} for q, ranking in found.items() if ranking}
    theirs = pytrec_eval.RelevanceEvaluator(qrels, {"ndcg_cut.10", "recall.100", "recip_rank"}).evaluate(scored)
    for query, values in theirs.items():
        assert metrics.ndcg(found[query], qrels[query], 10) == pytest.approx(values["ndcg_cut_10"])
        assert metrics.recall(found[query], qrels[query], 100) == pytest.approx(values["recall_100"])
        assert metrics.mrr(found[query], qrels[query], 10) == pytest.approx(values["recip_rank"])


def test_precision_and_average_precision_by_hand() -> None:
    judged = {"a": 1, "b": 2, "c": 1, "d": 0}
    assert metrics.precision(["a", "d", "b"], judged, 2) == 0.5
    assert metrics.precision(["a", "d", "b"], judged, 10) == 0.2
    # Found at ranks 1 and 3, precision 1 and 2/3; c was not found.
    assert metrics.average_precision(["a", "d", "b"], judged, 10) == pytest.approx((1 + 2 / 3) / 3)
    assert metrics.average_precision(["a", "d", "b"], judged, 2) == pytest.approx(1 / 3)


@given(st.dictionaries(st.sampled_from("123"), st.tuples(rankings, judgements), min_size=1))
def test_trec_eval_gives_the_same_precision_and_map(runs: dict[str, tuple[list[str], dict[str, int]]]) -> None:
    pytrec_eval = pytest.importorskip("pytrec_eval", reason="pytrec_eval-terrier is not installed")
    qrels = {query: judged for query, (_, judged) in runs.items()}
    scored = {q: {d: float(-i) for i, d in enumerate(ranking)} for q, (ranking, _) in runs.items() if ranking}
    theirs = pytrec_eval.RelevanceEvaluator(qrels, {"map_cut.5,100", "P.5,10"}).evaluate(scored)
    for query, values in theirs.items():
        ranking, judged = runs[query]
        for k, name in ((5, "map_cut_5"), (100, "map_cut_100")):
            assert metrics.average_precision(ranking, judged, k) == pytest.approx(values[name])
        for k, name in ((5, "P_5"), (10, "P_10")):
            assert metrics.precision(ranking, judged, k) == pytest.approx(values[name])
