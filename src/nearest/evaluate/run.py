"""Asks a data set's questions in every mode and measures the answers.

Judgements are about documents and hits are chunks, so a document stands where its best chunk does. As in
BEIR, a document with the query's own id is left out of its ranking: in some data sets the queries are
part of the corpus.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

from nearest.contract import MAX_K, Failure, Hit
from nearest.evaluate import metrics
from nearest.evaluate.beir import Dataset

MODES = ("dense", "lexical", "hybrid")
_DEPTH = 100  # documents a ranking, for recall@100
_BATCH = 64  # queries at once


class Stage(NamedTuple):
    """How far an evaluation is. name: `index` or a mode; of: how many documents or queries there are."""

    name: str
    done: int
    of: int


class Search(Protocol):
    """`Collection.search_many`."""

    def __call__(self, queries: Sequence[str], *, k: int, mode: Any) -> list[list[Hit]]: ...


@dataclass
class Evaluation:
    """What was measured.

    modes: `ndcg@10`, `recall@100` and `mrr@10` of each mode. seconds: `index`, and each mode's for all
    queries. failed: documents that could not be indexed. truncated: chunks cut to the model's limit.
    """

    dataset: str
    documents: int
    queries: int
    embedder: str
    chunker: str
    modes: dict[str, dict[str, float]] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    truncated: int = 0
    failed: list[Failure] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        return {
            "dataset": self.dataset,
            "documents": self.documents,
            "queries": self.queries,
            "embedder": self.embedder,
            "chunker": self.chunker,
            "modes": self.modes,
            "seconds": self.seconds,
            "truncated": self.truncated,
            "failed": [{"id": failure.id, "reason": failure.reason} for failure in self.failed],
        }


def evaluate(
    search: Search,
    dataset: Dataset,
    *,
    modes: Iterable[str] = MODES,
    progress: Callable[[Stage], None] | None = None,
) -> tuple[dict[str, dict[str, float]], dict[str, float]]:
    """The measures of each mode, and its seconds for all queries, of a collection that holds the data set."""
    measured: dict[str, dict[str, float]] = {}
    seconds: dict[str, float] = {}
    counted = metrics.judged_queries(dataset.qrels)
    queries = {query: dataset.queries[query] for query in counted}
    for mode in modes:
        started = time.perf_counter()
        rankings = _rankings(search, queries, mode, progress)
        seconds[mode] = time.perf_counter() - started
        measured[mode] = {
            "ndcg@10": metrics.mean(metrics.ndcg, rankings, dataset.qrels, 10),
            "recall@100": metrics.mean(metrics.recall, rankings, dataset.qrels, 100),
            "mrr@10": metrics.mean(metrics.mrr, rankings, dataset.qrels, 10),
        }
    return measured, seconds


def _rankings(
    search: Search, queries: Mapping[str, str], mode: str, progress: Callable[[Stage], None] | None
) -> dict[str, list[str]]:
    """The `_DEPTH` best documents of each query."""
    rankings: dict[str, list[str]] = {}
    ids = list(queries)
    for start in range(0, len(ids), _BATCH):
        batch = ids[start : start + _BATCH]
        found: dict[str, list[str]] = {query: [] for query in batch}
        k = _DEPTH + 1  # the query itself may be among them
        while batch:
            answers = search([queries[query] for query in batch], k=k, mode=mode)
            short = []
            for query, hits in zip(batch, answers, strict=True):
                # A deeper search may fuse a little differently; what the first one ranked stays in front.
                ranked = dict.fromkeys([*found[query], *(hit.document_id or hit.id for hit in hits)])
                ranked.pop(query, None)
                found[query] = list(ranked)
                if len(ranked) < _DEPTH and len(hits) == k < MAX_K:
                    short.append(query)
            batch, k = short, min(2 * k, MAX_K)
        rankings |= {query: ranking[:_DEPTH] for query, ranking in found.items()}
        if progress is not None:
            progress(Stage(mode, len(rankings), len(queries)))
    return rankings
