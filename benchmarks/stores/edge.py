"""Qdrant Edge beside the bare engine, each with a shard of its own in this process and the same index settings."""

from __future__ import annotations

import contextlib
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import qdrant_edge as qe
from numpy.typing import NDArray

from nearest.contract import IndexParams, StoreURL

_BATCH = 1000


@contextlib.contextmanager
def serve(folder: Path) -> Iterator[str]:
    yield f"edge:{folder / 'ours'}"


class Bare:
    def __init__(self, url: str) -> None:
        folder = Path(StoreURL.parse(url).location).parent / "bare"
        folder.mkdir()
        index = IndexParams()
        hnsw = qe.HnswIndexConfig(m=index.m, ef_construct=index.ef_construct, full_scan_threshold=1_000)
        dense = qe.EdgeVectorParams(384, qe.Distance.Cosine)
        self._shard = qe.EdgeShard.create(str(folder), qe.EdgeConfig(vectors={"dense": dense}, hnsw_config=hnsw))
        self._params = qe.SearchParams(hnsw_ef=index.ef)

    def load(self, ids: list[str], vectors: NDArray[Any], payloads: list[dict[str, Any]]) -> None:
        update = qe.UpdateOperation
        self._shard.update(update.create_field_index("bucket", qe.PayloadSchemaType.Integer))
        for start in range(0, len(ids), _BATCH):
            points = [
                qe.Point(
                    id=str(uuid.uuid5(uuid.NAMESPACE_URL, ids[i])),
                    vector={"dense": vectors[i].tolist()},
                    payload={**payloads[i], "id": ids[i]},
                )
                for i in range(start, min(start + _BATCH, len(ids)))
            ]
            self._shard.update(update.upsert_points(points))
        self._shard.flush()
        self._shard.optimize()

    def search(self, vector: NDArray[Any], k: int) -> list[tuple[str, float, dict[str, Any]]]:
        return self._found(vector, k, None)

    def search_filtered(self, vector: NDArray[Any], k: int, bucket: int) -> list[tuple[str, float, dict[str, Any]]]:
        return self._found(vector, k, qe.Filter(must=[qe.FieldCondition("bucket", match=qe.MatchValue(bucket))]))

    def _found(self, vector: NDArray[Any], k: int, where: Any) -> list[tuple[str, float, dict[str, Any]]]:
        find = qe.Query.Nearest(vector.tolist(), using="dense")
        request = qe.QueryRequest(limit=k, query=find, params=self._params, filter=where, with_payload=True)
        return [(str(point.id), point.score, point.payload) for point in self._shard.query(request)]

    def close(self) -> None:
        self._shard.close()
