"""What a ColBERT checkpoint's own files say of how it reads queries and documents.

Two layouts: Stanford's (Khattab & Zaharia 2020; Santhanam et al. 2022), where the projection is `linear.weight` of the
weights and the settings are in artifact.metadata; and that of PyLate, a folder of sentence-transformers with Dense
modules and the settings in config_sentence_transformers.json. In both a marker follows [CLS], a query is filled up with
[MASK], to which its other tokens do not attend, and the vectors of a document's punctuation are left out.
"""

from __future__ import annotations

import hashlib
import json
import string
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nearest.contract import Float32, canonical_json
from nearest.encoder import bert, files, runtime
from nearest.errors import ModelError

if TYPE_CHECKING:
    from tokenizers import Tokenizer

METADATA = "artifact.metadata"
_LINEAR = "linear.weight"


@dataclass(frozen=True)
class Settings:
    """markers: tokens, "" for none. lengths: in tokens, all included. expand: fill queries up with `mask`.

    attend: to those, too. skip: tokens of documents that have no vector; split: each is the first token that the
    tokenizer makes of the word.
    """

    query_marker: str
    document_marker: str
    query_length: int
    document_length: int
    expand: bool
    attend: bool
    skip: tuple[str, ...]
    split: bool
    mask: str


@dataclass(frozen=True)
class Checkpoint:
    """projection: float32 (d, width of the encoder), applied to each token's vector before it is made unit length."""

    settings: Settings
    projection: Float32

    @property
    def fingerprint(self) -> str:
        facts = {"settings": asdict(self.settings), "projection": hashlib.sha256(self.projection.tobytes()).hexdigest()}
        return hashlib.sha256(canonical_json(facts).encode()).hexdigest()

    def token(self, tokenizer: Tokenizer, name: str) -> int:
        """Raises ModelError where the tokenizer does not know a token that the settings name."""
        found: int | None = tokenizer.token_to_id(name)
        if found is None:
            raise ModelError(f"the tokenizer has no token {name!r}, which the checkpoint's settings name")
        return found

    def skipped(self, tokenizer: Tokenizer) -> frozenset[int]:
        """The ids whose vectors a document leaves out."""
        if not self.settings.split:
            known = (tokenizer.token_to_id(word) for word in self.settings.skip)
            return frozenset(token for token in known if token is not None)
        ids = (tokenizer.encode(word, add_special_tokens=False).ids for word in self.settings.skip)
        return frozenset(some[0] for some in ids if some) - {tokenizer.token_to_id("[UNK]")}


def read(folder: Path, config: Mapping[str, Any]) -> Checkpoint | None:
    """A folder's checkpoint, None for a model that is none. Raises ModelError for one that does not run here."""
    dense = _dense(folder)
    if dense:
        told = runtime.read_json(folder, "config_sentence_transformers.json", {})
        names = ("query_prefix", "document_prefix", "query_length", "document_length", "do_query_expansion",
                 "attend_to_expansion_tokens", "skiplist_words")  # fmt: skip
        defaults: tuple[Any, ...] = ("[Q] ", "[D] ", 32, 180, True, False, list(string.punctuation))
    elif _stanford(folder, config):
        told = runtime.read_json(folder, METADATA, {})
        names = ("query_token_id", "doc_token_id", "query_maxlen", "doc_maxlen", "expand", "attend_to_mask_tokens",
                 "skip")  # fmt: skip
        told = {**told, "expand": True, "skip": list(string.punctuation) if told.get("mask_punctuation", True) else []}
        # Some checkpoints hold something else in the place of a marker's name.
        told |= {name: None for name in names[:2] if not isinstance(told.get(name), str)}
        defaults = ("[unused0]", "[unused1]", 32, 220, True, False, [])
    else:
        return None
    values = [default if told.get(name) is None else told[name] for name, default in zip(names, defaults, strict=True)]
    for name, value, default in zip(names, values, defaults, strict=True):
        small = isinstance(default, int) and not isinstance(default, bool) and not (type(value) is int and value >= 4)
        if type(value) is not type(default) or small:
            raise ModelError(f"{folder}: {name} of its settings cannot be {value!r}")
    limit = config["max_position_embeddings"] - bert.first_position(config)
    query, document, query_length, document_length, expand, attend, skip = values
    settings = Settings(
        query, document, min(query_length, limit), min(document_length, limit), expand, attend and expand,
        tuple(map(str, skip)), not dense, _mask(folder),
    )  # fmt: skip
    projection = _matrix(folder / files.WEIGHTS) if not dense else None
    for path in dense:
        following = _matrix(path)
        if projection is not None and following.shape[1] != len(projection):
            raise ModelError(f"{path}: its {_LINEAR} does not follow the one before it")
        projection = following if projection is None else following @ projection
    assert projection is not None
    if projection.shape[1] != config["hidden_size"]:
        raise ModelError(
            f"{folder}: {_LINEAR} is of shape {projection.shape}, and the encoder's width is {config['hidden_size']}"
        )
    return Checkpoint(settings, projection)


def _stanford(folder: Path, config: Mapping[str, Any]) -> bool:
    kinds = config.get("architectures") or []
    return (folder / METADATA).is_file() or any("colbert" in str(kind).lower() for kind in kinds)


def _dense(folder: Path) -> list[Path]:
    """The weights of the Dense modules right after the encoder; none where the model pools."""
    path = folder / "modules.json"
    if not path.is_file():
        return []
    try:
        modules = [(module["type"].rpartition(".")[2], module["path"]) for module in json.loads(path.read_bytes())]
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise ModelError(f"cannot read {path}: {error}") from error
    if len(modules) < 2 or {kind for kind, _ in modules[1:]} != {"Dense"}:
        return []
    for _, place in modules[1:]:
        told = runtime.read_json(folder, f"{place}/config.json")
        activation = str(told.get("activation_function") or "Identity").rpartition(".")[2]
        if told.get("bias") or told.get("use_residual") or activation != "Identity":
            raise ModelError(f"{folder / place}: only a projection without bias, residual and activation runs here")
    return [folder / place / files.WEIGHTS for _, place in modules[1:]]


def _matrix(path: Path) -> Float32:
    """`linear.weight` of a safetensors file."""
    found = bert.read_one(path, _LINEAR)
    if found is None or found.ndim != 2:
        raise ModelError(f"{path} has no {_LINEAR}, ColBERT's projection")
    return found


def _mask(folder: Path) -> str:
    for name in ("special_tokens_map.json", "tokenizer_config.json"):
        told = runtime.read_json(folder, name, {}).get("mask_token")
        told = told.get("content") if isinstance(told, dict) else told
        if isinstance(told, str) and told:
            return told
    return "[MASK]"
