"""Reading and chunking against embedding, over the 614 PEPs and the 31 PDF samples: which of them bounds `add`.

Each step alone, one after the other; in `add` they overlap, so that the slowest is what counts. Embedding is
measured on every eighth chunk, and told for all.
"""

from __future__ import annotations

import time
from pathlib import Path

import nearest
from benchmarks.common import DATA, table
from nearest import chunkers, readers
from nearest.contract import Document
from nearest.errors import NearestError

SAMPLE = 8
FOLDERS = {"614 PEPs": DATA / "peps" / "files", "31 PDFs": DATA / "pdf_samples"}


def run() -> None:
    model = nearest.embedder("local:all-MiniLM-L6-v2")
    chunker = chunkers.make("recursive", model.tokenizer)
    model.embed_documents(["warm"] * 64)
    rows = []
    for name, folder in FOLDERS.items():
        started = time.perf_counter()
        documents = list(_read(folder))
        read = time.perf_counter() - started
        chunks = [chunk.text for document in documents for chunk in chunker.chunk(document.text)]
        chunked = time.perf_counter() - started - read
        sample = chunks[::SAMPLE]
        model.embed_documents(sample)
        embedded = (time.perf_counter() - started - read - chunked) * len(chunks) / len(sample)
        size = sum(len(document.text) for document in documents) / 1e6
        seconds = [f"{each:.2f}" for each in (read, chunked, embedded)]
        rows.append((name, f"{size:.2f}", str(len(chunks)), *seconds, f"{(read + chunked) / embedded:.0%}"))
    table(
        "reading: seconds of each step alone",
        ("files", "MB of text", "chunks", "read", "chunk", "embed", "(read + chunk) / embed"),
        rows,
    )


def _read(folder: Path) -> list[Document]:
    documents = []
    for path in sorted(folder.iterdir()):
        try:
            for result in readers.for_path(path).read(path, path.name):
                if isinstance(result, Document):
                    documents.append(result)
        except NearestError:
            continue  # the images and the encrypted ones among the samples
    return documents


if __name__ == "__main__":
    run()
