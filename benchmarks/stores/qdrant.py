"""Qdrant, on a server (NEAREST_TEST_QDRANT_URL, with COLLECTION in it) or else on the tests' double in its own process.

The double compares with all vectors and keeps everything in memory: what it tells is our share beside the client's,
not how fast a server is.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

_ROOT = Path(__file__).resolve().parents[2]
_BATCH = 1000


@contextmanager
def serve(folder: Path) -> Iterator[str]:
    name = f"bench-{uuid.uuid4().hex}"
    if server := os.environ.get("NEAREST_TEST_QDRANT_URL"):
        yield server.replace("COLLECTION", name)
        return
    command = [sys.executable, "-W", "ignore", "-m", "tests.stores.qdrant_double"]
    with subprocess.Popen(command, cwd=_ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as double:
        assert double.stdin is not None
        assert double.stdout is not None
        yield f"qdrant://127.0.0.1:{double.stdout.readline().strip()}/{name}"
        double.stdin.close()  # which ends it


class Bare:
    def __init__(self, url: str) -> None:
        from qdrant_client import QdrantClient, models

        from nearest.contract import StoreURL
        from nearest.stores import qdrant

        parsed = StoreURL.parse(url)
        address, options = qdrant._address(parsed.location), qdrant._options(parsed.options)
        self._name = f"{address.collection}-bare"
        self._models: Any = models
        self._client = QdrantClient(
            host=address.host,
            port=address.port,
            https=options.get("tls", address.key is not None),
            api_key=address.key,
            prefer_grpc=options.get("grpc", False),
            grpc_port=options.get("grpc_port", 6334),
            timeout=60,
            check_compatibility=False,
        )
        self._client.create_collection(
            self._name,
            models.VectorParams(size=384, distance=models.Distance.COSINE),
            hnsw_config=models.HnswConfigDiff(m=16, ef_construct=128),
        )
        self._client.create_payload_index(self._name, "bucket", models.PayloadSchemaType.INTEGER)
        self._params = models.SearchParams(hnsw_ef=100)

    def load(self, ids: list[str], vectors: NDArray[Any], payloads: list[dict[str, Any]]) -> None:
        models = self._models
        for start in range(0, len(ids), _BATCH):
            part = slice(start, start + _BATCH)
            batch = models.Batch(
                ids=[str(uuid.uuid5(uuid.NAMESPACE_URL, record_id)) for record_id in ids[part]],
                vectors=vectors[part].tolist(),
                payloads=[
                    {"record": record_id, **payload}
                    for record_id, payload in zip(ids[part], payloads[part], strict=True)
                ],
            )
            self._client.upsert(self._name, batch, wait=True)
        while self._client.get_collection(self._name).status == models.CollectionStatus.YELLOW:
            time.sleep(0.2)

    def search(self, vector: NDArray[Any], k: int) -> list[tuple[str, float, dict[str, Any]]]:
        return self._search(vector, k, None)

    def search_filtered(self, vector: NDArray[Any], k: int, bucket: int) -> list[tuple[str, float, dict[str, Any]]]:
        models = self._models
        only = models.FieldCondition(key="bucket", match=models.MatchValue(value=bucket))
        return self._search(vector, k, models.Filter(must=[only]))

    def _search(self, vector: NDArray[Any], k: int, condition: Any) -> list[tuple[str, float, dict[str, Any]]]:
        found = self._client.query_points(
            self._name, vector.tolist(), query_filter=condition, limit=k, search_params=self._params
        )
        return [(point.payload.pop("record"), point.score, point.payload) for point in found.points if point.payload]

    def close(self) -> None:
        self._client.delete_collection(self._name)
        self._client.close()
