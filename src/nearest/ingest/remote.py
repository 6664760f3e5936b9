"""Object stores and other places with a URL that fsspec reaches: S3, Google Cloud Storage, Azure.

Keys and endpoints come from where each client looks for them (its environment variables, its files), or from
fsspec's own configuration; they are never part of the URL.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from nearest.errors import AccessDenied, ConnectionFailed, InvalidInput, MissingDependency, NearestError, Unreadable

MAX_BYTES = 4 << 30  # of one file
# What fsspec needs for each. They are no extras of ours, whose parts are all installed and tested by `make test`.
_S3, _GCS, _AZURE = "s3fs", "gcsfs", "adlfs"
_CLIENTS = {"s3": _S3, "s3a": _S3, "gs": _GCS, "gcs": _GCS, "az": _AZURE, "abfs": _AZURE, "abfss": _AZURE}
_MAGIC = set("*?[")


@dataclass(frozen=True, slots=True)
class File:
    """id: its URL. size: in bytes, if it is known."""

    id: str
    name: str
    size: int | None
    path: str
    filesystem: Any

    def fetch(self, folder: Path) -> Path:
        """A copy in the folder; raises Unreadable, saying why."""
        if self.size is not None and self.size > MAX_BYTES:
            raise Unreadable(f"is over {MAX_BYTES >> 30} GiB; split it")
        local = folder / f"file{PurePosixPath(self.name).suffix}"
        try:
            with _told(self.id):
                self.filesystem.get_file(self.path, str(local))
        except NearestError as error:
            raise Unreadable(f"could not be fetched: {error}") from error
        return local


def find(url: str) -> tuple[str, list[File]]:
    """The origin, and the files at a URL: one, those below a folder, or those that match a glob. Hidden ones not.

    Raises InvalidInput where there is nothing, AccessDenied, ConnectionFailed, and MissingDependency for a client
    that is not installed.
    """
    scheme, _, rest = url.partition("://")
    scheme = scheme.lower()
    url = f"{scheme}://{rest}"  # fsspec knows schemes in lower case only
    client = _CLIENTS.get(scheme, "")
    try:
        import fsspec  # type: ignore[import-untyped]
    except ImportError as error:
        packages = f"'nearest[readers]' {client}".rstrip()
        raise MissingDependency(f"{url} needs fsspec, which is not installed; run: pip install {packages}") from error
    try:
        with _told(url):
            filesystem, path = fsspec.core.url_to_fs(url)
    except ImportError as error:
        told = f" needs {client}, which is not installed; run: pip install {client}" if client else f": {error}"
        raise MissingDependency(url + told) from error
    except ValueError as error:
        raise InvalidInput(f"{url}: {error}") from None
    with _told(url):
        matched = bool(_MAGIC & set(path))
        listed = filesystem.glob(path, detail=True) if matched else filesystem.find(path, detail=True)
    base = path.rstrip("/")
    files = [
        File(filesystem.unstrip_protocol(name), PurePosixPath(name).name, facts.get("size"), name, filesystem)
        for name, facts in sorted(listed.items())
        if facts.get("type") == "file" and not _hidden(name if matched else name.removeprefix(base))
    ]
    if not files and (matched or not _exists(filesystem, path, url)):
        raise InvalidInput(f"{url} {'matches no file' if matched else 'does not exist'}")
    return filesystem.unstrip_protocol(base), files


def _hidden(path: str) -> bool:
    return any(part.startswith(".") for part in path.split("/"))


def _exists(filesystem: Any, path: str, url: str) -> bool:
    with _told(url):
        return bool(filesystem.exists(path))


@contextmanager
def _told(url: str) -> Iterator[None]:
    """What a client raises, as one of our errors; each has its own."""
    try:
        yield
    except (NearestError, ImportError, ValueError):
        raise
    except FileNotFoundError:
        raise InvalidInput(f"{url} does not exist") from None
    except PermissionError as error:
        raise AccessDenied(f"{url}: {error}; check the keys that its client finds, and their rights") from error
    except Exception as error:
        raise ConnectionFailed(f"{url}: {type(error).__name__}: {error}") from error
