"""Qdrant's REST and gRPC interfaces in this process: what the store calls, answered by the client's own local mode.

What goes over the wire is the real client's; the engine behind is qdrant-client's model of the server, exact and
without indexes. It can refuse as servers do: a wrong key, a large request, or whatever status a test asks for.
"""

from __future__ import annotations

import json
import re
import ssl
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import lru_cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import grpc  # type: ignore[import-untyped]
from pydantic_core import to_json
from qdrant_client import QdrantClient, models
from qdrant_client import grpc as messages
from qdrant_client.conversions.conversion import GrpcToRest, RestToGrpc
from qdrant_client.local import datetime_utils, json_path_parser, payload_value_extractor

# Local mode parses every path and date again for every record, which takes most of the suite's time.
datetime_utils.parse = lru_cache(2**12)(datetime_utils.parse)
payload_value_extractor.parse_json_path = lru_cache(2**12)(json_path_parser.parse_json_path)  # type: ignore[attr-defined]


@dataclass
class Double:
    """port: where it listens. key: the API key it wants. largest: bytes it takes. asked: method and path of requests.

    answer: called with method and path before anything else; what it returns, (status, headers, body), is sent.
    """

    engine: QdrantClient = field(default_factory=lambda: QdrantClient(":memory:"))
    port: int = 0
    version: str = "1.20.0"
    key: str | None = None
    largest: int = 32 * 2**20
    answer: Callable[[str, str], tuple[int, dict[str, str], str] | None] = lambda method, path: None
    asked: list[tuple[str, str]] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)  # local mode is for one thread


@contextmanager
def serving(double: Double, tls: ssl.SSLContext | None = None) -> Iterator[Double]:
    class Handler(_Handler):
        state = double

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    if tls is not None:
        server.socket = tls.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    double.port = server.server_address[1]
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield double
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Handler(BaseHTTPRequestHandler):
    state: Double

    def log_message(self, *_: object) -> None:
        """Nothing to the terminal."""

    def _answer(self) -> None:
        double, path = self.state, self.path.partition("?")[0]
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        double.asked.append((self.command, path))
        if (told := double.answer(self.command, path)) is not None:
            self._send(*told)
        elif double.key is not None and self.headers.get("api-key") != double.key:
            self._send(401, {}, "Must provide an API key or an Authorization bearer token")
        elif len(body) > double.largest:
            self._refuse(
                400, f"JSON payload ({len(body)} bytes) is larger than allowed (limit: {double.largest} bytes)."
            )
        else:
            self._serve(path, json.loads(body) if body else {})

    do_GET = do_PUT = do_POST = do_PATCH = do_DELETE = _answer

    def _serve(self, path: str, body: dict[str, Any]) -> None:
        double = self.state
        try:
            with double.lock:
                result = _call(double, self.command, path, body)
        except ValueError as error:
            self._refuse(404 if "not found" in str(error) else 400, str(error))
            return
        told = result if path == "/" else {"result": result, "status": "ok", "time": 0.0}
        self._send(200, {"Content-Type": "application/json"}, to_json(told).decode())

    def _refuse(self, status: int, message: str) -> None:
        self._send(status, {}, json.dumps({"result": None, "status": {"error": message}, "time": 0.0}))

    def _send(self, status: int, headers: dict[str, str], text: str) -> None:
        data = text.encode()
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(data))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data)


_DONE = {"operation_id": 0, "status": "completed"}


def _call(double: Double, method: str, path: str, body: dict[str, Any]) -> Any:
    engine = double.engine
    if path == "/":
        return {"title": "a double of Qdrant", "version": double.version}
    found = re.fullmatch(r"/collections/([^/]+)(/.*)?", path)
    if found is None:
        raise ValueError(f"{path} not found")
    name, rest = found[1], found[2] or ""
    match method, rest:
        case "GET", "/exists":
            return {"exists": engine.collection_exists(name)}
        case "GET", "":
            return engine.get_collection(name)
        case "DELETE", "":
            return engine.delete_collection(name)
        case "PUT", "":
            create = models.CreateCollection(**body)
            return engine.create_collection(
                name, create.vectors, sparse_vectors_config=create.sparse_vectors, metadata=create.metadata
            )
        case "PATCH", "":
            return engine.update_collection(name, metadata=models.UpdateCollection(**body).metadata)
        case "PUT", "/index":
            models.CreateFieldIndex(**body)
            return _DONE
        case "PUT", "/points":
            points = models.PointsBatch(**body).batch if "batch" in body else models.PointsList(**body).points
            engine.upsert(name, points)
            return _DONE
        case "POST", "/points":
            get = models.PointRequest(**body)
            shown: dict[str, Any] = {
                "with_payload": get.with_payload or False,
                "with_vectors": get.with_vector or False,
            }
            return engine.retrieve(name, get.ids, **shown)
        case "POST", "/points/delete":
            selector = models.PointIdsList(**body) if "points" in body else models.FilterSelector(**body)
            engine.delete(name, selector)
            return _DONE
        case "POST", "/points/count":
            return {"count": engine.count(name, models.CountRequest(**body).filter).count}
        case "POST", "/points/scroll":
            scroll = models.ScrollRequest(**body)
            records, following = engine.scroll(
                name, scroll_filter=scroll.filter, limit=scroll.limit or 10, offset=scroll.offset,
                with_payload=scroll.with_payload or False, with_vectors=scroll.with_vector or False,
            )  # fmt: skip
            return {"points": records, "next_page_offset": following}
        case "POST", "/points/query":  # of the bare client, in benchmarks
            return engine.query_batch_points(name, [models.QueryRequest(**body)])[0]
        case "POST", "/points/query/batch":
            return engine.query_batch_points(name, models.QueryRequestBatch(**body).searches)
    raise ValueError(f"{method} {path} not found")


# --- gRPC ------------------------------------------------------------------------------------------


@contextmanager
def serving_grpc(double: Double) -> Iterator[Double]:
    server = grpc.server(ThreadPoolExecutor(1))  # one thread, as local mode wants
    messages.add_QdrantServicer_to_server(_Root(double), server)  # type: ignore[no-untyped-call]
    messages.add_CollectionsServicer_to_server(_Collections(double), server)  # type: ignore[no-untyped-call]
    messages.add_PointsServicer_to_server(_Points(double), server)  # type: ignore[no-untyped-call]
    double.port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield double
    finally:
        server.stop(None).wait()


class _Service:
    def __init__(self, double: Double) -> None:
        self.double = double
        self.engine = double.engine


class _Root(_Service, messages.QdrantServicer):
    def HealthCheck(self, request: Any, context: Any) -> Any:
        return messages.HealthCheckReply(title="a double of Qdrant", version=self.double.version)


class _Collections(_Service, messages.CollectionsServicer):
    def CollectionExists(self, request: Any, context: Any) -> Any:
        exists = self.engine.collection_exists(request.collection_name)
        return messages.CollectionExistsResponse(result=messages.CollectionExists(exists=exists))

    def Get(self, request: Any, context: Any) -> Any:
        info = self.engine.get_collection(request.collection_name)
        return messages.GetCollectionInfoResponse(result=RestToGrpc.convert_collection_info(info))

    def Create(self, request: Any, context: Any) -> Any:
        self.engine.create_collection(
            request.collection_name,
            GrpcToRest.convert_vectors_config(request.vectors_config),
            sparse_vectors_config=GrpcToRest.convert_sparse_vector_config(request.sparse_vectors_config),
            metadata=GrpcToRest.convert_payload(request.metadata),
        )
        return messages.CollectionOperationResponse(result=True)

    def Update(self, request: Any, context: Any) -> Any:
        self.engine.update_collection(request.collection_name, metadata=GrpcToRest.convert_payload(request.metadata))
        return messages.CollectionOperationResponse(result=True)

    def Delete(self, request: Any, context: Any) -> Any:
        self.engine.delete_collection(request.collection_name)
        return messages.CollectionOperationResponse(result=True)


_COMPLETED = messages.PointsOperationResponse(result=messages.UpdateResult(status=messages.UpdateStatus.Completed))


class _Points(_Service, messages.PointsServicer):
    def CreateFieldIndex(self, request: Any, context: Any) -> Any:
        return _COMPLETED

    def Upsert(self, request: Any, context: Any) -> Any:
        self.engine.upsert(request.collection_name, [GrpcToRest.convert_point_struct(p) for p in request.points])
        return _COMPLETED

    def Delete(self, request: Any, context: Any) -> Any:
        self.engine.delete(request.collection_name, GrpcToRest.convert_points_selector(request.points))
        return _COMPLETED

    def Get(self, request: Any, context: Any) -> Any:
        found = self.engine.retrieve(
            request.collection_name,
            [GrpcToRest.convert_point_id(i) for i in request.ids],
            with_payload=GrpcToRest.convert_with_payload_interface(request.with_payload),
            with_vectors=GrpcToRest.convert_with_vectors_selector(request.with_vectors),
        )
        return messages.GetResponse(result=map(RestToGrpc.convert_retrieved_point, found))

    def Count(self, request: Any, context: Any) -> Any:
        where = GrpcToRest.convert_filter(request.filter) if request.HasField("filter") else None
        count = self.engine.count(request.collection_name, where).count
        return messages.CountResponse(result=messages.CountResult(count=count))

    def Scroll(self, request: Any, context: Any) -> Any:
        records, following = self.engine.scroll(
            request.collection_name,
            scroll_filter=GrpcToRest.convert_filter(request.filter) if request.HasField("filter") else None,
            limit=request.limit,
            offset=GrpcToRest.convert_point_id(request.offset) if request.HasField("offset") else None,
            with_payload=GrpcToRest.convert_with_payload_interface(request.with_payload),
            with_vectors=GrpcToRest.convert_with_vectors_selector(request.with_vectors),
        )
        after = {} if following is None else {"next_page_offset": RestToGrpc.convert_extended_point_id(following)}
        return messages.ScrollResponse(result=map(RestToGrpc.convert_retrieved_point, records), **after)

    def QueryBatch(self, request: Any, context: Any) -> Any:
        asked = [GrpcToRest.convert_query_points(one) for one in request.query_points]
        answers = self.engine.query_batch_points(request.collection_name, asked)
        scored = [map(RestToGrpc.convert_scored_point, answer.points) for answer in answers]
        return messages.QueryBatchResponse(result=[messages.BatchResult(result=points) for points in scored])


if __name__ == "__main__":  # for benchmarks: tells the port, and serves until its input ends
    with serving(Double()) as shown:
        print(shown.port, flush=True)
        sys.stdin.read()
