"""Bytes to text, for all readers: the encoding is found out, and what is no text is refused."""

from __future__ import annotations

import codecs
import io
import os
import stat
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from nearest.errors import Unreadable

MAX_BYTES = 256 << 20  # of a file that is read as a whole
# Characters of a line, or of a row, of a file that is read by line: in this process, where no limit of memory holds.
# Parsed, JSON is up to some 20 times as large.
MAX_LINE = 8 << 20
_SAMPLE = 64 << 10

_BOMS = {  # UTF-32 first: its little-endian mark begins with that of UTF-16
    codecs.BOM_UTF32_LE: "utf-32-le",
    codecs.BOM_UTF32_BE: "utf-32-be",
    codecs.BOM_UTF8: "utf-8",
    codecs.BOM_UTF16_LE: "utf-16-le",
    codecs.BOM_UTF16_BE: "utf-16-be",
}
_SIGNATURES = {
    b"%PDF-": "PDF",
    b"PK\x03\x04": "ZIP, or an Office document",
    b"\x89PNG": "PNG",
    b"\xff\xd8\xff": "JPEG",
    b"GIF8": "GIF",
    b"\x7fELF": "a program",
    b"\x1f\x8b": "gzip",
    b"BZh": "bzip2",
    b"\xfd7zXZ": "xz",
    b"\x28\xb5\x2f\xfd": "Zstandard",
    b"7z\xbc\xaf": "7-Zip",
    b"SQLite format 3": "SQLite",
    b"\xd0\xcf\x11\xe0": "an old Office document",
}
_LEGACY = [  # what files are still written in; charset-normalizer's others are mistaken for these
    *("cp1252", "cp1250", "cp1251", "cp1253", "cp1254", "cp1255", "cp1256", "cp1257", "cp1258", "cp874"),
    *("koi8_r", "cp932", "euc_jp", "gb18030", "big5", "cp949"),
]
# Tabs, line ends, form feeds, and the escapes of coloured logs are text.
_CONTROLS = bytes(c for c in range(32) if c not in b"\b\t\n\v\f\r\x1b") + b"\x7f"


def read_text(path: Path, declared: Callable[[bytes], str | None] = lambda data: None) -> str:
    """The text of a whole file; raises Unreadable, see `decode`, and for one over MAX_BYTES.

    declared: the encoding that the file itself names, told from its bytes.
    """
    with opened(path) as file:
        data = file.read(MAX_BYTES + 1)
    if len(data) > MAX_BYTES:
        raise Unreadable(f"is over {MAX_BYTES >> 20} MiB; split it, or make it JSONL, which is read by line")
    return decode(data, declared(data))


def read_lines(path: Path) -> Generator[str | None, None, None]:
    """The lines of a file with their ends; None for one over MAX_LINE. Memory stays flat.

    Bytes that the encoding does not know become lone surrogates, so that they cost their line alone.
    Raises Unreadable, see `decode`.
    """
    with opened(path) as file:
        sample = file.read(_SAMPLE)
        encoding, skip = _detect(sample, whole=len(sample) < _SAMPLE)
        file.seek(skip)
        blank = True
        with io.TextIOWrapper(file, encoding, errors="surrogateescape", newline="") as lines:
            try:
                while line := lines.readline(MAX_LINE):
                    too_long = False
                    while len(line) == MAX_LINE and line[-1] != "\n":
                        too_long, line = True, lines.readline(MAX_LINE)
                    blank = blank and not too_long and line.isspace()
                    yield None if too_long else line
            except UnicodeDecodeError as error:
                raise Unreadable(f"is damaged: not {encoding} ({error.reason})") from None
        if blank:
            raise Unreadable("is empty")


@contextmanager
def opened(path: Path) -> Iterator[BinaryIO]:
    """The file, to read; raises Unreadable with the system's reason, whenever it comes."""
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):  # opening a pipe would wait for its writer
            raise Unreadable("is a folder" if path.is_dir() else "is not a regular file")
        with path.open("rb") as file:
            yield file
    except OSError as error:
        raise Unreadable(f"could not be read: {error.strerror or error}") from error


def decode(data: bytes, declared: str | None = None) -> str:
    """The text: by its byte order mark, as declared, as UTF-8, or in the likeliest legacy encoding.

    Raises Unreadable if it is empty, binary, damaged, or in no known encoding.
    """
    sample = data[:_SAMPLE]
    if declared is not None and b"\0" not in data:
        _refuse_binary(sample)
        text = _try(data, declared)
        if text is not None:
            return _checked(text)
    encoding, skip = _detect(sample, whole=len(data) <= _SAMPLE)
    try:
        return _checked(data[skip:].decode(encoding))
    except UnicodeDecodeError as error:
        if encoding != "utf-8" or skip or not data[: error.start].isascii():
            raise Unreadable(f"is damaged: not {encoding} at byte {error.start + skip} ({error.reason})") from None
        # So far all was ASCII: what it is shows only here.
        window = data[max(0, error.start - _SAMPLE // 2) : error.start + _SAMPLE // 2]
        text = _try(data, _legacy(window))
        if text is None:
            raise Unreadable(f"is damaged, or in an unknown encoding, at byte {error.start}") from None
        return _checked(text)


def _try(data: bytes, encoding: str) -> str | None:
    try:
        return data.decode(encoding)
    except (UnicodeError, LookupError):
        return None


def _checked(text: str) -> str:
    if not text or text.isspace():
        raise Unreadable("is empty")
    if "\0" in text:
        raise Unreadable("looks binary (NUL characters)")
    return text


def _detect(sample: bytes, *, whole: bool) -> tuple[str, int]:
    """The encoding of a file that begins with the sample, and the length of its byte order mark."""
    if not sample:
        raise Unreadable("is empty")
    for mark, encoding in _BOMS.items():
        if sample.startswith(mark):
            return encoding, len(mark)
    if b"\0" in sample and (wide := _wide(sample)):
        return wide, 0
    _refuse_binary(sample)
    try:
        codecs.getincrementaldecoder("utf-8")().decode(sample, final=whole)
    except UnicodeDecodeError:
        bad = sample.decode("utf-8", "replace").count("\ufffd")
        good = len(sample.decode("utf-8", "ignore").encode()) - len(sample.translate(None, bytes(range(128, 256))))
        # Of the bytes of another encoding few happen to be UTF-8; of damaged UTF-8, most.
        return ("utf-8", 0) if good > bad else (_legacy(sample), 0)
    return "utf-8", 0


def _refuse_binary(sample: bytes) -> None:
    for signature, kind in _SIGNATURES.items():
        if sample.startswith(signature):
            raise Unreadable(f"looks binary ({kind})")
    if b"\0" in sample:
        raise Unreadable("looks binary (NUL bytes)")
    if (len(sample) - len(sample.translate(None, _CONTROLS))) * 100 > len(sample):
        raise Unreadable("looks binary (control characters)")


def _wide(sample: bytes) -> str | None:
    """UTF-16 or UTF-32 without a mark, told by where the zeros of its ASCII characters stand."""
    sample = sample[: len(sample) // 4 * 4] or sample
    zeros = [sample[i::4].count(0) / max(1, len(sample[i::4])) for i in range(4)]
    match [share > 0.9 for share in zeros]:
        case [False, True, True, True]:
            return "utf-32-le"
        case [True, True, True, False]:
            return "utf-32-be"
    for encoding, high, low in (("utf-16-le", 1, 0), ("utf-16-be", 0, 1)):
        # Spaces and line ends are ASCII in most scripts.
        if zeros[high] + zeros[high + 2] > 0.2 and zeros[low] + zeros[low + 2] < 0.02:
            text = sample[: len(sample) // 2 * 2].decode(encoding, "ignore")
            if sum(not c.isprintable() and not c.isspace() for c in text) * 100 <= len(text):
                return encoding
    return None


def _legacy(sample: bytes) -> str:
    """The likeliest of the encodings from before UTF-8."""
    if len(sample) >= _SAMPLE // 2:  # it may end inside a character
        sample = sample[: sample.rfind(b"\n") + 1] or sample
    import charset_normalizer  # most files need it not

    matches = charset_normalizer.from_bytes(sample, cp_isolation=_LEGACY)
    best = matches.best()
    if best is None:
        raise Unreadable("looks binary, or is in an unknown encoding")
    for match in matches:
        # Western European is by far the most common; in short texts its neighbours score the same.
        if (
            best.encoding.startswith("cp12")
            and "cp1252" in (match.encoding, *match.could_be_from_charset)
            and match.chaos <= best.chaos + 0.05
            and match.coherence >= best.coherence
        ):
            return "cp1252"
    return best.encoding
