"""The commands and their options. Each parses, calls `nearest.app`, and hands the result to `show`.

Nothing heavy is imported before a command runs, so that --help is instant.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from nearest.errors import InvalidInput

if TYPE_CHECKING:
    from nearest.app import Collection
    from nearest.contract import FieldKind

# The base of typer's usage errors has no public name in every version of typer.
UsageError: Any = typer.BadParameter.__mro__[1]


class Absent(Exception):
    """What was asked for is not there."""


class Stopped(Exception):
    """Ctrl-C; says how to go on."""


cli = typer.Typer(
    name="nearest",
    help="Vector search, from a laptop to a cluster.",
    epilog="Start with: nearest add FOLDER && nearest search 'a question'",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # rich's help takes twice as long to appear
    context_settings={"help_option_names": ["-h", "--help"]},
)

DEFAULT = "./.nearest"
_TURN = ("question", "standalone", "answer")  # of a conversation's file
Where = Annotated[
    str, typer.Option("--collection", "-c", metavar="FOLDER|URL", help="The collection.", show_default=True)
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON, and nothing else, on stdout.")]
Condition = Annotated[
    str | None,
    typer.Option("--where", metavar="JSON", help='Condition on metadata, such as \'{"year": {"$gte": 2020}}\'.'),
]
Weight = Annotated[
    list[str] | None, typer.Option(metavar="NAME=X", help="Of a vector (dense, or one of add --vector); repeatable.")
]
Cache = Annotated[
    str | None, typer.Option(metavar="URL", help="Keep hits there: redis://host:6379/0?semantic=0.97&ttl=600.")
]
Model = Annotated[str | None, typer.Option("--embedder", metavar="PROVIDER:MODEL", help="The embedding model.")]


def run(arguments: Sequence[str]) -> int:
    """One command. Raises UsageError, Absent, Stopped, and what the app raises."""
    code = typer.main.get_command(cli).main(list(arguments), prog_name="nearest", standalone_mode=False)
    return code if isinstance(code, int) else 0


def _version(wanted: bool) -> None:
    if wanted:
        from importlib import metadata

        typer.echo(f"nearest {metadata.version('nearest')}")
        raise typer.Exit


@cli.callback()
def _nearest(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    pass


@cli.command()
def add(
    paths: Annotated[
        list[str],
        typer.Argument(
            metavar="PATH...", help="Files, folders, globs; URLs (https:, s3:, gs:, az:, sql:); - for stdin."
        ),
    ],
    collection: Where = DEFAULT,
    embedder: Model = None,
    chunker: Annotated[str | None, typer.Option(metavar="NAME", help="How texts are cut (new collections).")] = None,
    field: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=KIND", help="Metadata indexed for filters (new collections); repeatable."),
    ] = None,
    vector: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=FIELD", help="A vector of a metadata field too (new collections); repeatable."),
    ] = None,
    token_vectors: Annotated[
        str | None,
        typer.Option(metavar="MODEL", help="Hold the token vectors of maxsim:NAME (ColBERT, say) too (new ones)."),
    ] = None,
    index: Annotated[
        str | None,
        typer.Option(
            metavar="PROFILE", help="latency, balanced or recall, or m=24,ef_construct=200,ef=200 (new ones)."
        ),
    ] = None,
    quantization: Annotated[
        str | None, typer.Option(metavar="KIND", help="scalar, product, binary or none (new collections).")
    ] = None,
    truncate: Annotated[bool, typer.Option("--truncate", help="Cut what is over the model's limit.")] = False,
    pool: Annotated[bool, typer.Option("--pool", help="Embed what is over it as the mean of windows.")] = False,
    name: Annotated[
        str, typer.Option(metavar="FILENAME", help="Name of standard input; its extension tells the format.")
    ] = "stdin",
    passwords: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Passwords of encrypted files, one a line.")
    ] = None,
    no_ignore: Annotated[
        bool, typer.Option("--no-ignore", help="Read what .gitignore and .nearestignore leave out, too.")
    ] = False,
    private: Annotated[bool, typer.Option("--private", help="Allow web pages on private addresses.")] = False,
    full: Annotated[bool, typer.Option("--full", help="Read a query's rows from the start.")] = False,
    budget: Annotated[
        float | None, typer.Option(metavar="DOLLARS", help="Most dollars of embedding; it stops before it costs more.")
    ] = None,
    skip_duplicates: Annotated[
        float | None,
        typer.Option(
            metavar="X",
            help="Leave out passages that resemble others so much (0.9, say); the first of each document stays.",
        ),
    ] = None,
    detect_language: Annotated[
        bool, typer.Option("--detect-language", help="Tell each passage's language (_chunk.facts.language).")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Tell what it would do and cost, and do nothing.")] = False,
    profile: Annotated[bool, typer.Option("--profile", help="Tell where the time went, and what bounds it.")] = False,
    as_json: Json = False,
) -> int:
    """Add files and folders, or bring them up to date.

    What did not change is skipped, and what is gone from PATH is removed.
    """
    from nearest import app
    from nearest.cli import show

    fields = cast("dict[str, FieldKind] | None", _pairs("field", field, "NAME=KIND, such as year=integer"))
    vectors = _pairs("vector", vector, "NAME=FIELD, such as title=title")
    known = _lines(passwords)
    found = app.find_files(paths, ignore=not no_ignore, name=name, private=private)
    if dry_run:
        plan = app.plan_files(
            found, collection, embedder=embedder, chunker=chunker, passwords=known, full=full, truncate=truncate,
            pool=pool, budget=budget, skip_duplicates=skip_duplicates, detect_language=detect_language, fields=fields,
            vectors=vectors, token_vectors=token_vectors,
        )  # fmt: skip
        show.plan(collection, plan, as_json)
        return 2 if plan.over else 1 if plan.failed else 0
    with (
        _resumable("What was finished is kept; run the same command again to go on."),
        _open(
            collection,
            create=True,
            embedder=embedder,
            chunker=chunker,
            fields=fields,
            vectors=vectors,
            token_vectors=token_vectors,
            index=app.index_params(index, quantization),
        ) as opened,
        show.progress("indexing", unit="documents") as told,
    ):
        report = opened.add_files(
            found,
            passwords=known,
            full=full,
            truncate=truncate,
            pool=pool,
            budget=budget,
            skip_duplicates=skip_duplicates,
            detect_language=detect_language,
            progress=lambda at: told(at.documents + at.failed, at.files),
        )
    if opened.note:
        show.note(opened.note)
    show.report(collection, report, as_json, profile=profile)
    return 1 if report.failed else 0


@cli.command()
def search(
    query: Annotated[str | None, typer.Argument(help="A question, or words.", show_default=False)] = None,
    collection: Where = DEFAULT,
    k: Annotated[int, typer.Option("-k", metavar="N", help="Hits at most.")] = 10,
    mode: Annotated[str, typer.Option(metavar="MODE", help="dense (meaning), lexical (words) or hybrid.")] = "hybrid",
    fusion: Annotated[
        str, typer.Option(metavar="METHOD", help="Of hybrid: adaptive, normalized, rrf or distribution.")
    ] = "adaptive",
    alpha: Annotated[
        float | None, typer.Option(metavar="X", help="Weigh hybrid by hand: 0 is words alone, 1 meaning alone.")
    ] = None,
    weight: Weight = None,
    where: Condition = None,
    like: Annotated[
        list[str] | None, typer.Option(metavar="ID", help="More like this document or hit; repeatable, QUERY may go.")
    ] = None,
    unlike: Annotated[list[str] | None, typer.Option(metavar="ID", help="Less like this one; repeatable.")] = None,
    candidates: Annotated[int, typer.Option(metavar="N", help="Best of each part that hybrid fuses.")] = 100,
    rerank: Annotated[
        str | None, typer.Option(metavar="PROVIDER:MODEL", help="Have the best judged again by this model.")
    ] = None,
    rerank_seconds: Annotated[
        float | None, typer.Option(metavar="SECONDS", help="Do without it if it takes longer, or is out of reach.")
    ] = None,
    min_score: Annotated[float | None, typer.Option(metavar="X", help="Leave out what scores less.")] = None,
    group: Annotated[bool, typer.Option("--group", help="One hit a document, its best.")] = False,
    diversity: Annotated[float, typer.Option(metavar="X", help="0 to 1: how much likeness to better hits costs.")] = 0,
    facet: Annotated[
        list[str] | None, typer.Option(metavar="FIELD", help="Count its values among all that --where lets through.")
    ] = None,
    after: Annotated[
        str | None,
        typer.Option(metavar="CURSOR", help="Pages: '' for the first, then what the page before it told."),
    ] = None,
    highlight: Annotated[
        bool, typer.Option("--highlight", help="Show the sentences that speak of QUERY, its words in bold.")
    ] = False,
    cache: Cache = None,
    explain: Annotated[bool, typer.Option("--explain", help="Tell how each score came about.")] = False,
    as_json: Json = False,
) -> None:
    """Find the passages that answer a question best."""
    from nearest.cli import show

    if query is None and not like:
        raise UsageError("Missing argument 'QUERY' (or --like ID).")
    condition, weights = _condition(where), _weights(weight)
    with _resumable(), _open(collection, cache=cache) as opened:
        hits = opened.search(
            query,
            k=k,
            where=condition,
            mode=cast("Any", mode),
            fusion=cast("Any", fusion),
            alpha=alpha,
            weights=weights,
            like=like or (),
            unlike=unlike or (),
            candidates=candidates,
            rerank=rerank,
            rerank_seconds=rerank_seconds,
            min_score=min_score,
            group_by="document" if group else None,
            diversity=diversity,
            after=after,
            explain=explain,
        )
        facets = {field: opened.facets(field, where=condition) for field in facet or ()}
        marks = {hit.id: opened.highlight(query, hit.text) for hit in hits} if highlight and query else {}
        kept = opened.cache.stats().to_json() if opened.cache is not None else None
    show.hits(
        query, hits, as_json, facets=facets, marks=marks, cache=kept, paged=after is not None,
    )  # fmt: skip


@cli.command()
def ask(
    question: Annotated[str, typer.Argument(help="A question.")],
    collection: Where = DEFAULT,
    k: Annotated[int, typer.Option("-k", metavar="N", help="Passages to read, at most.")] = 8,
    where: Condition = None,
    mode: Annotated[str, typer.Option(metavar="MODE", help="dense (meaning), lexical (words) or hybrid.")] = "hybrid",
    rerank: Annotated[
        str | None, typer.Option(metavar="PROVIDER:MODEL", help="Have the passages judged by this model.")
    ] = None,
    rerank_seconds: Annotated[
        float | None, typer.Option(metavar="SECONDS", help="Do without it if it takes longer, or is out of reach.")
    ] = None,
    generator: Annotated[
        str | None,
        typer.Option("--generator", "-g", metavar="PROVIDER:MODEL", help="Writes the answer; otherwise it is quoted."),
    ] = None,
    budget: Annotated[int, typer.Option(metavar="TOKENS", help="Most tokens of all passages together.")] = 3000,
    max_tokens: Annotated[
        int, typer.Option(metavar="TOKENS", help="Most tokens of an answer that a model writes.")
    ] = 800,
    conversation: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Understand the question by those kept there, and keep it there too."),
    ] = None,
    cache: Cache = None,
    as_json: Json = False,
) -> int:
    """Answer a question from the documents, with the passages it is from.

    Exit code 1: the documents do not tell.
    """
    from nearest.cli import show

    condition, history = _condition(where), _turns(conversation)
    with _resumable(), _open(collection, cache=cache) as opened:
        talk = opened.conversation(
            k=k, where=condition, mode=cast("Any", mode), rerank=rerank, rerank_seconds=rerank_seconds,
            generator=generator, budget=budget, max_tokens=max_tokens, history=history,
        )  # fmt: skip
        answer = show.answer(talk.stream(question), as_json)
        if conversation is not None:
            _keep_turn(conversation, talk.history[-1])
    return 0 if answer.found else 1


@cli.command()
def get(
    document_id: Annotated[str, typer.Argument(metavar="ID", help="A document's id.")],
    collection: Where = DEFAULT,
    as_json: Json = False,
) -> None:
    """Print a document."""
    from nearest.cli import show

    with _resumable(), _open(collection) as opened:
        document = opened.get(document_id)
    if document is None:
        raise Absent(f"{collection} has no document {document_id!r}")
    show.document(document, as_json)


@cli.command()
def rm(
    ids: Annotated[list[str] | None, typer.Argument(metavar="ID...", help="Documents.")] = None,
    collection: Where = DEFAULT,
    where: Condition = None,
    as_json: Json = False,
) -> None:
    """Remove documents, by id or by a condition."""
    from nearest.cli import show

    if bool(ids) == (where is not None):
        raise UsageError("give either ids or --where")
    condition = _condition(where)
    with _resumable("Run the same command again to finish it."), _open(collection) as opened:
        removed = opened.delete(where=condition) if condition is not None else opened.delete(ids)
    show.removed(removed, len(set(ids)) if ids else None, as_json)


@cli.command()
def info(collection: Where = DEFAULT, as_json: Json = False) -> None:
    """Show how much a collection holds, and its model."""
    from nearest.cli import show

    with _resumable(), _open(collection) as opened:
        facts = opened.info()
    show.facts(facts, as_json)


@cli.command("eval")
def evaluate(
    folder: Annotated[str, typer.Argument(metavar="DIR", help="corpus.jsonl, queries.jsonl and qrels.tsv (BEIR).")],
    collection: Annotated[
        str | None,
        typer.Option(
            "--collection", "-c", metavar="FOLDER|URL", help="Keep the index here; otherwise it is temporary."
        ),
    ] = None,
    embedder: Model = None,
    chunker: Annotated[
        str | None, typer.Option(metavar="NAME", help="How texts are cut, where they are indexed; by default not.")
    ] = None,
    compare: Annotated[
        bool, typer.Option("--compare", help="Every method of fusion, by query and against the default one (adaptive).")
    ] = False,
    k: Annotated[int, typer.Option("-k", metavar="N", help="Documents that ndcg, mrr and precision look at.")] = 10,
    where: Condition = None,
    weight: Weight = None,
    rerank: Annotated[
        str | None, typer.Option(metavar="PROVIDER:MODEL", help="Measure this reranker too, against none.")
    ] = None,
    per_query: Annotated[bool, typer.Option("--per-query", help="Tell the measures of each query too.")] = False,
    against: Annotated[
        str | None, typer.Option(metavar="FILE", help="Compare with a TREC run file, by a paired test.")
    ] = None,
    runs: Annotated[str | None, typer.Option(metavar="FOLDER", help="Write a TREC run file a mode.")] = None,
    answers: Annotated[bool, typer.Option("--answers", help="Measure answers and their citations too.")] = False,
    generator: Annotated[
        str | None,
        typer.Option(
            "--generator", "-g", metavar="PROVIDER:MODEL", help="Writes those answers, or the queries of --make."
        ),
    ] = None,
    make: Annotated[
        int | None, typer.Option(metavar="N", help="Make DIR first: N queries about the documents of the collection.")
    ] = None,
    as_json: Json = False,
) -> int:
    """Measure search on a data set with judgements.

    DIR is indexed and asked its questions in every mode: dense, lexical and hybrid. With --make N it is only made, from
    the collection's own documents; another run with that collection then measures it as it is, and adds nothing.
    """
    from nearest import app
    from nearest.cli import show

    condition, weights = _condition(where), _weights(weight)
    if make is not None:
        if any((embedder, chunker, compare, k != 10, where, weight, rerank, per_query, against, runs, answers)):
            raise UsageError("--make only makes DIR, from -c COLLECTION; what to measure goes with another run")
        with _resumable("Nothing was written."), show.progress("asking", unit="queries") as made:
            done = app.make_test_set(collection or DEFAULT, folder, count=make, generator=generator, progress=made)
        show.made(folder, done.queries, done.spent, as_json)
        return 0
    keep = f"Run the same command again to go on; the index is in {collection}."
    with (
        _resumable(keep if collection else "Nothing was kept; with -c FOLDER it can be resumed."),
        show.stages() as told,
    ):
        evaluation = app.evaluate(
            folder, location=collection, embedder=embedder, chunker=chunker, against=against, runs=runs,
            answers=answers, generator=generator, fusions=compare, k=k, where=condition, weights=weights, rerank=rerank,
            progress=lambda at: told(*at),
        )  # fmt: skip
    show.evaluation(evaluation, as_json, per_query=per_query, side_by_side=compare)
    return 1 if evaluation.failed else 0


@cli.command()
def compare(
    texts: Annotated[list[str] | None, typer.Argument(metavar="TEXT TEXT", show_default=False)] = None,
    model: Annotated[
        list[str] | None,
        typer.Option("--model", "-m", metavar="PROVIDER:MODEL", help="An embedding model; repeatable."),
    ] = None,
    pairs: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Pairs of texts, and scores if people gave any (.csv, .tsv, .jsonl)."),
    ] = None,
    query: Annotated[bool, typer.Option("--query", help="The first text of a pair is a query.")] = False,
    truncate: Annotated[bool, typer.Option("--truncate", help="Cut what is over a model's limit.")] = False,
    as_json: Json = False,
) -> None:
    """Show how embedding models see the similarity of two texts.

    Of a file of pairs, show how far the models agree.
    """
    from nearest import app
    from nearest.cli import show

    if (pairs is None) == (not texts) or (texts and len(texts) != 2):
        raise UsageError("give either two texts or --pairs FILE")
    some = pairs if pairs is not None else [(texts[0], texts[1])] if texts else []
    with _resumable():
        found = app.compare_models(model or [app.DEFAULT_EMBEDDER], some, queries=query, truncate=truncate)
    show.similarities(found, as_json)


@cli.command()
def chunk(
    file: Annotated[str, typer.Argument(metavar="FILE")],
    strategy: Annotated[
        str,
        typer.Option(
            "--strategy", "-s", metavar="NAME", help="recursive, markdown:size=200,prefix=title+headings, and so on."
        ),
    ] = "recursive",
    embedder: Model = None,
    passwords: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Passwords of encrypted files, one a line.")
    ] = None,
    as_json: Json = False,
) -> int:
    """Show where a file would be cut."""
    from nearest import app
    from nearest.cli import show

    with _resumable():
        cuts = list(app.chunk_file(file, strategy, embedder=embedder, passwords=_lines(passwords)))
    return show.chunks(file, strategy, cuts, as_json)


@cli.command()
def stores(
    collection: Annotated[str, typer.Option("--collection", "-c", hidden=True)] = DEFAULT,
    as_json: Json = False,
) -> None:
    """List the vector databases, and what each can do."""
    from nearest import app
    from nearest.cli import show

    show.stores(app.available_stores(), as_json)


@cli.command()
def demo(
    collection: Where = "./.demo",
    only: Annotated[list[str] | None, typer.Option("--only", metavar="MODULE", hidden=True)] = None,
    embedder: Annotated[str | None, typer.Option(hidden=True)] = None,
    as_json: Json = False,
) -> int:
    """Show it on the Python library's documentation."""
    from nearest import app
    from nearest.cli import show

    with _resumable("What was finished is kept; run `nearest demo` again to go on."):
        show.note("Reading the documentation of Python's standard library ...")
        demonstration = app.demo(only)
        documents = demonstration.documents
        with _open(collection, create=True, embedder=embedder, fields=demonstration.fields) as opened:
            with show.progress("indexing", unit="documents") as told:
                report = opened.add(documents, progress=lambda at: told(at.documents + at.failed, len(documents)))
            answers = [
                (question, where, opened.search(question, where=where, explain=False))
                for question, where in demonstration.questions
            ]
    show.demo(collection, report, answers, as_json)
    return 1 if report.failed else 0


# --- what commands share ---------------------------------------------------------------------------


@contextmanager
def _open(location: str, *, create: bool = False, **options: Any) -> Iterator[Collection]:
    """A collection; what was repaired when it was opened is told."""
    from nearest import app
    from nearest.cli import show

    with app.open(location, create=create, **options) as opened:
        for line in opened.repaired:
            show.note(f"after an interruption: {line}")
        yield opened


@contextmanager
def _resumable(how: str = "") -> Iterator[None]:
    try:
        yield
    except KeyboardInterrupt:
        raise Stopped(how) from None


def _lines(path: Path | None) -> list[str]:
    if path is None:
        return []
    try:
        return path.read_text("utf-8").splitlines()
    except (OSError, UnicodeError) as error:
        raise InvalidInput(f"--passwords {path}: {error}") from None


def _turns(path: Path | None) -> list[list[str]]:
    """A conversation's, as `_keep_turn` wrote them; none of a file that is not there yet."""
    if path is None:
        return []
    if not path.parent.is_dir():
        raise InvalidInput(f"--conversation {path}: there is no folder {path.parent}")
    try:
        told = json.loads(path.read_text("utf-8"))["turns"]
        turns = [[turn[name] for name in _TURN] for turn in told]
        if not all(isinstance(text, str) for turn in turns for text in turn):
            raise TypeError
        return turns
    except FileNotFoundError:
        return []
    except OSError as error:
        raise InvalidInput(f"--conversation {path}: {error.strerror}") from None
    except (ValueError, KeyError, TypeError, RecursionError):
        raise InvalidInput(f"--conversation {path}: the file holds no conversation; name another") from None


def _keep_turn(path: Path, turn: Sequence[str]) -> None:
    """After those that the file holds by now: another command may have added some. If it fails, they stay."""
    told = {"turns": [dict(zip(_TURN, each, strict=True)) for each in [*_turns(path), turn]]}
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        part.write_text(json.dumps(told, ensure_ascii=False, indent=2) + "\n", "utf-8")
        part.replace(path)
    except OSError as error:
        with suppress(OSError):
            part.unlink(missing_ok=True)
        raise InvalidInput(f"--conversation {path}: {error.strerror}") from None


def _condition(text: str | None) -> dict[str, Any] | None:
    """Raises InvalidInput; whether the operators make sense is for the app to say."""
    if text is None:
        return None
    try:
        condition = json.loads(text)
    except ValueError as error:
        told = f"{error.msg} at column {error.colno}" if isinstance(error, json.JSONDecodeError) else str(error)
        raise InvalidInput(f"--where is not JSON: {told} of {text!r}") from None
    if condition is None:
        raise InvalidInput("--where is null; give an object of conditions, or leave it out")
    return cast("dict[str, Any]", condition)


def _pairs(option: str, given: list[str] | None, form: str) -> dict[str, str] | None:
    """NAME=VALUE, each; None if there is none."""
    pairs: dict[str, str] = {}
    for text in given or ():
        name, equals, value = text.rpartition("=")
        if not equals or not name or not value:
            raise InvalidInput(f"--{option} {text}: write {form}")
        pairs[name] = value
    return pairs or None


def _weights(given: list[str] | None) -> dict[str, float] | None:
    form = "NAME=X, such as title=0.5"
    pairs = _pairs("weight", given, form)
    try:
        return None if pairs is None else {name: float(value) for name, value in pairs.items()}
    except ValueError:
        raise InvalidInput(f"--weight: write {form}") from None
