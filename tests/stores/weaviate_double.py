"""A local server that speaks Weaviate's REST and gRPC, for the tests of the Weaviate store.

It stands for one node of Weaviate 1.39 as its source and documentation describe it, so that the official client runs
unchanged against it. Over REST: meta, readiness, collections (create, read, list, delete), tenants, shards and nodes.
Over gRPC, by the messages that the client ships: Search, BatchObjects, BatchDelete, Aggregate (counts), TenantsGet.

What it takes care to do as Weaviate does:
- Conditions are read from an inverted index of terms, by property: text is cut by its property's tokenization, `Like`
  is an expression over a term's bytes that does not reach across lines, an order comparison runs over sorted terms, an
  array matches by any element, numbers are float64, dates count in nanoseconds since 1970 and so wrap beyond 2262.
  `Not` and `NotEqual` invert within all numbers ever given to objects, so that a count of them alone counts ghosts,
  and a range alone is cut at the limit before it is sorted. `IsNull` and lengths need their index; values of another
  type, and conditions on what has no index, are refused.
- A batch fails object by object; a vector of another length than the first is such a failure.
- A cursor takes no condition, no query finds beyond 10,000, no batch deletes more.
- BM25 is idf * tf / (tf + k1 * (1 - b + b * length / mean)); hybrid search takes the best 100 of each part, or its
  limit if that is more, and fuses by relative scores or by ranks from 0 and the constant 60, in float32.
- With `asynchronous`, vectors wait in a queue that every look at the shards' state shortens.
- Names of collections begin with a capital letter; what is unknown or malformed is refused.

Left out: approximation (a search compares with all vectors) and quantization, several nodes, shards or replicas,
vectorizers and generative modules, references, nested objects, geographic and phone properties, multi-vectors,
combined targets, groups, thresholds of distance, autocut, users and roles, backups, aliases, changes of a collection,
GraphQL, objects over REST, BatchStream, tenants that are not active, and that a collection grows by unknown properties.
"""

from __future__ import annotations

import bisect
import contextlib
import copy
import json
import math
import re
import struct
import sys
import threading
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import grpc  # type: ignore[import-untyped]
import numpy as np
from weaviate.proto.v1 import (
    aggregate_pb2,
    base_pb2,
    base_search_pb2,
    batch_delete_pb2,
    batch_pb2,
    health_weaviate_pb2,
    search_get_pb2,
    tenants_pb2,
    weaviate_pb2_grpc,
)

VERSION = "1.39.0"
MAX_RESULTS = 10_000
HYBRID_RESULTS = 100
DEFAULT_LIMIT = 10

Op = base_pb2.Filters.Operator
Ids = set[int]


class Refused(Exception):
    """An error answer. status: of REST; gRPC tells UNKNOWN, as Weaviate does for most."""

    def __init__(self, message: str, status: int = 422) -> None:
        super().__init__(message)
        self.status = status


# --- collections -----------------------------------------------------------------------------------

_NUMERIC = {"int", "number", "date"}
_TYPES = {"text", "boolean", "uuid", *_NUMERIC}
_TOKENIZATIONS = {"word", "whitespace", "lowercase", "field"}
_HNSW = {
    "skip": False, "cleanupIntervalSeconds": 300, "maxConnections": 32, "efConstruction": 128, "ef": -1,
    "dynamicEfMin": 100, "dynamicEfMax": 500, "dynamicEfFactor": 8, "vectorCacheMaxObjects": 10**12,
    "flatSearchCutoff": 40_000, "distance": "cosine", "filterStrategy": "acorn",
    "pq": {"enabled": False, "bitCompression": False, "segments": 0, "centroids": 256, "trainingLimit": 100_000,
           "encoder": {"type": "kmeans", "distribution": "log-normal"}},
    "bq": {"enabled": False}, "sq": {"enabled": False, "trainingLimit": 100_000, "rescoreLimit": 20},
    "rq": {"enabled": False, "bits": 8, "rescoreLimit": 20},
    "multivector": {"enabled": False, "muvera": {"enabled": False}, "aggregation": "maxSim"},
}  # fmt: skip
_FLAT = {
    "distance": "cosine", "vectorCacheMaxObjects": 10**12, "pq": {"enabled": False}, "sq": {"enabled": False},
    "bq": {"enabled": False, "rescoreLimit": -1, "cache": False},
    "rq": {"enabled": False, "bits": 8, "rescoreLimit": 20, "cache": False},
}  # fmt: skip
_DEFAULTS: dict[str, Any] = {
    "invertedIndexConfig": {
        "bm25": {"b": 0.75, "k1": 1.2}, "cleanupIntervalSeconds": 60, "usingBlockMaxWAND": True,
        "stopwords": {"preset": "en", "additions": None, "removals": None},
    },
    "multiTenancyConfig": {"enabled": False, "autoTenantCreation": False, "autoTenantActivation": False},
    "replicationConfig": {"factor": 1, "asyncEnabled": False, "deletionStrategy": "TimeBasedResolution"},
    "shardingConfig": {
        "virtualPerPhysical": 128, "desiredCount": 1, "actualCount": 1, "desiredVirtualCount": 128,
        "actualVirtualCount": 128, "key": "_id", "strategy": "hash", "function": "murmur3",
    },
}  # fmt: skip


def _merged(default: dict[str, Any], given: dict[str, Any]) -> dict[str, Any]:
    result = copy.deepcopy(default)
    for key, value in given.items():
        known = result.get(key)
        result[key] = _merged(known, value) if isinstance(known, dict) and isinstance(value, dict) else value
    return result


def _completed(given: dict[str, Any]) -> dict[str, Any]:
    """A collection's configuration with its defaults; Refused where Weaviate refuses it."""
    name = str(given.get("class", ""))
    name = name[:1].upper() + name[1:]
    if not re.fullmatch(r"[A-Z][_0-9A-Za-z]{0,254}", name):
        raise Refused(f"'{name}' is not a valid class name")
    config = {**_merged(_DEFAULTS, given), "class": name}
    config["properties"] = [_property(one) for one in given.get("properties", ())]
    names = [one["name"].lower() for one in config["properties"]]
    if len(set(names)) < len(names):
        raise Refused(f"class {name!r}: conflict for property: already in use or provided multiple times")
    if "vectorConfig" in given:
        for vector, one in config["vectorConfig"].items():
            if not re.fullmatch(r"[_A-Za-z][_0-9A-Za-z]{0,229}", vector):
                raise Refused(f"'{vector}' is not a valid target vector name")
            _complete_index(one)
    else:
        config.setdefault("vectorizer", "none")
        _complete_index(config)
    return config


def _property(given: dict[str, Any]) -> dict[str, Any]:
    name, kind = given["name"], given["dataType"][0]
    base = kind.removesuffix("[]")
    if not re.fullmatch(r"[_A-Za-z][_0-9A-Za-z]{0,230}", name) or name in ("id", "_id", "_additional"):
        raise Refused(f"'{name}' is not a valid property name")
    if base not in _TYPES:
        raise Refused(f"property '{name}': invalid dataType: {kind}")
    text = base == "text"
    made = {"indexFilterable": True, "indexSearchable": text, "indexRangeFilters": False, **given}
    if text:
        made.setdefault("tokenization", "word")
        if made["tokenization"] not in _TOKENIZATIONS:
            raise Refused(f"tokenization '{made['tokenization']}' is not allowed for data type '{kind}'")
    elif made.get("tokenization") or made["indexSearchable"]:
        raise Refused(f"`tokenization` and `indexSearchable` are not allowed for data type '{kind}'")
    if made["indexRangeFilters"] and kind not in _NUMERIC:
        raise Refused(f"`indexRangeFilters` is not allowed for data type '{kind}'")
    return made


def _complete_index(one: dict[str, Any]) -> None:
    kind = one.setdefault("vectorIndexType", "hnsw")
    if kind not in ("hnsw", "flat"):
        raise Refused(f"vector index {kind!r} is not in this double")
    default = _HNSW if kind == "hnsw" else _FLAT
    given = one.get("vectorIndexConfig") or {}
    config = one["vectorIndexConfig"] = _merged(default, given)
    for quantizer in ("pq", "bq", "sq", "rq"):  # one that is given without more is meant
        if quantizer in given:
            config[quantizer]["enabled"] = given[quantizer].get("enabled", True)
    if sum(config[quantizer]["enabled"] for quantizer in ("pq", "bq", "sq", "rq")) > 1:
        raise Refused("invalid hnsw config: more than a single compression methods enabled")
    if config["distance"] not in ("cosine", "dot", "l2-squared"):
        raise Refused(f"distance {config['distance']!r} is not in this double")
    if kind == "hnsw" and (config["maxConnections"] < 4 or config["efConstruction"] < 4):
        raise Refused("invalid hnsw config: maxConnections and efConstruction must be integers of 4 or more")


@dataclass
class _Object:
    uuid: str
    number: int
    properties: dict[str, Any]
    vectors: dict[str, Any]


class _Collection:
    def __init__(self, config: dict[str, Any]) -> None:
        self.config = config
        self.properties = {one["name"]: one for one in config["properties"]}
        named = config.get("vectorConfig") or {"": config}
        self.distances = {name: one["vectorIndexConfig"]["distance"] for name, one in named.items()}
        self.dims: dict[str, int] = {}
        self.tenants: set[str] = set()
        self.shards: dict[str, _Shard] = {}
        if not self.many:
            self.shards[""] = _Shard(self)

    @property
    def many(self) -> bool:
        return bool(self.config["multiTenancyConfig"]["enabled"])

    def shard(self, tenant: str) -> _Shard:
        name = self.config["class"]
        if self.many and not tenant:
            raise Refused(f"class {name} has multi-tenancy enabled, but request was without tenant")
        if not self.many and tenant:
            raise Refused(f"class {name} has multi-tenancy disabled, but request was with tenant")
        if tenant not in self.shards:
            raise Refused(f'tenant not found: "{tenant}"')
        return self.shards[tenant]


# --- one shard: objects, inverted index, vectors ---------------------------------------------------


class _Terms:
    """An inverted index: from a term's bytes to the numbers of the objects that have it."""

    def __init__(self) -> None:
        self.rows: dict[bytes, Ids] = {}
        self._sorted: list[bytes] | None = None

    def add(self, term: bytes, number: int) -> None:
        if term not in self.rows:
            self.rows[term] = set()
            self._sorted = None
        self.rows[term].add(number)

    def remove(self, term: bytes, number: int) -> None:
        self.rows.get(term, set()).discard(number)

    def read(self, terms: Iterator[bytes], limit: int) -> Ids:
        found: Ids = set()
        for term in terms:
            found |= self.rows[term]
            if limit and len(found) >= limit:
                break
        return found

    @property
    def sorted(self) -> list[bytes]:
        if self._sorted is None:
            self._sorted = sorted(self.rows)
        return self._sorted

    def beyond(self, op: Any, term: bytes) -> Iterator[bytes]:
        terms = self.sorted
        left, right = bisect.bisect_left(terms, term), bisect.bisect_right(terms, term)
        part = {
            Op.OPERATOR_GREATER_THAN: slice(right, None), Op.OPERATOR_GREATER_THAN_EQUAL: slice(left, None),
            Op.OPERATOR_LESS_THAN: slice(0, left), Op.OPERATOR_LESS_THAN_EQUAL: slice(0, right),
        }[op]  # fmt: skip
        yield from terms[part]

    def like(self, pattern: bytes) -> Iterator[bytes]:
        quoted = re.escape(pattern).replace(rb"\?", b".").replace(rb"\*", b".*")
        expression = re.compile(b"^(?:" + quoted + rb")\Z")
        fixed = re.split(rb"[*?]", pattern, maxsplit=1)[0]
        terms = self.sorted
        for place in range(bisect.bisect_left(terms, fixed), len(terms)):
            if not terms[place].startswith(fixed):
                return
            if expression.match(terms[place]):
                yield terms[place]


def _cut(text: str, tokenization: str) -> list[str]:
    if tokenization == "field":
        return [text.strip()]
    if tokenization == "whitespace":
        return text.split()
    if tokenization == "lowercase":
        return text.lower().split()
    return "".join(c if c.isalnum() else " " for c in text.lower()).split()


def _encoded(kind: str, value: Any) -> bytes:
    """A term's bytes, which sort as the values do."""
    if kind == "boolean":
        return b"\1" if value else b"\0"
    if kind == "uuid":
        return uuid.UUID(value).bytes
    if kind == "number":
        bits = int(struct.unpack(">Q", struct.pack(">d", float(value)))[0])
        return (bits ^ (2**64 - 1) if bits >> 63 else bits | 1 << 63).to_bytes(8, "big")
    if kind == "date":
        value = _nanoseconds(value)
    return (int(value) + 2**63).to_bytes(8, "big")


def _nanoseconds(text: str) -> int:
    # Python's parser takes the six digits after the point that matter here.
    moment = datetime.fromisoformat(text.replace("Z", "+00:00"))
    if moment.tzinfo is None:
        raise Refused(f"invalid date property: requires a string with a RFC3339 formatted date, got {text!r}")
    gap = moment - datetime(1970, 1, 1, tzinfo=UTC)
    total = (gap.days * 86_400 + gap.seconds) * 10**9 + gap.microseconds * 1000
    return (total + 2**63) % 2**64 - 2**63


class _Shard:
    def __init__(self, collection: _Collection) -> None:
        self.collection = collection
        self.objects: dict[str, _Object] = {}
        self.numbers: dict[int, _Object] = {}
        self.next = 0
        self.queue: list[int] = []
        self.waiting: Ids = set()
        self._terms: dict[tuple[str, str], _Terms] = {}  # (property, kind of index)
        self._lengths: dict[str, dict[int, int]] = {}
        self._counts: dict[str, dict[int, Counter[str]]] = {}
        self._matrices: dict[str, tuple[list[int], Any]] = {}

    # Writing.

    def put(self, object_id: str, properties: dict[str, Any], vectors: dict[str, Any], asynchronous: bool) -> None:
        self._check(properties, vectors)
        if object_id in self.objects:
            self.remove(object_id)
        number, self.next = self.next, self.next + 1
        made = _Object(object_id, number, properties, vectors)
        self.objects[object_id] = self.numbers[number] = made
        for name, vector in vectors.items():
            self.collection.dims[name] = len(vector)
        if asynchronous and vectors:
            self.queue.append(number)
            self.waiting.add(number)
        self._matrices.clear()
        self._index(made, _Terms.add)

    def remove(self, object_id: str) -> None:
        gone = self.objects.pop(object_id)
        del self.numbers[gone.number]
        self.waiting.discard(gone.number)
        self._matrices.clear()
        self._index(gone, _Terms.remove)
        for name in self._lengths:
            self._lengths[name].pop(gone.number, None)
            self._counts[name].pop(gone.number, None)

    def work(self) -> int:
        """Index half of what waits; how many still do."""
        self.queue = [number for number in self.queue if number in self.waiting]
        for number in self.queue[: (len(self.queue) + 1) // 2]:
            self.waiting.discard(number)
        self._matrices.clear()
        return len(self.waiting)

    def _check(self, properties: dict[str, Any], vectors: dict[str, Any]) -> None:
        for name, value in properties.items():
            known = self.collection.properties.get(name)
            if known is None:
                raise Refused(f"no such prop with name '{name}' found in class '{self.collection.config['class']}'")
            kind = known["dataType"][0]
            if value is None:
                continue
            if isinstance(value, list) != kind.endswith("[]"):
                raise Refused(f"invalid {kind} property '{name}' on class: not a {kind}, but {type(value).__name__}")
            for one in value if isinstance(value, list) else [value]:
                if not _is_of(kind.removesuffix("[]"), one):
                    raise Refused(f"invalid {kind} property '{name}' on class: not a {kind}, but {type(one).__name__}")
        for name, vector in vectors.items():
            if name not in self.collection.distances:
                raise Refused(f"vectorizer for the target vector {name!r} is not found")
            if (dim := self.collection.dims.get(name)) not in (None, len(vector)):
                raise Refused(
                    f"vector lengths don't match: new node has a vector with length {len(vector)}. "
                    f"Existing nodes have vectors with length {dim}"
                )

    def _index(self, one: _Object, act: Callable[[_Terms, bytes, int], None]) -> None:
        act(self._index_of("_id", "filter"), one.uuid.encode(), one.number)
        inverted = self.collection.config["invertedIndexConfig"]
        for name, known in self.collection.properties.items():
            kind = known["dataType"][0].removesuffix("[]")
            value = one.properties.get(name)
            values = value if isinstance(value, list) else [] if value is None else [value]
            if not (known["indexFilterable"] or known["indexSearchable"] or known["indexRangeFilters"]):
                continue
            if inverted.get("indexNullState"):
                act(self._index_of(name, "null"), b"\0" if values else b"\1", one.number)
            if inverted.get("indexPropertyLength"):
                length = len(value) if isinstance(value, str | list) else 0
                act(self._index_of(name, "length"), _encoded("int", length), one.number)
            if kind == "text":
                words = [word for text in values for word in _cut(text, known["tokenization"])]
                terms = {word.encode() for word in words}
                if known["indexSearchable"] and values:
                    self._lengths.setdefault(name, {})[one.number] = len(words)
                    self._counts.setdefault(name, {})[one.number] = Counter(words)
            else:
                terms = {_encoded(kind, value) for value in values}
            if known["indexFilterable"]:
                for term in terms:
                    act(self._index_of(name, "filter"), term, one.number)
            if known["indexRangeFilters"]:
                for term in terms:
                    act(self._index_of(name, "range"), term, one.number)

    def _index_of(self, name: str, kind: str) -> _Terms:
        return self._terms.setdefault((name, kind), _Terms())

    # Conditions.

    def allowed(self, condition: Any, limit: int = 0) -> Ids:
        """The numbers that a condition allows, ghosts among them."""
        found, denied = self._resolve(condition, limit)
        # All numbers that were given, and the one that will be next.
        return set(range(self.next + 1)) - found if denied else found

    def _resolve(self, node: Any, limit: int) -> tuple[Ids, bool]:
        """Numbers, and whether they are those that it denies."""
        op = node.operator
        if op in (Op.OPERATOR_AND, Op.OPERATOR_OR):
            if not node.filters:
                raise Refused(f'no children for operator "{Op.Name(op)}"')
            if len(node.filters) == 1:
                return self._resolve(node.filters[0], limit)
            result = self._resolve(node.filters[0], 0)
            for part in node.filters[1:]:
                result = _merge(result, self._resolve(part, 0), op)
            return result
        if op == Op.OPERATOR_NOT:
            if len(node.filters) != 1:
                raise Refused(f'operator "Not" expects 1 child, given {len(node.filters)}')
            found, denied = self._resolve(node.filters[0], 0)
            return found, not denied
        if node.target.WhichOneof("target") != "property":
            raise Refused("conditions on references are not in this double")
        return self._leaf(node.target.property, op, node, limit)

    def _leaf(self, name: str, op: Any, node: Any, limit: int) -> tuple[Ids, bool]:
        if op in (Op.OPERATOR_CONTAINS_ANY, Op.OPERATOR_CONTAINS_ALL, Op.OPERATOR_CONTAINS_NONE):
            parts: Ids | None = None
            for value in _values(node):
                found, _ = self._value(name, Op.OPERATOR_EQUAL, value, 0)
                every = op == Op.OPERATOR_CONTAINS_ALL
                parts = set(found) if parts is None else parts & found if every else parts | found
            if parts is None:
                raise Refused("value array must not be empty")
            return parts, op == Op.OPERATOR_CONTAINS_NONE
        values = _values(node)
        if len(values) != 1 or node.WhichOneof("test_value").endswith("_array"):
            raise Refused(f"operator {Op.Name(op)} takes one value")
        return self._value(name, op, values[0], limit)

    def _value(self, name: str, op: Any, value: Any, limit: int) -> tuple[Ids, bool]:
        if name in ("id", "_id"):
            if not isinstance(value, str):
                raise Refused('using ["_id"] to filter by uuid: must use "valueText" to specify the id')
            return self._read(self._index_of("_id", "filter"), op, value.encode(), limit)
        length = re.fullmatch(r"len\((.+)\)", name)
        known = self.collection.properties.get(length[1] if length else name)
        if known is None:
            raise Refused(f"no such prop with name '{name}' found in class '{self.collection.config['class']}'")
        inverted = self.collection.config["invertedIndexConfig"]
        if op == Op.OPERATOR_IS_NULL:
            if not isinstance(value, bool):
                raise Refused("operator IsNull requires a booleanValue")
            if not inverted.get("indexNullState"):
                raise Refused("Nullstate must be indexed to be filterable! Add `indexNullState: true`")
            return self._read(self._index_of(name, "null"), Op.OPERATOR_EQUAL, b"\1" if value else b"\0", limit)
        if length:
            if not inverted.get("indexPropertyLength"):
                raise Refused("Property length must be indexed to be filterable! add `IndexPropertyLength: true`")
            return self._read(self._index_of(length[1], "length"), op, _encoded("int", value), limit)
        kind = known["dataType"][0].removesuffix("[]")
        value = _converted(kind, value)
        ordered = Op.OPERATOR_GREATER_THAN <= op <= Op.OPERATOR_LESS_THAN_EQUAL
        ranged = known["indexRangeFilters"] and (ordered or not known["indexFilterable"])
        if not known["indexFilterable"] and not ranged:
            raise Refused(f"Filtering by property '{name}' requires inverted index. Is `indexFilterable` enabled?")
        index = self._index_of(name, "range" if ranged else "filter")
        if kind != "text":
            return self._read(index, op, _encoded(kind, value), limit)
        if op == Op.OPERATOR_LIKE:
            words = [value] if known["tokenization"] == "field" else value.split()
        else:
            words = _cut(value, known["tokenization"])
        if not words:
            raise Refused("invalid search term, only stopwords provided")
        result = self._read(index, op, words[0].encode(), limit if len(words) == 1 else 0)
        for word in words[1:]:
            result = _merge(result, self._read(index, op, word.encode(), 0), Op.OPERATOR_AND)
        return result

    @staticmethod
    def _read(index: _Terms, op: Any, term: bytes, limit: int) -> tuple[Ids, bool]:
        if op in (Op.OPERATOR_EQUAL, Op.OPERATOR_NOT_EQUAL):
            return set(index.rows.get(term, ())), op == Op.OPERATOR_NOT_EQUAL
        if op == Op.OPERATOR_LIKE:
            return index.read(index.like(term), limit), False
        return index.read(index.beyond(op, term), limit), False

    # Searching.

    def nearest(self, name: str, vector: Any, limit: int, allowed: Ids | None) -> list[tuple[_Object, float]]:
        """The best by distance, a float32."""
        numbers, matrix = self._matrix(name)
        if not numbers:
            return []
        if matrix.shape[1] != len(vector):
            raise Refused(f"vector lengths don't match: {matrix.shape[1]} vs {len(vector)}")
        distance = self.collection.distances[name]
        if distance == "cosine":
            vector = vector / (np.linalg.norm(vector) or 1)
        if distance == "l2-squared":
            gap = matrix - vector
            distances = np.einsum("nd,nd->n", gap, gap)
        else:
            distances = np.float32(distance == "cosine") - matrix @ vector
        if allowed is not None:
            places = np.array([place for place, number in enumerate(numbers) if number in allowed], int)
        else:
            places = np.arange(len(numbers))
        if limit < len(places):
            places = places[np.argpartition(distances[places], limit - 1)[:limit]]
        places = places[np.argsort(distances[places], kind="stable")]
        return [(self.numbers[numbers[place]], float(distances[place])) for place in places.tolist()]

    def _matrix(self, name: str) -> tuple[list[int], Any]:
        if name not in self._matrices:
            held = [one for one in self.objects.values() if name in one.vectors and one.number not in self.waiting]
            matrix = np.stack([one.vectors[name] for one in held]) if held else np.empty((0, 0), np.float32)
            if held and self.collection.distances[name] == "cosine":
                lengths = np.linalg.norm(matrix, axis=1, keepdims=True)
                matrix = matrix / np.where(lengths > 0, lengths, 1)
            self._matrices[name] = ([one.number for one in held], matrix)
        return self._matrices[name]

    def bm25(self, query: Any, limit: int, allowed: Ids | None) -> list[tuple[_Object, float]]:
        config = self.collection.config["invertedIndexConfig"]["bm25"]
        scores: Counter[int] = Counter()
        for name in query.properties:
            name, _, boost = name.partition("^")
            known = self.collection.properties.get(name)
            if known is None or not known["indexSearchable"]:
                raise Refused(f"Searching by property '{name}' requires inverted index. Is `indexSearchable` enabled?")
            lengths, counts = self._lengths.get(name, {}), self._counts.get(name, {})
            mean = sum(lengths.values()) / len(lengths) if lengths else 0.0
            for word, times in Counter(_cut(query.query, known["tokenization"])).items():
                holding = [number for number, words in counts.items() if words[word]]
                idf = math.log(1 + (len(self.objects) - len(holding) + 0.5) / (len(holding) + 0.5))
                for number in holding:
                    frequency = counts[number][word]
                    length = 1 - config["b"] + config["b"] * lengths[number] / (mean or 40.0)
                    part = frequency / (frequency + config["k1"] * length)
                    scores[number] += idf * times * part * float(boost or 1)
        ranked = sorted(scores, key=lambda number: (-scores[number], number))
        best = [number for number in ranked if allowed is None or number in allowed][:limit]
        return [(self.numbers[number], float(np.float32(scores[number]))) for number in best]

    def hybrid(self, query: Any, limit: int, allowed: Ids | None) -> list[tuple[_Object, float]]:
        alpha = query.alpha_param if query.use_alpha_param else query.alpha
        depth = max(HYBRID_RESULTS, limit)
        sets: list[tuple[float, list[tuple[_Object, float]]]] = []
        if alpha > 0:
            near = self.nearest(_target(self, query.targets), _vector(query), depth, allowed)
            sets.append((alpha, [(one, 1 - distance) for one, distance in near]))
        if alpha < 1:
            sets.append((1 - alpha, self.bm25(query, depth, allowed)))
        fused: dict[str, tuple[_Object, Any]] = {}
        for weight, found in sets:
            values = [np.float32(value) for _, value in found]
            for rank, (one, _) in enumerate(found):
                if query.fusion_type == base_search_pb2.Hybrid.FUSION_TYPE_RANKED:
                    score = np.float32(weight / (rank + 60))
                else:
                    low, high = min(values), max(values)
                    share = np.float32(weight)
                    score = share if low == high else share * ((values[rank] - low) / (high - low))
                fused[one.uuid] = (one, score + fused[one.uuid][1] if one.uuid in fused else score)
        ranked = sorted(fused.values(), key=lambda pair: (-float(pair[1]), pair[0].uuid))
        return [(one, float(score)) for one, score in ranked[:limit]]


def _is_of(kind: str, value: Any) -> bool:
    if kind == "boolean":
        return isinstance(value, bool)
    if kind in ("int", "number"):
        return (
            isinstance(value, int | float) and not isinstance(value, bool) and (kind == "number" or value == int(value))
        )
    return isinstance(value, str)


def _converted(kind: str, value: Any) -> Any:
    """A condition's value for a property of a kind; numbers and texts of them are taken for each other."""
    if kind in ("int", "number") and not isinstance(value, bool):
        try:
            number = float(value)
        except ValueError:
            raise Refused(f"expected a number value, but could not parse string {value!r} as float") from None
        if kind == "number":
            return number
        if number != int(number):
            raise Refused(f"filtering for integer, but received a floating point number {value}")
        return value if isinstance(value, int) else int(number)
    if isinstance(value, str) if kind in ("text", "date", "uuid") else isinstance(value, bool):
        return value
    raise Refused(f"data type filter cannot use a value of {type(value).__name__} on type {kind!r}")


def _values(node: Any) -> list[Any]:
    which = node.WhichOneof("test_value")
    if which is None or which == "value_geo":
        raise Refused("unknown value type")
    value = getattr(node, which)
    return list(value.values) if which.endswith("_array") else [value]


def _merge(a: tuple[Ids, bool], b: tuple[Ids, bool], op: Any) -> tuple[Ids, bool]:
    both = op == Op.OPERATOR_AND
    match a[1], b[1]:
        case True, True:
            return (a[0] | b[0] if both else a[0] & b[0]), True
        case False, False:
            return (a[0] & b[0] if both else a[0] | b[0]), False
        case True, False:
            a, b = b, a
    return (a[0] - b[0], False) if both else (b[0] - a[0], True)


def _vector(message: Any) -> Any:
    if len(message.vectors) > 1 or (
        message.vectors and message.vectors[0].type == base_pb2.Vectors.VECTOR_TYPE_MULTI_FP32
    ):
        raise Refused("several vectors are not in this double")
    return np.frombuffer(message.vectors[0].vector_bytes if message.vectors else message.vector_bytes, "<f4")


def _target(shard: _Shard, targets: Any) -> str:
    names, known = list(targets.target_vectors), shard.collection.distances
    if len(names) > 1:
        raise Refused("several target vectors are not in this double")
    if not names and len(known) > 1:
        raise Refused("class has multiple vectors, but no target vectors were provided")
    name: str = names[0] if names else next(iter(known))
    if name not in known:
        raise Refused(f"class does not have named vector {name} configured. Available named vectors {list(known)}")
    return name


# --- the server ------------------------------------------------------------------------------------


@dataclass
class Double:
    """What it serves, and faults to order. refuse: a message for an object that is not taken, by its UUID."""

    key: str | None = None
    version: str = VERSION
    asynchronous: bool = False
    max_message: int = 104_858_000
    refuse: dict[str, str] = field(default_factory=dict)
    # (status code, details) in place of the next gRPC answers, and (status, message) of REST's
    grpc_faults: list[tuple[Any, str]] = field(default_factory=list)
    rest_faults: list[tuple[int, str]] = field(default_factory=list)
    rest_after: int = 0  # REST's answers before its faults
    stalled: threading.Event | None = None  # gRPC waits for it
    port: int = 0
    grpc_port: int = 0
    calls: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        self.collections: dict[str, _Collection] = {}
        self.lock = threading.RLock()

    def collection(self, name: str) -> _Collection:
        found = self.collections.get(name[:1].upper() + name[1:])
        if found is None:
            raise Refused(f"could not find class {name} in schema", 404)
        return found


@contextlib.contextmanager
def serving(double: Double) -> Iterator[Double]:
    """The double at 127.0.0.1, on ports of its own."""
    server = grpc.server(
        ThreadPoolExecutor(8),
        options=[
            ("grpc.max_receive_message_length", double.max_message),
            ("grpc.max_send_message_length", double.max_message),
            ("grpc.so_reuseport", 0),
        ],
    )
    weaviate_pb2_grpc.add_WeaviateServicer_to_server(_Service(double), server)  # type: ignore[no-untyped-call]
    health = grpc.unary_unary_rpc_method_handler(
        lambda request, context: health_weaviate_pb2.WeaviateHealthCheckResponse(
            status=health_weaviate_pb2.WeaviateHealthCheckResponse.SERVING
        ),
        request_deserializer=health_weaviate_pb2.WeaviateHealthCheckRequest.FromString,
        response_serializer=health_weaviate_pb2.WeaviateHealthCheckResponse.SerializeToString,
    )
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("grpc.health.v1.Health", {"Check": health}),))
    double.grpc_port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    rest = ThreadingHTTPServer(("127.0.0.1", 0), type("Rest", (_Rest,), {"double": double}))
    rest.daemon_threads = True
    double.port = rest.server_address[1]
    thread = threading.Thread(target=rest.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield double
    finally:
        if double.stalled is not None:
            double.stalled.set()
        rest.shutdown()
        rest.server_close()
        thread.join()
        server.stop(None).wait()


class _Service(weaviate_pb2_grpc.WeaviateServicer):
    def __init__(self, double: Double) -> None:
        self._double = double

    @contextlib.contextmanager
    def _answering(self, name: str, context: Any) -> Iterator[None]:
        double = self._double
        double.calls[name] += 1
        if double.stalled is not None:
            double.stalled.wait()
        given = dict(context.invocation_metadata()).get("authorization")
        if double.key is not None and given != f"Bearer {double.key}":
            context.abort(grpc.StatusCode.UNAUTHENTICATED, "extract auth: unauthorized: invalid api key")
        with double.lock:
            fault = double.grpc_faults.pop(0) if double.grpc_faults else None
        if fault is not None:
            context.abort(*fault)
        try:
            with double.lock:
                yield
        except Refused as error:
            context.abort(grpc.StatusCode.UNKNOWN, str(error))

    def _shard(self, request: Any) -> _Shard:
        return self._double.collection(request.collection).shard(request.tenant)

    def Search(self, request: Any, context: Any) -> Any:
        with self._answering("Search", context):
            shard = self._shard(request)
            metadata = request.metadata
            limit = (request.limit or DEFAULT_LIMIT) + request.offset
            if limit > MAX_RESULTS:
                raise Refused("query maximum results exceeded")
            searches = [name for name in ("near_vector", "bm25_search", "hybrid_search") if request.HasField(name)]
            condition = request.filters if request.HasField("filters") else None
            if request.after and (condition or request.offset or request.sort_by or searches):
                raise Refused("where,sort,offset cannot be set with after and limit parameters")
            reply = search_get_pb2.SearchReply()
            told: dict[str, float | None] = {"distance": None, "score": None}
            if not searches:
                found = [(one, told) for one in self._listed(shard, request, condition, limit)]
            else:
                allowed = None if condition is None else shard.allowed(condition)
                if request.HasField("near_vector"):
                    near = request.near_vector
                    if near.HasField("distance") or near.HasField("certainty"):
                        raise Refused("thresholds are not in this double")
                    ranked, what = (
                        shard.nearest(_target(shard, near.targets), _vector(near), limit, allowed),
                        "distance",
                    )
                elif request.HasField("bm25_search"):
                    ranked, what = shard.bm25(request.bm25_search, limit, allowed), "score"
                else:
                    ranked, what = shard.hybrid(request.hybrid_search, limit, allowed), "score"
                found = [(one, {**told, what: value}) for one, value in ranked]
            for one, values in found[request.offset :]:
                result = reply.results.add()
                result.metadata.id_as_bytes = uuid.UUID(one.uuid).bytes
                result.metadata.id = one.uuid
                for name, value in values.items():
                    if value is not None and getattr(metadata, name):
                        setattr(result.metadata, name, value)
                        setattr(result.metadata, f"{name}_present", True)
                for name in metadata.vectors:
                    if name in one.vectors:
                        kind = base_pb2.Vectors.VECTOR_TYPE_SINGLE_FP32
                        result.metadata.vectors.add(name=name, vector_bytes=one.vectors[name].tobytes(), type=kind)
                if metadata.vector and "" in one.vectors:
                    result.metadata.vector_bytes = one.vectors[""].tobytes()
                self._show(shard, request, one, result.properties)
            return reply

    @staticmethod
    def _listed(shard: _Shard, request: Any, condition: Any, limit: int) -> list[_Object]:
        if condition is None:
            found = [shard.objects[object_id] for object_id in sorted(shard.objects) if object_id > request.after]
        else:
            allowed = shard.allowed(condition, limit)
            found = [shard.numbers[number] for number in sorted(allowed) if number in shard.numbers]
        for order in reversed(request.sort_by):
            name = order.path[0]
            if name not in ("_id", "id"):
                raise Refused(f"sorting by {name!r} is not in this double")
            found.sort(key=lambda one: one.uuid, reverse=not order.ascending)
        return found[:limit]

    @staticmethod
    def _show(shard: _Shard, request: Any, one: _Object, shown: Any) -> None:
        shown.target_collection = shard.collection.config["class"]
        wanted = request.properties
        names = list(wanted.non_ref_properties)
        if wanted.return_all_nonref_properties or not request.HasField("properties"):
            names = list(shard.collection.properties)
        for name in names:
            if name not in shard.collection.properties:
                raise Refused(f"no such prop with name '{name}' found in class")
            kind = shard.collection.properties[name]["dataType"][0]
            value, field_of = one.properties.get(name), shown.non_ref_props.fields[name]
            if value is None:
                field_of.null_value = 0
                continue
            match kind:
                case "text":
                    field_of.text_value = value
                case "number":
                    field_of.number_value = value
                case "int":
                    field_of.int_value = int(value)
                case "boolean":
                    field_of.bool_value = value
                case "date":
                    field_of.date_value = value
                case "uuid":
                    field_of.uuid_value = value
                case "text[]":
                    field_of.list_value.text_values.values.extend(value)
                case "number[]":
                    field_of.list_value.number_values.values = struct.pack(f"<{len(value)}d", *value)
                case "int[]":
                    field_of.list_value.int_values.values = struct.pack(f"<{len(value)}q", *map(int, value))
                case "boolean[]":
                    field_of.list_value.bool_values.values.extend(value)
                case "date[]":
                    field_of.list_value.date_values.values.extend(value)
                case "uuid[]":
                    field_of.list_value.uuid_values.values.extend(value)

    def BatchObjects(self, request: Any, context: Any) -> Any:
        with self._answering("BatchObjects", context):
            reply = batch_pb2.BatchObjectsReply()
            for index, one in enumerate(request.objects):
                try:
                    shard = self._shard(one)
                    try:
                        object_id = str(uuid.UUID(one.uuid))
                    except ValueError:
                        raise Refused(f"invalid UUID {one.uuid!r}") from None
                    if object_id in self._double.refuse:
                        raise Refused(self._double.refuse[object_id])
                    vectors = {v.name: np.frombuffer(v.vector_bytes, "<f4") for v in one.vectors}
                    if one.vector_bytes:
                        vectors[""] = np.frombuffer(one.vector_bytes, "<f4")
                    shard.put(object_id, _given(one.properties), vectors, self._double.asynchronous)
                except Refused as error:
                    reply.errors.add(index=index, error=str(error))
            return reply

    def BatchDelete(self, request: Any, context: Any) -> Any:
        with self._answering("BatchDelete", context):
            shard = self._shard(request)
            if not request.HasField("filters"):
                raise Refused("no filters in batch delete request")
            allowed = shard.allowed(request.filters)
            matching = [shard.numbers[number].uuid for number in sorted(allowed) if number in shard.numbers]
            reply = batch_delete_pb2.BatchDeleteReply(matches=len(matching))
            for object_id in matching[:MAX_RESULTS]:
                error = self._double.refuse.get(object_id, "")
                if error:
                    reply.failed += 1
                else:
                    reply.successful += 1
                    if not request.dry_run:
                        shard.remove(object_id)
                if request.verbose:
                    reply.objects.add(uuid=uuid.UUID(object_id).bytes, successful=not error, error=error)
            return reply

    def Aggregate(self, request: Any, context: Any) -> Any:
        with self._answering("Aggregate", context):
            shard = self._shard(request)
            if request.aggregations or request.HasField("group_by") or request.WhichOneof("search"):
                raise Refused("aggregations other than a count are not in this double")
            reply = aggregate_pb2.AggregateReply()
            counted = shard.allowed(request.filters) if request.HasField("filters") else shard.objects
            reply.single_result.objects_count = len(counted)
            return reply

    def TenantsGet(self, request: Any, context: Any) -> Any:
        with self._answering("TenantsGet", context):
            collection = self._double.collection(request.collection)
            if not collection.many:
                raise Refused(f'multi-tenancy is not enabled for class "{request.collection}"')
            names = list(request.names.values) or sorted(collection.shards)
            active = tenants_pb2.TENANT_ACTIVITY_STATUS_HOT
            known = [tenants_pb2.Tenant(name=n, activity_status=active) for n in names if n in collection.shards]
            return tenants_pb2.TenantsGetReply(tenants=known)


def _given(message: Any) -> dict[str, Any]:
    """An object's properties as they were sent."""
    given: dict[str, Any] = {}
    for name, value in message.non_ref_properties.fields.items():
        which = value.WhichOneof("kind")
        if which in ("struct_value", "list_value"):
            raise Refused(f"property {name!r} is of a kind that is not in this double")
        given[name] = None if which == "null_value" else getattr(value, which)
    for arrays in (message.text_array_properties, message.int_array_properties, message.boolean_array_properties):
        given |= {one.prop_name: list(one.values) for one in arrays}
    for one in message.number_array_properties:
        given[one.prop_name] = list(struct.unpack(f"<{len(one.values_bytes) // 8}d", one.values_bytes))
    return given | {name: [] for name in message.empty_list_props}


class _Rest(BaseHTTPRequestHandler):
    double: Double
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def _handle(self) -> None:
        double = self.double
        parts = urlsplit(self.path)
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        path = [unquote(part) for part in parts.path.removeprefix("/v1/").split("/")]
        double.calls[f"{self.command} {path[0]}"] += 1
        try:
            if double.rest_faults and double.rest_after == 0:
                status, message = double.rest_faults.pop(0)
                raise Refused(message, status)
            double.rest_after = max(0, double.rest_after - 1)
            # Readiness and the address of a login are told to everybody.
            if double.key is not None and path[0] != ".well-known":
                if self.headers.get("Authorization") is None:
                    raise Refused("anonymous access not enabled, please provide an auth scheme such as OIDC", 401)
                if self.headers["Authorization"] != f"Bearer {double.key}":
                    raise Refused("unauthorized: invalid api key", 401)
            query = {name: values[-1] for name, values in parse_qs(parts.query).items()}
            with double.lock:
                answer = self._route(path, query, json.loads(body) if body else None)
            self._tell(200, answer)
        except Refused as error:
            self._tell(error.status, {"error": [{"message": str(error)}]})

    do_GET = do_POST = do_PUT = do_DELETE = do_HEAD = _handle

    def _tell(self, status: int, answer: Any) -> None:
        content = b"" if answer is None else json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def _route(self, path: list[str], query: dict[str, str], body: Any) -> Any:
        double = self.double
        match self.command, path:
            case "GET", ["meta"]:
                host = f"http://127.0.0.1:{double.port}"
                size = double.max_message
                return {"hostname": host, "version": double.version, "modules": {}, "grpcMaxMessageSize": size}
            case "GET", [".well-known", "ready" | "live"]:
                return None
            case "GET", ["schema"]:
                return {"classes": [one.config for one in double.collections.values()]}
            case "POST", ["schema"]:
                config = _completed(body)
                name = config["class"]
                if name.lower() in map(str.lower, double.collections):
                    raise Refused(f"class name {name} already exists")
                double.collections[name] = _Collection(config)
                return config
            case "GET" | "HEAD", ["schema", name]:
                return double.collection(name).config
            case "DELETE", ["schema", name]:
                double.collections.pop(name[:1].upper() + name[1:], None)
                return None
            case "GET", ["schema", name, "shards"]:
                return [
                    {"name": shard, "status": "READY", "vectorQueueSize": held.work()}
                    for shard, held in double.collection(name).shards.items()
                ]
            case "GET", ["nodes", *name]:
                return {"nodes": [self._node(name[0] if name else None, query.get("output") == "verbose")]}
            case _, ["schema", name, "tenants", *tenant]:
                return self._tenants(double.collection(name), tenant, body)
        raise Refused(f"path {self.path} was not found", 404)

    def _node(self, name: str | None, verbose: bool) -> dict[str, Any]:
        chosen = self.double.collections.values() if name is None else [self.double.collection(name)]
        node = {"name": "node1", "status": "HEALTHY", "version": self.double.version, "gitHash": "double"}
        if not verbose:
            return node
        shards = []
        for collection in chosen:
            for shard, held in collection.shards.items():
                left = held.work()
                shards.append(
                    {
                        "class": collection.config["class"],
                        "name": shard or "shard1",
                        "objectCount": len(held.objects),
                        "vectorIndexingStatus": "INDEXING" if left else "READY",
                        "vectorQueueLength": left,
                        "compressed": False,
                        "loaded": True,
                    }
                )
        counted: int = sum(shard["objectCount"] for shard in shards)
        return {**node, "shards": shards, "stats": {"objectCount": counted, "shardCount": len(shards)}}

    def _tenants(self, collection: _Collection, tenant: list[str], body: Any) -> Any:
        if not collection.many:
            raise Refused(f'multi-tenancy is not enabled for class "{collection.config["class"]}"')
        match self.command, tenant:
            case "GET" | "HEAD", [name]:
                if name not in collection.shards:
                    raise Refused(f"tenant {name} not found", 404)
                return {"name": name, "activityStatus": "HOT"}
            case "GET", []:
                return [{"name": name, "activityStatus": "HOT"} for name in sorted(collection.shards)]
            case "POST", []:
                for one in body:
                    if not re.fullmatch(r"[A-Za-z0-9_-]{1,64}", one["name"]):
                        raise Refused(f"invalid tenant name {one['name']!r}")
                    collection.shards.setdefault(one["name"], _Shard(collection))
                return body
            case "DELETE", []:
                for name in body:
                    collection.shards.pop(name, None)
                return None
        raise Refused(f"path {self.path} was not found", 404)


def main() -> None:
    """Serve until the input ends; the ports are told on the first line."""
    with serving(Double()) as double:
        print(double.port, double.grpc_port, flush=True)
        sys.stdin.read()


if __name__ == "__main__":
    main()
