"""ColBERT checkpoints, in Stanford's layout and in PyLate's, against plain NumPy and against transformers."""

from __future__ import annotations

import json
import string
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import nearest
from nearest import embedders, rerankers
from nearest.contract import TOKENS, Document, Float32
from nearest.encoder import bert, files
from nearest.errors import InvalidInput, ModelError, SchemaMismatch
from nearest.rerankers.maxsim import MaxSim
from tests.embedders import reference
from tests.fakes import HashEmbedder

MARKERS = ["[unused0]", "[unused1]", "[Q] ", "[D] "]
VOCABULARY = reference.SPECIAL + reference.WORDS + MARKERS + list(string.punctuation)
ID = {word: i for i, word in enumerate(VOCABULARY)}
WIDTH, DIMENSION = 32, 12
TEXTS = ["heart cell, blood.", "the gene; (cancer)", "mouse", "!", *reference.texts(40, 14)]
QUERY = "what causes heart attack ?"


def projection(rows: int = DIMENSION, columns: int = WIDTH, seed: int = 3) -> Float32:
    return np.random.default_rng(seed).standard_normal((rows, columns)).astype(np.float32)


def make(folder: Path, *, linear: Float32 | None = None, **made: Any) -> Path:
    """An encoder whose tokenizer knows markers and punctuation."""
    reference.make(folder, **{"pooling": None, "vocab_size": len(VOCABULARY), **made})
    tokenizer = json.loads((folder / "tokenizer.json").read_text())
    tokenizer["model"]["vocab"] = ID
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    if linear is not None:
        tensors = bert.read(folder / "model.safetensors")
        prefix = made.get("prefix", "")
        reference.save(
            folder / "model.safetensors",
            {**{prefix + name: rows for name, rows in tensors.items()}, "linear.weight": linear},
        )
    return folder


def stanford(folder: Path, linear: Float32 | None = None, **metadata: Any) -> Path:
    told = {"query_maxlen": 10, "doc_maxlen": 12, "dim": DIMENSION, **metadata}
    linear = projection() if linear is None else linear
    made = make(folder, linear=linear, prefix="bert.", architectures=["HF_ColBERT"])
    (made / "artifact.metadata").write_text(json.dumps(told))
    return made


def pylate(folder: Path, dense: list[Float32], config: dict[str, Any] | None = None, **told: Any) -> Path:
    make(folder)
    kinds = ["sentence_transformers.models.Transformer", *["pylate.models.Dense.Dense"] * len(dense)]
    modules = [{"idx": i, "name": str(i), "path": f"{i}_Dense" if i else "", "type": k} for i, k in enumerate(kinds)]
    (folder / "modules.json").write_text(json.dumps(modules))
    (folder / "config_sentence_transformers.json").write_text(json.dumps(told))
    for i, rows in enumerate(dense, 1):
        (folder / f"{i}_Dense").mkdir()
        shape = {"in_features": rows.shape[1], "out_features": len(rows), "bias": False}
        shape["activation_function"] = "torch.nn.modules.linear.Identity"
        (folder / f"{i}_Dense" / "config.json").write_text(json.dumps({**shape, **(config or {})}))
        reference.save(folder / f"{i}_Dense" / "model.safetensors", {"linear.weight": rows})
    return folder


def ids(text: str, marker: str, limit: int) -> list[int]:
    for mark in string.punctuation:
        text = text.replace(mark, f" {mark} ")
    words = ["[CLS]", marker, *text.split()[: limit - 3], "[SEP]"]
    return [ID[word] for word in words if word]


def expected(folder: Path, row: list[int], linear: Float32, attended: int | None = None) -> Float32:
    """The unit vectors of all ids, by the definition."""
    tensors = bert.read(folder / "model.safetensors")
    rows = reference.tokens(folder, row, [0] * len(row), tensors, attended) @ linear.T
    unit: Float32 = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    return unit


def expected_query(folder: Path, linear: Float32, marker: str, length: int, attend: bool = False) -> Float32:
    row = ids(QUERY, marker, length)
    filled = [*row, *[ID["[MASK]"]] * (length - len(row))]
    return expected(folder, filled, linear, None if attend else len(row))


def expected_document(folder: Path, text: str, linear: Float32, marker: str, length: int) -> Float32:
    row = ids(text, marker, length)
    spoken = [VOCABULARY[i] not in string.punctuation for i in row]
    return expected(folder, row, linear)[spoken]


def loaded(folder: Path, options: str = "precision=f32") -> MaxSim:
    model = rerankers.load(f"maxsim:{folder}?{options}")
    assert isinstance(model, MaxSim)
    return model


def slow_maxsim(query: Float32, text: Float32) -> float:
    return sum(max(float(q @ t) for t in text) for q in query)


@pytest.mark.parametrize("attend", [False, True])
def test_stanfords_layout_like_the_reference(tmp_path: Path, attend: bool) -> None:
    folder = stanford(tmp_path / "model", attend_to_mask_tokens=attend)
    model = loaded(folder)
    assert (model.dimension, model.max_tokens) == (DIMENSION, 12)
    (query,) = model.query_vectors([QUERY])
    wanted = expected_query(folder, projection(), "[unused0]", 10, attend)
    assert query.shape == (10, DIMENSION)
    np.testing.assert_allclose(query, wanted, atol=1e-3)
    other = expected_query(folder, projection(), "[unused0]", 10, not attend)
    assert np.abs(query - other).max() > 0.01, "attending must make a difference for this test to mean something"
    documents = model.token_vectors(TEXTS)
    texts = [expected_document(folder, text, projection(), "[unused1]", 12) for text in TEXTS]
    for rows, each in zip(documents, texts, strict=True):
        np.testing.assert_allclose(rows, each, atol=1e-3)
    assert [len(rows) for rows in documents[:4]] == [6, 6, 4, 3]  # [CLS], marker, words without punctuation, [SEP]
    scores = [slow_maxsim(wanted, each) for each in texts]
    np.testing.assert_allclose(model.scores(QUERY, TEXTS), scores, atol=1e-3)
    np.testing.assert_allclose(model.scores_of_vectors(QUERY, documents), scores, atol=1e-3)
    assert np.std(scores) > 0.1


def test_a_long_query_keeps_its_ending(tmp_path: Path) -> None:
    folder = stanford(tmp_path / "model")
    long = " ".join(reference.WORDS[:20])
    (query,) = loaded(folder).query_vectors([long])
    row = [ID[word] for word in ("[CLS]", "[unused0]", *reference.WORDS[:7], "[SEP]")]
    np.testing.assert_allclose(query, expected(folder, row, projection()), atol=1e-3)


def test_pylates_layout_like_the_reference(tmp_path: Path) -> None:
    first, second = projection(20), projection(8, 20, seed=4)
    folder = pylate(tmp_path / "model", [first, second], query_length=9, document_length=11, skiplist_words=[",", "."])
    model, linear = loaded(folder), second @ first
    assert (model.dimension, model.max_tokens) == (8, 11)
    (query,) = model.query_vectors([QUERY])
    np.testing.assert_allclose(query, expected_query(folder, linear, "[Q] ", 9), atol=1e-3)
    for text, rows in zip(TEXTS, model.token_vectors(TEXTS), strict=True):
        row = ids(text, "[D] ", 11)
        wanted = expected(folder, row, linear)[[VOCABULARY[i] not in ",." for i in row]]
        np.testing.assert_allclose(rows, wanted, atol=1e-3)


def test_a_checkpoint_without_expansion_and_marker(tmp_path: Path) -> None:
    folder = pylate(tmp_path / "model", [projection()], query_prefix="", do_query_expansion=False)
    (query,) = loaded(folder).query_vectors(["heart cell"])
    np.testing.assert_allclose(
        query, expected(folder, [ID[w] for w in ("[CLS]", "heart", "cell", "[SEP]")], projection()), atol=1e-3
    )


def test_punctuation_counts_where_the_settings_say_so(tmp_path: Path) -> None:
    folder = stanford(tmp_path / "model", mask_punctuation=False)
    (rows,) = loaded(folder).token_vectors(["heart , cell"])
    np.testing.assert_allclose(rows, expected(folder, ids("heart , cell", "[unused1]", 12), projection()), atol=1e-3)


def test_vectors_like_transformers(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch", reason="the reference implementation; not part of the environment")
    transformers = pytest.importorskip("transformers", reason="the reference implementation")
    folder = stanford(tmp_path / "model", query_maxlen=32, doc_maxlen=40)
    encoder = transformers.BertModel.from_pretrained(folder, add_pooling_layer=False).eval()
    linear = torch.tensor(projection())

    def run(row: list[int], mask: list[int]) -> Float32:
        with torch.no_grad():
            out = encoder(input_ids=torch.tensor([row]), attention_mask=torch.tensor([mask])).last_hidden_state[0]
            found: Float32 = torch.nn.functional.normalize(out @ linear.T, dim=1).numpy()
        return found

    model = loaded(folder)
    row = ids(QUERY, "[unused0]", 32)
    filled = [*row, *[ID["[MASK]"]] * (32 - len(row))]
    query = run(filled, [1] * len(row) + [0] * (32 - len(row)))
    np.testing.assert_allclose(model.query_vectors([QUERY])[0], query, atol=1e-3)
    wanted = []
    for text, rows in zip(TEXTS, model.token_vectors(TEXTS), strict=True):
        row = ids(text, "[unused1]", 40)
        found = run(row, [1] * len(row))[[VOCABULARY[i] not in string.punctuation for i in row]]
        np.testing.assert_allclose(rows, found, atol=1e-3)
        wanted.append(slow_maxsim(query, found))
    np.testing.assert_allclose(model.scores(QUERY, TEXTS), wanted, atol=1e-3)


def test_more_of_a_text_is_read_if_asked(tmp_path: Path) -> None:
    folder = stanford(tmp_path / "model")
    long = " ".join(reference.WORDS[:25])
    assert [len(rows) for rows in loaded(folder).token_vectors([long])] == [12]
    longer = loaded(folder, "precision=f32&max_tokens=20")
    (rows,) = longer.token_vectors([long])
    np.testing.assert_allclose(rows, expected_document(folder, long, projection(), "[unused1]", 20), atol=1e-3)
    assert longer.name.endswith("?max_tokens=20&precision=f32")
    assert longer.fingerprint != loaded(folder).fingerprint == loaded(folder, "precision=native").fingerprint
    for options in ("max_tokens=51", "max_tokens=7", "precision=f16"):
        with pytest.raises(InvalidInput, match=options.split("=")[0]):
            loaded(folder, options)


def test_what_vectors_depend_on_is_in_the_fingerprint(tmp_path: Path) -> None:
    made = [
        stanford(tmp_path / "a"), stanford(tmp_path / "b", doc_maxlen=13),
        stanford(tmp_path / "c", mask_punctuation=False), pylate(tmp_path / "d", [projection()]),
        pylate(tmp_path / "e", [projection(seed=5)]), pylate(tmp_path / "f", [projection()], query_prefix="[D] "),
    ]  # fmt: skip
    assert len({loaded(folder).fingerprint for folder in made}) == len(made)


def test_the_usual_settings_where_the_files_tell_none(tmp_path: Path) -> None:
    folder = stanford(tmp_path / "model", query_token_id={"overwrite": False}, query_maxlen=None, doc_maxlen=None)
    model = loaded(folder)
    assert (model.max_tokens, len(model.query_vectors(["heart"])[0])) == (50, 32)  # 220, were there so many positions
    (folder / "artifact.metadata").unlink()
    assert loaded(folder).fingerprint == model.fingerprint


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        (lambda at: make(at, architectures=["HF_ColBERT"]), r"has no linear\.weight"),
        (lambda at: stanford(at, projection(12, 30)), r"shape \(12, 30\), and the encoder's width is 32"),
        (lambda at: stanford(at, query_maxlen="long"), "query_maxlen of its settings cannot be 'long'"),
        (lambda at: stanford(at, doc_maxlen=2), "doc_maxlen of its settings cannot be 2"),
        (lambda at: stanford(at, query_token_id="[unused99]"), r"no token '\[unused99\]'"),
        (lambda at: pylate(at, [projection()], {"bias": True}), "without bias"),
        (lambda at: pylate(at, [projection()], {"activation_function": "torch.nn.Tanh"}), "without bias"),
        (lambda at: pylate(at, [projection(), projection(4, 5)]), "does not follow"),
        (lambda at: pylate(at, [projection()], skiplist_words="all"), "skiplist_words of its settings cannot be 'all'"),
    ],
)  # fmt: skip
def test_what_does_not_run_is_refused(tmp_path: Path, broken: Any, message: str) -> None:
    folder = broken(tmp_path / "model")
    with pytest.raises(ModelError, match=message):
        rerankers.load(f"maxsim:{folder}").scores("heart", ["cell"])


def test_a_checkpoint_is_no_embedder(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="has a vector a token: use maxsim:"):
        embedders.load(f"local:{stanford(tmp_path / 'model')}")


def test_a_checkpoint_in_the_hubs_cache_needs_no_modules(tmp_path: Path) -> None:
    entry = tmp_path / "hub" / "models--org--colbert"
    (entry / "refs").mkdir(parents=True)
    (entry / "refs" / "main").write_text("abc")
    folder = stanford(entry / "snapshots" / "abc")
    found = rerankers.load("maxsim:org/colbert")
    assert isinstance(found, MaxSim)
    assert found.fingerprint == loaded(folder).fingerprint
    (folder / "artifact.metadata").unlink()  # then it may be one whose modules another program did not fetch
    with pytest.raises(ModelError, match=r"has no modules\.json or artifact\.metadata"):
        files.locate("org/colbert", None, ("modules.json", "artifact.metadata"))


@pytest.mark.parametrize("place", ["memory:", "edge"])
def test_a_collection_holds_and_searches_its_vectors(tmp_path: Path, place: str) -> None:
    folder = stanford(tmp_path / "model")
    spec = f"maxsim:{folder}?precision=f32"
    documents = [Document(f"d{i}", text) for i, text in enumerate(TEXTS)]
    query = expected_query(folder, projection(), "[unused0]", 10)
    wanted = {
        f"d{i}#0": slow_maxsim(query, expected_document(folder, text, projection(), "[unused1]", 12))
        for i, text in enumerate(TEXTS)
    }
    at = place if place == "memory:" else str(tmp_path / "kb")
    with nearest.open(at, embedder=HashEmbedder(), token_vectors=spec) as kb:
        kb.add(documents)
        assert {record.vectors[TOKENS].shape[1] for record in kb.store.scan_all(with_vectors=True)} == {DIMENSION}
        stored = kb.search(QUERY, k=len(TEXTS), mode="dense", rerank=spec)
        searched = kb.search(QUERY, k=len(TEXTS), mode="dense", weights={TOKENS: 1})
    with nearest.open("memory:", embedder=HashEmbedder()) as kb:  # computed for the candidates
        kb.add(documents)
        computed = kb.search(QUERY, k=len(TEXTS), mode="dense", rerank=spec)
    assert {hit.id: hit.score for hit in stored} == pytest.approx(wanted, abs=1e-3)
    assert {hit.id: hit.score for hit in computed} == pytest.approx(wanted, abs=1e-3)
    assert {hit.id: hit.score * len(query) for hit in searched} == pytest.approx(wanted, abs=1e-3)


def test_options_in_another_order_are_the_same(tmp_path: Path) -> None:
    folder = stanford(tmp_path / "model")
    for options in ("precision=f32&max_tokens=12", "max_tokens=12&precision=f32"):
        with nearest.open(tmp_path / "kb", embedder=HashEmbedder(), token_vectors=f"maxsim:{folder}?{options}") as kb:
            assert kb.info()["vectors"][TOKENS] == f"maxsim:{folder}?max_tokens=12&precision=f32"
    with pytest.raises(SchemaMismatch, match="token_vectors"):
        nearest.open(tmp_path / "kb", embedder=HashEmbedder(), token_vectors=f"maxsim:{folder}?max_tokens=12")
