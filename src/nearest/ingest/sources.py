"""What `nearest add` names, as lists of files: folders, globs, files, standard input, web pages, object stores.

    docs/  notes.md  'docs/**/*.md'    files on this machine; hidden and ignored ones are left out
    -                                  standard input, one file
    https://example.org/page           one page; see `web`
    s3://bucket/folder  gs://  az://   what fsspec reaches; see `remote`

Every one has an origin, by which the ledger knows what it gave before, and files with ids of their own. An id is
the file's path below the folder that was named, with that folder's own name in front (`docs/guide/keys.md` for
`add("…/docs")`); of what has a URL, the URL. Files of one command that would have one id get more of their paths,
see `tell_apart`.
"""

from __future__ import annotations

import mimetypes
import os
import shutil
import sys
from collections.abc import Callable, Container, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from nearest.contract import Failure
from nearest.errors import InvalidInput, Unreadable
from nearest.ingest import remote, web

if TYPE_CHECKING:
    from pathspec import GitIgnoreSpec

STDIN = "-"
IGNORE_FILES = (".gitignore", ".nearestignore")  # of equal depth the last one decides
_MAX_STDIN = 1 << 30  # bytes
_NOT_DOCUMENTS = {"image", "audio", "video", "font"}
_MAGIC = "*?["


@dataclass(frozen=True, slots=True)
class Item:
    """One file. fetch: brings it into a folder that is made for it, and gives its path; a local file's own."""

    id: str
    fetch: Callable[[Path], Path]
    local: bool = True


@dataclass(slots=True)
class Source:
    """What one path or URL names. origin: its name in the ledger. skipped: files that are not documents.

    many: a folder or the like, of which it is strange to be empty. unlisted: folders that could not be looked
    into, with the reason; what came from them is not known to be gone. root: the file or folder on this machine, and
    name: what stands for it at the start of each id.
    """

    origin: str
    items: list[Item] = field(default_factory=list)
    skipped: int = 0
    many: bool = True
    unlisted: list[Failure] = field(default_factory=list)
    root: Path | None = None
    name: str = ""

    def rename(self, name: str) -> None:
        self.items = [replace(item, id=name + item.id.removeprefix(self.name)) for item in self.items]
        self.name = name


def tell_apart(sources: Iterable[Source], names: Mapping[str, str], known: Callable[[str], int]) -> dict[str, str]:
    """Gives files of one command that would have one id more of their paths: `a/README.md b/README.md`.

    names: of the origins for which this was done before. known: how many documents came from an origin, which keep
    the ids that they have. Returns the names with those that are new.
    """
    local = list({source.origin: source for source in sources if source.root is not None}.values())
    fixed = {source.origin for source in local if source.origin in names or known(source.origin)}
    given: dict[str, Path] = {}
    made = dict(names)
    for source in sorted(local, key=lambda source: source.origin not in fixed):
        assert source.root is not None
        if source.origin in names:
            source.rename(names[source.origin])
        if source.origin not in fixed:
            parts = source.root.parts[1:]
            for n in range(1, len(parts) + 1):
                source.rename("/".join(parts[-n:]))
                if all(given.get(item.id, path) == path for item, path in _files(source)):
                    break
            if source.name != source.root.name:
                made[source.origin] = source.name
        given.update((item.id, path) for item, path in _files(source))
    return made


def _files(source: Source) -> Iterator[tuple[Item, Path]]:
    return ((item, item.fetch(Path())) for item in source.items)


def find(spec: str | Path, known: Container[str], *, name: str, ignore: bool, private: bool) -> Source:
    """The files behind a path or URL; raises InvalidInput for one that does not exist or cannot be understood.

    known: extensions that have a reader. name: of standard input. ignore: leave out what ignore files say.
    private: web pages on this machine's own networks may be read.
    """
    text = str(spec)
    if text == STDIN:
        return Source(f"stdin:{name}", [Item(name, lambda folder: _stdin(folder, name), local=False)], many=False)
    scheme, separator, _ = text.partition("://")
    if separator and scheme.lower() in ("http", "https"):
        address = web.address(text)
        return Source(
            address, [Item(address, lambda folder: web.fetch(text, folder, private), local=False)], many=False
        )
    if separator and scheme.isalnum():
        origin, files = remote.find(text)
        documents = [file for file in files if not _is_media(file.name, known)]
        items = [Item(file.id, file.fetch, local=False) for file in documents]
        return Source(origin, items, len(files) - len(documents))
    return _local(Path(spec), known, ignore)


def _local(path: Path, known: Container[str], ignore: bool) -> Source:
    root, matches = path.resolve(), None
    if not root.exists():
        plain = [part for part in path.parts if not set(part) & set(_MAGIC)]
        if len(plain) == len(path.parts):
            raise InvalidInput(f"{path} does not exist; name a file or a folder")
        first = next(i for i, part in enumerate(path.parts) if set(part) & set(_MAGIC))
        root = Path(*path.parts[:first]).resolve()
        if not root.is_dir():
            raise InvalidInput(f"{path} matches nothing: there is no folder {root}")
        matches = _spec(["/" + "/".join(path.parts[first:])])
    origin = str(root if matches is None else path.absolute())
    source = Source(origin, many=root.is_dir(), root=root, name=root.name)

    def failed(error: OSError) -> None:
        folder = Path(error.filename or root)
        below = folder.relative_to(root).as_posix() if folder.is_relative_to(root) else str(folder)
        source.unlisted.append(Failure(f"{root.name}/{below}", f"could not be read: {error.strerror or error}"))

    for file in _walk(root, ignore, failed):
        below = file.relative_to(root).as_posix()
        if matches is not None and not matches.match_file(below):
            continue
        if _is_media(file.name, known):
            source.skipped += 1
        else:
            name = root.name if file == root else f"{root.name}/{below}"
            source.items.append(Item(name, lambda folder, file=file: file))  # type: ignore[misc]
    if matches is not None and not source.items:
        raise InvalidInput(f"{path} matches no file")
    return source


def _walk(root: Path, ignore: bool, failed: Callable[[OSError], None]) -> Iterator[Path]:
    if not root.is_dir():
        yield root
        return
    ignored = _Ignored() if ignore else None
    for folder, folders, names in os.walk(root, onerror=failed):
        here = Path(folder)
        if _is_collection(here):
            folders.clear()
            continue
        if ignored:
            ignored.enter(here, names)
        folders[:] = sorted(
            name for name in folders if not name.startswith(".") and not (ignored and ignored(here / name, True))
        )
        for name in sorted(names):
            if not name.startswith(".") and not (ignored and ignored(here / name, False)):
                yield here / name


class _Ignored:
    """What the ignore files of a folder and of those above it, up to the one that was named, leave out.

    As git has it: a deeper file decides over one further up, in a file the last pattern that matches.
    """

    def __init__(self) -> None:
        self._specs: list[tuple[Path, GitIgnoreSpec]] = []

    def enter(self, folder: Path, names: list[str]) -> None:
        """The next folder of a walk from the top."""
        self._specs = [(above, spec) for above, spec in self._specs if folder.is_relative_to(above)]
        for name in IGNORE_FILES:
            if name in names:
                try:
                    lines = (folder / name).read_text("utf-8", errors="replace").splitlines()
                except OSError as error:
                    raise InvalidInput(f"{folder / name} could not be read: {error.strerror or error}") from None
                self._specs.append((folder, _spec(lines)))

    def __call__(self, path: Path, is_folder: bool) -> bool:
        for above, spec in reversed(self._specs):
            found = spec.check_file(path.relative_to(above).as_posix() + "/" * is_folder).include
            if found is not None:
                return found
        return False


def _spec(lines: list[str]) -> GitIgnoreSpec:
    from pathspec import GitIgnoreSpec  # few runs need it

    return GitIgnoreSpec.from_lines(lines)


def _is_collection(folder: Path) -> bool:
    """Our own collections are not documents."""
    return (folder / "ledger.db").is_file() and (folder / "store").is_dir()


def _is_media(name: str, known: Container[str]) -> bool:
    """Pictures, sound and the like. Some extensions are code as well (`.ts`), and then have a reader."""
    kind = mimetypes.guess_type(name)[0] or ""
    return kind.partition("/")[0] in _NOT_DOCUMENTS and Path(name).suffix.lower() not in known


def _stdin(folder: Path, name: str) -> Path:
    path = folder / f"stdin{Path(name).suffix}"
    with path.open("wb") as file:
        shutil.copyfileobj(_Limited(), file)
    return path


class _Limited:
    """Standard input, up to a limit."""

    def __init__(self) -> None:
        self._left = _MAX_STDIN

    def read(self, size: int = -1) -> bytes:
        block = sys.stdin.buffer.read(size)
        self._left -= len(block)
        if self._left < 0:
            raise Unreadable(f"standard input is over {_MAX_STDIN >> 20} MiB; write it to a file, and add that")
        return block
