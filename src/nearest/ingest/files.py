"""The write path over what was named: reads ahead, keeps each file's failure to itself, removes what is gone.

`sources` says which files there are, `sql` what rows. Pictures, sound and the like are counted as skipped; any
other file that cannot be read is a failure, and what it gave before stays.
"""

from __future__ import annotations

import contextlib
import shutil
import tempfile
import time
from collections import deque
from collections.abc import Callable, Container, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nearest.contract import Failure, Reader
from nearest.errors import InvalidInput, NearestError
from nearest.ingest import facts, sources, sql
from nearest.ingest.profile import Profile
from nearest.ingest.sources import Item, Source
from nearest.ingest.write import Progress, Report, Tagged, Writer

if TYPE_CHECKING:
    from nearest.ledger import Ledger

# Files begun before their turn: those that are read in other processes are ready when it comes.
_AHEAD = 64
_FETCHES = 8  # files brought over the network at once
MAX_FAILURES = 1_000  # of one file that are told one by one

_NAMES = "names"  # a setting: names of origins that are not their files' own, see `sources.tell_apart`

Tell = Callable[[Progress], None]


@dataclass(frozen=True, slots=True)
class Found:
    """What paths and URLs name, listed once: files, and queries of databases. seconds: that listing them took."""

    sources: list[Source]
    queries: list[sql.Query]
    seconds: float = 0.0

    @property
    def files(self) -> int | None:
        """How many files there are; None where there are rows as well, which nobody has counted."""
        return None if self.queries else sum(len(source.items) for source in self.sources)


def find(
    paths: Iterable[str | Path],
    known: Container[str],
    *,
    name: str = "stdin",
    ignore: bool = True,
    private: bool = False,
) -> Found:
    """List what paths and URLs name; see `sources.find` and `sql`. Nothing is read yet.

    known: extensions that have a reader. Raises InvalidInput for a path that does not exist.
    """
    started = time.perf_counter()
    specs = [str(path) for path in paths]
    if not specs:
        raise InvalidInput("no paths given; name files or folders to add")
    queries = [sql.Query.parse(spec) for spec in specs if spec.startswith(sql.SCHEME)]
    others = [spec for spec in specs if not spec.startswith(sql.SCHEME)]
    found = [sources.find(spec, known, name=name, ignore=ignore, private=private) for spec in others]
    return Found(found, queries, time.perf_counter() - started)


def add_files(
    writer: Writer,
    ledger: Ledger,
    reader_for: Callable[[Path], Reader],
    found: Found,
    *,
    full: bool = False,
    truncate: bool = False,
    pool: bool = False,
    progress: Tell | None = None,
) -> Report:
    """Add what was found; documents that came from the same places before, and are gone from them, are removed.

    Removal follows a complete pass only. Raises InvalidInput, before anything is written, for a folder that gave
    documents before and holds no file now.
    """
    for source in found.sources:
        if source.many and not source.items:
            _refuse_empty(ledger, source.origin, f"{source.origin} is empty now")
    names = ledger.settings().get(_NAMES, {})
    if len(found.sources) > 1 or names:
        made = sources.tell_apart(found.sources, names, ledger.has_origin)
        if made != names:
            ledger.set({_NAMES: made})
    total = Report()
    total.profile.finding = found.seconds
    for source in found.sources:
        run = ledger.next_run()
        ledger.clear_failures(source.origin)
        documents = _read(ledger, reader_for, source, run, total.profile)
        report = writer.add(
            documents, truncate=truncate, pool=pool, progress=_onward(progress, total, found.files), run=run
        )
        report.skipped = source.skipped
        if not source.unlisted:
            with report.profile.timed("removing"):
                report.removed = writer.remove(ledger.unseen(source.origin, run))
        _merge(total, report)
    for query in found.queries:
        onward = _onward(progress, total, None)
        _merge(total, add_sql(writer, ledger, query, full=full, truncate=truncate, pool=pool, progress=onward))
    return total


def add_sql(
    writer: Writer,
    ledger: Ledger,
    query: sql.Query,
    *,
    full: bool = False,
    truncate: bool = False,
    pool: bool = False,
    progress: Tell | None = None,
) -> Report:
    """Add the rows of a query; see `sql` for what a cursor does, and what `full` does without it.

    Raises InvalidInput for a query that cannot run or has not the columns, and ConnectionFailed.
    """
    origin = query.origin
    before = ledger.has_origin(origin)
    settings = ledger.settings()
    since = settings.get(query.key) if query.cursor is not None and before and not full else None
    run = ledger.next_run()
    rows = query.rows(since, settings.get(query.failed_key, ()))
    ledger.clear_failures(origin)  # what fails again is read again
    with closing(iter(rows)) as documents:
        report = writer.add(
            (Tagged(document, origin, origin) for document in documents),
            truncate=truncate, pool=pool, progress=progress, run=run,
        )  # fmt: skip
    if since is None:
        if not rows.count:
            _refuse_empty(ledger, origin, f"{origin} gives no rows now")
        with report.profile.timed("removing"):
            report.removed = writer.remove(ledger.unseen(origin, run))
    if query.cursor is not None and (failed := rows.named(failure.id for failure in report.failed)) is not None:
        ledger.set({query.key: rows.encoded, query.failed_key: failed})
    return report


def _refuse_empty(ledger: Ledger, origin: str, what: str) -> None:
    if before := ledger.has_origin(origin):
        raise InvalidInput(
            f"{what}, but {before} documents came from it; if that is meant, remove them by id or filter"
        )


def _read(
    ledger: Ledger, reader_for: Callable[[Path], Reader], source: Source, run: int, profile: Profile
) -> Iterator[Tagged]:
    origin = source.origin
    given: dict[str, str] = {}  # file by id
    for failure in source.unlisted:
        yield Tagged(failure, origin, failure.id)
    with closing(_begun(source.items, reader_for)) as begun:
        for item, reader, results in begun:
            content_type = reader.content_type if reader else ""
            failed = False
            failures = _Failures(ledger, run)
            try:
                for result in results:
                    if isinstance(result, Failure):
                        failed = True
                        if failures.told(result.id):
                            yield Tagged(result, origin, item.id)
                    elif (other := _other(given, result.id, item.id) if len(source.items) > 1 else None) is not None:
                        # All of the file was seen nevertheless: it is not `failed`, and what is gone from it goes.
                        reason = (
                            f'the id "{result.id}" is also in {other}; give the rows ids that no other file has, or '
                            "rename the column, so that the file and the line are the id"
                        )
                        if failures.told(f"{item.id}#{result.id}"):
                            yield Tagged(Failure(f"{item.id}#{result.id}", reason), origin, item.id)
                    else:
                        metadata = {"content_type": content_type, **result.metadata}
                        yield Tagged(replace(result, metadata=metadata), origin, item.id, _modified(item))
            except NearestError as error:
                failed = True
                yield Tagged(Failure(item.id, str(error)), origin, item.id)
            if more := failures.finish():
                reason = f"{more:,} more of its rows failed; the {MAX_FAILURES:,} before them are told one by one"
                yield Tagged(Failure(item.id, reason), origin, item.id)
            profile.read_ahead += reader.elsewhere if reader else 0.0
            if failed:
                ledger.saw_source(origin, item.id, run)  # not all of it was seen, so nothing of it is gone


class _Failures:
    """Of one file: after so many they are counted alone, or a damaged file of a million rows would fill the report."""

    def __init__(self, ledger: Ledger, run: int) -> None:
        self._ledger, self._run = ledger, run
        self._count = 0
        self._ids: list[str] = []

    def told(self, document_id: str) -> bool:
        """Whether this one is told; of the others what they were before stays as well."""
        self._count += 1
        if self._count > MAX_FAILURES:
            self._ids.append(document_id.encode(errors="backslashreplace").decode())
            if len(self._ids) == MAX_FAILURES:
                self._saw()
        return self._count <= MAX_FAILURES

    def finish(self) -> int:
        """How many were not told."""
        self._saw()
        return max(0, self._count - MAX_FAILURES)

    def _saw(self) -> None:
        if self._ids:
            self._ledger.saw(self._ids, self._run)
            self._ids = []


def _modified(item: Item) -> str | None:
    """When a file on this machine last changed, if that can be told."""
    with contextlib.suppress(OSError, ValueError, OverflowError):
        return facts.now(item.fetch(Path()).stat().st_mtime) if item.local else None
    return None


def _other(given: dict[str, str], document_id: str, source: str) -> str | None:
    """The other file that has given the id in this run, if one has; else this one has now."""
    if document_id.startswith(f"{source}#"):  # of a row without an id: not worth its memory
        return None
    first = given.setdefault(document_id, source)
    return None if first == source else first


Begun = tuple[Item, Reader | None, Any]


def _begun(items: Iterable[Item], reader_for: Callable[[Path], Reader]) -> Generator[Begun, None, None]:
    """Each file, its reader if there is one, and its documents; files are begun ahead of their turn."""
    window: deque[Begun] = deque()
    with closing(_fetched(items)) as fetched:
        try:
            for item, path in fetched:
                window.append(_begin(item, path, reader_for))
                if len(window) >= (_AHEAD if item.local else 1):
                    yield window.popleft()
            while window:
                yield window.popleft()
        finally:
            for _, _, results in window:
                if hasattr(results, "close"):
                    results.close()


def _begin(item: Item, path: Path | NearestError, reader_for: Callable[[Path], Reader]) -> Begun:
    try:
        if isinstance(path, NearestError):
            raise path
        reader = reader_for(path)
        return item, reader, reader.read(path, item.id)
    except NearestError as error:
        return item, None, [Failure(item.id, str(error))]


def _fetched(items: Iterable[Item]) -> Generator[tuple[Item, Path | NearestError], None, None]:
    """Each file and where it is on this machine, in their order; a fetched one is there until the next is asked for."""
    remaining = iter(items)
    ahead: deque[tuple[Item, Future[Path]]] = deque()
    with ThreadPoolExecutor(_FETCHES) as pool, tempfile.TemporaryDirectory(prefix="nearest-") as folder:
        try:
            while True:
                for item in remaining:
                    if item.local:
                        yield item, item.fetch(Path(folder))
                        continue
                    place = Path(tempfile.mkdtemp(dir=folder))
                    ahead.append((item, pool.submit(item.fetch, place)))
                    if len(ahead) >= 2 * _FETCHES:
                        break
                if not ahead:
                    return
                item, future = ahead.popleft()
                try:
                    path: Path | NearestError = future.result()
                except NearestError as error:
                    path = error
                yield item, path
                if isinstance(path, Path):
                    shutil.rmtree(path.parent, ignore_errors=True)
        finally:
            for _, future in ahead:
                future.cancel()


def _onward(progress: Tell | None, done: Report, files: int | None) -> Tell | None:
    """Progress of one source, told with what was done before it and how many files there are in all."""
    if progress is None:
        return None
    documents, chunks, failed = done.added + done.updated + done.unchanged, done.chunks, len(done.failed)
    return lambda at: progress(
        Progress(at.documents + documents, at.chunks + chunks, at.failed + failed, at.stage, files)
    )


def _merge(total: Report, part: Report) -> None:
    for name in (
        "added",
        "updated",
        "unchanged",
        "removed",
        "skipped",
        "chunks",
        "truncated",
        "pooled",
        "usage",
        "seconds",
        "profile",
    ):
        setattr(total, name, getattr(total, name) + getattr(part, name))
    total.failed += part.failed
    total.duplicates += part.duplicates
