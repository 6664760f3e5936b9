"""(a), (b): what our store and our collection cost on top of the bare engine, on one and the same shard.

The bare engine gets the same index, the same filters and the same candidates, and returns payloads. It fuses by
reciprocal ranks, which is compared with ours; our default, which it cannot do, is shown beside.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import qdrant_edge as qe

import nearest
from benchmarks.common import embedded, interleaved, ms, table
from nearest.app import Collection
from nearest.contract import Dense, Document, Fused, Query, Text
from nearest.filters import parse
from tests.fakes import HashEmbedder

ROUNDS = 400


class Given(HashEmbedder):
    """Vectors computed before, so that adding measures nothing else and searching has real ones."""

    def __init__(self, texts: list[str], vectors: Any) -> None:
        super().__init__(vectors.shape[1], name="given:minilm")
        self.known = dict(zip(texts, vectors, strict=True))

    def embed_documents(self, texts: Any, *, truncate: bool = False) -> Any:
        return np.stack([self.known[text] for text in texts])


def build(folder: Path, texts: list[str], vectors: Any) -> Collection:
    kb = nearest.open(folder, embedder=Given(texts, vectors), chunker="whole", fields={"bucket": "integer"})
    kb.add(Document(f"d{i}", text, {"bucket": i % 14}) for i, text in enumerate(texts))
    return kb


def run() -> None:
    texts, vectors = embedded()
    queries = list(range(0, len(texts), len(texts) // 500))[:500]
    with tempfile.TemporaryDirectory() as folder, build(Path(folder) / "kb", texts, vectors) as kb:
        shard = kb.store.inner._shard  # type: ignore[attr-defined]  # the very same shard
        params = qe.SearchParams(hnsw_ef=kb.store.schema.index.ef)
        only = qe.Filter(must=[qe.FieldCondition('"metadata"."bucket"', range=qe.RangeFloat(gte=3, lte=3))])

        def pick(i: int) -> int:
            return queries[i % len(queries)]

        def told(request: Any) -> Any:
            # Reading what was found is part of a search: the binding makes ids and payloads when they are asked for.
            return [(point.id, point.score, point.payload) for point in shard.query(request)]

        def raw_dense(i: int, where: Any = None) -> Any:
            find = qe.Query.Nearest(vectors[pick(i)].tolist(), using="dense")
            return told(qe.QueryRequest(limit=10, query=find, params=params, filter=where, with_payload=True))

        def raw_hybrid(i: int, where: Any = None) -> Any:
            find = qe.Query.Nearest(vectors[pick(i)].tolist(), using="dense")
            parts = [
                qe.Prefetch(limit=100, query=find, params=params, filter=where),
                qe.Prefetch(limit=100, query=qe.TextQuery("text", texts[pick(i)]), filter=where),
            ]
            return told(qe.QueryRequest(limit=10, prefetches=parts, query=qe.Fusion.Rrf(k=60), with_payload=True))

        def ours_dense(i: int, where: Any = None) -> Any:
            return kb.store.search(Query(Dense(vectors[pick(i)]), where=where))

        def ours_hybrid(i: int, method: Any = "rrf", where: Any = None) -> Any:
            parts = (Dense(vectors[pick(i)]), Text(texts[pick(i)]))
            return kb.store.search(Query(Fused(parts, method), where=where))

        mine = parse({"metadata.bucket": 3})
        rows = []
        for name, base, sides in (
            ("hybrid", raw_hybrid, {
                "store, rrf": ours_hybrid,
                "store, adaptive": lambda i: ours_hybrid(i, "adaptive"),
                "kb.search, rrf": lambda i: kb.search(
                    texts[pick(i)], vector=vectors[pick(i)], fusion="rrf", explain=False
                ),
                "kb.search, its default": lambda i: kb.search(texts[pick(i)], vector=vectors[pick(i)]),
            }),
            ("hybrid, filtered", lambda i: raw_hybrid(i, only), {
                "store, rrf": lambda i: ours_hybrid(i, "rrf", mine),
                "kb.search, rrf": lambda i: kb.search(
                    texts[pick(i)], vector=vectors[pick(i)], where={"bucket": 3}, fusion="rrf", explain=False
                ),
                "kb.search, its default": lambda i: kb.search(
                    texts[pick(i)], vector=vectors[pick(i)], where={"bucket": 3}
                ),
            }),
            ("dense", raw_dense, {
                "store": ours_dense,
                "kb.search, vector given": lambda i: kb.search(vector=vectors[pick(i)]),
            }),
            ("dense, filtered", lambda i: raw_dense(i, only), {
                "store": lambda i: ours_dense(i, mine),
                "kb.search, vector given": lambda i: kb.search(vector=vectors[pick(i)], where={"bucket": 3}),
            }),
        ):  # fmt: skip
            medians = interleaved({"bare engine": base, **sides}, ROUNDS)
            bare = medians["bare engine"]
            rows += [(name, side, ms(t), f"{t / bare:.2f}x") for side, t in medians.items()]
        table(
            f"engine: {len(texts)} passages, k=10, {ROUNDS} rounds, medians",
            ("search", "side", "median", "ratio"),
            rows,
        )


if __name__ == "__main__":
    run()
