"""Values of metadata as they stand in text files, and rows of files that hold many documents."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NoReturn

from nearest.contract import Document, Failure, check_document, check_id
from nearest.errors import InvalidInput

_INTEGER = re.compile(r"-?(0|[1-9][0-9]{0,17})")
_FLOAT = re.compile(r"-?(0|[1-9][0-9]{0,17})\.[0-9]{1,17}")
_TITLE = 300

ID_NAMES = ("_id", "id")
TEXT_NAMES = ("text", "content", "body")


def scalar(text: str) -> str | int | float | None:
    """A number if the whole is plainly one (`007` and `1e5` may be codes), null if it is empty."""
    if not text:
        return None
    if _INTEGER.fullmatch(text):
        return int(text)
    return float(text) if _FLOAT.fullmatch(text) else text


def title(text: str) -> dict[str, str]:
    """The title as metadata, spaces made even; nothing where there is none."""
    words = " ".join(text.split())
    return {"title": words[:_TITLE]} if words else {}


def first(row: Mapping[str, Any], names: tuple[str, ...]) -> str | None:
    """The first of the names that the row has."""
    return next((name for name in names if name in row), None)


def labelled(row: Iterable[tuple[str, str]]) -> Iterator[str]:
    """`name: value` of each value that there is: a passage would else lose what its parts are."""
    for name, value in row:
        if value:
            yield f"{name}: {value}" if name else value


def refuse(constant: str) -> NoReturn:
    """For `json.loads`: NaN and the infinities are no JSON."""
    raise ValueError(f"{constant} is no JSON number")


def document(
    row: Mapping[str, Any], text_name: str, source: str, line: int, *, unit: str = "line"
) -> Document | Failure:
    """The document of a row: `_id` or `id`, the text, and the rest as metadata.

    Its `title` leads the text, as BEIR reads its collections. `metadata`, if an object, is laid over
    the other fields, and a `source` of the row's own stays. unit: what `line` counts.
    """
    id_name = first(row, ID_NAMES)
    own = row[id_name] if id_name else None
    at = f"{source}#{line}"
    if own is None or own == "":
        own = at
    elif isinstance(own, int) and not isinstance(own, bool):
        own = str(own)
    try:
        name = check_id(own)
    except InvalidInput as error:
        return Failure(at, f"{unit} {line}: {error}")
    text, heading, inner = row.get(text_name), row.get("title"), row.get("metadata")
    if text is None:
        text = ""
    if not isinstance(text, str):
        return Failure(name, f"{unit} {line}: {text_name} is {type(text).__name__}, not a string")
    if isinstance(heading, str) and heading.strip() and not text.startswith(heading):
        text = f"{heading}\n\n{text}" if text.strip() else heading
    if not text.strip():
        return Failure(name, f"{unit} {line}: no text" if text_name in row else f"{unit} {line}: has no {text_name!r}")
    taken = {id_name, text_name}
    if heading is None or heading == "":
        taken.add("title")
    if isinstance(inner, Mapping):
        taken.add("metadata")
    else:
        inner = {}
    metadata = {"source": source, **{key: value for key, value in row.items() if key not in taken}, **inner}
    made = Document(name, text, metadata)
    try:
        check_document(made)
    except InvalidInput as error:
        return Failure(name, f"{unit} {line}: {error}")
    return made
