"""Citation precision and recall, by hand."""

from __future__ import annotations

import pytest

from nearest.evaluate import answers
from nearest.evaluate.answers import Cited

ANSWER = [[Cited("a", True), Cited("b", False)], [Cited("c", False)], [], [Cited("a", True)]]


def test_by_hand() -> None:
    assert answers.support(ANSWER) == 0.5  # sentences 1 and 4
    assert answers.citation_precision(ANSWER) == 0.5  # 2 of 4 citations
    assert answers.judged_precision(ANSWER, {"a", "x"}) == pytest.approx(1 / 3)
    assert answers.judged_recall(ANSWER, {"a", "x"}) == 0.5


def test_what_cites_nothing() -> None:
    assert answers.support([[]]) == 0.0
    assert answers.citation_precision([[]]) == 0.0
    assert answers.judged_precision([], {"a"}) == 0.0
    with pytest.raises(ValueError, match="without sentences"):
        answers.support([])
    with pytest.raises(ValueError, match="relevant"):
        answers.judged_recall(ANSWER, set())
