"""Pinecone beside its own client, both on the tests' local double.

The double is no database: what is compared is the work on this side of the wire, and nothing is said of
the service. Both sides send float32 as JSON in parallel requests of up to 2 MB.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from numpy.typing import NDArray

from tests.stores.pinecone_double import PineconeDouble

_numbers = itertools.count()
_KEY = "a-key"
_BATCH = 200  # records of 384 floats that fit into 2 MB


@contextlib.contextmanager
def serve(folder: Path) -> Iterator[str]:
    before = os.environ.get("PINECONE_API_KEY")
    os.environ["PINECONE_API_KEY"] = _KEY
    try:
        with PineconeDouble(_KEY) as double:
            yield f"pinecone://bench/n{next(_numbers)}?host={double.url}"
    finally:
        if before is None:
            del os.environ["PINECONE_API_KEY"]
        else:
            os.environ["PINECONE_API_KEY"] = before


class Bare:
    def __init__(self, url: str) -> None:
        import pinecone

        self._client = pinecone.Pinecone(api_key=_KEY, host=parse_qs(urlsplit(url).query)["host"][0])
        self._spec = pinecone.ServerlessSpec(cloud="aws", region="us-east-1")
        self._index: Any = None

    def load(self, ids: list[str], vectors: NDArray[Any], payloads: list[dict[str, Any]]) -> None:
        self._client.create_index("bare", self._spec, vectors.shape[1], "cosine")
        self._index = self._client.index("bare")

        def send(start: int) -> int:
            part = range(start, min(start + _BATCH, len(ids)))
            rows = [{"id": ids[i], "values": vectors[i].tolist(), "metadata": payloads[i]} for i in part]
            return self._index.upsert(vectors=rows, namespace="n").response_info.lsn_committed or 0

        with ThreadPoolExecutor(8) as pool:
            last = max(pool.map(send, range(0, len(ids), _BATCH)))
        probe = vectors[0].tolist()
        while not self._index.query(vector=probe, top_k=1, namespace="n").response_info.is_reconciled(last):
            time.sleep(0.005)

    def search(self, vector: NDArray[Any], k: int) -> list[tuple[str, float, dict[str, Any]]]:
        return self._found(vector, k, None)

    def search_filtered(self, vector: NDArray[Any], k: int, bucket: int) -> list[tuple[str, float, dict[str, Any]]]:
        return self._found(vector, k, {"bucket": {"$eq": bucket}})

    def _found(self, vector: NDArray[Any], k: int, where: dict[str, Any] | None) -> list[tuple[str, float, Any]]:
        answer = self._index.query(vector=vector.tolist(), top_k=k, namespace="n", filter=where, include_metadata=True)
        return [(match.id, match.score, match.metadata) for match in answer.matches]

    def close(self) -> None:
        if self._index is not None:
            self._index.close()
        self._client.close()
