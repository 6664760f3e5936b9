"""Readers: one file a format. This file only finds them.

A reader's module declares
    READER      its class, a `contract.Reader`, made without arguments
    REQUIRES    its libraries, if it needs any: distribution name -> version specifier; all are in the extra `readers`

The empty extension is that of files without one (README, Makefile); the reader that claims it decides by
their content.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from nearest import plugins
from nearest.contract import Document, Failure, Reader
from nearest.errors import Unreadable
from nearest.readers._isolated import Isolated


def extensions() -> dict[str, type[Reader]]:
    """The reader of each extension, which is in lower case and with its dot."""
    return {extension: reader for extension, (_, reader) in _known().items()}


def for_path(path: Path, passwords: Sequence[str] = ()) -> Reader:
    """The reader of a file, by its extension; of an unknown one, a reader that takes what is text.

    passwords: for files that are encrypted. A reader that declares `isolated` runs in a child process.
    """
    found = _known().get(path.suffix.lower())
    if found is None:
        return Unknown()
    name, made = found
    reader = Isolated(name, made) if made.isolated else made()
    reader.passwords = tuple(passwords)
    return reader


def by_extension(extension: str) -> Reader | None:
    """The reader of an extension, to be used in this very process; None where there is none."""
    found = _known().get(extension.lower())
    return found[1]() if found else None


class Unknown(Reader):
    """A file whose extension no reader knows: text is read as text."""

    extensions = ()

    def read(self, path: Path, document_id: str) -> Iterator[Document | Failure]:
        """As plain text; raises Unreadable, listing what there is, for a file that is none."""
        known = _known()
        try:
            yield from known[""][1]().read(path, document_id)
        except Unreadable as error:
            if "binary" not in str(error):
                raise
            listed = ", ".join(sorted(filter(None, known)))
            raise Unreadable(f"{error}, and no reader knows {path.suffix.lower()}; there are {listed}") from None


def _known() -> dict[str, tuple[str, type[Reader]]]:
    """Name and class of each extension's reader."""
    modules = plugins.load_all("readers").items()
    return {extension: (name, module.READER) for name, module in modules for extension in module.READER.extensions}
