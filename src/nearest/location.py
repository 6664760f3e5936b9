"""Where a collection is: its store, its ledger, and its lexical index where the store has no BM25.

An embedded store shares one folder with both. Beside a database, the ledger stands where the store's
module says (`ledger`), else in this machine's own folder for such things ($NEAREST_HOME), or where the
caller says: a folder, or a PostgreSQL database, which every machine reaches.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nearest import layers, stores
from nearest.contract import Schema, Store, StoreURL
from nearest.errors import InvalidInput, NotACollection, SchemaMismatch, UnsupportedError
from nearest.layers.lexical import Lexical, companion_schema, inner_schema
from nearest.ledger import State, Visibility, glance, watch

if TYPE_CHECKING:
    from nearest.ledger import Ledger

DEFAULT_STORE = "edge"
_LEDGER_FILE = "ledger.db"


@dataclass(frozen=True, slots=True)
class Location:
    """name: as shown, without passwords. folder: of the ledger's file and the lexical index; None if in memory.

    database: the ledger's PostgreSQL, instead of a file; namespace: its schema there. shared: other
    processes may use the collection at the same time.
    """

    name: str
    store_url: str
    folder: Path | None
    database: str | None = None
    namespace: str = ""
    shared: bool = False

    @classmethod
    def of(cls, location: str | Path, ledger: str | Path | None = None) -> Location:
        text = str(location)
        if not text:
            raise InvalidInput("the collection's location is empty; give a folder or a store's URL")
        # A URL's scheme is longer than a Windows drive.
        if not (
            isinstance(location, str) and text.partition(":")[0].isidentifier() and text[1:2] != ":" and ":" in text
        ):
            return cls(text, f"{DEFAULT_STORE}:{Path(text) / 'store'}", Path(text))
        url = StoreURL.parse(text)
        module = stores.find(url.scheme)
        if getattr(module, "EMBEDDED", False):
            folder, (_, mark, options) = Path(url.location), text.partition("?")
            return cls(text, f"{url.scheme}:{folder / 'store'}{mark}{options}", folder)
        identity = stores.identity(url)
        if "durable" not in module.STORE.capabilities:  # nor is its ledger then
            return cls(identity, text, None)
        slug = re.sub(r"[^a-z0-9]+", "_", identity.lower()).strip("_")[:40]
        unique = f"{slug}_{hashlib.sha256(identity.encode()).hexdigest()[:8]}"
        own = _home() / unique
        named = ledger or os.environ.get("NEAREST_LEDGER")
        beside = getattr(module, "ledger", lambda _: None)(url)
        place = str(named or beside or own)
        if "://" in place:
            return cls(identity, text, own, place, f"nearest_{unique}", shared=True)
        return cls(identity, text, Path(place) / unique if named else Path(place), shared=True)

    def exists(self) -> bool:
        """Whether there is a ledger; for one in a database only opening it tells."""
        return self.folder is not None and (self.folder / _LEDGER_FILE).is_file()

    def check(self, create: bool) -> None:
        """Raises NotACollection for a place that holds something else, or nothing where nothing may be made."""
        folder = self.folder
        if folder is None or self.database or self.exists():
            return
        if folder.exists() and not folder.is_dir():
            raise NotACollection(f"{folder} is a file; give a folder")
        if folder.exists() and any(entry.name not in ("store", "lexical") for entry in folder.iterdir()):
            raise NotACollection(f"{folder} is not a collection of nearest and not empty; give another folder")
        if not create:
            raise self.missing()

    def missing(self) -> NotACollection:
        """What to raise where there is no collection, and none may be made."""
        elsewhere = f" (its ledger would be in {self.folder}; set NEAREST_LEDGER if it is elsewhere)"
        return NotACollection(
            f"there is no collection at {self.name}; make one with: nearest add PATH -c {self.name}"
            + (elsewhere if self.shared and not self.database else "")
        )

    # --- the store ---

    def open_store(self) -> Store:
        """The collection's store, on which every filter and every kind of search holds."""
        return self._complete(lambda: stores.connect(self.store_url), None)

    def create_store(self, schema: Schema) -> Store:
        """A new store, or the one that a creation left which was cut off before its ledger had settings.

        What such a creation left in a folder is made anew where another schema is asked for; in a database, where it
        could be somebody's, that raises SchemaMismatch. Raises NotACollection where there are records.
        """
        try:
            store = self._connect(schema)
        except SchemaMismatch:
            if self.folder is None or self.shared:
                raise
            with stores.connect(self.store_url) as left:
                if left.count():
                    raise
            for part in ("store", "lexical"):
                if (self.folder / part).exists():
                    shutil.rmtree(self.folder / part)
            store = self._connect(schema)
        if store.count():
            store.close()
            raise NotACollection(
                f"{self.name} holds records that no ledger accounts for; use nearest.connect for it"
                + (", or say where its ledger is (ledger=, NEAREST_LEDGER)" if self.shared else "")
            )
        return store

    def _connect(self, schema: Schema) -> Store:
        try:
            return self._complete(lambda: stores.connect(self.store_url, schema), schema)
        except UnsupportedError as error:
            if error.context.get("feature") != "text" or self.folder is None:
                raise
            # First, since it refuses an unknown language, before there is anything in the database.
            stores.connect(self._companion, companion_schema(schema)).close()
            return self._complete(lambda: stores.connect(self.store_url, inner_schema(schema)), schema)

    @property
    def _companion(self) -> str:
        """Where the index of words is, of a store that has none."""
        assert self.folder is not None
        return f"{DEFAULT_STORE}:{self.folder / 'lexical'}"

    def _complete(self, connect: Callable[[], Store], schema: Schema | None) -> Store:
        """In the layers; with the lexical index beside it where the store keeps no text."""
        store = connect()
        try:
            if store.schema.text is not None or self.folder is None:
                return layers.stack_for(store)
            text = replace(store.schema, text="text") if schema is None else schema
            # Others write to a collection whose ledger is in a database, and have an index of words of their own.
            doubtful = schema is None and (self.database is not None or not (self.folder / "lexical").exists())
            companion = stores.connect(self._companion, companion_schema(text))
            complete = layers.stack_for(store, companion=companion)
            if doubtful and isinstance(complete, Lexical) and store.count() != companion.count():
                complete.verify(repair=True)
            return complete
        except BaseException:
            store.close()
            raise

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
