"""Files and folders to documents: which files, under which ids, and what a failed file means.

A document's id is its file's path below the folder that was named, with that folder's own name in
front: `docs/guide/keys.md` for `add("…/docs")`. Hidden files are left out; pictures, sound and the like
are counted as skipped; any other file that cannot be read is a failure.
"""

from __future__ import annotations

import mimetypes
import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from nearest.contract import Failure, Reader
from nearest.errors import InvalidInput, NearestError
from nearest.ingest.write import Progress, Report, Tagged, Writer

if TYPE_CHECKING:
    from nearest.ledger import Ledger

_NOT_DOCUMENTS = {"image", "audio", "video", "font"}


def add_files(
    writer: Writer,
    ledger: Ledger,
    reader_for: Callable[[Path], Reader],
    paths: Iterable[str | Path],
    *,
    truncate: bool = False,
    pool: bool = False,
    progress: Callable[[Progress], None] | None = None,
) -> Report:
    """Add files, and everything below folders; documents of theirs that are gone are removed.

    Removal follows a complete pass only. Raises InvalidInput, before anything is written, for a path that
    does not exist, and for a folder that gave documents before and holds no file now.
    """
    roots = [_root(path) for path in paths]
    if not roots:
        raise InvalidInput("no paths given; name files or folders to add")
    listed = [(root, list(_walk(root))) for root in roots]
    for root, files in listed:
        if not files and (before := ledger.has_origin(str(root))):
            raise InvalidInput(
                f"{root} is empty now, but {before} documents came from it; "
                "if that is meant, remove them by id or filter"
            )
    total = Report()
    for root, files in listed:
        run = ledger.next_run()
        ledger.clear_failures(str(root))
        documents = [file for file in files if not _is_media(file)]
        report = writer.add(
            _read(ledger, reader_for, root, documents, run), truncate=truncate, pool=pool, progress=progress, run=run
        )
        report.skipped = len(files) - len(documents)
        report.removed = writer.remove(ledger.unseen(str(root), run))
        _merge(total, report)
    return total


def count_files(paths: Iterable[str | Path]) -> int:
    """How many files `add_files` would read."""
    return sum(not _is_media(file) for path in paths for file in _walk(_root(path)))


def _root(path: str | Path) -> Path:
    root = Path(path).resolve()
    if not root.exists():
        raise InvalidInput(f"{path} does not exist; name a file or a folder")
    return root


def _walk(root: Path) -> Iterator[Path]:
    if not root.is_dir():
        yield root
        return
    for folder, folders, names in os.walk(root):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        if _is_collection(Path(folder)):
            folders.clear()
            continue
        yield from (Path(folder, name) for name in sorted(names) if not name.startswith("."))


def _is_collection(folder: Path) -> bool:
    """Our own collections are not documents."""
    return (folder / "ledger.db").is_file() and (folder / "store").is_dir()


def _is_media(path: Path) -> bool:
    kind = mimetypes.guess_type(path.name)[0] or ""
    return kind.partition("/")[0] in _NOT_DOCUMENTS


def _read(
    ledger: Ledger, reader_for: Callable[[Path], Reader], root: Path, files: Iterable[Path], run: int
) -> Iterator[Tagged]:
    origin = str(root)
    for file in files:
        source = f"{root.name}/{file.relative_to(root).as_posix()}" if file != root else root.name
        try:
            for document in reader_for(file).read(file, source):
                yield Tagged(document, origin, source)
        except NearestError as error:
            ledger.saw_source(origin, source, run)
            yield Tagged(Failure(source, str(error)), origin, source)


def _merge(total: Report, part: Report) -> None:
    for name in ("added", "updated", "unchanged", "removed", "skipped", "chunks", "truncated", "pooled", "seconds"):
        setattr(total, name, getattr(total, name) + getattr(part, name))
    total.failed += part.failed
