"""From documents to searchable chunks, in three overlapping stages.

    the caller's thread    checks, hashes, skips what is unchanged, chunks
    thread "embed"         embeds groups of chunks
    thread "write"         intent, upsert, commit, delete; one group at a time, in order

The queues between them are short, so memory does not grow with the corpus. A stop (Ctrl-C, an error)
lets the group that is being written finish; whatever was not committed is done by the next run.
"""

from __future__ import annotations

import hashlib
import queue
import threading
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from nearest.contract import (
    Chunk,
    Chunker,
    Document,
    Embedder,
    Failure,
    FieldKind,
    Float32,
    Record,
    Store,
    canonical_json,
    check_document,
    check_fields,
)
from nearest.errors import InvalidDocument, InvalidInput, ModelError
from nearest.ledger import Change

if TYPE_CHECKING:
    from nearest.ledger import Ledger

_NAMESPACE = uuid.UUID("0b0bb9d6-7a0b-5b55-8a66-5f0a6d3d9f51")
_LOOKUP = 128  # documents checked against the ledger at once
_LOOKUP_CHARS = 4_000_000
_GROUP = 256  # chunks embedded at once
_GROUP_DOCUMENTS = 2_000  # changes committed at once


@dataclass(slots=True)
class Report:
    """What became of the documents of one call.

    added, updated, unchanged, removed: documents. skipped: files that are not documents (images, say).
    failed: those left out, with the reason; they are tried again by the next run. chunks: embedded and
    written. truncated: chunks cut to the model's limit. pooled: chunks over it that were embedded in
    windows. seconds: wall time.
    """

    added: int = 0
    updated: int = 0
    unchanged: int = 0
    removed: int = 0
    skipped: int = 0
    failed: list[Failure] = field(default_factory=list)
    chunks: int = 0
    truncated: int = 0
    pooled: int = 0
    seconds: float = 0.0


class Progress(NamedTuple):
    """How far a run is. documents: finished, unchanged ones included. stage: what is being done."""

    documents: int
    chunks: int
    failed: int
    stage: str


class Tagged(NamedTuple):
    """A document to add, and where it comes from."""

    document: Document | Failure
    origin: str | None = None
    source: str | None = None


@dataclass(slots=True)
class _Prepared:
    change: Change
    document: Document
    chunks: list[Chunk]
    known: bool
    vectors: list[Float32] = field(default_factory=list)


class Writer:
    """Writes documents to one store and one ledger, with one embedder and one chunker.

    windows: cuts into pieces that the model takes whole, for pooling. fields: declared metadata fields,
    which documents must obey. Not reentrant: one run at a time.
    """

    def __init__(
        self,
        store: Store,
        ledger: Ledger,
        embedder: Callable[[], Embedder],
        chunker: Callable[[], Chunker],
        windows: Callable[[], Chunker],
        fields: Mapping[str, FieldKind],
    ) -> None:
        self._store = store
        self._ledger = ledger
        self._embedder = embedder
        self._chunker = chunker
        self._windows = windows
        self._fields = fields

    # --- crash recovery ---

    def recover(self) -> list[str]:
        """Finish or undo what a crash cut off; says what was done, a line a kind. Safe to repeat.

        Raises CollectionLocked if what is under way is another process's.
        """
        if not self._ledger.pending():
            return []
        with self._ledger.writing():
            return self._recover()

    def _recover(self) -> list[str]:
        pending = self._ledger.pending()
        if not pending:
            return []
        done = [intent for intent in pending if intent.committed]
        undone = [intent for intent in pending if not intent.committed]
        kept = self._ledger.record_ids([intent.document_id for intent in pending])
        alive = {record for records in kept.values() for record in records}
        orphans = {record for intent in pending for record in intent.new | intent.old} - alive
        self._store.delete(orphans)
        self._store.flush()
        self._ledger.undo()
        said = []
        if done:
            said.append(f"finished {len(done)} interrupted change{'s' * (len(done) > 1)}")
        if undone:
            said.append(
                f"undid {len(undone)} interrupted change{'s' * (len(undone) > 1)} that had not been acknowledged; "
                "run the same command again to make them"
            )
        return said

    # --- adding ---

    def add(
        self,
        documents: Iterable[Tagged],
        *,
        truncate: bool = False,
        pool: bool = False,
        progress: Callable[[Progress], None] | None = None,
        run: int | None = None,
    ) -> Report:
        """Make documents searchable; a document whose content, chunking and model are unchanged is skipped.

        Returns when everything in the report is durable. A document that fails is in `report.failed` and
        does not stop the others; errors of the store or the ledger do, and what was committed before stays.
        """
        if truncate and pool:
            raise InvalidInput("a text over the model's limit is either truncated or pooled; ask for one of them")
        with self._ledger.writing():
            self._recover()
            run = run or self._ledger.next_run()
            return _Run(self, run, truncate, pool, progress).execute(documents)

    def remove(self, ids: Iterable[str]) -> int:
        """Remove documents; returns how many there were."""
        removed = 0
        with self._ledger.writing():
            self._recover()
            for group in _grouped(ids, _GROUP_DOCUMENTS):
                known = self._ledger.lookup(group)
                self._apply([Change(i) for i in known], [], 0)
                removed += len(known)
            self._ledger.settle()
        return removed

    def _apply(self, changes: list[Change], records: list[Record], run: int) -> None:
        """The four steps of the ledger for one group of distinct documents."""
        if not changes:
            return
        intents = self._ledger.intend(changes)
        wanted = {record_id for intent in intents for record_id in intent.new}
        self._store.upsert(record for record in records if record.id in wanted)
        self._store.wait()
        self._store.flush()
        self._ledger.commit(changes, run)
        self._store.delete(record_id for intent in intents for record_id in intent.old)

    def _fingerprint(self, pool: bool) -> str:
        settings = {"model": self._embedder().fingerprint, "chunker": dict(self._chunker().settings)}
        return canonical_json({**settings, "pool": True} if pool else settings)


class _Run:
    """One call of `Writer.add`."""

    def __init__(
        self, writer: Writer, run: int, truncate: bool, pool: bool, progress: Callable[[Progress], None] | None
    ) -> None:
        self.writer = writer
        self.run = run
        self.truncate = truncate
        self.windows = writer._windows() if pool else None
        self.progress = progress
        self.report = Report()
        self.embedder = writer._embedder()
        self.chunker = writer._chunker()
        self.salt = writer._fingerprint(pool)
        self.in_flight: dict[str, str] = {}  # hash by document not committed yet
        self.mutex = threading.Lock()  # guards report and in_flight
        self.to_embed: queue.Queue[list[_Prepared] | None] = queue.Queue(maxsize=2)
        self.to_write: queue.Queue[list[_Prepared] | None] = queue.Queue(maxsize=2)
        self.stop = threading.Event()
        self.error: BaseException | None = None

    def execute(self, documents: Iterable[Tagged]) -> Report:
        started = time.perf_counter()
        truncated = self.embedder.truncated
        threads = [
            threading.Thread(target=self._guard, args=(stage,), name=name, daemon=True)
            for name, stage in (("embed", self._embed), ("write", self._write))
        ]
        for thread in threads:
            thread.start()
        try:
            self._prepare(documents)
            self._put(self.to_embed, None)
            _join(threads)
        except BaseException:
            self.stop.set()
            raise
        finally:
            _join(threads)  # after a stop: only until the group that is being written is through
            if self.error is None:
                self.writer._ledger.settle()
        if self.error is not None:
            raise self.error
        self.report.truncated = self.embedder.truncated - truncated
        self.report.seconds = time.perf_counter() - started
        return self.report

    def _guard(self, stage: Callable[[], None]) -> None:
        try:
            stage()
        except BaseException as error:  # noqa: BLE001 -- handed to the caller's thread, which raises it
            self.error = self.error or error
            self.stop.set()

    def _put(self, where: queue.Queue[list[_Prepared] | None], item: list[_Prepared] | None) -> None:
        while True:
            try:
                where.put(item, timeout=0.1)
                return
            except queue.Full:
                if self.stop.is_set():
                    return

    def _get(self, where: queue.Queue[list[_Prepared] | None]) -> list[_Prepared] | None:
        while not self.stop.is_set():
            try:
                return where.get(timeout=0.1)
            except queue.Empty:
                continue
        return None

    # --- the caller's thread ---

    def _prepare(self, documents: Iterable[Tagged]) -> None:
        group: list[_Prepared] = []
        ids: set[str] = set()
        size = 0
        for window in _windows(documents):
            for prepared in self._changed(window):
                if self.stop.is_set():
                    return
                if prepared.change.document_id in ids or len(group) >= _GROUP_DOCUMENTS:
                    self._put(self.to_embed, group)
                    group, ids, size = [], set(), 0
                group.append(prepared)
                ids.add(prepared.change.document_id)
                size += len(prepared.chunks)
                if size >= _GROUP:
                    self._put(self.to_embed, group)
                    group, ids, size = [], set(), 0
            self._tell("indexing")
        if group:
            self._put(self.to_embed, group)

    def _changed(self, window: list[Tagged]) -> Iterator[_Prepared]:
        checked: list[tuple[Document, Tagged]] = []
        for tagged in window:
            if isinstance(tagged.document, Failure):
                self._fail(tagged.document.id, tagged.document.reason, tagged.origin)
                continue
            try:
                document = check_document(tagged.document)
                check_fields(self.writer._fields, document.metadata, "metadata")
                checked.append((document, tagged))
            except InvalidInput as error:
                self._fail(str(tagged.document.id), str(error), tagged.origin)
        known = self.writer._ledger.lookup([document.id for document, _ in checked])
        same: dict[str, list[str]] = {}
        for document, tagged in checked:
            digest = self._hash(document)
            entry = known.get(document.id)
            with self.mutex:
                current = self.in_flight.get(document.id) or (entry.hash if entry else None)
            if entry is not None and taken(entry.origin, tagged.origin):
                self._fail(document.id, f"the id is taken by a document of {entry.origin}", tagged.origin)
            elif current == digest:
                with self.mutex:
                    self.report.unchanged += 1
                if tagged.origin:
                    same.setdefault(tagged.origin, []).append(document.id)
            else:
                chunks = self.chunker.chunk(document.text)
                record_ids = tuple(self._record_id(document, chunk) for chunk in chunks)
                change = Change(document.id, digest, record_ids, tagged.origin, tagged.source)
                with self.mutex:
                    self.in_flight[document.id] = digest
                yield _Prepared(change, document, chunks, current is not None)
        for origin, ids in same.items():
            self.writer._ledger.saw(ids, self.run, origin)

    def _hash(self, document: Document) -> str:
        marks = [[[m.start, m.page, list(m.headings)] for m in document.marks]] if document.marks else []
        content = canonical_json([document.text, document.metadata, self.salt, *marks])
        return hashlib.sha256(content.encode()).hexdigest()

    def _record_id(self, document: Document, chunk: Chunk) -> str:
        """From the document, the ordinal and the content, so that versions lie side by side until committed."""
        parts = [document.id, chunk.ordinal, chunk.start, chunk.text, document.metadata, self.salt]
        place = document.place(chunk.start)
        content = canonical_json([*parts, place] if place else parts)
        return str(uuid.UUID(bytes=hashlib.sha256(_NAMESPACE.bytes + content.encode()).digest()[:16], version=5))

    def _fail(self, document_id: str, reason: str, origin: str | None) -> None:
        document_id = document_id.encode(errors="backslashreplace").decode()  # it may be what was wrong
        with self.mutex:
            self.report.failed.append(Failure(document_id, reason))
        self.writer._ledger.failed(origin, {document_id: reason})
        self.writer._ledger.saw([document_id], self.run)  # what it was before stays

    def _tell(self, stage: str) -> None:
        if self.progress is not None:
            with self.mutex:
                report = self.report
                done = report.added + report.updated + report.unchanged
                progress = Progress(done, report.chunks, len(report.failed), stage)
            self.progress(progress)

    # --- thread "embed" ---

    def _embed(self) -> None:
        while (group := self._get(self.to_embed)) is not None:
            self._put(self.to_write, self._embed_group(group))
        self._put(self.to_write, None)

    def _embed_group(self, group: list[_Prepared]) -> list[_Prepared]:
        try:
            texts = [chunk.text for prepared in group for chunk in prepared.chunks]
            vectors = self._vectors(texts)
        except (InvalidInput, ModelError):
            return self._embed_each(group)
        rows = iter(vectors)
        for prepared in group:
            prepared.vectors = [next(rows) for _ in prepared.chunks]
        return group

    def _embed_each(self, group: list[_Prepared]) -> list[_Prepared]:
        """The model refused one of them; find which."""
        fine = []
        for prepared in group:
            try:
                prepared.vectors = list(self._vectors([chunk.text for chunk in prepared.chunks]))
                fine.append(prepared)
            except (InvalidInput, ModelError) as error:
                with self.mutex:
                    self.in_flight.pop(prepared.change.document_id, None)
                self._fail(prepared.change.document_id, str(error), prepared.change.origin)
        return fine

    def _vectors(self, texts: list[str]) -> Float32:
        if self.windows is not None:
            return self._pooled(texts, self.windows)
        parts = [
            self.embedder.embed_documents(texts[start : start + 4 * _GROUP], truncate=self.truncate)
            for start in range(0, len(texts), 4 * _GROUP)
        ]
        return np.concatenate(parts)

    def _pooled(self, texts: list[str], windows: Chunker) -> Float32:
        """The mean of each text's windows, weighted by their length, at unit length again."""
        cut = [windows.chunk(text) for text in texts]
        rows = self.embedder.embed_documents([window.text for each in cut for window in each])
        weights = np.array([len(window.text) for each in cut for window in each], np.float32)
        starts = np.cumsum([0, *(len(each) for each in cut)])[:-1]
        means = np.add.reduceat(rows * weights[:, None], starts, axis=0)
        with self.mutex:
            self.report.pooled += sum(len(each) > 1 for each in cut)
        pooled: Float32 = means / np.linalg.norm(means, axis=1, keepdims=True)
        return pooled

    # --- thread "write" ---

    def _write(self) -> None:
        while (group := self._get(self.to_write)) is not None:
            records = [record for prepared in group for record in _records(prepared)]
            self.writer._apply([prepared.change for prepared in group], records, self.run)
            with self.mutex:
                for prepared in group:
                    if self.in_flight.get(prepared.change.document_id) == prepared.change.hash:
                        del self.in_flight[prepared.change.document_id]
                    if prepared.known:
                        self.report.updated += 1
                    else:
                        self.report.added += 1
                    self.report.chunks += len(prepared.chunks)
            self._tell("indexing")


def _join(threads: list[threading.Thread]) -> None:
    for thread in threads:
        thread.join()


def taken(was: str | None, now: str | None) -> bool:
    """Whether a document of one origin stands in the way of one of another; moved origins do not."""
    if was is None or was == now:
        return False
    from pathlib import Path

    return Path(was).exists() and now is not None


def _records(prepared: _Prepared) -> Iterator[Record]:
    change, document = prepared.change, prepared.document
    for record_id, chunk, vector in zip(change.record_ids, prepared.chunks, prepared.vectors, strict=True):
        payload: dict[str, Any] = {
            "document_id": document.id,
            "chunk": chunk.ordinal,
            "start": chunk.start,
            "text": chunk.text,
            "metadata": document.metadata,
            **document.place(chunk.start),
        }
        yield Record(record_id, {"dense": vector}, payload)


def _windows(documents: Iterable[Tagged]) -> Iterator[list[Tagged]]:
    """Documents by the hundred, or by the megabyte, whichever comes first."""
    window: list[Tagged] = []
    size = 0
    for tagged in documents:
        window.append(tagged)
        text = getattr(tagged.document, "text", "")
        size += len(text) if isinstance(text, str) else 0
        if len(window) >= _LOOKUP or size >= _LOOKUP_CHARS:
            yield window
            window, size = [], 0
    if window:
        yield window


def _grouped(values: Iterable[str], size: int) -> Iterator[list[str]]:
    group: list[str] = []
    for value in dict.fromkeys(values):
        group.append(value)
        if len(group) == size:
            yield group
            group = []
    if group:
        yield group


def check_all(documents: Iterable[Document], fields: Mapping[str, FieldKind]) -> None:
    """Raises InvalidDocument for the first that could never be added."""
    for i, document in enumerate(documents):
        try:
            checked = check_document(document)
            check_fields(fields, checked.metadata, "metadata")
        except InvalidInput as error:
            raise InvalidDocument(f"documents[{i}]: {error}") from None
