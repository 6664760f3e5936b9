"""Data sets in BEIR's layout: what is read, and that what does not fit together is refused, and where."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from nearest.contract import Document, Failure, Reader
from nearest.errors import InvalidInput
from nearest.evaluate import load


class Lines(Reader):
    """Reads as the reader of .jsonl does, as far as these tests need it."""

    extensions = (".jsonl",)

    def read(self, path: Path, document_id: str) -> Iterator[Document | Failure]:
        for number, line in enumerate(path.read_text().splitlines(), 1):
            row = json.loads(line)
            if row.get("text"):
                yield Document(row["_id"], row["text"])
            else:
                yield Failure(f"{document_id}#{number}", "no text")


CORPUS = '{"_id": "a", "text": "one"}\n{"_id": "b", "text": "two"}\n'
QUERIES = '{"_id": "1", "text": "first?"}\n{"_id": "2", "text": "second?"}\n'
QRELS = "query-id\tcorpus-id\tscore\n1\ta\t1\n"


@pytest.fixture
def make(tmp_path: Path) -> Callable[..., Path]:
    def made(**files: str | None) -> Path:
        folder = tmp_path / "set"
        content = {"corpus.jsonl": CORPUS, "queries.jsonl": QUERIES, "qrels.tsv": QRELS}
        for name, text in {**content, **{k.replace("_", ".", 1): v for k, v in files.items()}}.items():
            if text is not None:
                path = folder / name
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(text)
        return folder

    return made


def test_a_data_set_is_read(make: Callable[..., Path]) -> None:
    dataset = load(make(), Lines())
    assert dataset.name == "set"
    assert dataset.ids == ["a", "b"]
    assert dataset.queries == {"1": "first?"}  # 2 was not judged
    assert dataset.qrels == {"1": {"a": 1}}
    assert [d.id for d in dataset.documents()] == ["a", "b"]


def test_the_header_may_be_missing_and_lines_may_end_as_on_windows(make: Callable[..., Path]) -> None:
    assert load(make(qrels_tsv="1\ta\t2\r\n\r\n2\tb\t0\r\n"), Lines()).qrels == {"1": {"a": 2}, "2": {"b": 0}}


def test_beirs_own_place_for_judgements(make: Callable[..., Path]) -> None:
    folder = make(qrels_tsv=None)
    (folder / "qrels").mkdir()
    (folder / "qrels" / "test.tsv").write_text(QRELS)
    assert load(folder, Lines()).qrels == {"1": {"a": 1}}


def test_a_line_that_is_no_document_is_kept_as_failed(make: Callable[..., Path]) -> None:
    dataset = load(make(corpus_jsonl=CORPUS + '{"_id": "c", "text": ""}\n', qrels_tsv=QRELS + "1\tc\t1\n"), Lines())
    assert [f.id for f in dataset.failed] == ["corpus.jsonl#3"]
    assert dataset.qrels == {"1": {"a": 1, "c": 1}}  # it was not found, and that counts


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"corpus_jsonl": None}, "has no corpus.jsonl"),
        ({"queries_jsonl": None}, "has no queries.jsonl"),
        ({"qrels_tsv": None}, "has no qrels.tsv or qrels/test.tsv"),
        ({"corpus_jsonl": CORPUS + CORPUS}, "'a' repeats"),
        ({"corpus_jsonl": ""}, "holds no document"),
        ({"queries_jsonl": QUERIES + "{"}, "queries.jsonl, line 3: not JSON"),
        ({"queries_jsonl": "[]"}, "line 1: needs an object"),
        ({"queries_jsonl": '{"_id": "1"}'}, "line 1: needs `_id` and `text`"),
        ({"queries_jsonl": QUERIES + QUERIES}, "line 3: the id '1' repeats"),
        ({"queries_jsonl": ""}, "holds no query"),
        ({"qrels_tsv": QRELS + "1 a 1\n"}, "qrels.tsv, line 3: needs query-id, corpus-id and score"),
        ({"qrels_tsv": QRELS + "1\ta\tyes\n"}, "line 3: the score must be an integer"),
        ({"qrels_tsv": QRELS + "9\ta\t1\n"}, "line 3: query '9' is not in queries.jsonl"),
        ({"qrels_tsv": QRELS + "1\tz\t1\n"}, "document 'z', judged for query '1', is not in corpus.jsonl"),
        ({"qrels_tsv": QRELS + "1\ta\t0\n"}, "line 3: 'a' is judged twice for query '1', and differently"),
        ({"qrels_tsv": "1\ta\t0\n"}, "no judgement above 0"),
    ],
)
def test_what_does_not_fit_is_refused(make: Callable[..., Path], files: dict[str, str | None], message: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        load(make(**files), Lines())
    assert message in str(caught.value)


def test_a_file_that_is_not_utf8(make: Callable[..., Path]) -> None:
    folder = make()
    (folder / "queries.jsonl").write_bytes(b'{"_id": "1", "text": "\xff"}')
    with pytest.raises(InvalidInput, match="not UTF-8"):
        load(folder, Lines())


def test_no_folder(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="not a folder"):
        load(tmp_path / "nothing", Lines())
