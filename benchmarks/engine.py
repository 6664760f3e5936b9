"""(a), (b): what our store and our collection cost on top of the bare engine.

The bare engine has its own number of threads; "with our threads" it is the very shard of the store. Both get the same
index, the same filters and the same candidates, and return payloads. The engine fuses by
reciprocal ranks, which is compared with ours; our default, which it cannot do, is shown beside.
"""

from __future__ import annotations

import json
import statistics
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import qdrant_edge as qe

import nearest
from benchmarks.common import embedded, interleaved, ms, table
from nearest.app import Collection
from nearest.contract import Dense, Document, Fused, IndexParams, Query, Text
from nearest.filters import parse
from tests.fakes import HashEmbedder

ROUNDS, TURNS = 200, 5
SAME = "bare engine, with our threads"


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
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "kb"
        build(folder, texts, vectors).close()
        # In turns, since two shards in one process would share the processor's caches.
        turns = [(_bare(folder, texts, vectors), _ours(folder, texts, vectors)) for _ in range(TURNS)]
    rows = []
    for search in turns[0][1]:
        own = statistics.median(bare[search] for bare, _ in turns)
        sides = {side: statistics.median(ours[search][side] for _, ours in turns) for side in turns[0][1][search]}
        same = sides[SAME]
        for side, t in {"bare engine": own, **sides}.items():
            rows.append((search, side, ms(t), f"{t / own:.2f}x", f"{t / same:.2f}x"))
    table(
        f"engine: {len(texts)} passages, k=10, medians of {TURNS} turns of {ROUNDS} rounds",
        ("search", "side", "median", "ratio", "with our threads"),
        rows,
    )


def _pick(texts: list[str], i: int) -> int:
    return i * (len(texts) // 500) % len(texts)


def _raw(shard: Any, texts: list[str], vectors: Any) -> dict[str, Callable[[int], Any]]:
    """The four searches, by the engine itself."""
    params = qe.SearchParams(hnsw_ef=IndexParams().ef)
    only = qe.Filter(must=[qe.FieldCondition('"metadata"."bucket"', range=qe.RangeFloat(gte=3, lte=3))])

    def told(request: Any) -> Any:
        # Reading what was found is part of a search: the binding makes ids and payloads when they are asked for.
        return [(point.id, point.score, point.payload) for point in shard.query(request)]

    def dense(i: int, where: Any = None) -> Any:
        find = qe.Query.Nearest(vectors[_pick(texts, i)].tolist(), using="dense")
        return told(qe.QueryRequest(limit=10, query=find, params=params, filter=where, with_payload=True))

    def hybrid(i: int, where: Any = None) -> Any:
        find = qe.Query.Nearest(vectors[_pick(texts, i)].tolist(), using="dense")
        parts = [
            qe.Prefetch(limit=100, query=find, params=params, filter=where),
            qe.Prefetch(limit=100, query=qe.TextQuery("text", texts[_pick(texts, i)]), filter=where),
        ]
        return told(qe.QueryRequest(limit=10, prefetches=parts, query=qe.Fusion.Rrf(k=60), with_payload=True))

    return {
        "hybrid": hybrid, "hybrid, filtered": lambda i: hybrid(i, only),
        "dense": dense, "dense, filtered": lambda i: dense(i, only),
    }  # fmt: skip


def _warm(raw: dict[str, Callable[[int], Any]]) -> None:
    """What the engine opened is read from the disk, and mapped, when it is first touched."""
    for call in raw.values():
        for i in range(500):
            call(i)


def _bare(folder: Path, texts: list[str], vectors: Any) -> dict[str, float]:
    """The engine by itself, with as many threads as it takes."""
    settings = folder / "store" / "edge_config.json"
    settings.write_text(json.dumps({k: v for k, v in json.loads(settings.read_text()).items() if "threads" not in k}))
    shard = qe.EdgeShard.load(str(folder / "store"))
    try:
        raw = _raw(shard, texts, vectors)
        _warm(raw)
        return {name: interleaved({name: call}, ROUNDS)[name] for name, call in raw.items()}
    finally:
        shard.close()


def _ours(folder: Path, texts: list[str], vectors: Any) -> dict[str, dict[str, float]]:
    """Our sides, and the engine by itself on our shard, in turns."""
    mine = parse({"metadata.bucket": 3})
    with nearest.open(folder, embedder=Given(texts, vectors), create=False) as kb:
        raw = _raw(kb.store.inner._shard, texts, vectors)  # type: ignore[attr-defined]  # the very same shard
        _warm(raw)

        def given(i: int) -> dict[str, Any]:
            return {"query": texts[_pick(texts, i)], "vector": vectors[_pick(texts, i)]}

        def dense(i: int, where: Any = None) -> Any:
            return kb.store.search(Query(Dense(vectors[_pick(texts, i)]), where=where))

        def hybrid(i: int, method: Any = "rrf", where: Any = None) -> Any:
            parts = (Dense(vectors[_pick(texts, i)]), Text(texts[_pick(texts, i)]))
            return kb.store.search(Query(Fused(parts, method), where=where))

        only = {"where": {"bucket": 3}}
        sides: dict[str, dict[str, Callable[[int], Any]]] = {
            "hybrid": {
                "store, rrf": hybrid,
                "store, adaptive": lambda i: hybrid(i, "adaptive"),
                "kb.search, rrf": lambda i: kb.search(**given(i), fusion="rrf", explain=False),
                "kb.search, its default": lambda i: kb.search(**given(i)),
            },
            "hybrid, filtered": {
                "store, rrf": lambda i: hybrid(i, "rrf", mine),
                "kb.search, rrf": lambda i: kb.search(**given(i), **only, fusion="rrf", explain=False),
                "kb.search, its default": lambda i: kb.search(**given(i), **only),
            },
            "dense": {
                "store": dense,
                "kb.search, vector given": lambda i: kb.search(vector=given(i)["vector"]),
            },
            "dense, filtered": {
                "store": lambda i: dense(i, mine),
                "kb.search, vector given": lambda i: kb.search(vector=given(i)["vector"], **only),
            },
        }
        return {name: interleaved({SAME: raw[name], **some}, ROUNDS) for name, some in sides.items()}


if __name__ == "__main__":
    run()
