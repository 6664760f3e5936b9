"""What embedders behind an API share: checks, batches, counting, and how HTTP's answers become our errors.

A provider's file says how one request is made (`_request`) and what its client raises means (`_error`).
"""

from __future__ import annotations

import functools
import hashlib
import math
import re
import threading
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from nearest import remote
from nearest.contract import Embedder, Float32, Usage, canonical_json, token_counts
from nearest.embedders import _registry, _tokens, named
from nearest.embedders._batching import Answer, Limits, Sender
from nearest.errors import (
    ConnectionFailed,
    InvalidInput,
    ModelError,
    ModelMismatch,
    NearestError,
    TextsFailed,
    TextTooLong,
    UnsupportedError,
)

if TYPE_CHECKING:
    from tokenizers import Tokenizer

Kind = Literal["document", "query"]
DEFAULT_LIMIT = 512  # tokens, of a model that nothing is known of
_PROBE = "dimension"
_TOO_LONG = re.compile(
    r"context.{0,10}length|too (long|many tokens)|max\w* .{0,40}(tokens|length)|token (limit|count)"
    r"|less than .{0,20} tokens",
    re.IGNORECASE | re.DOTALL,
)


class RemoteEmbedder(Embedder):
    """One model of one provider. Safe to call from several threads; no request is made before it is needed."""

    remote = True
    provider: str
    refuses_long: bool
    """Whether the provider refuses what is over its limit; where it cuts silently, the estimate decides."""

    def __init__(
        self,
        model: str,
        options: Mapping[str, Any],
        limits: Limits,
        *,
        dimensions: int | None,
        max_tokens: int | None,
        price: float | None,
        tokenizer: str | None,
        base_url: str | None,
        timeout: float,
        api_key_env: str,
        settings: Mapping[str, Any],
        prefixes: Mapping[Kind, str] | None = None,
    ) -> None:
        """options: the caller's, for the name. settings: of the model, for the fingerprint. prefixes: put
        before texts, by kind.

        Raises InvalidInput, and UnsupportedError for dimensions that the model does not have.
        """
        known = _registry.known(self.provider, model)
        if dimensions is not None and (not isinstance(dimensions, int) or dimensions < 1):
            raise InvalidInput(f"dimensions must be an integer of at least 1, got {dimensions!r}")
        if known and dimensions and not known.offers(dimensions):
            offers = f"1 to {known.dimension}" if known.shorter == "any" else [*known.shorter, known.dimension]
            raise UnsupportedError(f"{self.provider}:{model} gives vectors of {offers} dimensions, not {dimensions}")
        if max_tokens is not None and (not isinstance(max_tokens, int) or max_tokens < 1):
            raise InvalidInput(f"max_tokens must be an integer of at least 1, got {max_tokens!r}")
        if price is not None and not (isinstance(price, int | float) and math.isfinite(price) and price >= 0):
            raise InvalidInput(f"price must be 0 or more (dollars a million tokens), got {price!r}")
        if not timeout > 0:
            raise InvalidInput(f"timeout must be above 0 (seconds), got {timeout!r}")
        if base_url is not None:
            remote.check_url(base_url)
        self.name = named(self.provider, model, options)
        self.model = model
        self.max_tokens = max_tokens or (known.max_tokens if known else DEFAULT_LIMIT)
        self.price = known.price if price is None and known and base_url is None else price
        self.estimated = tokenizer is None
        self._tokenizer = tokenizer
        # Models that cannot be shortened know no such parameter, not even for their own dimension.
        self._asked = None if known and dimensions == known.dimension else dimensions
        # What an unknown model makes of the dimensions that it is asked for, its first answer tells.
        self._given = (dimensions or known.dimension) if known else None
        self._base_url = base_url
        self._timeout = timeout
        self._key_env = api_key_env
        self._prefixes = prefixes or {}
        facts = {
            "model": model,
            "dimensions": dimensions or self._given or "its own",
            "prefixes": dict(self._prefixes),
            **settings,
        }
        self.fingerprint = f"{self.provider}:{hashlib.sha256(canonical_json(facts).encode()).hexdigest()}"
        self._identity = {
            "provider": self.provider,
            "model": model,
            "base_url": base_url or "",
            "asked": self._asked or 0,
        }
        self._limits = limits
        self._lock = threading.RLock()
        self._probing = threading.Lock()
        self._worked = False
        self._senders: dict[tuple[Kind, bool], Sender] = {}

    # --- what a provider's file says -----------------------------------------------------------------

    @abstractmethod
    def _request(self, texts: list[str], kind: Kind) -> Answer:
        """One request. Raises what the client raises, or one of our errors."""

    @abstractmethod
    def _error(self, error: Exception) -> NearestError | None:
        """What the client raised, as our error; None if it is not the client's."""

    # --- the contract --------------------------------------------------------------------------------

    @functools.cached_property
    def dimension(self) -> int:  # type: ignore[override] # an attribute, found out when first read
        if self._given is None:
            with self._probing:  # not the other lock, which the sender's threads take
                self._given = self._given or _registry.remembered(self._identity)
                if self._given is None:
                    found = len(self._probe())
                    if self._asked not in (None, found):
                        raise UnsupportedError(f"{self.name} gives vectors of {found} dimensions, not {self._asked}")
                    self._given = found
                    _registry.remember(self._identity, found)
        return self._given

    @property
    def unprobed(self) -> bool:  # type: ignore[override] # an attribute that changes
        return self._given is None and _registry.remembered(self._identity) is None

    def expect(self, dimension: int) -> None:
        if self.unprobed:
            self._given = dimension

    @functools.cached_property
    def tokenizer(self) -> Tokenizer:  # type: ignore[override] # an attribute, made when first read
        """The estimate of `_tokens`, or the tokenizer that the caller named."""
        return _tokens.load(self._tokenizer) if self._tokenizer else _tokens.estimate()

    def embed_documents(self, texts: Sequence[str], *, truncate: bool = False) -> Float32:
        return self._embed(texts, "document", truncate)

    def embed_queries(self, texts: Sequence[str], *, truncate: bool = False) -> Float32:
        return self._embed(texts, "query", truncate)

    def embed_query(self, text: str, *, truncate: bool = False) -> Float32:
        vector: Float32 = self._embed([text], "query", truncate)[0]
        return vector

    def _embed(self, texts: Sequence[str], kind: Kind, truncate: bool) -> Float32:
        check_texts(texts)
        vectors: Float32 = np.full((len(texts), self.dimension), np.nan, np.float32)
        if not len(texts):
            return vectors
        rows: dict[str, list[int]] = {}
        for row, text in enumerate(texts):
            rows.setdefault(text, []).append(row)
        distinct = list(rows)
        failed: dict[int, NearestError] = {}
        prefix = self._prefixes.get(kind, "")
        sent = self._fitting([prefix + text for text in distinct], truncate, failed)
        outcome = self._sender(kind).send([text for _, text, _ in sent], [size for _, _, size in sent])
        again = [i for i, error in outcome.failed.items() if isinstance(error, TextTooLong)] if truncate else []
        for at in again:  # the estimate was too low for it
            vector, error = self._shortened(kind, sent[at][1])
            if vector is not None:
                outcome.vectors[at] = vector
                del outcome.failed[at]
            elif error is not None:
                outcome.failed[at] = error
        for at, (i, _, _) in enumerate(sent):
            if at in outcome.vectors:
                vectors[rows[distinct[i]]] = outcome.vectors[at]
            else:
                failed[i] = outcome.failed[at]
        with self._lock:
            self.usage += Usage(texts=len(texts))
        if failed:
            by_row = {row: failed[i] for i in failed for row in rows[distinct[i]]}
            first = next(iter(by_row.values()))
            if len(texts) == 1 or (len(by_row) == len(texts) and not isinstance(first, ModelError)):
                raise first
            raise TextsFailed(dict(sorted(by_row.items())), _unit(vectors))
        return _unit(vectors)

    def _fitting(self, texts: list[str], truncate: bool, failed: dict[int, NearestError]) -> list[tuple[int, str, int]]:
        """What is to be sent: number, text and tokens of each; those over the limit are cut, or failed."""
        sent = []
        for i, (text, size) in enumerate(zip(texts, token_counts(self.tokenizer, texts), strict=True)):
            if size > self.max_tokens and truncate:
                text, size = _tokens.cut(self.tokenizer, text, self.max_tokens), self.max_tokens
                with self._lock:
                    self.truncated += 1
            elif size > self.max_tokens and not (self.estimated and self.refuses_long):
                failed[i] = self._too_long(f"about {size}" if self.estimated else str(size))
                continue
            sent.append((i, text, size))
        return sent

    def _shortened(self, kind: Kind, text: str) -> tuple[Float32 | None, NearestError | None]:
        """Cut shorter and shorter, until the provider takes it."""
        error: NearestError | None = None
        with self._lock:
            self.truncated += len(_tokens.cut(self.tokenizer, text, self.max_tokens - 1)) == len(text)
        for _ in range(6):
            text = text[: len(text) * 3 // 4]
            outcome = self._sender(kind).send([text], token_counts(self.tokenizer, [text]))
            if outcome.vectors:
                return outcome.vectors[0], None
            error = outcome.failed[0]
            if not isinstance(error, TextTooLong):
                break
        return None, error

    def _too_long(self, tokens: str) -> TextTooLong:
        hint = "; name the model's tokenizer (tokenizer=...) for an exact count" if tokens.startswith("about") else ""
        return TextTooLong(
            f"the text has {tokens} tokens, and {self.name} takes {self.max_tokens}; split it into chunks, or pass "
            f"truncate=True (--truncate) to embed its beginning alone{hint}",
            limit=self.max_tokens,
        )

    def _sender(self, kind: Kind, *, probing: bool = False) -> Sender:
        with self._lock:
            if (kind, probing) not in self._senders:
                pace = next((s._pace for s in self._senders.values()), None)
                # The probe is what tells of its health; it is not asked about that itself.
                healthy = (lambda: True) if probing else self._healthy
                ask = functools.partial(self._ask, kind)
                self._senders[kind, probing] = Sender(ask, self._limits, healthy, pace=pace)
            return self._senders[kind, probing]

    def _probe(self) -> Float32:
        """The vector of a short text, asked for as patiently as any other. Raises UnsupportedError if it is refused."""
        outcome = self._sender("document", probing=True).send([_PROBE], [1])
        if not outcome.failed:
            return outcome.vectors[0]
        error = outcome.failed[0]
        if isinstance(error, ModelError | InvalidInput):
            raise UnsupportedError(f"it takes no text at all: {error}") from None
        raise error

    def _healthy(self) -> bool:
        """Whether it takes a short text. Raises what keeps it from answering, which is no refusal."""
        if not self._worked:
            try:
                self._probe()
            except UnsupportedError:
                return False
        return True

    def _ask(self, kind: Kind, texts: list[str]) -> Answer:
        """One request, counted and checked; raises our errors only."""
        with self._lock:
            self.usage += Usage(requests=1)
        try:
            answer = self._request(texts, kind)
        except NearestError:
            raise
        except Exception as error:
            known = self._error(error)
            if known is None:
                raise
            raise known from None  # the client's own message may hold a part of the key
        tokens = answer.tokens
        if tokens is None:
            tokens = sum(token_counts(self.tokenizer, texts))
        with self._lock:
            self.usage += Usage(tokens=tokens, dollars=tokens * (self.price or 0.0) / 1e6)
        if len(answer.vectors) != len(texts):
            raise ConnectionFailed(f"{self.name} answered {len(answer.vectors)} vectors for {len(texts)} texts")
        for i, vector in enumerate(answer.vectors):
            if vector is None:
                continue
            if vector.ndim != 1 or (self._given is not None and len(vector) != self._given):
                _registry.forget(self._identity)
                raise ModelMismatch(
                    f"{self.name} gave a vector of shape {vector.shape} where {self._given} dimensions were expected; "
                    "it is another model, or another setting, than it was: nothing was written"
                )
            if not (np.isfinite(vector).all() and vector.any()):
                answer.vectors[i] = None  # asked for again
        self._worked = self._worked or any(vector is not None for vector in answer.vectors)
        return answer

    # --- what the providers' files use ---------------------------------------------------------------

    def _key(self) -> str:
        """From the environment; it is kept nowhere."""
        return remote.key(self.name, self._key_env)

    def _status(self, code: int, message: str, headers: Mapping[str, str] | None = None) -> NearestError:
        """What an HTTP status means."""
        error = remote.status(self.name, code, message, headers or {}, self._key_env)
        if isinstance(error, ModelError) and _TOO_LONG.search(message):
            return TextTooLong(str(error), limit=self.max_tokens)
        return error


def check_texts(texts: Sequence[str]) -> None:
    """Raises InvalidInput for a text that no model can embed."""
    if isinstance(texts, str):
        raise InvalidInput("texts must be a list of strings, got one string; write [text]")
    for i, text in enumerate(texts):
        if not isinstance(text, str):
            raise InvalidInput(f"text {i} must be a string, got {type(text).__name__}")
        if not text or text.isspace():
            raise InvalidInput(f"text {i} is empty; there is nothing to embed")
        try:
            text.encode()
        except UnicodeEncodeError:
            raise InvalidInput(f"text {i} holds a lone surrogate; decode it with the right encoding") from None


def _unit(vectors: Float32) -> Float32:
    unit: Float32 = (vectors / np.linalg.norm(vectors.astype(np.float64), axis=1, keepdims=True)).astype(np.float32)
    return unit
