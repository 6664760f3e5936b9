"""Local models against transformers on PyTorch: the weights of all-MiniLM-L6-v2, and small random ones of each family.

PyTorch is part of the environment of the benchmarks alone. After `make bench` has made it:

    .venv-bench/bin/python -m pytest tests/embedders/test_transformers.py
"""

from __future__ import annotations

import importlib.util
import json
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nearest import embedders
from nearest.contract import Embedder, Float32
from nearest.embedders.local import LocalEmbedder
from nearest.encoder import bert, files
from nearest.errors import ModelError
from tests.embedders import reference

if importlib.util.find_spec("torch") is None:
    pytest.skip("needs PyTorch, which is in the group bench", allow_module_level=True)
torch = pytest.importorskip("torch", reason="needs PyTorch, which is in the group bench")
transformers = pytest.importorskip("transformers", reason="needs transformers, which is in the group bench")

SMALL = {
    "vocab_size": len(reference.SPECIAL) + len(reference.WORDS), "hidden_size": 48, "num_hidden_layers": 3,
    "num_attention_heads": 4, "intermediate_size": 96, "max_position_embeddings": 320,
    "initializer_range": 0.3,  # of 0.02 by default: texts must differ
}  # fmt: skip
# As the family's models are, but small.
FAMILIES: dict[str, tuple[str, dict[str, Any], str]] = {
    "MiniLM and E5": ("BertConfig", {}, "mean"),
    "BGE": ("BertConfig", {"layer_norm_eps": 1e-5}, "cls"),
    "GTE": ("BertConfig", {"hidden_act": "gelu_new", "type_vocab_size": 1}, "mean"),
    "RoBERTa": ("RobertaConfig", {"pad_token_id": 1, "type_vocab_size": 1}, "mean"),
    "multilingual E5": ("XLMRobertaConfig", {"pad_token_id": 1, "type_vocab_size": 1, "layer_norm_eps": 1e-5}, "mean"),
    "BGE-M3": ("XLMRobertaConfig", {"pad_token_id": 1, "type_vocab_size": 1}, "cls"),
    "padding of another id": ("RobertaConfig", {"pad_token_id": 0}, "mean"),
    "CamemBERT": ("CamembertConfig", {"pad_token_id": 1}, "mean"),
    "MPNet": ("MPNetConfig", {"layer_norm_eps": 1e-5}, "mean"),
    "MPNet, first token": ("MPNetConfig", {"hidden_act": "relu"}, "cls"),
}


@pytest.mark.parametrize("family", FAMILIES)
def test_random_weights_of_each_family(tmp_path: Path, family: str) -> None:
    kind, options, pooling = FAMILIES[family]
    folder = saved(tmp_path / "model", kind, options, pooling)
    embedder = embedders.load(f"local:{folder}")
    texts = [*reference.texts(30, 60), *(" ".join(reference.texts(20, 30, seed)[:13]) for seed in range(1, 6))]
    assert max(len(embedder.tokenizer.encode(text)) for text in texts) > 200, "distances beyond MPNet's buckets"
    wanted = by_transformers(embedder, folder, texts, pooling)
    assert (wanted @ wanted.T - 2 * np.eye(len(texts))).max() < 0.999, "texts must differ more than a vector may"
    assert np.sum(embedder.embed_documents(texts, truncate=True) * wanted, axis=1).min() >= 0.999
    queries = np.stack([embedder.embed_query(text, truncate=True) for text in texts])
    assert np.sum(queries * wanted, axis=1).min() >= 0.999


def test_the_weights_of_minilm(shared_data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HF_HUB_CACHE")
    try:
        folder, sha256 = files.locate("all-MiniLM-L6-v2", None)
    except ModelError as error:
        pytest.skip(f"needs the weights of all-MiniLM-L6-v2: {error}")
    assert sha256 == files.KNOWN["all-MiniLM-L6-v2"].sha256
    with (shared_data / "scifact" / "corpus.jsonl").open(encoding="utf-8") as lines:
        abstracts = [json.loads(line)["text"] for line in islice(lines, 40)]
    texts = [*abstracts, *(abstract.split(".")[0] for abstract in abstracts), "Herzinfarkt 心筋梗塞 infarctus 🫀"]
    embedder = embedders.load("local:all-MiniLM-L6-v2")
    wanted = by_transformers(embedder, folder, texts, "mean")
    assert np.sum(embedder.embed_documents(texts, truncate=True) * wanted, axis=1).min() >= 0.999
    queries = np.stack([embedder.embed_query(text, truncate=True) for text in texts])
    assert np.sum(queries * wanted, axis=1).min() >= 0.999


def test_mpnets_buckets() -> None:
    from transformers.models.mpnet.modeling_mpnet import MPNetEncoder  # type: ignore[import-not-found]  # bench only

    distances = np.arange(-600, 601)
    theirs = MPNetEncoder.relative_position_bucket(torch.tensor(distances))
    assert (bert.buckets(distances) == theirs.numpy()).all()


def saved(folder: Path, kind: str, options: dict[str, Any], pooling: str) -> Path:
    """A model of transformers' own making, in a folder as sentence-transformers has it."""
    # Its tokenizer and modules.json are kept; the model itself is replaced.
    reference.make(folder, pooling={"pooling_mode": pooling}, settings={"max_seq_length": 300})
    torch.manual_seed(0)
    config = getattr(transformers, kind)(**{**SMALL, **options})
    model = transformers.AutoModel.from_config(config)
    with torch.no_grad():  # those that are made as zeros and ones
        for name, parameter in model.named_parameters():
            if name.endswith("bias") or "LayerNorm" in name:
                parameter += 0.2 * torch.randn_like(parameter)
            if "relative_attention_bias" in name:
                parameter *= 8
    model.save_pretrained(folder)
    return folder


def by_transformers(embedder: Embedder, folder: Path, texts: list[str], pooling: str) -> Float32:
    """Unit vectors, (n, d), in float32: one text at a time, and once more in padded batches, which must agree."""
    assert isinstance(embedder, LocalEmbedder)
    model = transformers.AutoModel.from_pretrained(folder).eval().float()
    limit = embedder.max_tokens
    tokens = [embedder.tokenizer.encode(text).ids for text in texts]
    tokens = [ids if len(ids) <= limit else [*ids[: limit - 1], ids[-1]] for ids in tokens]
    padding = model.config.pad_token_id or 0

    def vectors(some: list[list[int]]) -> Float32:
        width = max(map(len, some))
        ids = torch.tensor([[*row, *[padding] * (width - len(row))] for row in some])
        mask = torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row in some])
        with torch.no_grad():
            x = model(input_ids=ids, attention_mask=mask).last_hidden_state
        weights = mask.unsqueeze(-1).float()
        pooled = x[:, 0] if pooling == "cls" else (x * weights).sum(1) / weights.sum(1)
        unit: Float32 = torch.nn.functional.normalize(pooled, dim=1).numpy()
        return unit

    alone = np.concatenate([vectors([ids]) for ids in tokens])
    assert np.allclose(alone, vectors(tokens), atol=1e-4)
    return alone
