"""A process that writes to a FAISS collection until it is killed, telling a journal what it is about to do and did.

python -m tests.stores.faiss_writer FOLDER JOURNAL SEED
"""

from __future__ import annotations

import json
import os
import random
import sys
from typing import Any

import numpy as np

from nearest import stores
from nearest.contract import Record, Schema, VectorSpec
from nearest.stores import faiss

IDS = [f"r{i:03}" for i in range(150)]
SCHEMA = Schema({"dense": VectorSpec(8), "other": VectorSpec(4, "l2")}, fields={"version": "integer"})


def record(record_id: str, version: int) -> Record:
    source = np.random.default_rng([version, int(record_id[1:])])
    vectors = {"dense": source.normal(size=8), "other": source.normal(size=4)}
    return Record(record_id, vectors, {"version": version, "words": "word " * (version % 50)})


def main(folder: str, journal: str, seed: int) -> None:
    faiss._INDEX_FROM = 20  # so that indexes are built, extended and made obsolete all the time
    source = random.Random(seed)
    log = os.open(journal, os.O_WRONLY | os.O_APPEND | os.O_CREAT)

    def note(**facts: Any) -> None:
        os.write(log, (json.dumps(facts) + "\n").encode())

    with stores.connect(f"faiss:{folder}", SCHEMA) as store:
        version = seed * 100_000
        while True:
            version += 1
            ids = source.sample(IDS, source.randint(1, 60))
            match source.random():
                case share if share < 0.2:
                    note(to=dict.fromkeys(ids))
                    store.delete(ids)
                case share if share < 0.3:
                    note(to={})
                    store.optimize()
                case _:
                    note(to=dict.fromkeys(ids, version))
                    store.upsert(record(i, version) for i in ids)
            note(done=True)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
