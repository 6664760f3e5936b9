"""Records in SQLite: ids, payloads, and exactly which of them satisfy a condition. For stores that keep vectors apart.

Every record has a slot, a number from 0 that says where its vectors lie. A slot is given once: an upsert takes a
new one and leaves the old one dead, so that what holds of a slot holds for good, until `compact` numbers the living
ones afresh. Declared fields have their values in an indexed table; conditions on others are evaluated on the
payloads. Each condition is evaluated once a slot: its result is kept, and completed for slots that came later.
"""

from __future__ import annotations

import contextlib
import json
import sqlite3
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from nearest import filters
from nearest.contract import FieldKind, Record
from nearest.errors import InvalidRecord
from nearest.filters import And, Comparison, Filter, Loose, Not, Or

Slots = NDArray[np.int64]
Mask = NDArray[np.bool_]
T = TypeVar("T")
Row = tuple[str, dict[str, Any]]  # id, payload

MAX_PAYLOAD = 2**27  # characters of JSON; SQLite takes a thousand million bytes
_VARIABLES = 500  # of one statement
_MASK_BYTES = 64 * 2**20  # kept results of conditions, all together
_KEPT_TEXT = 16 * 2**20  # characters of payloads as JSON that are kept, all together
_TABLES = (
    "CREATE TABLE facts (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID",
    "CREATE TABLE records (slot INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, payload TEXT NOT NULL)",
    "CREATE TABLE field_values (field INTEGER, value, slot INTEGER, PRIMARY KEY (field, value, slot)) WITHOUT ROWID",
)
_NO_SCALAR = b""  # stands for a list of nulls: it exists and equals nothing; a blob sorts after every text
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_ORDER = {"$gt": ">", "$gte": ">=", "$lt": "<", "$lte": "<="}


class Gate:
    """Many readers at a time, or one writer; a waiting writer goes before new readers. Not reentrant."""

    def __init__(self) -> None:
        self._turn = threading.Condition()
        self._readers = 0
        self._writers = 0  # waiting or inside
        self._writing = False

    @contextlib.contextmanager
    def shared(self) -> Iterator[None]:
        with self._turn:
            while self._writers:
                self._turn.wait()
            self._readers += 1
        try:
            yield
        finally:
            with self._turn:
                self._readers -= 1
                if not self._readers:
                    self._turn.notify_all()

    @contextlib.contextmanager
    def exclusive(self) -> Iterator[None]:
        with self._turn:
            self._writers += 1
            try:
                while self._readers or self._writing:
                    self._turn.wait()
                self._writing = True
            except BaseException:
                self._writers -= 1
                self._turn.notify_all()
                raise
        try:
            yield
        finally:
            with self._turn:
                self._writing = False
                self._writers -= 1
                self._turn.notify_all()


class Records:
    """The records of one collection, durable when a write returns.

    One thread writes at a time; readers hold `gate.shared()`, and only the moment of a commit shuts them out.
    changed: called then, and after a failed write: `slots` and `generation` may be others than before.
    slots: how many were given. generation: how often they were numbered afresh. count: records, living ones.
    """

    def __init__(self, path: Path, fields: Mapping[str, FieldKind], changed: Callable[[], None]) -> None:
        self.gate = Gate()
        self.slots = self.generation = self.count = 0
        self._path = path
        self._fields = {tuple(name.split(".")): (number, kind) for number, (name, kind) in enumerate(fields.items())}
        self._changed = changed
        self._alive: Mask = np.zeros(0, np.bool_)
        self._masks: OrderedDict[str, Mask] = OrderedDict()
        self._masks_lock = threading.Lock()
        self._rows: dict[int, tuple[str, str]] = {}  # ids and payloads as JSON, by slot
        self._rows_size = 0
        self._idle: list[sqlite3.Connection] = []
        self._writer = _connect(path)
        self._load()

    @staticmethod
    def create(path: Path, facts: Mapping[str, Any]) -> None:
        """An empty collection; it is there as a whole or not at all."""
        db = _connect(path)
        try:
            db.execute("PRAGMA journal_mode = WAL")
            db.execute("BEGIN IMMEDIATE")
            for table in _TABLES:
                db.execute(table)
            for name, value in {**facts, "slots": 0, "generation": 0}.items():
                _set(db, name, value)
            db.execute("COMMIT")
        finally:
            db.close()

    @staticmethod
    def facts(path: Path) -> dict[str, Any] | None:
        """What was given to `create`; None where no creation was completed."""
        db = _connect(path)
        try:
            if not db.execute("SELECT 1 FROM sqlite_master WHERE name = 'facts'").fetchone():
                return None
            return {name: json.loads(value) for name, value in db.execute("SELECT name, value FROM facts")}
        finally:
            db.close()

    def close(self) -> None:
        with self.gate.exclusive():
            while self._idle:
                self._idle.pop().close()
            self._writer.close()  # the last connection: SQLite folds the write-ahead log in

    def _load(self) -> None:
        db = self._writer
        self.slots, self.generation = _get(db, "slots"), _get(db, "generation")
        living = np.array(db.execute("SELECT slot FROM records").fetchall(), np.int64).ravel()
        self._alive = np.zeros(self.slots, np.bool_)
        self._alive[living] = True
        self.count = len(living)
        self._masks.clear()
        self._rows, self._rows_size = {}, 0

    @property
    def alive(self) -> Mask:
        """By slot; not to be written."""
        return self._alive[: self.slots]

    @property
    def living(self) -> Slots:
        """Slots, ascending."""
        return np.flatnonzero(self.alive)

    # --- writing ---

    def put(self, records: Sequence[Record]) -> None:
        """In the slots from `slots` on, one a record, in their order; ids are distinct."""
        rows = [(slot, record.id, _dumps(record)) for slot, record in enumerate(records, self.slots)]
        with self._transaction() as db:
            old = list(self._find(db, [record.id for record in records]).values()) if self.count else []
            _delete(db, old)
            db.executemany("INSERT INTO records VALUES (?, ?, ?)", rows)
            db.executemany("INSERT OR IGNORE INTO field_values VALUES (?, ?, ?)", self._values(records))
            self._commit(db, old, len(rows))
        # What was written last is likely to be found next.
        self._keep({slot: (record_id, text) for slot, record_id, text in rows})

    def remove(self, slots: Sequence[int]) -> None:
        with self._transaction() as db:
            _delete(db, slots)
            self._commit(db, slots, 0)

    def compact(self, kept: Slots) -> None:
        """Number these slots, which are the living ones, from 0 on in their order; one generation later."""
        moves = [(new, old) for new, old in enumerate(kept.tolist())]
        with self._transaction() as db:
            db.execute("CREATE TEMP TABLE moved (new INTEGER, old INTEGER PRIMARY KEY)")
            db.executemany("INSERT INTO moved VALUES (?, ?)", moves)
            db.execute("CREATE TEMP TABLE kept AS SELECT field, value, new FROM field_values JOIN moved ON old = slot")
            db.execute("DELETE FROM field_values")
            db.execute("INSERT INTO field_values SELECT field, value, new FROM kept")
            db.execute("DROP TABLE kept")
            db.execute("DROP TABLE moved")
            # Ascending: a new number is never above the old one, so it is free by then.
            db.executemany("UPDATE records SET slot = ? WHERE slot = ?", moves)
            _set(db, "slots", len(kept))
            _set(db, "generation", self.generation + 1)
            with self.gate.exclusive():
                db.execute("COMMIT")
                self._load()
                self._changed()

    def note(self, name: str, value: Any) -> None:
        """Keep a JSON value under a name."""
        with self._transaction() as db:
            _set(db, name, value)
            db.execute("COMMIT")

    def noted(self, name: str) -> Any:
        return _get(self._writer, name)

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        db = self._writer
        db.execute("BEGIN IMMEDIATE")
        try:
            yield db
        except BaseException:
            # Also an interrupt between the commit and what follows it: what is on disk decides.
            with self.gate.exclusive():
                if db.in_transaction:
                    db.execute("ROLLBACK")
                self._load()
                self._changed()
            raise

    def _commit(self, db: sqlite3.Connection, dead: Sequence[int], added: int) -> None:
        end = self.slots + added
        _set(db, "slots", end)
        with self.gate.exclusive():
            db.execute("COMMIT")
            if end > len(self._alive):
                grown = np.zeros(max(end, 2 * len(self._alive)), np.bool_)
                grown[: self.slots] = self.alive
                self._alive = grown
            self._alive[list(dead)] = False
            self._alive[self.slots : end] = True
            self.count += added - len(dead)
            self.slots = end
            self._changed()

    def _values(self, records: Sequence[Record]) -> Iterator[tuple[int, Any, int]]:
        for path, (number, kind) in self._fields.items():
            for slot, record in enumerate(records, self.slots):
                value = filters.resolve(record.payload, path)
                if isinstance(value, list):
                    keys: list[Any] = [key for item in value if (key := _key(kind, item)) is not None]
                    for key in keys or [_NO_SCALAR] * bool(value):
                        yield number, key, slot
                elif value is not None:
                    yield number, _key(kind, value), slot

    # --- reading ---

    @contextlib.contextmanager
    def _reader(self) -> Iterator[sqlite3.Connection]:
        try:
            db = self._idle.pop()
        except IndexError:
            db = _connect(self._path)
        try:
            yield db
        finally:
            self._idle.append(db)

    def find(self, ids: Sequence[str]) -> dict[str, int]:
        """The slots of those that are there, by id."""
        with self._reader() as db:
            return self._find(db, ids)

    @staticmethod
    def _find(db: sqlite3.Connection, ids: Sequence[str]) -> dict[str, int]:
        found: dict[str, int] = {}
        for part in _parts(ids):
            found.update(db.execute(f"SELECT id, slot FROM records WHERE id IN ({_marks(part)})", part))
        return found

    def rows(self, slots: Sequence[int], *, payloads: bool = True, keep: bool = False) -> list[Row]:
        """Of each of these slots, which are all taken; payloads are left empty unless asked for.

        keep: in memory too, for the next time.
        """
        try:
            found = [self._rows[slot] for slot in slots]
        except KeyError:
            read = {slot: row for slot in slots if (row := self._rows.get(slot)) is not None}
            read |= self._read([slot for slot in slots if slot not in read], keep)
            found = [read[slot] for slot in slots]
        if not payloads:
            return [(record_id, {}) for record_id, _ in found]
        # One call for all of them, which is half the time.
        loaded = json.loads("[" + ",".join([text for _, text in found]) + "]")
        return [(record_id, payload) for (record_id, _), payload in zip(found, loaded, strict=True)]

    def _read(self, slots: Sequence[int], keep: bool) -> dict[int, tuple[str, str]]:
        read: dict[int, tuple[str, str]] = {}
        with self._reader() as db:
            for part in _parts(slots):
                sql = f"SELECT slot, id, payload FROM records WHERE slot IN ({_marks(part)})"
                read.update((slot, (record_id, text)) for slot, record_id, text in db.execute(sql, part))
        if keep:
            self._keep(read)
        return read

    def _keep(self, read: Mapping[int, tuple[str, str]]) -> None:
        size = sum([len(text) for _, text in read.values()])
        if self._rows_size + size > _KEPT_TEXT:
            self._rows, self._rows_size = {}, 0
        if size <= _KEPT_TEXT:
            self._rows.update(read)
            self._rows_size += size

    def page(self, after: str | None, limit: int, mask: Mask) -> tuple[list[int], bool]:
        """Slots of the mask by rising id, from the one after an id on; and whether there are more."""
        found: list[int] = []
        here = "" if after is None else after
        with self._reader() as db:
            while True:
                rows = db.execute(
                    "SELECT id, slot FROM records WHERE id > ? ORDER BY id LIMIT ?", (here, max(limit + 1, 10_000))
                ).fetchall()
                if not rows:
                    return found, False
                wanted = mask[np.array([slot for _, slot in rows], np.int64)]
                found += [slot for (_, slot), there in zip(rows, wanted.tolist(), strict=True) if there]
                if len(found) > limit:
                    return found[:limit], True
                here = rows[-1][0]

    # --- conditions ---

    def matching(self, where: Filter | None) -> Mask:
        """By slot: living records that satisfy a condition; not to be written."""
        return self.alive if where is None else self._held(where) & self.alive

    def _held(self, where: Filter) -> Mask:
        key = repr(where)  # not the tree itself, to which 1 and True are equal
        with self._masks_lock:
            mask = self._masks.get(key)
        if mask is None:
            mask = self._evaluate(where, 0)
        elif len(mask) < self.slots:
            mask = np.concatenate([mask, self._evaluate(where, len(mask))])
        with self._masks_lock:
            self._masks[key] = mask
            self._masks.move_to_end(key)
            while len(self._masks) > max(1, _MASK_BYTES // max(1, self.slots)):
                self._masks.popitem(last=False)
        return mask

    def _evaluate(self, where: Filter, start: int) -> Mask:
        """Of the slots from `start` on; dead ones may come out either way."""
        bound, exact = filters.upper_bound(where, self._support)
        found = self._combine(bound, start)
        if not exact:
            candidates = np.flatnonzero(found & self.alive[start:]) + start
            for part in _parts(candidates.tolist()):  # not all payloads in memory at once
                for slot, (_, payload) in zip(part, self.rows(part), strict=True):
                    found[slot - start] = filters.evaluate(where, payload)
        return found

    def _support(self, comparison: Comparison) -> filters.Support:
        if comparison.path not in self._fields:
            return "none"
        return "superset" if comparison.op == "$contains" else "exact"

    def _combine(self, node: Filter, start: int) -> Mask:
        match node:
            case And(parts):
                return _all([self._combine(part, start) for part in parts], self.slots - start)
            case Or(parts):
                return ~_all([~self._combine(part, start) for part in parts], self.slots - start)
            case Not(part):
                return ~self._combine(part, start)
            case Loose(part):
                return self._leaf(part, start)
            case Comparison():
                return self._leaf(node, start)

    def _leaf(self, comparison: Comparison, start: int) -> Mask:
        if comparison.path not in self._fields:
            return np.ones(self.slots - start, np.bool_)
        found = np.zeros(self.slots - start, np.bool_)
        number, kind = self._fields[comparison.path]
        with self._reader() as db:
            for condition, values in _conditions(kind, comparison):
                rows = db.execute(
                    f"SELECT slot FROM field_values WHERE field = ? {condition} AND slot >= ?",
                    (number, *values, start),
                ).fetchall()
                found[np.array(rows, np.int64).ravel() - start] = True
        return found


def _conditions(kind: FieldKind, comparison: Comparison) -> Iterator[tuple[str, Sequence[Any]]]:
    """In SQL, any of them; for `$contains` a superset. Numbers sort before texts, and those before blobs."""
    op, value = comparison.op, comparison.value
    match op:
        case "$exists":
            yield "", ()
        case "$contains" if isinstance(value, str) and kind in ("keyword", "datetime"):
            yield "AND value < ''", ()  # instants, whose text is not kept
            yield "AND value >= '' AND instr(value, ?)", (value,)
        case "$eq" | "$in" | "$contains":
            values = value if isinstance(value, tuple) else (value,)
            keys = [key for item in values if (key := _key(kind, item)) is not None]
            for part in _parts(keys):
                yield f"AND value IN ({_marks(part)})", part
        case _:
            key = _key(kind, value)
            if kind != "bool" and isinstance(key, int | float):
                yield f"AND value {_ORDER[op]} ? AND value < ''", (key,)


def _key(kind: FieldKind, value: Any) -> str | int | float | None:
    """What stands for a value, stored or asked for, such that equal ones are equal and numbers are in order.

    None for what no value of such a field equals. An instant is microseconds since 1970.
    """
    if kind in ("keyword", "datetime"):
        if not isinstance(value, str):
            return None
        instant = filters.instant(value)
        return value if instant is None else (instant - _EPOCH) // timedelta(microseconds=1)
    if isinstance(value, bool):
        return int(value) if kind == "bool" else None
    return value if isinstance(value, int | float) and kind != "bool" else None


def _all(masks: list[Mask], size: int) -> Mask:
    return np.logical_and.reduce(masks) if masks else np.ones(size, np.bool_)


def _connect(path: Path) -> sqlite3.Connection:
    db = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    db.execute("PRAGMA synchronous = FULL")  # a commit is on disk when it returns
    return db


def _dumps(record: Record) -> str:
    text = json.dumps(record.payload, ensure_ascii=False, separators=(",", ":"))
    if len(text) > MAX_PAYLOAD:
        raise InvalidRecord(
            f"record {record.id!r}: the payload is {len(text)} characters as JSON; at most {MAX_PAYLOAD} are kept, "
            "so split it into several records"
        )
    return text


def _get(db: sqlite3.Connection, name: str) -> Any:
    found = db.execute("SELECT value FROM facts WHERE name = ?", (name,)).fetchone()
    return None if found is None else json.loads(found[0])


def _set(db: sqlite3.Connection, name: str, value: Any) -> None:
    db.execute("INSERT OR REPLACE INTO facts VALUES (?, ?)", (name, json.dumps(value)))


def _delete(db: sqlite3.Connection, slots: Sequence[int]) -> None:
    db.executemany("DELETE FROM records WHERE slot = ?", ((slot,) for slot in slots))


def _parts(items: Sequence[T]) -> Iterator[Sequence[T]]:
    for start in range(0, len(items), _VARIABLES):
        yield items[start : start + _VARIABLES]


def _marks(part: Sequence[Any]) -> str:
    return ",".join("?" * len(part))
