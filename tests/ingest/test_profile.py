"""Where the time of adding goes: every stage is told for itself, though the threads overlap."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import nearest
from nearest.contract import Chunk, Document, Float32
from nearest.ingest import Profile, profile, write
from tests.fakes import HashEmbedder, LineChunker


class Clock:
    """Each thread has a time of its own, which moves when it says so."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self._patch = patch
        self._mine = threading.local()

    def __call__(self) -> float:
        return getattr(self._mine, "now", 0.0)

    def move(self, seconds: float) -> None:
        self._mine.now = self() + seconds

    def slow(self, what: Any, name: str, seconds: float) -> None:
        """A method that takes so long."""
        real = getattr(what, name)

        def slowly(*arguments: Any, **options: Any) -> Any:
            self.move(seconds)
            return real(*arguments, **options)

        self._patch.setattr(what, name, slowly)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock(monkeypatch)
    monkeypatch.setattr(profile, "time", SimpleNamespace(perf_counter=clock))
    return clock


def test_each_stage_is_told_for_itself(clock: Clock, tmp_path: Path) -> None:
    class SlowEmbedder(HashEmbedder):
        def embed_documents(self, texts: Sequence[str], *, truncate: bool = False) -> Float32:
            clock.move(4 * len(texts))
            return super().embed_documents(texts, truncate=truncate)

    class SlowChunker(LineChunker):
        def chunk(self, text: str) -> list[Chunk]:
            clock.move(2)
            return super().chunk(text)

    def documents() -> Iterator[Document]:
        for i in range(3):
            clock.move(3)
            yield Document(f"d{i}", f"first of {i}\nläst of {i}\n")

    with nearest.open(tmp_path / "kb", embedder=SlowEmbedder(), chunker=SlowChunker()) as kb:
        clock.slow(kb.store, "optimize", 5)
        clock.slow(kb.ledger, "lookup", 0.5)
        found = kb.add(documents())
    told = found.profile
    assert (told.reading, told.chunking, told.embedding, told.indexing) == (9, 6, 24, 5)
    assert told.comparing >= 0.5
    assert (told.finding, told.removing, told.read_ahead) == (0, 0, 0)
    assert told.bound == "embedding"
    assert told.running == found.seconds > 0
    assert told.megabytes == pytest.approx(3 * len("first of 0\nläst of 0\n".encode()) / 1e6)


def test_store_and_ledger_are_told_apart(clock: Clock, tmp_path: Path) -> None:
    with nearest.open(tmp_path / "kb", embedder=HashEmbedder(), chunker=LineChunker()) as kb:
        clock.slow(kb.store, "upsert", 7)
        clock.slow(kb.ledger, "commit", 8)
        told = kb.add([Document("a", "text\n")]).profile
    assert (told.storing, told.ledger, told.bound) == (7, 8, "ledger")


def test_files_are_found_read_and_removed(clock: Clock, tmp_path: Path) -> None:
    folder = tmp_path / "docs"
    folder.mkdir()
    for name in "ab":
        (folder / f"{name}.json").write_text('{"text": "some words"}')
    with nearest.open(tmp_path / "kb", embedder=HashEmbedder(), chunker=LineChunker()) as kb:
        assert kb.add_files(folder).profile.read_ahead > 0  # JSON is parsed in another process
        (folder / "a.json").unlink()
        clock.slow(kb.store, "delete", 6)
        report = kb.add_files(folder)
    assert (report.removed, report.unchanged) == (1, 1)
    assert (report.profile.removing, report.profile.bound) == (6, "removing")


def test_the_bound_is_the_longest_stage_of_the_longest_line() -> None:
    # Embedding is the longest stage, but reading and chunking take turns in one thread.
    told = Profile(reading=6, chunking=5, embedding=9, running=11)
    assert told.bound == "reading"
    both = told + Profile(finding=1, loading=2, embedding=4, indexing=3, running=4)
    assert both.bound == "embedding"
    assert both.seconds == 1 + 2 + 11 + 4 + 3
    assert both.lines == {
        "before": {"finding": 1, "loading": 2},
        "prepare": {"reading": 6, "comparing": 0, "chunking": 5},
        "embed": {"embedding": 13},
        "write": {"storing": 0, "ledger": 0},
        "after": {"removing": 0, "indexing": 3},
    }


def test_documents_that_are_there_do_not_wait_for_slow_ones(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(write, "_PATIENCE", 0)
    embedded = threading.Event()

    class Embedder(HashEmbedder):
        def embed_documents(self, texts: Sequence[str], *, truncate: bool = False) -> Float32:
            embedded.set()
            return super().embed_documents(texts, truncate=truncate)

    def documents() -> Iterator[Document]:
        for i in range(write._GROUP - 1):  # fewer than are embedded in any case
            yield Document(f"d{i}", f"text {i}\n")
            if embedded.wait(0.05):
                return

    with nearest.open(tmp_path / "kb", embedder=Embedder(), chunker=LineChunker()) as kb:
        report = kb.add(documents())
        assert report.added < write._GROUP - 1
        assert kb.count() == report.added
