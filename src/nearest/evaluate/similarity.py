"""How embedding models see the similarity of texts, and how far they agree about it.

Cosines of different models are on different scales: one gives unrelated texts 0.1, another 0.7. Spearman's rank
correlation (1904), which compares the order of the pairs alone, is the measure of agreement; beside it is Pearson's.
"""

from __future__ import annotations

import csv
import itertools
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nearest.contract import Embedder, Float32
from nearest.errors import InvalidInput

# How the two texts of a pair are called, in files.
NAMES = (("text1", "text2"), ("sentence1", "sentence2"), ("a", "b"), ("query", "document"), ("query", "text"))
JUDGED = "score"


@dataclass(frozen=True, slots=True)
class Pair:
    """score: how similar people found them, on any scale; None where nobody said."""

    first: str
    second: str
    score: float | None = None


@dataclass(frozen=True, slots=True)
class View:
    """How one model sees the pairs. similarities: float32 (n,), cosines. truncated: texts cut to its limit.

    note: see `Embedder`.
    """

    model: str
    dimension: int
    similarities: Float32
    truncated: int
    note: str


@dataclass(frozen=True, slots=True)
class Agreement:
    """Correlations, -1 to 1, of two views; `other` may be `score`, people's. None: undefined, as one is constant."""

    model: str
    other: str
    spearman: float | None
    pearson: float | None


@dataclass(frozen=True, slots=True)
class Similarities:
    pairs: Sequence[Pair]
    views: Sequence[View]
    agreement: Sequence[Agreement]

    def to_json(self) -> dict[str, Any]:
        return {
            "pairs": len(self.pairs),
            "models": [
                {
                    "model": view.model, "dimension": view.dimension, "truncated": view.truncated, "note": view.note,
                    "similarities": [round(float(value), 6) for value in view.similarities],
                }
                for view in self.views
            ],
            "agreement": [
                {"model": one.model, "other": one.other, "spearman": one.spearman, "pearson": one.pearson}
                for one in self.agreement
            ],
        }  # fmt: skip


def similarities(
    embedders: Sequence[Embedder], pairs: Sequence[Pair], *, queries: bool = False, truncate: bool = False
) -> Similarities:
    """Each pair's cosine by each model, and the agreement of models with each other and with the pairs' scores.

    queries: the first text of a pair is embedded as a query, otherwise both are as documents. There is no agreement to
    tell of fewer than 3 pairs. Raises InvalidInput for no pair, no model and one that is given twice; TextTooLong for
    a text over a model's limit unless `truncate`.
    """
    if not pairs:
        raise InvalidInput("there is no pair of texts to compare")
    names = [embedder.name for embedder in embedders]
    if not names or len(set(names)) != len(names):
        raise InvalidInput(f"give one model or several different ones, got {', '.join(names) or 'none'}")
    views = []
    for embedder in embedders:
        before = embedder.truncated
        values = (
            _embedded(embedder, [pair.first for pair in pairs], queries, truncate)
            * _embedded(embedder, [pair.second for pair in pairs], False, truncate)
        ).sum(axis=1)
        views.append(View(embedder.name, embedder.dimension, values, embedder.truncated - before, embedder.note))
    rows = {view.model: view.similarities.astype(np.float64) for view in views}
    scores = [pair.score for pair in pairs]
    judged = np.array([math.nan if score is None else score for score in scores])
    agreement = []
    if len(pairs) >= 3:
        if not np.isnan(judged).any():
            agreement = [_agreement(name, row, JUDGED, judged) for name, row in rows.items()]
        agreement += [_agreement(a, rows[a], b, rows[b]) for a, b in itertools.combinations(rows, 2)]
    return Similarities(pairs, views, agreement)


def _embedded(embedder: Embedder, texts: list[str], queries: bool, truncate: bool) -> Float32:
    """(n, d); equal texts are embedded once."""
    rows = {text: row for row, text in enumerate(dict.fromkeys(texts))}
    embed = embedder.embed_queries if queries else embedder.embed_documents
    found: Float32 = embed(list(rows), truncate=truncate)[[rows[text] for text in texts]]
    return found


# --- agreement -------------------------------------------------------------------------------------


def _agreement(model: str, row: NDArray[np.float64], other: str, column: NDArray[np.float64]) -> Agreement:
    return Agreement(model, other, spearman(row, column), pearson(row, column))


def pearson(x: NDArray[np.float64], y: NDArray[np.float64]) -> float | None:
    """The correlation of two (n,), n of 2 or more; None where one is constant."""
    x, y = x - x.mean(), y - y.mean()
    norm = math.sqrt((x @ x) * (y @ y))
    return None if norm == 0 else round(float(x @ y) / norm, 6)


def spearman(x: NDArray[np.float64], y: NDArray[np.float64]) -> float | None:
    """`pearson` of the ranks; equal values share the mean of theirs."""
    return pearson(_ranks(x), _ranks(y))


def _ranks(x: NDArray[np.float64]) -> NDArray[np.float64]:
    _, which, counts = np.unique(x, return_inverse=True, return_counts=True)
    ends = np.cumsum(counts)
    ranks: NDArray[np.float64] = (ends - (counts - 1) / 2)[which]
    return ranks


# --- files of pairs --------------------------------------------------------------------------------


def read_pairs(path: str | Path) -> list[Pair]:
    """The pairs of a file: CSV with a header (.csv; .tsv with tabs), or JSONL with an object a line.

    The texts are the two columns or keys that `NAMES` has; a `score`, where all rows have one, is people's. Raises
    InvalidInput, naming the line.
    """
    path = Path(path)
    pairs = []
    for at, row in _rows(path):
        names = next((names for names in NAMES if all(name in row for name in names)), None)
        if names is None:
            raise InvalidInput(
                f"{path}, {at}: has {', '.join(map(str, row)) or 'nothing'}; the texts are to be called "
                + ", or ".join(" and ".join(names) for names in NAMES)
            )
        first, second = (row[name] for name in names)
        if not (isinstance(first, str) and isinstance(second, str) and first.strip() and second.strip()):
            raise InvalidInput(f"{path}, {at}: {' and '.join(names)} must be texts that are not empty")
        pairs.append(Pair(first, second, _score(row.get(JUDGED), f"{path}, {at}")))
    if not pairs:
        raise InvalidInput(f"{path} has no pairs")
    return pairs


def _rows(path: Path) -> Iterator[tuple[str, Mapping[str, Any]]]:
    try:
        with path.open(encoding="utf-8-sig", newline="") as lines:
            if path.suffix in (".csv", ".tsv"):
                rows = csv.DictReader(lines, delimiter="\t" if path.suffix == ".tsv" else ",", strict=True)
                for row in rows:
                    yield f"line {rows.line_num}", {name: cell for name, cell in row.items() if name}
            elif path.suffix in (".jsonl", ".ndjson"):
                for number, line in enumerate(lines, 1):
                    if line.isspace():
                        continue
                    found = json.loads(line)
                    if not isinstance(found, dict):
                        raise InvalidInput(f"{path}, line {number}: is {type(found).__name__}, not an object")
                    yield f"line {number}", found
            else:
                raise InvalidInput(f"{path}: pairs are read from .csv, .tsv or .jsonl")
    except (csv.Error, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise InvalidInput(f"{path} cannot be read: {error}") from None
    except OSError as error:
        raise InvalidInput(f"{path} cannot be read: {error.strerror or error}") from None


def _score(value: Any, at: str) -> float | None:
    if value is None or value == "":
        return None
    try:
        score = float(value)
    except (TypeError, ValueError):
        score = math.nan
    if not math.isfinite(score):
        raise InvalidInput(f"{at}: {JUDGED} must be a number, got {value!r}")
    return score
