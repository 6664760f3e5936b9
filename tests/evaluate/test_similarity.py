"""How models see the similarity of texts: cosines, correlations, and files of pairs."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nearest.contract import Float32
from nearest.errors import InvalidInput, TextTooLong
from nearest.evaluate.similarity import Pair, pearson, read_pairs, similarities, spearman
from tests.fakes import HashEmbedder


class Asymmetric(HashEmbedder):
    def embed_queries(self, texts: Sequence[str], *, truncate: bool = False) -> Float32:
        return self.embed_documents([f"query: {text}" for text in texts], truncate=truncate)


def cosine(model: HashEmbedder, first: str, second: str) -> float:
    a, b = model.embed_documents([first, second])
    return float(a @ b)


# --- the views -------------------------------------------------------------------------------------


def test_cosines_by_each_model_and_equal_texts_once() -> None:
    one, other = HashEmbedder(name="one:x"), HashEmbedder(32, name="other:x")
    pairs = [Pair("a", "b"), Pair("a", "c"), Pair("b", "b"), Pair("a", "b")]
    found = similarities([one, other], pairs)
    assert one.embedded == ["a", "b", "b", "c"]
    assert [(view.model, view.dimension) for view in found.views] == [("one:x", 16), ("other:x", 32)]
    for view, model in zip(found.views, (one, other), strict=True):
        assert view.similarities == pytest.approx([cosine(model, p.first, p.second) for p in pairs], abs=1e-6)
        assert view.similarities[2] == pytest.approx(1)
    (agreement,) = found.agreement
    assert (agreement.model, agreement.other) == ("one:x", "other:x")
    assert json.loads(json.dumps(found.to_json()))["models"][1]["model"] == "other:x"


def test_the_first_text_as_a_query() -> None:
    model = Asymmetric()
    (view,) = similarities([model], [Pair("a", "b")], queries=True).views
    assert view.similarities[0] == pytest.approx(cosine(model, "query: a", "b"), abs=1e-6)
    (view,) = similarities([model], [Pair("a", "b")]).views
    assert view.similarities[0] == pytest.approx(cosine(model, "a", "b"), abs=1e-6)


def test_peoples_scores_are_agreed_with_where_all_pairs_have_one() -> None:
    model = HashEmbedder()
    values = {text: cosine(model, "a", text) for text in "bcde"}
    judged = [Pair("a", text, value * 5) for text, value in values.items()]
    (agreement,) = similarities([model], judged).agreement
    assert (agreement.other, agreement.spearman) == ("score", 1.0)
    assert agreement.pearson == pytest.approx(1, abs=1e-5)
    assert not similarities([model], [*judged, Pair("a", "f")]).agreement
    assert not similarities([model], judged[:2]).agreement, "two pairs always agree, or disagree"


def test_a_text_over_the_limit() -> None:
    model = HashEmbedder(max_words=2)
    with pytest.raises(TextTooLong):
        similarities([model], [Pair("a", "b c d")])
    (view,) = similarities([model], [Pair("a", "b c d")], truncate=True).views
    assert view.truncated == 1


@pytest.mark.parametrize(
    ("models", "pairs", "message"),
    [(1, [], "no pair"), (0, [Pair("a", "b")], "one model"), (2, [Pair("a", "b")], "different ones")],
)
def test_nothing_to_compare(models: int, pairs: list[Pair], message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        similarities([HashEmbedder()] * models, pairs)


# --- correlations ----------------------------------------------------------------------------------


def test_correlations_worked_by_hand() -> None:
    x = np.array([1.0, 2.0, 3.0, 4.0, 5.0])
    assert spearman(x, np.array([1.0, 4.0, 9.0, 16.0, 25.0])) == 1
    assert spearman(x, -(x**3)) == -1
    assert pearson(x, 3 * x + 2) == 1
    # 1 - 6 * 4 / (5 * 24), two neighbours swapped twice.
    assert spearman(x, np.array([2.0, 1.0, 4.0, 3.0, 5.0])) == pytest.approx(0.8)
    # Ranks with ties: 1.5 1.5 3 4; the deviations -1 -1 .5 1.5 and -1.5 -.5 .5 1.5 give 4.5 / sqrt(4.5 * 5).
    assert spearman(np.array([7.0, 7.0, 8.0, 9.0]), np.arange(4.0)) == pytest.approx(4.5 / (4.5 * 5) ** 0.5, abs=1e-6)
    assert spearman(x, np.ones(5)) is None
    assert pearson(np.ones(5), x) is None


@given(st.lists(st.tuples(st.integers(-99, 99), st.integers(-99, 99)), min_size=3, max_size=30))
def test_correlations_do_not_depend_on_the_order_or_the_scale(values: list[tuple[int, int]]) -> None:
    x, y = np.array(values, np.float64).T
    rank, line = spearman(x, y), pearson(x, y)
    assert spearman(y, x) == rank
    assert spearman(x**3, y) == rank
    assert spearman(x[::-1], y[::-1]) == rank
    if line is not None:
        assert pearson(2 * x + 1, y / 4) == pytest.approx(line, abs=1e-5)
        assert -1 <= line <= 1
        assert pearson(-x, y) == pytest.approx(-line, abs=1e-5)


# --- files -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("p.csv", 'text1,text2,score\na,"b, c",4.5\nd,e,0\n'),
        ("p.csv", '\ufeffid,score,a,b\n1,4.5,a,"b, c"\n2,0,d,e\n'),
        ("p.tsv", "sentence1\tsentence2\tscore\na\tb, c\t4.5\nd\te\t0\n"),
        ("p.jsonl", '{"query": "a", "document": "b, c", "score": 4.5}\n\n{"query": "d", "text": "e", "score": 0}\n'),
    ],
)
def test_files_of_pairs(tmp_path: Path, name: str, content: str) -> None:
    (tmp_path / name).write_text(content, "utf-8")
    assert read_pairs(tmp_path / name) == [Pair("a", "b, c", 4.5), Pair("d", "e", 0.0)]


def test_pairs_without_scores(tmp_path: Path) -> None:
    (tmp_path / "p.csv").write_text("a,b,score\nx,y,\n")
    assert read_pairs(tmp_path / "p.csv") == [Pair("x", "y")]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("p.csv", "left,right\na,b\n", "line 2: has left, right; the texts are to be called text1 and text2, or"),
        ("p.csv", "a,b\nx, \n", "line 2: a and b must be texts"),
        ("p.csv", "a,b\nx\n", "line 2: a and b must be texts"),
        ("p.csv", "a,b,score\nx,y,high\n", "line 2: score must be a number, got 'high'"),
        ("p.csv", "a,b,score\nx,y,nan\n", "score must be a number"),
        ("p.csv", "a,b\n", "no pairs"),
        ("p.csv", 'a,b\n"x,y\n', "cannot be read"),
        ("p.jsonl", '{"a": "x", "b": 5}\n', "line 1: a and b must be texts"),
        ("p.jsonl", "[1]\n", "line 1: is list"),
        ("p.jsonl", "{\n", "cannot be read"),
        ("p.txt", "a b\n", "are read from .csv"),
        ("p.csv", b"a,b\n\xff,y\n", "cannot be read"),
    ],
)
def test_files_that_hold_no_pairs(tmp_path: Path, name: str, content: Any, message: str) -> None:
    (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(InvalidInput, match=message):
        read_pairs(tmp_path / name)
    with pytest.raises(InvalidInput, match="No such file"):
        read_pairs(tmp_path / "nowhere.csv")
