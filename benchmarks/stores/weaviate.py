"""Weaviate, on a server (NEAREST_TEST_WEAVIATE_URL, with COLLECTION in it) or else on the tests' double.

The double compares with all vectors and keeps everything in memory: what it tells is our share beside the client's,
not how fast a server is.
"""

from __future__ import annotations

import os
import subprocess
import sys
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
    name = f"Bench{uuid.uuid4().hex}"
    if server := os.environ.get("NEAREST_TEST_WEAVIATE_URL"):
        yield server.replace("COLLECTION", name)
        return
    command = [sys.executable, "-m", "tests.stores.weaviate_double"]
    with subprocess.Popen(command, cwd=_ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as double:
        assert double.stdin is not None
        assert double.stdout is not None
        port, grpc_port = double.stdout.readline().split()
        yield f"weaviate://127.0.0.1:{port}/{name}?grpc={grpc_port}"
        double.stdin.close()  # which ends it


class Bare:
    def __init__(self, url: str) -> None:
        from weaviate.classes.config import Configure, DataType, Property, VectorDistances
        from weaviate.classes.data import DataObject
        from weaviate.classes.query import Filter, MetadataQuery

        from nearest.contract import StoreURL
        from nearest.stores import weaviate

        options, _ = weaviate._options(StoreURL.parse(url))
        self._client: Any = weaviate._client(options, url)
        self._client.connect()
        index = Configure.VectorIndex.hnsw(
            distance_metric=VectorDistances.COSINE,
            max_connections=16,
            ef_construction=128,
            ef=100,
            quantizer=Configure.VectorIndex.Quantizer.none(),
        )
        unindexed: Any = {"index_filterable": False, "index_searchable": False}
        self._collection: Any = self._client.collections.create(
            options.collection + "Bare",
            vector_config=[Configure.Vectors.self_provided(name="dense", vector_index_config=index)],
            properties=[
                Property(name="record", data_type=DataType.TEXT, **unindexed),
                Property(name="text", data_type=DataType.TEXT, **unindexed),
                Property(name="bucket", data_type=DataType.INT),
            ],
        )
        self._object: Any = DataObject
        self._filter: Any = Filter
        self._distance = MetadataQuery(distance=True)

    def load(self, ids: list[str], vectors: NDArray[Any], payloads: list[dict[str, Any]]) -> None:
        for start in range(0, len(ids), _BATCH):
            part = slice(start, start + _BATCH)
            rows = zip(ids[part], vectors[part].tolist(), payloads[part], strict=True)
            objects = [
                self._object(
                    properties={"record": record_id, **payload},
                    uuid=uuid.uuid5(uuid.NAMESPACE_URL, record_id),
                    vector={"dense": vector},
                )
                for record_id, vector, payload in rows
            ]
            done = self._collection.data.insert_many(objects)
            assert not done.has_errors

    def search(self, vector: NDArray[Any], k: int) -> list[tuple[str, float, dict[str, Any]]]:
        return self._search(vector, k, None)

    def search_filtered(self, vector: NDArray[Any], k: int, bucket: int) -> list[tuple[str, float, dict[str, Any]]]:
        return self._search(vector, k, self._filter.by_property("bucket").equal(bucket))

    def _search(self, vector: NDArray[Any], k: int, condition: Any) -> list[tuple[str, float, dict[str, Any]]]:
        got: Any = self._collection.query.near_vector(
            vector.tolist(),
            target_vector="dense",
            limit=k,
            filters=condition,
            return_metadata=self._distance,
            return_properties=["record", "text", "bucket"],
        )
        return [(one.properties.pop("record"), 1.0 - one.metadata.distance, one.properties) for one in got.objects]

    def close(self) -> None:
        self._client.collections.delete(self._collection.name)
        self._client.close()
