"""How sure a difference is: bootstrap confidence intervals, and a paired test of two runs.

Both are about the queries as a sample: of a measure's value on each, in the same order for two runs. Random numbers
come from a seed, so that a report can be repeated.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

_BLOCK = 1 << 22  # numbers drawn at once


def interval(values: ArrayLike, *, level: float = 0.95, samples: int = 2000, seed: int = 0) -> tuple[float, float]:
    """The bootstrap percentile interval of the mean (Efron, 1979; for retrieval Sakai, SIGIR 2006).

    Raises ValueError without values.
    """
    given = _checked(values)
    rng = np.random.default_rng(seed)
    means = [
        given[rng.integers(0, len(given), (count, len(given)))].mean(axis=1) for count in _blocks(samples, len(given))
    ]
    low, high = np.quantile(np.concatenate(means), [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def randomisation(one: ArrayLike, two: ArrayLike, *, samples: int = 20_000, seed: int = 0) -> float:
    """The two-sided p-value of Fisher's paired randomisation test (Smucker, Allan and Carterette, CIKM 2007).

    It asks how often the means would differ at least so much if each query's two values were exchanged by the toss of
    a coin. All exchanges are tried where there are fewer than `samples`; otherwise so many are drawn, and the least
    value is 1 / (samples + 1). Raises ValueError for different lengths, and without values.
    """
    first, second = _checked(one), _checked(two)
    if len(first) != len(second):
        raise ValueError(f"a paired test needs as many values of each, got {len(first)} and {len(second)}")
    differences = first - second
    differences = differences[differences != 0]  # exchanging equal values changes nothing
    observed = abs(differences.sum())
    if not len(differences):
        return 1.0
    slack = 1e-12 * np.abs(differences).sum()  # sums in another order round otherwise
    if len(differences) < 60 and 2 ** len(differences) <= samples:
        signs = 1 - 2 * ((np.arange(2 ** len(differences))[:, None] >> np.arange(len(differences))) & 1)
        return float(np.mean(np.abs(signs @ differences) >= observed - slack))
    rng = np.random.default_rng(seed)
    as_much = 0
    for count in _blocks(samples, len(differences)):
        signs = 1 - 2 * rng.integers(0, 2, (count, len(differences)), dtype=np.int8)
        as_much += int(np.sum(np.abs(signs @ differences) >= observed - slack))
    return (as_much + 1) / (samples + 1)


def _blocks(samples: int, width: int) -> list[int]:
    each = max(1, _BLOCK // width)
    return [min(each, samples - at) for at in range(0, samples, each)]


def _checked(values: ArrayLike) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    given = np.asarray(values, np.float64)
    if given.ndim != 1 or not len(given):
        raise ValueError("needs at least one value")
    return given
