"""Cross-encoders on this machine's processor: sequence classifiers of the BERT family, on OpenVINO.

Query and text go through the encoder together, and its head gives one score (Nogueira & Cho 2019). Needs no PyTorch:
the graph is made from the safetensors, as for the local embedder.
"""

from __future__ import annotations

import functools
import os
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from nearest.contract import Float32, Reranker
from nearest.encoder import bert, files, runtime
from nearest.errors import InvalidInput, ModelError

if TYPE_CHECKING:
    from tokenizers import Tokenizer

REQUIRES: Mapping[str, str] = {}  # part of the default installation

Precision = Literal["f32", "native"]


def load(
    model: str, *, folder: str | os.PathLike[str] | None = None, max_tokens: int | None = None, precision: str = "f32"
) -> LocalReranker:
    """The reranker of a model: `org/name` as on the Hugging Face hub, or a folder.

    folder: where its files are (config.json, tokenizer.json, model.safetensors). max_tokens: of query and text
    together, less than the model's limit where time is short. precision: f32, which gives the scores of the
    reference implementation to within 0.001; or native, the processor's fastest (bfloat16 where it has it).
    Raises ModelError if the files are missing or of a kind that does not run here, and InvalidInput.
    """
    if precision not in ("f32", "native"):
        raise InvalidInput(f"precision must be f32 or native, got {precision!r}")
    place, sha256 = files.locate(model, folder, also=())
    return LocalReranker(f"local:{model}", place, sha256, max_tokens, "f32" if precision == "f32" else "native")


class LocalReranker(Reranker):
    """One model. Safe to call from several threads at once; nothing heavy is loaded before the first call."""

    batch = 2 * runtime.BATCH_TEXTS

    def __init__(self, name: str, folder: Path, sha256: str, max_tokens: int | None, precision: Precision) -> None:
        """folder: of the model's files. sha256: of its weights, in hexadecimal. See `load`."""
        self.name = name
        self._folder = folder
        self._sha256 = sha256
        self._precision = precision
        self._config = runtime.read_json(folder, "config.json")
        bert.check(self._config)
        labels = self._config.get("id2label") or {}
        kinds = self._config.get("architectures") or []
        if len(labels) > 1 or not all(kind.endswith("ForSequenceClassification") for kind in kinds):
            raise ModelError(
                f"{folder} is not a reranker, which is a sequence classifier with one label; it has "
                f"{len(labels)} labels and the architecture {', '.join(kinds) or 'unknown'}"
            )
        positions = self._config["max_position_embeddings"] - bert.first_position(self._config)
        limit = runtime.read_json(folder, "tokenizer_config.json", {}).get("model_max_length") or positions
        self.max_tokens = int(min(limit, positions))
        if max_tokens is not None:
            if not isinstance(max_tokens, int) or not 8 <= max_tokens <= self.max_tokens:
                raise InvalidInput(f"max_tokens must be from 8 to {self.max_tokens}, got {max_tokens!r}")
            self.max_tokens = max_tokens
        self._lock = threading.Lock()
        self._made: runtime.Compiled | None = None

    @functools.cached_property
    def _tokenizer(self) -> Tokenizer:
        tokenizer = runtime.tokenizer(self._folder, self._config)
        # From whichever is longer, query or text, as the models were trained.
        tokenizer.enable_truncation(self.max_tokens, strategy="longest_first")
        return tokenizer

    def _compiled(self) -> runtime.Compiled:
        with self._lock:
            if self._made is None:
                self._made = runtime.compiled(
                    self._folder, self._sha256, self._config, "score", "THROUGHPUT", self._precision
                )
            return self._made

    def scores(self, query: str, texts: Sequence[str]) -> Float32:
        """The model's logits, without the sigmoid that some libraries put over them."""
        scores: Float32 = np.empty(len(texts), np.float32)
        if not len(texts):
            return scores
        encodings = self._tokenizer.encode_batch([(query, text) for text in texts])
        kinds = bert.segments(self._config) - 1

        def batch(rows: list[int]) -> tuple[list[int], Sequence[NDArray[np.int32]]]:
            ids, mask = runtime.pad([encodings[i].ids for i in rows], self.max_tokens)
            segments, _ = runtime.pad([encodings[i].type_ids for i in rows], self.max_tokens)
            return rows, (ids, mask, np.minimum(segments, kinds))

        for rows, found in self._compiled().stream(map(batch, runtime.batches([len(each) for each in encodings]))):
            scores[rows] = found
        if not np.isfinite(scores).all():
            raise ModelError(f"{self.name} gave a score that is not finite; its weights are damaged")
        return scores
