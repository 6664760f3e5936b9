"""Every store against its own bare client, in one run: bulk upsert with the index built, search, filtered search.

    python -m benchmarks.stores.run                     all of them, 60,000 x 384
    python -m benchmarks.stores.run --only pgvector faiss --rows 10000

Loading alternates (ours, bare, bare, ours) and the better of two counts for each side; searches take turns.
"""

from __future__ import annotations

import argparse
import importlib
import pkgutil
import tempfile
import time
from pathlib import Path
from typing import Any

import nearest
from benchmarks import stores
from benchmarks.common import embedded, interleaved, ms, table
from nearest.contract import Dense, Query, Record, Store
from nearest.filters import parse

K, ROUNDS, BLOCK, BUCKETS = 10, 300, 100, 14


def load(url: str, ids: list[str], vectors: Any, payloads: list[dict[str, Any]]) -> tuple[Store, float]:
    schema = nearest.Schema({"dense": nearest.VectorSpec(vectors.shape[1])}, fields={"bucket": "integer"})
    store = nearest.connect(url, schema)
    started = time.perf_counter()
    store.upsert(Record(i, {"dense": v}, p) for i, v, p in zip(ids, vectors, payloads, strict=True))
    store.wait()
    store.flush()
    store.optimize()
    return store, time.perf_counter() - started


def load_bare(make: Any, url: str, ids: list[str], vectors: Any, payloads: list[dict[str, Any]]) -> tuple[Any, float]:
    bare = make(url)
    started = time.perf_counter()
    bare.load(ids, vectors, payloads)
    return bare, time.perf_counter() - started


def measure(name: str, texts: list[str], vectors: Any, repeats: int) -> list[tuple[str, ...]]:
    module = importlib.import_module(f"benchmarks.stores.{name}")
    ids = [f"d{i}" for i in range(len(texts))]
    payloads = [{"bucket": i % BUCKETS, "text": text} for i, text in enumerate(texts)]
    loads: dict[str, list[float]] = {"ours": [], "bare": []}
    rows: list[tuple[str, ...]] = []
    for turn in range(repeats):
        with tempfile.TemporaryDirectory(prefix="nearest-bench-") as folder, module.serve(Path(folder)) as url:
            ours = bare = None
            for side in ("ours", "bare") if turn % 2 == 0 else ("bare", "ours"):
                if side == "ours":
                    ours, seconds = load(url, ids, vectors, payloads)
                else:
                    bare, seconds = load_bare(module.Bare, url, ids, vectors, payloads)
                loads[side].append(seconds)
            assert ours is not None
            assert bare is not None
            if turn == repeats - 1:
                best = {side: min(seconds) for side, seconds in loads.items()}
                rows.append(_row(name, f"upsert {len(ids):,}", best, lambda seconds: f"{seconds:.1f} s"))
                if hasattr(bare, "load_by_row"):
                    started = time.perf_counter()
                    bare.load_by_row(ids, vectors, payloads)
                    by_row = {"bare": time.perf_counter() - started, "ours": best["ours"]}
                    rows.append(_row(name, "upsert, bare row by row", by_row, lambda seconds: f"{seconds:.1f} s"))
                rows += _searches(name, ours, bare, vectors)
            bare.close()
            ours.close()
    return rows


def _searches(name: str, ours: Store, bare: Any, vectors: Any) -> list[tuple[str, ...]]:
    only = parse({"bucket": 3})

    def asked(i: int) -> Any:
        return vectors[i * 17 % len(vectors)]

    plain = {
        "ours": lambda i: [(h.id, h.score, h.payload) for h in ours.search(Query(Dense(asked(i)), K))],
        "bare": lambda i: bare.search(asked(i), K),
    }
    filtered = {
        "ours": lambda i: [(h.id, h.score, h.payload) for h in ours.search(Query(Dense(asked(i)), K, only))],
        "bare": lambda i: bare.search_filtered(asked(i), K, 3),
    }
    return [
        _row(name, "search", interleaved(plain, ROUNDS, block=BLOCK), ms),
        _row(name, "filtered, 1 in 14", interleaved(filtered, ROUNDS, block=BLOCK), ms),
    ]


def _row(name: str, what: str, times: dict[str, float], shown: Any) -> tuple[str, ...]:
    return name, what, shown(times["bare"]), shown(times["ours"]), f"{times['ours'] / times['bare']:.2f}x"


def run(arguments: list[str] | None = None) -> None:
    found = [module.name for module in pkgutil.iter_modules(stores.__path__) if module.name != "run"]
    parser = argparse.ArgumentParser(prog="python -m benchmarks stores", description=__doc__)
    parser.add_argument("--only", nargs="+", choices=found, default=found)
    parser.add_argument("--rows", type=int, default=60_000)
    parser.add_argument("--repeats", type=int, default=2, help="loads of each side")
    given = parser.parse_args(arguments or [])
    texts, vectors = embedded()
    rows: list[tuple[str, ...]] = []
    for name in given.only:
        rows += measure(name, texts[: given.rows], vectors[: given.rows], given.repeats)
    title = f"stores: {min(given.rows, len(texts)):,} x {vectors.shape[1]}, k={K}, medians of {ROUNDS}"
    table(title, ("store", "what", "bare client", "ours", "ratio"), rows)


if __name__ == "__main__":
    import sys

    run(sys.argv[1:])
