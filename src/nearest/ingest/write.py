"""From documents to searchable chunks, in three overlapping stages.

    the caller's thread    checks, hashes, skips what is unchanged, chunks
    thread "embed"         embeds groups of chunks
    thread "write"         intent, upsert, commit, delete; one group at a time, in order

The queues between them are short, so memory does not grow with the corpus. A group is full before it is embedded,
unless the second thread has nothing else to do: slow readers do not keep it waiting. A stop (Ctrl-C, an error)
lets the group that is being written finish; whatever was not committed is done by the next run.
"""

from __future__ import annotations

import contextlib
import hashlib
import queue
import threading
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from nearest import filters
from nearest.contract import (
    TOKENS,
    Chunk,
    Chunker,
    Document,
    Embedder,
    Failure,
    FieldKind,
    Float32,
    LateInteraction,
    Record,
    Store,
    Usage,
    budgeted,
    canonical_json,
    check_document,
    check_fields,
)
from nearest.errors import (
    BatchFailed,
    BudgetExceeded,
    InvalidDocument,
    InvalidInput,
    ModelError,
    NearestError,
    StorageError,
    TextsFailed,
)
from nearest.ingest import facts
from nearest.ingest.account import Account
from nearest.ingest.duplicates import Duplicate, Duplicates
from nearest.ingest.profile import Profile
from nearest.ingest.vectors import Vectors
from nearest.ledger import Change, Entry

if TYPE_CHECKING:
    from nearest.ledger import Ledger

_NAMESPACE = uuid.UUID("0b0bb9d6-7a0b-5b55-8a66-5f0a6d3d9f51")
_LOOKUP = 128  # documents checked against the ledger at once
_LOOKUP_CHARS = 4_000_000
_PATIENCE = 0.1  # seconds; documents that come more slowly are not waited for by those that are there
_GROUP = 256  # chunks embedded at once
_GROUP_DOCUMENTS = 2_000  # changes committed at once
MARGIN = 1.25  # estimated tokens are seldom below the real ones, and then by less than this


@dataclass(slots=True)
class Report:
    """What became of the documents of one call.

    added, updated, unchanged, removed: documents. skipped: files that are not documents (images, say).
    failed: those left out, with the reason; they are tried again by the next run. chunks: embedded and
    written. duplicates: chunks left out, see `nearest.ingest.duplicates`. truncated: chunks cut to the model's
    limit. pooled: chunks over it that were embedded in windows. usage: what the embedding model was asked for.
    seconds: wall time of reading to writing. profile: where it went, and what was before and after.
    """

    added: int = 0
    updated: int = 0
    unchanged: int = 0
    removed: int = 0
    skipped: int = 0
    failed: list[Failure] = field(default_factory=list)
    chunks: int = 0
    duplicates: list[Duplicate] = field(default_factory=list)
    truncated: int = 0
    pooled: int = 0
    usage: Usage = field(default_factory=Usage)
    seconds: float = 0.0
    profile: Profile = field(default_factory=Profile)


class Progress(NamedTuple):
    """How far a run is. documents: finished, unchanged ones included. stage: what is being done.

    files: to be read in all, if that is known; a file can hold many documents.
    """

    documents: int
    chunks: int
    failed: int
    stage: str
    files: int | None = None


class Tagged(NamedTuple):
    """A document to add, where it comes from, and when the file that it was read from last changed (RFC 3339)."""

    document: Document | Failure
    origin: str | None = None
    source: str | None = None
    modified: str | None = None


@dataclass(slots=True)
class _Prepared:
    change: Change
    document: Document
    chunks: list[Chunk]
    known: bool
    modified: str | None = None
    vectors: list[Mapping[str, Float32]] = field(default_factory=list)  # of each chunk, by name


class Writer:
    """Writes documents to one store and one ledger, with one embedder and one chunker.

    windows: cuts into pieces that the model takes whole, for pooling. fields: declared metadata fields,
    which documents must obey. vectors: further fields that are embedded, see `embedded`. late: the model of token
    vectors, where the records have some. Not reentrant: one run at a time.
    """

    def __init__(
        self,
        store: Store,
        ledger: Ledger,
        embedder: Callable[[], Embedder],
        chunker: Callable[[], Chunker],
        windows: Callable[[], Chunker],
        fields: Mapping[str, FieldKind],
        vectors: Mapping[str, str] | None = None,
        late: Callable[[], LateInteraction] | None = None,
    ) -> None:
        self._store = store
        self._ledger = ledger
        self._embedder = embedder
        self._chunker = chunker
        self._windows = windows
        self._fields = fields
        self.vectors = vectors or {}
        self._late = late
        self._budget: Budget | None = None
        self._vectors: Vectors | None = None  # of the texts of a whole command
        self._skip_duplicates: float | None = None
        self._language: Callable[[str], str | None] | None = None

    @contextlib.contextmanager
    def within(
        self, dollars: float | None, *, skip_duplicates: float | None = None, detect_language: bool = False
    ) -> Iterator[None]:
        """What is added in this block costs at most so much: BudgetExceeded is raised before it would cost more.

        Equal texts of all that is added in it are embedded once.

        skip_duplicates: chunks of this resemblance to others are left out, see `duplicates`. detect_language: each
        chunk's is told, see `facts`. Raises InvalidInput where the model's price is not known, and MissingDependency.
        """
        self._budget = None if dollars is None else Budget(self._embedder(), dollars)
        if skip_duplicates is not None:
            Duplicates(skip_duplicates)  # refuses what is out of range
        self._skip_duplicates = skip_duplicates
        self._language = facts.detector() if detect_language else None
        try:
            with contextlib.closing(Vectors()) as self._vectors:
                yield
        finally:
            self._budget = self._skip_duplicates = self._language = self._vectors = None

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

        Returns when everything in the report is durable. A document that fails, one that the store refuses
        included, is in `report.failed`: nothing of it is kept, an older version stays, and the others go on.
        Other errors of the store or the ledger stop the run, and what was committed before stays.
        """
        check_long(truncate, pool)
        with self._ledger.writing():
            self._recover()
            run = run or self._ledger.next_run()
            profile = Profile()
            with profile.timed("loading"):
                self._embedder()
            return _Run(self, run, truncate, pool, progress, profile).execute(documents)

    def remove(self, ids: Iterable[str]) -> int:
        """Remove documents; returns how many there were."""
        removed = 0
        with self._ledger.writing():
            self._recover()
            for group in _grouped(ids, _GROUP_DOCUMENTS):
                known = self._ledger.lookup(group)
                self._apply([Change(i) for i in known], [], 0, Profile())
                removed += len(known)
            self._ledger.settle()
        return removed

    def _apply(self, changes: list[Change], records: list[Record], run: int, profile: Profile) -> dict[str, str]:
        """The four steps of the ledger for one group of distinct documents.

        Returns those that the store refuses, and why: they are as they were before.
        """
        if not changes:
            return {}
        with profile.timed("ledger"):
            intents = self._ledger.intend(changes)
        with profile.timed("storing"):
            wanted = {record_id for intent in intents for record_id in intent.new}
            owner = {record_id: change.document_id for change in changes for record_id in change.record_ids}
            of: dict[str, list[Record]] = {}
            for record in records:
                if record.id in wanted:
                    of.setdefault(owner[record.id], []).append(record)
            refused = self._upsert(of)
            if refused:
                # A commit is of all that was intended, so all of it is undone and intended again without them.
                self._recover()
            else:
                self._store.wait()
                self._store.flush()
        if refused:
            left = [change for change in changes if change.document_id not in refused]
            again = [record for record in records if owner[record.id] not in refused]
            return refused | self._apply(left, again, run, profile)
        with profile.timed("ledger"):
            self._ledger.commit(changes, run)
        with profile.timed("storing"):
            self._store.delete(record_id for intent in intents for record_id in intent.old)
        return {}

    def _upsert(self, records: dict[str, list[Record]]) -> dict[str, str]:
        """Write records, given by document; returns the documents that the store refuses, and why.

        Some of a refused document's records may be written.
        """
        try:
            self._store.upsert(record for some in records.values() for record in some)
        except InvalidInput as error:
            why: NearestError = error
            suspects = list(records)
        except BatchFailed as error:
            if not all(isinstance(each, InvalidInput) or type(each) is StorageError for each in error.failed.values()):
                raise  # the database, or the way to it, is at fault
            why = next(iter(error.failed.values()))
            suspects = [i for i, some in records.items() if any(record.id in error.failed for record in some)]
            if not suspects:
                raise
        else:
            return {}
        if len(suspects) == 1:
            (document_id,) = suspects
            return {document_id: _of_chunks(str(why), records[document_id])}
        # A store may refuse a whole request for one record, so each half is asked for itself.
        half = len(suspects) // 2
        return self._upsert({i: records[i] for i in suspects[:half]}) | self._upsert(
            {i: records[i] for i in suspects[half:]}
        )

    def records(self) -> Iterator[Record]:
        """All passages that are there, for `Duplicates`."""
        return self._store.scan_all()

    def salt(self, pool: bool) -> str:
        settings: dict[str, Any] = {}
        settings["model"], settings["chunker"] = self._embedder().fingerprint, dict(self._chunker().settings)
        if self._skip_duplicates is not None:
            settings["skip_duplicates"] = self._skip_duplicates
        if pool:
            settings["pool"] = True
        if self.vectors:
            settings["vectors"] = dict(self.vectors)
        if self._late is not None:
            settings["token_vectors"] = self._late().fingerprint
        return canonical_json(settings)


class Budget:
    """Dollars for an embedder, from now on; of all that a run embeds, in whichever thread."""

    def __init__(self, embedder: Embedder, dollars: float) -> None:
        if not dollars >= 0:
            raise InvalidInput(f"a budget is dollars, from 0, got {dollars!r}")
        if embedder.price is None:
            raise InvalidInput(
                f"the price of {embedder.name} is not known, so no budget can be kept; "
                "give it in dollars a million tokens: PROVIDER:MODEL?price=0.1"
            )
        self._embedder = embedder
        self._dollars = dollars
        self._before = embedder.usage.dollars
        self._lock = threading.Lock()

    @contextlib.contextmanager
    def spending(self, texts: Sequence[str], truncate: bool = False) -> Iterator[None]:
        """Held while these texts are embedded; raises BudgetExceeded if they may cost more than what is left."""
        with self._lock:  # or two threads would each spend the same rest
            if texts:
                self._check(texts, truncate)
            yield

    def _check(self, texts: Sequence[str], truncate: bool) -> None:
        spent = self._embedder.usage.dollars - self._before
        needed = self._embedder.estimate(texts, truncate=truncate).dollars
        if spent + needed * (MARGIN if self._embedder.estimated else 1) > self._dollars:
            raise BudgetExceeded(
                f"${spent:.4f} of the budget of ${self._dollars:.4f} are spent, and the next {len(texts)} texts would "
                f"cost about ${needed:.4f}; what was finished is kept: run it again with a larger budget to go on",
                spent=spent, needed=needed, budget=self._dollars,
            )  # fmt: skip


class _Run:
    """One call of `Writer.add`."""

    def __init__(
        self,
        writer: Writer,
        run: int,
        truncate: bool,
        pool: bool,
        progress: Callable[[Progress], None] | None,
        profile: Profile,
    ) -> None:
        self.writer = writer
        self.run = run
        self.truncate = truncate
        self.windows = writer._windows() if pool else None
        self.progress = progress
        self.report = Report(profile=profile)
        self.profile = profile
        self.embedder = writer._embedder()
        self.used = self.embedder.usage
        self.chunker = writer._chunker()
        self.salt = writer.salt(pool)
        self.duplicates: Duplicates | None = None
        self.vectors = writer._vectors if writer._vectors is not None else Vectors()
        self.embedding = 0.0  # seconds
        self.in_flight: dict[str, str] = {}  # hash by document not committed yet
        self.mutex = threading.Lock()  # guards report and in_flight
        self.hungry = threading.Event()  # nothing is being embedded
        self.to_embed: queue.Queue[list[_Prepared] | None] = queue.Queue(maxsize=2)
        self.to_write: queue.Queue[list[_Prepared] | None] = queue.Queue(maxsize=2)
        self.stop = threading.Event()
        self.error: BaseException | None = None
        self.over: BudgetExceeded | None = None  # by what a chunker embeds
        self.threads: list[threading.Thread] = []

    def execute(self, documents: Iterable[Tagged]) -> Report:
        account = Account.of(self.embedder)
        account.begin()
        self.used = self.embedder.usage
        started = time.perf_counter()
        truncated = self.embedder.truncated
        self.threads = threads = [
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
            self.chunker.ahead(())  # lets go of what it holds
            self.report.usage = self.embedder.usage - self.used
            account.end(self.report.usage)
            if self.report.usage != Usage():
                self.writer._ledger.used(self.run, self.embedder.name, self.report.usage, self.embedding)
            if self.error is None:
                self.writer._ledger.settle()
        if error := self.error or self.over:
            raise error
        self.report.truncated = self.embedder.truncated - truncated
        self.report.seconds = self.profile.running = time.perf_counter() - started
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
        """Groups of what has changed, for the next thread; until a chunker is over the budget."""
        group: list[_Prepared] = []
        ids: set[str] = set()
        size = 0
        try:
            for window in windows(self.profile.each("reading", documents)):
                self.profile.megabytes += sum(map(_bytes, window)) / 1e6
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
                if group and self.hungry.is_set():
                    self._put(self.to_embed, group)
                    group, ids, size = [], set(), 0
                self._tell("indexing")
        except BudgetExceeded as error:
            self.over = error  # what was cut before is paid for: it goes on, as far as the rest of the budget goes
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
        with self.profile.timed("comparing"):
            known = self.writer._ledger.lookup([document.id for document, _ in checked])
        self._ahead([document for document, _ in checked], known)
        same: dict[str, list[str]] = {}
        for document, tagged in checked:
            with self.profile.timed("comparing"):
                digest = content_hash(document, self.salt)
            entry = known.get(document.id)
            with self.mutex:
                current = self.in_flight.get(document.id) or (entry.hash if entry else None)
            if entry is not None and taken(entry.origin, tagged.origin):
                self._fail(document.id, why_taken(entry.origin, tagged.origin), tagged.origin)
            elif current == digest:
                with self.mutex:
                    self.report.unchanged += 1
                if tagged.origin:
                    same.setdefault(tagged.origin, []).append(document.id)
            else:
                try:
                    with self.profile.timed("chunking"):
                        chunks, record_ids = self._cut(document)
                except (InvalidInput, ModelError) as error:  # of one that asks the model where to cut
                    self._fail(document.id, str(error), tagged.origin)
                    continue
                change = Change(document.id, digest, record_ids, tagged.origin, tagged.source)
                with self.mutex:
                    self.in_flight[document.id] = digest
                yield _Prepared(change, document, chunks, current is not None, tagged.modified)
        with self.profile.timed("comparing"):
            for origin, ids in same.items():
                self.writer._ledger.saw(ids, self.run, origin)

    def _ahead(self, documents: list[Document], known: Mapping[str, Entry]) -> None:
        """Tells a chunker that asks the model of those that have changed."""
        if self.chunker.embeds:
            new = [d for d in documents if d.id not in known or known[d.id].hash != content_hash(d, self.salt)]
            budget = self.writer._budget
            with (
                self.profile.timed("chunking"),
                contextlib.nullcontext() if budget is None else budgeted(budget.spending),
            ):
                self.chunker.ahead(new)

    def _cut(self, document: Document) -> tuple[list[Chunk], tuple[str, ...]]:
        """Its chunks, without near-duplicates where those are left out, and the ids of their records."""
        budget = self.writer._budget
        with contextlib.nullcontext() if budget is None else budgeted(budget.spending):
            chunks = self.chunker.chunk_document(document)
        if self.writer._skip_duplicates is not None:
            chunks, left_out = self._seen(self.writer._skip_duplicates).without(document.id, chunks)
            self.report.duplicates += left_out
        return chunks, tuple(self._record_id(document, chunk) for chunk in chunks)

    def _seen(self, threshold: float) -> Duplicates:
        """The passages so far; those of the collection are read when the first document has changed."""
        if self.duplicates is None:
            self.duplicates = Duplicates(threshold)
            self.duplicates.know(self.writer.records())
        return self.duplicates

    def _record_id(self, document: Document, chunk: Chunk) -> str:
        """From the document, the ordinal and the content, so that versions lie side by side until committed."""
        parts = [document.id, chunk.ordinal, chunk.start, chunk.text, document.metadata, self.salt]
        place = _place(document, chunk)
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
        cut: NearestError | None = None
        while cut is None and (group := self._next()) is not None:
            with self.profile.timed("embedding"):
                fine, cut = self._embed_group(group)
                fine = self._with_tokens(fine)
            self._put(self.to_write, fine)
        self._put(self.to_write, None)
        if cut is not None:
            self.threads[1].join()  # what is embedded is paid for: it is written before the run ends
            raise cut

    def _next(self) -> list[_Prepared] | None:
        self.hungry.set()
        group = self._get(self.to_embed)
        self.hungry.clear()
        return group

    def _embed_group(self, group: list[_Prepared]) -> tuple[list[_Prepared], NearestError | None]:
        """Those that have their vectors, and what ends the run: the budget, or a provider that went away."""
        every = [self._texts(prepared) for prepared in group]
        texts = [text for some in every for text in some]
        failed: Mapping[int, NearestError] = {}
        try:
            vectors = self._vectors(texts)
        except TextsFailed as error:
            vectors, failed = error.vectors, error.failed
        except (InvalidInput, ModelError):
            return self._embed_each(group), None
        except BudgetExceeded as error:
            return [], error
        fine, cut, at = [], None, 0
        for prepared, some in zip(group, every, strict=True):
            rows = range(at, at + len(some))
            at = rows.stop
            why = next((failed[row] for row in rows if row in failed), None)
            if why is None:
                self._name(prepared, vectors[rows.start : rows.stop])
                fine.append(prepared)
            elif isinstance(why, InvalidInput | ModelError):
                self._refused(prepared, why)
            else:
                cut = cut or why
        return fine, cut

    def _embed_each(self, group: list[_Prepared]) -> list[_Prepared]:
        """The model refused one of them; find which."""
        fine = []
        for prepared in group:
            try:
                self._name(prepared, self._vectors(self._texts(prepared)))
                fine.append(prepared)
            except (InvalidInput, ModelError) as error:
                self._refused(prepared, error)
        return fine

    def _texts(self, prepared: _Prepared) -> list[str]:
        """What is embedded of a document: its chunks, and then the texts of its further fields."""
        named = embedded(self.writer.vectors, prepared.document) if prepared.chunks else {}
        return [*(chunk.embedded for chunk in prepared.chunks), *named.values()]

    def _name(self, prepared: _Prepared, rows: Float32) -> None:
        """rows: the vectors of `_texts`. A field that the document lacks has the chunk's own vector."""
        count = len(prepared.chunks)
        named = dict(zip(embedded(self.writer.vectors, prepared.document), rows[count:], strict=False))
        prepared.vectors = [
            {"dense": row, **{name: named.get(name, row) for name in self.writer.vectors}} for row in rows[:count]
        ]

    def _with_tokens(self, group: list[_Prepared]) -> list[_Prepared]:
        if self.writer._late is not None and group:
            rows = iter(self.writer._late().token_vectors([chunk.text for p in group for chunk in p.chunks]))
            for prepared in group:
                prepared.vectors = [{**vectors, TOKENS: next(rows)} for vectors in prepared.vectors]
        return group

    def _refused(self, prepared: _Prepared, error: NearestError) -> None:
        with self.mutex:
            self.in_flight.pop(prepared.change.document_id, None)
        self._fail(prepared.change.document_id, self._reason(prepared, error), prepared.change.origin)

    def _reason(self, prepared: _Prepared, error: NearestError) -> str:
        """Why the model refused a document; where that is for a further field, it is named."""
        for name, text in embedded(self.writer.vectors, prepared.document).items():
            try:
                self._vectors([text])  # one that was embedded is remembered
            except (InvalidInput, ModelError) as why:
                return f"metadata.{self.writer.vectors[name]}: {why}"
        return str(error)

    def _vectors(self, texts: list[str]) -> Float32:
        """Raises TextsFailed with what there is."""
        return self._embedded(texts) if self.windows is None else self._pooled(texts, self.windows)

    def _embedded(self, texts: list[str]) -> Float32:
        keys = [text_key(text, self.truncate) for text in texts]
        distinct = dict(zip(keys, texts, strict=True))
        known = self.vectors.get(list(distinct))
        new = [(key, text) for key, text in distinct.items() if key not in known]
        budget = self.writer._budget
        failed: dict[bytes, NearestError] = {}
        started = time.perf_counter()
        with contextlib.nullcontext() if budget is None else budget.spending([t for _, t in new], self.truncate):
            for start in range(0, len(new), 4 * _GROUP):
                some = new[start : start + 4 * _GROUP]
                try:
                    rows = self.embedder.embed_documents([text for _, text in some], truncate=self.truncate)
                except TextsFailed as error:
                    rows = error.vectors
                    failed |= {some[i][0]: reason for i, reason in error.failed.items()}
                fresh = {key: row for (key, _), row in zip(some, rows, strict=True) if key not in failed}
                self.vectors.put(fresh)
                known |= fresh
        self.embedding += time.perf_counter() - started
        missing = np.full(self.embedder.dimension, np.nan, np.float32)
        vectors: Float32 = np.stack([known.get(key, missing) for key in keys])
        if failed:
            raise TextsFailed({i: failed[key] for i, key in enumerate(keys) if key in failed}, vectors)
        return vectors

    def _pooled(self, texts: list[str], windows: Chunker) -> Float32:
        """The mean of each text's windows, weighted by their length, at unit length again."""
        cut = [windows.chunk(text) for text in texts]
        failed: Mapping[int, NearestError] = {}
        try:
            rows = self._embedded([window.text for each in cut for window in each])
        except TextsFailed as error:
            rows, failed = error.vectors, error.failed
        weights = np.array([len(window.text) for each in cut for window in each], np.float32)
        starts = np.cumsum([0, *(len(each) for each in cut)])[:-1]
        means = np.add.reduceat(rows * weights[:, None], starts, axis=0)
        with self.mutex:
            self.report.pooled += sum(len(each) > 1 for each in cut)
        pooled: Float32 = means / np.linalg.norm(means, axis=1, keepdims=True)
        if failed:
            owner = np.repeat(np.arange(len(cut)), [len(each) for each in cut])
            raise TextsFailed({int(owner[window]): reason for window, reason in failed.items()}, pooled)
        return pooled

    # --- thread "write" ---

    def _write(self) -> None:
        while (group := self._get(self.to_write)) is not None:
            with self.profile.timed("storing"):
                now = facts.now()
                records = [record for prepared in group for record in _records(prepared, now, self.writer._language)]
            changes = [prepared.change for prepared in group]
            refused = self.writer._apply(changes, records, self.run, self.profile)
            with self.mutex:
                for prepared in group:
                    if self.in_flight.get(prepared.change.document_id) == prepared.change.hash:
                        del self.in_flight[prepared.change.document_id]
                    if prepared.change.document_id in refused:
                        continue
                    if prepared.known:
                        self.report.updated += 1
                    else:
                        self.report.added += 1
                    self.report.chunks += len(prepared.chunks)
            for change in changes:
                if change.document_id in refused:
                    self._fail(change.document_id, refused[change.document_id], change.origin)
            self._tell("indexing")


def check_long(truncate: bool, pool: bool) -> None:
    """Raises InvalidInput for both."""
    if truncate and pool:
        raise InvalidInput("a text over the model's limit is either truncated or pooled; ask for one of them")


def content_hash(document: Document, salt: str) -> str:
    """Of all that a document's records are made from."""
    marks = [[[m.start, m.page, list(m.headings)] for m in document.marks]] if document.marks else []
    content = canonical_json([document.text, document.metadata, salt, *marks])
    return hashlib.sha256(content.encode()).hexdigest()


def embedded(vectors: Mapping[str, str], document: Document) -> dict[str, str]:
    """The texts that have vectors of their own, by the vector's name.

    vectors: metadata fields (dotted paths) by the vectors' names. The strings of a list are one text. A document that
    lacks a field has no text for it: its chunks' own vectors stand there, so that it neither gains nor loses by it.
    """
    found: dict[str, str] = {}
    for name, path in vectors.items():
        value = filters.resolve(document.metadata, tuple(path.split(".")))
        text = ", ".join(each for each in value if each) if isinstance(value, list | tuple) else value
        if text is not None and text.strip():
            found[name] = text
    return found


def text_key(text: str, truncate: bool = False) -> bytes:
    """truncate: what is over the model's limit may be cut, which gives another vector."""
    return hashlib.blake2b(text.encode(), digest_size=16, person=b"cut" if truncate else b"").digest()


def _join(threads: list[threading.Thread]) -> None:
    for thread in threads:
        thread.join()


def taken(was: str | None, now: str | None) -> bool:
    """Whether a document of one origin stands in the way of one of another; moved origins do not."""
    if was is None or was == now:
        return False
    from pathlib import Path

    # A folder that is gone has made room; whether rows or what has a URL are gone is not asked here.
    return now is not None and ("://" in was or Path(was).exists())


def why_taken(was: str | None, now: str | None) -> str:
    """The reason of a document that `taken` keeps out, and what to do."""
    if now is not None and now.startswith("sql:"):
        remedy = "give the rows ids that no other source has: SELECT 'name/' || id AS id, ..."
    else:
        remedy = (
            "rename one of them, or name both in one command before this one has documents: it then gets an id with "
            "more of its path (rows of files need ids that no other file has)"
        )
    return f"the id is taken by a document of {was}; {remedy}"


def _place(document: Document, chunk: Chunk) -> dict[str, Any]:
    """Page and headings; those of the chunk are the finer ones."""
    place = document.place(chunk.start)
    return {**place, "headings": list(chunk.headings)} if chunk.headings else place


def _records(prepared: _Prepared, now: str, language: Callable[[str], str | None] | None) -> Iterator[Record]:
    change, document = prepared.change, prepared.document
    for record_id, chunk, vectors in zip(change.record_ids, prepared.chunks, prepared.vectors, strict=True):
        payload: dict[str, Any] = {
            "document_id": document.id,
            "chunk": chunk.ordinal,
            # What counts and finds documents: one bit of an index, and no other passage is in it.
            **({"first": True} if chunk.ordinal == 0 else {}),
            "start": chunk.start,
            "text": chunk.text,
            "metadata": document.metadata,
            **_place(document, chunk),
            "facts": facts.of(chunk.text, now, language, prepared.modified),
        }
        yield Record(record_id, vectors, payload)


def _of_chunks(message: str, records: Iterable[Record]) -> str:
    """A store's message with the chunks' numbers: a user never saw the records' ids."""
    for record in records:
        message = message.replace(f"record {record.id!r}", f"chunk {record.payload['chunk']}")
    return message


def _bytes(tagged: Tagged) -> int:
    text = getattr(tagged.document, "text", None)
    return len(text.encode(errors="surrogatepass")) if isinstance(text, str) else 0


def windows(documents: Iterable[Tagged]) -> Iterator[list[Tagged]]:
    """Documents by the hundred, by the megabyte, or those of a moment, whichever comes first."""
    window: list[Tagged] = []
    size, started = 0, time.perf_counter()
    for tagged in documents:
        window.append(tagged)
        text = getattr(tagged.document, "text", "")
        size += len(text) if isinstance(text, str) else 0
        if len(window) >= _LOOKUP or size >= _LOOKUP_CHARS or time.perf_counter() - started > _PATIENCE:
            yield window
            window, size, started = [], 0, time.perf_counter()
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
