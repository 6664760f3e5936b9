"""A cached re-run of 50,000 chunks against embedding them: the local model, the SQLite cache, in turns."""

from __future__ import annotations

import os
import tempfile
import time
from pathlib import Path

import numpy as np

from benchmarks.common import machine, sentences, table
from nearest import embedders
from nearest.contract import Float32
from nearest.embedders import _cache

MODEL = "local:all-MiniLM-L6-v2"
CHUNKS = 50_000
GROUP = 256  # chunks that `add` embeds at once
SAMPLE = 1_024  # embedding all of them takes minutes, and each like the other: this many are timed, three times


def run() -> None:
    """Prints one table. Needs the data sets."""
    texts = sentences(CHUNKS)
    texts += [f"{text} (part {i})" for i, text in enumerate(texts * 5) if i + len(texts) < CHUNKS]
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder) / "vectors.db"
        plain = embedders.load(MODEL)
        plain.embed_documents(texts[:64], truncate=True)
        _filled(place, texts)
        embedding, reading = [], []
        for turn in range(3):
            some = texts[turn * SAMPLE : (turn + 1) * SAMPLE]
            started = time.perf_counter()
            for start in range(0, len(some), GROUP):
                plain.embed_documents(some[start : start + GROUP], truncate=True)
            embedding.append((time.perf_counter() - started) * len(texts) / len(some))
            again = embedders.load(MODEL, cache=place)
            started = time.perf_counter()
            for start in range(0, len(texts), GROUP):
                again.embed_documents(texts[start : start + GROUP], truncate=True)
            reading.append(time.perf_counter() - started)
            assert again.usage.cached == len(texts)
        size = place.stat().st_size / 2**20
    slow, fast = float(np.median(embedding)), float(np.median(reading))
    table(
        f"cache: {len(texts):,} chunks of {np.mean([len(t) for t in texts]):.0f} characters; "
        f"load {os.getloadavg()[0]:.1f}",
        ("", "seconds", "chunks/s"),
        [
            (f"embedded (from {SAMPLE:,} at a time)", f"{slow:.1f}", f"{len(texts) / slow:,.0f}"),
            (f"from the cache ({size:.0f} MiB)", f"{fast:.2f}", f"{len(texts) / fast:,.0f}"),
            ("ratio", f"{slow / fast:.0f}", ""),
        ],
    )


def _filled(place: Path, texts: list[str]) -> None:
    """The cache as a run leaves it, but with random vectors: embedding all takes minutes."""
    cached = _cache.Cached(embedders.load(MODEL), _cache.connect(place))

    def vectors(texts: list[str], *, truncate: bool = False) -> Float32:
        rows: Float32 = np.random.default_rng(0).standard_normal((len(texts), cached.dimension), np.float32)
        return rows

    cached.inner.embed_documents = vectors  # type: ignore[method-assign, assignment]
    for start in range(0, len(texts), GROUP):
        cached.embed_documents(texts[start : start + GROUP], truncate=True)


if __name__ == "__main__":
    print(machine())
    run()
