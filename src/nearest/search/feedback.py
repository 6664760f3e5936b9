"""More like these, less like those: a query's vector moved by examples (Rocchio 1971)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from nearest.contract import Float32
from nearest.errors import InvalidQuery

ALPHA, BETA, GAMMA = 1.0, 0.75, 0.15  # as in Manning, Raghavan & Schütze 2008, chapter 9


@dataclass(frozen=True, slots=True)
class Examples:
    """like, unlike: float32, (n, d), of unit length, a row an example. records: ids that must not be found."""

    like: Float32
    unlike: Float32
    records: frozenset[str]

    def move(self, query: ArrayLike | None) -> Float32:
        """ALPHA * query + BETA * the mean of like - GAMMA * the mean of unlike, (d,), at unit length.

        Raises InvalidQuery where these cancel each other out.
        """
        moved = np.zeros(self.like.shape[1], np.float64)
        for weight, rows in ((BETA, self.like), (-GAMMA, self.unlike)):
            if len(rows):
                moved += weight * rows.mean(axis=0, dtype=np.float64)
        if query is not None:
            vector = np.asarray(query, np.float64)
            if vector.shape != moved.shape:
                raise InvalidQuery(f"the query vector has shape {vector.shape}, the collection's are {moved.shape}")
            moved += ALPHA * vector / (np.linalg.norm(vector) or 1.0)
        length = np.linalg.norm(moved)
        if not np.isfinite(length) or length < 1e-6:
            raise InvalidQuery("the examples cancel each other out; give others")
        unit: Float32 = (moved / length).astype(np.float32)
        return unit
