"""A model's folder as something to call: its config and tokenizer, and its graph compiled by OpenVINO.

The compiled graph is kept in the cache folder ($NEAREST_CACHE_DIR, or else the user's cache); deleting it costs
a second at the next start.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import queue
import zlib
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import numpy as np
from numpy.typing import NDArray

from nearest.contract import Float32, canonical_json
from nearest.encoder import bert, files
from nearest.errors import ModelError

if TYPE_CHECKING:
    from tokenizers import Tokenizer

BATCH_TOKENS = 2048  # enough to keep a core busy; more gained nothing at any length
BATCH_TEXTS = 32
AHEAD = 2  # batches in work, times those that are computed at once

Rows = TypeVar("Rows")


class Compiled:
    """A compiled model that several threads may call, and that computes `width` batches at once."""

    def __init__(self, compiled: Any) -> None:
        self.width: int = compiled.get_property("OPTIMAL_NUMBER_OF_INFER_REQUESTS")
        self._compiled = compiled
        self._idle: queue.SimpleQueue[Any] = queue.SimpleQueue()

    def __call__(self, *inputs: NDArray[np.int32]) -> Float32:
        request = self._request()
        output: Float32 = np.array(request.infer(list(inputs), share_inputs=True)[0], np.float32)
        self._idle.put(request)
        return output

    def stream(self, batches: Iterable[tuple[Rows, Sequence[NDArray[np.int32]]]]) -> Iterator[tuple[Rows, Float32]]:
        """The outputs of batches, in their order, each with what names it. While the caller uses one, others are made.

        A batch is asked for when there is room to compute it.
        """
        pending: deque[tuple[Any, Rows, Any]] = deque()  # with its inputs, which the model reads where they are

        def collect() -> tuple[Rows, Float32]:
            request, rows, _ = pending[0]
            request.wait()
            output: Float32 = np.array(request.get_output_tensor(0).data, np.float32)
            pending.popleft()
            self._idle.put(request)
            return rows, output

        try:
            for rows, inputs in batches:
                done = collect() if len(pending) == AHEAD * self.width else None
                request = self._request()
                request.start_async(list(inputs), share_inputs=True)
                pending.append((request, rows, inputs))
                if done is not None:
                    yield done
            while pending:
                yield collect()
        finally:
            for request, _, _ in pending:
                with contextlib.suppress(RuntimeError):
                    request.wait()

    def _request(self) -> Any:
        """One that nobody uses; never waited for, since who has it may be waiting too."""
        try:
            return self._idle.get_nowait()
        except queue.Empty:
            return self._compiled.create_infer_request()


def compiled(
    folder: Path,
    sha256: str,
    config: Mapping[str, Any],
    head: bert.Head,
    hint: Literal["THROUGHPUT", "LATENCY"],
    precision: Literal["native", "f32"] = "native",
) -> Compiled:
    """The folder's model with a head: from the cache, or else compiled from the weights and cached.

    sha256: of the weights. precision: the processor's own choice (bfloat16 where it multiplies that faster), or
    float32. Raises ModelError for weights that are damaged or do not fit the config.
    """
    core, traits = _core()
    # Pinned threads of two processes would share a core while others are idle.
    settings: dict[str, Any] = {"PERFORMANCE_HINT": hint, "ENABLE_CPU_PINNING": False}
    if precision == "f32":
        settings["INFERENCE_PRECISION_HINT"] = "f32"
    facts = {**traits, "weights": sha256, "config": config, "head": head, "precision": precision}
    key = hashlib.sha256(canonical_json(facts).encode()).hexdigest()[:32]
    cache = files.cache_folder()
    path = cache / "compiled" / f"{key}.blob" if cache else None
    if path is not None and (blob := read_blob(path)) is not None:
        try:
            return Compiled(core.import_model(blob, "CPU", settings))
        except RuntimeError:
            pass  # not readable after all: made anew below
    model = bert.build(config, bert.read(folder / files.WEIGHTS), head)
    made = core.compile_model(model, "CPU", settings)
    if path is not None:
        exported = made.export_model().getbuffer()
        files.write(path, [exported, zlib.crc32(exported).to_bytes(4, "little")])
    return Compiled(made)


@functools.cache
def _core() -> tuple[Any, dict[str, str]]:
    """OpenVINO, and what a compiled model depends on besides the model."""
    import openvino  # type: ignore[import-untyped]

    core = openvino.Core()
    traits = {
        "graph": hashlib.sha256(Path(bert.__file__).read_bytes()).hexdigest(),
        "openvino": openvino.get_version(),
        **{
            name: str(core.get_property("CPU", name))
            for name in ("FULL_DEVICE_NAME", "OPTIMIZATION_CAPABILITIES", "INFERENCE_PRECISION_HINT")
        },
    }
    return core, traits


def read_blob(path: Path) -> Any:
    """An openvino.Tensor over a cached file, None if there is none or it is damaged."""
    import openvino

    try:
        data = np.memmap(path, np.uint8, "r")
    except (OSError, ValueError):  # the latter for an empty one
        return None
    if data.size <= 4 or zlib.crc32(data[:-4].data) != int.from_bytes(data[-4:].tobytes(), "little"):
        return None
    return openvino.Tensor(data[:-4])


def tokenizer(folder: Path, config: Mapping[str, Any], *, lowercase: bool = False) -> Tokenizer:
    """The model's own, without truncation or padding. Raises ModelError where it is damaged or another model's."""
    from tokenizers import Tokenizer, normalizers

    path = folder / "tokenizer.json"
    try:
        found = Tokenizer.from_file(str(path))
    except Exception as error:  # tokenizers raises nothing narrower
        raise ModelError(f"cannot read {path}: {error}") from error
    if found.get_vocab_size() > config["vocab_size"]:
        raise ModelError(f"{path} has more tokens than the weights have vectors for; it is another model's")
    found.no_truncation()
    found.no_padding()
    if lowercase:
        own = [found.normalizer] if found.normalizer else []
        found.normalizer = normalizers.Sequence([normalizers.Lowercase(), *own])
    return found


def read_json(folder: Path, name: str, default: dict[str, Any] | None = None) -> dict[str, Any]:
    """An object of the folder, or the default where there is no such file. Raises ModelError."""
    try:
        value = json.loads((folder / name).read_bytes())
    except FileNotFoundError as error:
        if default is not None:
            return default
        raise ModelError(f"{folder} has no {name}") from error
    except (OSError, ValueError) as error:
        raise ModelError(f"cannot read {folder / name}: {error}") from error
    if not isinstance(value, dict):
        raise ModelError(f"{folder / name} must hold an object")
    return value


def batches(lengths: Sequence[int]) -> Iterator[list[int]]:
    """Rows of about one length together, the longest first, so that little is padded and the end is even.

    One length has one size, a power of two: few shapes.
    """
    order = sorted(range(len(lengths)), key=lambda i: -lengths[i])
    start = 0
    while start < len(order):
        fitting = max(1, BATCH_TOKENS // lengths[order[start]])
        size = min(BATCH_TEXTS, 1 << (fitting.bit_length() - 1))
        yield order[start : start + size]
        start += size


def pad(tokens: Sequence[Sequence[int]], limit: int) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """ids and mask, int32 (n, t), t at most the limit."""
    lengths = np.array([len(ids) for ids in tokens])
    longest = lengths.max()
    # To a multiple, since OpenVINO prepares anew for each shape that it meets.
    step = 4 if longest <= 64 else 8
    width = min(-(-longest // step) * step, limit)
    mask = np.arange(width) < lengths[:, None]
    padded = np.zeros(mask.shape, np.int32)
    padded[mask] = np.concatenate([np.array(ids, np.int32) for ids in tokens])
    return padded, mask.astype(np.int32)
