"""Where a collection is: its store, its ledger, and its lexical index where the store has no BM25.

An embedded store shares one folder with both. Beside a database, the ledger stands where the store's
module says (`ledger`), else in this machine's own folder for such things ($NEAREST_HOME), or where the
caller says: a folder, or a PostgreSQL database, which every machine reaches.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nearest import layers, stores
from nearest.contract import Schema, Store, StoreURL
from nearest.errors import InvalidInput, NotACollection, ReadOnly, SchemaMismatch, UnsupportedError
from nearest.layers.lexical import Lexical, companion_schema, inner_schema
from nearest.ledger import State, Visibility, glance, watch

if TYPE_CHECKING:
    from nearest.layers.metrics import Meter
    from nearest.ledger import Ledger

DEFAULT_STORE = "edge"
_LEDGER_FILE = "ledger.db"
_FOLLOWED = "lexical.epoch"


@dataclass(frozen=True, slots=True)
class Location:
    """name: as shown, without passwords. folder: of the ledger's file and the lexical index; None if in memory.

    database: the ledger's PostgreSQL, instead of a file; namespace: its schema there. shared: other
    processes may use the collection at the same time. bare: the URL under which `nearest.connect` finds a store here.
    former: where the ledger was while each spelling of a URL had one of its own. meter: counts the store's calls.
    """

    name: str
    store_url: str
    folder: Path | None
    database: str | None = None
    namespace: str = ""
    shared: bool = False
    bare: str = ""
    former: Location | None = None
    meter: Meter | None = None
    _known: bool = False  # that there is a ledger in the database

    @classmethod
    def of(cls, location: str | Path, ledger: str | Path | None = None) -> Location:
        text = str(location)
        if not text:
            raise InvalidInput("the collection's location is empty; give a folder or a store's URL")
        # A URL's scheme is longer than a Windows drive.
        if not (
            isinstance(location, str) and text.partition(":")[0].isidentifier() and text[1:2] != ":" and ":" in text
        ):
            return cls(text, f"{DEFAULT_STORE}:{Path(text) / 'store'}", Path(text), bare=f"{DEFAULT_STORE}:{text}")
        url = StoreURL.parse(text)
        module = stores.find(url.scheme)
        if getattr(module, "EMBEDDED", False):
            folder, (_, mark, options) = Path(url.location), text.partition("?")
            return cls(text, f"{url.scheme}:{folder / 'store'}{mark}{options}", folder, bare=text)
        name = stores.identity(url)
        if "durable" not in module.STORE.capabilities:  # nor is its ledger then
            return cls(name, text, None, bare=text)
        named = ledger or os.environ.get("NEAREST_LEDGER")

        def at(spelt: StoreURL) -> Location:
            identity = stores.identity(spelt)
            slug = re.sub(r"[^a-z0-9]+", "_", identity.lower()).strip("_")[:40]
            unique = f"{slug}_{hashlib.sha256(identity.encode()).hexdigest()[:8]}"
            own = _home() / unique
            place = str(named or getattr(module, "ledger", lambda _: None)(spelt) or own)
            if "://" in place:
                return cls(name, text, own, place, f"nearest_{unique}", shared=True, bare=text)
            return cls(name, text, Path(place) / unique if named else Path(place), shared=True, bare=text)

        return replace(at(stores.canonical(url)), former=at(url))

    def found(self) -> Location:
        """Where the ledger is, if it is under the URL as given, from before all spellings had one; asks its database.

        Nothing is made. Raises InvalidInput, ConnectionFailed, AccessDenied or MissingDependency.
        """
        former = self.former
        if not self.database:
            return former if former is not None and former.exists() and not self._same_file(former) else self
        from nearest.ledger import Ledger

        places = [self] if former is None else [former, self]
        there = Ledger.namespaces(self.database, [place.namespace for place in places])
        return next((replace(place, _known=True) for place in places if place.namespace in there), self)

    def _same_file(self, other: Location) -> bool:
        return self.folder is not None and other.folder is not None and self.folder.resolve() == other.folder.resolve()

    def exists(self) -> bool:
        """Whether there is a ledger; of one in a database `found` knows."""
        return self._known or (self.folder is not None and not self.database and (self.folder / _LEDGER_FILE).is_file())

    def check(self, create: bool) -> None:
        """Raises NotACollection for a place that holds something else, or nothing where nothing may be made.

        In the latter case also what connecting to the store raises: of a database that cannot be reached nobody knows
        what it holds.
        """
        folder = self.folder
        if folder is None or self.exists():
            return
        if not self.database:
            if folder.exists() and not folder.is_dir():
                raise NotACollection(f"{folder} is a file; give a folder")
            if folder.exists() and any(entry.name not in ("store", "lexical") for entry in folder.iterdir()):
                raise self._without_ledger() or NotACollection(
                    f"{folder} is not a collection of nearest and not empty; give another folder"
                )
        if not create:
            raise self.missing()

    def missing(self) -> NotACollection:
        """What to raise where there is no collection, and none may be made."""
        elsewhere = f" (its ledger would be in {self.folder}; set NEAREST_LEDGER if it is elsewhere)"
        return self._without_ledger() or NotACollection(
            f"there is no collection at {self.name}; make one with: nearest add PATH -c {self.name}"
            + (elsewhere if self.shared and not self.database else "")
        )

    def _without_ledger(self) -> NotACollection | None:
        """What to raise for a store that holds records and has no ledger; None where there is no such store."""
        try:
            with stores.connect(self.bare) as store:
                return self._unaccounted(store, self.name if self.shared else self.bare) if store.count() else None
        except NotACollection:
            return None

    def _unaccounted(self, store: Store, url: str) -> NotACollection:
        records, fields = store.count(), {name: spec.dim for name, spec in store.schema.vectors.items()}
        of = f" ({', '.join(f'{name}: {dim} dimensions' for name, dim in fields.items())})" if fields else ""
        return NotACollection(
            f"{self.name} holds {records} records{of} that no ledger accounts for, such as those written through "
            f"nearest.connect; open it with nearest.connect({url!r})"
            + (", or say where its ledger is (ledger=, NEAREST_LEDGER)" if self.shared else ""),
            records=records,
            dimensions=fields,
        )

    # --- the store ---

    def open_store(self, epoch: int | None = None) -> Store:
        """The collection's store, on which every filter and every kind of search holds.

        epoch: of a ledger in a database, see `followed`.
        """
        return self._complete(lambda: stores.connect(self.store_url), None, epoch)

    def followed(self, epoch: int | None) -> None:
        """The index of words beside the store, if there is one, holds what the ledger of this epoch accounts for."""
        if epoch is not None and self.database and self.folder is not None and (self.folder / "lexical").exists():
            (self.folder / _FOLLOWED).write_text(str(epoch))

    def create_store(self, schema: Schema) -> Store:
        """A new store, or the one that a creation left which was cut off before its ledger had settings.

        What such a creation left in a folder is made anew where another schema is asked for; in a database, where it
        could be somebody's, that raises SchemaMismatch. Raises NotACollection where there are records. Nothing is left
        where the store refuses; a place that takes no ledger is told before there is a store.
        """
        with self._ledger_possible():
            return self._create_store(schema)

    @contextlib.contextmanager
    def _ledger_possible(self) -> Iterator[None]:
        """The folder is made, or the right to make a schema is checked; what was made goes again after an error."""
        if self.database:
            from nearest.ledger import Ledger

            if not self._known:
                Ledger.check_creatable(self.database)
            yield
            return
        if self.folder is None or not self.shared:  # an embedded store makes its folder itself
            yield
            return
        made = [folder for folder in (self.folder, *self.folder.parents) if not folder.exists()]
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ReadOnly(
                f"the ledger's folder {self.folder} cannot be made ({error.strerror}); say where else the ledger may "
                "be (ledger=, NEAREST_LEDGER)"
            ) from error
        try:
            yield
        except BaseException:
            with contextlib.suppress(OSError):  # somebody else's files are in it by now
                for folder in made:
                    folder.rmdir()
            raise

    def _create_store(self, schema: Schema) -> Store:
        try:
            store = self._connect(schema)
        except SchemaMismatch:
            with stores.connect(self.store_url) as left:
                if left.count():
                    raise self._unaccounted(left, self.name if self.shared else self.store_url) from None
            if self.folder is None or self.shared:
                raise
            for part in ("store", "lexical"):
                if (self.folder / part).exists():
                    shutil.rmtree(self.folder / part)
            store = self._connect(schema)
        if store.count():
            with store:
                raise self._unaccounted(store, self.name if self.shared else self.store_url)
        return store

    def _connect(self, schema: Schema) -> Store:
        try:
            return self._complete(lambda: stores.connect(self.store_url, schema), schema)
        except UnsupportedError as error:
            if error.context.get("feature") != "text" or self.folder is None:
                raise
            # An unknown language is refused before there is anything in the database. Elsewhere, so that nothing of it
            # is left where the database refuses.
            with tempfile.TemporaryDirectory(prefix="nearest-") as folder:
                stores.connect(f"{DEFAULT_STORE}:{folder}/lexical", companion_schema(schema)).close()
            return self._complete(lambda: stores.connect(self.store_url, inner_schema(schema)), schema)

    @property
    def _companion(self) -> str:
        """Where the index of words is, of a store that has none."""
        assert self.folder is not None
        return f"{DEFAULT_STORE}:{self.folder / 'lexical'}"

    def _complete(self, connect: Callable[[], Store], schema: Schema | None, epoch: int | None = None) -> Store:
        """In the layers; with the lexical index beside it where the store keeps no text."""
        store = connect()
        try:
            if store.schema.text is not None or self.folder is None:
                return layers.stack_for(store, meter=self.meter)
            text = replace(store.schema, text="text") if schema is None else schema
            doubtful = schema is None and self._behind(epoch)
            companion = stores.connect(self._companion, companion_schema(text))
            complete = layers.stack_for(store, companion=companion, meter=self.meter)
            if doubtful and isinstance(complete, Lexical):
                complete.verify(repair=True)
                self.followed(epoch)
            return complete
        except BaseException:
            store.close()
            raise

    def _behind(self, epoch: int | None) -> bool:
        """Whether the index of words may lack something.

        Others write to a collection whose ledger is in a database, and have an index of words of their own.
        """
        assert self.folder is not None
        if not (self.folder / "lexical").exists():
            return True
        followed = self.folder / _FOLLOWED
        return bool(self.database) and not (followed.is_file() and followed.read_text() == str(epoch))

    # --- the ledger ---

    def visibility(self, settings: Mapping[str, Any]) -> Visibility:
        """For a ledger that was only glanced at, and had these settings."""
        seen = Visibility(State(epoch=int(settings.get("epoch", 0))))
        if self.shared and self.folder is not None and not self.database:
            seen.watch = watch(self.folder / _LEDGER_FILE)
        return seen

    def glance(self) -> dict[str, Any] | None:
        """The ledger's settings where they can be had cheaply."""
        return glance(self.folder / _LEDGER_FILE) if self.folder and not self.database and self.exists() else None

    def open_ledger(self, visibility: Visibility | None = None) -> Ledger:
        from nearest.ledger import Ledger

        if self.database:
            return Ledger.connect(self.database, self.namespace, visibility)
        if self.folder is None:
            return Ledger.open(None, visibility)
        self.folder.mkdir(parents=True, exist_ok=True)
        return Ledger.open(self.folder / _LEDGER_FILE, visibility, shared=self.shared)


def _home() -> Path:
    named = os.environ.get("NEAREST_HOME")
    data = os.environ.get("XDG_DATA_HOME")
    return Path(named) if named else (Path(data) if data else Path.home() / ".local" / "share") / "nearest"
