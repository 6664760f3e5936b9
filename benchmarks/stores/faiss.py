"""FAISS on a folder, by itself: an HNSW index, and ids and payloads as lines of JSON, both synced to the disk.

Bare FAISS searches under a condition by an IDSelector, which finds fewer of the true neighbours than ours does.
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

    def load(self, ids: list[str], vectors: NDArray[Any], payloads: list[dict[str, Any]]) -> None:
        self._index: Any = self._faiss.index_factory(vectors.shape[1], "HNSW16", self._faiss.METRIC_INNER_PRODUCT)
        self._index.hnsw.efConstruction = 128
        self._index.add(vectors)
        self._ids, self._payloads = ids, payloads
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
        return self._query(vector, k, self._faiss.SearchParametersHNSW(efSearch=100, sel=chosen))

    def _query(self, vector: NDArray[Any], k: int, params: Any) -> list[tuple[str, float, dict[str, Any]]]:
        scores, places = self._index.search(vector[None], k, params=params)
        found = zip(places[0].tolist(), scores[0].tolist(), strict=True)
        return [(self._ids[i], score, self._payloads[i]) for i, score in found if i >= 0]

    def close(self) -> None:
        del self._index
