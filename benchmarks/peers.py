"""(c): our embedded store against Chroma's and LanceDB's, plain and filtered, at equal recall.

Each side is asked with the smallest search effort (ef, nprobes) of a fixed ladder that finds at least 98%
of the ten nearest; the recall each reached is printed beside its time. All sides return ids and payloads.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

import nearest
from benchmarks.common import embedded, exact, interleaved, ms, table
from nearest.contract import Dense, Query, Record
from nearest.filters import parse

K, ROUNDS, WANTED = 10, 300, 0.98
BLOCK = 100
BUCKETS = 14  # 1 in 14: 7% match
EFFORTS = (16, 32, 64, 128, 256, 512)

Search = Callable[[Any, int, int | None], set[int]]
"""(query vector, effort, bucket or None) -> found row numbers"""


@contextmanager
def edge(folder: Path, texts: list[str], vectors: Any) -> Iterator[Search]:
    schema = nearest.Schema(vectors={"dense": nearest.VectorSpec(vectors.shape[1])}, fields={"bucket": "integer"})
    with nearest.connect(f"edge:{folder}", schema) as store:
        for start in range(0, len(texts), 1000):
            store.upsert(
                Record(str(i), {"dense": vectors[i]}, {"text": texts[i], "bucket": i % BUCKETS})
                for i in range(start, min(start + 1000, len(texts)))
            )
        store.optimize()

        def search(vector: Any, effort: int, bucket: int | None) -> set[int]:
            where = None if bucket is None else parse({"bucket": bucket})
            return {int(hit.id) for hit in store.search(Query(Dense(vector), K, where, ef=effort))}

        yield search


@contextmanager
def chroma(folder: Path, texts: list[str], vectors: Any) -> Iterator[Search]:
    import chromadb

    client = chromadb.PersistentClient(str(folder), settings=chromadb.Settings(anonymized_telemetry=False))
    collections: dict[int, Any] = {}

    def filled(effort: int) -> Any:
        # Chroma fixes ef when the collection is made, and copies nothing: one collection an effort.
        made = client.create_collection(
            f"ef{effort}", configuration={"hnsw": {"space": "cosine", "max_neighbors": 16, "ef_construction": 128,
                                                   "ef_search": effort}}, embedding_function=None,
        )  # fmt: skip
        for start in range(0, len(texts), 5000):
            rows = range(start, min(start + 5000, len(texts)))
            made.add(
                ids=[str(i) for i in rows],
                embeddings=vectors[start : rows.stop],
                documents=[texts[i] for i in rows],
                metadatas=[{"bucket": i % BUCKETS} for i in rows],
            )
        return made

    def search(vector: Any, effort: int, bucket: int | None) -> set[int]:
        if effort not in collections:
            collections[effort] = filled(effort)
        where = None if bucket is None else {"bucket": bucket}
        found = collections[effort].query(
            query_embeddings=[vector], n_results=K, where=where, include=["documents", "metadatas", "distances"]
        )
        return {int(i) for i in found["ids"][0]}

    yield search


@contextmanager
def lancedb(folder: Path, texts: list[str], vectors: Any) -> Iterator[Search]:
    import lancedb as lance
    import pyarrow as pa

    rows = pa.table(
        {
            "id": pa.array(range(len(texts))),
            "vector": pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel()), vectors.shape[1]),
            "text": pa.array(texts),
            "bucket": pa.array([i % BUCKETS for i in range(len(texts))]),
        }
    )
    made = lance.connect(str(folder)).create_table("t", rows)
    made.create_index(metric="cosine", vector_column_name="vector", index_type="IVF_HNSW_SQ")
    made.create_scalar_index("bucket")

    def search(vector: Any, effort: int, bucket: int | None) -> set[int]:
        query = (
            made.search(vector)
            .distance_type("cosine")
            .nprobes(effort)
            .ef(max(2 * effort, 4 * K))
            .refine_factor(4)
            .limit(K)
        )
        if bucket is not None:
            query = query.where(f"bucket = {bucket}", prefilter=True)
        return {row["id"] for row in query.select(["id", "text", "bucket", "_distance"]).to_list()}

    yield search


def _ask(search: Search, queries: Any, effort: int, where: int | None, i: int) -> set[int]:
    return search(queries[i % len(queries)], effort, where)


def run() -> None:
    texts, vectors = embedded()
    rng = np.random.default_rng(0)
    picked = rng.choice(len(texts), 200, replace=False)
    # Questions near the data, but not of it.
    queries = vectors[picked] + rng.normal(scale=0.02, size=(200, vectors.shape[1])).astype(np.float32)
    queries /= np.linalg.norm(queries, axis=1, keepdims=True)
    bucket = 3
    rows_in = np.arange(bucket, len(texts), BUCKETS)
    truth = {
        None: exact(vectors, queries, K),
        bucket: [{int(rows_in[i]) for i in found} for found in exact(vectors[rows_in], queries, K)],
    }
    with (
        tempfile.TemporaryDirectory() as folder,
        edge(Path(folder) / "edge", texts, vectors) as ours,
        chroma(Path(folder) / "chroma", texts, vectors) as theirs,
        lancedb(Path(folder) / "lance", texts, vectors) as lances,
    ):
        sides = {"nearest (edge)": ours, "Chroma": theirs, "LanceDB": lances}
        for where, name in ((None, "plain"), (bucket, "filtered, 1 in 14")):
            calls: dict[str, Callable[[int], Any]] = {}
            reached: dict[str, tuple[int, float]] = {}
            for side, search in sides.items():
                for effort in EFFORTS:
                    found = [search(query, effort, where) for query in queries]
                    recall = float(np.mean([len(f & t) / K for f, t in zip(found, truth[where], strict=True)]))
                    reached[side] = (effort, recall)
                    if recall >= WANTED:
                        break
                effort = reached[side][0]
                calls[side] = partial(_ask, search, queries, effort, where)
            medians = interleaved(calls, ROUNDS, block=BLOCK)
            mine = medians["nearest (edge)"]
            table(
                f"peers, {name}: {len(texts)} passages, {vectors.shape[1]} dimensions, k={K}, medians of {ROUNDS}",
                ("side", "effort", "recall@10", "median", "against ours"),
                [(s, reached[s][0], f"{reached[s][1]:.3f}", ms(t), f"{t / mine:.1f}x") for s, t in medians.items()],
            )


if __name__ == "__main__":
    run()
