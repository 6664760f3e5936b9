"""Milvus Lite on a file, through pymilvus alone: rows in batches, flushed, with its index; scalar fields as columns."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

_NAME = "bare"
_PARAMS = {"params": {"ef": 100}}


@contextmanager
def serve(folder: Path) -> Iterator[str]:
    yield f"milvus:{folder}/ours.db"


class Bare:
    def __init__(self, url: str) -> None:
        from pymilvus import MilvusClient  # type: ignore[import-untyped]

        self._path = Path(url.removeprefix("milvus:")).parent / "bare.db"
        self._client: Any = MilvusClient(str(self._path))

    def load(self, ids: list[str], vectors: NDArray[Any], payloads: list[dict[str, Any]]) -> None:
        from milvus_lite.server_manager import server_manager_instance  # type: ignore[import-untyped]
        from pymilvus import DataType

        schema = self._client.create_schema(auto_id=False)
        schema.add_field("id", DataType.VARCHAR, is_primary=True, max_length=2048)
        schema.add_field("vector", DataType.FLOAT_VECTOR, dim=vectors.shape[1])
        schema.add_field("bucket", DataType.INT64)
        schema.add_field("text", DataType.VARCHAR, max_length=65_535)
        index = self._client.prepare_index_params()
        index.add_index("vector", "HNSW", metric_type="COSINE", params={"M": 16, "efConstruction": 128})
        index.add_index("bucket", "INVERTED")
        self._client.create_collection(_NAME, schema=schema, index_params=index, consistency_level="Strong")
        for start in range(0, len(ids), 10_000):
            part = zip(
                ids[start : start + 10_000],
                vectors[start : start + 10_000],
                payloads[start : start + 10_000],
                strict=True,
            )
            self._client.upsert(_NAME, [{"id": i, "vector": vector, **payload} for i, vector, payload in part])
        self._client.flush(_NAME)
        # Its index is made in the background, which the client cannot wait for.
        database = server_manager_instance._servers[str(self._path)][1]
        database.get_collection(_NAME)._wait_for_bg()

    def search(self, vector: NDArray[Any], k: int) -> list[tuple[str, float, dict[str, Any]]]:
        return self._search(vector, k, "")

    def search_filtered(self, vector: NDArray[Any], k: int, bucket: int) -> list[tuple[str, float, dict[str, Any]]]:
        return self._search(vector, k, f"bucket == {bucket}")

    def _search(self, vector: NDArray[Any], k: int, where: str) -> list[tuple[str, float, dict[str, Any]]]:
        found = self._client.search(
            _NAME, [vector], filter=where, limit=k, output_fields=["bucket", "text"], search_params=_PARAMS
        )
        return [(hit["id"], hit["distance"], dict(hit["entity"])) for hit in found[0]]

    def close(self) -> None:
        self._client.close()
