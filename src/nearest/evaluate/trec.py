"""TREC run files: `query Q0 document rank score tag` a line, as trec_eval and pytrec_eval read them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from nearest.errors import InvalidInput

Run = Mapping[str, Sequence[tuple[str, float]]]
"""(document, score), best first, by query."""


def write(path: str | Path, run: Run, tag: str = "nearest") -> None:
    """Write a run. Raises InvalidInput for a name with a space, which the format cannot hold; nothing is written then.

    trec_eval orders by score alone, in single precision; where scores are equal or do not fall, they are told apart
    by the least step, so that it sees the order given.
    """
    lines = []
    for query, ranking in run.items():
        before = np.float32(np.inf)
        for rank, (document, score) in enumerate(ranking, 1):
            for name in (query, document, tag):
                check(name)
            told = min(np.float32(score), np.nextafter(before, np.float32(-np.inf)))
            before = told
            lines.append(f"{query} Q0 {document} {rank} {float(told)!r} {tag}\n")
    Path(path).write_text("".join(lines), encoding="utf-8")


def check(name: str) -> None:
    """Raises InvalidInput for a name that a run cannot hold."""
    if not name or any(c.isspace() for c in name):
        raise InvalidInput(f"a TREC run cannot hold the name {name!r}: it is empty or holds a space")


def read(path: str | Path) -> dict[str, list[tuple[str, float]]]:
    """A run, ordered as trec_eval does: by falling score, ties by document in reverse order; ranks do not count.

    Raises InvalidInput, naming the line.
    """
    found: dict[str, dict[str, float]] = {}
    try:
        with Path(path).open(encoding="utf-8-sig") as lines:
            for number, line in enumerate(lines, 1):
                fields = line.split()
                if not fields:
                    continue
                if len(fields) != 6:
                    raise InvalidInput(
                        f"{path}, line {number}: needs query Q0 document rank score tag, got {line[:60]!r}"
                    )
                query, _, document, _, told, _ = fields
                try:
                    score = float(told)
                except ValueError:
                    raise InvalidInput(f"{path}, line {number}: the score must be a number, got {told!r}") from None
                if not math.isfinite(score):
                    raise InvalidInput(f"{path}, line {number}: the score must be finite, got {told!r}")
                if document in found.setdefault(query, {}):
                    raise InvalidInput(f"{path}, line {number}: {document!r} repeats for query {query!r}")
                found[query][document] = score
    except UnicodeDecodeError as error:
        raise InvalidInput(f"{path} is not UTF-8 ({error.reason} at byte {error.start})") from None
    except OSError as error:
        raise InvalidInput(f"{path} cannot be read: {error.strerror}") from None
    if not found:
        raise InvalidInput(f"{path} holds no line of a run")
    return {
        query: sorted(scores.items(), key=lambda pair: (pair[1], pair[0]), reverse=True)
        for query, scores in found.items()
    }
