"""What the readers of the extra `readers` share: its libraries, dates, clean text, and archives that expand."""

from __future__ import annotations

import re
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

from nearest.errors import MissingDependency, NearestError, Unreadable
from nearest.readers import _decode

MAX_EXPANDED = 1 << 30  # bytes of all members of an archive
MAX_MEMBERS = 20_000
# Times the size of an archive that it may expand to; what is small is not asked. Text seldom comes to 20, tables of
# a spreadsheet to 50; DEFLATE ends at 1,032, and members that lie over one another go beyond.
MAX_RATIO = 100
_SMALL = 64 << 20
_NOT_TEXT = re.compile("[\0\ud800-\udfff]")


@contextmanager
def needed() -> Iterator[None]:
    """Around the import of a library; raises MissingDependency, saying how to install it."""
    try:
        yield
    except ImportError as error:
        raise MissingDependency(
            f"needs {error.name}, which is not installed; run: pip install 'nearest[readers]'"
        ) from error


def reason(error: Exception) -> str:
    """Why a file could not be read, by what a reader raised; whatever a parser raises, the file is what is wrong."""
    if isinstance(error, NearestError):
        return str(error)
    if isinstance(error, RecursionError):
        return "is nested too deeply"
    return f"is damaged, or not what its name says ({' '.join(f'{type(error).__name__}: {error}'.split())[:300]})"


def clean(text: str) -> str:
    """Without the code points that no text holds and damaged or careless files do: NUL and lone surrogates."""
    return _NOT_TEXT.sub("", text)


def facts(**values: Any) -> dict[str, Any]:
    """Metadata: texts cleaned, dates in RFC 3339 (in UTC if they tell no zone), without what is empty."""
    told: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, datetime):
            value = (value if value.tzinfo else value.replace(tzinfo=UTC)).isoformat()
        elif isinstance(value, date):
            value = value.isoformat()
        elif isinstance(value, str):
            value = " ".join(clean(value).split())[:1000]
        if value not in (None, ""):
            told[name] = value
    return told


def check_size(path: Path) -> None:
    """Raises Unreadable for a file that is over MAX_BYTES, empty, or none."""
    with _decode.opened(path) as file:
        size = file.seek(0, 2)
    if size > _decode.MAX_BYTES:
        raise Unreadable(f"is over {_decode.MAX_BYTES >> 20} MiB; split it")
    if not size:
        raise Unreadable("is empty")


@contextmanager
def archive(path: Path, limit: int = MAX_EXPANDED) -> Iterator[zipfile.ZipFile]:
    """A ZIP file that may be unpacked; raises Unreadable for one that expands beyond `limit` bytes or MAX_RATIO."""
    with _decode.opened(path) as file:
        if not file.read(1):
            raise Unreadable("is empty")
    try:
        with zipfile.ZipFile(path) as opened:
            members = opened.infolist()
            if len(members) > MAX_MEMBERS:
                raise Unreadable(f"holds {len(members):,} files, over {MAX_MEMBERS:,}; split it")
            # zipfile gives no more than is declared, so this bounds what comes out.
            expanded = sum(member.file_size for member in members)
            if expanded > limit:
                raise Unreadable(f"expands to more than {MAX_EXPANDED >> 20} MiB; unpack it, or split it")
            if expanded > max(MAX_RATIO * path.stat().st_size, _SMALL):
                raise Unreadable(
                    f"expands to over {MAX_RATIO} times its size, {expanded >> 20} MiB, as a bomb does; "
                    "if that is what you want, unpack it first"
                )
            yield opened
    except zipfile.BadZipFile as error:
        raise Unreadable(f"is damaged, or not what its name says: {error}") from None
    except (NotImplementedError, zipfile.LargeZipFile) as error:
        raise Unreadable(f"is packed in a way that cannot be read: {error}") from None
