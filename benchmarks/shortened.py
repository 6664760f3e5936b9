"""What shorter vectors cost: how many of the ten nearest by the full vectors are still found, and at what size.

Every search is by brute force over the passages of `common.embedded`, so that what is lost is lost by the vectors, not
by an index. The queries are other passages. Dimensions: the vectors' beginning, at unit length again (Matryoshka
representations, Kusupati et al., 2022). int8: one scale for all numbers, at their 99.9th percentile, as stores do with
`quantization="scalar"`. binary: a number's sign. rescored: the best 20 or 40 (of k = 10: oversampling 2 or 4) are
compared again by their full vectors, which are then kept as well, beside those that are searched.

    python -m benchmarks shortened
    python -m benchmarks.shortened org/name     another model, on the first 20,000 passages
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from benchmarks.common import embedded, machine, sentences, table

Vectors = npt.NDArray[np.float32]
QUERIES, K, OVERSAMPLING = 1000, 10, (2, 4)
SOME = 20_000


def run(model: str | None = None) -> None:
    """Prints one table. Needs the data sets. model: of `local:`; by default the one whose vectors are cached."""
    if model is None:
        _, vectors = embedded()
    else:
        import nearest

        vectors = nearest.embedder(f"local:{model}").embed_documents(sentences(SOME), truncate=True)
    chosen = np.random.default_rng(0).permutation(len(vectors))
    queries, passages = vectors[chosen[:QUERIES]], vectors[chosen[QUERIES:]]
    wanted = _nearest(queries, passages, K)
    width = vectors.shape[1]
    rows: list[Sequence[object]] = []
    for dimensions in (width, *(d for d in (512, 256, 192, 128, 64, 32) if d < width)):
        shorter, asked = _unit(passages[:, :dimensions]), _unit(queries[:, :dimensions])
        for kind, size, found in (
            ("float32", 4.0, (asked, shorter)),
            ("int8", 1.0, (asked, _int8(shorter))),  # a query keeps its float32: it is one vector
            ("binary", 1 / 8, (_signs(asked), _signs(shorter))),
        ):
            best = _nearest(*found, K * max(OVERSAMPLING))
            recalls = [_recall(best[:, :K], wanted)]
            recalls += [_recall(_rescored(best[:, : K * n], queries, passages), wanted) for n in OVERSAMPLING]
            rows.append((dimensions, kind, f"{size * dimensions:g}", *(f"{recall:.3f}" for recall in recalls)))
    table(
        f"shortened: recall@{K} of the full vectors, {len(passages):,} passages, {len(queries):,} queries, "
        f"{model or 'all-MiniLM-L6-v2'}",
        ("dimensions", "numbers", "bytes", "recall", *(f"rescored, {n}x" for n in OVERSAMPLING)),
        rows,
    )


def _nearest(queries: Vectors, passages: Vectors, k: int) -> npt.NDArray[np.int64]:
    """(n, k): rows of the passages by falling inner product."""
    found = []
    for start in range(0, len(queries), 100):  # a hundred rows of scores at a time
        scores = queries[start : start + 100] @ passages.T
        some = np.argpartition(-scores, k, axis=1)[:, :k]
        order = np.argsort(-np.take_along_axis(scores, some, axis=1), axis=1, kind="stable")
        found.append(np.take_along_axis(some, order, axis=1))
    return np.concatenate(found)


def _rescored(best: npt.NDArray[np.int64], queries: Vectors, passages: Vectors) -> npt.NDArray[np.int64]:
    scores = np.einsum("qd,qkd->qk", queries, passages[best])
    return np.take_along_axis(best, np.argsort(-scores, axis=1)[:, :K], axis=1)


def _recall(found: npt.NDArray[np.int64], wanted: npt.NDArray[np.int64]) -> float:
    return float(np.mean([len(np.intersect1d(a, b)) / K for a, b in zip(found, wanted, strict=True)]))


def _unit(vectors: Vectors) -> Vectors:
    unit: Vectors = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    return unit


def _int8(vectors: Vectors) -> Vectors:
    """As 8 bits give them back."""
    scale = np.quantile(np.abs(vectors[:: max(1, len(vectors) // 1000)]), 0.999) / 127
    rounded: Vectors = np.clip(np.round(vectors / scale), -127, 127).astype(np.float32)
    return rounded


def _signs(vectors: Vectors) -> Vectors:
    """1 and -1: their inner product is the dimension less twice the bits that differ."""
    signs: Vectors = np.where(vectors > 0, 1, -1).astype(np.float32)
    return signs


if __name__ == "__main__":
    print(machine())
    run(*sys.argv[1:2])
