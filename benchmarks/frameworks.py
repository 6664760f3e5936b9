"""Whole pipelines on SciFact, with the same weights and texts: nearest, LangChain with Chroma, LlamaIndex and txtai.

Each is used as its documentation begins: its own classes with their defaults, in a process of its own. A document is
one text, title and abstract, which no side splits. What is over a model's limit is cut as each does by default: at
256 tokens by sentence-transformers (LangChain, LlamaIndex), at 512 by txtai; nearest, told to cut, at 256. As it
comes, nearest cuts nothing, but makes passages of a document: that is a row of its own, as is txtai's hybrid search,
which is off by default. Of more than 5,000 documents txtai's own default looks at a sixteenth or so a query. nearest
and LangChain's Chroma keep what they have on disk; the others, used so, in memory.

Indexing is timed from the texts to the first answer, with the model loaded. The queries are asked in turns, some by
each side, so that other work on the machine meets all alike; indexing cannot be, so processor time stands beside it.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.common import DATA, machine, ms, table
from nearest import evaluate, readers
from nearest.contract import Document
from nearest.encoder import files
from nearest.evaluate import Dataset, metrics

MODEL, K = "all-MiniLM-L6-v2", 10
WARM, BLOCK = 20, 25  # queries
OFFLINE = {
    "HF_HUB_OFFLINE": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "ANONYMIZED_TELEMETRY": "False",
    "DO_NOT_TRACK": "1",
    "LANGSMITH_TRACING": "false",
}

Index = Callable[[Sequence[Document]], Any]
Ask = Callable[[str], list[tuple[str, str]]]  # the best K: a document's id and the text that was found


def run() -> None:
    """Prints a table. Needs SciFact; the others are installed by `make bench`."""
    dataset = scifact()
    queries = list(dataset.queries.items())
    with ExitStack() as stack:
        live: dict[str, Side] = {}
        for name in SIDES:
            side = stack.enter_context(Side(name))
            try:
                told = side.told()
            except RuntimeError as error:
                print(f"frameworks: {name} is left out: {error}", flush=True)
                continue
            live[name] = side
            side.seconds, side.processor = told["seconds"], told["processor"]
            print(f"{name}: {told['seconds']:.0f} s, load {os.getloadavg()[0]:.1f}", flush=True)
        names = list(live)
        for turn, start in enumerate(range(0, len(queries), BLOCK)):
            shift = turn % len(names)
            for name in names[shift:] + names[:shift]:
                time.sleep(0.3)  # until the threads of the side before have ended their turn
                live[name].ask(queries[start : start + BLOCK])
    _print(live, dataset)


def scifact() -> Dataset:
    folder = DATA / "scifact"
    return evaluate.load(folder, readers.for_path(folder / "corpus.jsonl"))


@dataclass
class Side:
    """A pipeline in a process of its own. seconds, processor: of indexing. waits: of each query, in seconds."""

    name: str
    seconds: float = 0.0
    processor: float = 0.0
    waits: list[float] = field(default_factory=list)
    rankings: dict[str, list[str]] = field(default_factory=dict)

    def __enter__(self) -> Side:
        self._errors = tempfile.TemporaryFile("w+")
        self._child = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.frameworks", self.name],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
            env={**os.environ, **OFFLINE},
        )
        return self

    def __exit__(self, *_: object) -> None:
        assert self._child.stdin
        self._child.stdin.close()
        self._child.wait()
        self._errors.close()

    def told(self) -> dict[str, Any]:
        """What the child says next. Raises RuntimeError, with the reason, where it said its last."""
        assert self._child.stdout
        line = self._child.stdout.readline()
        if not line:
            self._errors.seek(0)
            raise RuntimeError(f"its process ended:\n{self._errors.read()[-2000:]}")
        told: dict[str, Any] = json.loads(line)
        if reason := told.get("absent"):
            raise RuntimeError(reason)
        return told

    def ask(self, queries: Sequence[tuple[str, str]]) -> None:
        assert self._child.stdin
        print(json.dumps([text for _, text in queries]), file=self._child.stdin, flush=True)
        told = self.told()
        self.waits += told["waits"]
        self.rankings |= dict(zip([query for query, _ in queries], told["found"], strict=True))


def serve(name: str) -> None:
    """Runs in the child: indexes, then asks what it is sent, a list of texts a line."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what the libraries print is no answer

    def tell(**told: Any) -> None:
        print(json.dumps(told), file=answers, flush=True)

    load, packages = SIDES[name]
    documents = [Document(document.id, document.text) for document in scifact().documents()]
    folder, _ = files.locate(MODEL, None)
    with ExitStack() as stack:
        place = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        try:
            index, ask = load(folder, place, stack)
        except ImportError as error:
            tell(absent=f"not installed: pip install {packages} into .venv-bench ({error})")
            return
        started, before = time.perf_counter(), time.process_time()
        index(documents)
        ask("a first question")
        tell(seconds=time.perf_counter() - started, processor=time.process_time() - before)
        for document in documents[:WARM]:
            ask(document.text.splitlines()[0])
        for line in sys.stdin:
            waits, found = [], []
            for text in json.loads(line):
                started = time.perf_counter()
                hits = ask(text)
                waits.append(time.perf_counter() - started)
                assert len(hits) == K, text
                assert all(passage for _, passage in hits), text
                found.append(list(dict.fromkeys(document for document, _ in hits)))
            tell(waits=waits, found=found)


def _print(sides: dict[str, Side], dataset: Dataset) -> None:
    best, count = sides["nearest"], len(dataset.ids)
    wait = {name: statistics.median(side.waits) for name, side in sides.items()}
    quality = {name: metrics.mean(metrics.ndcg, side.rankings, dataset.qrels, K) for name, side in sides.items()}
    rows = [
        (
            name,
            f"{count / side.seconds:.1f}",
            f"{side.seconds / best.seconds:.2f}x",
            f"{side.processor:.0f}",
            f"{side.processor / best.processor:.2f}x",
            ms(wait[name]),
            f"{wait[name] / wait['nearest']:.2f}x",
            f"{quality[name]:.3f}",
            f"{quality['nearest'] - quality[name]:+.3f}",
            TOLD.get(name, ""),
        )
        for name, side in sides.items()
    ]
    header = (
        "", "documents/s", "nearest is", "CPU s", "nearest is", "a query", "nearest is", "nDCG@10", "nearest is",
        "told, on a Xeon with AMX",
    )  # fmt: skip
    table(
        f"frameworks: SciFact, {count:,} documents, {len(dataset.queries)} queries, k={K}; "
        f"load {os.getloadavg()[0]:.1f}; asked for: 4x to index, 3x a query, nDCG@10 +0.060",
        header,
        rows,
    )


# --- the sides -------------------------------------------------------------------------------------


def _nearest(
    folder: Path, place: Path, stack: ExitStack, chunker: str | None = None, truncate: bool = False
) -> tuple[Index, Ask]:
    import nearest

    model = nearest.embedder(f"local:{MODEL}")
    model.embed_query("a first text")
    kb = stack.enter_context(nearest.open(place / "kb", embedder=model, chunker=chunker))

    def ask(text: str) -> list[tuple[str, str]]:
        return [(hit.document_id or "", hit.text or "") for hit in kb.search(text, k=K)]

    return lambda documents: kb.add(documents, truncate=truncate), ask


def _langchain(folder: Path, place: Path, stack: ExitStack) -> tuple[Index, Ask]:
    from langchain_chroma import Chroma
    from langchain_core.documents import Document as Text
    from langchain_huggingface import HuggingFaceEmbeddings

    model = HuggingFaceEmbeddings(model_name=str(folder))
    model.embed_query("a first text")
    store = Chroma("scifact", embedding_function=model, persist_directory=str(place))

    def index(documents: Sequence[Document]) -> None:
        store.add_documents([Text(page_content=each.text) for each in documents], ids=[each.id for each in documents])

    return index, lambda text: [(hit.id or "", hit.page_content) for hit in store.similarity_search(text, k=K)]


def _llama_index(folder: Path, place: Path, stack: ExitStack) -> tuple[Index, Ask]:
    from llama_index.core import VectorStoreIndex
    from llama_index.core.schema import TextNode
    from llama_index.embeddings.huggingface import HuggingFaceEmbedding

    model = HuggingFaceEmbedding(model_name=str(folder))
    model.get_query_embedding("a first text")
    made: list[Any] = []

    def index(documents: Sequence[Document]) -> None:
        nodes = [TextNode(id_=each.id, text=each.text) for each in documents]
        made.append(VectorStoreIndex(nodes, embed_model=model).as_retriever(similarity_top_k=K))

    return index, lambda text: [(hit.node.node_id, hit.text) for hit in made[0].retrieve(text)]


def _txtai(folder: Path, place: Path, stack: ExitStack, hybrid: bool = False) -> tuple[Index, Ask]:
    from txtai import Embeddings

    embeddings = Embeddings(path=str(folder), content=True, hybrid=hybrid)
    embeddings.transform("a first text")

    def index(documents: Sequence[Document]) -> None:
        embeddings.index((each.id, each.text) for each in documents)

    return index, lambda text: [(hit["id"], hit["text"]) for hit in embeddings.search(text, K)]


# How each is loaded (from the model's folder, keeping its files in another), and what it needs.
SIDES: dict[str, tuple[Callable[[Path, Path, ExitStack], tuple[Index, Ask]], str]] = {
    "nearest": (partial(_nearest, chunker="whole", truncate=True), "nearest"),
    "nearest, as it comes: passages": (_nearest, "nearest"),
    "LangChain + Chroma": (_langchain, "langchain-chroma langchain-huggingface"),
    "LlamaIndex": (_llama_index, "llama-index-core llama-index-embeddings-huggingface"),
    "txtai": (_txtai, "txtai"),
    "txtai, hybrid": (partial(_txtai, hybrid=True), "txtai"),
}
TOLD = {
    "LangChain + Chroma": "31/s, 11 ms, 0.647",
    "LlamaIndex": "35/s, 68 ms, 0.648",
    "txtai, hybrid": "20/s, 14 ms, 0.660",
}


if __name__ == "__main__":
    if sys.argv[1:]:
        serve(sys.argv[1])
    else:
        print(machine())
        run()
