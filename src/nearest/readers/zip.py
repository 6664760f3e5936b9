"""ZIP: the files in it, as those of a folder would be read."""

from __future__ import annotations

import mimetypes
import tempfile
import zipfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path, PurePosixPath

from nearest.contract import Document, Failure, Reader
from nearest.errors import Unreadable
from nearest.readers import Unknown, _extra, by_extension

MAX_DEPTH = 2  # archives in an archive; one more is refused
_NOT_DOCUMENTS = {"image", "audio", "video", "font"}


class Zip(Reader):
    extensions = (".zip",)
    content_type = "application/zip"
    isolated = True
    left = _extra.MAX_EXPANDED  # bytes that may still come out, of archives inside as well

    def read(self, path: Path, document_id: str) -> Iterator[Document | Failure]:
        """The documents of the files, under `document_id/path`, each with its own file's content_type.

        A bad file is a Failure and costs no other, and so is a row whose id another file has given; but a file that
        takes too long, needs too much memory or crashes its parser ends the reading, and those after it are not read.
        Hidden files, pictures, sound and the like are left out; of an extension that no reader knows, what is text
        is read. Raises Unreadable for an archive that is damaged or expands beyond the limits, and for one without a
        file to be read.
        """
        if document_id.lower().count(".zip/") > MAX_DEPTH:
            raise Unreadable(f"is an archive in {MAX_DEPTH} others; unpack it")
        found = False
        given: dict[str, str] = {}  # file by id
        with _extra.archive(path, self.left) as archive, tempfile.TemporaryDirectory(prefix="nearest-") as folder:
            for member in sorted(archive.infolist(), key=lambda member: member.filename):
                place = PurePosixPath(member.filename.replace("\\", "/"))
                if member.is_dir() or any(part.startswith((".", "__MACOSX")) for part in place.parts):
                    continue
                reader = by_extension(place.suffix)
                if reader is None:
                    if _is_media(place.name):
                        continue
                    reader = Unknown()
                found = True
                # The name inside is never a place on the disk.
                name, file = f"{document_id}/{place.as_posix().lstrip('/')}", Path(folder, f"member{place.suffix}")
                try:
                    self._unpack(archive, member, file)
                    reader.passwords = self.passwords
                    if isinstance(reader, Zip):
                        reader.left = self.left
                    for result in reader.read(file, name):
                        if isinstance(result, Failure):
                            yield result
                        elif (other := given.setdefault(result.id, name)) != name:
                            yield _twice(result.id, name, other)
                        else:
                            metadata = {"content_type": reader.content_type, **result.metadata}
                            yield replace(result, metadata=metadata)
                    if isinstance(reader, Zip):
                        self.left = reader.left
                except MemoryError:
                    raise
                except Exception as error:  # noqa: BLE001 -- see `reason`
                    yield Failure(name, _extra.reason(error))
                file.unlink(missing_ok=True)
        if not found:
            raise Unreadable("holds no file that can be read")

    def _unpack(self, archive: zipfile.ZipFile, member: zipfile.ZipInfo, file: Path) -> None:
        passwords = [password.encode() for password in self.passwords] if member.flag_bits & 1 else [None]
        for password in passwords:
            try:
                with archive.open(member, pwd=password) as source, file.open("wb") as target:
                    while block := source.read(1 << 20):
                        target.write(block)
                        self.left -= len(block)
            except RuntimeError:  # zipfile's word for a wrong password
                continue
            except (zipfile.BadZipFile, EOFError, NotImplementedError) as error:
                if password is None:
                    raise Unreadable(f"is damaged: {error}") from None
                continue  # one wrong password in 256 is told only by what comes out
            return
        raise Unreadable("is encrypted; give its password (--passwords FILE, or passwords=[...])")


def _is_media(name: str) -> bool:
    return (mimetypes.guess_type(name)[0] or "").partition("/")[0] in _NOT_DOCUMENTS


def _twice(document_id: str, name: str, other: str) -> Failure:
    reason = (
        f'the id "{document_id}" is also in {other}; give the rows ids that no other file has, or rename the column, '
        "so that the file and the line are the id"
    )
    return Failure(f"{name}#{document_id}", reason)


READER = Zip
