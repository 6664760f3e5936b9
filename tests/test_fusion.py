"""Fusion: the formulas by hand, and what holds for any rankings."""

from __future__ import annotations

import math
from typing import Any, get_args

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nearest import fusion

METHODS: tuple[fusion.Method, ...] = get_args(fusion.Method)


def fuse(
    rankings: Any, method: fusion.Method, weights: Any = None, rrf_k: int = fusion.RRF_K
) -> list[tuple[Any, float]]:
    """By falling score, ties by id as text."""
    scores = fusion.scores(rankings, method, weights, rrf_k)
    return sorted(scores.items(), key=lambda pair: (-pair[1], str(pair[0])))


def test_rrf_by_hand() -> None:
    fused = dict(fuse([[("a", 9.0), ("b", 1.0)], [("b", 0.5), ("c", 0.4)]], "rrf"))
    assert fused == pytest.approx({"a": 1 / 61, "b": 1 / 62 + 1 / 61, "c": 1 / 62})
    assert list(fused) == ["b", "a", "c"]


def test_rrf_takes_weights_and_k() -> None:
    fused = dict(fuse([[("a", 1.0)], [("b", 1.0), ("a", 0.0)]], "rrf", [2.0, 3.0], rrf_k=0))
    assert fused == {"a": 2 / 1 + 3 / 2, "b": 3 / 1}


def test_normalized_by_hand() -> None:
    rankings = [[("a", 10.0), ("b", 4.0), ("c", 0.0)], [("c", -1.0), ("b", -2.0), ("d", -5.0)]]
    fused = dict(fuse(rankings, "normalized"))
    assert fused == pytest.approx({"a": 0.5, "b": 0.5 * 0.4 + 0.5 * 0.75, "c": 0.5, "d": 0.0})
    assert list(fused) == ["b", "a", "c", "d"]


def test_normalized_takes_weights() -> None:
    fused = dict(fuse([[("a", 1.0), ("b", 0.0)], [("b", 7.0), ("a", 5.0)]], "normalized", [3.0, 1.0]))
    assert fused == pytest.approx({"a": 0.75, "b": 0.25})


def test_equal_scores_each_get_all_of_the_share() -> None:
    assert dict(fuse([[("a", 0.3), ("b", 0.3)]], "normalized")) == {"a": 1.0, "b": 1.0}
    assert dict(fuse([[("a", 0.3)], [("b", 5.0), ("a", 4.0)]], "normalized")) == {"a": 0.5, "b": 0.5}


def test_an_empty_ranking_keeps_its_weight() -> None:
    assert dict(fuse([[("a", 0.3)], []], "normalized")) == {"a": 0.5}
    assert fuse([[], []], "normalized") == []
    assert fuse([[], []], "rrf") == []


def test_distribution_by_its_formula() -> None:
    numbers = np.random.default_rng(0)
    rankings = [
        [(f"{i}", s) for i, s in enumerate(np.sort(numbers.gamma(1, 9, 50))[::-1].tolist(), start)] for start in (0, 20)
    ]
    wanted: dict[str, float] = {}
    for ranking, weight in zip(rankings, (3.0, 1.0), strict=True):
        values = np.array([score for _, score in ranking])
        low, high = values.mean() - 3 * values.std(ddof=1), values.mean() + 3 * values.std(ddof=1)
        for item, score in ranking:
            wanted[item] = wanted.get(item, 0.0) + weight / 4 * (score - low) / (high - low)
    assert max(wanted.values()) > 0.75  # of one ranking only: it lies further out than three deviations
    assert fusion.scores(rankings, "distribution", [3.0, 1.0]) == pytest.approx(wanted)


def test_distribution_as_qdrant_has_it() -> None:
    fusing = pytest.importorskip("qdrant_client.hybrid.fusion", reason="the client of Qdrant is not installed")
    models = pytest.importorskip("qdrant_client.models")
    rankings = [[("1", 9.0), ("2", 4.0), ("3", 3.5)], [("3", 0.1), ("4", 0.1)], [("2", 7.0)], []]
    points = [[models.ScoredPoint(id=int(i), version=0, score=s) for i, s in ranking] for ranking in rankings]
    theirs = {str(p.id): p.score for p in fusing.distribution_based_score_fusion(points, 10)}
    ours = fusion.scores(rankings, "distribution")
    assert {item: 4 * score for item, score in ours.items()} == pytest.approx(theirs)  # theirs is the sum


def test_a_ranking_that_knows_weighs_more_than_one_that_does_not() -> None:
    sure = [("a", 9.0), *((f"s{i}", 1.0 - i / 100) for i in range(50))]
    slope = [(f"t{i}", 10.0 - i / 10) for i in range(50)]
    told = fusion.adapted([sure, slope], [1.0, 1.0], [1.0, 1.0])
    assert told[0] > 2 * told[1]
    assert fuse([sure, slope], "adaptive")[0][0] == "a"
    assert fuse([slope, sure], "normalized")[0][0] == "a"  # by its id alone: both are 0.5
    # By hand: the first of two scores is one standard deviation above their mean; 1 - 2/4, to the power.
    assert fusion.adapted([[("a", 4.0), ("b", 2.0)]], [3.0], [1.0]) == pytest.approx([3.0 * 0.5])
    assert fusion.adapted([[("a", -1.0), ("b", -2.0)]], [3.0], [1.0]) == pytest.approx([3.0])
    scores = [9.0, 8.0, 8.0, 3.0, 1.0, 1.0]  # of mean 5
    spread = math.sqrt(sum((s - 5) ** 2 for s in scores) / 6)
    ranking = [(f"{i}", score) for i, score in enumerate(scores)]
    assert fusion.adapted([ranking], [1.0], [0.5]) == pytest.approx([(4 / spread) ** 1.5 * (1 - 1 / 9) ** 0.5])


def test_what_a_ranking_lacks_is_counted_with_nothing() -> None:
    slope = [(f"t{i}", 10.0 - i / 10) for i in range(50)]
    few = [("a", 4.0), ("b", 3.0)]
    told = fusion.adapted([slope, few], [1.0, 1.0], [1.0, 1.0])
    assert told[1] == pytest.approx(fusion.adapted([[*few, *((f"n{i}", 0.0) for i in range(48))]], [1.0], [1.0])[0])
    assert told[1] > 5 * fusion.adapted([few], [1.0], [1.0])[0]
    # By hand: one of 50 is 7 standard deviations above the mean.
    assert fusion.adapted([slope, [("a", 4.0)]], [1.0, 1.0], [1.0, 1.0])[1] == pytest.approx(7**1.5)
    assert fusion.adapted([slope, [("a", -4.0)]], [1.0, 1.0], [1.0, 1.0])[1] == 1.0


def test_a_ranking_of_one_or_of_equals_keeps_its_weight() -> None:
    equal = [[("a", 4.0), ("b", 4.0)], [("a", 1.0), ("b", 1.0)], []]
    assert fusion.adapted(equal, [1.0, 2.0, 5.0], [1.0] * 3) == [1.0, 2.0, 0.0]
    assert fusion.adapted([[("a", 4.0)]], [3.0], [1.0]) == [3.0]
    assert fusion.adapted([[("a", 4.0)], []], [0.0, 1.0], [1.0, 1.0]) == [0.0, 1.0]


def test_ties_are_in_order_of_id_as_text() -> None:
    assert [i for i, _ in fuse([[("b", 1.0), ("a", 1.0), ("10", 1.0), ("9", 1.0)]], "normalized")] == [
        "10", "9", "a", "b",
    ]  # fmt: skip
    assert [i for i, _ in fuse([[(9, 1.0)], [(10, 1.0)]], "rrf")] == [10, 9]


def test_scores_that_all_but_coincide_stay_finite() -> None:
    fused = dict(fuse([[("a", 5e-324), ("b", 0.0)]], "normalized"))
    assert fused == {"a": 1.0, "b": 0.0}


def test_shares_never_add_up_to_more_than_one() -> None:
    rankings = [[("a", 2.0), ("b", 1.0)]] * 6
    for weights in ([0.1, 0.2, 0.3, 0.4, 0.5, 0.6], [0.7, 0.1, 0.1, 0.1, 0.1, 0.1], None):
        assert fuse(rankings, "normalized", weights)[0][1] <= 1.0


def test_as_many_weights_as_rankings() -> None:
    for method in METHODS:
        with pytest.raises(ValueError, match="zip"):
            fuse([[("a", 1.0)]], method, [1.0, 2.0])


@st.composite
def _rankings(draw: st.DrawFn) -> list[list[tuple[str, float]]]:
    scores = st.dictionaries(st.sampled_from("abcdefgh"), st.floats(-1e6, 1e6), max_size=8)
    lists = draw(st.lists(scores, min_size=1, max_size=4))
    return [sorted(one.items(), key=lambda pair: (-pair[1], pair[0])) for one in lists]


@given(_rankings(), st.sampled_from(METHODS))
def test_every_item_comes_once_in_order(rankings: list[list[tuple[str, float]]], method: fusion.Method) -> None:
    fused = fuse(rankings, method)
    assert sorted(i for i, _ in fused) == sorted({i for ranking in rankings for i, _ in ranking})
    assert fused == sorted(fused, key=lambda pair: (-pair[1], pair[0]))
    assert all(math.isfinite(score) and score >= 0 for _, score in fused)
    if method == "normalized":
        assert all(score <= 1.0 for _, score in fused)


@given(_rankings(), st.floats(0.01, 100), st.floats(-1e3, 1e3))
def test_normalized_scores_do_not_depend_on_scale_or_offset(
    rankings: list[list[tuple[str, float]]], scale: float, offset: float
) -> None:
    rounded = [[(i, round(score / 1e4, 3)) for i, score in ranking] for ranking in rankings]
    moved = [[(i, score * scale + offset) for i, score in rounded[0]], *rounded[1:]]
    assert dict(fuse(moved, "normalized")) == pytest.approx(dict(fuse(rounded, "normalized")), rel=1e-6, abs=1e-6)


@given(_rankings(), st.sampled_from(METHODS))
def test_the_order_of_the_parts_does_not_matter(rankings: list[list[tuple[str, float]]], method: fusion.Method) -> None:
    assert dict(fuse(rankings[::-1], method)) == pytest.approx(dict(fuse(rankings, method)), abs=1e-12)


@given(_rankings(), st.sampled_from(METHODS))
def test_no_item_loses_by_a_better_score(rankings: list[list[tuple[str, float]]], method: fusion.Method) -> None:
    """The best of every ranking that holds it is first, or ties with the first."""
    everywhere = set.intersection(*({i for i, _ in ranking} for ranking in rankings))
    for item in everywhere:
        raised = [[(item, ranking[0][1] + 1.0), *((i, s) for i, s in ranking if i != item)] for ranking in rankings]
        fused = fuse(raised, method)
        assert dict(fused)[item] == fused[0][1]
