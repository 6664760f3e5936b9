"""Cross-encoders and late interaction on this machine, against plain NumPy and against transformers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nearest import rerankers
from nearest.contract import Float32, LateInteraction
from nearest.encoder import bert, runtime
from nearest.errors import InvalidInput, ModelError
from nearest.rerankers.maxsim import MaxSim, maxsim
from tests.embedders import reference

ARCHITECTURE = {"architectures": ["BertForSequenceClassification"], "id2label": {"0": "LABEL_0"}}
ROBERTA = {
    "model_type": "roberta", "pad_token_id": 0, "type_vocab_size": 1, "id2label": {"0": "LABEL_0"},
    "architectures": ["RobertaForSequenceClassification"],
}  # fmt: skip
KINDS: dict[str, dict[str, Any]] = {
    "bert": {"prefix": "bert.", **ARCHITECTURE},
    "relu, one head": {"prefix": "bert.", "hidden_act": "relu", "num_attention_heads": 1, **ARCHITECTURE},
    "roberta": {"prefix": "roberta.", **ROBERTA},
    "half precision": {"prefix": "bert.", "dtype": "F16", **ARCHITECTURE},
}


def make(folder: Path, **made: Any) -> Path:
    return reference.make(folder, **{"pooling": None, "head": True, **made})


def expected(folder: Path, query: str, texts: list[str], limit: int = 50) -> Float32:
    tokenizer = runtime.tokenizer(folder, json.loads((folder / "config.json").read_text()))
    tokenizer.enable_truncation(limit, strategy="longest_first")
    tensors = bert.read(folder / "model.safetensors")
    single = len(tensors["embeddings.token_type_embeddings.weight"]) == 1
    pairs = [tokenizer.encode(query, text) for text in texts]
    return np.array(
        [reference.score(folder, p.ids, [0] * len(p) if single else p.type_ids, tensors) for p in pairs], np.float32
    )


# --- cross-encoders --------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_scores_like_the_reference(tmp_path: Path, kind: str) -> None:
    folder = make(tmp_path / "model", **KINDS[kind])
    texts = reference.texts(80, 30)
    scores = rerankers.load(f"local:{folder}").scores("what causes heart attack", texts)
    assert scores.dtype == np.float32
    assert scores.shape == (80,)
    wanted = expected(folder, "what causes heart attack", texts)
    np.testing.assert_allclose(scores, wanted, atol=1e-3, rtol=0)
    assert wanted.std() > 0.1, "texts must differ for this test to mean something"


@pytest.mark.parametrize("kind", ["bert", "roberta"])
def test_scores_like_transformers(tmp_path: Path, kind: str) -> None:
    torch = pytest.importorskip("torch", reason="the reference implementation; not part of the environment")
    transformers = pytest.importorskip("transformers", reason="the reference implementation")
    folder = make(tmp_path / "model", **KINDS[kind])
    model = transformers.AutoModelForSequenceClassification.from_pretrained(folder, num_labels=1).eval()
    reranker = rerankers.load(f"local:{folder}")
    texts = reference.texts(40, 20)
    scores = reranker.scores("what causes heart attack", texts)
    tokenizer = reranker._tokenizer  # type: ignore[attr-defined]
    for text, score in zip(texts, scores, strict=True):
        pair = tokenizer.encode("what causes heart attack", text)
        inputs = {"input_ids": torch.tensor([pair.ids]), "attention_mask": torch.tensor([pair.attention_mask])}
        if kind == "bert":
            inputs["token_type_ids"] = torch.tensor([pair.type_ids])
        with torch.no_grad():
            assert abs(float(model(**inputs).logits[0, 0]) - float(score)) <= 1e-3


def test_a_long_text_is_judged_by_its_beginning(tmp_path: Path) -> None:
    folder = make(tmp_path / "model", **KINDS["bert"])
    long = "heart cell blood " * 40
    reranker = rerankers.load(f"local:{folder}")
    np.testing.assert_allclose(
        reranker.scores("protein", [long, "gene"]), expected(folder, "protein", [long, "gene"]), atol=1e-3
    )
    short = rerankers.load(f"local:{folder}?max_tokens=12")
    np.testing.assert_allclose(short.scores("protein", [long]), expected(folder, "protein", [long], 12), atol=1e-3)


def test_the_order_is_that_of_the_texts_and_none_is_none(tmp_path: Path) -> None:
    reranker = rerankers.load(f"local:{make(tmp_path / 'model', **KINDS['bert'])}")
    texts = reference.texts(70, 30)
    scores = reranker.scores("drug trial", texts)
    np.testing.assert_allclose(reranker.scores("drug trial", texts[::-1]), scores[::-1], atol=1e-4)
    assert reranker.scores("drug trial", []).shape == (0,)


@pytest.mark.parametrize(
    ("made", "message"),
    [
        ({"id2label": {"0": "no", "1": "yes"}}, "2 labels"),
        ({"architectures": ["BertModel"]}, "BertModel"),
        ({"model_type": "gpt2"}, "gpt2"),
        ({"head": False}, r"classifier.* is missing"),
    ],
)
def test_what_is_no_reranker_is_refused(tmp_path: Path, made: dict[str, Any], message: str) -> None:
    folder = make(tmp_path / "model", **{**KINDS["bert"], **made})
    with pytest.raises(ModelError, match=message):
        rerankers.load(f"local:{folder}").scores("query", ["text"])


def test_weights_with_a_nan_are_refused(tmp_path: Path) -> None:
    folder = make(tmp_path / "model", **KINDS["bert"])
    tensors = dict(bert.read(folder / "model.safetensors"))
    tensors["classifier.bias"] = np.full(1, np.nan, np.float32)
    reference.save(folder / "model.safetensors", tensors)
    with pytest.raises(ModelError, match="not finite"):
        rerankers.load(f"local:{folder}").scores("query", ["text"])


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("local", "written provider:model"),
        ("nowhere:model", "no reranker named"),
        ("local:{folder}?max_tokens=many", "max_tokens must be a number"),
        ("local:{folder}?max_tokens=4", "max_tokens must be from 8"),
        ("local:{folder}?precision=int4", "precision must be"),
        ("local:{folder}?colour=red", "colour"),
        ("local:{folder}?max_tokens=9&max_tokens=10", "each once"),
    ],
)
def test_a_wrong_spec_is_refused(tmp_path: Path, spec: str, message: str) -> None:
    folder = make(tmp_path / "model", **KINDS["bert"])
    with pytest.raises(InvalidInput, match=message):
        rerankers.load(spec.format(folder=folder))


# --- late interaction ------------------------------------------------------------------------------


def slow_maxsim(query: Float32, text: Float32) -> float:
    """By the definition, one pair of tokens at a time."""
    return sum(max(float(q @ t) for t in text) for q in query)


def test_maxsim_by_its_definition() -> None:
    random = np.random.default_rng(5)
    query = random.standard_normal((7, 12)).astype(np.float32)
    texts = [random.standard_normal((n, 12)).astype(np.float32) for n in (1, 5, 30, 2)]
    np.testing.assert_allclose(maxsim(query, texts), [slow_maxsim(query, text) for text in texts], rtol=1e-5)
    assert maxsim(query, []).shape == (0,)


def test_late_interaction_like_numpy(tmp_path: Path) -> None:
    folder = reference.make(tmp_path / "model", pooling=None)
    tensors = bert.read(folder / "model.safetensors")
    reranker = rerankers.load(f"maxsim:{folder}")
    assert isinstance(reranker, MaxSim)
    tokenizer = runtime.tokenizer(folder, json.loads((folder / "config.json").read_text()))

    def vectors(text: str) -> Float32:
        ids = tokenizer.encode(text).ids
        rows = reference.tokens(folder, ids, [0] * len(ids), tensors)[1:-1]
        unit: Float32 = rows / np.linalg.norm(rows, axis=1, keepdims=True)
        return unit

    texts = reference.texts(40, 30)
    wanted = [slow_maxsim(vectors("sleep and bone"), vectors(text)) for text in texts]
    scores = reranker.scores("sleep and bone", texts)
    np.testing.assert_allclose(scores, wanted, atol=0.05)  # the graph may compute in bfloat16
    assert np.std(wanted) > 0.1
    held = reranker.token_vectors(texts)
    assert all(rows.shape[1] == reranker.dimension for rows in held)
    np.testing.assert_allclose(reranker.scores_of_vectors("sleep and bone", held), scores, atol=0.02)


def test_a_text_without_words_has_a_score(tmp_path: Path) -> None:
    reranker = rerankers.load(f"maxsim:{reference.make(tmp_path / 'model', pooling=None)}")
    assert isinstance(reranker, LateInteraction)
    assert np.isfinite(reranker.scores("heart", ["", "heart"])).all()
