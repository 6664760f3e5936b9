"""Three small logistic models, and the coefficients they were fitted to.

    python -m benchmarks.answers fit

prints them anew and says on what: 690 English questions of XQuAD and 809 claims of SciFact's training set, none of
which is among the questions that are reported on; with all-MiniLM-L6-v2. For evidence that is missing, the
paragraphs that hold it were left out, once alone and once with all of their article.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

FITTED_WITH = "local:all-MiniLM-L6-v2"


@dataclass(frozen=True)
class Logistic:
    """p = 1 / (1 + exp(-(bias + weights . features)))."""

    bias: float
    weights: Mapping[str, float]

    def logit(self, features: Mapping[str, float]) -> float:
        """Raises KeyError for a feature that is missing."""
        return self.bias + sum(weight * features[name] for name, weight in self.weights.items())

    def __call__(self, features: Mapping[str, float]) -> float:
        return 1 / (1 + math.exp(-max(min(self.logit(features), 50.0), -50.0)))


# Whether a sentence holds the answer; see `extract.features`.
SENTENCE = Logistic(
    -6.0, {"cosine": 3.7, "coverage": 4.4, "beside_cosine": -0.3, "beside_coverage": -1.1, "passage": 1.0, "rank": 1.2}
)
# Whether the best sentences together do; see `extract.evidence`.
EVIDENCE = Logistic(-1.0, {"best": 1.0, "cosine": 0.0, "coverage": 0.0, "passage": 0.0, "lead": 0.0})
# Whether a passage holds what a sentence that cites it says; see `support.features`.
SUPPORT = Logistic(-3.0, {"cosine": 3.0, "coverage": 3.0, "window": 1.0, "numbers": -3.0, "names": -2.0})

ENOUGH = 0.35
"""Evidence below this probability is none: "not in these documents"."""


def product(probability: float, held: Sequence[bool]) -> float:
    """The confidence of an answer: that of its evidence, times the share of its sentences that are supported."""
    return probability * sum(held) / len(held) if held else 0.0
