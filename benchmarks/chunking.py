"""How well each way of cutting texts is found, and how fast it cuts.

Quality: SciFact with its judged queries, and the PEPs with known items: the first sentence of a PEP's abstract is the
query, the PEP without that sentence the one document that answers it. A document stands where its best chunk does;
the search is exact, so that nothing but the cuts differs. Prints a table in Markdown, as docs/chunking.md has it.

    python -m benchmarks chunking                                       all of it
    python -m benchmarks.chunking --documents 200 --sizes 120           some of it
    python -m benchmarks.chunking --datasets peps --only markdown,semantic

What is measured is kept in .cache/bench/chunking.jsonl until the code of the chunkers or of the fusion changes, and a
run that was stopped goes on where it was.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import re
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import nearest
from benchmarks.common import CACHE, DATA, table
from nearest import chunkers, evaluate, fusion, readers
from nearest.chunkers import _sentences
from nearest.contract import Document
from nearest.evaluate import Dataset

PREFIX = ",prefix=title+headings"
STRATEGIES = (
    "whole", "recursive", f"recursive{PREFIX}", "tokens", "sentences", "paragraphs", "markdown", f"markdown{PREFIX}",
    "semantic",
)  # fmt: skip
SIZES = (120, 240)
DATASETS = ("scifact", "peps")
MODES = ("dense", "lexical", "hybrid")
ABSTRACT = re.compile(r"^Abstract\n=+\n+(?=\S)", re.MULTILINE)
SPEED = ("recursive", "markdown", "tokens", "paragraphs", "sentences")
PASSES = 5


def run() -> None:
    """Everything, at its full size."""
    measure(DATASETS, STRATEGIES, SIZES, None)


def measure(datasets: Sequence[str], strategies: Sequence[str], sizes: Sequence[int], documents: int | None) -> None:
    """documents: so many of each data set at most, those with judgements first; None: all."""
    CACHE.mkdir(parents=True, exist_ok=True)
    model = nearest.embedder("local:all-MiniLM-L6-v2")
    speed(model.tokenizer)
    kept = CACHE / "chunking.jsonl"
    sources = [*sorted(Path(chunkers.__file__).parent.glob("*.py")), Path(fusion.__file__)]
    code = hashlib.sha256(b"".join(map(Path.read_bytes, sources))).hexdigest()
    done = {row["key"]: row for row in map(json.loads, kept.read_text().splitlines())} if kept.exists() else {}
    for name in datasets:
        dataset = (scifact if name == "scifact" else peps)(documents)
        rows: list[dict[str, Any]] = []
        for spec in specs(strategies, sizes):
            settings = dict(chunkers.make(spec, model.tokenizer, model).settings)
            key = json.dumps([name, documents, code, settings], sort_keys=True)
            if key not in done:
                started = time.perf_counter()
                with nearest.open("memory:", embedder=model, chunker=spec) as kb:
                    found = evaluate.run(kb, dataset)
                    chunks = kb.info()["chunks"]
                row = {"key": key, "spec": spec, "chunks": chunks, "modes": found.modes, "failed": len(found.failed)}
                with kept.open("a") as lines:
                    lines.write(json.dumps(row) + "\n")
                done[key] = row
                print(f"  {name} {spec}: {time.perf_counter() - started:.0f} s", flush=True)
            rows.append(done[key])
        tell(dataset, rows)


def specs(strategies: Sequence[str], sizes: Sequence[int]) -> Iterator[str]:
    """`whole` has no size; it is pooled where it is over the model's limit."""
    for strategy in strategies:
        name, _, rest = strategy.partition(",")
        if name == "whole":
            yield name
        else:
            yield from (f"{name}:size={size}" + (f",{rest}" if rest else "") for size in sizes)


def tell(dataset: Dataset, rows: list[dict[str, Any]]) -> None:
    print(f"\n{dataset.name}: {len(dataset.ids):,} documents, {len(dataset.queries):,} queries\n")
    print("| strategy | chunks | " + " | ".join(f"nDCG@10 {mode}" for mode in MODES) + " | recall@100 dense |")
    print("|---|---:|" + "---:|" * (len(MODES) + 1))
    for row in rows:
        scores = [f"{row['modes'][mode]['ndcg@10']:.3f}" for mode in MODES]
        scores.append(f"{row['modes']['dense']['recall@100']:.3f}")
        failed = f" ({row['failed']} failed)" if row["failed"] else ""
        print(f"| `{row['spec']}`{failed} | {row['chunks']:,} | " + " | ".join(scores) + " |")


def speed(tokenizer: Any) -> None:
    """The PEPs through each chunker: a first pass, which meets each word for the first time, and the best of others."""
    texts = [path.read_text() for path in sorted((DATA / "peps" / "files").iterdir())]
    size = sum(len(text.encode()) for text in texts) / 1e6
    rows = []
    for name in SPEED:
        chunker = chunkers.make(name, tokenizer)
        seconds = []
        for _ in range(1 + PASSES):
            started = time.perf_counter()
            chunks = sum(len(chunker.chunk(text)) for text in texts)
            seconds.append(time.perf_counter() - started)
        rows.append((name, chunks, f"{size / seconds[0]:.1f} MB/s", f"{size / min(seconds[1:]):.1f} MB/s"))
    table(f"chunking: the {len(texts)} PEPs, {size:.1f} MB", ("strategy", "chunks", "first pass", "later"), rows)


# --- data ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Held(Dataset):
    """A data set whose documents are at hand."""

    held: list[Document] = field(default_factory=list)

    def documents(self) -> Iterator[Document]:
        return iter(self.held)


def scifact(limit: int | None) -> Dataset:
    whole = evaluate.load(DATA / "scifact", readers.for_path(Path("corpus.jsonl")))
    documents = list(whole.documents())
    if limit is not None:
        judged = {d for scores in whole.qrels.values() for d in scores}
        documents = sorted(documents, key=lambda document: document.id not in judged)[:limit]
    ids = {document.id for document in documents}
    qrels = {q: scores for q, scores in whole.qrels.items() if ids >= scores.keys()}
    asked = {q: whole.queries[q] for q in qrels}
    return Held("scifact", asked, qrels, sorted(ids), [], whole._corpus, whole._reader, documents)


def peps(limit: int | None) -> Dataset:
    """Those without an abstract are documents too."""
    queries: dict[str, str] = {}
    documents: list[Document] = []
    with tempfile.TemporaryDirectory() as folder:
        for path in sorted((DATA / "peps" / "files").iterdir())[:limit]:
            text = path.read_text()
            if found := ABSTRACT.search(text):
                rest = text[found.end() :]
                end = next(iter(_sentences.starts(rest)), 0)
                query = " ".join(rest[:end].replace("`", "").split())
                if 6 <= len(query.split()) <= 60:
                    queries[path.name] = query
                    text = text[: found.end()] + rest[end:]
            shortened = Path(folder, path.name)
            shortened.write_text(text)
            documents += [d for d in readers.for_path(shortened).read(shortened, path.name) if isinstance(d, Document)]
    # A query's id must not be its document's: as in BEIR that one would be left out.
    qrels = {f"q:{name}": {name: 1} for name in queries}
    asked = {f"q:{name}": query for name, query in queries.items()}
    return Held(
        "peps", asked, qrels, sorted(d.id for d in documents), [], DATA, readers.for_path(Path("a.rst")), documents
    )


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.chunking", description=__doc__)
    parser.add_argument("--datasets", default=",".join(DATASETS))
    parser.add_argument("--only", help="strategies, by their names: recursive,markdown")
    parser.add_argument("--sizes", default=",".join(map(str, SIZES)))
    parser.add_argument("--documents", type=int, help="of each data set at most")
    given = parser.parse_args()
    wanted = given.only.split(",") if given.only else None
    measure(
        given.datasets.split(","),
        [s for s in STRATEGIES if wanted is None or s.partition(",")[0] in wanted],
        [int(size) for size in given.sizes.split(",")],
        given.documents,
    )


if __name__ == "__main__":
    main()
