"""FAISS on a folder, by itself: an HNSW index, and ids and payloads as lines of JSON, both synced to the disk.

Bare FAISS searches under a condition by an IDSelector. At the effort of a plain search it finds few of the true
neighbours, so the effort is raised until it finds 98% of them, as ours does.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray


@contextmanager
def serve(folder: Path) -> Iterator[str]:
    yield f"faiss:{folder}/ours"


class Bare:
    def __init__(self, url: str) -> None:
        import faiss

        self._faiss: Any = faiss
        self._folder = Path(url.removeprefix("faiss:")).parent / "bare"
        self._folder.mkdir()
        self._params = faiss.SearchParametersHNSW(efSearch=100)
        self._filtered_ef = 0

    def load(self, ids: list[str], vectors: NDArray[Any], payloads: list[dict[str, Any]]) -> None:
        self._index: Any = self._faiss.index_factory(vectors.shape[1], "HNSW16", self._faiss.METRIC_INNER_PRODUCT)
        self._index.hnsw.efConstruction = 128
        self._index.add(vectors)
        self._ids, self._payloads, self._vectors = ids, payloads, vectors
        self._buckets = np.array([payload["bucket"] for payload in payloads])
        self._faiss.write_index(self._index, str(self._folder / "index"))
        with (self._folder / "records").open("w") as file:
            for record_id, payload in zip(ids, payloads, strict=True):
                file.write(json.dumps([record_id, payload]) + "\n")
        for path in self._folder.iterdir():
            with path.open("rb+") as written:
                os.fsync(written.fileno())

    def search(self, vector: NDArray[Any], k: int) -> list[tuple[str, float, dict[str, Any]]]:
        return self._query(vector, k, self._params)

    def search_filtered(self, vector: NDArray[Any], k: int, bucket: int) -> list[tuple[str, float, dict[str, Any]]]:
        bits = np.packbits(self._buckets == bucket, bitorder="little")
        chosen = self._faiss.IDSelectorBitmap(bits)
        if not self._filtered_ef:
            self._filtered_ef = self._effort(chosen, bucket, k)
        return self._query(vector, k, self._faiss.SearchParametersHNSW(efSearch=self._filtered_ef, sel=chosen))

    def _effort(self, chosen: Any, bucket: int, k: int) -> int:
        """The smallest ef that finds 98% of the k nearest in a bucket."""
        inside = np.flatnonzero(self._buckets == bucket)
        queries = self._vectors[:: max(1, len(self._vectors) // 200)]
        truth = [set(inside[np.argsort(-row)[:k]].tolist()) for row in queries @ self._vectors[inside].T]
        for ef in (100, 200, 400, 800, 1600, 3200):
            params = self._faiss.SearchParametersHNSW(efSearch=ef, sel=chosen)
            found = self._index.search(queries, k, params=params)[1].tolist()
            if np.mean([len(set(f) & t) / k for f, t in zip(found, truth, strict=True)]) >= 0.98:
                break
        return ef

    def _query(self, vector: NDArray[Any], k: int, params: Any) -> list[tuple[str, float, dict[str, Any]]]:
        scores, places = self._index.search(vector[None], k, params=params)
        found = zip(places[0].tolist(), scores[0].tolist(), strict=True)
        return [(self._ids[i], score, self._payloads[i]) for i, score in found if i >= 0]

    def close(self) -> None:
        del self._index
