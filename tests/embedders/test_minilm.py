"""all-MiniLM-L6-v2 itself, on real texts, against the NumPy reference."""

from __future__ import annotations

import json
from itertools import islice
from pathlib import Path

import numpy as np
import pytest

from nearest import embedders
from nearest.contract import Embedder
from nearest.encoder import bert, files
from nearest.errors import ModelError
from tests.embedders import reference

MODEL = "all-MiniLM-L6-v2"


@pytest.fixture
def minilm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Embedder:
    monkeypatch.delenv("HF_HUB_CACHE")
    try:
        return embedders.load(f"local:{MODEL}")
    except ModelError as error:
        pytest.skip(f"needs the weights of {MODEL}: {error}")


def test_like_the_reference(minilm: Embedder, shared_data: Path) -> None:
    with (shared_data / "scifact" / "corpus.jsonl").open(encoding="utf-8") as lines:
        abstracts = [json.loads(line)["text"] for line in islice(lines, 30)]
    texts = [*abstracts[:6], *(abstract.split(".")[0] for abstract in abstracts), "Herzinfarkt 心筋梗塞 infarctus 🫀"]
    vectors = minilm.embed_documents(texts, truncate=True)
    folder, sha256 = files.locate(MODEL, None)
    assert sha256 == files.KNOWN[MODEL].sha256
    tensors = bert.read(folder / "model.safetensors")
    wanted = []
    for text in texts:
        ids = minilm.tokenizer.encode(text).ids
        wanted.append(reference.embed(folder, ids if len(ids) <= 256 else [*ids[:255], ids[-1]], "mean", tensors))
    assert (vectors * np.stack(wanted)).sum(axis=1).min() >= 0.999


def test_facts(minilm: Embedder) -> None:
    assert (minilm.name, minilm.dimension, minilm.max_tokens) == (f"local:{MODEL}", 384, 256)
    near, far = minilm.embed_documents(["Aspirin lowers the risk of heart attacks.", "The train leaves at noon."])
    query = minilm.embed_query("what prevents myocardial infarction?")
    assert query @ near > query @ far + 0.2
