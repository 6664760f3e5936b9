"""(e): kb.add, from documents to durable and indexed, against the embedder alone on the same texts.

SciFact's abstracts, each one chunk; the sides take turns, and each run of kb.add starts a new collection.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from pathlib import Path

import nearest
from benchmarks.common import abstracts, table
from nearest.contract import Document

DOCUMENTS, ROUNDS = 1500, 3


def run() -> None:
    documents = [
        Document(record["_id"], f"{record['title']}\n\n{record['text']}", {"title": record["title"]})
        for record, _ in zip(abstracts(), range(DOCUMENTS), strict=False)
    ]
    model = nearest.embedder("local:all-MiniLM-L6-v2")
    texts = [document.text for document in documents]
    model.embed_documents(texts[:64], truncate=True)
    alone, whole = [], []
    for _ in range(ROUNDS):
        started = time.perf_counter()
        model.embed_documents(texts, truncate=True)
        alone.append(time.perf_counter() - started)
        with tempfile.TemporaryDirectory() as folder:
            kb = nearest.open(Path(folder) / "kb", embedder=model, chunker="whole")
            started = time.perf_counter()
            kb.add(documents, truncate=True)
            whole.append(time.perf_counter() - started)
            kb.close()
    bare, ours = statistics.median(alone), statistics.median(whole)
    table(
        f"add: {len(documents)} abstracts, medians of {ROUNDS}",
        ("side", "seconds", "documents/s", "of the embedder's rate"),
        [
            ("embed_documents alone", f"{bare:.2f}", f"{len(texts) / bare:.0f}", "100%"),
            ("kb.add", f"{ours:.2f}", f"{len(texts) / ours:.0f}", f"{bare / ours:.0%}"),
        ],
    )


if __name__ == "__main__":
    run()
