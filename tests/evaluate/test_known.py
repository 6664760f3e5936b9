"""Test sets from one's own documents."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from nearest.contract import Document
from nearest.errors import ConnectionFailed, InvalidInput
from nearest.evaluate import known, load
from tests.answer.conftest import Scripted
from tests.evaluate.test_beir import Lines

DOCUMENTS = [
    Document(f"d{i}", f"Every page says common things. This {name} is about {name}s, {name} prices and care.", {"n": i})
    for i, name in enumerate(["apple", "tulip", "engine", "harbour", "violin", "glacier"])
]


def test_what_is_made_is_a_data_set_about_its_documents(tmp_path: Path) -> None:
    assert known.make(DOCUMENTS, tmp_path / "set", count=4) == 4
    made = load(tmp_path / "set", Lines())
    assert len(made.queries) == 4
    assert made.ids == [d.id for d in DOCUMENTS]
    by_id = {d.id: d for d in DOCUMENTS}
    for query, text in made.queries.items():
        ((document, relevance),) = made.qrels[query].items()
        assert relevance == 1
        words = text.split()
        assert 3 <= len(words) == len(set(words)) <= 6
        assert all(word in by_id[document].text.casefold() for word in words)


def test_words_that_few_documents_have_are_drawn_more(tmp_path: Path) -> None:
    # "common" is in all six documents, "apple" in one, three times.
    drawn = []
    for seed in range(30):
        known.make(DOCUMENTS, tmp_path / str(seed), count=6, seed=seed)
        drawn += [
            json.loads(line)["text"] for line in (tmp_path / str(seed) / "queries.jsonl").read_text().splitlines()
        ]
    names = sum(
        any(name in text for name in ("apple", "tulip", "engine", "harbour", "violin", "glacier")) for text in drawn
    )
    assert names > 0.9 * len(drawn)
    assert sum("common" in text.split() for text in drawn) < 0.6 * names


def test_the_same_seed_makes_the_same_set(tmp_path: Path) -> None:
    for name, seed in (("one", 1), ("two", 1), ("three", 2)):
        known.make(DOCUMENTS, tmp_path / name, seed=seed)
    texts = [(tmp_path / name / "queries.jsonl").read_bytes() for name in ("one", "two", "three")]
    assert texts[0] == texts[1] != texts[2]


def test_questions_can_be_asked_for(tmp_path: Path) -> None:
    made = known.make(DOCUMENTS, tmp_path / "set", ask=lambda text: "What of apples?" if "apple" in text else "")
    assert made == 1
    assert load(tmp_path / "set", Lines()).qrels == {"q1": {"d0": 1}}


def test_a_generator_asks(tmp_path: Path) -> None:
    replies = ['\n  "What do apples cost?"\nBecause it is said.', "NOTHING TO ASK.", "x " * 200]
    model = Scripted(*replies)
    told: list[tuple[int, int]] = []
    made = known.make(
        DOCUMENTS[:3],
        tmp_path / "set",
        ask=lambda text: known.question(model, text)[0],
        progress=lambda *at: told.append(at),
    )
    assert (made, told) == (1, [(1, 100)])
    assert list(load(tmp_path / "set", Lines()).queries.values()) == ["What do apples cost?"]
    system, user = model.prompts[0]
    assert (system.role, user.role) == ("system", "user")
    assert "Every page says" in user.text
    assert "Every page says" not in system.text
    first, *_, last = user.text.splitlines()
    assert first.removesuffix(" text>>>") == last.removesuffix(" end of text>>>")
    assert first.removesuffix(" text>>>").removeprefix("<<<") in system.text


def test_a_generator_that_fails_leaves_nothing_behind(tmp_path: Path) -> None:
    model = Scripted("What?", ConnectionFailed("the provider is away"))
    with pytest.raises(ConnectionFailed):
        known.make(DOCUMENTS, tmp_path / "set", ask=lambda text: known.question(model, text)[0])
    assert not (tmp_path / "set").exists()
    with pytest.raises(InvalidInput, match="nothing was asked"):
        known.make(DOCUMENTS, tmp_path / "set", ask=lambda text: "")


def test_what_cannot_be_made_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(InvalidInput, match="not an empty folder"):
        known.make(DOCUMENTS, tmp_path)
    with pytest.raises(InvalidInput, match="too few words"):
        known.make([Document("a", "a b")], tmp_path / "set")
    with pytest.raises(InvalidInput, match="at least 1"):
        known.make(DOCUMENTS, tmp_path / "set", count=0)
    assert not (tmp_path / "set").exists()
