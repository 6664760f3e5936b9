"""What the parts of nearest promise each other: data, stores, embedders, readers, chunkers.

Everything else is written against this file. A store implements the underscored methods of `Store`;
the public ones validate once, for all stores, before anything reaches a database.
"""

from __future__ import annotations

import contextlib
import json
import math
import re
from abc import ABC, abstractmethod
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self, get_args
from urllib.parse import parse_qsl

import numpy as np
from numpy.typing import ArrayLike, NDArray

from nearest import filters, fusion
from nearest.errors import (
    BatchFailed,
    InvalidDocument,
    InvalidInput,
    InvalidQuery,
    InvalidRecord,
    UnsupportedError,
)
from nearest.filters import Filter

if TYPE_CHECKING:
    from tokenizers import Tokenizer

Float32 = NDArray[np.float32]
Metric = Literal["cosine", "dot", "l2"]
FieldKind = Literal["keyword", "integer", "float", "bool", "datetime"]
QuantizationKind = Literal["none", "scalar", "product", "binary"]
FusionMethod = fusion.Method

INDEX_PROFILES: Mapping[str, tuple[int, int, int]] = {  # m, ef_construct, ef
    "latency": (12, 100, 64),
    "balanced": (16, 128, 100),
    "recall": (24, 200, 200),
}
FACTS = ("index", "indexed", "disk_bytes", "memory_bytes")
"""Of `Store.stats`: the kind and state of the vector index, in words; vectors in it; the room it all takes."""
MAX_ID_LENGTH = 512
MAX_K = 10_000
MAX_NESTING = 64
_UNIT = 1e-6  # how far the squared length of a unit vector may be from 1
_TINY = 1e-30  # squared lengths below this have lost digits in float32
_INT64 = range(-(2**63), 2**63)


# --- documents and chunks --------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Mark:
    """Where the text of a document stands in its source, from offset `start` (characters) to the next mark.

    page: from 1; of a presentation, the slide. headings: the titles of the sections around, outermost first.
    Each mark tells both anew: what it leaves out is not known there.
    """

    start: int
    page: int | None = None
    headings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Document:
    """What a user adds.

    id: 1 to 512 characters. text: not empty. metadata: a JSON object (string keys; strings, finite
    numbers within 64 bits, booleans, null, lists and objects); `where` conditions are about it.
    marks: pages and headings, by rising `start`; each chunk's payload keeps those of its own start, see `Record`.
    """

    id: str
    text: str
    metadata: Mapping[str, Any] = field(default_factory=dict)
    marks: tuple[Mark, ...] = ()

    def place(self, offset: int) -> dict[str, Any]:
        """`page` and `headings` (a list) at an offset of the text; each is absent where it is not known."""
        i = bisect_right(self.marks, offset, key=lambda mark: mark.start) - 1
        if i < 0:
            return {}
        mark = self.marks[i]
        known: dict[str, Any] = {} if mark.page is None else {"page": mark.page}
        return {**known, "headings": list(mark.headings)} if mark.headings else known


@dataclass(frozen=True, slots=True)
class Failure:
    """A document that a reader could not make, and why: one bad line does not cost the others.

    id: its own where it is known, else `document_id#line`.
    """

    id: str
    reason: str


def check_document(document: Document) -> Document:
    """The document with plain metadata; raises InvalidDocument, naming the document and the fault."""
    if not isinstance(document, Document):
        raise InvalidDocument(f"expected a Document, got {type(document).__name__}")
    try:
        check_id(document.id)
        if not isinstance(document.text, str):
            raise InvalidInput(f"text must be a string, got {type(document.text).__name__}")
        if not document.text.strip():
            raise InvalidInput("text is empty; give it something to index")
        # A lone surrogate is legal in a str but not in UTF-8, and so in no database.
        document.text.encode()
        metadata = check_json_object(document.metadata, "metadata")
        return Document(document.id, document.text, metadata, _checked_marks(document))
    except InvalidInput as error:
        raise InvalidDocument(f"document {_short(document.id)}: {error}") from None
    except UnicodeEncodeError:
        raise InvalidDocument(
            f"document {_short(document.id)}: text holds a lone surrogate; decode the source with the right encoding"
        ) from None


def _checked_marks(document: Document) -> tuple[Mark, ...]:
    before = 0
    for i, mark in enumerate(document.marks):
        if not isinstance(mark, Mark) or not isinstance(mark.start, int) or not before <= mark.start:
            raise InvalidInput(f"marks[{i}] must be a Mark whose start is not before the last one's, got {mark!r}")
        if mark.page is not None and (not isinstance(mark.page, int) or not 1 <= mark.page < 2**31):
            raise InvalidInput(f"marks[{i}].page must be an integer from 1, got {mark.page!r}")
        _plain_json(list(mark.headings), f"marks[{i}].headings", 0)
        if not all(isinstance(heading, str) for heading in mark.headings):
            raise InvalidInput(f"marks[{i}].headings must be strings, got {mark.headings!r}")
        before = mark.start
    return tuple(document.marks)


@dataclass(frozen=True, slots=True)
class Chunk:
    """A passage of a document: `document.text[start:end]`, which is `text`.

    ordinal: its place among the document's chunks, from 0; its neighbours are the one before and the one after.
    Spans come in order and, overlaps aside, cover the text, so that the chunks of a document give its text
    back. headings: the titles of the sections around it, outermost first. prefix: what is embedded before the text;
    it is shown and searched by words nowhere.
    """

    text: str
    start: int
    end: int
    ordinal: int
    headings: tuple[str, ...] = ()
    prefix: str = ""

    @property
    def embedded(self) -> str:
        """What the model reads."""
        return self.prefix + self.text


# --- schema ----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class VectorSpec:
    """A named vector field. dim: its dimension d. multi: each record holds (t, d), compared by MaxSim."""

    dim: int
    metric: Metric = "cosine"
    multi: bool = False

    def __post_init__(self) -> None:
        if not isinstance(self.dim, int) or isinstance(self.dim, bool) or not 1 <= self.dim <= 65_536:
            raise InvalidInput(f"dim must be an integer from 1 to 65536, got {self.dim!r}")
        if self.metric not in ("cosine", "dot", "l2"):
            raise InvalidInput(f"metric must be cosine, dot or l2, got {self.metric!r}")


@dataclass(frozen=True, slots=True)
class IndexParams:
    """How vectors are indexed.

    m, ef_construct, ef: HNSW (Malkov and Yashunin, 2016): links a node, candidates while building and
    while searching. quantization: `scalar` is int8, `product` is 16x, `binary` is one bit a dimension;
    with `rescore`, `oversampling` times k candidates are compared again by their full vectors.
    `profile` gives them by name.
    """

    m: int = 16
    ef_construct: int = 128
    ef: int = 100
    quantization: QuantizationKind = "none"
    rescore: bool = True
    oversampling: float = 2.0

    def __post_init__(self) -> None:
        for name in ("m", "ef_construct", "ef"):
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= 10_000:
                raise InvalidInput(f"{name} must be an integer from 1 to 10000, got {value!r}")
        if self.quantization not in ("none", "scalar", "product", "binary"):
            raise InvalidInput(f"quantization must be none, scalar, product or binary, got {self.quantization!r}")
        if not 1.0 <= self.oversampling <= 100.0:
            raise InvalidInput(f"oversampling must be from 1 to 100, got {self.oversampling!r}")

    @classmethod
    def profile(cls, name: str, **others: Any) -> Self:
        """`latency`, `balanced` or `recall`; others: the remaining settings, such as quantization."""
        if name not in INDEX_PROFILES:
            raise InvalidInput(f"index must be one of {', '.join(INDEX_PROFILES)}, got {name!r}")
        return cls(*INDEX_PROFILES[name], **others)


@dataclass(frozen=True, slots=True)
class Schema:
    """What a collection's records hold.

    vectors: dense and multi-vector fields by name. sparse: names of sparse fields (inner product).
    text: the payload field that BM25 searches, if any. language: its stemming and stop words.
    fields: payload fields (dotted paths) that are indexed for filters, with their kinds; a record whose
    value there is of another kind is refused. index: how dense vectors are indexed.
    """

    vectors: Mapping[str, VectorSpec] = field(default_factory=dict)
    sparse: tuple[str, ...] = ()
    text: str | None = None
    language: str = "english"
    fields: Mapping[str, FieldKind] = field(default_factory=dict)
    index: IndexParams = field(default_factory=IndexParams)

    def __post_init__(self) -> None:
        names = [*self.vectors, *self.sparse]
        if not names and self.text is None:
            raise InvalidInput("a schema needs at least one vector, sparse vector or text field")
        if len(set(names)) != len(names) or not all(isinstance(n, str) and n for n in names):
            raise InvalidInput(f"vector names must be distinct and not empty, got {names}")
        if self.text is not None and not all(self.text.split(".")):
            raise InvalidInput(f"text: {self.text!r} has an empty part")
        for path, kind in self.fields.items():
            if not path or not all(path.split(".")):
                raise InvalidInput(f"fields: {path!r} has an empty part")
            if kind not in ("keyword", "integer", "float", "bool", "datetime"):
                raise InvalidInput(
                    f"fields.{path}: kind must be keyword, integer, float, bool or datetime, got {kind!r}"
                )

    def to_json(self) -> dict[str, Any]:
        return {
            "vectors": {n: {"dim": v.dim, "metric": v.metric, "multi": v.multi} for n, v in self.vectors.items()},
            "sparse": list(self.sparse),
            "text": self.text,
            "language": self.language,
            "fields": dict(self.fields),
            "index": {name: getattr(self.index, name) for name in IndexParams.__slots__},
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        return cls(
            vectors={n: VectorSpec(**v) for n, v in data["vectors"].items()},
            sparse=tuple(data["sparse"]),
            text=data["text"],
            language=data["language"],
            fields=dict(data["fields"]),
            index=IndexParams(**data["index"]),
        )


# --- records, queries, hits ------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class SparseVector:
    """indices: uint32, distinct. values: float32, as many, finite."""

    indices: NDArray[np.uint32]
    values: Float32


Vector = Float32 | SparseVector


@dataclass(frozen=True, slots=True)
class Record:
    """What a store holds. Under cosine a dense vector comes back at unit length, on every store.

    A record of the write path is a chunk. Its payload holds document_id, chunk (its ordinal), start, text,
    metadata (the document's), and where its start stands in the source, if that is known: page, from 1, and
    headings, the titles of the sections around it, outermost first. The properties read that payload.
    """

    id: str
    vectors: Mapping[str, Any] = field(default_factory=dict)
    payload: Mapping[str, Any] = field(default_factory=dict)

    @property
    def document_id(self) -> str | None:
        return self.payload.get("document_id")

    @property
    def text(self) -> str:
        return str(self.payload.get("text", ""))

    @property
    def metadata(self) -> Mapping[str, Any]:
        metadata: Mapping[str, Any] = self.payload.get("metadata", {})
        return metadata

    @property
    def page(self) -> int | None:
        return self.payload.get("page")

    @property
    def headings(self) -> Sequence[str]:
        headings: Sequence[str] = self.payload.get("headings", ())
        return headings


@dataclass(frozen=True, slots=True)
class Hit(Record):
    """One scored result; a higher score is better on every store.

    score: cosine in [-1, 1]; the inner product for dot and sparse; the negated Euclidean distance for
    l2; the sum over query vectors of the best score for multi-vectors; BM25 for text; in [0, 1] for
    fusion by normalized scores. explain: how the score came about, where it was asked for.
    """

    score: float = 0.0
    explain: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class Dense:
    """Nearest to a vector (d,), or to a multi-vector (t, d) where the field holds those."""

    vector: ArrayLike
    using: str = "dense"


@dataclass(frozen=True, slots=True)
class Sparse:
    vector: SparseVector
    using: str = "sparse"


@dataclass(frozen=True, slots=True)
class Text:
    """BM25 over the schema's text field. A text without a searchable word finds nothing."""

    text: str


@dataclass(frozen=True, slots=True)
class Fused:
    """Several searches as one ranking; each contributes its best `candidates`, or k if that is more."""

    parts: tuple[Dense | Sparse | Text, ...]
    method: FusionMethod = "normalized"
    weights: tuple[float, ...] | None = None
    candidates: int = 100
    rrf_k: int = fusion.RRF_K


@dataclass(frozen=True, slots=True)
class Query:
    """A search. find: what to rank by. k: hits at most, 1 to 10,000. where: the condition all satisfy.

    ef: HNSW candidates, instead of the schema's. exact: no approximation. explain: fill
    `Hit.explain` with the parts of a fused score.
    """

    find: Dense | Sparse | Text | Fused
    k: int = 10
    where: Filter | None = None
    with_payload: bool = True
    with_vectors: bool = False
    ef: int | None = None
    exact: bool = False
    explain: bool = False


@dataclass(frozen=True, slots=True)
class Page:
    """Part of a scan. cursor: where the next page starts; None after the last."""

    records: list[Record]
    cursor: str | None


# --- capabilities ----------------------------------------------------------------------------------


Feature = Literal[
    "dense", "sparse", "multi_vector", "named_vectors", "text", "native_fusion",
    "cosine", "dot", "l2", "hnsw", "scalar", "product", "binary", "payload_index", "durable", "exact",
]  # fmt: skip


@dataclass(frozen=True, slots=True)
class Gap:
    """Something that does not hold yet. why: `ours`, `upstream` or `never`; test: the suite's test it fails."""

    test: str
    why: Literal["ours", "upstream", "never"]
    reason: str


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What a store can do. Using what is absent raises UnsupportedError.

    features: see `Feature`; `exact` means that `Query.exact` is honoured. filters: operators that run
    natively and exactly on any field; others are completed by `layers.residual`. read_your_writes: a
    search after `upsert` returned sees it; if false, `wait()` makes it so. max_batch: records an upsert.
    remote: across a network, where calls fail for a while and are worth repeating.
    """

    features: frozenset[Feature]
    filters: frozenset[str]
    read_your_writes: bool = True
    max_batch: int = 10_000
    remote: bool = False

    def __contains__(self, feature: str) -> bool:
        return feature in self.features


# --- stores ----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class StoreURL:
    """`edge:./dir?option=value`. text: the whole; location: between scheme and `?`; options: after it."""

    text: str
    scheme: str
    location: str
    options: Mapping[str, str]

    @classmethod
    def parse(cls, text: str) -> Self:
        scheme, colon, rest = text.partition(":")
        if not colon or not scheme.isidentifier():
            raise InvalidInput(f"{_unsigned(text)!r} is not a store's URL; write scheme:location, such as edge:./dir")
        location, _, query = rest.partition("?")
        try:
            options = dict(parse_qsl(query, keep_blank_values=True, strict_parsing=bool(query)))
        except ValueError:
            raise InvalidInput(
                f"{scheme}:{_unsigned(location)}: options are written name=value and joined by &"
            ) from None
        return cls(text, scheme, location, options)


def _unsigned(url: str) -> str:
    """Without user, password or key, which no message may tell."""
    return re.sub(r"//[^/]*@", "//", url)


class Store(ABC):
    """An adapter to one vector database, and one collection in it.

    Every call is safe to repeat. A store may be used from several threads.
    """

    capabilities: ClassVar[Capabilities]
    schema: Schema

    # What callers use. Validated here, once; see `Record`, `Query` and `filters` for what is refused.

    def upsert(self, records: Iterable[Record]) -> None:
        """Write whole records, replacing those of the same id; the last of two equal ids wins.

        Vectors are converted to float32. Raises InvalidRecord before anything is written for an id that
        is not 1 to 512 characters, an unknown or missing vector name, a wrong dimension, NaN or infinity,
        a zero vector under cosine, a payload that is not JSON or not as the schema declares, or what the store
        knows that it cannot hold; BatchFailed if the database refused some of them, or a part of a large call.
        """
        checked = {record.id: record for record in (check_record(self.schema, r) for r in records)}
        batch = list(checked.values())
        for record in batch:
            self._check(record)
        faults: list[BatchFailed] = []
        for start in range(0, len(batch), self.capabilities.max_batch):
            part = batch[start : start + self.capabilities.max_batch]
            try:
                self._upsert(part)
            except BatchFailed as error:  # its promise is about the whole call: the other records are written
                faults.append(error)
            except InvalidInput as error:
                if start == 0:
                    raise
                # Nothing of this part is written, but parts before it are, so it cannot be said of the call.
                faults.append(BatchFailed.of({record.id: error for record in part}, len(batch)))
        if len(faults) > 1:
            raise BatchFailed.of({i: e for fault in faults for i, e in fault.failed.items()}, len(batch))
        if faults:
            raise faults[0]

    def delete(self, ids: Iterable[str]) -> None:
        """Remove records; an unknown id does nothing."""
        wanted = _ids(ids)
        if wanted:
            self._delete(wanted)

    def delete_where(self, where: Mapping[str, Any] | Filter) -> None:
        """Remove the records that satisfy a condition; it must not be None."""
        condition = filters.parse(where)
        if condition is None:
            raise InvalidQuery("delete_where needs a condition; delete the collection to remove everything")
        self.check_filter(condition)
        self._delete_where(condition)

    def get(self, ids: Iterable[str], *, with_vectors: bool = False) -> list[Record]:
        """Records in the order asked for, without those that are not there."""
        wanted = _ids(ids)
        found = {record.id: record for record in self._get(wanted, with_vectors)} if wanted else {}
        return [found[i] for i in wanted if i in found]

    def count(self, where: Mapping[str, Any] | Filter | None = None) -> int:
        """How many records satisfy a condition, exactly."""
        condition = filters.parse(where)
        self.check_filter(condition)
        return self._count(condition)

    def scan(
        self,
        cursor: str | None = None,
        *,
        limit: int = 1000,
        where: Mapping[str, Any] | Filter | None = None,
        with_vectors: bool = False,
    ) -> Page:
        """The next `limit` records from a cursor; every record comes once, in a stable order."""
        if not isinstance(limit, int) or isinstance(limit, bool) or limit < 1:
            raise InvalidQuery(f"limit must be a positive integer, got {limit!r}")
        condition = filters.parse(where)
        self.check_filter(condition)
        return self._scan(cursor, limit, condition, with_vectors)

    def scan_all(
        self, *, where: Mapping[str, Any] | Filter | None = None, with_vectors: bool = False
    ) -> Iterator[Record]:
        """Every record, page by page."""
        cursor: str | None = None
        while True:
            page = self.scan(cursor, where=where, with_vectors=with_vectors)
            yield from page.records
            cursor = page.cursor
            if cursor is None:
                return

    def search(self, query: Query) -> list[Hit]:
        """At most k hits by falling score, ties by id."""
        return self.search_many([query])[0]

    def search_many(self, queries: Sequence[Query]) -> list[list[Hit]]:
        """One list of hits a query, in their order; one round trip where the database can."""
        checked = [self.check_query(query) for query in queries]
        return self._search_many(checked) if checked else []

    def optimize(self) -> None:  # noqa: B027 -- optional
        """Build indexes that are due. Searches are right without it, only slower."""

    def flush(self) -> None:  # noqa: B027 -- optional
        """Make everything acknowledged survive a power cut, not just the end of the process."""

    def wait(self) -> None:  # noqa: B027 -- optional
        """Return when everything written before is visible to searches."""

    def stats(self) -> dict[str, Any]:
        """Facts that the database tells of the collection, JSON-able; only those it knows, see `FACTS`."""
        return {}

    @abstractmethod
    def close(self) -> None:
        """Let go of the collection; repeating it does nothing."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # What a store says of itself beyond `capabilities`.

    def filter_support(self, comparison: filters.Comparison) -> filters.Support:
        """How this store runs one comparison natively, given its schema."""
        return "exact" if comparison.op in self.capabilities.filters else "none"

    def check_filter(self, condition: Filter | None) -> None:
        """Raises UnsupportedError for what this store cannot run exactly (`Loose` is never checked)."""
        for node in _strict_comparisons(condition):
            if self.filter_support(node) != "exact":
                path = ".".join(node.path)
                raise UnsupportedError(
                    f"this store cannot evaluate {node.op} on {path!r} exactly; "
                    "wrap it in layers.residual.Residual to complete it", op=node.op, path=path)  # fmt: skip

    def plan(self, query: Query) -> dict[str, list[str]]:
        """What of a query this store runs itself (`native`) and what is done above it (`completed`).

        The names of its parts (see `explain_parts`), `fusion`, `where`; of a condition that is completed, each
        comparison: `where metadata.title $contains`. For people: nothing is decided by it.
        """
        find = query.find
        if isinstance(find, Fused):
            native = list(dict.fromkeys(part_name(part) for part in find.parts))
            fuses = self._fuses(query, find)
            completed = [] if fuses else ["fusion"]
            native += ["fusion"] if fuses else []
        else:
            native, completed = [part_name(find)], []
        if query.where is not None:
            native.append("where")
        return {"native": native, "completed": completed}

    def _fuses(self, query: Query, find: Fused) -> bool:
        """Whether the store itself fuses this query."""
        return "native_fusion" in self.capabilities

    def check_query(self, query: Query) -> Query:
        """The query with its vectors as float32 and its condition parsed.

        Raises InvalidQuery, InvalidFilter or UnsupportedError.
        """
        if not isinstance(query, Query):
            raise InvalidQuery(f"expected a Query, got {type(query).__name__}")
        if not isinstance(query.k, int) or isinstance(query.k, bool) or not 1 <= query.k <= MAX_K:
            raise InvalidQuery(f"k must be an integer from 1 to {MAX_K}, got {query.k!r}")
        if query.ef is not None and (not isinstance(query.ef, int) or isinstance(query.ef, bool) or query.ef < 1):
            raise InvalidQuery(f"ef must be a positive integer, got {query.ef!r}")
        if query.exact:
            self._need("exact", "exact search")
        # A condition as a user writes it would match nothing, silently, if it came to a store unparsed.
        where = filters.parse(query.where)
        self.check_filter(where)
        find = self._check_fused(query.find) if isinstance(query.find, Fused) else self._check_part(query.find)
        return query if find is query.find and where is query.where else replace(query, where=where, find=find)

    def _check_part(self, find: Dense | Sparse | Text) -> Dense | Sparse | Text:
        match find:
            case Dense(vector, using):
                spec = self.schema.vectors.get(using)
                if spec is None:
                    raise InvalidQuery(f"no vector named {using!r}; the schema has {sorted(self.schema.vectors)}")
                try:
                    checked = check_vector(spec, vector)
                except InvalidInput as error:
                    raise InvalidQuery(f"query vector {using!r}: {error}") from None
                return find if checked is vector else Dense(checked, using)
            case Sparse(vector, using):
                self._need("sparse", "sparse vectors")
                if using not in self.schema.sparse:
                    raise InvalidQuery(f"no sparse vector named {using!r}; the schema has {list(self.schema.sparse)}")
                try:
                    return Sparse(check_sparse(vector), using)
                except InvalidInput as error:
                    raise InvalidQuery(f"query vector {using!r}: {error}") from None
            case Text(text):
                self._need("text", "BM25 search")
                if self.schema.text is None:
                    raise InvalidQuery("the schema declares no text field to search")
                if not isinstance(text, str) or not text.strip():
                    raise InvalidQuery("the query text is empty")
                return find
        raise InvalidQuery(f"find must be Dense, Sparse, Text or Fused, got {type(find).__name__}")

    def _check_fused(self, find: Fused) -> Fused:
        if not find.parts:
            raise InvalidQuery("a fused query needs at least one part")
        if find.method not in get_args(FusionMethod):
            raise InvalidQuery(f"fusion must be {', '.join(get_args(FusionMethod))}, got {find.method!r}")
        if not isinstance(find.candidates, int) or not 1 <= find.candidates <= MAX_K:
            raise InvalidQuery(f"candidates must be an integer from 1 to {MAX_K}, got {find.candidates!r}")
        if not isinstance(find.rrf_k, int) or find.rrf_k < 0:
            raise InvalidQuery(f"rrf_k must be an integer of 0 or more, got {find.rrf_k!r}")
        if find.weights is not None:
            if len(find.weights) != len(find.parts):
                raise InvalidQuery(f"{len(find.parts)} parts need as many weights, got {len(find.weights)}")
            if not all(math.isfinite(w) and w >= 0 for w in find.weights) or sum(find.weights) <= 0:
                raise InvalidQuery(f"weights must be 0 or more and not all 0, got {find.weights}")
        return replace(find, parts=tuple(self._check_part(part) for part in find.parts))

    def _need(self, feature: Feature, words: str) -> None:
        if feature not in self.capabilities:
            raise UnsupportedError(f"this store has no {words}", feature=feature)

    # What a store implements. Everything it is given has been checked.

    def _check(self, record: Record) -> None:  # noqa: B027 -- optional
        """Raises InvalidRecord for what this store cannot hold, as far as it knows that without its database.

        Asked of every record of a call before the first is written. What only `_upsert` finds it raises before it
        writes any of the records it was given, or as a BatchFailed.
        """

    @abstractmethod
    def _upsert(self, records: list[Record]) -> None: ...

    @abstractmethod
    def _delete(self, ids: list[str]) -> None: ...

    @abstractmethod
    def _delete_where(self, where: Filter) -> None: ...

    @abstractmethod
    def _get(self, ids: list[str], with_vectors: bool) -> list[Record]: ...

    @abstractmethod
    def _count(self, where: Filter | None) -> int: ...

    @abstractmethod
    def _scan(self, cursor: str | None, limit: int, where: Filter | None, with_vectors: bool) -> Page: ...

    @abstractmethod
    def _search_many(self, queries: list[Query]) -> list[list[Hit]]: ...


def check_schema(schema: Schema, capabilities: Capabilities) -> None:
    """Raises UnsupportedError if a store with these capabilities cannot hold such a collection; names what it has."""

    def need(feature: Feature, words: str, *instead: Feature) -> None:
        if feature not in capabilities:
            has = " or ".join(other for other in instead if other in capabilities)
            raise UnsupportedError(f"this store has no {words}{has and f'; it has {has}'}", feature=feature)

    for name, spec in schema.vectors.items():
        need("dense", "dense vectors")
        need(spec.metric, f"{spec.metric} metric (vector {name!r})", "cosine", "dot", "l2")
        if spec.multi:
            need("multi_vector", f"multi-vectors (vector {name!r})")
    if len(schema.vectors) > 1:
        need("named_vectors", "several named vectors")
    if schema.sparse:
        need("sparse", "sparse vectors")
    if schema.text is not None:
        need("text", "BM25 search")
    index, default = schema.index, IndexParams()
    if index.quantization != "none":
        kinds: tuple[Feature, ...] = ("scalar", "product", "binary")
        less = "" if any(kind in capabilities for kind in kinds) else ", nor any other; leave `quantization` out"
        need(index.quantization, f"{index.quantization} quantization{less}", *kinds)
    if (index.m, index.ef_construct, index.ef) != (default.m, default.ef_construct, default.ef):
        need("hnsw", "HNSW parameters to set (m, ef_construct, ef, a profile of them); leave `index` out")


def fused_search(store: Store, queries: Sequence[Query]) -> list[list[Hit]]:
    """`Fused` queries on a store that cannot fuse: one batch for all parts, then fusion here.

    `explain` holds each part's rank (from 1) and score.
    """
    singles: list[Query] = []
    for query in queries:
        assert isinstance(query.find, Fused)
        depth = max(query.find.candidates, query.k)
        singles += [replace(query, find=part, k=depth, explain=False) for part in query.find.parts]
    answers = iter(store.search_many(singles))
    fused: list[list[Hit]] = []
    for query in queries:
        assert isinstance(query.find, Fused)
        lists = [next(answers) for _ in query.find.parts]
        hits = {hit.id: hit for hits in lists for hit in hits}
        rankings = [[(hit.id, hit.score) for hit in part] for part in lists]
        scores = fused_scores(query.find, rankings)
        ranked = sorted(scores.items(), key=lambda pair: (-pair[1], pair[0]))[: query.k]
        parts = explain_parts(query.find, rankings, (i for i, _ in ranked)) if query.explain else {}
        fused.append([replace(hits[i], score=s, explain=parts.get(i)) for i, s in ranked])
    return fused


def fused_scores(find: Fused, rankings: Sequence[fusion.Ranking[Any]]) -> dict[Any, float]:
    """The fused score of every item of the parts' rankings, as `find` asks."""
    return fusion.scores(rankings, find.method, find.weights, find.rrf_k, [flatness(part) for part in find.parts])


def flatness(part: Dense | Sparse | Text) -> float:
    """What `fusion.adapted` wants to know: cosines are far from zero even between texts that have nothing in common."""
    return 0.5 if isinstance(part, Dense) else 1.0


def explain_parts(
    find: Fused, rankings: Sequence[fusion.Ranking[Any]], winners: Iterable[Any]
) -> dict[Any, dict[str, Any]]:
    """For each winner its rank (from 1) and score in every part that found it, keyed by the part's name.

    A second part of the same name is `name#2`.
    """
    told: dict[Any, dict[str, Any]] = {winner: {} for winner in winners}
    names = [part_name(part) for part in find.parts]
    for i, ranking in enumerate(rankings):
        before = names[:i].count(names[i])
        name = f"{names[i]}#{before + 1}" if before else names[i]
        for rank, (item, score) in enumerate(ranking, 1):
            if item in told:
                told[item][name] = {"rank": rank, "score": score}
    return told


def part_name(part: Dense | Sparse | Text) -> str:
    match part:
        case Dense(_, using) | Sparse(_, using):
            return using
        case Text():
            return "lexical"


# --- validation ------------------------------------------------------------------------------------


def check_id(value: Any) -> str:
    """Raises InvalidInput unless it is a string of 1 to 512 characters."""
    if not isinstance(value, str):
        raise InvalidInput(f"id must be a string, got {type(value).__name__}")
    if not value:
        raise InvalidInput("id is empty; give 1 to 512 characters")
    if len(value) > MAX_ID_LENGTH:
        raise InvalidInput(f"id has {len(value)} characters; at most {MAX_ID_LENGTH} are allowed")
    if not value.isascii() and any("\ud800" <= c <= "\udfff" for c in value):
        raise InvalidInput("id holds a lone surrogate; decode it with the right encoding")
    return value


def check_vector(spec: VectorSpec, value: ArrayLike) -> Float32:
    """The vector as float32, (d,), or (t, d) with t of 1 or more for a multi-vector; at unit length under cosine."""
    with np.errstate(over="ignore", invalid="ignore"):
        try:
            vector = np.ascontiguousarray(value, dtype=np.float32)
        except (TypeError, ValueError) as error:
            raise InvalidInput(f"not an array of numbers ({error})") from None
        if spec.multi:
            if vector.ndim != 2 or vector.shape[0] == 0 or vector.shape[1] != spec.dim:
                raise InvalidInput(f"has shape {vector.shape}; the schema says (t, {spec.dim}) with t of 1 or more")
        elif vector.shape != (spec.dim,):
            if vector.ndim == 1:
                raise InvalidInput(f"has dimension {vector.shape[0]}; the schema says {spec.dim}")
            raise InvalidInput(f"has shape {vector.shape}; the schema says ({spec.dim},)")
        elif _TINY < (length := float(vector @ vector)) < math.inf and (
            spec.metric != "cosine" or abs(length - 1) <= _UNIT
        ):
            return vector  # the usual case
        # In float64, since sums of squares overflow and vanish in float32 before their terms do.
        squared = np.einsum("...i,...i->...", vector, vector, dtype=np.float64)
        if not np.isfinite(squared).all():
            raise InvalidInput("holds NaN or infinity (or a number beyond float32)")
        if spec.metric != "cosine":
            return vector
        if not (squared > 0).all():
            raise InvalidInput("is zero, which has no direction; cosine needs a length above 0")
        unit: Float32 = (vector / np.sqrt(squared)[..., None]).astype(np.float32)
        return unit


def check_sparse(value: Any) -> SparseVector:
    if not isinstance(value, SparseVector):
        raise InvalidInput(f"needs a SparseVector, got {type(value).__name__}")
    try:
        indices = np.asarray(value.indices)
        values = np.asarray(value.values, dtype=np.float32)
    except (TypeError, ValueError) as error:
        raise InvalidInput(f"not arrays of numbers ({error})") from None
    if indices.ndim != 1 or indices.shape != values.shape:
        raise InvalidInput(f"indices {indices.shape} and values {values.shape} must be of one length")
    if indices.size and (not np.issubdtype(indices.dtype, np.integer) or indices.min() < 0 or indices.max() >= 2**32):
        raise InvalidInput("indices must be integers from 0 to 2^32 - 1")
    if np.unique(indices).size != indices.size:
        raise InvalidInput("indices repeat")
    if not np.isfinite(values).all():
        raise InvalidInput("values hold NaN or infinity")
    order = np.argsort(indices)
    return SparseVector(indices[order].astype(np.uint32), values[order])


def check_record(schema: Schema, record: Record) -> Record:
    """The record with its vectors converted; raises InvalidRecord, naming the record and the fault."""
    if not isinstance(record, Record):
        raise InvalidRecord(f"expected a Record, got {type(record).__name__}")
    try:
        check_id(record.id)
        if not isinstance(record.vectors, Mapping):
            raise InvalidInput(f"vectors must be an object (dict) by name, got {type(record.vectors).__name__}")
        missing = [name for name in schema.vectors if name not in record.vectors]
        if missing:
            raise InvalidInput(f"lacks vector {missing[0]!r}, which the schema declares")
        vectors: dict[str, Any] = {}
        for name, value in record.vectors.items():
            try:
                if name in schema.vectors:
                    vectors[name] = check_vector(schema.vectors[name], value)
                elif name in schema.sparse:
                    vectors[name] = check_sparse(value)
                else:
                    raise InvalidInput(f"is not in the schema, which has {[*schema.vectors, *schema.sparse]}")
            except InvalidInput as error:
                raise InvalidInput(f"vector {name!r} {error}") from None
        payload = check_json_object(record.payload, "payload")
        check_fields(schema.fields, payload)
        if schema.text is not None:
            text = filters.resolve(payload, tuple(schema.text.split(".")))
            if text is not None and not isinstance(text, str):
                raise InvalidInput(f"payload.{schema.text}: the text field holds {type(text).__name__}, not a string")
    except InvalidInput as error:
        raise InvalidRecord(f"record {_short(record.id)}: {error}") from None
    return Record(record.id, vectors, payload)


def check_fields(fields: Mapping[str, FieldKind], payload: Mapping[str, Any], where: str = "payload") -> None:
    """Raises InvalidInput if a declared field holds a value of another kind. Null and lists are fine."""
    for path, kind in fields.items():
        value = filters.resolve(payload, tuple(path.split(".")))
        for item in value if isinstance(value, list | tuple) else (value,):
            if item is not None and not _of_kind(item, kind):
                hint = " (RFC 3339, such as 2024-05-31T12:00:00Z)" if kind == "datetime" else ""
                raise InvalidInput(
                    f"{where}.{path}: declared as {kind}{hint}, got {type(item).__name__} {_short(item)}"
                )


def _of_kind(item: Any, kind: FieldKind) -> bool:
    match kind:
        case "bool":
            return isinstance(item, bool)
        case "integer":
            return isinstance(item, int) and not isinstance(item, bool)
        case "float":
            return isinstance(item, int | float) and not isinstance(item, bool)
        case "keyword":
            return isinstance(item, str)
        case "datetime":
            return isinstance(item, str) and filters.instant(item) is not None


def check_json_object(value: Any, name: str) -> dict[str, Any]:
    """A copy in plain dicts and lists; raises InvalidInput, with the path of the fault, if JSON cannot hold it."""
    if not isinstance(value, Mapping):
        raise InvalidInput(f"{name} must be an object (dict), got {type(value).__name__}")
    plain: dict[str, Any] = _plain_json(value, name, 0)
    return plain


def _plain_json(value: Any, at: str, depth: int) -> Any:
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        if not value.isascii():
            try:
                value.encode()
            except UnicodeEncodeError:
                raise InvalidInput(f"{at} holds a lone surrogate; decode it with the right encoding") from None
        return str(value)
    if isinstance(value, int):
        if value not in _INT64:
            raise InvalidInput(f"{at} holds an integer over 64 bits; store it as a string")
        return int(value)
    if isinstance(value, float):
        if not math.isfinite(value):
            raise InvalidInput(f"{at} is {value}, which JSON cannot hold; use null")
        return float(value)
    if depth >= MAX_NESTING:
        raise InvalidInput(f"{at} is nested deeper than {MAX_NESTING} levels")
    if isinstance(value, Mapping):
        for key in value:
            if not isinstance(key, str):
                raise InvalidInput(f"{at} has the key {key!r}; JSON keys are strings")
            _plain_json(key, f"{at} key", 0)
        return {str(key): _plain_json(item, f"{at}.{key}", depth + 1) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain_json(item, f"{at}[{i}]", depth + 1) for i, item in enumerate(value)]
    raise InvalidInput(
        f"{at} is {type(value).__name__}, which is not JSON; convert it to a string, a number, "
        "a boolean, null, a list or an object"
    )


def _ids(ids: Iterable[str]) -> list[str]:
    if isinstance(ids, str):
        raise InvalidQuery("ids must be a list of strings, got one string; write [id]")
    try:
        return list(dict.fromkeys(check_id(i) for i in ids))
    except InvalidInput as error:
        raise InvalidQuery(str(error)) from None


def _short(value: Any) -> str:
    shown = repr(value)
    return shown if len(shown) <= 60 else shown[:57] + "..."


def _strict_comparisons(condition: Filter | None) -> Iterator[filters.Comparison]:
    match condition:
        case filters.And(parts) | filters.Or(parts):
            for part in parts:
                yield from _strict_comparisons(part)
        case filters.Not(part):
            yield from _strict_comparisons(part)
        case filters.Comparison():
            yield condition


# --- models, readers, chunkers ---------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Usage:
    """What an embedder was asked for so far, or between two moments (`after - before`).

    texts: asked for, those from a cache included. cached: of these, from a cache. fallback: of these, by the
    second provider. requests: to a provider, repetitions included. tokens: as the provider counted them, or
    as the tokenizer does where it says nothing. dollars: by the price of `Embedder.price`; 0 where it is unknown.
    """

    texts: int = 0
    cached: int = 0
    fallback: int = 0
    requests: int = 0
    tokens: int = 0
    dollars: float = 0.0

    def __add__(self, other: Usage) -> Usage:
        return Usage(*(getattr(self, name) + getattr(other, name) for name in self.__slots__))

    def __sub__(self, other: Usage) -> Usage:
        return Usage(*(getattr(self, name) - getattr(other, name) for name in self.__slots__))


class Embedder(ABC):
    """Texts to vectors, by one model with one set of settings.

    name: as a user writes it, `local:all-MiniLM-L6-v2`. dimension: d. max_tokens: the model's limit a
    text, special tokens included. fingerprint: equal for two embedders exactly when their vectors are
    comparable; a collection keeps it. tokenizer: the model's own, without truncation or padding; where
    `estimated`, a stand-in that counts on the high side. truncated: how many texts were cut to the limit so far.
    price: dollars a million tokens; None where it is not known. usage: what it was asked for so far.
    note: what its user should know and did not ask for; mostly nothing. remote: whether embedding makes requests to
    a provider. unprobed: whether the dimension is not known yet, so that reading it makes one.
    """

    name: str
    dimension: int
    max_tokens: int
    fingerprint: str
    tokenizer: Tokenizer
    estimated: bool = False
    truncated: int = 0
    price: float | None = 0.0
    usage: Usage = Usage()
    note: str = ""
    remote: bool = False
    unprobed: bool = False

    def expect(self, dimension: int) -> None:
        """Of an unprobed one: take this for its dimension, and hold its answers to it. Of others nothing."""
        return

    @abstractmethod
    def embed_documents(self, texts: Sequence[str], *, truncate: bool = False) -> Float32:
        """float32, (n, d), of unit length, in the order of the texts.

        Raises InvalidInput for an empty text, and TextTooLong for one over the limit unless `truncate`;
        or TextsFailed, which has the vectors of the others.
        """

    @abstractmethod
    def embed_query(self, text: str, *, truncate: bool = False) -> Float32:
        """float32, (d,), of unit length."""

    def embed_queries(self, texts: Sequence[str], *, truncate: bool = False) -> Float32:
        """float32, (n, d); for many at once."""
        rows = [self.embed_query(text, truncate=truncate) for text in texts]
        return np.stack(rows) if rows else np.empty((0, self.dimension), np.float32)

    def stream_queries(
        self, texts: Sequence[str], *, truncate: bool = False
    ) -> Iterator[tuple[Sequence[int], Float32]]:
        """`embed_queries` in parts: the indexes of some texts, each once, and their vectors, float32 (m, d).

        An embedder that can goes on with the next parts while its caller uses one.
        """
        if len(texts):
            yield range(len(texts)), self.embed_queries(texts, truncate=truncate)

    def estimate(self, texts: Sequence[str], *, truncate: bool = False) -> Usage:
        """What `embed_documents` would use for these texts now; nothing is embedded. Equal texts count once."""
        tokens = sum(token_counts(self.tokenizer, list(dict.fromkeys(texts))))
        return Usage(len(texts), 0, 0, 0, tokens, tokens * (self.price or 0.0) / 1e6)


@dataclass(frozen=True, slots=True)
class Message:
    """One turn of a prompt. Instructions are `system`; what a user or a document says never is."""

    role: Literal["system", "user", "assistant"]
    text: str


@dataclass(frozen=True, slots=True)
class Spent:
    """What a model that reads and writes used. requests: repetitions included. tokens: as the provider counted them.

    dollars: by the model's price; None where that is not known. stopped: why a text ended before it was complete,
    `max_tokens` or the provider's own word; None where it is complete, or nobody says.
    """

    requests: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    dollars: float | None = 0.0
    stopped: str | None = None

    def __add__(self, other: Spent) -> Spent:
        unknown = self.dollars is None or other.dollars is None
        return Spent(
            self.requests + other.requests,
            self.input_tokens + other.input_tokens,
            self.output_tokens + other.output_tokens,
            None if unknown else (self.dollars or 0.0) + (other.dollars or 0.0),
            other.stopped or self.stopped,
        )


class Generator(ABC):
    """Prompts to text, by one model. It is given no tools, so that text can do nothing but be read.

    name: as a user writes it, `openai:gpt-4.1-mini`. price: dollars a million tokens, of the prompt and of the
    answer; None where it is not known.
    """

    name: str
    price: tuple[float, float] | None = None

    @abstractmethod
    def stream(self, messages: Sequence[Message], *, max_tokens: int) -> Iterator[str | Spent]:
        """The text, in pieces as they come, and last what it used.

        max_tokens: of the text. Raises ConnectionFailed, TimedOut, Throttled, AccessDenied, ModelError or
        UnsupportedError; what came before an error is not repeated after it.
        """

    def complete(self, messages: Sequence[Message], *, max_tokens: int) -> tuple[str, Spent]:
        """The whole text, and what it used."""
        text, spent = [], Spent()
        for piece in self.stream(messages, max_tokens=max_tokens):
            if isinstance(piece, Spent):
                spent += piece
            else:
                text.append(piece)
        return "".join(text), spent


class Reranker(ABC):
    """How well texts answer a query, by one model that reads both.

    name: as a user writes it, `local:cross-encoder/ms-marco-MiniLM-L-6-v2`. batch: texts that one call judges where
    a time budget is kept, for the time is looked at between calls; None: all. spent: what a provider was asked for so
    far; nothing for a model on this machine.
    """

    name: str
    batch: int | None = None
    spent: Spent = Spent()

    @abstractmethod
    def scores(self, query: str, texts: Sequence[str]) -> Float32:
        """float32, (n,), in the order of the texts; finite, higher is better, on the model's own scale.

        A text over the model's limit is judged by its beginning. Raises ModelError, or ConnectionFailed, TimedOut,
        Throttled, AccessDenied and UnsupportedError where a provider is asked.
        """


TOKENS = "tokens"
"""The name of the multi-vector field with a collection's token vectors."""


class LateInteraction(Reranker):
    """A reranker that compares token vectors, and can do so with those that a store holds.

    dimension: d. fingerprint: equal for two models exactly when their token vectors are comparable.
    """

    dimension: int
    fingerprint: str

    @abstractmethod
    def token_vectors(self, texts: Sequence[str]) -> list[Float32]:
        """float32, (t, d) a text, t of 1 or more, each row of unit length; a text over the limit by its beginning."""

    def query_vectors(self, queries: Sequence[str]) -> list[Float32]:
        """The same of queries, for models that read them in another way."""
        return self.token_vectors(queries)

    @abstractmethod
    def scores_of_vectors(self, query: str, vectors: Sequence[Float32]) -> Float32:
        """`scores` of texts whose token vectors are known: float32, (t, d) each."""


class Reader(ABC):
    """One format: a file to documents.

    extensions: lower case, with the dot. content_type: of those files. isolated: to be read in a child process
    with limits of time and memory, as its parser could loop, crash or grow. passwords: tried, in their order, on
    files that are encrypted. elsewhere: seconds that another process worked for it.
    """

    extensions: ClassVar[tuple[str, ...]]
    content_type: str = "text/plain"
    isolated: ClassVar[bool] = False
    passwords: Sequence[str] = ()
    elsewhere: float = 0.0

    @abstractmethod
    def read(self, path: Path, document_id: str) -> Iterator[Document | Failure]:
        """The documents of a file, one at a time, and what failed among them.

        document_id: the file's own id; a file of many documents (JSONL, CSV) uses the ids in it, and
        where there are none `document_id#line`. Metadata tells the source (`source`: document_id).
        Raises Unreadable, saying why, for a file that is binary, damaged or in an unknown encoding.
        """


class Chunker(ABC):
    """One strategy: a document to chunks. settings: JSON-able, and all that the cuts depend on.

    embeds: whether it asks the embedder where to cut, so that cutting has a cost. One that does holds
    `spending(texts)` while it embeds them, so that a budget covers them too.
    """

    settings: Mapping[str, Any]
    embeds: bool = False

    @abstractmethod
    def chunk(self, text: str) -> list[Chunk]:
        """At least one chunk for a text that is not blank; see `Chunk` for what holds between them."""

    def ahead(self, documents: Sequence[Document]) -> None:
        """These come next: one that asks the embedder where to cut can ask for all of them at once. Raises nothing."""
        return

    def chunk_document(self, document: Document) -> list[Chunk]:
        """The same with what a document knows beside its text: by default the headings of its marks."""
        chunks = self.chunk(document.text)
        if not document.marks:
            return chunks
        return [replace(c, headings=tuple(document.place(c.start).get("headings", ()))) for c in chunks]


Spending = Callable[[Sequence[str]], contextlib.AbstractContextManager[None]]
"""Held while these texts are embedded; raises BudgetExceeded before they are, if they may cost too much."""

# A context's own: a chunker serves several callers at once, of whom only one keeps a budget.
_SPENDING: ContextVar[Spending | None] = ContextVar("nearest_spending", default=None)


@contextlib.contextmanager
def budgeted(spending: Spending) -> Iterator[None]:
    """Whatever is chunked in this block, and in this thread, asks first what it may spend."""
    token = _SPENDING.set(spending)
    try:
        yield
    finally:
        _SPENDING.reset(token)


def spending(texts: Sequence[str]) -> contextlib.AbstractContextManager[None]:
    """What the budget of this block says to these texts (see `Spending`); nothing where there is none."""
    asked = _SPENDING.get()
    return contextlib.nullcontext() if asked is None else asked(texts)


_ENCODED = 1024  # texts: an encoding is some 100 bytes a token, and nothing stops the library inside of a call


def token_counts(tokenizer: Tokenizer, texts: Sequence[str], *, special: bool = True) -> list[int]:
    """Tokens of each text; with the special ones that the model puts around it, or without."""
    counts: list[int] = []
    for first in range(0, len(texts), _ENCODED):
        some = tokenizer.encode_batch_fast(texts[first : first + _ENCODED], add_special_tokens=special)
        counts += map(len, some)
    return counts


def canonical_json(value: Any) -> str:
    """One text for one JSON value: sorted keys, no spaces. Hashes are taken over it."""
    return json.dumps(value, sort_keys=True, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
