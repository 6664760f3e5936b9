"""`make bench` runs all; `make bench engine peers` some.

engine   (a) the store's hybrid search, (b) kb.search with a vector, each against the bare engine
peers    (c) against Chroma's and LanceDB's embedded modes, plain and filtered, at equal recall
embed    (d) the local embedder against sentence-transformers, ONNX Runtime and fastembed
cache    a cached re-run of 50,000 chunks against embedding them
shortened  what shorter vectors lose: fewer dimensions, int8, binary with and without rescoring
reading  reading and chunking the PEPs and the PDF samples against embedding them
chunking how fast each strategy cuts the PEPs, and how well its chunks are found: SciFact, PEPs (an hour or more)
add      (e) kb.add against the embedder's own rate
search   a text query to hits on 60,000 documents, everything included; from the cache; 1,000 at once
frameworks  whole pipelines on SciFact: LangChain with Chroma, LlamaIndex, txtai (20 minutes)
memory   (f) peak memory of adding 10,000 and 100,000 documents
start    wall time of `nearest --help` and `nearest search`
fusion   the default and the other methods against their two parts, by nDCG@10: code, SciFact, XQuAD by language
answers  extractive answers on XQuAD: inside the quoted sentences or not, calibration
rerank   second stages: cross-encoders and late interaction on 50 passages; grouping, diversity, pages
stores   each store against its own bare client; `python -m benchmarks.stores.run --help` for some of them
"""

from __future__ import annotations

import argparse
import importlib

from benchmarks.common import machine

PARTS = (
    "engine",
    "peers",
    "embed",
    "cache",
    "shortened",
    "reading",
    "add",
    "search",
    "frameworks",
    "memory",
    "start",
    "fusion",
    "rerank",
    "stores",
    "answers",
)

ALONE = ("chunking",)  # by name only: an hour


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    known = (*PARTS, *ALONE)
    parser.add_argument("parts", nargs="*", metavar="part", help=", ".join(known))
    parts = parser.parse_args().parts or list(PARTS)
    if unknown := set(parts) - set(known):
        parser.error(f"no part {', '.join(unknown)}; there are {', '.join(known)}")
    print(machine())
    for part in parts:
        importlib.import_module("benchmarks.stores.run" if part == "stores" else f"benchmarks.{part}").run()


if __name__ == "__main__":
    main()
