"""Any model that sentence-transformers loads, on PyTorch: `sentence-transformers:BAAI/bge-m3?device=cuda`.

For what `local:` does not run; a GPU is used where there is one. Code that a model brings along runs only
with `trust_remote_code=true`.
"""

from __future__ import annotations

import functools
import hashlib
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from nearest.contract import Embedder, Float32, Usage, canonical_json, token_counts
from nearest.embedders import _registry, named
from nearest.embedders._remote import check_texts
from nearest.errors import InvalidInput, ModelError, TextTooLong, UnsupportedError
from nearest.remote import client

if TYPE_CHECKING:
    from tokenizers import Tokenizer

REQUIRES: Mapping[str, str] = {"sentence-transformers": ">=6,<7"}


def load(
    model: str,
    *,
    dimensions: int | None = None,
    query_prefix: str | None = None,
    document_prefix: str | None = None,
    device: str | None = None,
    batch: int = 32,
    revision: str | None = None,
    trust_remote_code: bool = False,
) -> SentenceTransformersEmbedder:
    """The embedder of a model on the Hugging Face hub, `org/name`, or in a folder.

    dimensions: the vectors' beginning alone (Matryoshka), at unit length again; where nothing says that the model was
    trained for it, the embedder's `note` does. The prefixes are the
    model's own prompts unless given, or its family's where it has none, as in `local`. device: `cpu`, `cuda`,
    `mps`; the best there is by default. batch: texts at once.
    Raises ModelError where the model cannot be loaded, MissingDependency, InvalidInput, and UnsupportedError
    for more dimensions than the model has.
    """
    if (dimensions is not None and dimensions < 1) or batch < 1:
        raise InvalidInput("dimensions and batch must be at least 1")
    kept = {
        "dimensions": dimensions, "query_prefix": query_prefix, "document_prefix": document_prefix,
        "revision": revision, "trust_remote_code": bool(trust_remote_code),
    }  # fmt: skip
    library = client("sentence_transformers", "sentence-transformers")
    try:
        loaded = library.SentenceTransformer(
            str(Path(model).expanduser()) if model.startswith((".", "~", "/")) else model,
            device=device, truncate_dim=dimensions, revision=revision, trust_remote_code=trust_remote_code,
        )  # fmt: skip
    except Exception as error:  # transformers, the hub and safetensors share no root
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise ModelError(f"sentence-transformers cannot load {model!r}: {reason}") from error
    return SentenceTransformersEmbedder(
        named("sentence-transformers", model, kept), loaded, query_prefix, document_prefix, batch, dimensions
    )


class SentenceTransformersEmbedder(Embedder):
    """One call at a time; several threads may ask."""

    def __init__(
        self,
        name: str,
        model: Any,
        query_prefix: str | None,
        document_prefix: str | None,
        batch: int,
        dimensions: int | None = None,
    ) -> None:
        """model: a SentenceTransformer, which cuts to `dimensions` if any are given."""
        self.name = name
        self._model = model
        self._batch = batch
        self._lock = threading.Lock()
        size = getattr(model, "get_embedding_dimension", None) or model.get_sentence_embedding_dimension
        self.dimension = int(size())
        if model.max_seq_length is None:
            raise ModelError(f"{name} does not say how long a text may be")
        self.max_tokens = int(model.max_seq_length)
        self.prefixes = _registry.prefixes(
            name.partition(":")[2].partition("?")[0], model.prompts or {}, query_prefix, document_prefix
        )
        # That of the last part that has one, as the library tells its own, but before it is cut.
        sizes = (getattr(part, "get_embedding_dimension", None) for part in reversed(list(model)))
        whole = next((int(size() or 0) for size in sizes if size is not None), 0)
        if dimensions is not None and 0 < whole < dimensions:  # the library would take it for the whole
            raise UnsupportedError(f"{name}: the model gives vectors of {whole} dimensions, not {dimensions}")
        shortened = untrained(name.partition(":")[2].partition("?")[0], dimensions, whole)
        self.note = "; ".join(filter(None, (self.prefixes.note, shortened)))
        self._prefixes = {"query": self.prefixes.query, "document": self.prefixes.document}
        facts = {"weights": _weights(model), "modules": str(model), "prefixes": self._prefixes, "dim": self.dimension}
        self.fingerprint = f"sentence-transformers:{hashlib.sha256(canonical_json(facts).encode()).hexdigest()}"

    @functools.cached_property
    def tokenizer(self) -> Tokenizer:  # type: ignore[override] # an attribute, made when first read
        """The model's own, without truncation or padding."""
        from tokenizers import Tokenizer

        fast = getattr(self._model.tokenizer, "backend_tokenizer", None)
        if fast is None:
            raise ModelError(f"{self.name} has no fast tokenizer (tokenizer.json), which cutting texts needs")
        copied = Tokenizer.from_str(fast.to_str())  # the model pads and cuts by its own
        copied.no_truncation()
        copied.no_padding()
        return copied

    def embed_documents(self, texts: Sequence[str], *, truncate: bool = False) -> Float32:
        return self._embed(texts, "document", truncate)

    def embed_queries(self, texts: Sequence[str], *, truncate: bool = False) -> Float32:
        return self._embed(texts, "query", truncate)

    def embed_query(self, text: str, *, truncate: bool = False) -> Float32:
        row: Float32 = self._embed([text], "query", truncate)[0]
        return row

    def _embed(self, texts: Sequence[str], kind: str, truncate: bool) -> Float32:
        check_texts(texts)
        if not len(texts):
            return np.empty((0, self.dimension), np.float32)
        whole = [self._prefixes[kind] + text for text in texts]
        lengths = token_counts(self.tokenizer, whole)
        over = [i for i, length in enumerate(lengths) if length > self.max_tokens]
        if over and not truncate:
            raise TextTooLong(
                f"text {over[0]} has {lengths[over[0]]} tokens, and {self.name} takes {self.max_tokens}; split it into "
                "chunks, or pass truncate=True (--truncate) to embed its beginning alone",
                index=over[0], tokens=lengths[over[0]], limit=self.max_tokens,
            )  # fmt: skip
        with self._lock:
            vectors: Float32 = self._model.encode(
                whole, prompt="", batch_size=self._batch, normalize_embeddings=True, show_progress_bar=False
            )
            self.truncated += len(over)
            self.usage += Usage(texts=len(texts), tokens=sum(min(n, self.max_tokens) for n in lengths))
        vectors = np.asarray(vectors, np.float32)
        if not np.isfinite(vectors).all():
            raise ModelError(f"{self.name} gave a vector that is not finite; its weights are damaged")
        return vectors


def untrained(model: str, dimensions: int | None, whole: int) -> str:
    """What to tell of dimensions that the registry does not know a model to be trained for. whole: its own, or 0."""
    known = _registry.family(model)
    if dimensions is None or dimensions == whole or (known and known.offers(dimensions)):
        return ""
    return (
        f"{model} is not known to be trained to be cut to {dimensions} dimensions (Matryoshka); if it was not, much is "
        "lost, which `python -m benchmarks.shortened` measures"
    )


def _weights(model: Any) -> str:
    """A digest of the first and last numbers of every tensor: any training changes them."""
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        flat = tensor.detach().flatten()
        some = [flat[:64].float().cpu().numpy().tobytes(), flat[-64:].float().cpu().numpy().tobytes()]
        digest.update(f"{name}{tuple(tensor.shape)}".encode() + b"".join(some))
    return digest.hexdigest()
