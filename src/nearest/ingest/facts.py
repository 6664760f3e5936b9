"""Facts about a passage, which conditions can use: `where={"_chunk.facts.words": {"$gte": 20}}`.

They are kept in a record's payload under `facts`, and take no part in its hash: what did not change is not embedded
again because they did. All but the language cost some 20 microseconds a passage, a few thousandths of its embedding,
and are always told. The language costs a model (py3langid: 0.4 ms a passage, a second and 80 MB once) and is told
where it is asked for.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from nearest.errors import MissingDependency

_NUMBER = re.compile(r"\d")
# Looks like code: a fence, a prompt, a definition, an import; or two lines that end as statements of C's family do.
_CODE = re.compile(
    r"^[ \t]*(?:```|~~~|>>> |\$ \w|#include\b|#!/|<\?php|@\w+(?:\(.*\))?$|"
    r"(?:(?:export|public|private|protected|static|async|abstract|final|pub|default)\s+)*"
    r"(?:def|class|struct|enum|interface|trait|impl|func|fn|fun|function|namespace|module)\s+\w+\s*[(<{:\[]|"
    r"(?:import\s+[\w.*{\"']+(?:\s+as\s+\w+)?;?$|from\s+[\w.]+\s+import\s)|"
    r"(?:const|let|var|val)\s+\w+\s*(?::\s*\w+)?=|return\b.*;$|(?:if|for|while|switch)\s*\(.*\)\s*\{)",
    re.MULTILINE,
)
_STATEMENT = re.compile(r"[;{}][ \t]*$", re.MULTILINE)


def of(
    text: str, now: str, language: Callable[[str], str | None] | None = None, modified: str | None = None
) -> dict[str, Any]:
    """words: parted by spaces. has_code: by its look, a guess. has_numbers: whether there is a digit.

    indexed_at: `now`. language: its ISO 639-1 code, with a detector. modified: of the file, if there is one here.
    """
    told: dict[str, Any] = {
        "words": len(text.split()),
        "has_code": _CODE.search(text) is not None or len(_STATEMENT.findall(text)) > 1,
        "has_numbers": _NUMBER.search(text) is not None,
        "indexed_at": now,
    }
    if language is not None:
        told["language"] = language(text)
    if modified is not None:
        told["modified"] = modified
    return told


def now(seconds: float | None = None) -> str:
    """The time, or one in seconds since 1970, as conditions compare it (RFC 3339)."""
    moment = datetime.now(UTC) if seconds is None else datetime.fromtimestamp(seconds, UTC)
    return moment.isoformat(timespec="seconds").replace("+00:00", "Z")


def detector() -> Callable[[str], str | None]:
    """Tells the language of a text by its letters (Lui and Baldwin, ACL 2012); None where there are none.

    Raises MissingDependency.
    """
    try:
        import py3langid  # type: ignore[import-untyped]  # it ships no types
    except ImportError as error:
        raise MissingDependency(
            f"telling the language needs {error.name}, which is not installed; run: pip install 'nearest[language]'"
        ) from error

    def detect(text: str) -> str | None:
        return str(py3langid.classify(text)[0]) if any(map(str.isalpha, text)) else None

    return detect
