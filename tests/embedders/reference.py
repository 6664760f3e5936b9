"""BERT and MPNet in plain NumPy, float32, one text at a time: what real embedders and rerankers are held against.

Written from Devlin et al. 2019, Song et al. 2020 (MPNet) and the layout of the weights, apart from the graph in
`encoder/bert.py`; `test_transformers.py` holds the graph against transformers itself, where that is installed. Also
makes small models with random weights, as folders like those that sentence-transformers saves.
"""

from __future__ import annotations

import json
import math
import struct
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

Array = NDArray[np.float32]

WORDS = """
    the a of and in to is heart cell protein blood gene cancer mouse study risk young people causes attack
    what why how does not vaccine virus brain sleep age bone liver kidney lung drug trial dose effect
""".split()  # noqa: SIM905 - forty lines otherwise
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]


def texts(n: int, longest: int, seed: int = 0) -> list[str]:
    """n different texts of 1 to `longest` known words."""
    random = np.random.default_rng(seed)
    drawn = (random.choice(WORDS, random.integers(1, longest + 1)) for _ in range(n))
    return [f"{' '.join(words)} {WORDS[i % len(WORDS)]}" for i, words in enumerate(drawn)]


def make(
    folder: Path,
    *,
    pooling: dict[str, Any] | None,
    normalize: bool = True,
    prefix: str = "",
    dtype: str = "F32",
    seed: int = 0,
    settings: dict[str, Any] | None = None,
    files: dict[str, Any] | None = None,
    head: bool = False,
    **config: Any,
) -> Path:
    """A model's folder. pooling: the config of its pooling, None for a folder without modules.json. head: of a
    sequence classifier with one label."""
    full = {
        "model_type": "bert",
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "intermediate_size": 64,
        "hidden_act": "gelu",
        "layer_norm_eps": 1e-12,
        "max_position_embeddings": 50,
        "type_vocab_size": 2,
        "vocab_size": len(SPECIAL) + len(WORDS),
        "pad_token_id": 0,
        **config,
    }
    folder.mkdir(parents=True)
    _write(folder / "config.json", full)
    _tokenizer().save(str(folder / "tokenizer.json"))
    named = {prefix + k: v for k, v in weights(full, seed).items()}
    save(folder / "model.safetensors", {**named, **(classifier(full, prefix, seed) if head else {})}, dtype)
    if pooling is not None:
        kinds = [("Transformer", ""), ("Pooling", "1_Pooling"), ("Normalize", "2_Normalize")]
        modules = [
            {"idx": i, "name": str(i), "path": path, "type": f"sentence_transformers.models.{kind}"}
            for i, (kind, path) in enumerate(kinds if normalize else kinds[:2])
        ]
        _write(folder / "modules.json", modules)
        _write(folder / "1_Pooling" / "config.json", pooling)
        _write(folder / "sentence_bert_config.json", {"max_seq_length": 40, **(settings or {})})
    for name, content in (files or {}).items():
        _write(folder / name, content)
    return folder


def _write(path: Path, content: Any) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(content))


def _tokenizer() -> Tokenizer:
    vocabulary = {word: i for i, word in enumerate(SPECIAL + WORDS)}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.add_special_tokens(SPECIAL)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", vocabulary["[CLS]"]), ("[SEP]", vocabulary["[SEP]"])],
    )
    tokenizer.enable_truncation(8)  # as saved models often have; neither may reach the vectors
    tokenizer.enable_padding(length=8)
    return tokenizer


def weights(config: dict[str, Any], seed: int) -> dict[str, Array]:
    """Random, and large enough that texts differ."""
    random = np.random.default_rng(seed)
    d, inner = config["hidden_size"], config["intermediate_size"]

    def draw(*shape: int) -> Array:
        return (random.standard_normal(shape) * (1.5 / math.sqrt(shape[-1]))).astype(np.float32)

    def norm(name: str) -> dict[str, Array]:
        return {f"{name}.weight": 1 + draw(d), f"{name}.bias": draw(d)}

    mpnet = config["model_type"] == "mpnet"
    made = {
        "embeddings.word_embeddings.weight": 8 * draw(config["vocab_size"], d),
        "embeddings.position_embeddings.weight": 4 * draw(config["max_position_embeddings"], d),
        **norm("embeddings.LayerNorm"),
    }
    if mpnet:
        heads = config["num_attention_heads"]
        made["encoder.relative_attention_bias.weight"] = 4 * draw(32, heads)
    else:
        made["embeddings.token_type_embeddings.weight"] = 4 * draw(config["type_vocab_size"], d)
    for i in range(config["num_hidden_layers"]):
        at = f"encoder.layer.{i}"
        for part in ("query", "key", "value"):
            made[f"{at}.attention.self.{part}.weight"] = draw(d, d)
            made[f"{at}.attention.self.{part}.bias"] = draw(d)
        for name, shape in (("attention.output", (d, d)), ("intermediate", (inner, d)), ("output", (d, inner))):
            made[f"{at}.{name}.dense.weight"] = draw(*shape)
            made[f"{at}.{name}.dense.bias"] = draw(shape[0])
        made |= norm(f"{at}.attention.output.LayerNorm") | norm(f"{at}.output.LayerNorm")
    return {_mpnet_name(name): values for name, values in made.items()} if mpnet else made


def _mpnet_name(name: str) -> str:
    """What MPNet's weights call it."""
    for bert, own in (
        ("attention.self.query", "attention.attn.q"),
        ("attention.self.key", "attention.attn.k"),
        ("attention.self.value", "attention.attn.v"),
        ("attention.output.dense", "attention.attn.o"),
        ("attention.output.LayerNorm", "attention.LayerNorm"),
    ):
        name = name.replace(bert, own)
    return name


def classifier(config: dict[str, Any], prefix: str, seed: int) -> dict[str, Array]:
    """The weights of the head, named as transformers names them."""
    random, d = np.random.default_rng(seed + 1), config["hidden_size"]
    inner, outer = (
        (f"{prefix}pooler.dense", "classifier")
        if config["model_type"] == "bert"
        else ("classifier.dense", "classifier.out_proj")
    )

    def draw(*shape: int) -> Array:
        return (random.standard_normal(shape) * (2 / math.sqrt(d))).astype(np.float32)

    return {
        f"{inner}.weight": draw(d, d), f"{inner}.bias": draw(d), f"{outer}.weight": draw(1, d), f"{outer}.bias": draw(1)
    }  # fmt: skip


def save(path: Path, tensors: dict[str, Array], dtype: str = "F32") -> None:
    """A safetensors file, by its published layout, for NumPy has no bfloat16."""
    header, blobs, at = {}, [], 0
    for name, values in tensors.items():
        match dtype:
            case "F32":
                blob = values.tobytes()
            case "F16":
                blob = values.astype(np.float16).tobytes()
            case _:
                blob = (values.view(np.uint32) >> 16).astype(np.uint16).tobytes()
        header[name] = {"dtype": dtype, "shape": values.shape, "data_offsets": [at, at + len(blob)]}
        at += len(blob)
        blobs.append(blob)
    head = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(head)) + head + b"".join(blobs))


# --- the reference ---------------------------------------------------------------------------------


def embed(folder: Path, ids: list[int], pooling: str, tensors: dict[str, Array]) -> Array:
    """The unit vector, (d,), of one text's ids."""
    x = tokens(folder, ids, [0] * len(ids), tensors)
    pooled = x[0] if pooling == "cls" else x.mean(axis=0)
    unit: Array = (pooled / np.linalg.norm(pooled)).astype(np.float32)
    return unit


def score(folder: Path, ids: list[int], segments: list[int], tensors: dict[str, Array]) -> float:
    """The logit of a classifier with one label, for one pair's ids."""
    pooler, out = ("pooler.dense", "classifier")
    if "classifier.out_proj.weight" in tensors:
        pooler, out = "classifier.dense", "classifier.out_proj"
    first = tokens(folder, ids, segments, tensors)[0]
    pooled = np.tanh(first @ tensors[f"{pooler}.weight"].T + tensors[f"{pooler}.bias"])
    return float((pooled @ tensors[f"{out}.weight"].T + tensors[f"{out}.bias"])[0])


def tokens(
    folder: Path, ids: list[int], segments: list[int], tensors: dict[str, Array], attended: int | None = None
) -> Array:
    """The encoder's output, (t, d), for one row of ids. attended: how many of them, the first, all look at."""
    config = json.loads((folder / "config.json").read_text())
    heads, eps = config["num_attention_heads"], config["layer_norm_eps"]
    mpnet = config["model_type"] == "mpnet"
    offset = {"bert": 0, "mpnet": 2}.get(config["model_type"], config["pad_token_id"] + 1)

    def linear(x: Array, name: str) -> Array:
        out: Array = x @ tensors[f"{name}.weight"].T + tensors[f"{name}.bias"]
        return out

    def norm(x: Array, name: str) -> Array:
        centred = x - x.mean(axis=-1, keepdims=True)
        scaled = centred / np.sqrt((centred**2).mean(axis=-1, keepdims=True) + eps)
        out: Array = scaled * tensors[f"{name}.weight"] + tensors[f"{name}.bias"]
        return out

    x = tensors["embeddings.word_embeddings.weight"][ids]
    x = x + tensors["embeddings.position_embeddings.weight"][offset : offset + len(ids)]
    if not mpnet:
        x = x + tensors["embeddings.token_type_embeddings.weight"][segments]
    x = norm(x, "embeddings.LayerNorm")
    size = x.shape[1] // heads
    for i in range(config["num_hidden_layers"]):
        at = f"encoder.layer.{i}"
        q, k, v = (linear(x, f"{at}.attention.self.{part}") for part in ("query", "key", "value"))
        mixed = np.empty_like(x)
        for h in range(heads):
            part = slice(h * size, (h + 1) * size)
            scores = q[:, part] @ k[:, part].T / math.sqrt(size)
            if mpnet:
                scores += tensors["encoder.relative_attention_bias.weight"][buckets(len(ids)), h]
            if attended is not None:
                scores[:, attended:] = -np.inf
            scores = np.exp(scores - scores.max(axis=1, keepdims=True))
            mixed[:, part] = scores / scores.sum(axis=1, keepdims=True) @ v[:, part]
        x = norm(x + linear(mixed, f"{at}.attention.output.dense"), f"{at}.attention.output.LayerNorm")
        wide = _activate(linear(x, f"{at}.intermediate.dense"), config["hidden_act"])
        x = norm(x + linear(wide, f"{at}.output.dense"), f"{at}.output.LayerNorm")
    return x


def buckets(t: int) -> NDArray[np.int64]:
    """(t, t): the bucket of each token (row) and the token that it looks at (column), as in T5 (Raffel et al. 2020)."""
    found = np.zeros((t, t), np.int64)
    for own in range(t):
        for other in range(t):
            far = abs(own - other)
            # Distances 0 to 7 alone; then 8 buckets whose lower ends grow by a factor of 16 ** (1 / 8), from 8 to 90.5.
            bucket = far if far < 8 else 7 + sum(far >= 8 * 2 ** (step / 2) for step in range(8))
            found[own, other] = bucket + (16 if other > own else 0)
    return found


def _activate(x: Array, kind: str) -> Array:
    out: Array
    if kind == "relu":
        out = np.maximum(x, 0)
    elif kind == "gelu":
        out = x * 0.5 * (1 + _erf(x / np.float32(math.sqrt(2))))
    else:
        out = x * 0.5 * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))
    return out


def _erf(x: Array) -> Array:
    """Within 1.5e-7: Abramowitz & Stegun 1964, 7.1.26."""
    t = 1 / (1 + 0.3275911 * np.abs(x))
    series = ((((1.061405429 * t - 1.453152027) * t + 1.421413741) * t - 0.284496736) * t + 0.254829592) * t
    out: Array = np.sign(x) * (1 - series * np.exp(-x * x))
    return out
