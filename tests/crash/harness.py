"""Kills a process that writes to a collection, again and again, and checks what is left.

    python -m tests.crash.harness --kills 200

The child adds, updates and deletes documents; before and after each call it appends a line to a journal.
The parent kills it at a random moment (also while it is repairing), opens the collection itself, and
holds it against the journal: what was acknowledged is there, whole and once; the call that was cut off
is done or not done, document by document; store and ledger agree record by record.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import nearest
from nearest.app import Collection
from tests.fakes import HashEmbedder, LineChunker

_DOCUMENTS = 60
_LINES = 4


def open_collection(folder: Path) -> Collection:
    return nearest.open(folder, embedder=HashEmbedder(), chunker=LineChunker())


def text_of(document_id: str, version: int) -> str:
    return "".join(f"{document_id} version {version} line {line}\n" for line in range(_LINES + version % 3))


# --- the child -------------------------------------------------------------------------------------


def child(folder: Path, journal: Path, seed: int) -> None:
    rng = random.Random(seed)
    log = os.open(journal, os.O_WRONLY | os.O_APPEND | os.O_CREAT)

    def note(**facts: Any) -> None:
        os.write(log, (json.dumps(facts) + "\n").encode())

    with open_collection(folder) as kb:
        kb.count()  # opens the ledger: importing SQLAlchemy is not what kills should fall on
        version = seed * 1000
        while True:
            version += 1
            ids = [f"d{i}" for i in rng.sample(range(_DOCUMENTS), rng.randint(1, 20))]
            if rng.random() < 0.25:
                note(to=dict.fromkeys(ids))
                kb.delete(ids)
            else:
                note(to=dict.fromkeys(ids, version))
                kb.add([nearest.Document(i, text_of(i, version), {"version": version}) for i in ids])
            note(done=True)


# --- the parent ------------------------------------------------------------------------------------


class Torture:
    """State across kills: which version of each document must, or may, be there."""

    def __init__(self, folder: Path, seed: int) -> None:
        self.folder = folder / "kb"
        self.journal = folder / "journal"
        self.rng = random.Random(seed)
        self.expected: dict[str, int | None] = {}
        self.repairs: list[str] = []
        self.acknowledged = 0

    def kill_once(self, seed: int) -> None:
        self.journal.unlink(missing_ok=True)
        self.journal.touch()
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.crash.harness", "--child", str(self.folder), str(self.journal), str(seed)],
            stderr=subprocess.PIPE,
        )
        # Wait for the first call, so that the kill falls on writing; now and then on opening and repairing.
        writing = self.rng.random() < 0.9
        while writing and self.journal.stat().st_size == 0:
            if process.poll() is not None:
                raise AssertionError(f"the child ended by itself: {process.stderr and process.stderr.read().decode()}")
            time.sleep(0.005)
        time.sleep(self.rng.uniform(0, 0.4))  # the random moment itself, not a wait for something
        process.send_signal(signal.SIGKILL)
        process.wait()
        self.check()

    def check(self) -> None:
        allowed: dict[str, set[int | None]] = {i: {v} for i, v in self.expected.items()}
        entries = [json.loads(line) for line in self.journal.read_text().splitlines()]
        for i, entry in enumerate(entries):
            if "to" in entry:
                done = i + 1 < len(entries)
                self.acknowledged += done
                for document_id, version in entry["to"].items():
                    before = allowed.get(document_id, {None})
                    allowed[document_id] = {version} if done else before | {version}
        with open_collection(self.folder) as kb:
            self.repairs += kb.repaired
            self.expected = check_collection(kb, allowed)


def check_collection(kb: Collection, allowed: dict[str, set[int | None]]) -> dict[str, int | None]:
    """Raises AssertionError for anything lost, double, half-done or orphaned; returns what is there."""
    found: dict[str, int | None] = {}
    for document_id, versions in allowed.items():
        document = kb.get(document_id)
        version = document.metadata["version"] if document else None
        assert version in versions, f"{document_id} is at version {version}; it must be one of {versions}"
        assert document is None or document.text == text_of(document_id, document.metadata["version"]), document
        found[document_id] = version
    there = {i: v for i, v in found.items() if v is not None}
    assert kb.count() == len(there), (kb.count(), len(there))
    stored = [record.id for record in kb.store.scan_all()]
    accounted = [record for records in kb.ledger.record_ids(there).values() for record in records]
    assert len(set(stored)) == len(stored), "a record is there twice"
    assert set(stored) - set(accounted) == set(), "orphans in the store"
    assert set(accounted) - set(stored) == set(), "acknowledged records are not in the store"
    lines = {(r.document_id, r.metadata["version"]) for r in kb.scan()}
    assert lines == set(there.items()), "a superseded version is served"
    for document_id, version in list(there.items())[:5]:
        hits = kb.search(f"{document_id} version {version} line 0\n", mode="dense", k=1)
        assert (hits[0].document_id, hits[0].metadata["version"]) == (document_id, version)
    assert kb.ledger.pending() == []
    return found


def run(kills: int, seed: int, folder: Path, *, say: bool = False) -> Torture:
    torture = Torture(folder, seed)
    for i in range(kills):
        torture.kill_once(seed * 100_000 + i)
        if say and (i + 1) % 20 == 0:
            print(
                f"{i + 1} kills, {torture.acknowledged} acknowledged calls, {len(torture.repairs)} repairs", flush=True
            )
    return torture


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seed", type=int, default=random.randrange(1000))
    parser.add_argument("--child", nargs=3)
    args = parser.parse_args()
    if args.child:
        child(Path(args.child[0]), Path(args.child[1]), int(args.child[2]))
        return
    print(f"seed {args.seed}")
    with tempfile.TemporaryDirectory() as folder:
        torture = run(args.kills, args.seed, Path(folder), say=True)
    print(
        f"{args.kills} kills: nothing lost, double, half-served or orphaned; {torture.acknowledged} acknowledged "
        f"calls; {len(torture.repairs)} repairs, such as: {torture.repairs[:2]}"
    )


if __name__ == "__main__":
    main()
