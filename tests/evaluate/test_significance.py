"""Intervals and p-values: by hand, against all exchanges, and against scipy where it is."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nearest.evaluate import significance

values = st.lists(st.floats(0, 1).map(lambda x: round(x, 2)), min_size=1, max_size=8)


def test_two_runs_that_differ_on_one_query() -> None:
    # Exchanging that one query or not gives +1 and -1: both are as far apart.
    assert significance.randomisation([1, 0.5, 0.5], [0, 0.5, 0.5]) == 1.0


def test_five_queries_that_all_agree() -> None:
    # Of 32 exchanges two are as far apart as what was seen: none exchanged and all.
    assert significance.randomisation([0.9] * 5, [0.1, 0.2, 0.3, 0.2, 0.1]) == pytest.approx(2 / 32)


@given(values, st.randoms())
def test_few_queries_are_tested_exactly(one: list[float], random: np.random.Generator) -> None:
    two = [round(random.random(), 2) for _ in one]
    differences = [a - b for a, b in zip(one, two, strict=True)]
    observed = abs(sum(differences))
    sums = [
        abs(sum(s * d for s, d in zip(signs, differences, strict=True)))
        for signs in itertools.product((1, -1), repeat=len(one))
    ]
    expected = sum(total >= observed - 1e-9 for total in sums) / len(sums)
    assert significance.randomisation(one, two) == pytest.approx(expected)


def test_many_queries_are_sampled_and_repeatable() -> None:
    rng = np.random.default_rng(7)
    one, noise = rng.random(300), rng.normal(0, 0.1, 150)
    same, better = one + np.concatenate([noise, -noise]), one + rng.normal(0.05, 0.1, 300)
    assert significance.randomisation(one, same) > 0.9
    assert significance.randomisation(one, better) == pytest.approx(1 / 20_001)
    assert significance.randomisation(one, same) == significance.randomisation(same, one)


def test_scipy_gives_the_same_p() -> None:
    stats = pytest.importorskip("scipy.stats", reason="scipy is not installed")
    rng = np.random.default_rng(3)
    one, two = rng.random(60), rng.random(60) + 0.05
    theirs = stats.permutation_test(
        (one, two), lambda a, b, axis: np.mean(a - b, axis=axis), permutation_type="samples", n_resamples=20_000,
        random_state=1, vectorized=True,
    ).pvalue  # fmt: skip
    assert significance.randomisation(one, two) == pytest.approx(theirs, abs=0.02)


def test_an_interval_is_about_the_mean() -> None:
    rng = np.random.default_rng(5)
    some = rng.normal(0.5, 0.2, 400)
    low, high = significance.interval(some)
    # The normal approximation: 1.96 standard errors each way.
    half = 1.96 * some.std() / np.sqrt(400)
    assert (low, high) == pytest.approx((some.mean() - half, some.mean() + half), abs=0.004)
    assert significance.interval([0.25]) == (0.25, 0.25)
    assert significance.interval(some) == (low, high)


def test_what_cannot_be_tested_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one"):
        significance.interval([])
    with pytest.raises(ValueError, match="as many"):
        significance.randomisation([1.0], [1.0, 2.0])
