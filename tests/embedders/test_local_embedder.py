"""The local embedder against the NumPy reference, and what it promises to its callers."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import nearest
from nearest import embedders
from nearest.contract import Embedder, Float32, Usage
from nearest.embedders import local
from nearest.encoder import bert, files, runtime
from nearest.errors import InvalidInput, ModelError, NearestError, TextTooLong, UnsupportedError
from tests.embedders import reference

MEAN = {"word_embedding_dimension": 32, "pooling_mode_cls_token": False, "pooling_mode_mean_tokens": True}
CLS = {"word_embedding_dimension": 32, "pooling_mode_cls_token": True, "pooling_mode_mean_tokens": False}


def expected(embedder: Embedder, folder: Path, texts: list[str], pooling: str) -> Float32:
    tensors = bert.read(folder / "model.safetensors")
    return np.stack([reference.embed(folder, embedder.tokenizer.encode(t).ids, pooling, tensors) for t in texts])


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return reference.make(tmp_path / "model", pooling=MEAN)


@pytest.fixture
def embedder(folder: Path) -> Embedder:
    return embedders.load(f"local:{folder}")


# --- the vectors -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("pooling", "made"),
    [
        ("mean", {"pooling": MEAN}),
        ("cls", {"pooling": CLS}),
        ("mean", {"pooling": {"embedding_dimension": 32, "pooling_mode": "mean", "include_prompt": True}}),
        ("cls", {"pooling": {"embedding_dimension": 32, "pooling_mode": "cls"}}),
        ("mean", {"pooling": None}),
        ("cls", {"pooling": CLS, "normalize": False}),
        ("mean", {"pooling": MEAN, "hidden_act": "gelu_new", "hidden_size": 48, "num_attention_heads": 3}),
        ("mean", {"pooling": MEAN, "hidden_act": "relu", "num_hidden_layers": 3, "num_attention_heads": 1}),
        ("cls", {"pooling": CLS, "dtype": "F16", "layer_norm_eps": 1e-5}),
        ("mean", {"pooling": MEAN, "dtype": "BF16"}),
        ("mean", {"pooling": MEAN, "prefix": "bert."}),
        ("mean", {"pooling": MEAN, "model_type": "xlm-roberta", "pad_token_id": 1, "type_vocab_size": 1}),
        ("cls", {"pooling": CLS, "model_type": "roberta", "pad_token_id": 1, "prefix": "roberta."}),
        ("mean", {"pooling": MEAN, "model_type": "mpnet", "type_vocab_size": None}),
        ("cls", {"pooling": CLS, "model_type": "mpnet", "pad_token_id": 1, "prefix": "mpnet."}),
    ],
)
def test_like_the_reference(tmp_path: Path, pooling: str, made: dict[str, Any]) -> None:
    folder = reference.make(tmp_path / "model", **made)
    embedder = embedders.load(f"local:{folder}")
    texts = reference.texts(40, 30)
    vectors = embedder.embed_documents(texts)
    assert vectors.dtype == np.float32
    assert vectors.shape == (40, embedder.dimension)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, rtol=1e-5)
    wanted = expected(embedder, folder, texts, pooling)
    assert (vectors * wanted).sum(axis=1).min() >= 0.999
    others = wanted @ wanted.T - 2 * np.eye(40)
    assert others.max() < 0.9999, "texts must differ for this test to mean something"


def test_mpnets_buckets() -> None:
    places = np.arange(512)
    assert (bert.buckets(places - places[:, None]) == reference.buckets(512)).all()


def test_batches_keep_the_order_and_padding_changes_nothing(embedder: Embedder) -> None:
    texts = reference.texts(90, 35)
    together = embedder.embed_documents(texts)
    alone = np.stack([embedder.embed_documents([text])[0] for text in texts])
    assert (together * alone).sum(axis=1).min() > 0.9999
    queries = np.stack([embedder.embed_query(text) for text in texts])
    assert (together * queries).sum(axis=1).min() > 0.9999
    assert (together * embedder.embed_queries(texts)).sum(axis=1).min() > 0.9999


def test_more_texts_than_a_window(embedder: Embedder, monkeypatch: pytest.MonkeyPatch) -> None:
    texts = reference.texts(50, 20)
    whole = embedder.embed_documents(texts)
    monkeypatch.setattr(local, "WINDOW", 7)
    assert (whole * embedder.embed_documents(texts)).sum(axis=1).min() > 0.9999


def test_queries_in_parts(embedder: Embedder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runtime, "BATCH_TEXTS", 4)
    texts = reference.texts(50, 20)
    whole = embedder.embed_queries(texts)
    parts = list(embedder.stream_queries(texts))
    assert len(parts) > 10
    assert sorted(i for rows, _ in parts for i in rows) == list(range(50))
    assert all(np.array_equal(whole[list(rows)], vectors) for rows, vectors in parts)
    assert list(embedder.stream_queries([])) == []


def test_a_stream_that_is_left_or_stands_still_holds_up_no_other(
    embedder: Embedder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runtime, "BATCH_TEXTS", 4)
    texts = reference.texts(50, 20)
    whole = embedder.embed_queries(texts)
    for _ in range(3):
        next(iter(embedder.stream_queries(texts)))
    one, other = embedder.stream_queries(texts), embedder.stream_queries(texts)
    for (rows, vectors), (others, found) in zip(one, other, strict=True):
        assert rows == others
        assert np.array_equal(vectors, found)
        assert np.array_equal(vectors, whole[list(rows)])
        assert embedder.embed_documents(texts[:9]).shape == (9, 32)


def test_what_fails_in_the_midst_of_a_stream_leaves_the_embedder_usable(
    embedder: Embedder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(local, "WINDOW", 4)
    texts = [*reference.texts(20, 10), "word " * 200]
    got: list[int] = []
    with pytest.raises(TextTooLong, match="text 20 has"):
        got.extend(i for rows, _ in embedder.stream_queries(texts) for i in rows)
    assert got
    assert max(got) < 20
    assert len(embedder.embed_queries(texts, truncate=True)) == 21


def test_no_texts(embedder: Embedder) -> None:
    assert embedder.embed_documents([]).shape == (0, 32)
    assert embedder.embed_queries([]).dtype == np.float32


def test_from_several_threads_at_once(embedder: Embedder) -> None:
    texts = reference.texts(40, 30)
    alone = embedder.embed_documents(texts)
    embedder.__dict__["_encoders"].clear()
    got: list[Float32] = []

    def work() -> None:
        got.append(embedder.embed_documents(texts))
        got.append(np.stack([embedder.embed_query(text) for text in texts]))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(got) == 8
    assert all((vectors * alone).sum(axis=1).min() > 0.9999 for vectors in got)


def test_weights_with_a_nan_are_refused(tmp_path: Path) -> None:
    folder = reference.make(tmp_path / "model", pooling=MEAN)
    tensors = dict(bert.read(folder / "model.safetensors"))
    tensors["encoder.layer.1.output.LayerNorm.bias"] = np.full(32, np.nan, np.float32)
    reference.save(folder / "model.safetensors", tensors)
    with pytest.raises(ModelError, match="not finite"):
        embedders.load(f"local:{folder}").embed_query("heart")


# --- the limit -------------------------------------------------------------------------------------


def test_a_text_over_the_limit_is_refused_and_named(embedder: Embedder) -> None:
    with pytest.raises(TextTooLong, match=r"text 1 has 62 tokens, and .* takes 40; .*truncate=True") as caught:
        embedder.embed_documents(["heart", "cell " * 60, "blood"])
    assert caught.value.context == {"index": 1, "tokens": 62, "limit": 40}
    with pytest.raises(TextTooLong, match="the query has 62 tokens"):
        embedder.embed_query("cell " * 60)
    assert embedder.truncated == 0
    embedder.embed_documents(["cell " * 38])


def test_truncation_is_counted_and_keeps_the_beginning_and_the_last_special_token(embedder: Embedder) -> None:
    long = reference.texts(3, 1, seed=3)
    texts = ["heart", *(f"{text} " + "blood gene " * 30 for text in long)]
    vectors = embedder.embed_documents(texts, truncate=True)
    assert embedder.truncated == 3
    cut = [" ".join(text.split()[:38]) for text in texts]
    assert (vectors * embedder.embed_documents(cut)).sum(axis=1).min() > 0.9999
    embedder.embed_query(texts[1], truncate=True)
    embedder.embed_queries(texts, truncate=True)
    assert embedder.truncated == 7


@pytest.mark.parametrize(
    ("made", "limit"),
    [
        ({"settings": {"max_seq_length": 17}}, 17),
        ({"settings": {"max_seq_length": 4000}}, 50),
        ({"settings": {"max_seq_length": None}, "files": {"tokenizer_config.json": {"model_max_length": 12}}}, 12),
        ({"settings": {"max_seq_length": None}}, 50),
        ({"settings": {"max_seq_length": None}, "model_type": "roberta", "pad_token_id": 1}, 48),
    ],
)
def test_max_tokens(tmp_path: Path, made: dict[str, Any], limit: int) -> None:
    embedder = embedders.load(f"local:{reference.make(tmp_path / 'model', pooling=MEAN, **made)}")
    assert embedder.max_tokens == limit
    embedder.embed_documents([" ".join(["cell"] * (limit - 2))])


def test_the_tokenizer_neither_cuts_nor_pads(embedder: Embedder) -> None:
    assert len(embedder.tokenizer.encode("cell " * 60).ids) == 62
    assert len(embedder.tokenizer.encode("cell").ids) == 3


# --- input that is refused -------------------------------------------------------------------------


@pytest.mark.parametrize("bad", ["", "  \n\t", None, 5, b"heart", "\ud800"])
def test_bad_texts(embedder: Embedder, bad: Any) -> None:
    with pytest.raises(InvalidInput, match="text 1"):
        embedder.embed_documents(["heart", bad])
    with pytest.raises(InvalidInput, match="text 0"):
        embedder.embed_queries([bad])
    with pytest.raises(InvalidInput, match="the query"):
        embedder.embed_query(bad)


def test_one_string_for_a_list(embedder: Embedder) -> None:
    with pytest.raises(InvalidInput, match=r"write \[text\]"):
        embedder.embed_documents("heart")


# --- prefixes and names ----------------------------------------------------------------------------


def test_prefixes_from_the_model_and_from_the_caller(tmp_path: Path) -> None:
    prompts = {"prompts": {"query": "what ", "passage": "the "}}
    folder = reference.make(tmp_path / "model", pooling=MEAN, files={"config_sentence_transformers.json": prompts})
    plain = embedders.load(f"local:{folder}", query_prefix="", document_prefix="")
    own = embedders.load(f"local:{folder}")
    given = embedders.load(f"local:{folder}", query_prefix="why ", document_prefix="how ")
    for embedder, query, document in ((own, "what ", "the "), (given, "why ", "how ")):
        assert embedder.embed_query("heart") @ plain.embed_query(query + "heart") > 0.9999
        assert embedder.embed_queries(["heart"])[0] @ plain.embed_query(query + "heart") > 0.9999
        assert embedder.embed_documents(["heart"])[0] @ plain.embed_query(document + "heart") > 0.9999
    assert len({plain.fingerprint, own.fingerprint, given.fingerprint}) == 3


E5, BGE = ("query: ", "passage: "), ("Represent this sentence for searching relevant passages: ", "")


@pytest.mark.parametrize(
    ("name", "prompts", "wanted", "source"),
    [
        ("e5-small-v2", None, E5, "the registry"),
        ("multilingual-E5-base", {"query": "", "document": ""}, E5, "the registry"),
        ("bge-large-en-v1.5", {}, BGE, "the registry"),
        ("bge-m3", None, ("", ""), "nobody"),
        ("e5-small-v2-of-mine", None, ("", ""), "nobody"),
        ("e5-small", {"query": "q ", "corpus": "c "}, ("q ", "c "), "the model's files"),
        ("bge-small-en", {"document": "d "}, ("", "d "), "the model's files"),
    ],
)
def test_prefixes_of_a_family(
    tmp_path: Path, name: str, prompts: dict[str, str] | None, wanted: tuple[str, str], source: str
) -> None:
    made = {} if prompts is None else {"config_sentence_transformers.json": {"prompts": prompts}}
    folder = reference.make(tmp_path / name, pooling=MEAN, files=made)
    both: list[tuple[str, dict[str, Any]]] = [(f"local:{folder}", {}), (f"local:org/{name}", {"folder": folder})]
    for spec, options in both:
        embedder = embedders.load(spec, **options)
        assert isinstance(embedder, local.LocalEmbedder)
        assert (embedder.prefixes.query, embedder.prefixes.document) == wanted
        assert embedder.prefixes.source == source
        assert embedder.name == spec


def test_a_familys_prefixes_are_told_and_can_be_turned_off(tmp_path: Path) -> None:
    folder = reference.make(tmp_path / "e5-small", pooling=MEAN)
    own = embedders.load(f"local:{folder}")
    assert "'query: ' is put before queries and 'passage: ' before documents" in own.note
    assert embedders.load(own.name, cache=tmp_path / "vectors.db").note == own.note
    none = embedders.load(f"local:{folder}?query_prefix=&document_prefix=")
    assert not none.note
    assert own.embed_query("heart") @ none.embed_query("query: heart") > 0.9999
    assert own.embed_documents(["heart"])[0] @ none.embed_documents(["passage: heart"])[0] > 0.9999


def test_a_name_opens_the_same_again(tmp_path: Path) -> None:
    folder = reference.make(tmp_path / "model", pooling=MEAN)
    for written in (
        "", "?query_prefix=what: &document_prefix=", "?dimensions=8&matryoshka=true", "?matryoshka=false",
        "?dimensions=08&matryoshka=True",
    ):  # fmt: skip
        spec = f"local:{folder}{written}"
        embedder = embedders.load(spec)
        assert embedders.canonical(spec) == embedder.name
        again = embedders.load(embedder.name)
        assert (again.name, again.fingerprint, again.dimension) == (
            embedder.name, embedder.fingerprint, embedder.dimension,
        )  # fmt: skip
    spec = f"local:org/model?folder={folder}"
    assert embedders.canonical(spec) == embedders.load(spec).name == "local:org/model"


# --- what it was asked for -------------------------------------------------------------------------


def test_texts_and_tokens_are_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = reference.make(tmp_path / "model", pooling=MEAN)
    embedder = embedders.load(f"local:{folder}?query_prefix=heart: &document_prefix=")
    monkeypatch.setattr(local, "WINDOW", 7)
    texts = reference.texts(20, 10)
    assert embedder.usage == Usage()

    def tokens(some: list[str]) -> int:
        return sum(min(len(embedder.tokenizer.encode(text).ids), embedder.max_tokens) for text in some)

    long = " ".join(["heart"] * 500)
    embedder.embed_documents([*texts, long], truncate=True)
    documents = Usage(texts=21, tokens=tokens([*texts, long]))
    assert embedder.usage == documents
    embedder.embed_queries(texts)
    embedder.embed_query(texts[0])
    list(embedder.stream_queries(texts[:2]))
    asked = [f"heart: {text}" for text in [*texts, texts[0], *texts[:2]]]
    assert embedder.usage - documents == Usage(texts=23, tokens=tokens(asked))
    before = embedder.usage
    with pytest.raises(TextTooLong):
        embedder.embed_query(long)
    assert embedder.usage == before  # what was refused was not embedded


def test_every_thread_is_counted(embedder: Embedder) -> None:
    texts = reference.texts(30, 10)
    embedder.embed_documents(texts)
    once = embedder.usage
    assert once.texts == 30
    threads = [threading.Thread(target=embedder.embed_documents, args=(texts,)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert embedder.usage == Usage(texts=9 * once.texts, tokens=9 * once.tokens)


def test_a_collection_tells_what_its_model_read(tmp_path: Path, folder: Path) -> None:
    with nearest.open(tmp_path / "kb", embedder=f"local:{folder}") as collection:
        report = collection.add([nearest.Document(id="1", text="heart"), nearest.Document(id="2", text="hearts")])
        assert report.usage.texts == 2
        assert report.usage.tokens > 0
        (used,) = collection.info()["usage"].values()
        assert (used["texts"], used["tokens"], used["dollars"]) == (2, report.usage.tokens, 0)


# --- shorter vectors -------------------------------------------------------------------------------


def test_the_beginning_at_unit_length(tmp_path: Path) -> None:
    folder = reference.make(tmp_path / "mxbai-embed-large-v1", pooling=CLS)
    whole = embedders.load(f"local:{folder}?query_prefix=")
    short = embedders.load(f"local:{folder}?query_prefix=&dimensions=8")
    assert short.dimension == 8
    texts = reference.texts(20, 20)
    wanted = whole.embed_documents(texts)[:, :8]
    wanted /= np.linalg.norm(wanted, axis=1, keepdims=True)
    np.testing.assert_allclose(short.embed_documents(texts), wanted, atol=1e-4)
    np.testing.assert_allclose(short.embed_queries(texts), wanted, atol=1e-4)
    assert short.embed_query(texts[0]).shape == (8,)
    assert short.embed_documents([]).shape == (0, 8)
    assert short.fingerprint != whole.fingerprint
    assert embedders.load(f"local:{folder}?query_prefix=&dimensions=32").fingerprint == whole.fingerprint


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("all-MiniLM-L12-v2", {"dimensions": 8}, r"trained for 32 dimensions and no fewer.*matryoshka=true"),
        ("snowflake-arctic-embed-m-v1.5", {"dimensions": 8}, "32 dimensions and 256:"),
        ("mxbai-embed-large-v1", {"dimensions": 33}, "vectors of 32 dimensions, not 33"),
        ("all-MiniLM-L12-v2", {"dimensions": 33, "matryoshka": True}, "not 33"),
    ],
)
def test_dimensions_that_a_model_does_not_offer(
    tmp_path: Path, name: str, options: dict[str, Any], message: str
) -> None:
    folder = reference.make(tmp_path / name, pooling=MEAN)
    with pytest.raises(UnsupportedError, match=message):
        embedders.load(f"local:{folder}", **options)


def test_dimensions_on_the_users_word(folder: Path) -> None:
    assert embedders.load(f"local:{folder}", dimensions=5, matryoshka=True).embed_query("heart").shape == (5,)
    with pytest.raises(InvalidInput, match="at least 1"):
        embedders.load(f"local:{folder}", dimensions=0)


# --- the fingerprint -------------------------------------------------------------------------------


def test_the_fingerprint_is_that_of_the_vectors(tmp_path: Path) -> None:
    def fingerprint(name: str, **made: Any) -> str:
        return embedders.load(f"local:{reference.make(tmp_path / name, **{'pooling': MEAN, **made})}").fingerprint

    first = fingerprint("a")
    assert fingerprint("b") == first, "a copy in another folder"
    assert fingerprint("c", normalize=False) == first, "vectors are of unit length either way"
    assert fingerprint("d", settings={"max_seq_length": 20}) == first, "a limit changes no vector"
    assert fingerprint("e", seed=1) != first
    assert fingerprint("f", pooling=CLS) != first
    assert fingerprint("g", num_attention_heads=2) != first
    assert fingerprint("h", settings={"do_lower_case": True}) != first


def test_lower_casing_where_the_model_asks_for_it(tmp_path: Path) -> None:
    folder = reference.make(tmp_path / "model", pooling=MEAN, settings={"do_lower_case": True})
    embedder = embedders.load(f"local:{folder}")
    assert embedder.embed_query("HEART cell") @ embedder.embed_query("heart cell") > 0.9999


# --- models that do not run here -------------------------------------------------------------------


def _modules(*kinds: str) -> dict[str, Any]:
    return {"modules.json": [{"path": f"part{i}", "type": f"x.{kind}"} for i, kind in enumerate(kinds)]}


@pytest.mark.parametrize(
    ("made", "message"),
    [
        (
            {"model_type": "nomic_bert", "architectures": ["NomicBertModel"]},
            r"'nomic_bert' is not .*NomicBertModel\); on PyTorch, sentence-transformers:.*model may run it",
        ),
        ({"auto_map": {"AutoConfig": "x.Y", "AutoModel": "x.Z"}}, "code of its own.*sentence-transformers:"),
        ({"model_type": "mpnet", "relative_attention_num_buckets": 16}, "relative_attention_num_buckets 16"),
        ({"hidden_act": "silu"}, "hidden_act 'silu'"),
        ({"position_embedding_type": "relative_key"}, "position_embedding_type"),
        ({"is_decoder": True}, "decoder"),
        ({"num_attention_heads": 5}, "multiple"),
        ({"pooling": {"pooling_mode_max_tokens": True}}, r"pooling \['max'\].*sentence-transformers:"),
        ({"pooling": {"pooling_mode_max_tokens": True, "pooling_mode_mean_tokens": True}}, "pooling"),
        ({"pooling": {"pooling_mode": "mean", "include_prompt": False}}, "include_prompt"),
        ({"files": _modules("Transformer", "Pooling", "Dense")}, "Dense"),
        ({"files": _modules("Transformer", "Pooling")}, r"no part1/config\.json"),
        ({"files": {"modules.json": {}}}, "modules.json"),
        ({"files": {"config.json": [1]}}, "must hold an object"),
    ],
)
def test_refused_when_loaded(tmp_path: Path, made: dict[str, Any], message: str) -> None:
    folder = reference.make(tmp_path / "model", **{"pooling": MEAN, **made})
    with pytest.raises(ModelError, match=message):
        embedders.load(f"local:{folder}")


def test_weights_that_do_not_fit(tmp_path: Path, folder: Path) -> None:
    tensors = dict(bert.read(folder / "model.safetensors"))
    del tensors["encoder.layer.1.output.dense.bias"]
    reference.save(folder / "model.safetensors", tensors)
    with pytest.raises(ModelError, match=r"encoder\.layer\.1\.output\.dense\.bias is missing"):
        embedders.load(f"local:{folder}").embed_query("heart")
    (folder / "model.safetensors").write_bytes(b"not safetensors")
    with pytest.raises(ModelError, match=r"cannot read .*model\.safetensors"):
        embedders.load(f"local:{folder}").embed_query("heart")
    other = reference.make(tmp_path / "other", pooling=MEAN)
    config = json.loads((other / "config.json").read_text())
    (other / "config.json").write_text(json.dumps({**config, "intermediate_size": 63}))
    with pytest.raises(ModelError, match=r"intermediate\.dense\.weight is of shape"):
        embedders.load(f"local:{other}").embed_query("heart")


def test_a_tokenizer_of_another_model(tmp_path: Path) -> None:
    folder = reference.make(tmp_path / "model", pooling=MEAN, vocab_size=20)
    with pytest.raises(ModelError, match="another model's"):
        embedders.load(f"local:{folder}").embed_query("heart")
    (folder / "tokenizer.json").write_text("{}")
    with pytest.raises(ModelError, match=r"cannot read .*tokenizer\.json"):
        embedders.load(f"local:{folder}").embed_query("heart")


# --- the compiled model's cache --------------------------------------------------------------------


def blobs(cache: Path) -> list[Path]:
    return sorted((cache / "compiled").iterdir())


def test_the_compiled_model_is_used_again(places: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = embedders.load(f"local:{folder}").embed_query("heart attack")
    (blob,) = blobs(places)

    def untouched(path: Path) -> dict[str, Float32]:
        raise AssertionError("the weights were read again")

    monkeypatch.setattr(bert, "read", untouched)
    again = embedders.load(f"local:{folder}")
    assert again.embed_query("heart attack") @ first > 0.9999
    assert again.embed_documents(["heart attack"])[0] @ first > 0.9999
    assert blobs(places) == [blob]


@pytest.mark.parametrize("damage", ["cut", "flipped", "empty", "short", "other"])
def test_a_damaged_cache_is_made_anew(places: Path, folder: Path, damage: str) -> None:
    first = embedders.load(f"local:{folder}").embed_query("heart attack")
    (blob,) = blobs(places)
    whole = blob.read_bytes()
    middle = len(whole) // 2
    blob.write_bytes(
        {
            "cut": whole[:middle],
            "flipped": whole[:middle] + bytes([whole[middle] ^ 1]) + whole[middle + 1 :],
            "empty": b"",
            "other": b"rubbish" + zlib.crc32(b"rubbish").to_bytes(4, "little"),  # which OpenVINO refuses
            "short": b"abc",
        }[damage]
    )
    assert embedders.load(f"local:{folder}").embed_query("heart attack") @ first > 0.9999
    assert runtime.read_blob(blob) is not None
    # Not to the byte: OpenVINO numbers the names of nodes on, within a process.
    assert 0.9 < blob.stat().st_size / len(whole) < 1.1
    assert [path.name for path in blobs(places)] == [blob.name], "no temporary file stays"


def test_a_cache_that_cannot_be_written_costs_only_the_caching(
    tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("not a folder")
    monkeypatch.setenv("NEAREST_CACHE_DIR", str(tmp_path / "file"))
    assert embedders.load(f"local:{folder}").embed_query("heart").shape == (32,)

    def full(source: str, target: str) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setenv("NEAREST_CACHE_DIR", str(tmp_path / "full"))
    monkeypatch.setattr("os.replace", full)
    assert embedders.load(f"local:{folder}").embed_query("heart").shape == (32,)
    assert not [path for path in (tmp_path / "full").rglob("*") if path.is_file()]
    monkeypatch.setattr(files, "cache_folder", lambda: None)
    assert embedders.load(f"local:{folder}").embed_query("heart").shape == (32,)


def test_loading_imports_nothing_heavy(folder: Path) -> None:
    code = (
        "import sys; from nearest import embedders; e = embedders.load(sys.argv[1]); "
        "heavy = {'openvino', 'tokenizers', 'safetensors', 'huggingface_hub', 'torch'}; "
        "assert not heavy & set(sys.modules), heavy & set(sys.modules); e.embed_query('heart'); "
        "assert not {'huggingface_hub', 'torch'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code, f"local:{folder}"], check=True, timeout=60)


# --- specs -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("spec", ["", "local", "local:", ":all-MiniLM-L6-v2", "elsewhere:model", None, 5])
def test_bad_specs(spec: Any) -> None:
    with pytest.raises(InvalidInput, match="local"):
        embedders.load(spec)


def test_an_unknown_option(folder: Path) -> None:
    with pytest.raises(NearestError, match="batch_size"):
        embedders.load(f"local:{folder}", batch_size=3)
