"""A local server that speaks Pinecone's REST API (2026-07), for the tests of the Pinecone store.

It stands for the serverless service as its documentation describes it, so that the official SDK runs
unchanged against it: indexes (create, list, describe, configure, delete), and on their vectors upsert,
query, fetch, fetch by metadata, list, update, delete, statistics and namespaces. It holds to the
documented limits and refuses what they forbid: ids of ASCII up to 512 characters, metadata of flat
strings, numbers (kept as float64), booleans and lists of strings up to 40 KB, filters of `$eq $ne $gt
$gte $lt $lte $in $nin $exists $and $or` alone, 1,000 records and 2 MB an upsert, top_k 10,000, 4 MB a
query's result, no zero vectors, 1,000 sparse values. An index of `_values` and `_sparse_values` scores the
sum of both inner products, and wants dotproduct and a dense vector in every record and query; only a query
may have zeros there, beside a sparse vector. An index of `_sparse_values` alone finds those that share an
index. Where the documentation leaves a choice it takes the stricter one: null in metadata is refused, `$ne`
and `$nin` do not match a missing field, and a sparse value is not zero.

It is eventually consistent in log sequence numbers: a write gets the next LSN of its namespace
(`x-pinecone-request-lsn`) and every read serves the state at the indexed LSN, which a query reports
(`x-pinecone-max-indexed-lsn`). The last `lag` writes stay unindexed until queries move the indexer on by
one each; nothing depends on time. `frozen` stops the indexer.

Left out: pods, collections, backups, imports, documents, integrated embedding, gRPC,
approximation (search is exact), rate limits and cost (`fail` makes errors to order).
"""

from __future__ import annotations

import base64
import binascii
import json
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self
from urllib.parse import parse_qs, unquote, urlsplit

import numpy as np

MAX_METADATA = 40_960
MAX_REQUEST = 2 * 2**20
MAX_RESULT = 4 * 2**20
MAX_SPARSE = 1000
METRICS = ("cosine", "dotproduct", "euclidean")

Metadata = dict[str, Any]
Test = Callable[[Metadata], bool]


class Refused(Exception):
    """An error answer. code: gRPC's, as the service reports it."""

    def __init__(self, status: int, message: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.headers = dict(headers or {})


# --- filters and metadata --------------------------------------------------------------------------


def compiled(condition: Any) -> Test:
    """A metadata filter as a function; Refused for what the language does not have."""
    if not isinstance(condition, dict) or not condition:
        raise Refused(400, "filter must be an object that is not empty")
    tests: list[Test] = []
    for key, value in condition.items():
        if key in ("$and", "$or"):
            if not isinstance(value, list) or not value:
                raise Refused(400, f"{key} must be a list that is not empty")
            tests.append(_joined(key, [compiled(part) for part in value]))
        elif key.startswith("$"):
            raise Refused(400, f"{key} is not a valid operator")
        elif isinstance(value, dict):
            if not value:
                raise Refused(400, f"the condition on {key!r} is empty")
            tests += [_operator(key, op, operand) for op, operand in value.items()]
        else:
            tests.append(_operator(key, "$eq", value))
    return _joined("$and", tests)


def _joined(how: str, tests: list[Test]) -> Test:
    if how == "$and":
        return lambda metadata: all(test(metadata) for test in tests)
    return lambda metadata: any(test(metadata) for test in tests)


def _operator(key: str, op: str, operand: Any) -> Test:
    number = isinstance(operand, int | float) and not isinstance(operand, bool)
    if op == "$exists":
        if not isinstance(operand, bool):
            raise Refused(400, "$exists takes a boolean")
        return lambda metadata: (key in metadata) is operand
    if op in ("$gt", "$gte", "$lt", "$lte"):
        if not number:
            raise Refused(400, f"{op} takes a number")
        return lambda metadata: type(metadata.get(key)) is float and _ordered(metadata[key], op, float(operand))
    if op in ("$eq", "$ne"):
        if not number and not isinstance(operand, str | bool):
            raise Refused(400, f"{op} takes a string, a number or a boolean")
        wanted = [operand]
    elif op in ("$in", "$nin"):
        if not isinstance(operand, list) or not 1 <= len(operand) <= 10_000:
            raise Refused(400, f"{op} takes a list of 1 to 10,000 values")
        if not all(isinstance(v, str | int | float) and not isinstance(v, bool) for v in operand):
            raise Refused(400, f"{op} takes strings and numbers")
        wanted = operand
    else:
        raise Refused(400, f"{op} is not a valid operator")
    known = {_typed(v) for v in wanted}
    negated = op in ("$ne", "$nin")

    def test(metadata: Metadata) -> bool:
        if key not in metadata:
            return False
        value = metadata[key]
        found = any(_typed(v) in known for v in (value if isinstance(value, list) else (value,)))
        return found is not negated

    return test


def _typed(value: Any) -> tuple[str, Any]:
    if isinstance(value, bool):
        return "boolean", value
    return ("string", value) if isinstance(value, str) else ("number", float(value))


def _ordered(a: float, op: str, b: float) -> bool:
    return a > b if op == "$gt" else a >= b if op == "$gte" else a < b if op == "$lt" else a <= b


def checked_metadata(metadata: Any) -> Metadata:
    """As it is kept: numbers are float64."""
    if not isinstance(metadata, dict):
        raise Refused(400, "metadata must be an object")
    size = len(json.dumps(metadata, ensure_ascii=False, separators=(",", ":")).encode())
    if size > MAX_METADATA:
        raise Refused(400, f"Metadata size is {size} bytes, which exceeds the limit of {MAX_METADATA} bytes per vector")
    kept: Metadata = {}
    for key, value in metadata.items():
        if key.startswith("$"):
            raise Refused(400, f"metadata keys must not start with $, got {key!r}")
        if isinstance(value, str | bool) or (isinstance(value, list) and all(isinstance(v, str) for v in value)):
            kept[key] = value
        elif isinstance(value, int | float):
            kept[key] = float(value)
        else:
            raise Refused(400, f"Metadata value must be a string, number, boolean or list of strings, for {key!r}")
    return kept


# --- indexes and namespaces ------------------------------------------------------------------------


@dataclass
class Stored:
    values: np.ndarray[Any, np.dtype[np.float32]]
    metadata: Metadata
    sparse: dict[int, float] = field(default_factory=dict)


Records = dict[str, Stored]


@dataclass
class Namespace:
    records: Records = field(default_factory=dict)  # the state at LSN `indexed`
    pending: list[Callable[[Records], None]] = field(default_factory=list)
    indexed: int = 0
    _matrix: tuple[Any, Any] | None = None

    @property
    def matrix(self) -> tuple[Any, Any]:
        """The vectors of `records`, float64 (n, d), and their lengths, (n,); kept until the next change."""
        if self._matrix is None:
            rows = np.array([stored.values for stored in self.records.values()], np.float64)
            self._matrix = rows, np.linalg.norm(rows, axis=1)
        return self._matrix

    @property
    def committed(self) -> int:
        return self.indexed + len(self.pending)

    def write(self, change: Callable[[Records], None], lag: int, frozen: bool) -> int:
        self.pending.append(change)
        while len(self.pending) > lag and not frozen:
            self.advance()
        return self.committed

    def advance(self) -> None:
        if self.pending:
            self.pending.pop(0)(self.records)
            self._matrix = None
            self.indexed += 1


@dataclass
class Index:
    name: str
    dimension: int  # 0 where it has no dense vectors
    metric: str
    sparse: bool
    described: dict[str, Any]
    namespaces: dict[str, Namespace] = field(default_factory=dict)


class PineconeDouble:
    """`with PineconeDouble() as double:` serves on a free port of 127.0.0.1; `double.url` is the control plane.

    key: the only API key it lets in. lag, frozen: see the module. counts: whether updates tell how many
    records they match (never where it is none). requests: (method, path) of all it was asked, in order.
    """

    def __init__(self, key: str = "a-key", lag: int = 0) -> None:
        self.key, self.lag, self.frozen, self.counts = key, lag, False, True
        self.indexes: dict[str, Index] = {}
        self.requests: list[tuple[str, str]] = []
        self._faults: list[tuple[str, int, Refused]] = []
        self._lock = threading.RLock()
        self._server = _Server(("127.0.0.1", 0), _handler(self))
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05})

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}"

    def fail(
        self, path: str, status: int, message: str = "to order", headers: Mapping[str, str] | None = None, skip: int = 0
    ) -> None:
        """All further requests whose path ends so are refused, but the first `skip` of them; `mend` ends it."""
        with self._lock:
            self._faults.append((path, skip, Refused(status, message, headers)))

    def mend(self) -> None:
        with self._lock:
            self._faults.clear()

    # --- answering ---

    def answer(
        self, method: str, target: str, headers: Mapping[str, str], body: bytes
    ) -> tuple[int, Any, dict[str, str]]:
        url = urlsplit(target)
        with self._lock:
            self.requests.append((method, url.path))
            try:
                self._fault(url.path)
                if headers.get("Api-Key") != self.key:
                    raise Refused(401, "Unauthorized")
                query = parse_qs(url.query, keep_blank_values=True)
                parts = [unquote(part) for part in url.path.strip("/").split("/")]
                if parts[0] == "data" and len(parts) > 2:
                    index = self.indexes.get(parts[1])
                    if index is None:
                        raise Refused(404, f"Index {parts[1]} not found")
                    if len(body) > MAX_REQUEST:
                        raise Refused(413, f"Request size {len(body)} exceeds the maximum of {MAX_REQUEST} bytes")
                    answer, more = self._data(index, method, parts[2:], query, json.loads(body or b"{}"))
                    return 200, answer, more
                return self._control(method, parts, json.loads(body or b"{}"))
            except Refused as refused:
                return refused.status, {"code": 3, "message": str(refused), "details": []}, refused.headers

    def _fault(self, path: str) -> None:
        for place, (ending, skip, refused) in enumerate(self._faults):
            if path.endswith(ending):
                if skip == 0:
                    raise refused
                self._faults[place] = (ending, skip - 1, refused)

    # --- control plane ---

    def _control(self, method: str, parts: list[str], body: Any) -> tuple[int, Any, dict[str, str]]:
        match method, parts:
            case "POST", ["indexes"]:
                return 201, self._create(body), {}
            case "GET", ["indexes"]:
                return 200, {"indexes": [index.described for index in self.indexes.values()]}, {}
        if len(parts) != 2 or parts[0] != "indexes":
            raise Refused(404, f"no such path: {'/'.join(parts)}")
        index = self.indexes.get(parts[1])
        if index is None:
            raise Refused(404, f"Resource {parts[1]} not found")
        match method:
            case "DELETE":
                if index.described["deletion_protection"] == "enabled":
                    raise Refused(403, "Deletion protection is enabled for this index; disable it first")
                del self.indexes[index.name]
                return 202, {}, {}
            case "PATCH":
                tags = {**(index.described["tags"] or {}), **body.get("tags", {})}
                index.described["tags"] = _checked_tags({k: v for k, v in tags.items() if v})
                protection = body.get("deletion_protection", index.described["deletion_protection"])
                index.described["deletion_protection"] = protection
        return 200, index.described, {}

    def _create(self, body: Any) -> dict[str, Any]:
        name, fields = body["name"], body["schema"]["fields"]
        if not 1 <= len(name) <= 45 or not all(c.isdigit() or "a" <= c <= "z" or c == "-" for c in name):
            raise Refused(400, "Name must consist of lower case alphanumeric characters or '-'")
        if name in self.indexes:
            raise Refused(409, f"Resource {name} already exists")
        if not fields or not set(fields) <= {"_values", "_sparse_values"}:
            raise Refused(400, "this double has indexes of vectors alone")
        dense, sparse = fields.get("_values"), "_sparse_values" in fields
        if dense and (not 1 <= dense["dimension"] <= 20_000 or dense["metric"] not in METRICS):
            raise Refused(400, f"dimension must be 1 to 20,000 and metric one of {', '.join(METRICS)}")
        kept = {"_values": {**dense, "type": "dense_vector"}} if dense else {}
        if sparse:
            kept["_sparse_values"] = {"type": "sparse_vector"}
        described = {
            "name": name,
            "host": f"{self.url}/data/{name}",
            "status": {"ready": True, "state": "Ready"},
            "schema": {"fields": kept},
            "deployment": {**body["deployment"], "deployment_type": "managed"},
            "deletion_protection": body.get("deletion_protection", "disabled"),
            "tags": _checked_tags(body.get("tags")),
        }
        self.indexes[name] = Index(
            name, dense["dimension"] if dense else 0, dense["metric"] if dense else "dotproduct", sparse, described
        )
        return described

    # --- data plane ---

    def _data(
        self, index: Index, method: str, parts: list[str], query: dict[str, list[str]], body: Any
    ) -> tuple[Any, dict[str, str]]:
        name = query.get("namespace", [""])[0] if method == "GET" else body.get("namespace", "")
        match method, parts:
            case "POST", ["vectors", "upsert"]:
                return self._upsert(index, name, body)
            case "POST", ["vectors", "update"]:
                return self._update(index, name, body)
            case "POST", ["vectors", "delete"]:
                return self._delete(index, name, body)
            case "POST", ["query"]:
                return self._query(index, name, body)
            case "GET", ["vectors", "fetch"]:
                ids = [_checked_id(i) for i in query.get("ids", [])]
                if not 1 <= len(ids) <= 1000:
                    raise Refused(400, f"1 to 1,000 ids are fetched at once, got {len(ids)}")
                records = _state(index, name)
                return {"namespace": name, "vectors": {i: _vector(i, records[i]) for i in ids if i in records}}, {}
            case "POST", ["vectors", "fetch_by_metadata"]:
                test, records = compiled(body.get("filter")), _state(index, name)
                matching = [i for i in sorted(records) if test(records[i].metadata)]
                page, more = _page(matching, body.get("limit", 100), 10_000, body.get("paginationToken"))
                return {"namespace": name, "vectors": {i: _vector(i, records[i]) for i in page}, **more}, {}
            case "GET", ["vectors", "list"]:
                prefix, token = query.get("prefix", [""])[0], query.get("paginationToken", [None])[0]
                matching = [i for i in sorted(_state(index, name)) if i.startswith(prefix)]
                page, more = _page(matching, int(query.get("limit", ["100"])[0]), 100, token)
                return {"namespace": name, "vectors": [{"id": i} for i in page], **more}, {}
            case "POST", ["describe_index_stats"]:
                if body.get("filter"):
                    raise Refused(400, "Serverless indexes do not support describing index stats with a filter")
                counts = {n: {"vectorCount": len(space.records)} for n, space in index.namespaces.items()}
                total = sum(count["vectorCount"] for count in counts.values())
                facts = {"dimension": index.dimension, "metric": index.metric, "vectorType": "dense"}
                return {"namespaces": counts, "indexFullness": 0.0, "totalVectorCount": total, **facts}, {}
            case "GET", ["namespaces"]:
                page, more = _page(
                    sorted(index.namespaces),
                    int(query.get("limit", ["100"])[0]),
                    100,
                    query.get("paginationToken", [None])[0],
                )
                return {
                    "namespaces": [_described(index, n) for n in page],
                    "total_count": len(index.namespaces),
                    **more,
                }, {}
            case "GET", ["namespaces", wanted]:
                _known(index, wanted)
                return _described(index, wanted), {}
            case "DELETE", ["namespaces", wanted]:
                _known(index, wanted)
                del index.namespaces[wanted]
                return {}, {}
        raise Refused(404, f"no such path: {method} {'/'.join(parts)}")

    def _write(self, space: Namespace, change: Callable[[Records], None]) -> dict[str, str]:
        return {"x-pinecone-request-lsn": str(space.write(change, self.lag, self.frozen))}

    def _upsert(self, index: Index, name: str, body: Any) -> tuple[Any, dict[str, str]]:
        if not 1 <= len(body["vectors"]) <= 1000:
            raise Refused(400, f"1 to 1,000 records are upserted at once, got {len(body['vectors'])}")
        written = {}
        for given in body["vectors"]:
            metadata, sparse = checked_metadata(given.get("metadata") or {}), _checked_sparse(index, given, "Values")
            if not index.dimension and not sparse:
                raise Refused(400, "records of a sparse index must have sparse values")
            written[_checked_id(given["id"])] = Stored(_checked_values(index, given.get("values")), metadata, sparse)
        space = index.namespaces.setdefault(name, Namespace())
        headers = self._write(space, lambda records: records.update(written))
        return {"upsertedCount": len(written)}, headers

    def _update(self, index: Index, name: str, body: Any) -> tuple[Any, dict[str, str]]:
        space, changed = _known(index, name), checked_metadata(body.get("setMetadata") or {})
        if "filter" in body:
            test = compiled(body["filter"])
            matched = sum(1 for stored in space.records.values() if test(stored.metadata))
            if body.get("dryRun"):
                return ({"matchedRecords": matched} if matched and self.counts else {}), {}
            chosen: Callable[[str, Stored], bool] = lambda _, stored: test(stored.metadata)  # noqa: E731
            answer = {"matchedRecords": matched}
        else:
            wanted = _checked_id(body["id"])
            chosen, answer = (lambda record_id, _: record_id == wanted), {}
        values = _checked_values(index, body["values"]) if "values" in body else None

        def change(records: Records) -> None:
            for record_id, stored in list(records.items()):
                if chosen(record_id, stored):
                    now = stored.values if values is None else values
                    records[record_id] = Stored(now, {**stored.metadata, **changed}, stored.sparse)

        return answer, self._write(space, change)

    def _delete(self, index: Index, name: str, body: Any) -> tuple[Any, dict[str, str]]:
        space = _known(index, name)
        if body.get("deleteAll"):
            return {}, self._write(space, lambda records: records.clear())
        if "filter" in body:
            test = compiled(body["filter"])

            def change(records: Records) -> None:
                for record_id in [i for i, stored in records.items() if test(stored.metadata)]:
                    del records[record_id]

            return {}, self._write(space, change)
        ids = [_checked_id(i) for i in body.get("ids", [])]
        if not 1 <= len(ids) <= 1000:
            raise Refused(400, f"1 to 1,000 ids are deleted at once, got {len(ids)}")

        def remove(records: Records) -> None:
            for record_id in ids:
                records.pop(record_id, None)

        return {}, self._write(space, remove)

    def _query(self, index: Index, name: str, body: Any) -> tuple[Any, dict[str, str]]:
        top = body["topK"]
        if not isinstance(top, int) or not 1 <= top <= 10_000:
            raise Refused(400, f"topK must be 1 to 10,000, got {top}")
        test = compiled(body["filter"]) if "filter" in body else None
        words = _checked_sparse(index, body, "Vector")
        if not index.dimension and not words:
            raise Refused(400, "queries of a sparse index must have a sparse vector")
        if words and index.dimension and index.metric != "dotproduct":
            raise Refused(400, "Index configuration does not support sparse values")
        wanted = _checked_values(index, body.get("vector"), "query", bool(words)).astype(np.float64)
        space = index.namespaces.get(name, Namespace())
        found = list(space.records.items())
        chosen = [place for place, (_, stored) in enumerate(found) if test is None or test(stored.metadata)]
        if not index.dimension:
            chosen = [place for place in chosen if found[place][1].sparse.keys() & words.keys()]
        scores = np.empty(0)
        if chosen:
            rows, lengths = space.matrix
            if len(chosen) < len(found):
                rows, lengths = rows[chosen], lengths[chosen]
            scores = _scores(index.metric, rows, lengths, wanted)
            if words:
                sparse = (found[place][1].sparse for place in chosen)
                scores = scores + [sum(v * words.get(i, 0.0) for i, v in each.items()) for each in sparse]
        best = np.argsort(scores if index.metric == "euclidean" else -scores, kind="stable")[:top]
        shown = body.get("includeValues", False), body.get("includeMetadata", False)
        matches = []
        for place in best.tolist():
            record_id, stored = found[chosen[place]]
            matches.append({**_vector(record_id, stored, *shown), "score": float(scores[place])})
        answer = {"matches": matches, "namespace": name, "usage": {"readUnits": 1}}
        size = len(json.dumps(answer, ensure_ascii=False, separators=(",", ":")).encode())
        if size > MAX_RESULT:
            raise Refused(400, f"the result has {size} bytes; choose a lower top_k or leave out metadata or values")
        headers = {"x-pinecone-max-indexed-lsn": str(space.indexed)}
        if not self.frozen:
            space.advance()
        return answer, headers


def _scores(metric: str, rows: Any, lengths: Any, wanted: Any) -> Any:
    if metric == "euclidean":  # the service reports the squared distance
        return ((rows - wanted) ** 2).sum(axis=1)
    products = rows @ wanted
    return products / (lengths * np.linalg.norm(wanted)) if metric == "cosine" else products


def _state(index: Index, name: str) -> Records:
    return index.namespaces.get(name, Namespace()).records


def _known(index: Index, name: str) -> Namespace:
    if name not in index.namespaces:
        raise Refused(404, "Namespace not found")
    return index.namespaces[name]


def _described(index: Index, name: str) -> dict[str, Any]:
    records = index.namespaces[name].records
    size = sum(stored.values.nbytes + len(json.dumps(stored.metadata)) for stored in records.values())
    return {"name": name, "record_count": str(len(records)), "size_bytes": size}


def _vector(record_id: str, stored: Stored, values: bool = True, metadata: bool = True) -> dict[str, Any]:
    shown: dict[str, Any] = {"id": record_id, "values": stored.values.tolist() if values else []}
    if values and stored.sparse:
        shown["sparseValues"] = {"indices": list(stored.sparse), "values": list(stored.sparse.values())}
    if metadata and stored.metadata:
        shown["metadata"] = stored.metadata
    return shown


def _page(ids: list[str], limit: int, most: int, token: str | None) -> tuple[list[str], dict[str, Any]]:
    """Ids after the token's, which names the last one given, and the token of the next page if there is one."""
    if not 1 <= limit <= most:
        raise Refused(400, f"limit must be 1 to {most}, got {limit}")
    if token is not None:
        try:
            past = base64.b64decode(token, validate=True).decode()
        except (binascii.Error, UnicodeDecodeError):
            raise Refused(400, "Invalid pagination token") from None
        ids = [i for i in ids if i > past]
    page = ids[:limit]
    more = {"pagination": {"next": base64.b64encode(page[-1].encode()).decode()}} if len(ids) > limit else {}
    return page, more


def _checked_id(record_id: Any) -> str:
    if not isinstance(record_id, str) or not 1 <= len(record_id) <= 512:
        raise Refused(400, "ids have 1 to 512 characters")
    if not record_id.isascii() or "\0" in record_id:
        raise Refused(400, f"Vector ID must be ASCII, but got {record_id!r}")
    return record_id


def _checked_values(
    index: Index, values: Any, what: str = "vector", zeros: bool = False
) -> np.ndarray[Any, np.dtype[np.float32]]:
    array = np.asarray(values or [], np.float32)
    if array.shape != (index.dimension,):
        raise Refused(400, f"{what} dimension {len(array)} does not match the dimension of the index {index.dimension}")
    if index.dimension and not zeros and not array.any():
        raise Refused(400, "Dense vectors must contain at least one non-zero value")
    return array


def _checked_sparse(index: Index, given: Any, what: str) -> dict[int, float]:
    sparse = given.get(f"sparse{what}")
    if not sparse:
        return {}
    if not index.sparse:
        raise Refused(400, "Index configuration does not support sparse values")
    indices, values = sparse["indices"], sparse["values"]
    if not 1 <= len(indices) <= MAX_SPARSE or len(indices) != len(values):
        raise Refused(400, f"Sparse vectors have 1 to {MAX_SPARSE} values, as many as indices")
    if len(set(indices)) != len(indices) or not all(isinstance(i, int) and 0 <= i < 2**32 for i in indices):
        raise Refused(400, "Sparse indices are distinct and of 32 bits")
    if not all(values):
        raise Refused(400, "Sparse values must not be zero")
    return dict(zip(indices, np.asarray(values, np.float32).tolist(), strict=True))


def _checked_tags(tags: Any) -> dict[str, str] | None:
    if not tags:
        return None
    if len(tags) > 20 or any(len(k) > 80 or len(v) > 120 for k, v in tags.items()):
        raise Refused(400, "an index has up to 20 tags, of 80 and 120 characters")
    return dict(tags)


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64  # connections that wait to be taken; with the default of 5 a burst is slow


def _handler(double: PineconeDouble) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True
        wbufsize = -1

        def _serve(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            status, answer, headers = double.answer(self.command, self.path, self.headers, body)  # type: ignore[arg-type]
            # Indexes have their host where the client found this server: behind a proxy, the proxy's.
            text = json.dumps(answer, ensure_ascii=False).replace(double.url, f"http://{self.headers['Host']}")
            data = text.encode()
            self.send_response(status)
            for name, value in {
                "Content-Type": "application/json",
                "Content-Length": str(len(data)),
                **headers,
            }.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(data)

        do_GET = do_POST = do_DELETE = do_PATCH = _serve

        def log_message(self, format: str, *args: Any) -> None:
            return

    return Handler
