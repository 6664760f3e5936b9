"""Reads a data set in BEIR's layout (Thakur et al., NeurIPS 2021): a folder of

    corpus.jsonl      {"_id", "title", "text", ...} a line
    queries.jsonl     {"_id", "text"} a line
    qrels.tsv         query-id, corpus-id, score, separated by tabs, with or without that header;
                      or qrels/test.tsv, as BEIR's archives have it

Everything is checked before anything is indexed: a number from half a data set means nothing.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from nearest.contract import Document, Failure, Reader
from nearest.errors import InvalidInput

_QRELS = ("qrels.tsv", "qrels/test.tsv")


@dataclass(frozen=True)
class Dataset:
    """A data set that fits together.

    name: its folder's. ids: the corpus's documents; failed: what in it is none, and why. queries: text by
    id, of those with judgements. qrels: relevance by document, by query.
    """

    name: str
    queries: Mapping[str, str]
    qrels: Mapping[str, Mapping[str, int]]
    ids: list[str]
    failed: list[Failure]
    _corpus: Path
    _reader: Reader

    def documents(self) -> Iterator[Document]:
        """The corpus, from disk."""
        read = self._reader.read(self._corpus, self._corpus.name)
        return (document for document in read if isinstance(document, Document))


def load(folder: str | Path, reader: Reader) -> Dataset:
    """Read and check a data set; `reader` turns corpus.jsonl into documents.

    Raises InvalidInput, naming file and line, for a missing file, a line that is not what the layout says,
    an id that repeats, two judgements that differ, and a judgement about a query or a document that is not there;
    Unreadable for a file that is not text.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise InvalidInput(f"{folder} is not a folder; give one with corpus.jsonl, queries.jsonl and qrels.tsv")
    corpus, queries_file = _file(folder, "corpus.jsonl"), _file(folder, "queries.jsonl")
    judged = _file(folder, *_QRELS)
    queries = _queries(queries_file)
    qrels, lines = _judgements(judged)
    for query, at in lines.items():
        if query not in queries:
            raise InvalidInput(f"{at}: query {query!r} is not in {queries_file.name}")
    if not any(score > 0 for scores in qrels.values() for score in scores.values()):
        raise InvalidInput(f"{judged} has no judgement above 0; nothing can be measured with it")
    ids, failed = _corpus_ids(corpus, reader)
    # A document that cannot be indexed is reported as failed, and its judgements count as not found.
    there = ids | {failure.id for failure in failed}
    unknown = [(q, d) for q, scores in qrels.items() for d in scores if d not in there]
    if unknown and not failed:
        query, document = unknown[0]
        raise InvalidInput(
            f"{judged}: document {document!r}, judged for query {query!r}, is not in {corpus.name} "
            f"({len(unknown)} such judgement{'s' * (len(unknown) > 1)}); is the corpus complete?"
        )
    asked = {query: queries[query] for query in qrels}
    return Dataset(folder.resolve().name, asked, qrels, sorted(ids), failed, corpus, reader)


def _file(folder: Path, *names: str) -> Path:
    for name in names:
        if (folder / name).is_file():
            return folder / name
    raise InvalidInput(f"{folder} has no {' or '.join(names)}; see https://github.com/beir-cellar/beir for the layout")


def _corpus_ids(corpus: Path, reader: Reader) -> tuple[set[str], list[Failure]]:
    ids: set[str] = set()
    failed: list[Failure] = []
    for document in reader.read(corpus, corpus.name):
        if isinstance(document, Failure):
            failed.append(document)
        elif document.id in ids:
            raise InvalidInput(f"{corpus}: the id {document.id!r} repeats; ids must be distinct")
        else:
            ids.add(document.id)
    if not ids:
        raise InvalidInput(f"{corpus} holds no document")
    return ids, failed


def _queries(path: Path) -> dict[str, str]:
    queries: dict[str, str] = {}
    for at, line in _lines(path):
        try:
            row = json.loads(line)
        except ValueError as error:
            raise InvalidInput(f"{at}: not JSON: {error}") from None
        if not isinstance(row, dict):
            raise InvalidInput(f"{at}: needs an object, got {type(row).__name__}")
        name, text = row.get("_id"), row.get("text")
        if not isinstance(name, str) or not isinstance(text, str) or not name or not text.strip():
            raise InvalidInput(f"{at}: needs `_id` and `text`, strings that are not empty")
        if name in queries:
            raise InvalidInput(f"{at}: the id {name!r} repeats; ids must be distinct")
        queries[name] = text
    if not queries:
        raise InvalidInput(f"{path} holds no query")
    return queries


def _judgements(path: Path) -> tuple[dict[str, dict[str, int]], dict[str, str]]:
    """Relevance by document, by query; and where each query first stands."""
    qrels: dict[str, dict[str, int]] = {}
    lines: dict[str, str] = {}
    for at, line in _lines(path):
        fields = line.rstrip("\r\n").split("\t")
        if len(fields) != 3:
            raise InvalidInput(
                f"{at}: needs query-id, corpus-id and score, separated by tabs; got {line.strip()[:60]!r}"
            )
        query, document, score = fields
        try:
            relevance = int(score)
        except ValueError:
            if not lines and score.strip() == "score":
                continue
            raise InvalidInput(f"{at}: the score must be an integer, got {score!r}") from None
        if qrels.setdefault(query, {}).setdefault(document, relevance) != relevance:
            raise InvalidInput(f"{at}: {document!r} is judged twice for query {query!r}, and differently")
        lines.setdefault(query, at)
    return qrels, lines


def _lines(path: Path) -> Iterator[tuple[str, str]]:
    """The lines that are not blank, each with its place."""
    try:
        with path.open(encoding="utf-8-sig") as file:
            for number, line in enumerate(file, 1):
                if line.strip():
                    yield f"{path}, line {number}", line
    except UnicodeDecodeError as error:
        raise InvalidInput(f"{path} is not UTF-8 ({error.reason} at byte {error.start}); convert it") from None
    except OSError as error:
        raise InvalidInput(f"{path} cannot be read: {error.strerror}") from None
