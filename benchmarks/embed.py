"""The local embedder against others with the same weights, in one run: sentence-transformers on PyTorch, in float32
(its default) and bfloat16; ONNX Runtime and fastembed, on an export of the weights made here, in float32.

What cannot be loaded is named with its reason and left out. Each is used as its documentation says, on the machine's
processor, with its own number of threads.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import islice
from pathlib import Path
from shutil import copy
from typing import Any

import numpy as np

from benchmarks.common import DATA, abstracts, interleaved, machine, ms, table
from nearest import embedders
from nearest.contract import Embedder, Float32
from nearest.encoder import files

MODEL = "all-MiniLM-L6-v2"
LENGTHS = (32, 64, 128, 256)  # tokens a chunk, special ones included
CHUNKS, ROUNDS, QUERIES, COMPARED, STARTS = 64, 7, 100, 500, 5
BATCH = 32  # of ONNX Runtime: sentence-transformers' default

Encode = Callable[[list[str]], Float32]
Side = tuple[str, Callable[[Path, Path], Encode]]


def run() -> None:
    """Prints four tables. Needs SciFact; the others are installed by `make bench`."""
    ours = embedders.load(f"local:{MODEL}")
    folder, _ = files.locate(MODEL, None)
    texts = [record["text"] for record in abstracts()]
    with (DATA / "scifact" / "queries.jsonl").open() as lines:
        queries = [json.loads(line)["text"] for line in lines]
    with tempfile.TemporaryDirectory() as scratch:
        sides: dict[str, Encode] = {"nearest": ours.embed_documents}
        for name, load in OTHERS:
            try:
                encode = load(folder, Path(scratch))
                encode(["a first text"])
            except Exception as error:  # noqa: BLE001 -- whatever keeps it from running is the finding
                reason = (str(error).strip().splitlines() or [""])[0][:200]
                print(f"embed: {name} is left out: {type(error).__name__}: {reason}")
            else:
                sides[name] = encode
        _rates(sides, ours, texts)
        _waits({**sides, "nearest": lambda some: ours.embed_query(some[0])}, queries)
        if "sentence-transformers fp32" in sides:
            some = [text for text in texts[:COMPARED] if len(ours.tokenizer.encode(text)) <= ours.max_tokens]
            _closeness(sides, some)
    table("embed: a new process, until it has a query's vector", ("compiled model", "seconds"), starts(queries[0]))


# --- the tables ------------------------------------------------------------------------------------


def _rates(sides: dict[str, Encode], ours: Embedder, texts: Sequence[str]) -> None:
    rows = []
    for length in LENGTHS:
        chunks = list(islice(_chunks(ours, texts, length), CHUNKS))
        medians = interleaved(
            {name: partial(_turn, encode, [chunks]) for name, encode in sides.items()}, ROUNDS, warm=1
        )
        best = medians["nearest"]
        rows.append([f"{length} tokens", *(f"{CHUNKS / s:.1f}/s ({s / best:.2f})" for s in medians.values())])
    table(f"embed: chunks a second (and the times that nearest is as fast), {_how()}", ("", *sides), rows)


def _waits(sides: dict[str, Encode], queries: list[str]) -> None:
    alone = [[query] for query in queries]
    medians = interleaved({name: partial(_turn, encode, alone) for name, encode in sides.items()}, QUERIES)
    best = medians["nearest"]
    cells = [f"{ms(seconds)} ({seconds / best:.2f})" for seconds in medians.values()]
    table(f"embed: one query (and the times that it takes nearest), {_how()}", ("", *sides), [["one query", *cells]])


def _closeness(sides: dict[str, Encode], texts: list[str]) -> None:
    reference = sides["sentence-transformers fp32"](texts)
    rows = []
    for name, encode in sides.items():
        vectors = encode(texts)  # in bfloat16 they are of unit length in its three digits only
        cosines = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True) * reference).sum(axis=1)
        values = (cosines.mean(), np.percentile(cosines, 1), cosines.min())
        rows.append([name, *(f"{value:.6f}" for value in values)])
    table(
        f"embed: cosine with sentence-transformers in float32, {len(texts)} abstracts",
        ("", "mean", "1st percentile", "least"),
        rows,
    )


def _turn(encode: Encode, batches: Sequence[list[str]], i: int) -> None:
    encode(batches[i % len(batches)])


def _how() -> str:
    return f"medians, in turns; load {os.getloadavg()[0]:.1f}"


def _chunks(embedder: Embedder, texts: Sequence[str], length: int) -> Iterator[str]:
    """The beginnings of texts that have so many tokens exactly; not the shorter ones."""
    for text in texts:
        offsets = embedder.tokenizer.encode(text, add_special_tokens=False).offsets
        if len(offsets) >= length - 2:
            yield text[: offsets[length - 3][1]]


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


# --- the others ------------------------------------------------------------------------------------


def _sentence_transformers(dtype: str) -> Callable[[Path, Path], Encode]:
    def load(folder: Path, scratch: Path) -> Encode:
        from sentence_transformers import SentenceTransformer

        model = SentenceTransformer(str(folder), device="cpu", model_kwargs={"dtype": dtype})
        found = str(next(model.parameters()).dtype)
        if found != f"torch.{dtype}":
            raise RuntimeError(f"asked for {dtype}, it loaded as {found}")

        def encode(texts: list[str]) -> Float32:
            vectors: Float32 = model.encode(texts, normalize_embeddings=True, show_progress_bar=False)
            return vectors.astype(np.float32, copy=False)

        return encode

    return load


def _onnx_runtime(folder: Path, scratch: Path) -> Encode:
    """A session with its defaults; texts sorted by length, as sentence-transformers does."""
    import onnxruntime
    from tokenizers import Tokenizer

    session = onnxruntime.InferenceSession(_exported(folder, scratch), providers=["CPUExecutionProvider"])
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.enable_truncation(256)
    tokenizer.enable_padding()

    def encode(texts: list[str]) -> Float32:
        order = sorted(range(len(texts)), key=lambda i: -len(texts[i]))
        vectors: Float32 = np.empty((len(texts), 384), np.float32)
        for start in range(0, len(order), BATCH):
            rows = order[start : start + BATCH]
            batch = tokenizer.encode_batch([texts[i] for i in rows])
            ids = np.array([one.ids for one in batch])
            mask = np.array([one.attention_mask for one in batch])
            (tokens,) = session.run(None, dict(zip(INPUTS, (ids, mask, np.zeros_like(ids)), strict=True)))
            sums = (tokens * mask[:, :, None]).sum(axis=1)
            vectors[rows] = sums / np.linalg.norm(sums, axis=1, keepdims=True)
        return vectors

    return encode


def _fastembed(folder: Path, scratch: Path) -> Encode:
    """Its own model of this name, from the export instead of a download."""
    from fastembed import TextEmbedding

    place = Path(_exported(folder, scratch)).parent
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"):
        if (folder / name).exists():
            copy(folder / name, place)
    model = TextEmbedding(f"sentence-transformers/{MODEL}", specific_model_path=str(place))

    def encode(texts: list[str]) -> Float32:
        return np.stack(list(model.embed(texts)))

    return encode


INPUTS = ("input_ids", "attention_mask", "token_type_ids")


def _exported(folder: Path, scratch: Path) -> str:
    """The encoder as ONNX, float32, made once by PyTorch's exporter; it gives a vector a token."""
    path = scratch / "onnx" / "model.onnx"
    if not path.exists():
        import torch
        import transformers

        path.parent.mkdir(exist_ok=True)

        class Tokens(torch.nn.Module):
            """The encoder's first output alone."""

            def __init__(self) -> None:
                super().__init__()
                self.encoder = transformers.AutoModel.from_pretrained(folder)

            def forward(self, input_ids: Any, attention_mask: Any, token_type_ids: Any) -> Any:
                return self.encoder(input_ids, attention_mask, token_type_ids).last_hidden_state

        ids = torch.ones(2, 16, dtype=torch.int64)
        names = [*INPUTS, "last_hidden_state"]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            # The older of the two exporters: of the newer (2.13) came graphs that compute something else.
            torch.onnx.export(
                Tokens().eval(), (ids, ids, ids * 0), path, input_names=names[:3], output_names=names[3:],
                dynamic_axes={name: {0: "texts", 1: "tokens"} for name in names}, dynamo=False,
            )  # fmt: skip
    return str(path)


OTHERS: tuple[Side, ...] = (
    ("sentence-transformers fp32", _sentence_transformers("float32")),
    ("sentence-transformers bf16", _sentence_transformers("bfloat16")),
    ("ONNX Runtime", _onnx_runtime),
    ("fastembed", _fastembed),
)


if __name__ == "__main__":
    print(machine())
    run()
