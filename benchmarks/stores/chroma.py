"""Chroma embedded on a folder, through its own client: one collection, whole batches, texts and numbers as metadata."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

_INCLUDE: Any = ["metadatas", "distances"]


@contextmanager
def serve(folder: Path) -> Iterator[str]:
    yield f"chroma:{folder}/ours"


class Bare:
    def __init__(self, url: str) -> None:
        import chromadb
        from chromadb.config import Settings

        folder = Path(url.removeprefix("chroma:")).parent / "bare"
        self._client: Any = chromadb.PersistentClient(folder, settings=Settings(anonymized_telemetry=False))
        hnsw: Any = {"space": "cosine", "max_neighbors": 16, "ef_construction": 128, "ef_search": 100}
        self._collection = self._client.create_collection("bare", configuration={"hnsw": hnsw}, embedding_function=None)

    def load(self, ids: list[str], vectors: NDArray[Any], payloads: list[dict[str, Any]]) -> None:
        size = min(5_000, self._client.get_max_batch_size())
        for start in range(0, len(ids), size):
            part = slice(start, start + size)
            metadatas: Any = payloads[part]
            self._collection.upsert(ids=ids[part], embeddings=list(vectors[part]), metadatas=metadatas)

    def search(self, vector: NDArray[Any], k: int) -> list[tuple[str, float, dict[str, Any]]]:
        return self._query(vector, k, None)

    def search_filtered(self, vector: NDArray[Any], k: int, bucket: int) -> list[tuple[str, float, dict[str, Any]]]:
        return self._query(vector, k, {"bucket": bucket})

    def _query(self, vector: NDArray[Any], k: int, where: Any) -> list[tuple[str, float, dict[str, Any]]]:
        got: Any = self._collection.query(query_embeddings=[vector], n_results=k, where=where, include=_INCLUDE)
        found = zip(got["ids"][0], got["distances"][0], got["metadatas"][0], strict=True)
        return [(i, 1.0 - distance, metadata) for i, distance, metadata in found]

    def close(self) -> None:
        self._client.close()
