"""The encoder of the BERT family as an OpenVINO graph, from a model's own weights and config.

BERT: Devlin et al. 2019. RoBERTa: Liu et al. 2019 (the same graph; positions start past the padding id). MPNet: Song
et al. 2020 (no segments; attention is biased by the distance of two tokens, in buckets as in T5, Raffel et al. 2020).
Heads: pooling to one vector a text (Sentence-BERT, Reimers & Gurevych 2019); a vector a token (ColBERT, Khattab &
Zaharia 2020); a score for a pair of texts (Nogueira & Cho 2019).
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal, NoReturn

import numpy as np
from numpy.typing import NDArray

from nearest.contract import Float32
from nearest.errors import ModelError

Pooling = Literal["mean", "cls"]
Head = Pooling | Literal["tokens", "score"]
FAMILY = ("bert", "roberta", "xlm-roberta", "camembert", "mpnet")
ACTIVATIONS = {"gelu": "erf", "gelu_new": "tanh", "gelu_pytorch_tanh": "tanh", "relu": None}
SIZES = (
    *("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads"),
    *("vocab_size", "max_position_embeddings"),
)
BUCKETS, FARTHEST = 32, 128  # of MPNet's distances: how many, and the distance that the last ones begin at
# What of the config the vectors depend on, the weights being given.
FIELDS = ("model_type", "num_hidden_layers", "num_attention_heads", "hidden_act", "layer_norm_eps")


def check(config: Mapping[str, Any]) -> None:
    """Raises ModelError, naming the fault, for a config that `build` has no graph for.

    Where the fault is that the model is of another kind, the error's context has its `architecture`.
    """
    kind = config.get("model_type")
    named = ", ".join(map(str, config.get("architectures") or ())) or "of an unnamed architecture"

    def refuse(fault: str) -> NoReturn:
        raise ModelError(f"{fault} (the model is {named})", architecture=named)

    if kind not in FAMILY:
        refuse(f"model_type {kind!r} is not an encoder that runs here; those are {', '.join(FAMILY)}")
    if any(name.startswith("AutoModel") for name in config.get("auto_map") or ()):
        refuse("the model brings code of its own (auto_map), which does not run here")
    if (act := config.get("hidden_act")) not in ACTIVATIONS:
        refuse(f"hidden_act {act!r} does not run here; these do: {', '.join(ACTIVATIONS)}")
    if (positions := config.get("position_embedding_type") or "absolute") != "absolute":
        refuse(f"position_embedding_type {positions!r} does not run here, only 'absolute'")
    if config.get("is_decoder"):
        refuse("a decoder (is_decoder) is no encoder")
    if kind == "mpnet" and (buckets := config.get("relative_attention_num_buckets", BUCKETS)) != BUCKETS:
        refuse(f"relative_attention_num_buckets {buckets!r} does not run here, only {BUCKETS}")
    for name in SIZES if kind == "mpnet" else (*SIZES, "type_vocab_size"):
        if not isinstance(config.get(name), int) or config[name] < 1:
            raise ModelError(f"config.json: {name} must be a positive integer, got {config.get(name)!r}")
    if config["hidden_size"] % config["num_attention_heads"]:
        raise ModelError("config.json: hidden_size is not a multiple of num_attention_heads")


def first_position(config: Mapping[str, Any]) -> int:
    """The row of the position table that a text's first token takes."""
    match config["model_type"]:
        case "bert":
            return 0
        case "mpnet":
            return 2  # whatever its padding id is
    padding = config.get("pad_token_id")
    return (1 if padding is None else int(padding)) + 1


def segments(config: Mapping[str, Any]) -> int:
    """How many segments a token can be of; MPNet knows none, so that all are of one."""
    return 1 if config["model_type"] == "mpnet" else int(config["type_vocab_size"])


def buckets(distances: NDArray[np.int64]) -> NDArray[np.int64]:
    """MPNet's bucket, 0 to 31, of each distance (the other token's place less one's own; int, any shape).

    16 for each direction: 8 for themselves, then by logarithm up to 128.
    """
    half, far = BUCKETS // 2, np.abs(distances)
    alone = half // 2
    steps = np.log(np.maximum(far, 1).astype(np.float32) / alone) / math.log(FARTHEST / alone) * (half - alone)
    logarithmic = np.minimum(alone + steps.astype(np.int64), half - 1)
    found: NDArray[np.int64] = np.where(far < alone, far, logarithmic) + half * (distances > 0)
    return found


def read(path: Path) -> dict[str, Float32]:
    """Every floating-point tensor of a safetensors file, as float32. Raises ModelError for a damaged one."""
    import safetensors

    try:
        stored = safetensors.deserialize(path.read_bytes())  # type: ignore[no-untyped-call]
    except (OSError, safetensors.SafetensorError) as error:
        raise ModelError(f"cannot read {path}: {error}") from error
    tensors = {}
    for name, tensor in stored:
        if (values := _floats(tensor["dtype"], tensor["data"])) is not None:  # others: position ids of older exports
            tensors[_plain_name(name)] = values.reshape(tensor["shape"])
    return tensors


def read_one(path: Path, name: str) -> Float32 | None:
    """One tensor of a safetensors file, as `read` gives it, without reading the others; None if it is not there."""
    try:
        with path.open("rb") as file:
            size = int.from_bytes(file.read(8), "little")
            if size > path.stat().st_size:
                raise ValueError("the header is cut off")
            tensor = json.loads(file.read(size)).get(name)
            if tensor is None:
                return None
            start, end = tensor["data_offsets"]
            file.seek(8 + size + start)
            values = _floats(tensor["dtype"], file.read(end - start))
            return None if values is None else values.reshape(tensor["shape"])
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise ModelError(f"cannot read {path}: {error}") from error


def _floats(dtype: str, data: bytes) -> Float32 | None:
    """As float32; None for what is no floating-point type."""
    match dtype:
        case "F32":
            return np.frombuffer(data, np.float32)
        case "F16":
            return np.frombuffer(data, np.float16).astype(np.float32)
        case "BF16":  # the upper half of a float32; NumPy has no such type
            return (np.frombuffer(data, np.uint16).astype(np.uint32) << 16).view(np.float32)
    return None


_SAME = {
    "LayerNorm.gamma": "LayerNorm.weight",  # TensorFlow's
    "LayerNorm.beta": "LayerNorm.bias",
    "attention.attn.q.": "attention.self.query.",  # MPNet's
    "attention.attn.k.": "attention.self.key.",
    "attention.attn.v.": "attention.self.value.",
    "attention.attn.o.": "attention.output.dense.",
    "attention.LayerNorm.": "attention.output.LayerNorm.",
}


def _plain_name(name: str) -> str:
    """BERT's name for it, without the prefix of a model with a head on top."""
    for prefix in FAMILY:
        name = name.removeprefix(f"{prefix}.")
    for other, ours in _SAME.items():
        name = name.replace(other, ours)
    return name


def build(config: Mapping[str, Any], tensors: Mapping[str, Float32], head: Head) -> Any:
    """An openvino.Model: ids and mask, both int32 (n, t), to float32, not normalised.

    mean, cls: (n, d). tokens: (n, t, d); rows of padding mean nothing. score: (n,), the logit of a model with one
    label; a third input, int32 (n, t), has each token's segment, 0 or 1. The mask is 1 for a token and 0 for padding,
    which comes last and changes nothing. Raises ModelError for a tensor that is missing or of another shape.
    """
    import openvino  # type: ignore[import-untyped]
    import openvino.opset15 as op  # type: ignore[import-untyped]

    width, inner, heads = config["hidden_size"], config["intermediate_size"], config["num_attention_heads"]
    epsilon = float(config.get("layer_norm_eps", 1e-12))

    def tensor(name: str, *shape: int) -> Float32:
        value = tensors.get(name)
        if value is None or value.shape != shape:
            have = "missing" if value is None else f"of shape {value.shape}, not {shape}"
            raise ModelError(f"the weights do not fit config.json: {name} is {have}")
        return value

    def rows(name: str, count: int) -> Float32:
        return tensor(f"embeddings.{name}_embeddings.weight", count, width)

    def numbers(*values: int) -> Any:
        return op.constant(np.array(values, np.int64))

    def linear(x: Any, name: str, inner: int, outer: int) -> Any:
        product = op.matmul(x, op.constant(tensor(f"{name}.weight", outer, inner)), False, True)
        return op.add(product, op.constant(tensor(f"{name}.bias", outer)))

    def norm(x: Any, name: str) -> Any:
        x = op.mvn(x, numbers(-1), True, epsilon, "inside_sqrt")
        x = op.multiply(x, op.constant(tensor(f"{name}.weight", width)))
        return op.add(x, op.constant(tensor(f"{name}.bias", width)))

    def split(x: Any) -> Any:
        return op.transpose(op.reshape(x, numbers(0, 0, heads, width // heads), True), numbers(0, 2, 1, 3))

    kind = ACTIVATIONS[config["hidden_act"]]
    activate: Callable[[Any], Any] = op.relu if kind is None else lambda x: op.gelu(x, kind)

    ids = op.parameter([-1, -1], np.int32, "ids")
    mask = op.parameter([-1, -1], np.int32, "mask")
    kept = op.convert(mask, "f32")
    # 0 where a token is looked at, and far below any score where it is padding; within float16 too.
    absent = op.subtract(op.unsqueeze(kept, numbers(1, 2)), op.constant(np.float32(1)))
    bias = op.multiply(absent, op.constant(np.float32(1e4)))

    words = op.gather(op.constant(rows("word", config["vocab_size"])), ids, numbers(0))
    table = rows("position", config["max_position_embeddings"])
    mpnet = config["model_type"] == "mpnet"
    kinds = np.zeros((1, width), np.float32) if mpnet else rows("token_type", segments(config))
    inputs = [ids, mask]
    if head == "score":
        inputs.append(op.parameter([-1, -1], np.int32, "segments"))
        words = op.add(words, op.gather(op.constant(kinds), inputs[2], numbers(0)))
    else:  # one text a row, so every token is of segment 0: its row is added to the positions once and for all
        table = table + kinds[0]
    table = table[first_position(config) :]
    length = op.gather(op.shape_of(ids), numbers(1), numbers(0))
    places = op.slice(op.constant(table), numbers(0), length, numbers(1), numbers(0))
    if mpnet:  # one bias for all layers: (heads, t, t), from a column for each distance that can be
        longest = len(table)
        by_bucket = tensor("encoder.relative_attention_bias.weight", BUCKETS, heads)
        by_distance = by_bucket[buckets(np.arange(1 - longest, longest))].T
        order = op.range(op.constant(np.int64(0)), op.squeeze(length, numbers(0)), op.constant(np.int64(1)), "i64")
        distances = op.subtract(op.unsqueeze(order, numbers(0)), op.unsqueeze(order, numbers(1)))
        columns = op.add(distances, op.constant(np.int64(longest - 1)))
        bias = op.add(bias, op.gather(op.constant(np.ascontiguousarray(by_distance)), columns, numbers(1)))
    x = norm(op.add(words, places), "embeddings.LayerNorm")

    for layer in range(config["num_hidden_layers"]):
        at = f"encoder.layer.{layer}"
        query, key, value = (
            split(linear(x, f"{at}.attention.self.{part}", width, width)) for part in ("query", "key", "value")
        )
        seen = op.scaled_dot_product_attention(query, key, value, bias)
        seen = op.reshape(op.transpose(seen, numbers(0, 2, 1, 3)), numbers(0, 0, width), True)
        seen = linear(seen, f"{at}.attention.output.dense", width, width)
        x = norm(op.add(seen, x), f"{at}.attention.output.LayerNorm")
        wide = activate(linear(x, f"{at}.intermediate.dense", width, inner))
        x = norm(op.add(linear(wide, f"{at}.output.dense", inner, width), x), f"{at}.output.LayerNorm")

    match head:
        case "cls":
            output = op.squeeze(op.gather(x, numbers(0), numbers(1)), numbers(1))
        case "mean":
            # The sum; the division by the number of tokens is lost in the normalisation that follows.
            output = op.squeeze(op.matmul(op.unsqueeze(kept, numbers(1)), x, False, False), numbers(1))
        case "tokens":
            output = x
        case "score":
            first = op.squeeze(op.gather(x, numbers(0), numbers(1)), numbers(1))
            # BERT's pooler belongs to the encoder, RoBERTa's to the classifier; both are tanh of a linear layer.
            inner_name, outer_name = (
                ("pooler.dense", "classifier")
                if "pooler.dense.weight" in tensors and "classifier.weight" in tensors
                else ("classifier.dense", "classifier.out_proj")
            )
            pooled = op.tanh(linear(first, inner_name, width, width))
            output = op.squeeze(linear(pooled, outer_name, width, 1), numbers(1))
    return openvino.Model([output], inputs, "bert")
