"""Asks a data set's questions in every mode and measures the answers.

Judgements are about documents and hits are chunks, so a document stands where its best chunk does. As in
BEIR, a document with the query's own id is left out of its ranking: in some data sets the queries are
part of the corpus.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

from nearest.contract import MAX_K, Document, Failure, Hit
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


class Collection(Protocol):
    """What is needed of a collection."""

    def add(self, documents: Iterable[Document], *, pool: bool, progress: Callable[[Any], None] | None) -> Any: ...
    def search_many(self, queries: Sequence[str], *, k: int, mode: Any) -> list[list[Hit]]: ...
    def info(self) -> dict[str, Any]: ...


@dataclass
class Evaluation:
    """What was measured.

    modes: `ndcg@10`, `recall@100` and `mrr@10` of each mode. seconds: `index`, and each mode's for all
    queries. failed: documents that could not be indexed. pooled: texts over the model's limit, embedded in windows.
    """

    dataset: str
    documents: int
    queries: int
    embedder: str
    chunker: Mapping[str, Any]
    modes: dict[str, dict[str, float]]
    seconds: dict[str, float]
    pooled: int
    failed: list[Failure]

    def to_json(self) -> dict[str, Any]:
        failed = [{"id": failure.id, "reason": failure.reason} for failure in self.failed]
        return {**vars(self), "failed": failed}


def run(kb: Collection, dataset: Dataset, progress: Callable[[Stage], None] | None = None) -> Evaluation:
    """Index what the collection lacks of a data set, pooling what is over the model's limit, and measure it."""
    tell = progress or (lambda stage: None)
    total = len(dataset.ids)
    started = time.perf_counter()
    report = kb.add(
        dataset.documents(), pool=True, progress=lambda at: tell(Stage("index", at.documents + at.failed, total))
    )
    seconds = {"index": time.perf_counter() - started}
    modes: dict[str, dict[str, float]] = {}
    queries = {query: dataset.queries[query] for query in metrics.judged_queries(dataset.qrels)}
    for mode in MODES:
        started = time.perf_counter()
        rankings = _rankings(kb, queries, mode, tell)
        seconds[mode] = time.perf_counter() - started
        modes[mode] = {
            "ndcg@10": metrics.mean(metrics.ndcg, rankings, dataset.qrels, 10),
            "recall@100": metrics.mean(metrics.recall, rankings, dataset.qrels, 100),
            "mrr@10": metrics.mean(metrics.mrr, rankings, dataset.qrels, 10),
        }
    facts = kb.info()
    failed = [*dataset.failed, *report.failed]
    return Evaluation(
        dataset.name, facts["documents"], len(queries), facts["embedder"], facts["chunker"], modes,
        {name: round(value, 3) for name, value in seconds.items()}, report.pooled, failed,
    )  # fmt: skip


def _rankings(
    kb: Collection, queries: Mapping[str, str], mode: str, tell: Callable[[Stage], None]
) -> dict[str, list[str]]:
    """The `_DEPTH` best documents of each query."""
    rankings: dict[str, list[str]] = {}
    ids = list(queries)
    for start in range(0, len(ids), _BATCH):
        batch = ids[start : start + _BATCH]
        found: dict[str, list[str]] = {query: [] for query in batch}
        k = _DEPTH + 1  # the query itself may be among them
        while batch:
            answers = kb.search_many([queries[query] for query in batch], k=k, mode=mode)
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
        tell(Stage(mode, len(rankings), len(queries)))
    return rankings
