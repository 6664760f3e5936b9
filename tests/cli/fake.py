"""An embedder for the command line's tests, found as other people's are: by an entry point.

It is slow on purpose: it says on stderr that a batch has begun, and takes a moment for it, so that a test
can stop the program at a known place.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Sequence

from nearest.contract import Embedder, Float32
from nearest.errors import ModelError
from tests.fakes import HashEmbedder

BATCH = "-- a batch"


class Slow(HashEmbedder):
    def embed_documents(self, texts: Sequence[str], *, truncate: bool = False) -> Float32:
        print(BATCH, file=sys.stderr, flush=True)
        time.sleep(float(os.environ.get("NEAREST_TEST_BATCH_SECONDS", "0")))
        return super().embed_documents(texts, truncate=truncate)


def load(model: str) -> Embedder:
    if model != "hash":
        raise ModelError(f"no model {model!r}")
    return Slow(name="fake:hash", max_words=300)
