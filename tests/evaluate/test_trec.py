"""Run files: what is written is read again, and trec_eval sees the same order."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nearest.errors import InvalidInput
from nearest.evaluate import metrics, trec

scores = st.floats(-1e6, 1e6, width=32) | st.sampled_from([0.5, 0.25])
found = st.dictionaries(st.sampled_from([f"d{i}" for i in range(9)]), scores, min_size=1)
runs = st.dictionaries(st.sampled_from(["1", "q-2"]), found.map(lambda each: list(each.items())), min_size=1)


@given(runs)
def test_the_order_survives_ties_and_scores_that_rise(
    tmp_path_factory: pytest.TempPathFactory, run: dict[str, list[tuple[str, float]]]
) -> None:
    path = tmp_path_factory.mktemp("run") / "run.txt"
    trec.write(path, run)
    read = trec.read(path)
    assert {q: [d for d, _ in ranking] for q, ranking in read.items()} == {
        q: [d for d, _ in ranking] for q, ranking in run.items()
    }


@given(runs)
def test_trec_eval_sees_the_same(
    tmp_path_factory: pytest.TempPathFactory, run: dict[str, list[tuple[str, float]]]
) -> None:
    pytrec_eval = pytest.importorskip("pytrec_eval", reason="pytrec_eval-terrier is not installed")
    path = tmp_path_factory.mktemp("run") / "run.txt"
    trec.write(path, run, "mine")
    with path.open() as lines:
        theirs = pytrec_eval.parse_run(lines)
    qrels = {query: {"d1": 1, "d3": 2} for query in run}
    told = pytrec_eval.RelevanceEvaluator(qrels, {"ndcg_cut.10", "recip_rank"}).evaluate(theirs)
    for query, ranking in trec.read(path).items():
        ids = [document for document, _ in ranking]
        assert metrics.ndcg(ids, qrels[query], 10) == pytest.approx(told[query]["ndcg_cut_10"])
        assert metrics.mrr(ids, qrels[query], 10) == pytest.approx(told[query]["recip_rank"])


def test_a_file_from_elsewhere(tmp_path: Path) -> None:
    path = tmp_path / "run"
    path.write_text("1 Q0 b 1 2.0 x\n\n1\tQ0\ta\t7\t2.0\tx\n1 Q0 c 0 3e1 x\n")
    assert trec.read(path) == {"1": [("c", 30.0), ("b", 2.0), ("a", 2.0)]}  # by score, ties reversed; not by rank


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("1 Q0 a 1 2.0", "line 1: needs query"),
        ("1 Q0 a 1 two x", "score must be a number"),
        ("1 Q0 a 1 nan x", "must be finite"),
        ("1 Q0 a 1 2 x\n1 Q0 a 2 1 x", "line 2: 'a' repeats"),
        ("", "no line"),
    ],
)
def test_what_is_no_run_is_refused(tmp_path: Path, line: str, message: str) -> None:
    (tmp_path / "run").write_text(line)
    with pytest.raises(InvalidInput, match=message):
        trec.read(tmp_path / "run")


def test_what_cannot_be_written_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="'a b'"):
        trec.write(tmp_path / "run", {"1": [("a b", 1.0)]})
    assert not (tmp_path / "run").exists()
    with pytest.raises(InvalidInput, match="cannot be read"):
        trec.read(tmp_path / "nothing")
