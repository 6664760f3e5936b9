"""A full disk and a read-only one: a clear error, nothing half-written, and a way on."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import nearest
from nearest import errors
from nearest.contract import Document
from tests.fakes import HashEmbedder, LineChunker

Mount = Callable[..., None]


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[tuple[Path, Mount]]:
    """A folder on a file system of its own, and what changes its options."""

    def mount(*options: str) -> None:
        flags = ",".join(options)
        made = subprocess.run(["mount", "-t", "tmpfs", "-o", flags, "tmpfs", str(tmp_path)], capture_output=True)
        if made.returncode and "remount" not in flags:
            pytest.skip(f"this user cannot mount a file system: {made.stderr.decode().strip()}")
        assert made.returncode == 0, made.stderr

    mount("size=140m")
    try:
        yield tmp_path, mount
    finally:
        subprocess.run(["umount", "-l", str(tmp_path)], check=True)


def open_kb(folder: Path) -> nearest.Collection:
    return nearest.open(folder, embedder=HashEmbedder(dimension=384), chunker=LineChunker())


def batch(start: int) -> list[Document]:
    return [Document(f"d{i}", f"{i} {'word ' * 400}\n" * 5) for i in range(start, start + 200)]


def test_a_full_disk_stops_the_write_and_loses_nothing(disk: tuple[Path, Mount]) -> None:
    folder, mount = disk
    done = 0

    def fill(kb: nearest.Collection) -> None:
        nonlocal done
        while True:
            kb.add(batch(done))
            done += 200

    with open_kb(folder / "kb") as kb:
        with pytest.raises(errors.DiskFull, match="free some space"):
            fill(kb)
        there = kb.count()
        assert 0 < done <= there < done + 200, "whole calls are there, of the last one what was committed"
        assert kb.search(f"{done - 1} word", mode="lexical", k=1)[0].document_id == f"d{done - 1}"
    with open_kb(folder / "kb") as kb:
        assert kb.count() == there
        assert kb.store.count() == there * 5
        mount("remount", "size=400m")
        report = kb.add(batch(done))
        assert (report.unchanged, report.added) == (there - done, 200 - (there - done))


def test_nothing_is_made_on_a_disk_without_room(disk: tuple[Path, Mount]) -> None:
    folder, mount = disk
    mount("remount", "size=50m")
    with pytest.raises(errors.DiskFull):
        open_kb(folder / "kb")
    assert list(folder.iterdir()) == []


def test_a_read_only_folder_is_refused_by_name(disk: tuple[Path, Mount]) -> None:
    folder, mount = disk
    with open_kb(folder / "kb") as kb:
        kb.add([Document("a", "text\n")])
    mount("remount", "ro")
    for place in ("kb", "new"):
        with pytest.raises(errors.ReadOnly, match=str(folder / place)):
            open_kb(folder / place)
    mount("remount", "rw")
    with open_kb(folder / "kb") as kb:
        assert kb.count() == 1
