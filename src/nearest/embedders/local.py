"""Embeddings on this machine's processor: sentence-transformers models of the BERT family, on OpenVINO.

    local:all-MiniLM-L6-v2
    local:intfloat/multilingual-e5-small
    local:mixedbread-ai/mxbai-embed-large-v1?dimensions=256
    local:./folder

BERT, RoBERTa and XLM-R, MPNet: all-mpnet-base-v2, BGE, E5 and GTE among them; for others there is
`sentence-transformers:`. Needs no PyTorch. Models: Sentence-BERT, Reimers & Gurevych 2019. The compiled model is kept
in the cache folder ($NEAREST_CACHE_DIR, or else the user's cache); deleting it costs a second at the next start.
"""

from __future__ import annotations

import functools
import hashlib
import json
import os
import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from nearest.contract import Embedder, Float32, Usage, canonical_json
from nearest.embedders import _registry, named
from nearest.encoder import bert, files, runtime
from nearest.errors import InvalidInput, ModelError, TextTooLong, UnsupportedError

if TYPE_CHECKING:
    from tokenizers import Tokenizer

REQUIRES: Mapping[str, str] = {}  # part of the default installation

WINDOW = 1024  # texts tokenised and sorted at a time, while batches of the window before are computed


def load(
    model: str,
    *,
    folder: str | os.PathLike[str] | None = None,
    dimensions: int | None = None,
    matryoshka: bool = False,
    query_prefix: str | None = None,
    document_prefix: str | None = None,
) -> LocalEmbedder:
    """The embedder of a model: `all-MiniLM-L6-v2`, `org/name` as on the Hugging Face hub, or a folder.

    folder: where its files are (config.json, tokenizer.json, model.safetensors, and modules.json with
    what it names). dimensions: the vectors' beginning alone, at unit length again, for models that were trained for
    it (Matryoshka representations; Kusupati et al., 2022); no file tells which were, so those that the registry
    does not know need matryoshka=True. The prefixes, which E5 and BGE models want, are the model's own prompts
    unless given; where its files have none, those of its family, which is said in `note`.
    Raises ModelError if the files are missing, altered, or of a kind that does not run here, UnsupportedError
    for dimensions that the model does not offer.
    """
    if dimensions is not None and (not isinstance(dimensions, int) or dimensions < 1):
        raise InvalidInput(f"dimensions must be an integer of at least 1, got {dimensions!r}")
    place, sha256 = files.locate(model, folder)
    return LocalEmbedder(
        model, place, sha256,
        dimensions=dimensions, matryoshka=matryoshka, query_prefix=query_prefix, document_prefix=document_prefix,
    )  # fmt: skip


class LocalEmbedder(Embedder):
    """One model. Safe to call from several threads at once; nothing heavy is loaded before the first call.

    prefixes: what is put before queries and documents, and who says so.
    """

    def __init__(
        self,
        model: str,
        folder: Path,
        sha256: str,
        *,
        dimensions: int | None,
        matryoshka: bool,
        query_prefix: str | None,
        document_prefix: str | None,
    ) -> None:
        """folder: of the model's files. sha256: of its weights, in hexadecimal. See `load`."""
        kept = {
            "dimensions": dimensions, "matryoshka": bool(matryoshka),
            "query_prefix": query_prefix, "document_prefix": document_prefix,
        }  # fmt: skip
        self.name = named("local", model, kept)
        self._folder = folder
        self._sha256 = sha256
        self._config = runtime.read_json(folder, "config.json")
        try:
            bert.check(self._config)
            if any("colbert" in str(kind).lower() for kind in self._config.get("architectures") or ()):
                raise ModelError(f"{folder} is a ColBERT checkpoint, which has a vector a token: use maxsim:{model}")
            self._pooling = _pooling(folder)
        except ModelError as error:
            if "architecture" not in error.context:
                raise
            raise ModelError(
                f"{error}; on PyTorch, sentence-transformers:{model} may run it", **error.context
            ) from None
        settings = runtime.read_json(folder, "sentence_bert_config.json", {})
        self._lowercase = bool(settings.get("do_lower_case"))
        positions = self._config["max_position_embeddings"] - bert.first_position(self._config)
        # sentence-transformers keeps the limit in the former file up to version 5, in the latter since.
        limit = settings.get("max_seq_length") or runtime.read_json(folder, "tokenizer_config.json", {}).get(
            "model_max_length"
        )
        self.max_tokens = min(limit or positions, positions)
        self._width: int = self._config["hidden_size"]
        self.dimension = self._dimension(model, dimensions, matryoshka)
        prompts = runtime.read_json(folder, "config_sentence_transformers.json", {}).get("prompts") or {}
        self.prefixes = _registry.prefixes(model, prompts, query_prefix, document_prefix)
        self.note = self.prefixes.note
        facts = {
            "weights": sha256,
            "config": {field: self._config.get(field) for field in bert.FIELDS},
            "pooling": self._pooling,
            "normalisation": "unit",
            "lowercase": self._lowercase,
            "query_prefix": self.prefixes.query,
            "document_prefix": self.prefixes.document,
        }
        if self.dimension != self._width:
            facts["dimensions"] = self.dimension
        self.fingerprint = f"local:{hashlib.sha256(canonical_json(facts).encode()).hexdigest()}"
        self._lock = threading.Lock()
        self._encoders: dict[str, runtime.Compiled] = {}
        self._texts = self._tokens = 0

    def _dimension(self, model: str, asked: int | None, matryoshka: bool) -> int:
        if asked is None or asked == self._width:
            return self._width
        known = _registry.family(model)
        if asked > self._width:
            raise UnsupportedError(f"local:{model} gives vectors of {self._width} dimensions, not {asked}")
        if not matryoshka and not (known and known.offers(asked)):
            shorter = (", ".join(map(str, known.shorter)) if known else "") or "no fewer, as far as is known"
            raise UnsupportedError(
                f"local:{model} was trained for {self._width} dimensions and {shorter}: "
                f"the first {asked} alone find less, and how much less is for you to measure; to have them all the "
                f"same, or if it was trained for that, write dimensions={asked}&matryoshka=true"
            )
        return asked

    @functools.cached_property
    def tokenizer(self) -> Tokenizer:  # type: ignore[override] # an attribute, made when first read
        """The model's tokenizers.Tokenizer, without truncation or padding."""
        return runtime.tokenizer(self._folder, self._config, lowercase=self._lowercase)

    @property
    def usage(self) -> Usage:  # type: ignore[override] # of two numbers, which cost less to count than a Usage
        with self._lock:
            return Usage(texts=self._texts, tokens=self._tokens)

    def embed_documents(self, texts: Sequence[str], *, truncate: bool = False) -> Float32:
        return self._embed(texts, self.prefixes.document, truncate)

    def embed_queries(self, texts: Sequence[str], *, truncate: bool = False) -> Float32:
        return self._embed(texts, self.prefixes.query, truncate)

    def embed_query(self, text: str, *, truncate: bool = False) -> Float32:
        _check(text, "the query")
        tokens = self._tokenize([self.prefixes.query + text], None, truncate)
        computed = self._encoder("LATENCY")(*runtime.pad(tokens, self.max_tokens))
        vector: Float32 = _unit(computed[:, : self.dimension])[0]
        return vector

    def stream_queries(
        self, texts: Sequence[str], *, truncate: bool = False
    ) -> Iterator[tuple[Sequence[int], Float32]]:
        # The shortest first, so that whoever searches for them can begin, and has little left at the end.
        return self._parts(texts, self.prefixes.query, truncate, shortest_first=True)

    def _embed(self, texts: Sequence[str], prefix: str, truncate: bool) -> Float32:
        vectors: Float32 = np.empty((len(texts), self.dimension), np.float32)
        for rows, part in self._parts(texts, prefix, truncate):
            vectors[rows] = part
        return vectors

    def _parts(
        self, texts: Sequence[str], prefix: str, truncate: bool, *, shortest_first: bool = False
    ) -> Iterator[tuple[list[int], Float32]]:
        """Texts of about one length, by their indexes, and their vectors."""
        if isinstance(texts, str):
            raise InvalidInput("texts must be a list of strings, got one string; write [text]")
        for i, text in enumerate(texts):
            _check(text, f"text {i}")

        def batches() -> Iterator[tuple[list[int], Sequence[NDArray[np.int32]]]]:
            for first in range(0, len(texts), WINDOW):
                tokens = self._tokenize([prefix + t for t in texts[first : first + WINDOW]], first, truncate)
                every = list(runtime.batches([len(ids) for ids in tokens]))
                for rows in reversed(every) if shortest_first else every:
                    yield [first + i for i in rows], runtime.pad([tokens[i] for i in rows], self.max_tokens)

        if len(texts):
            for rows, computed in self._encoder("THROUGHPUT").stream(batches()):
                yield rows, _unit(computed[:, : self.dimension])

    def _tokenize(self, texts: list[str], first: int | None, truncate: bool) -> list[list[int]]:
        """The ids of each text, none over max_tokens: cut if `truncate`, or else refused. All of them are counted.

        first: the caller's index of the first text; None for a query.
        """
        tokens = []
        for i, encoding in enumerate(self.tokenizer.encode_batch_fast(texts)):
            ids: list[int] = encoding.ids
            if len(ids) > self.max_tokens:
                if not truncate:
                    which = "the query" if first is None else f"text {first + i}"
                    raise TextTooLong(
                        f"{which} has {len(ids)} tokens, and {self.name} takes {self.max_tokens}; "
                        "split it into chunks, or pass truncate=True (--truncate) to embed its beginning alone",
                        index=(first or 0) + i,
                        tokens=len(ids),
                        limit=self.max_tokens,
                    )
                # The special tokens at the end (BERT's [SEP]) stay at the end.
                tail = next((n for n, flag in enumerate(reversed(encoding.special_tokens_mask)) if not flag), 0)
                ids = ids[: self.max_tokens - tail] + ids[len(ids) - tail :]
                with self._lock:
                    self.truncated += 1
            tokens.append(ids)
        with self._lock:
            self._texts += len(tokens)
            self._tokens += sum(map(len, tokens))
        return tokens

    def _encoder(self, hint: Literal["THROUGHPUT", "LATENCY"]) -> runtime.Compiled:
        """One for documents and one for queries, so that a query does not wait behind a long run of documents."""
        with self._lock:
            if hint not in self._encoders:
                self._encoders[hint] = runtime.compiled(self._folder, self._sha256, self._config, self._pooling, hint)
            return self._encoders[hint]


def _check(text: object, which: str) -> None:
    if not isinstance(text, str):
        raise InvalidInput(f"{which} must be a string, got {type(text).__name__}")
    if not text or text.isspace():
        raise InvalidInput(f"{which} is empty; there is nothing to embed")
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError:
            raise InvalidInput(f"{which} holds a lone surrogate; decode it with the right encoding") from None


def _unit(vectors: Float32) -> Float32:
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    if not (np.isfinite(norms).all() and norms.all()):
        raise ModelError("the model gave a vector that is not finite or all zeros; its weights are damaged")
    unit: Float32 = vectors / norms
    return unit


def _pooling(folder: Path) -> bert.Pooling:
    """By modules.json and the pooling's own config; the mean where the folder has no modules.json."""
    path = folder / "modules.json"
    if not path.exists():
        return "mean"
    try:
        modules = [(module["type"].rpartition(".")[2], module["path"]) for module in json.loads(path.read_bytes())]
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise ModelError(f"cannot read {path}: {error}") from error
    kinds = [kind for kind, _ in modules]
    if kinds not in (["Transformer", "Pooling"], ["Transformer", "Pooling", "Normalize"]):
        has = ", ".join(kinds)
        raise ModelError(
            f"{path}: only Transformer, Pooling and Normalize run here, and it has {has}", architecture=has
        )
    config = runtime.read_json(folder, f"{modules[1][1]}/config.json")
    modes = config.get("pooling_mode") or [
        key.removeprefix("pooling_mode_").removesuffix("_tokens").removesuffix("_token")
        for key, on in config.items()
        if key.startswith("pooling_mode_") and on is True
    ]
    modes = [modes] if isinstance(modes, str) else modes
    if config.get("include_prompt") is False:
        raise ModelError(
            f"{folder}: pooling that leaves the prompt out (include_prompt) does not run here", architecture="Pooling"
        )
    if modes == ["mean"] or modes == ["cls"]:
        mode: bert.Pooling = modes[0]
        return mode
    raise ModelError(f"{folder}: pooling {modes} does not run here; mean and cls do", architecture=f"Pooling {modes}")
