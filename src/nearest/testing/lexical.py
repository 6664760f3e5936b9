"""BM25: what a search by words must find and in which order. Scores are the database's own."""

from __future__ import annotations

from typing import Any

import pytest

from nearest import filters
from nearest.contract import Query, Record, Store, Text
from nearest.errors import InvalidQuery, InvalidRecord
from nearest.testing.base import Base, Make, assert_order, drop, needs, put, vector

TEXTS = {
    "fox": "The quick brown fox jumps over the lazy dog.",
    "run": "A dog is running; other dogs ran and one runs, slowly.",
    "net": "Connections: a connected network (TCP/IP) keeps connecting.",
    "num": "Version 42 of the manual, in e-mail; not 4.2",
    "uni": "Grüße aus München, naïve café, 漢字",
    "stop": "the and of it is",
    "empty": "",
}
FINDS: dict[str, set[str]] = {
    "fox": {"fox"}, "FOX": {"fox"}, "quick fox": {"fox"}, "fox network": {"fox", "net"},
    "fox, the network!": {"fox", "net"},
    # By their stems.
    "dog": {"fox", "run"}, "dogs": {"fox", "run"}, "run": {"run"}, "connect": {"net"}, "connection": {"net"},
    # Words end where letters and digits end.
    "network": {"net"}, "ip": {"net"}, "mail": {"num"}, "42": {"num"},
    "münchen": {"uni"}, "CAFÉ": {"uni"}, "zebra": set(), "fo": set(), "zebra fox": {"fox"},
}  # fmt: skip


class Lexical(Base):
    @pytest.fixture
    def texts(self, build: Make) -> Store:
        if "text" not in self.capabilities:  # every test that takes this fixture needs it
            raise AssertionError("a test that takes `texts` is to be marked needs('text')")
        store = build(self.schema(text="body"))
        put(store, [Record(name, {"dense": vector(0)}, {"body": text}) for name, text in TEXTS.items()])
        put(store, [Record("none", {"dense": vector(0)}), Record("null", {"dense": vector(0)}, {"body": None})])
        return store

    @needs("text")
    def test_words_find_texts(self, texts: Store) -> None:
        for words, expected in FINDS.items():
            hits = texts.search(Query(Text(words)))
            assert {hit.id for hit in hits} == expected, words
            assert all(hit.score > 0 for hit in hits)
            assert_order(hits)

    @needs("text")
    def test_a_text_without_a_searchable_word_finds_nothing(self, texts: Store) -> None:
        for words in ("the", "and of the", "?!", "... -- ()"):
            assert texts.search(Query(Text(words))) == []

    @needs("text")
    def test_an_empty_text_is_refused(self, texts: Store) -> None:
        bad: list[Any] = ["", "  ", "\n", None, 1]
        for words in bad:
            with pytest.raises(InvalidQuery, match="empty"):
                texts.search(Query(Text(words)))

    @needs("text")
    def test_more_and_rarer_matches_score_higher(self, build: Make) -> None:
        store = build(self.schema(text="body"))
        bodies = {
            "both": "apple banana cherry kiwi",
            "rare": "apple lemon grape plum",
            "common": "lemon banana grape plum",
            "long": "apple " + " ".join(f"filler{i}" for i in range(60)),
            "twice": "apple apple grape plum",
            **{f"x{i}": f"banana melon grape{i} plum{i}" for i in range(10)},
        }
        put(store, [Record(name, {"dense": vector(0)}, {"body": body}) for name, body in bodies.items()])
        scores = {hit.id: hit.score for hit in store.search(Query(Text("apple banana"), k=50))}
        assert scores["both"] > scores["rare"] > scores["common"]
        assert scores["twice"] > scores["rare"] > scores["long"]
        assert set(scores) == set(bodies)
        best = store.search(Query(Text("apple banana"), k=3))
        assert [hit.score for hit in best] == sorted(scores.values(), reverse=True)[:3]

    @needs("text")
    def test_a_condition_holds_for_texts_too(self, build: Make) -> None:
        store = build(self.schema(text="body"))
        put(
            store,
            [Record(f"r{i}", {"dense": vector(i)}, {"body": "apple " * (i + 1), "n": i % 3}) for i in range(12)],
        )
        for where, ids in (({"n": 1}, {"r1", "r4", "r7", "r10"}), ({"n": 9}, set())):
            hits = store.search(Query(Text("apples"), k=50, where=filters.parse(where)))
            assert {hit.id for hit in hits} == ids
        assert len(store.search(Query(Text("apples"), k=2, where=filters.parse({"n": 1})))) == 2

    @needs("text")
    def test_texts_follow_the_writes(self, texts: Store) -> None:
        put(texts, [Record("fox", {"dense": vector(0)}, {"body": "a quiet hedgehog"})])
        assert texts.search(Query(Text("fox"))) == []
        assert [hit.id for hit in texts.search(Query(Text("hedgehog")))] == ["fox"]
        drop(texts, ["fox"])
        assert texts.search(Query(Text("hedgehog"))) == []
        put(texts, [Record("net", {"dense": vector(0)})])
        assert texts.search(Query(Text("network"))) == []
        put(texts, [Record("null", {"dense": vector(0)}, {"body": "network"})])
        assert [hit.id for hit in texts.search(Query(Text("network")))] == ["null"]

    @needs("text")
    def test_a_text_may_lie_deeper(self, build: Make) -> None:
        store = build(self.schema(text="page.body"))
        put(store, [Record("a", {"dense": vector(0)}, {"page": {"body": "apple"}})])
        put(store, [Record("b", {"dense": vector(0)}, {"page": "apple", "body": "apple", "page.body": "apple"})])
        assert [hit.id for hit in store.search(Query(Text("apples")))] == ["a"]

    @needs("text")
    def test_a_text_field_that_holds_no_text_is_refused(self, build: Make) -> None:
        store = build(self.schema(text="body"))
        for value in (1, True, ["apple"], {"a": "apple"}):
            with pytest.raises(InvalidRecord, match=r"payload\.body"):
                store.upsert([Record("a", {"dense": vector(0)}, {"body": value})])
        assert store.count() == 0
