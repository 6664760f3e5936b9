"""Second stages: what reranking 50 passages takes, and what grouping, diversity and pages add to a search.

The cross-encoder has the shape of ms-marco-MiniLM-L-6-v2 and random weights: time does not depend on them. Where torch
and transformers are installed, theirs runs beside it on the same weights.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.common import embedded, interleaved, ms, table
from benchmarks.engine import build
from nearest import rerankers
from nearest.contract import Reranker
from nearest.encoder import files
from tests.embedders import reference

DOCUMENTS, CANDIDATES, ROUNDS = 20_000, 50, 30
SHAPE = {
    "hidden_size": 384, "num_hidden_layers": 6, "num_attention_heads": 12, "intermediate_size": 1536,
    "vocab_size": 30_522, "max_position_embeddings": 512,
}  # fmt: skip


def model(folder: Path) -> Path:
    """Random weights, and the tokenizer of the local embedding model, which is the same as that model's."""
    made = reference.make(
        folder, pooling=None, head=True, prefix="bert.", architectures=["BertForSequenceClassification"],
        id2label={"0": "LABEL_0"}, **SHAPE,
    )  # fmt: skip
    place, _ = files.locate("all-MiniLM-L6-v2", None)
    shutil.copy(place / "tokenizer.json", made / "tokenizer.json")
    (made / "tokenizer_config.json").write_text(json.dumps({"model_max_length": 512}))
    return made


def theirs(folder: Path, reranker: Any) -> Any:
    """transformers on PyTorch, float32, one batch; None where it is not installed."""
    try:
        import torch
        import transformers
    except ImportError:
        return None
    net = transformers.AutoModelForSequenceClassification.from_pretrained(folder, num_labels=1).eval()
    tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_file=str(folder / "tokenizer.json"), pad_token="[PAD]")

    def scores(query: str, texts: list[str]) -> Any:
        inputs = tokenizer(
            [query] * len(texts), texts, padding=True, truncation=True, max_length=512, return_tensors="pt"
        )
        with torch.no_grad():
            return net(**inputs).logits[:, 0].numpy()

    return scores


def run() -> None:
    texts, vectors = embedded()
    texts, vectors = texts[:DOCUMENTS], vectors[:DOCUMENTS]
    some = [texts[i : i + CANDIDATES] for i in range(0, ROUNDS * CANDIDATES, CANDIDATES)]
    with tempfile.TemporaryDirectory() as folder:
        place = model(Path(folder) / "model")
        sides: dict[str, Reranker] = {
            "local, f32": rerankers.load(f"local:{place}"),
            "local, native": rerankers.load(f"local:{place}?precision=native"),
            "maxsim": rerankers.load("maxsim:all-MiniLM-L6-v2"),
        }
        calls: dict[str, Any] = {
            name: lambda i, side=side: side.scores(texts[i], some[i % len(some)]) for name, side in sides.items()
        }
        other = theirs(place, sides["local, f32"])
        if other is not None:
            calls["transformers, f32"] = lambda i: other(texts[i], some[i % len(some)])
            ours = sides["local, f32"].scores(texts[0], some[0])
            print(f"largest difference of a score: {np.abs(ours - other(texts[0], some[0])).max():.1e}")
        medians = interleaved(calls, ROUNDS)
        table(
            f"rerank: {CANDIDATES} passages of {np.mean([len(t) for t in texts[:1500]]):.0f} characters, medians",
            ("model", "time", "passages a second"),
            [(name, ms(t), f"{CANDIDATES / t:.0f}") for name, t in medians.items()],
        )
        with build(Path(folder) / "kb", texts, vectors) as kb:

            def search(i: int, **how: Any) -> Any:
                at = i * 37 % len(texts)
                return kb.search(texts[at], vector=vectors[at], **how)

            medians = interleaved(
                {
                    "plain": search,
                    "min_score": lambda i: search(i, min_score=0.5),
                    "group_by document": lambda i: search(i, group_by="document"),
                    "diversity": lambda i: search(i, diversity=0.3),
                    "first of pages": lambda i: search(i, after=""),
                },
                10 * ROUNDS,
            )
            plain = medians["plain"]
            table(
                f"refinements: hybrid, vector given, {len(texts)} passages, medians",
                ("search", "median", "ratio"),
                [(name, ms(t), f"{t / plain:.2f}x") for name, t in medians.items()],
            )


if __name__ == "__main__":
    run()
