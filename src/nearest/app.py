"""The one place where parts are put together: open, connect, embedder, and the Collection they give."""

from __future__ import annotations

import contextlib
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Self, cast

import numpy as np
from numpy.typing import ArrayLike

from nearest import chunkers, embedders, filters, generators, layers, readers, rerankers, stores
from nearest.contract import (
    FACTS,
    TOKENS,
    Chunk,
    Chunker,
    Document,
    Embedder,
    Failure,
    FieldKind,
    Float32,
    FusionMethod,
    IndexParams,
    LateInteraction,
    Mark,
    Record,
    Reranker,
    Schema,
    Spent,
    Store,
    Usage,
    VectorSpec,
    canonical_json,
    token_counts,
)
from nearest.errors import (
    CollectionLocked,
    InvalidFilter,
    InvalidInput,
    InvalidQuery,
    ModelMismatch,
    NearestError,
    NotACollection,
    SchemaMismatch,
    UnsupportedError,
)
from nearest.filters import And, Comparison, Filter
from nearest.ingest import Plan, Progress, Report, Writer, files, sql
from nearest.ingest.account import Account
from nearest.ingest.write import Tagged, check_all
from nearest.location import Location
from nearest.search import (
    CachedSearcher,
    Examples,
    Expand,
    Group,
    Highlight,
    Mode,
    Refinement,
    ResultCache,
    Searcher,
    connect_cache,
    highlight,
)
from nearest.search import Hits as Hits

if TYPE_CHECKING:
    from nearest.answer import Answer, Answerer, Conversation
    from nearest.answer.answering import Part
    from nearest.contract import Generator
    from nearest.demo import Demo
    from nearest.evaluate import Evaluation, Stage
    from nearest.evaluate.known import Made
    from nearest.evaluate.similarity import Similarities as Similarities
    from nearest.layers.metrics import Meter
    from nearest.ledger import Ledger
    from nearest.stores._bm25 import Analyzer

DEFAULT_EMBEDDER = "local:all-MiniLM-L6-v2"
DEFAULT_CHUNKER = "recursive"
RESERVED = frozenset(
    {"dense", "lexical", "hybrid", TOKENS, "weighted", "mode", "filter", "first", "rerank", "diversity"}
)
"""What `Hit.explain` calls other things; no vector of a user's has such a name."""
_EVALUATES = "evaluates"  # a setting of the collections that `evaluate` makes: the data set's name
_FIRST_CHUNK = Comparison(("first",), "$eq", True)
_NUMBERED_FIRST = Comparison(("chunk",), "$eq", 0)  # in collections made before passages had `first`


def connect(url: str, schema: Schema | None = None, *, meter: Meter | None = None) -> Store:
    """The contract's Store behind a URL, for records with your own vectors; every filter holds on it.

    With a schema a new collection is made; without one it must exist. meter: a `nearest.Meter`, which counts the calls
    of the database, their seconds and errors. Raises NotACollection, SchemaMismatch, CollectionLocked,
    MissingDependency or InvalidInput.
    """
    return layers.stack_for(stores.connect(url, schema), meter=meter)


def embedder(spec: str = DEFAULT_EMBEDDER, **options: Any) -> Embedder:
    """A model by its name, `provider:model`; raises InvalidInput or ModelError."""
    return embedders.load(spec, **options)


def open(
    location: str | Path = "./.nearest",
    *,
    embedder: str | Embedder | None = None,
    chunker: str | Chunker | None = None,
    fields: Mapping[str, FieldKind] | None = None,
    index: IndexParams | str | None = None,
    language: str | None = None,
    ledger: str | Path | None = None,
    vectors: Mapping[str, str] | None = None,
    token_vectors: str | LateInteraction | None = None,
    create: bool = True,
    cache: str | None = None,
    meter: Meter | None = None,
) -> Collection:
    """Open a collection, or make one: a folder, or a store's URL (`edge:./kb` is the folder, `memory:`).

    embedder, chunker, fields (metadata, or `_chunk.` fields, that filters use an index for, with their kinds), index
    (HNSW and quantization; or `latency`, `balanced`, `recall`) and language (of BM25) are fixed when the collection is
    made; giving another later raises ModelMismatch or SchemaMismatch. So are vectors: names of further vectors a
    passage, each with the metadata field whose text it is of, embedded by the same model ({"title": "title"}), for
    `weights` of `search`; and token_vectors: a late-interaction model (`maxsim:all-MiniLM-L6-v2`), whose vector of
    every token is held as well, for `weights` and for `rerank` by that model. A store that cannot hold these raises
    UnsupportedError before anything is written. ledger: where the ledger of a database's
    collection is, if not where the database says: a folder, or `postgresql://user@host/database`
    ($NEAREST_LEDGER says the same). What a crash left half-done is repaired first; see `Collection.repaired`.
    cache: of answers, `memory` or `redis://host:6379/0`, see `nearest.search.cache`; it never answers with what was
    changed since. meter: a `nearest.Meter`, which counts the calls of the store, their seconds and errors.
    Raises NotACollection (a folder that holds something else; or nothing, with create=False),
    CollectionLocked, CollectionDamaged, ReadOnly.
    """
    place = replace(Location.of(location, ledger).found(), meter=meter)
    place.check(create)
    asked = _Settings(
        embedder, chunker, fields, IndexParams.profile(index) if isinstance(index, str) else index, language,
        vectors, token_vectors,
    )  # fmt: skip
    model: Embedder | None = None
    with contextlib.ExitStack() as opened:
        answers = None if cache is None else opened.enter_context(contextlib.closing(connect_cache(cache)))
        # The store first: its lock keeps other processes from the ledger as well.
        opened_ledger: Ledger | None = None
        if place.database and place.exists():
            opened_ledger = opened.enter_context(contextlib.closing(place.open_ledger()))
        settings: dict[str, Any] = {}
        if (place.exists() and not place.database) or (
            opened_ledger is not None and "embedder" in opened_ledger.settings()
        ):
            store = opened.enter_context(place.open_store(opened_ledger.followed if opened_ledger else None))
            settings = (opened_ledger.settings() if opened_ledger is not None else place.glance()) or {}
            if "embedder" not in settings:
                opened_ledger = opened_ledger or opened.enter_context(contextlib.closing(place.open_ledger()))
                settings = opened_ledger.settings()
            if "embedder" not in settings:  # its creation was cut off, and left a store of whatever schema
                store.close()
        if "embedder" not in settings:
            if not create:
                raise place.missing()
            model = asked.load_embedder()
            record = asked.record(model)  # an unknown chunker is refused here, before anything is written
            store = opened.enter_context(place.create_store(asked.schema(model.dimension)))
            opened_ledger = opened_ledger or opened.enter_context(contextlib.closing(place.open_ledger()))
            opened_ledger.set(record)
            settings = opened_ledger.settings()
        asked.check(settings, store.schema, place.name)
        collection = Collection(place, store, opened_ledger, settings, asked, model, answers)
        opened.pop_all()
        return collection


def index_params(index: str | None = None, quantization: str | None = None) -> IndexParams | None:
    """Index settings and a quantization as they are written; None if neither is given.

    index: a profile's name, or settings: `m=24,ef_construct=200,ef=200,rescore=true,oversampling=3`, of which those
    that are left out are as in `balanced`. Raises InvalidInput.
    """
    if index is None and quantization is None:
        return None
    if index is None or "=" not in index:
        return IndexParams.profile(index or "balanced", quantization=quantization or "none")
    told: dict[str, Any] = {}
    kinds: dict[str, Callable[[str], Any]] = {
        "m": int, "ef_construct": int, "ef": int, "oversampling": float, "rescore": _truth
    }  # fmt: skip
    for part in index.split(","):
        name, _, value = (some.strip() for some in part.partition("="))
        try:
            told[name] = kinds[name](value)
        except (KeyError, ValueError):
            usual = IndexParams()
            raise InvalidInput(
                f"index has no setting {part.strip()!r}; give a profile, or of m={usual.m}, "
                f"ef_construct={usual.ef_construct}, ef={usual.ef}, oversampling={usual.oversampling:g} and "
                f"rescore={str(usual.rescore).lower()} those to change, joined by commas"
            ) from None
    return IndexParams(**told, quantization=cast("Any", quantization or "none"))


def _truth(text: str) -> bool:
    return {"true": True, "false": False}[text]


def available_stores() -> list[dict[str, Any]]:
    """What each store declares of itself, JSON-able, and how to install what it needs."""
    return stores.describe()


class Cut(NamedTuple):
    """A document as a chunker cuts it. tokens: of each chunk, its prefix included, without the model's special ones."""

    document: Document
    chunks: list[Chunk]
    tokens: list[int]


def chunk_file(
    path: str | Path,
    chunker: str | Chunker = DEFAULT_CHUNKER,
    *,
    embedder: str | Embedder | None = None,
    passwords: Sequence[str] = (),
) -> Iterator[Cut | Failure]:
    """The documents of a file as a chunker would cut them for a model; nothing is written.

    Raises InvalidInput for a file that does not exist and for a chunker that does not, Unreadable, and ModelError.
    """
    file = Path(path)
    if not file.is_file():
        raise InvalidInput(f"{path} is not a file; name one")
    model = embedder if isinstance(embedder, Embedder) else embedders.load(embedder or DEFAULT_EMBEDDER)
    cutter = chunkers.make(chunker, model.tokenizer, model)
    for document in readers.for_path(file, passwords).read(file, file.name):
        if isinstance(document, Failure):
            yield document
            continue
        chunks = cutter.chunk_document(document)
        yield Cut(document, chunks, token_counts(model.tokenizer, [c.embedded for c in chunks], special=False))


def find_files(
    paths: str | Path | Iterable[str | Path], *, ignore: bool = True, name: str = "stdin", private: bool = False
) -> files.Found:
    """What `Collection.add_files` would read, to be given to it; raises InvalidInput for what does not exist."""
    some = [paths] if isinstance(paths, str | Path) else list(paths)
    return files.find(some, readers.extensions(), ignore=ignore, name=name, private=private)


def plan_files(
    paths: str | Path | Iterable[str | Path] | files.Found,
    location: str | Path = "./.nearest",
    *,
    embedder: str | Embedder | None = None,
    chunker: str | Chunker | None = None,
    fields: Mapping[str, FieldKind] | None = None,
    vectors: Mapping[str, str] | None = None,
    token_vectors: str | LateInteraction | None = None,
    **how: Any,
) -> Plan:
    """`Collection.plan_files` for a collection that may not exist yet, and is not made by this."""
    asked: Any = {
        "embedder": embedder, "chunker": chunker, "fields": fields, "vectors": vectors, "token_vectors": token_vectors,
    }  # fmt: skip
    try:
        opened = open(location, create=False, **asked)
    except NotACollection:
        from nearest.ingest.plan import Unasked

        Location.of(location).check(create=True)  # raises for a place that holds something else
        model = embedder if isinstance(embedder, Embedder) else embedders.load(embedder or DEFAULT_EMBEDDER)
        opened = open("memory:", **{**asked, "embedder": Unasked(model) if model.unprobed else model})
    with opened:
        return opened.plan_files(paths, **how)


def demo(only: Iterable[str] | None = None) -> Demo:
    """The standard library's documentation, and questions about it; see `nearest.demo`."""
    from nearest import demo

    return demo.load(only)


def evaluate(
    folder: str | Path,
    *,
    location: str | Path | None = None,
    embedder: str | Embedder | None = None,
    chunker: str | Chunker | None = None,
    against: str | Path | None = None,
    runs: str | Path | None = None,
    answers: bool = False,
    generator: str | Generator | None = None,
    fusions: bool = False,
    k: int = 10,
    where: Mapping[str, Any] | None = None,
    weights: Mapping[str, float] | None = None,
    rerank: str | Reranker | None = None,
    progress: Callable[[Stage], None] | None = None,
) -> Evaluation:
    """Index a data set in BEIR's layout and measure dense, lexical and hybrid search on it.

    fusions: measure every method of fusion, and compare it with the default one by a paired test.
    k: documents that nDCG, the reciprocal rank and precision look at. where, weights, rerank: see `Collection.search`;
    the condition holds for all searches and answers, and with weights or with a reranker the default search is measured
    once more, as `weighted` and as `reranked`, and compared with itself without.
    against: a TREC run file to compare with. runs: a folder for TREC run files, one a mode. answers: measure
    `Collection.ask` too, with the reranker if there is one, with a generator or without.
    location: where its collection is kept, so that a second run indexes nothing; by default it is
    temporary. A collection that was not made by this function is measured as it is, and nothing is written to it.
    chunker: `whole` where the collection is made. Texts over the model's limit are pooled, and counted. Raises
    InvalidInput, before anything is written, for a data set that does not fit together, for a run file or folder that
    cannot serve, and for a collection that lacks documents of the data set, or was made of another one.
    """
    import tempfile

    from nearest import evaluate

    evaluate.check_k(k)
    filters.parse(where)
    judge = rerankers.load(rerank) if isinstance(rerank, str) else rerank
    dataset = evaluate.load(folder, readers.for_path(Path(folder) / "corpus.jsonl"))
    theirs = evaluate.read_run(against, dataset, k) if against is not None else None
    if runs is not None:
        evaluate.check_runs(runs, dataset)
    if generator is not None and not answers:
        raise InvalidInput("a generator writes answers, which were not asked for; give answers=True (--answers)")
    model = generators.load(generator) if isinstance(generator, str) else generator
    with contextlib.ExitStack() as stack:
        place = location or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="nearest-"))) / "kb"
        try:
            kb = stack.enter_context(open(place, embedder=embedder, chunker=chunker, create=False))
        except NotACollection:
            if weights is not None:
                raise InvalidInput(
                    "weights are of the vectors of a collection that holds several; make one with them (nearest add "
                    "--vector) and give it (-c)"
                ) from None
            kb = stack.enter_context(open(place, embedder=embedder, chunker=chunker or "whole"))
        if weights is not None:  # a wrong name is to be told before the documents are read
            kb.search("?", k=1, mode="dense", weights=weights)
        held, known = kb.count(), len(kb.ledger.lookup(dataset.ids))
        made = not held or _EVALUATES in kb.ledger.settings()
        if not held:
            kb.ledger.set({_EVALUATES: dataset.name})
        if made and held > known:
            raise InvalidInput(f"{place} holds other documents than {folder}; give another folder")
        if not made and known < len(dataset.ids):
            raise InvalidInput(
                f"{place} was not made by an evaluation, and lacks {len(dataset.ids) - known} of the documents of "
                f"{folder}, which are not added to it; give another folder"
            )
        measured = evaluate.run(
            kb, dataset, progress, fusions=fusions, index=made, k=k, where=where, weights=weights, rerank=judge
        )
        if runs is not None:
            evaluate.write_runs(measured, runs)
        if against is not None and theirs is not None:
            evaluate.compare_with(measured, Path(against).name, theirs)
        if answers:
            measured.answers, measured.intervals["answers"] = evaluate.ask(
                dataset.queries,
                dataset.qrels,
                lambda text: kb.ask(text, where=where, rerank=judge, generator=model),
                progress,
            )
        return measured


def make_test_set(
    location: str | Path,
    folder: str | Path,
    *,
    count: int = 100,
    seed: int = 0,
    generator: str | Generator | None = None,
    progress: Callable[[int, int], None] = lambda done, of: None,
) -> Made:
    """Known-item queries about a collection's documents, in BEIR's layout; see `nearest.evaluate.known`.

    generator: writes a question about each document drawn, a request each; without one, queries are words drawn from
    the documents. Returns how many queries there are, and what they cost. Raises InvalidInput for a folder that is not
    empty, and what the generator raises; nothing is written then.
    """
    from nearest.evaluate import known
    from nearest.untrusted import harmless

    model = generators.load(generator) if isinstance(generator, str) else generator
    with open(location, create=False) as kb:
        ids = sorted({record.document_id or "" for record in kb.scan()})
        documents = [document for document in map(kb.get, ids) if document is not None]
    spent = Spent()

    def ask(text: str) -> str:
        nonlocal spent
        assert model is not None
        asked, used = known.question(model, harmless(text))
        spent += used
        return asked

    queries = known.make(
        documents, folder, count=count, seed=seed, ask=None if model is None else ask, progress=progress
    )
    return known.Made(queries, spent)


def compare_models(
    models: Sequence[str | Embedder],
    pairs: Sequence[tuple[str, str]] | str | Path,
    *,
    queries: bool = False,
    truncate: bool = False,
) -> Similarities:
    """How models see the similarity of pairs of texts, and how far they agree.

    pairs: the texts, or a file of them, see `nearest.evaluate.similarity.read_pairs`; queries and truncate: see
    `similarities` there. Raises InvalidInput, ModelError or TextTooLong.
    """
    from nearest.evaluate import similarity

    some = (
        similarity.read_pairs(pairs)
        if isinstance(pairs, str | Path)
        else [similarity.Pair(first, second) for first, second in pairs]
    )
    loaded = [embedders.load(model) if isinstance(model, str) else model for model in models]
    return similarity.similarities(loaded, some, queries=queries, truncate=truncate)


class _Settings:
    """What a caller asks of a collection; None where the collection decides."""

    def __init__(
        self,
        embedder: str | Embedder | None,
        chunker: str | Chunker | None,
        fields: Mapping[str, FieldKind] | None,
        index: IndexParams | None,
        language: str | None,
        vectors: Mapping[str, str] | None,
        token_vectors: str | LateInteraction | None,
    ) -> None:
        _check_vectors(vectors or {}, fields or {})
        self.vectors = vectors
        self.token_vectors = token_vectors
        self._late = token_vectors if isinstance(token_vectors, LateInteraction) else None
        self.embedder = embedder
        # What a model was asked for before it came here is nobody's of ours.
        self.before = embedder.usage if isinstance(embedder, Embedder) else Usage()
        self.chunker = chunker
        self.fields = fields
        self.index = index
        self.language = language

    def load_embedder(self) -> Embedder:
        if isinstance(self.embedder, Embedder):
            return self.embedder
        return embedders.load(self.embedder or DEFAULT_EMBEDDER)

    def load_late(self) -> LateInteraction | None:
        """Raises InvalidInput for a model that has no token vectors."""
        if isinstance(self.token_vectors, str) and self._late is None:
            model = rerankers.load(self.token_vectors)
            if not isinstance(model, LateInteraction):
                raise InvalidInput(
                    f"{self.token_vectors} has no token vectors; give one such as maxsim:all-MiniLM-L6-v2"
                )
            self._late = model
        return self._late

    def schema(self, dimension: int) -> Schema:
        late = self.load_late()
        return Schema(
            vectors={
                **{name: VectorSpec(dimension) for name in ("dense", *(self.vectors or ()))},
                **({TOKENS: VectorSpec(late.dimension, multi=True)} if late is not None else {}),
            },
            text="text",
            language=self.language or "english",
            fields=self._indexed(),
            index=self.index or IndexParams(),
        )

    def _indexed(self) -> dict[str, FieldKind]:
        return {"first": "bool", **{filters.payload_path(p): kind for p, kind in (self.fields or {}).items()}}

    def record(self, model: Embedder) -> dict[str, Any]:
        chunker = chunkers.make(self.chunker or DEFAULT_CHUNKER, model.tokenizer, model)
        late = self.load_late()
        return {
            **({"vectors": dict(self.vectors)} if self.vectors else {}),
            **({"token_vectors": {"model": late.name, "fingerprint": late.fingerprint}} if late is not None else {}),
            "embedder": model.name,
            "fingerprint": model.fingerprint,
            "chunker": self.chunker
            if isinstance(self.chunker, str)
            else DEFAULT_CHUNKER
            if self.chunker is None
            else "",
            "chunker_settings": dict(chunker.settings),
        }

    def check(self, settings: Mapping[str, Any], schema: Schema, name: str) -> None:
        """Raises ModelMismatch or SchemaMismatch where the collection is otherwise than asked."""
        if self.embedder is not None:
            asked = embedders.canonical(self.embedder) if isinstance(self.embedder, str) else self.embedder.name
            if asked != settings["embedder"]:
                raise ModelMismatch(
                    f"{name} was made with the model {settings['embedder']}, not {asked}; open it without `embedder`, "
                    "or use another folder"
                )
        late = self.token_vectors.name if isinstance(self.token_vectors, LateInteraction) else self.token_vectors
        held = settings.get("token_vectors", {}).get("model", "")
        if late is not None and late != held and late.partition("?")[0] == held.partition("?")[0]:
            late = getattr(self.load_late(), "name", late)  # the same options may be written in another order
        for what, given, was, now in (
            ("fields", self.fields, schema.fields, self._indexed()),
            ("index", self.index, schema.index, self.index),
            ("language", self.language, schema.language, self.language),
            ("vectors", self.vectors, settings.get("vectors", {}), dict(self.vectors or {})),
            ("token_vectors", late, settings.get("token_vectors", {}).get("model"), late),
        ):
            if given is not None and was != now:
                raise SchemaMismatch(f"{name} was made with {what} {was}, not {now}; open it without `{what}`")


def _ids(option: str, given: Iterable[object]) -> list[str]:
    ids = list(given) if isinstance(given, Iterable) else [given]
    if not all(isinstance(each, str) for each in ids):
        raise InvalidQuery(f"{option} must be the id of a document or a chunk, or a list of ids, got {given!r}")
    return cast("list[str]", ids)


def _check_vectors(vectors: Mapping[str, str], fields: Mapping[str, FieldKind]) -> None:
    for name, path in vectors.items():
        if not re.fullmatch("[a-z][a-z0-9_]{0,31}", name) or name in RESERVED:
            raise InvalidInput(
                f"vectors: a name is up to 32 small letters, digits and _, and none of {', '.join(sorted(RESERVED))}; "
                f"got {name!r}"
            )
        if not isinstance(path, str) or not all(path.split(".")):
            raise InvalidInput(f"vectors.{name}: give a metadata field, got {path!r}")
        if fields.get(path, "keyword") != "keyword":
            raise InvalidInput(f"vectors.{name}: {path} is declared as {fields[path]}; only texts are embedded")


class Collection:
    """Documents, searchable. Close it, or use it in a `with` block; safe to search while adding.

    repaired: what was finished or undone when it was opened after a crash, a line a kind. cache: of answers, if one was
    asked for; its `stats` tell the hit rate.
    """

    def __init__(
        self,
        place: Location,
        store: Store,
        ledger: Ledger | None,
        settings: Mapping[str, Any],
        asked: _Settings,
        model: Embedder | None,
        cache: ResultCache | None = None,
    ) -> None:
        self.cache = cache
        self.name = place.name
        self.store = store
        self._place = place
        self._ledger = ledger
        self._visibility = ledger.visibility if ledger is not None else place.visibility(settings)
        self._settings = settings
        self._asked = asked
        self._model = model
        if model is not None:
            Account.of(model, asked.before)
        self._cutter: Chunker | None = None
        prefix = "metadata."
        self._fields: dict[str, FieldKind] = {
            path.removeprefix(prefix): kind for path, kind in store.schema.fields.items() if path.startswith(prefix)
        }
        self._vectors: dict[str, str] = dict(settings.get("vectors", {}))
        # What documents must obey: texts that are embedded are texts.
        self._obeyed: dict[str, FieldKind] = {**dict.fromkeys(self._vectors.values(), "keyword"), **self._fields}
        self._rerankers: dict[str, Reranker] = {}
        late = (lambda: self._late) if "token_vectors" in settings else None
        self._searcher = Searcher(store, self._visibility, lambda: self.embedder, late)
        # A ledger that was not opened has nothing to repair.
        self.repaired: list[str] = []
        if ledger is not None:
            with contextlib.suppress(CollectionLocked):  # then what is under way is another process's
                self.repaired = self._writer.recover()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the collection; repeating it does nothing."""
        self._tell_usage()
        if self._ledger is not None:
            self._ledger.close()
        if self.cache is not None:
            self.cache.close()
        self.store.close()  # last: its lock guards the ledger
        if self._ledger is not None:
            self._place.followed(self._ledger.followed)

    def _tell_usage(self) -> None:
        """What the model was asked for outside of runs, to the ledger; see `nearest.ingest.account`.

        A ledger that is not open is opened for what a provider was asked for alone.
        """
        if self._model is None or not (self._ledger is not None or self._model.usage.requests):
            return
        used = Account.of(self._model, self._asked.before).take(self._model)
        if used != Usage():
            # One that cannot be written costs the count, and not the answers.
            with contextlib.suppress(NearestError):
                self.ledger.queried(self._model.name, used)

    @property
    def ledger(self) -> Ledger:
        """What was indexed, from what; opened when first needed."""
        with self._visibility.mutex:
            if self._ledger is None:
                self._ledger = self._place.open_ledger(self._visibility)
            return self._ledger

    @cached_property
    def _writer(self) -> Writer:
        return Writer(
            self.store, self.ledger, lambda: self.embedder, lambda: self._chunker, self._windows, self._obeyed,
            self._vectors, (lambda: self._late) if "token_vectors" in self._settings else None,
        )  # fmt: skip

    @property
    def embedder(self) -> Embedder:
        """The collection's model, loaded when first needed; raises ModelMismatch if its weights are others."""
        if self._model is None:
            if self._asked.embedder is None:
                self._asked.embedder = self._settings["embedder"]
            model = self._asked.load_embedder()
            dimension = self.store.schema.vectors["dense"].dim
            model.expect(dimension)  # it was made with that: the model need not be asked
            if model.fingerprint != self._settings["fingerprint"] or model.dimension != dimension:
                raise ModelMismatch(
                    f"{self.name} was made with other weights or settings of {model.name} "
                    f"({self._settings['fingerprint']}, now {model.fingerprint}); its vectors are not comparable"
                )
            self._model = model
            Account.of(model, self._asked.before)
        return self._model

    @cached_property
    def _late(self) -> LateInteraction:
        """The model of the token vectors; raises ModelMismatch if its weights are others."""
        made = self._settings["token_vectors"]
        if self._asked.token_vectors is None:
            self._asked.token_vectors = made["model"]
        model = self._asked.load_late()
        assert model is not None
        if model.fingerprint != made["fingerprint"]:
            raise ModelMismatch(
                f"{self.name} holds token vectors of other weights of {model.name} ({made['fingerprint']}, now "
                f"{model.fingerprint}); they are not comparable"
            )
        return model

    @property
    def note(self) -> str:
        """What the user should know of the model (`Embedder.note`), once it was loaded."""
        return self._model.note if self._model is not None else ""

    @property
    def _chunker_spec(self) -> str | Chunker:
        spec: str | Chunker = self._asked.chunker if self._asked.chunker is not None else self._settings["chunker"]
        if not spec:
            raise SchemaMismatch(f"{self.name} was made with a chunker of your own; open it with `chunker=`")
        return spec

    @property
    def _chunker(self) -> Chunker:
        if self._cutter is None:
            cutter = chunkers.make(self._chunker_spec, self.embedder.tokenizer, self.embedder)
            if canonical_json(dict(cutter.settings)) != canonical_json(self._settings["chunker_settings"]):
                raise SchemaMismatch(
                    f"{self.name} was made with the chunker {self._settings['chunker_settings']}, "
                    f"not {dict(cutter.settings)}; open it without `chunker`"
                )
            self._cutter = cutter
        return self._cutter

    def _windows(self) -> Chunker:
        # Room is left for the special tokens and for the prefix of models that want one.
        size = max(self.embedder.max_tokens - 16, 8)
        return chunkers.make(f"recursive:size={size},overlap=0", self.embedder.tokenizer)

    # --- writing ---

    def add(
        self,
        documents: Iterable[Document],
        *,
        truncate: bool = False,
        pool: bool = False,
        budget: float | None = None,
        skip_duplicates: float | None = None,
        detect_language: bool = False,
        progress: Callable[[Progress], None] | None = None,
    ) -> Report:
        """Add or update documents; unchanged ones are skipped. Returns when all is durable.

        A list is checked first: InvalidDocument for one that could never be added, and nothing is
        written. In an iterator, which cannot be looked at twice, such a document is in `report.failed`.
        A chunk over the model's limit fails its document, unless it may be cut (truncate) or embedded as the
        mean of windows that fit (pool); the report counts them. budget: dollars that embedding may cost at most;
        BudgetExceeded is raised before it would cost more, and what was finished is kept. skip_duplicates: chunks
        that resemble another by so much (0.3 to 1; 0.9, say) are left out and reported; what that means is in
        `nearest.ingest.duplicates`. detect_language: each chunk's language is among its facts, see
        `nearest.ingest.facts`.
        """
        if isinstance(documents, Document):
            raise InvalidInput("add needs a list of documents, got one; write add([document])")
        if isinstance(documents, Sequence):
            check_all(documents, self._obeyed)
        with self._writer.within(budget, skip_duplicates=skip_duplicates, detect_language=detect_language):
            report = self._writer.add((Tagged(d) for d in documents), truncate=truncate, pool=pool, progress=progress)
        return self._indexed(report)

    def add_files(
        self,
        paths: str | Path | Iterable[str | Path] | files.Found,
        *,
        passwords: Sequence[str] = (),
        ignore: bool = True,
        name: str = "stdin",
        private: bool = False,
        full: bool = False,
        truncate: bool = False,
        pool: bool = False,
        budget: float | None = None,
        skip_duplicates: float | None = None,
        detect_language: bool = False,
        progress: Callable[[Progress], None] | None = None,
    ) -> Report:
        """Add files, folders, globs, web pages, object stores, rows of databases; what is gone from them is removed.

        See `nearest.ingest.sources` for what a path may be, and `add_sql` for rows (`sql:URL?query=...`).
        passwords: tried on encrypted files. ignore: leave out what .gitignore and .nearestignore say. name: of
        standard input (`-`); its extension tells the format. private: web pages on private addresses may be
        read. full: read rows from the start, not from where their cursor is. budget: see `add`.
        """
        found = (
            paths if isinstance(paths, files.Found) else find_files(paths, ignore=ignore, name=name, private=private)
        )
        with self._writer.within(budget, skip_duplicates=skip_duplicates, detect_language=detect_language):
            report = files.add_files(
                self._writer, self.ledger, lambda path: readers.for_path(path, passwords), found,
                full=full, truncate=truncate, pool=pool, progress=progress,
            )  # fmt: skip
        return self._indexed(report)

    def plan_files(
        self,
        paths: str | Path | Iterable[str | Path] | files.Found,
        *,
        passwords: Sequence[str] = (),
        full: bool = False,
        truncate: bool = False,
        pool: bool = False,
        budget: float | None = None,
        skip_duplicates: float | None = None,
        detect_language: bool = False,
        **how: Any,
    ) -> Plan:
        """What `add_files` with these arguments would do and cost; nothing is written, and no provider asked.

        budget: whether it would suffice is in the plan. Raises UnsupportedError for a chunker of your own that asks
        the model where to cut; of `semantic` the sentences are counted, and the cuts guessed.
        """
        from nearest.ingest.plan import Planner, Sentences

        found = paths if isinstance(paths, files.Found) else find_files(paths, **how)
        late = self._late if "token_vectors" in self._settings else None
        chunker, sentences = self._chunker, None
        if chunker.embeds and isinstance(self._chunker_spec, str):
            sentences = Sentences(self.embedder)
            chunker = chunkers.make(self._chunker_spec, self.embedder.tokenizer, sentences)
        with self._writer.within(None, skip_duplicates=skip_duplicates, detect_language=detect_language):
            planner = Planner(
                self._writer,
                self.ledger,
                self.embedder,
                chunker,
                self._obeyed,
                late,
                sentences,
                budget,
                skip_duplicates,
            )
            stand_in = cast("Any", planner)
            files.add_files(
                stand_in, stand_in, lambda path: readers.for_path(path, passwords), found,
                full=full, truncate=truncate, pool=pool,
            )  # fmt: skip
        planner.plan.skipped = sum(source.skipped for source in found.sources)
        return planner.plan

    def add_sql(
        self,
        url: str,
        query: str,
        *,
        id: str = "id",
        text: str = "text",
        cursor: str | None = None,
        full: bool = False,
        truncate: bool = False,
        pool: bool = False,
        budget: float | None = None,
        skip_duplicates: float | None = None,
        detect_language: bool = False,
        progress: Callable[[Progress], None] | None = None,
    ) -> Report:
        """Add the rows of a query, a document each; the columns that are not named are metadata.

        url: SQLAlchemy's (`postgresql://user@host/db`). text: a column, or several by commas. cursor: a column that
        grows with every change of a row; from the second run on only rows from its highest value on are read, and
        none is removed. Without it, the first time, and with `full`, all are read, and what is gone is removed.
        budget: see `add`. Raises InvalidInput, ConnectionFailed or MissingDependency.
        """
        asked = sql.Query(url, query.rstrip().removesuffix(";"), id, text, cursor)
        with self._writer.within(budget, skip_duplicates=skip_duplicates, detect_language=detect_language):
            report = files.add_sql(
                self._writer, self.ledger, asked, full=full, truncate=truncate, pool=pool, progress=progress
            )
        return self._indexed(report)

    def _indexed(self, report: Report) -> Report:
        with report.profile.timed("indexing"):
            self.store.optimize()
        self._tell_usage()
        return report

    def delete(self, ids: Iterable[str] | None = None, *, where: Mapping[str, Any] | Filter | None = None) -> int:
        """Remove documents by id, or those that satisfy a condition; returns how many there were."""
        if (ids is None) == (where is None):
            raise InvalidQuery("delete needs either ids or where")
        if isinstance(ids, str):
            raise InvalidQuery("ids must be a list of strings, got one string; write [id]")
        if ids is None:
            ids = [record.document_id or "" for record in self.store.scan_all(where=self._first(where))]
        return self._writer.remove(ids)

    # --- reading ---

    def search(
        self,
        query: str | None = None,
        *,
        k: int = 10,
        where: Mapping[str, Any] | Filter | None = None,
        mode: Mode = "hybrid",
        fusion: FusionMethod = "adaptive",
        alpha: float | None = None,
        vector: ArrayLike | None = None,
        candidates: int = 100,
        weights: Mapping[str, float] | None = None,
        ef: int | None = None,
        like: str | Sequence[str] = (),
        unlike: str | Sequence[str] = (),
        expand: Expand | None = None,
        rerank: str | Reranker | None = None,
        rerank_candidates: int = 50,
        rerank_seconds: float | None = None,
        min_score: float | None = None,
        group_by: Group | None = None,
        diversity: float = 0.0,
        after: str | None = None,
        tenant: str = "",
        explain: bool = True,
    ) -> Hits:
        """At most k hits (chunks) by falling score.

        mode: dense (meaning), lexical (BM25), or hybrid, which fuses the `candidates` best of both.
        vector: float32 (d,), used instead of embedding the query. Each hit's `explain` tells its rank and score
        in every part that found it, and that of the answer the time of each stage, see `Hits`; explain=False leaves
        both out. Raises InvalidQuery or InvalidFilter.

        alpha: weighs the two parts of hybrid by hand, from 0 (words alone) to 1 (vectors alone), instead of by what
        each ranking tells of itself; scores are then `normalized`, or as `fusion` says if it is not adaptive.

        weights: of the vectors by name, of a collection that has several ({"dense": 1, "title": 0.5}; `dense` is the
        passage's own). The dense score of a hit is then the weighted mean of its cosines, each computed for whatever is
        among the `candidates` best by any of them; of `tokens` it is the mean, over the query's tokens, of the largest
        cosine with one of the passage's. A document without such a field has the passage's own vector there.

        like, unlike: ids of documents, or of chunks (`document#ordinal`), that move the query's vector towards
        them and away (see `search.feedback`), or stand for it where there is no query; none of them is found.
        expand: a function from the query to other wordings of it, which are searched as well and fused with it.

        Then, in this order. rerank: a model, `provider:model`, that judges the `rerank_candidates` best, or k if that
        is more; scores are then its own. With rerank_seconds, a model that takes longer, or cannot be reached, costs
        the reranking alone: the order and scores of the first stage are returned, marked in `explain`. min_score:
        leaves out what is below. group_by="document": the best chunk of each of k documents. diversity, 0 to 1: how
        much likeness to better hits costs (MMR); the order is then no longer by score.

        after: for pages, "" and then the last page's `Hits.after`, until that is None. Pages are cut from one ranking
        of the `candidates` best (`rerank_candidates` with rerank): while no document changes, they give it whole,
        each hit once. While documents change, each page is of one state of the collection, and goes on after the
        last hit of the page before, wherever that stands now: a hit that fell since may come again, one that rose may
        be missed.

        tenant: on whose behalf; the cache answers from searches of the same tenant alone. It is no condition, `where`
        is. `Hits.cached` tells what the cache answered.
        """
        how = self._refinement(rerank, rerank_candidates, rerank_seconds, min_score, group_by, diversity, after)
        return self._searching(tenant)(
            [query], k=k, where=where, mode=mode, fusion=fusion, candidates=candidates, ef=ef, explain=explain,
            vectors=None if vector is None else [vector], refinement=how,
            examples=self._examples(like, unlike, query is not None or vector is not None) if like or unlike else None,
            expand=expand, weights=weights, alpha=alpha,
        )[0]  # fmt: skip

    def search_many(
        self,
        queries: Sequence[str],
        *,
        k: int = 10,
        where: Mapping[str, Any] | Filter | None = None,
        mode: Mode = "hybrid",
        fusion: FusionMethod = "adaptive",
        alpha: float | None = None,
        vectors: Sequence[ArrayLike] | None = None,
        candidates: int = 100,
        weights: Mapping[str, float] | None = None,
        ef: int | None = None,
        like: str | Sequence[str] = (),
        unlike: str | Sequence[str] = (),
        expand: Expand | None = None,
        rerank: str | Reranker | None = None,
        rerank_candidates: int = 50,
        rerank_seconds: float | None = None,
        min_score: float | None = None,
        group_by: Group | None = None,
        diversity: float = 0.0,
        tenant: str = "",
        explain: bool = True,
    ) -> Sequence[Hits]:
        """`search` for many queries at once: one pass of the model, one round trip to the store.

        like, unlike: move every query. expand: of each query. rerank_seconds: for each query. There are no pages, since
        a cursor is one query's: use `search` with `after`.
        """
        if isinstance(queries, str):
            raise InvalidQuery("queries must be a list of strings, got one string; use search")
        if not isinstance(queries, Iterable):
            raise InvalidQuery(f"queries must be a list of strings, got {queries!r}")
        if vectors is not None and len(vectors) != len(queries):
            raise InvalidQuery(f"{len(queries)} queries need as many vectors, got {len(vectors)}")
        return self._searching(tenant)(
            list(queries), k=k, where=where, mode=mode, fusion=fusion, candidates=candidates, ef=ef, explain=explain,
            vectors=vectors, weights=weights, alpha=alpha, expand=expand,
            examples=self._examples(like, unlike, True) if like or unlike else None,
            refinement=self._refinement(rerank, rerank_candidates, rerank_seconds, min_score, group_by, diversity),
        )  # fmt: skip

    def _searching(self, tenant: str) -> Callable[..., list[Hits]]:
        """`Searcher.search_many`, through the cache where there is one."""
        if not isinstance(tenant, str):
            raise InvalidQuery(f"tenant must be a string, got {tenant!r}")
        return self._searcher.search_many if self._cached is None else partial(self._cached.search_many, tenant)

    @cached_property
    def _cached(self) -> CachedSearcher | None:
        def spec(reranker: Reranker) -> str | None:
            return next((spec for spec, known in self._rerankers.items() if known is reranker), None)

        if self.cache is None:
            return None
        return CachedSearcher(self._searcher, self.cache, self._visibility, lambda: self.embedder, spec)

    def _refinement(
        self,
        rerank: str | Reranker | None,
        candidates: int,
        seconds: float | None,
        min_score: float | None,
        group_by: Group | None,
        diversity: float,
        after: str | None = None,
    ) -> Refinement:
        rerank = self._reranker(rerank)
        stored = False
        if isinstance(rerank, LateInteraction):
            stored = rerank.fingerprint == self._settings.get("token_vectors", {}).get("fingerprint")
        return Refinement(rerank, candidates, seconds, min_score, group_by, diversity, after, stored)

    def _reranker(self, asked: str | Reranker | None) -> Reranker | None:
        if isinstance(asked, str):
            if asked not in self._rerankers:  # a model is loaded once
                self._rerankers[asked] = rerankers.load(asked)
            return self._rerankers[asked]
        if asked is not None and not isinstance(asked, Reranker):
            raise InvalidInput(f"rerank must be provider:model, or a Reranker, got {asked!r}")
        return asked

    def _examples(self, like: str | Sequence[str], unlike: str | Sequence[str], queried: bool) -> Examples:
        """The vectors of documents (the mean of their chunks') and chunks, and the records that these are."""
        sides = [
            [side] if isinstance(side, str) else _ids(name, side) for name, side in (("like", like), ("unlike", unlike))
        ]
        if not sides[0] and not queried:
            raise InvalidQuery("unlike needs something to move away from it: a query, a vector or like")
        named = [(name, *name.rpartition("#")[::2]) for side in sides for name in side]
        known = self.ledger.record_ids({part for name, document, _ in named for part in (name, document) if part})
        ids: dict[str, list[str]] = {}
        for name, document, ordinal in named:
            ids[name] = list(known.get(name) or ())
            if not ids[name] and ordinal.isdecimal():
                ids[name] = list(known.get(document) or ())[int(ordinal) :][:1]
            if not ids[name]:
                raise InvalidQuery(f"{name!r} is the id of no document and no chunk here")
        wanted = {record for some in ids.values() for record in some}
        vectors = {record.id: record.vectors["dense"] for record in self.store.get(wanted, with_vectors=True)}

        def rows(side: list[str]) -> Float32:
            means = [np.mean([vectors[i] for i in ids[name] if i in vectors], axis=0) for name in side]
            unit = [mean / (np.linalg.norm(mean) or 1.0) for mean in means]
            return np.array(unit, np.float32).reshape(len(side), self.store.schema.vectors["dense"].dim)

        return Examples(rows(sides[0]), rows(sides[1]), frozenset(wanted))

    def facets(
        self, field: str, *, where: Mapping[str, Any] | Filter | None = None, k: int = 10
    ) -> list[tuple[Any, int]]:
        """The k most frequent values of a metadata field among the documents that satisfy a condition, with counts.

        Exact: each such document is read, its text included. Dots reach into objects; of a list each different
        element counts once; null, missing values and objects do not count. Ties by value. Raises InvalidQuery for a
        field of which no document has a value, and that was not declared.
        """
        if not isinstance(field, str) or not field or not all(field.split(".")):
            raise InvalidQuery(f"a field is a name, or names joined by dots, got {field!r}")
        if not isinstance(k, int) or isinstance(k, bool) or k < 1:
            raise InvalidQuery(f"k must be a positive integer, got {k!r}")
        path = tuple(field.split("."))
        counts: Counter[tuple[bool, Any]] = Counter()
        for record in self.store.scan_all(where=self._first(where)):
            if record.id not in self._visibility.hidden:
                value = filters.resolve(record.metadata, path)
                items = value if isinstance(value, list | tuple) else [value]
                # True is no 1 here, though it equals it in Python.
                counts.update({(isinstance(item, bool), item) for item in items if isinstance(item, str | int | float)})
        if (
            not counts
            and field not in self._fields
            and self.ledger.count()
            and not self.count({field: {"$exists": True}})
        ):
            raise InvalidQuery(f"no document has a value of a metadata field {field!r}{self._similar(field)}")
        ranked = sorted(counts.items(), key=lambda pair: (-pair[1], str(pair[0][1]), pair[0][0]))
        return [(value, count) for (_, value), count in ranked[:k]]

    def _similar(self, field: str) -> str:
        """What a misspelled field may have meant, by those of one document and those declared."""
        some = next(iter(self.store.scan_all(where=self._first(None))), None)
        known = {} if some is None else some.metadata
        names = sorted({*self._fields, *(name for name, value in known.items() if value not in (None, [], ()))})
        return f"; there is {', '.join(names[:20])}" if names else ""

    def highlight(self, query: str, text: str, *, sentences: int = 2) -> Highlight:
        """Where a text, such as a hit's, speaks of the query: spans of the shared words and of the best sentences.

        Words are compared as BM25 does in the collection's language: by their stems, without stop words.
        """
        from nearest.answer.sentences import spans

        for name, value in (("query", query), ("text", text)):
            if not isinstance(value, str):
                raise InvalidQuery(f"{name} must be a string, got {value!r}")
        if not isinstance(sentences, int) or isinstance(sentences, bool) or sentences < 0:
            raise InvalidQuery(f"sentences must be an integer from 0, got {sentences!r}")
        return highlight(query, text, terms=self._analyzer.terms, sentences=spans, best=sentences)

    @cached_property
    def _analyzer(self) -> Analyzer:
        from nearest.stores._bm25 import Analyzer

        return Analyzer(self.store.schema.language)

    def ask(
        self,
        question: str,
        *,
        k: int = 8,
        where: Mapping[str, Any] | Filter | None = None,
        mode: Mode = "hybrid",
        rerank: str | Reranker | None = None,
        rerank_seconds: float | None = None,
        generator: str | Generator | None = None,
        budget: int = 3000,
        max_tokens: int = 800,
        tenant: str = "",
    ) -> Answer:
        """An answer from the documents, whose every sentence cites the passage that it is from.

        generator: a model, `provider:model`; without one, the sentences that answer best are quoted. budget: tokens of
        the passages together; max_tokens: of the answer. rerank, rerank_seconds, tenant: of the search, see `search`;
        answers are not cached. A provider that fails costs the generated text alone, see `Answer.notice`. What it all
        cost is in the answer; what others ask of the same models at the same moments is counted with it.
        Raises InvalidQuery, also for a budget that no passage fits, InvalidFilter, InvalidInput or MissingDependency.
        """
        from nearest.answer import Asked

        return self._answerer(generator, rerank, rerank_seconds, tenant).answer(
            question, Asked(k, where, mode, budget, max_tokens)
        )

    def ask_stream(
        self,
        question: str,
        *,
        k: int = 8,
        where: Mapping[str, Any] | Filter | None = None,
        mode: Mode = "hybrid",
        rerank: str | Reranker | None = None,
        rerank_seconds: float | None = None,
        generator: str | Generator | None = None,
        budget: int = 3000,
        max_tokens: int = 800,
        tenant: str = "",
    ) -> Iterator[Part]:
        """`ask` as it happens: the `Sources`, pieces of text (str), each `Sentence` once checked, the `Answer`."""
        from nearest.answer import Asked

        return self._answerer(generator, rerank, rerank_seconds, tenant).stream(
            question, Asked(k, where, mode, budget, max_tokens)
        )

    def conversation(
        self,
        *,
        k: int = 8,
        where: Mapping[str, Any] | Filter | None = None,
        mode: Mode = "hybrid",
        rerank: str | Reranker | None = None,
        rerank_seconds: float | None = None,
        generator: str | Generator | None = None,
        budget: int = 3000,
        max_tokens: int = 800,
        history: Iterable[Sequence[str]] = (),
        tenant: str = "",
    ) -> Conversation:
        """Questions that may refer to those before them; its `ask` and `stream` are as those here.

        history: the turns of an earlier one (its `history`: question, the same standing alone, answer), to go on with.
        """
        from nearest.answer import Asked, Conversation

        return Conversation(
            self._answerer(generator, rerank, rerank_seconds, tenant),
            Asked(k, where, mode, budget, max_tokens),
            history=history,
        )

    def _answerer(
        self, generator: str | Generator | None, rerank: str | Reranker | None, seconds: float | None, tenant: str
    ) -> Answerer:
        from nearest.answer import Answerer
        from nearest.stores._bm25 import Analyzer

        model = generators.load(generator) if isinstance(generator, str) else generator
        terms = Analyzer(self.store.schema.language).terms
        judge = self._reranker(rerank)
        search = partial(self.search, tenant=tenant, rerank=judge, rerank_seconds=seconds)
        return Answerer(search, lambda: self.embedder, terms, model, judge)

    def get(self, document_id: str) -> Document | None:
        """A document as it was added, put together from its chunks; None if it is not there.

        Its marks are those that its chunks kept. Raises UnsupportedError for one that lacks passages, because they were
        near-duplicates.
        """
        record_ids = self.ledger.record_ids([document_id]).get(document_id)
        if not record_ids:
            return None
        text = ""
        metadata: Mapping[str, Any] = {}
        marks: list[Mark] = []
        for record in self.store.get(record_ids):
            start = int(record.payload["start"])
            if start > len(text):
                raise UnsupportedError(
                    f"{document_id} was added with skip_duplicates, and passages of it were left out: it cannot be put "
                    "together from the others; read it from its source, or add it again without"
                )
            text += record.text[len(text) - start :]
            metadata = record.metadata
            mark = Mark(start, record.page, tuple(record.headings))
            known = replace(marks[-1], start=start) if marks else Mark(start)
            if mark != known:
                marks.append(mark)
        return Document(document_id, text, metadata, tuple(marks))

    def around(self, hit: Record | str, *, before: int = 1, after: int = 1) -> list[Record]:
        """A passage among its neighbours in reading order: at most so many before it and after it.

        hit: of a search or a scan, or its id, `document#ordinal`. Empty if it is not there any more.
        """
        document_id, _, ordinal = (hit if isinstance(hit, str) else hit.id).rpartition("#")
        if not document_id or not ordinal.isdecimal():
            raise InvalidQuery(f"{hit!r} is no passage; give a hit, or its id: document#ordinal")
        record_ids = list(self.ledger.record_ids([document_id]).get(document_id, ()))
        # A passage stands at its ordinal, or before it where near-duplicates were left out.
        last = min(int(ordinal), len(record_ids) - 1)
        for first in (max(0, last - before), 0):
            found = self.store.get(record_ids[first : last + after + 1])
            at = next((i for i, record in enumerate(found) if record.payload["chunk"] == int(ordinal)), None)
            if at is not None and (at >= before or first == 0):
                near = found[max(0, at - before) : at + after + 1]
                return [Record(f"{document_id}#{r.payload['chunk']}", {}, r.payload) for r in near]
        return []

    def count(self, where: Mapping[str, Any] | Filter | None = None) -> int:
        """Documents, or those that satisfy a condition."""
        return self.ledger.count() if where is None else self.store.count(self._first(where))

    def scan(self, where: Mapping[str, Any] | Filter | None = None) -> Iterator[Record]:
        """Every chunk, in no particular order; `id` is `document#ordinal`."""
        for record in self.store.scan_all(where=filters.under(filters.parse(where), "metadata")):
            if record.id not in self._visibility.hidden:
                yield Record(f"{record.document_id}#{record.payload['chunk']}", {}, record.payload)

    def info(self) -> dict[str, Any]:
        """Facts about the collection, JSON-able. Of `store`, what its database does not tell is None.

        usage: of the model, by runs that added; queries: by all else that was asked of it, searches and probes.
        """
        self._tell_usage()
        schema, held = self.store.schema, self._settings.get("token_vectors")
        return {
            "collection": self.name,
            "documents": self.ledger.count(),
            "chunks": self.ledger.count_chunks(),
            "records": self.store.count(),
            "embedder": self._settings["embedder"],
            "dimension": schema.vectors["dense"].dim,
            "chunker": dict(self._settings["chunker_settings"]),
            "fields": dict(self._fields),
            "vectors": {**self._vectors, **({TOKENS: held["model"]} if held else {})},
            "language": schema.language,
            "index": schema.to_json()["index"],
            "usage": self.ledger.usage(),
            "queries": self.ledger.queries(),
            "failed": self.ledger.failures(),
            "store": {**dict.fromkeys(FACTS), **self.store.stats()},
            "repaired": list(self.repaired),
            **({"cache": self.cache.stats().to_json()} if self.cache is not None else {}),
        }

    def _first(self, where: Mapping[str, Any] | Filter | None) -> Filter:
        parsed = filters.parse(where)
        if filters.about_own(parsed):
            raise InvalidFilter(
                "where: documents are chosen by their metadata; `_chunk.` is about passages, see `scan`"
            )
        condition = filters.under(parsed, "metadata")
        first = _FIRST_CHUNK if "first" in self.store.schema.fields else _NUMBERED_FIRST
        return first if condition is None else And((first, condition))
