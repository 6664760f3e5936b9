"""What a search answers: its hits, and how it came to them as a whole."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from nearest.contract import Hit


class Hits(list[Hit]):
    """The hits of one search, best first; a list, and equal to one of the same hits.

    after: where the next page starts, of a search in pages; None after the last. skipped: why the reranker that was
    asked for did not judge; order and scores are then the first stage's, and min_score was not applied. cached: from
    the cache, of a query with this cosine to the one asked, 1.0 for the same; None if it was searched for. explain,
    JSON-able, None where it was not asked for:
        mode, rerank    as asked; for rerank its `model`, how many `candidates` it judged, and if it did not, why
                        (`skipped`): then the order is the first stage's
        native          what the store ran itself: `dense`, `lexical`, `fusion`, `where`
        completed       what was done above it: `fusion`, `lexical`, or a condition, `where metadata.title $contains`
        cached          as above; `native` and `completed` are then of the search whose answer it is
        seconds         of each stage: cache, embed and retrieve (of all queries asked together), rerank, refine
    """

    __slots__ = ("after", "cached", "explain", "skipped")

    def __init__(
        self,
        hits: Iterable[Hit] = (),
        explain: dict[str, Any] | None = None,
        after: str | None = None,
        cached: float | None = None,
        skipped: str | None = None,
    ) -> None:
        super().__init__(hits)
        self.explain = explain
        self.after = after
        self.cached = cached
        self.skipped = skipped
