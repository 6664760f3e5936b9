"""FAISS made a database: its indexes in this process, on a folder, beside records in SQLite.

    faiss:./dir
    faiss:./dir?index=IVF1024,SQ8      any of FAISS's factory strings, instead of what IndexParams says
    faiss:./dir?index=BHNSW32          or BFlat, BIVF1024: the signs of the numbers, a bit each, by Hamming distance
    faiss:./dir?gpu=false              do not use the GPU, which is used where faiss-gpu is installed

A folder holds one collection: `records.sqlite` (ids, payloads, and the slot of each record; see `_sqlite`), a file of
float32 vectors a field, in order of slots, and an index a field. The first two are the truth, on disk when a write
returns; an index is derived, and is left aside and built again where it is missing, damaged or of another generation.

`optimize` builds indexes. What came since is searched exactly beside them, and so is everything until it is worth an
index (5,000 vectors, or as many as its training needs). What an index finds is compared again by the full vectors.
FAISS searches without the condition and the dead; from the nearest so found the ones that satisfy it are taken, and
where those are too few, or where few satisfy it at all, these are compared exactly. Hence a condition costs no recall.

IndexParams: none is HNSW{m} (under cosine over halved floats, HNSW{m},SQfp16: as many are found, in four fifths of the
time and half the memory), scalar HNSW{m},SQ8, product IVF_HNSW{m},PQ of dim / 4 bytes, binary IVF_HNSW{m},RaBitQ
(Gao and Long, 2024). Graphs are bad at inner products; under dot an HNSW index searches by distances, which put things
in the same order once every vector has one more dimension that makes all of a length (Bachrach et al., 2014). Of an IVF
index as many lists are probed as hold ef * m vectors, which is what HNSW would compare.
A binary index (B...) is for cosine and dot, and always rescored; of so short codes many more than k are needed: give
an `oversampling` of 10 or more.
The GPU holds what faiss-gpu can hold (flat and IVF, no HNSW); this path has not run in this project's tests.
"""

from __future__ import annotations

import contextlib
import math
import os
import re
import sqlite3
import threading
import zlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from nearest.contract import (
    Capabilities,
    Dense,
    Float32,
    Fused,
    Gap,
    Hit,
    IndexParams,
    Page,
    Query,
    Record,
    Schema,
    Store,
    StoreURL,
    VectorSpec,
    check_schema,
    fused_search,
)
from nearest.errors import (
    CollectionDamaged,
    CollectionLocked,
    DiskFull,
    InvalidInput,
    MissingDependency,
    NearestError,
    NotACollection,
    ReadOnly,
    SchemaMismatch,
    StorageError,
    UnsupportedError,
)
from nearest.filters import ORDER_OPS, Filter
from nearest.stores import _folder
from nearest.stores._sqlite import Mask, Records, Slots

if TYPE_CHECKING:
    from types import ModuleType

    from filelock import FileLock

REQUIRES = {"faiss-cpu": ">=1.12,<2"}
KNOWN_GAPS: tuple[Gap, ...] = ()
EMBEDDED = True

Scores = NDArray[np.float32]

_RECORDS = "records.sqlite"
_OWN_FILE = re.compile(r"(vectors|index)-\d+-\d+\.(f32|faiss|tmp)|records\.sqlite(-wal|-shm|-journal)?|\.lock")
_FORMAT = 1
_INDEX_FROM = 5_000  # vectors; fewer are searched exactly in less than a millisecond
_POINTS_PER_CENTROID = 39  # what FAISS asks for in training
_LONGER = 1.25  # squared lengths that an index under dot leaves room for, in those of the longest it was built with
_RETRAIN = 4  # an index that was trained on a quarter of the vectors is made anew
_DEAD_SHARE = 0.2  # of the slots; then `optimize` removes them
_BLOCK_BYTES = 24 * 2**20  # of vectors that are read, compared or indexed at once
_GROW_BLOCK = 512  # vectors added to an index in use, while no search runs
_SLACK = 16  # candidates beyond k of an exact search, for what float32 and ties may exchange
_SPARE = 4  # the same of an index
_MARGIN = 2  # times the candidates expected to do: the last ones of a list are the least certain
_EXACT_ROWS = 2_000  # comparing so few is faster than any index
_EXACT_ROWS_AN_EF = 30  # as many exact comparisons cost what one candidate of a graph costs (60,000 x 384)
_GATHER = 8  # queries for which it pays to bring the vectors together
_KEPT_PARAMS = 100
_BINARY = re.compile(r"B(Flat|HNSW\d+|IVF\d+(_HNSW\d+)?)")
_NO_PLACE = ("IDMap", "Refine", "RFlat", "NSG", "NNDescent")


class FaissStore(Store):
    capabilities = Capabilities(
        features=frozenset(
            {
                "dense", "named_vectors", "cosine", "dot", "l2", "hnsw", "scalar", "product", "binary",
                "payload_index", "durable", "exact",
            }
        ),
        filters=frozenset({"$eq", "$in", *ORDER_OPS, "$exists", "$contains"}),
    )  # fmt: skip

    def __init__(
        self, folder: Path, schema: Schema, factory: str | None, lock: FileLock, faiss: ModuleType, gpu: bool
    ) -> None:
        self.schema = schema
        self._folder = folder
        self._lock = lock
        self._closed = False
        self._writing = threading.RLock()  # one writer at a time
        self._fields = {
            name: _Field(folder, number, spec, schema, factory, faiss, gpu)
            for number, (name, spec) in enumerate(schema.vectors.items())
        }
        self._records = Records(folder / _RECORDS, schema.fields, self._map)
        self._map()
        self._tidy()
        for field in self._fields.values():
            field.load(self._records.noted(field.note), self._records)

    # --- opening ---

    @classmethod
    def open(cls, folder: Path, schema: Schema | None, factory: str | None, gpu: bool) -> FaissStore:
        faiss = _client()
        if schema is not None:
            check_schema(schema, cls.capabilities)
            _check_factory(faiss, schema, factory)
        if folder.exists() and not folder.is_dir():
            raise NotACollection(f"{folder} is a file; give a folder")
        with _errors(folder):
            exists = (folder / _RECORDS).is_file()
            strangers = folder.exists() and any(not _OWN_FILE.fullmatch(path.name) for path in folder.iterdir())
            if not exists and strangers:
                raise NotACollection(f"{folder} is not a collection of nearest and not empty; give another folder")
            if not exists and schema is None:
                raise NotACollection(f"{folder} holds no collection; to make one, give a schema")
            folder.mkdir(parents=True, exist_ok=True)
            lock = _folder.lock(folder)
        try:
            with _errors(folder):
                facts = Records.facts(folder / _RECORDS) if exists else None
                if facts is None:
                    if schema is None:
                        raise NotACollection(f"{folder} holds no collection; to make one, give a schema")
                    facts = {"format": _FORMAT, "schema": schema.to_json(), "index": factory}
                    for number in range(len(schema.vectors)):
                        _vectors_file(folder, number, 0).write_bytes(b"")
                    Records.create(folder / _RECORDS, facts)
                    _sync_folder(folder)
                found = _schema_of(folder, facts)
                _folder.check_same(folder, found, schema)
                if factory is not None and factory != facts["index"]:
                    raise SchemaMismatch(f"{folder} was made with index={facts['index'] or ''}, not {factory}")
                return cls(folder, found, facts["index"], lock, faiss, gpu)
        except BaseException:
            lock.release()
            raise

    def close(self) -> None:
        with self._writing:
            if self._closed:
                return
            self._closed = True
            try:
                with _errors(self._folder):
                    self._records.close()
                    for field in self._fields.values():
                        field.drop()
            finally:
                self._lock.release()

    def _map(self) -> None:
        for field in self._fields.values():
            field.map(self._records.slots, self._records.generation)

    def _tidy(self) -> None:
        """Remove what a crash left: vectors and indexes that the records do not name."""
        named = {field.path.name for field in self._fields.values()}
        noted = (self._records.noted(field.note) for field in self._fields.values())
        named |= {each["file"] for each in noted if each}
        for path in self._folder.iterdir():
            if path.suffix in (".f32", ".faiss", ".tmp") and path.name not in named:
                path.unlink()

    @contextlib.contextmanager
    def _reading(self) -> Iterator[Records]:
        with _errors(self._folder), self._records.gate.shared():
            yield self._opened

    @property
    def _opened(self) -> Records:
        if self._closed:
            raise StorageError(f"the collection at {self._folder} was closed; open it again")
        return self._records

    # --- writing ---

    def _upsert(self, records: list[Record]) -> None:
        with _errors(self._folder), self._writing:
            data = self._opened
            # Vectors first: a slot that no record names is written over.
            for name, field in self._fields.items():
                field.write(data.slots, np.stack([record.vectors[name] for record in records]))
            data.put(records)
            if data.slots - data.count > max(data.count, _INDEX_FROM):
                self._compact()

    def _delete(self, ids: list[str]) -> None:
        with _errors(self._folder), self._writing:
            data = self._opened
            slots = list(data.find(ids).values())
            if slots:
                data.remove(slots)

    def _delete_where(self, where: Filter) -> None:
        with _errors(self._folder), self._writing:
            data = self._opened
            slots = np.flatnonzero(data.matching(where)).tolist()
            if slots:
                data.remove(slots)

    def optimize(self) -> None:
        """Remove dead slots where they are many, and build, train or extend the indexes that are due.

        Searches go on meanwhile, writes wait. A new index is in memory beside the one that it replaces.
        Raises DiskFull if there is no room for it; nothing that was written is lost then.
        """
        with _errors(self._folder), self._writing:
            data = self._opened
            if data.slots - data.count > _DEAD_SHARE * data.slots:
                self._compact()
            for field in self._fields.values():
                if field.grow(data):
                    data.note(field.note, field.save(data.generation))
            self._tidy()

    def _compact(self) -> None:
        data = self._records
        kept = data.living
        for field in self._fields.values():
            field.rewrite(kept, data.generation + 1)
        data.compact(kept)
        self._tidy()

    # --- reading ---

    def _get(self, ids: list[str], with_vectors: bool) -> list[Record]:
        with self._reading() as data:
            return self._records_at(list(data.find(ids).values()), data, with_vectors)

    def _count(self, where: Filter | None) -> int:
        with self._reading() as data:
            return data.count if where is None else int(np.count_nonzero(data.matching(where)))

    def _scan(self, cursor: str | None, limit: int, where: Filter | None, with_vectors: bool) -> Page:
        with self._reading() as data:
            slots, more = data.page(cursor, limit, data.matching(where))
            records = self._records_at(slots, data, with_vectors)
            return Page(records, records[-1].id if more else None)

    def _records_at(self, slots: Sequence[int], data: Records, with_vectors: bool) -> list[Record]:
        return [
            Record(record_id, self._vectors(slot) if with_vectors else {}, payload)
            for slot, (record_id, payload) in zip(slots, data.rows(slots), strict=True)
        ]

    def _vectors(self, slot: int) -> dict[str, Float32]:
        return {name: np.array(field.vectors[slot]) for name, field in self._fields.items()}

    def _search_many(self, queries: list[Query]) -> list[list[Hit]]:
        answers: list[list[Hit]] = [[] for _ in queries]
        alike: dict[tuple[Any, ...], list[int]] = {}
        for i, query in enumerate(queries):
            if isinstance(query.find, Fused):
                answers[i] = fused_search(self, [query])[0]
            else:
                assert isinstance(query.find, Dense)
                alike.setdefault((query.find.using, query.k, query.ef, query.exact, repr(query.where)), []).append(i)
        with self._reading() as data:
            for together in alike.values():  # FAISS compares several vectors at once on all cores
                for i, hits in zip(together, self._search_alike([queries[i] for i in together], data), strict=True):
                    answers[i] = hits
        return answers

    def _search_alike(self, queries: Sequence[Query], data: Records) -> Iterator[list[Hit]]:
        """For queries that differ in their vectors alone, and in what is shown."""
        vectors = [query.find.vector for query in queries if isinstance(query.find, Dense)]
        first = queries[0]
        assert isinstance(first.find, Dense)
        field = self._fields[first.find.using]
        mask = None if first.where is None and data.count == data.slots else data.matching(first.where)
        search = _Search(field, data.slots, mask, first.k, first.ef, first.exact)
        for query, (slots, scores) in zip(queries, search.run(np.array(vectors)), strict=True):
            rows = data.rows(slots, payloads=query.with_payload, keep=True)
            hits = [
                Hit(record_id, self._vectors(slot) if query.with_vectors else {}, payload, score)
                for slot, (record_id, payload), score in zip(slots, rows, scores, strict=True)
            ]
            hits.sort(key=_rank)
            yield hits[: query.k]

    def stats(self) -> dict[str, Any]:
        with self._reading() as data:
            told = {name: field.told(data) for name, field in self._fields.items()}
            words = [f"{name}: {each}" if len(told) > 1 else each for name, each in told.items()]
            return {
                "disk_bytes": sum(path.stat().st_size for path in self._folder.iterdir()),
                "memory_bytes": sum(field.memory for field in self._fields.values()),
                "index": "; ".join(words),
                "indexed": sum(field.covered for field in self._fields.values()),
            }


STORE = FaissStore


def connect(url: StoreURL, schema: Schema | None) -> FaissStore:
    """`faiss:FOLDER?index=FACTORY&gpu=false`. With a schema a new or empty folder becomes a collection."""
    if not url.location:
        raise InvalidInput("faiss: needs a folder, such as faiss:./dir")
    unknown = sorted(set(url.options) - {"index", "gpu"})
    if unknown:
        raise InvalidInput(f"faiss: has no option {unknown[0]!r}; known are index and gpu")
    gpu = url.options.get("gpu", "true")
    if gpu not in ("true", "false"):
        raise InvalidInput(f"faiss: gpu is true or false, got {gpu!r}")
    return FaissStore.open(Path(url.location), schema, url.options.get("index"), gpu == "true")


# --- one vector field ------------------------------------------------------------------------------


class _Field:
    """The vectors of one field, by slot, and their index.

    vectors: float32, (slots, d), mapped from the file. covered: the index holds the slots below.
    """

    def __init__(
        self, folder: Path, number: int, spec: VectorSpec, schema: Schema, factory: str | None, faiss: Any, gpu: bool
    ) -> None:
        self.spec = spec
        self.params = schema.index
        self.note = f"index {number}"
        self.path = folder
        self.vectors: Float32 = np.empty((0, spec.dim), np.float32)
        self.index: Any = None
        self.covered = self.memory = self._trained = 0
        self._bound = 0.0  # of squared lengths, where products are searched for by distances
        self._block = max(1, _BLOCK_BYTES // (4 * spec.dim))
        # More must be found than asked for. An index of full vectors ranks by them already, one of halves all but.
        self.lossy = not re.fullmatch(r"(.*,)?(Flat|HNSW\d+|SQfp16)", factory or _factory(schema, spec, 1))
        self._folder = folder
        self._number = number
        self._schema = schema
        self._given = factory
        self._faiss = faiss
        self._binary = factory is not None and _is_binary(factory)
        self._gpu = _Gpu(faiss) if gpu and _has_gpu(faiss) and not self._binary else None
        self._searched: Any = None  # the index, or its copy on the GPU
        self._search_params: dict[int, Any] = {}  # by ef

    # --- vectors ---

    def map(self, slots: int, generation: int) -> None:
        path = _vectors_file(self._folder, self._number, generation)
        if path != self.path:
            self.drop()
            self.path = path
        size = path.stat().st_size if path.exists() else 0
        if size < slots * self.spec.dim * 4:
            raise CollectionDamaged(f"{path} ends early, after {size} bytes; restore the folder from a backup")
        if slots:
            mapped = np.memmap(path, np.float32, "r", shape=(slots, self.spec.dim))
            self.vectors = np.asarray(mapped).view(np.ndarray)
        else:
            self.vectors = np.empty((0, self.spec.dim), np.float32)

    def write(self, slot: int, vectors: Float32) -> None:
        """From a slot on; on disk when it returns."""
        with self.path.open("r+b") as file:
            file.seek(slot * self.spec.dim * 4)
            _write_through(file, [vectors])

    def rewrite(self, kept: Slots, generation: int) -> None:
        """These slots alone, in the file of another generation."""
        with _vectors_file(self._folder, self._number, generation).open("wb") as file:
            _write_through(file, (self.vectors[kept[start:end]] for start, end in self._spans(0, len(kept))))
        _sync_folder(self._folder)

    # --- the index ---

    def drop(self) -> None:
        self.index = self._searched = None
        self.covered = self.memory = self._trained = 0
        self._bound = 0.0

    def told(self, data: Records) -> str:
        factory = self._factory(max(data.slots, 1))
        if factory == "Flat":
            return "none: searches are exact"
        state = f"{factory}: {self.covered} of {data.slots} vectors"
        if self.covered == data.slots:
            return state
        enough = _needed(factory)
        why = f"from {enough} on optimize() builds it" if data.slots < enough else "optimize() takes in what is due"
        return f"{state}, the others are searched exactly; {why}"

    def _factory(self, size: int) -> str:
        return self._given or _factory(self._schema, self.spec, size)

    def grow(self, data: Records) -> bool:
        """Whether the index is another than before: built, trained anew or extended."""
        size = data.slots
        factory = self._factory(size)
        due = size - self.covered >= _INDEX_FROM and size >= _needed(factory)
        if factory == "Flat" or not due:
            return False
        outgrown = self._trained and size > _RETRAIN * self._trained
        if self.index is None or outgrown or (self._bound and self._longest(self.covered, size) > self._bound):
            self._build(factory, size, data)
            return True
        try:
            for start in range(self.covered, size, _GROW_BLOCK):
                end = min(start + _GROW_BLOCK, size)
                with data.gate.exclusive():
                    self.index.add(self._coded(self.vectors[start:end], self._bound))
                    self.covered = end
            with data.gate.exclusive():
                self._use(self.index, size, self._trained, self._bound)
        except BaseException:
            with data.gate.exclusive():
                self.drop()  # what it holds is not certain; searches are exact until it is built again
            raise
        return True

    def _build(self, factory: str, size: int, data: Records) -> None:
        bound = _LONGER * self._longest(0, size) if _lifts(factory, self.spec) else 0.0
        index = _make(self._faiss, factory, self.spec, self.params.ef_construct)
        trained = 0
        if not index.is_trained:
            index.train(self._coded(self._sample(data.living, index), bound))
            trained = size
        for start, end in self._spans(0, size):
            index.add(self._coded(self.vectors[start:end], bound))
        with data.gate.exclusive():
            self._use(index, size, trained, bound)

    def _coded(self, vectors: Float32, bound: float) -> Any:
        """As the index takes them: with one more dimension if there is a bound, or as bits."""
        return np.packbits(vectors > 0, axis=1) if self._binary else _lifted(vectors, bound)

    def _longest(self, start: int, end: int) -> float:
        """The greatest squared length of some slots' vectors, at least the smallest number above 0."""
        spans = (self.vectors[a:b] for a, b in self._spans(start, end))
        return max((float(_squared(part).max()) for part in spans), default=0.0) or math.ulp(0.0)

    def _spans(self, start: int, end: int) -> Iterator[tuple[int, int]]:
        for at in range(start, end, self._block):
            yield at, min(at + self._block, end)

    def _sample(self, living: Slots, index: Any) -> Float32:
        lists = index.nlist if hasattr(index, "nlist") else 0
        count = max(64 * lists, 65_536)  # FAISS takes no more than 256 a centroid, of which a PQ has 256
        if len(living) > count:
            living = np.sort(np.random.default_rng(0).choice(living, count, replace=False))
        return self.vectors[living]

    def _use(self, index: Any, covered: int, trained: int, bound: float) -> None:
        self.index, self.covered, self._trained, self._bound = index, covered, trained, bound
        self._searched = self._gpu.copy(index) if self._gpu else index
        self._search_params.clear()

    def save(self, generation: int) -> dict[str, Any]:
        """Write the index; what it is noted as."""
        path = self._folder / f"index-{self._number}-{generation}.faiss"
        part = path.with_suffix(".tmp")
        flags = self._faiss.IO_FLAG_SKIP_STORAGE if self._vectors_apart(self.index) else 0
        try:
            with part.open("wb") as file:
                sink = _Sink(file)
                writer = self._faiss.PyCallbackIOWriter(sink, 2**20)
                if self._binary:
                    self._faiss.write_index_binary(self.index, writer)
                else:
                    self._faiss.write_index(self.index, writer, flags)
                file.flush()
                os.fsync(file.fileno())
            part.replace(path)
        finally:
            part.unlink(missing_ok=True)  # of a disk that is full
        _sync_folder(self._folder)
        self._weigh(path)
        return {
            "file": path.name, "generation": generation, "covered": self.covered, "trained": self._trained,
            "bound": self._bound, "crc32": sink.crc32,
        }  # fmt: skip

    def load(self, noted: Mapping[str, Any] | None, data: Records) -> None:
        """The saved index, if it is whole and fits; else there is none, and searches are exact."""
        if noted is None or noted["generation"] != data.generation or noted["covered"] > data.slots:
            return
        path = self._folder / noted["file"]
        if not path.is_file() or _crc32(path) != noted["crc32"]:
            return
        try:
            index = (self._faiss.read_index_binary if self._binary else self._faiss.read_index)(str(path))
        except RuntimeError:  # of another version of FAISS
            return
        if self._vectors_apart(index):
            storage = self._faiss.IndexFlat(index.d, index.metric_type)
            for start, end in self._spans(0, noted["covered"]):
                storage.add(_lifted(self.vectors[start:end], noted["bound"]))
            index.storage = storage
            storage.this.disown()
            index.own_fields = True
        if index.ntotal == noted["covered"]:
            self._use(index, noted["covered"], noted["trained"], noted["bound"])
            self._weigh(path)

    def _vectors_apart(self, index: Any) -> bool:
        """A graph over full vectors, which are in a file of ours already."""
        return type(index) is self._faiss.IndexHNSWFlat

    def _weigh(self, path: Path) -> None:
        self.memory = path.stat().st_size
        if self._vectors_apart(self.index):
            self.memory += self.covered * self.spec.dim * 4

    # --- searching ---

    def approximate(self, queries: Float32, depth: int, ef: int) -> tuple[Scores, Slots]:
        """Of the index: FAISS's distances or products, best first, and slots; (q, depth), -1 for none."""
        if self._bound:
            queries = np.pad(queries, ((0, 0), (0, 1)))
        elif self._binary:
            queries = self._coded(queries, 0.0)
        params = self._search_params.get(ef)
        if params is None:  # making them takes a tenth of a search
            params = _search_params(self._faiss, self.index, ef, self.params.m)
            if len(self._search_params) < _KEPT_PARAMS:
                self._search_params[ef] = params
        if self._gpu and self._searched is not self.index:
            with self._gpu.turn:
                found = self._searched.search(queries, depth, params=params)
        else:
            found = self._searched.search(queries, depth, params=params)
        distances, slots = found
        return distances, slots

    def approximate_scores(self, query: Float32, distances: Scores) -> Scores:
        """The contract's, of what the index said."""
        if self.spec.metric == "cosine":  # of unit vectors, by their distance
            return np.clip(1 - distances / 2, -1, 1)
        if self._bound:
            return np.asarray((self._bound + query @ query - distances) / 2, np.float32)
        return -np.sqrt(np.maximum(distances, 0)) if self.spec.metric == "l2" else distances

    def nearest(self, queries: Float32, slots: Slots, depth: int) -> Slots:
        """Of some slots the nearest, by float32; (q, depth)."""
        metric = self._faiss.METRIC_L2 if self.spec.metric == "l2" else self._faiss.METRIC_INNER_PRODUCT
        best = np.empty((len(queries), 0), np.float32)
        found = np.empty((len(queries), 0), np.int64)
        for start, end in self._spans(0, len(slots)):
            part = slots[start:end]
            if part[-1] - part[0] + 1 == len(part):
                distances, near = self._faiss.knn(
                    queries, self.vectors[part[0] : part[-1] + 1], min(depth, len(part)), metric
                )
                near += part[0]
            elif len(queries) < _GATHER:
                distances, near = self._nearest_of(queries, part, min(depth, len(part)), metric)
            else:
                distances, places = self._faiss.knn(queries, self.vectors[part], min(depth, len(part)), metric)
                near = part[places]
            best = np.hstack([best, distances if metric == self._faiss.METRIC_L2 else -distances])
            found = np.hstack([found, near])
            if best.shape[1] > depth:
                keep = np.argpartition(best, depth - 1, axis=1)[:, :depth]
                best, found = np.take_along_axis(best, keep, 1), np.take_along_axis(found, keep, 1)
        return found

    def _nearest_of(self, queries: Float32, slots: Slots, depth: int, metric: int) -> tuple[Scores, Slots]:
        """FAISS's comparison where the vectors lie, which its Python module has for its own types only."""
        faiss, (count, dim) = self._faiss, queries.shape
        queries, slots = np.ascontiguousarray(queries), np.ascontiguousarray(slots)
        distances, found = np.empty((count, depth), np.float32), np.empty((count, depth), np.int64)
        compare = faiss.knn_L2sqr_by_idx if metric == faiss.METRIC_L2 else faiss.knn_inner_products_by_idx
        compare(
            faiss.swig_ptr(queries), faiss.swig_ptr(self.vectors), faiss.swig_ptr(slots), dim, count,
            len(self.vectors), len(slots), depth, faiss.swig_ptr(distances), faiss.swig_ptr(found), 0,
        )  # fmt: skip
        return distances, found

    def scores(self, query: Float32, slots: Slots) -> Scores:
        """The contract's, (n,). In float64, so that equal vectors score equal wherever they lie, told in float32."""
        vectors, wanted = self.vectors.take(slots, 0).astype(np.float64), query.astype(np.float64)
        if self.spec.metric == "l2":
            gaps = vectors - wanted
            exact = -np.sqrt(np.einsum("nd,nd->n", gaps, gaps))
        else:
            exact = np.vecdot(vectors, wanted)
            if self.spec.metric == "cosine":
                np.minimum(np.maximum(exact, -1, out=exact), 1, out=exact)
        told: Scores = exact.astype(np.float32) + np.float32(0)  # no -0
        return told


class _Search:
    """How to find the k best of a mask's slots (None: of all): by the index where that is faster, else exactly."""

    def __init__(self, field: _Field, slots: int, mask: Mask | None, k: int, ef: int | None, exact: bool) -> None:
        params = field.params
        self._field = field
        self._slots = slots
        self._mask = mask
        self._k = k
        self._rescored = params.rescore or not field.lossy
        covered = 0 if exact else field.covered
        inside = covered if mask is None else int(np.count_nonzero(mask[:covered]))
        self._wanted = math.ceil(k * (params.oversampling if field.lossy and self._rescored else 1)) + _SPARE
        rarity = covered / max(inside, 1)
        wide = math.ceil(_MARGIN * self._wanted * rarity)
        self._depth = wide if inside < covered else self._wanted
        self._ef = max(math.ceil((ef or params.ef) * math.sqrt(rarity)), wide)
        if inside <= max(_EXACT_ROWS, _EXACT_ROWS_AN_EF * self._ef):
            covered = inside = 0
        self._inside = inside
        self._rest = self._from(covered)  # compared exactly, beside what the index finds

    def _from(self, slot: int) -> Slots:
        return np.arange(slot, self._slots) if self._mask is None else np.flatnonzero(self._mask[slot:]) + slot

    def run(self, queries: Float32) -> Iterator[tuple[list[int], list[float]]]:
        """A query: slots and scores, at least the k best and what ties with the last of them, in any order."""
        beside = self._near(queries, self._rest)
        if not self._inside:
            for query, near in zip(queries, beside, strict=True):
                yield self._exact(query, near, self._rest)
            return
        distances, found = self._field.approximate(queries, self._depth, self._ef)
        for i, query in enumerate(queries):
            slots, scores = found[i], distances[i]
            if self._mask is not None or slots[-1] < 0:
                good = slots >= 0
                if self._mask is not None:
                    good &= self._mask[slots]
                slots, scores = slots[good], scores[good]
            if len(slots) < min(self._k, self._inside):  # too few satisfy the condition around here
                every = self._from(0)
                yield self._exact(query, self._near(query[None], every)[0], every)
                continue
            slots = slots[: self._wanted]
            if self._rescored:
                scores = self._field.scores(query, slots)
            else:
                scores = self._field.approximate_scores(query, scores[: self._wanted])
            if len(self._rest):
                slots = np.concatenate([slots, beside[i]])
                scores = np.concatenate([scores, self._field.scores(query, beside[i])])
            yield _best(slots, scores, self._k)

    def _near(self, queries: Float32, among: Slots) -> Slots:
        if not len(among):
            return np.empty((len(queries), 0), np.int64)
        return self._field.nearest(queries, among, self._k + _SLACK)

    def _exact(self, query: Float32, near: Slots, among: Slots) -> tuple[list[int], list[float]]:
        """Of the nearest by float32; of more of them while what was cut off may tie with the k-th."""
        while True:
            scores = self._field.scores(query, near)
            if len(near) == len(among):
                break
            ranked = np.sort(scores)
            if ranked[0] < ranked[-self._k] - 2e-6 * np.abs(ranked).max():
                break
            near = self._field.nearest(query[None], among, min(8 * len(near), len(among)))[0]
        return _best(near, scores, self._k)


def _rank(hit: Hit) -> tuple[float, str]:
    return -hit.score, hit.id


def _best(slots: Slots, scores: Scores, k: int) -> tuple[list[int], list[float]]:
    if len(scores) > k:
        enough = scores >= np.partition(scores, len(scores) - k)[len(scores) - k]
        slots, scores = slots[enough], scores[enough]
    return slots.tolist(), scores.tolist()


# --- indexes ---------------------------------------------------------------------------------------


def _factory(schema: Schema, spec: VectorSpec, size: int) -> str:
    """The factory string of IndexParams, for a collection of this size."""
    m = schema.index.m
    # The rule of FAISS's guidelines, with points enough to train each list's centroid.
    lists = max(1, min(round(4 * math.sqrt(size)), size // _POINTS_PER_CENTROID))
    match schema.index.quantization:
        case "none":
            # Of vectors of unit length, half a float's range is no bound, and its precision none on what is found.
            return f"HNSW{m},SQfp16" if spec.metric == "cosine" else f"HNSW{m}"
        case "scalar":
            return f"HNSW{m},SQ8"
        case "product":
            parts = next(n for n in range(max(1, spec.dim // 4), 0, -1) if spec.dim % n == 0)
            return f"IVF{lists}_HNSW{m},PQ{parts}np"  # np: no polysemous training, most of the time and unused here
        case "binary":
            return f"IVF{lists}_HNSW{m},RaBitQ"


def _needed(factory: str) -> int:
    """Vectors that an index's training needs."""
    centroids = [int(lists) for lists in re.findall(r"IVF(\d+)", factory)] + [256] * ("PQ" in factory)
    return max([_POINTS_PER_CENTROID * count for count in centroids], default=0)


def _lifts(factory: str, spec: VectorSpec) -> bool:
    """Whether inner products are searched for by distances, in one more dimension."""
    return spec.metric == "dot" and factory.startswith("HNSW")


def _lifted(vectors: Float32, bound: float) -> Float32:
    """With one more dimension, such that all have this squared length; as they are if it is 0."""
    if not bound:
        return vectors
    rest = np.sqrt(np.maximum(bound - _squared(vectors), 0))
    return np.hstack([vectors, rest[:, None].astype(np.float32)])


def _squared(vectors: Float32) -> NDArray[np.float64]:
    lengths: NDArray[np.float64] = np.einsum("nd,nd->n", vectors, vectors, dtype=np.float64)
    return lengths


def _metric(faiss: Any, factory: str, spec: VectorSpec) -> int:
    """Cosines by products in a graph, where those are faster; else by distances: of unit vectors the order is the same,
    and FAISS's quantizers are made for those."""
    products = (spec.metric == "dot" and not _lifts(factory, spec)) or (
        spec.metric == "cosine" and re.fullmatch(r"HNSW\d+(,SQfp16)?", factory) is not None
    )
    metric: int = faiss.METRIC_INNER_PRODUCT if products else faiss.METRIC_L2
    return metric


def _is_binary(factory: str) -> bool:
    return re.match("B(Flat|HNSW|IVF|Hash)", factory) is not None


def _make(faiss: Any, factory: str, spec: VectorSpec, ef_construct: int) -> Any:
    if _is_binary(factory):
        index = faiss.index_binary_factory(-(-spec.dim // 8) * 8, factory)
    else:
        index = faiss.index_factory(spec.dim + _lifts(factory, spec), factory, _metric(faiss, factory, spec))
    for part in _parts(faiss, index):
        if isinstance(part, faiss.IndexHNSW | faiss.IndexBinaryHNSW):
            part.hnsw.efConstruction = ef_construct
    return index


def _parts(faiss: Any, index: Any) -> Iterator[Any]:
    """An index and what it is made of."""
    index = (faiss.downcast_IndexBinary if isinstance(index, faiss.IndexBinary) else faiss.downcast_index)(index)
    yield index
    if isinstance(index, faiss.IndexPreTransform):
        yield from _parts(faiss, index.index)
    if isinstance(index, faiss.IndexIVF | faiss.IndexBinaryIVF):
        yield from _parts(faiss, index.quantizer)


def _search_params(faiss: Any, index: Any, ef: int, m: int) -> Any:
    if isinstance(index, faiss.IndexPreTransform):
        inner = faiss.downcast_index(index.index)
        return faiss.SearchParametersPreTransform(index_params=_search_params(faiss, inner, ef, m))
    if isinstance(index, faiss.IndexHNSW | faiss.IndexBinaryHNSW):
        return faiss.SearchParametersHNSW(efSearch=ef)
    if isinstance(index, faiss.IndexIVF | faiss.IndexBinaryIVF):
        probes = math.ceil(ef * m * index.nlist / max(index.ntotal, 1))
        return faiss.SearchParametersIVF(nprobe=min(max(probes, 8), index.nlist))
    return None


def _check_factory(faiss: Any, schema: Schema, factory: str | None) -> None:
    """Raises for a factory string that FAISS does not know or that has no place here."""
    if factory is not None:
        if schema.index.quantization != "none" or schema.index.m != type(schema.index)().m:
            raise InvalidInput(f"index={factory} says m and the quantization already; leave them out of `index`")
        if any(part in factory for part in _NO_PLACE):
            raise UnsupportedError(
                f"index={factory}: ids, full vectors to rescore by and incremental adding are this store's own; leave "
                f"{', '.join(_NO_PLACE)} out"
            )
        if _is_binary(factory):
            _check_binary(schema, factory)
    for name, spec in schema.vectors.items():
        string = factory or _factory(schema, spec, 1)
        _check_numbers(string, factory)
        try:
            index = _make(faiss, string, spec, schema.index.ef_construct)
        except RuntimeError as error:
            why = str(error).rpartition("Error: ")[2] or str(error)
            raise InvalidInput(f"index={string}: FAISS cannot make it for vector {name!r} ({why})") from None
        if factory is not None:
            _check_used(faiss, factory, index, schema.index)
        floats = not _is_binary(string)
        if floats and any(part.metric_type != _metric(faiss, string, spec) for part in _parts(faiss, index)):
            raise UnsupportedError(
                f"index={string}: FAISS has it for distances alone, vector {name!r} is {spec.metric}"
            )


def _check_binary(schema: Schema, factory: str) -> None:
    """Raises for a binary index that finds too little, or where Hamming distances between signs mean nothing."""
    if not _BINARY.fullmatch(factory):
        raise UnsupportedError(
            f"index={factory}: of FAISS's binary indexes there are BFlat, BHNSW32, BIVF1024 and BIVF1024_HNSW32 here "
            "(with any numbers); or use quantization binary, which is IVF1024,RaBitQ"
        )
    for name, spec in schema.vectors.items():
        if spec.metric == "l2":
            raise UnsupportedError(
                f"index={factory}: signs tell nothing of distances, vector {name!r} is l2; "
                "use quantization binary, which is IVF1024,RaBitQ, or cosine or dot"
            )
    if not schema.index.rescore:
        raise UnsupportedError(f"index={factory}: Hamming distances are no scores; leave rescore on")


def _check_used(faiss: Any, factory: str, index: Any, params: IndexParams) -> None:
    """Raises for what was asked for and such an index has no use for."""
    parts = list(_parts(faiss, index))
    graph = any(isinstance(part, faiss.IndexHNSW | faiss.IndexBinaryHNSW) for part in parts)
    lists = any(isinstance(part, faiss.IndexIVF | faiss.IndexBinaryIVF) for part in parts)
    unused = [("ef_construct", not graph), ("ef", not graph and not lists)]
    default = IndexParams()
    if named := [name for name, idle in unused if idle and getattr(params, name) != getattr(default, name)]:
        raise InvalidInput(f"index={factory} has no {' and no '.join(named)}; leave that out of `index`")


def _check_numbers(string: str, factory: str | None) -> None:
    """Raises for numbers that FAISS does not check: making or filling such an index would end the process."""
    if any(int(links) < 2 for links in re.findall(r"HNSW(\d+)", string)):
        given = "m" if factory is None else f"index={factory}"
        raise InvalidInput(f"{given}: FAISS needs at least 2 links a node of an HNSW graph; leave it out for 16")
    if any(int(lists) < 1 for lists in re.findall(r"IVF(\d+)", string)):
        raise InvalidInput(f"index={string}: an IVF index has at least 1 list")


def _has_gpu(faiss: Any) -> bool:
    return hasattr(faiss, "StandardGpuResources") and faiss.get_num_gpus() > 0


class _Gpu:
    """Copies of indexes on the first GPU. turn: one search at a time, as FAISS asks for."""

    def __init__(self, faiss: Any) -> None:
        self.turn = threading.Lock()
        self._faiss = faiss
        self._resources = faiss.StandardGpuResources()

    def copy(self, index: Any) -> Any:
        try:
            return self._faiss.index_cpu_to_gpu(self._resources, 0, index)
        except RuntimeError:  # this type has no form there, or the memory is too small
            return index


# --- files and errors ------------------------------------------------------------------------------


def _client() -> ModuleType:
    try:
        import faiss
    except ImportError as error:
        raise MissingDependency("the FAISS store needs faiss-cpu; run: pip install 'nearest[faiss]'") from error
    return faiss


def _schema_of(folder: Path, facts: Mapping[str, Any]) -> Schema:
    if facts.get("format") != _FORMAT:
        raise CollectionDamaged(f"{folder} has the format {facts.get('format')}, this version reads {_FORMAT}")
    try:
        return Schema.from_json(facts["schema"])
    except (ValueError, KeyError, TypeError) as error:
        raise CollectionDamaged(f"the schema in {folder} cannot be read ({error}); restore it from a backup") from None


def _vectors_file(folder: Path, number: int, generation: int) -> Path:
    return folder / f"vectors-{number}-{generation}.f32"


class _Sink:
    """Where FAISS writes an index: a file, and its checksum."""

    def __init__(self, file: Any) -> None:
        self.crc32 = 0
        self._file = file

    def __call__(self, data: bytes) -> None:
        self._file.write(data)
        self.crc32 = zlib.crc32(data, self.crc32)


def _crc32(path: Path) -> int:
    value = 0
    with path.open("rb") as file:
        while data := file.read(2**20):
            value = zlib.crc32(data, value)
    return value


def _write_through(file: Any, blocks: Any) -> None:
    for block in blocks:
        file.write(np.ascontiguousarray(block).data)
    file.flush()
    os.fsync(file.fileno())


def _sync_folder(folder: Path) -> None:
    """Make renames and new files last; a system that has no such call (Windows) does it by itself."""
    if hasattr(os, "O_DIRECTORY"):
        number = os.open(folder, os.O_DIRECTORY)
        try:
            os.fsync(number)
        finally:
            os.close(number)


@contextlib.contextmanager
def _errors(folder: Path) -> Iterator[None]:
    """What SQLite, FAISS and the operating system say, as ours."""
    try:
        yield
    except NearestError:
        raise
    except sqlite3.Error as error:
        code = getattr(error, "sqlite_errorcode", 0) & 0xFF
        _folder.raise_disk_error(error, folder)
        if code == sqlite3.SQLITE_FULL:
            raise DiskFull(f"{folder}: the disk is full; free some space and run it again ({error})") from error
        if code in (sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PERM):
            raise ReadOnly(f"{folder} cannot be written ({error}); check its permissions") from error
        if code == sqlite3.SQLITE_BUSY:
            raise CollectionLocked(f"{folder} is open in another program; close it there and try again") from error
        if code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
            raise CollectionDamaged(f"{folder / _RECORDS} is damaged ({error}); restore it from a backup") from error
        raise StorageError(f"{folder}: SQLite refused: {error}") from error
    except (OSError, RuntimeError) as error:
        _folder.raise_disk_error(error, folder)
        raise StorageError(f"{folder}: {error}") from error
