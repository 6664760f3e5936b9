"""Packing: what is joined, merged, left out; never cut."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from nearest.answer.context import pack
from nearest.contract import Hit
from tests.answer.conftest import hit


def words(text: str) -> int:
    return len(text.split())


def test_sources_are_numbered_by_rank_and_keep_their_place() -> None:
    page = hit("b", "Second.", start=7, year=1999)
    sources, omitted = pack([hit("a", "First."), page], words, 100)
    assert [(s.number, s.document_id, s.text, s.start) for s in sources] == [
        (1, "a", "First.", 0),
        (2, "b", "Second.", 7),
    ]
    assert sources[1].metadata == {"year": 1999}
    assert omitted == 0


def test_neighbours_that_overlap_or_touch_are_joined_in_order() -> None:
    text = "One two three. Four five six. Seven eight nine."
    sources, _ = pack(
        [hit("a", text[15:30], chunk=1, start=15), hit("b", "Other."), hit("a", text[26:], chunk=2, start=26),
         hit("a", text[:15], chunk=0)],
        words, 100,
    )  # fmt: skip
    assert [s.text for s in sources] == [text, "Other."]
    assert set(sources[0].chunks) == {"a#0", "a#1", "a#2"}
    assert sources[0].start == 0


def test_passages_of_one_document_that_are_apart_stay_apart() -> None:
    sources, _ = pack([hit("a", "One.", start=0), hit("a", "Two.", chunk=5, start=90)], words, 100)
    assert [s.text for s in sources] == ["One.", "Two."]


def test_a_passage_that_is_there_twice_is_one_source_that_names_both_documents() -> None:
    sources, omitted = pack([hit("a", "Same text."), hit("b", " same  TEXT."), hit("a", "Same", chunk=1)], words, 100)
    assert len(sources) == 1
    assert sources[0].also == ("b",)
    assert sources[0].chunks == ("a#0", "a#1")
    assert omitted == 0


def test_of_two_passages_the_one_that_says_all_of_the_other_and_more_is_the_source() -> None:
    less, more, third = (
        hit("a", "Keys rotate monthly."),
        hit("b", "Keys rotate, monthly. And more."),
        hit("c", "Other."),
    )
    for hits in ([less, third, more], [more, third, less]):
        sources, _ = pack(hits, words, 100)
        assert [(s.text, s.also) for s in sources] == [("Keys rotate, monthly. And more.", ("a",)), ("Other.", ())]
    sources, _ = pack([hit("a", "x < 5"), hit("b", "x > 5"), hit("c", "ax > 55")], words, 100)
    assert [s.text for s in sources] == ["x < 5", "x > 5", "ax > 55"]


def test_what_does_not_fit_is_left_out_whole_and_a_smaller_one_is_taken() -> None:
    sources, omitted = pack([hit("a", "one two three"), hit("b", "four five six"), hit("c", "seven")], words, 4)
    assert [s.text for s in sources] == ["one two three", "seven"]
    assert omitted == 1
    assert pack([hit("a", "one two three")], words, 2) == ((), 1)


def test_joining_costs_only_what_it_adds() -> None:
    text = "one two three four five six"
    sources, omitted = pack([hit("a", text[:13]), hit("a", text[8:], chunk=1, start=8)], words, 6)
    assert [s.text for s in sources] == [text]
    assert omitted == 0


spans = st.lists(st.tuples(st.sampled_from("ab"), st.integers(0, 40), st.integers(1, 20)), max_size=12)


@given(spans, st.integers(1, 60))
def test_whatever_is_found_the_budget_holds_and_passages_are_whole(
    found: list[tuple[str, int, int]], budget: int
) -> None:
    texts = {name: " ".join(f"{name}{i}" for i in range(60)) for name in "ab"}
    hits: list[Hit] = []
    for n, (name, start, length) in enumerate(found):
        begin = texts[name].index(f"{name}{start}")
        end = texts[name].index(f"{name}{start + length - 1}") + len(f"{name}{start + length - 1}")
        hits.append(hit(name, texts[name][begin:end], chunk=n, start=begin, score=-float(n)))
    sources, omitted = pack(hits, words, budget)
    assert sum(words(s.text) for s in sources) <= budget
    kept = {chunk for s in sources for chunk in s.chunks}
    assert len(kept) + omitted == len(hits)
    by_id = {h.id: h for h in hits}
    for s in sources:
        assert texts[s.document_id][s.start : s.start + len(s.text)] == s.text
        assert all(by_id[chunk].text in s.text for chunk in s.chunks)
    assert [s.number for s in sources] == list(range(1, len(sources) + 1))
