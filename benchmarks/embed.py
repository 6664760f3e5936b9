"""The local embedder against sentence-transformers on PyTorch in float32 (its default), with the same weights."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from itertools import islice

import numpy as np

from benchmarks.common import DATA, abstracts, interleaved, machine, ms, table
from nearest import embedders
from nearest.contract import Embedder
from nearest.encoder import files

MODEL = "all-MiniLM-L6-v2"
CHUNKS, ROUNDS, QUERIES, COMPARED, STARTS = 64, 7, 100, 1000, 5


def run() -> None:
    """Prints three tables. Needs sentence-transformers, which `make bench` installs, and SciFact."""
    import torch
    from sentence_transformers import SentenceTransformer

    ours = embedders.load(f"local:{MODEL}")
    theirs = SentenceTransformer(str(files.locate(MODEL, None)[0]), device="cpu")
    texts = [record["text"] for record in abstracts()]
    with (DATA / "scifact" / "queries.jsonl").open() as lines:
        queries = [json.loads(line)["text"] for line in lines]
    chunks = list(islice(filter(None, (beginning(ours, text) for text in texts)), CHUNKS))

    many = interleaved(
        {"ours": lambda _: ours.embed_documents(chunks), "theirs": lambda _: theirs.encode(chunks)}, ROUNDS, warm=1
    )
    wait = interleaved(
        {
            "ours": lambda i: ours.embed_query(queries[i % len(queries)]),
            "theirs": lambda i: theirs.encode(queries[i % len(queries)]),
        },
        QUERIES,
    )
    rate = {name: len(chunks) / seconds for name, seconds in many.items()}
    table(
        f"embed: medians, in turns; load {os.getloadavg()[0]:.1f}; PyTorch {torch.__version__}",
        (MODEL, "nearest", "sentence-transformers", "ratio"),
        [
            (
                f"chunks of {ours.max_tokens} tokens",
                f"{rate['ours']:.1f}/s",
                f"{rate['theirs']:.1f}/s",
                f"{rate['ours'] / rate['theirs']:.2f}",
            ),
            ("one query", ms(wait["ours"]), ms(wait["theirs"]), f"{wait['theirs'] / wait['ours']:.2f}"),
        ],
    )
    reference = theirs.encode(texts[:COMPARED], normalize_embeddings=True)
    cosines = (ours.embed_documents(texts[:COMPARED], truncate=True) * reference).sum(axis=1)
    table(
        f"embed: cosine with sentence-transformers in float32, {len(cosines)} abstracts",
        ("mean", "1st percentile", "least"),
        [[f"{value:.6f}" for value in (cosines.mean(), np.percentile(cosines, 1), cosines.min())]],
    )
    table("embed: a new process, until it has a query's vector", ("compiled model", "seconds"), starts(queries[0]))


def beginning(embedder: Embedder, text: str) -> str | None:
    """The text cut to the model's limit exactly; None if it is shorter."""
    offsets = embedder.tokenizer.encode(text, add_special_tokens=False).offsets
    room = embedder.max_tokens - 2
    return text[: offsets[room - 1][1]] if len(offsets) >= room else None


def starts(query: str) -> list[tuple[str, str]]:
    """Wall time, Python's own start included, with the cache folder filled and with an empty one."""
    code = f"from nearest import embedders; embedders.load('local:{MODEL}').embed_query({query!r})"

    def start(cache: str) -> None:
        environment = {**os.environ, "NEAREST_CACHE_DIR": cache, "HF_HUB_OFFLINE": "1"}
        subprocess.run([sys.executable, "-c", code], check=True, env=environment)

    with tempfile.TemporaryDirectory() as caches:
        medians = interleaved(
            {
                "cached": lambda _: start(f"{caches}/kept"),
                "not cached": lambda i: start(f"{caches}/{i}"),
                "python -c pass": lambda _: subprocess.run([sys.executable, "-c", "pass"], check=True),
            },
            STARTS,
            warm=1,
        )
    return [(name, f"{seconds:.2f}") for name, seconds in medians.items()]


if __name__ == "__main__":
    print(machine())
    run()
