"""Sentence boundaries."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nearest.answer import sentences


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("One. Two! Three? Four", ["One.", "Two!", "Three?", "Four"]),
        ("Dr. Smith met J. R. Jones. They spoke.", ["Dr. Smith met J. R. Jones.", "They spoke."]),
        ("It is 3.5 km, e.g. by foot. Yes.", ["It is 3.5 km, e.g. by foot.", "Yes."]),
        ('He said "no." Then he left.', ['He said "no."', "Then he left."]),
        ("Keys rotate. [1] Backups run.[2][3] End.", ["Keys rotate.", "[1] Backups run.[2][3]", "End."]),
        ("今日は晴れ。明日は雨。", ["今日は晴れ。", "明日は雨。"]),
        ("वह गया। वह आया।", ["वह गया।", "वह आया।"]),
        ("A title\n\nA text.\n- one\n- two", ["A title", "A text.", "- one", "- two"]),
        ("  \n ", []),
    ],
)
def test_boundaries(text: str, expected: list[str]) -> None:
    assert [text[a:b] for a, b in sentences.spans(text)] == expected


@given(st.text(alphabet='Ab. !?\n[1]。-"', max_size=60))
def test_nothing_is_lost(text: str) -> None:
    spans = sentences.spans(text)
    assert "".join("".join(text[a:b].split()) for a, b in spans) == "".join(text.split())
    assert all(a < b for a, b in spans)
    assert all(before[1] <= after[0] for before, after in itertools.pairwise(spans))
