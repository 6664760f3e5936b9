"""Each store beside its own bare client: bulk upsert, search, filtered search. One file a store, found by itself.

A file here declares
    serve(folder)  a context manager that starts what is needed and gives the URL of a new store
    Bare(url)      the same work by the client alone, in its best way; see `Bare` below
"""

from __future__ import annotations

from typing import Any, Protocol

from numpy.typing import NDArray


class Bare(Protocol):
    """The bare client, on a collection of its own with the same index parameters (M 16, ef_construct 128, ef 100)."""

    def load(self, ids: list[str], vectors: NDArray[Any], payloads: list[dict[str, Any]]) -> None:
        """Everything in bulk, durable and indexed; cosine; payload {"bucket": int, "text": str}, bucket indexed."""

    def search(self, vector: NDArray[Any], k: int) -> list[tuple[str, float, dict[str, Any]]]:
        """Ids, scores and payloads, read to the end."""

    def search_filtered(self, vector: NDArray[Any], k: int, bucket: int) -> list[tuple[str, float, dict[str, Any]]]:
        """The same where bucket equals."""

    def close(self) -> None: ...
