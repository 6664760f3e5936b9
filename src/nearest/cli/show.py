"""What the commands print: results on stdout, as text or as one JSON document; progress and notes on stderr.

Texts come from other people's files: they are never read as markup, and what could steer a terminal is
left out. Colours and progress bars appear on terminals alone.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import textwrap
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from rich.console import Console
from rich.text import Text

if TYPE_CHECKING:
    from nearest.app import Hits, Similarities
    from nearest.contract import Chunk, Document, Failure, Hit, Spent, Usage

_SHOWN_FAILURES = 20
_COLOURS = ("cyan", "yellow")  # of chunks, in turn


class _Report(Protocol):
    added: int
    updated: int
    unchanged: int
    removed: int
    skipped: int
    failed: list[Failure]
    chunks: int
    duplicates: list[Any]
    truncated: int
    pooled: int
    usage: Usage
    seconds: float
    profile: Any


class _Highlight(Protocol):
    @property
    def terms(self) -> Sequence[tuple[int, int]]: ...
    @property
    def sentences(self) -> Sequence[tuple[int, int]]: ...


class _Cut(Protocol):
    @property
    def document(self) -> Document: ...
    @property
    def chunks(self) -> Sequence[Chunk]: ...
    @property
    def tokens(self) -> Sequence[int]: ...


class _Plan(Protocol):
    documents: int
    unchanged: int
    skipped: int
    failed: list[Failure]
    chunks: int
    duplicates: int
    usage: Usage
    estimated: bool
    sentences: int | None
    price: float | None
    seconds: float | None
    budget: float | None
    over: bool
    unknown: list[str]


# --- plumbing --------------------------------------------------------------------------------------


def as_json(data: Any) -> None:
    # Escaped where the terminal could not show it; a path that is not UTF-8 is escaped by stdout itself.
    escape = (sys.stdout.encoding or "").lower().replace("-", "") != "utf8"
    print(json.dumps(data, ensure_ascii=escape, indent=2))


def note(text: str) -> None:
    """A line for the reader, beside the result."""
    print(f"nearest: {_clean(text)}", file=sys.stderr)


def _out() -> Console:
    return Console(width=_width(), highlight=False, markup=False, emoji=False, soft_wrap=True)


def _width() -> int:
    return max(40, shutil.get_terminal_size((100, 24)).columns)


def _clean(text: str) -> str:
    """One line without control characters."""
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())


def _spaced(text: str) -> str:
    """A part of a line, its spaces kept, without control characters."""
    return "".join(c if c.isprintable() else " " for c in text)


def _lines(text: str) -> str:
    """Its lines without other control characters."""
    return "".join(c if c.isprintable() or c in "\n\t" else " " for c in text)


def _plural(n: int, word: str, many: str | None = None) -> str:
    return f"{n:,} {word if n == 1 else many or word + 's'}"


@contextmanager
def progress(what: str, unit: str) -> Iterator[Callable[[int, int | None], None]]:
    """A bar on stderr, if that is a terminal, to be told how many are done and of how many.

    More than those (files of many documents) make it endless.
    """
    if not sys.stderr.isatty():
        yield lambda done, of: None
        return
    with _bar() as bar:
        task = bar.add_task(what, total=None, unit=unit)
        yield lambda done, of: bar.update(task, completed=done, total=of if of is not None and done <= of else None)


@contextmanager
def stages() -> Iterator[Callable[[str, int, int], None]]:
    """A bar a stage."""
    if not sys.stderr.isatty():
        yield lambda name, done, of: None
        return
    with _bar() as bar:
        tasks: dict[str, Any] = {}

        def told(name: str, done: int, of: int) -> None:
            if name not in tasks:
                tasks[name] = bar.add_task(name, total=of, unit="documents" if name == "index" else "queries")
            bar.update(tasks[name], completed=done)

        yield told


def _bar() -> Any:
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[unit]}"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=Console(stderr=True),
    )


# --- results ---------------------------------------------------------------------------------------


def report(collection: str, report: _Report, json_wanted: bool, *, profile: bool = False) -> None:
    """profile: tell where the time went."""
    if json_wanted:
        told = {"profile": _profile_json(report)} if profile else {}
        as_json({"collection": collection, **_report_json(report), **told})
        return
    out = _out()
    out.print(_report_line(report))
    if report.usage.texts:
        out.print(_usage_line(report.usage))
    _failures(out, report.failed)
    if profile:
        _profile(out, report)


def _rates(report: _Report) -> dict[str, float]:
    """Per second of the run, unchanged documents included."""
    documents = report.added + report.updated + report.unchanged
    amounts = {"documents": documents, "chunks": report.chunks, "megabytes": report.profile.megabytes}
    return {name: amount / max(report.seconds, 1e-9) for name, amount in amounts.items()}


def _profile_json(report: _Report) -> dict[str, Any]:
    profile = report.profile
    lines = {
        line: {stage: round(seconds, 3) for stage, seconds in stages.items()} for line, stages in profile.lines.items()
    }
    return {
        "seconds": round(profile.seconds, 3), "lines": lines, "read_ahead": round(profile.read_ahead, 3),
        "bound": profile.bound, "per_second": {name: round(rate, 3) for name, rate in _rates(report).items()},
    }  # fmt: skip


def _profile(out: Console, report: _Report) -> None:
    profile = report.profile
    out.print(f"\n{'':9}{'stage':<10}{'seconds':>9}{'share':>7}")
    for line, stages in profile.lines.items():
        for at, (stage, seconds) in enumerate(stages.items()):
            share = f"{seconds / max(profile.seconds, 1e-9):.0%}"
            row = Text(f"{'' if at else line:<9}", "dim") + Text(f"{stage:<10}{seconds:>9.2f}{share:>7}")
            out.print(row, style="bold" if stage == profile.bound else "")
    out.print(
        f"prepare, embed and write overlap; of {profile.seconds:.2f} s in all, {profile.bound} is what bounds it."
    )
    if profile.read_ahead:
        out.print(f"Other processes read ahead for {profile.read_ahead:.2f} s meanwhile.")
    told = ", ".join(f"{rate:,.2f} {name}" for name, rate in _rates(report).items())
    out.print(f"A second: {told} of text.")


def plan(collection: str, plan: _Plan, json_wanted: bool) -> None:
    """What adding would do and cost."""
    if json_wanted:
        as_json({
            "collection": collection, "documents": plan.documents, "unchanged": plan.unchanged, "skipped": plan.skipped,
            "failed": [{"id": failure.id, "reason": failure.reason} for failure in plan.failed],
            "chunks": plan.chunks, "duplicates": plan.duplicates, "sentences": plan.sentences,
            "usage": _usage_json(plan.usage), "estimated": plan.estimated, "price": plan.price,
            "seconds": None if plan.seconds is None else round(plan.seconds, 1),
            "budget": plan.budget, "over_budget": plan.over, "unknown": plan.unknown,
        })  # fmt: skip
        return
    used = plan.usage
    cuts = "" if plan.sentences is None else "about "  # where the cuts are, only the model knows
    about = "about " if plan.estimated or cuts else ""
    cost = (
        "unknown: the model has no list price here; give it as ?price=DOLLARS (a million tokens)"
        if plan.price is None
        else f"{about}${used.dollars:,.4f} (${plan.price:g} a million tokens)"
    )
    if plan.budget is not None:
        cost += f"; {'may be over' if about and plan.over else 'over' if plan.over else 'within'} the budget of "
        cost += f"${plan.budget:,.4f}"
    documents = f"{plan.documents:,} to embed, {plan.unchanged:,} unchanged, {len(plan.failed):,} failing"
    chunks = f"{cuts}{plan.chunks:,}"
    if plan.duplicates:
        chunks += f", and {cuts}{_plural(plan.duplicates, 'near-duplicate')} left out"
    if plan.sentences is not None:
        chunks += f"; {_plural(plan.sentences, 'sentence')} embedded to find the cuts"
    rows = {
        "documents": documents + (f", {plan.skipped:,} skipped" if plan.skipped else ""),
        "chunks": chunks,
        "texts": f"{cuts}{used.texts:,}, {used.cached:,} of them in the cache",
        "tokens": f"{about}{used.tokens:,}",
        "price": cost,
        "time": "unknown before a first run" if plan.seconds is None else f"about {_duration(plan.seconds)}",
        **({"unknown": "; ".join(plan.unknown)} if plan.unknown else {}),
    }
    out = _out()
    for name, value in rows.items():
        out.print(Text(f"{name:<9}  ", "dim") + Text(value))
    _failures(out, plan.failed, again=False)
    if plan.over:
        out.print("The run would stop before the budget is exceeded, and keep what was finished.")
    out.print("Nothing was written.")


def _duration(seconds: float) -> str:
    if seconds < 100:
        return f"{seconds:.1f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"


def _usage_json(used: Usage) -> dict[str, float]:
    return {name: getattr(used, name) for name in used.__slots__}


def _usage_line(used: Usage) -> str:
    parts = [_plural(used.texts, "text"), _plural(used.tokens, "token")]
    if used.requests:
        parts.append(_plural(used.requests, "request"))
    if used.dollars:
        parts.append(f"${used.dollars:,.4f}")
    if used.cached:
        parts.append(f"{used.cached / used.texts:.0%} of the texts from the cache")
    if used.fallback:
        parts.append(f"{_plural(used.fallback, 'text')} by the fallback")
    return f"embedding: {', '.join(parts)}"


def _report_json(report: _Report) -> dict[str, Any]:
    return {
        "added": report.added,
        "updated": report.updated,
        "unchanged": report.unchanged,
        "removed": report.removed,
        "skipped": report.skipped,
        "failed": [{"id": failure.id, "reason": failure.reason} for failure in report.failed],
        "chunks": report.chunks,
        "duplicates": [{"id": d.id, "of": d.of, "resemblance": round(d.resemblance, 4)} for d in report.duplicates],
        "truncated": report.truncated,
        "pooled": report.pooled,
        "usage": _usage_json(report.usage),
        "seconds": round(report.seconds, 3),
    }


def _report_line(report: _Report) -> str:
    parts = [f"{getattr(report, name):,} {name}" for name in ("added", "updated", "unchanged", "removed", "skipped")
             if getattr(report, name) or name in ("added", "unchanged")]  # fmt: skip
    if report.failed:
        parts.append(f"{len(report.failed):,} failed")
    cut = f", {report.truncated:,} cut to the model's limit" if report.truncated else ""
    cut += f", {report.pooled:,} over it pooled" if report.pooled else ""
    cut += f", {_plural(len(report.duplicates), 'near-duplicate')} left out" if report.duplicates else ""
    return f"{', '.join(parts)} ({_plural(report.chunks, 'chunk')}{cut}) in {report.seconds:.1f} s"


def _failures(out: Console, failed: Sequence[Failure], again: bool = True) -> None:
    for failure in failed[:_SHOWN_FAILURES]:
        out.print(Text("failed ", "red") + Text(f"{_clean(failure.id)}: {_clean(failure.reason)}"))
    if len(failed) > _SHOWN_FAILURES:
        out.print(f"... and {len(failed) - _SHOWN_FAILURES:,} more; --json lists all")
    if failed and again:
        out.print("What failed is tried again when the same command is run.")


def hits(
    query: str | None,
    hits: Hits,
    json_wanted: bool,
    *,
    facets: Mapping[str, Sequence[tuple[Any, int]]],
    marks: Mapping[str, _Highlight],
    cache: Mapping[str, float] | None,
    paged: bool,
) -> None:
    """marks: where a hit speaks of the query, by its id. cache: its counts. paged: whether pages were asked for."""
    if hits.skipped is not None:
        note(f"not reranked: {hits.skipped}")
    if json_wanted:
        told: dict[str, Any] = {"query": query, "hits": [_hit_json(hit) for hit in hits]}
        for hit in told["hits"] if marks else ():
            hit["highlight"] = {"terms": marks[hit["id"]].terms, "sentences": marks[hit["id"]].sentences}
        if paged:
            told["after"] = hits.after
        if cache is not None:
            told["cache"] = dict(cache)
        if facets:
            told["facets"] = {
                field: [{"value": value, "count": count} for value, count in found] for field, found in facets.items()
            }
        if hits.explain is not None:
            told["explain"] = dict(hits.explain)
        if hits.skipped is not None:
            told["not_reranked"] = hits.skipped
        as_json(told)
        return
    out = _out()
    if not hits:
        out.print("no hits")
    for rank, hit in enumerate(hits, 1):
        _hit(out, rank, hit, marks.get(hit.id))
    if hits.after is not None:
        out.print(f"next page: --after {hits.after}")
    for field, found in facets.items():
        line = ", ".join(f"{_clean(str(value))} ({count:,})" for value, count in found) or "no values"
        out.print(Text(f"{_clean(field)}: ", "bold") + Text(line))
    if hits.explain is not None:
        out.print(Text(_told(hits.explain), "cyan"))
    if cache is not None:
        found_there = cache["exact"] + cache["semantic"]
        out.print(Text(f"cache: {'hit' if found_there else 'miss'}, hit rate {cache['hit_rate']:.2f}", "dim"))


def answer(parts: Iterable[Any], json_wanted: bool) -> Any:
    """Prints an answer as it comes, and returns it: the last of the parts."""
    last: Any = None
    out = _out()
    streamed = False
    try:
        for part in parts:
            last = part
            if isinstance(part, str) and not json_wanted:
                streamed = True
                print(_clean_piece(part), end="", flush=True)
    finally:  # what is said next, why it stopped as well, has a line of its own
        if streamed:
            print()
    if json_wanted:
        as_json(last.to_json())
        return last
    if last.standalone != last.question:
        out.print(Text(f"understood as: {_clean(last.standalone)}", "dim"))
    unsupported = [sentence for sentence in last.sentences if not sentence.supported]
    for sentence in unsupported:
        out.print(Text("unsupported ", "red") + Text(_clean(sentence.text)))
    named = {citation.source for sentence in last.sentences for citation in sentence.citations}
    shown = [source for source in last.sources if source.number in named] or list(last.sources)[:3]
    out.print()
    for source in shown:
        place = Text(f"[{source.number}] ") + Text(_clean(source.document_id), "bold")
        if source.page is not None:
            place += Text(f"  page {source.page}", "dim")
        out.print(place)
        width = _width() - 4
        for row in textwrap.wrap(_clean(source.text[: 8 * width]), width, max_lines=2, placeholder=" ..."):
            out.print(Text(f"    {row}", "dim"))
    word = "confidence" if last.calibrated else "confidence (not calibrated for this embedding model)"
    line = f"{word} {last.confidence:.2f}, {last.generator}, {last.seconds:.1f} s"
    asked = {"": last.spent, " to rerank": last.reranking, " to embed": last.embedding}
    asked = {what: spent for what, spent in asked.items() if spent.requests}
    for what, spent in asked.items():
        line += f", {spent.input_tokens:,}" + (f" + {spent.output_tokens:,}" if spent.output_tokens else "")
        line += f" tokens{what}"
    if asked:
        line += f", ${last.dollars:.4f}" if last.dollars is not None else ", price unknown"
    out.print(Text(line, "dim"))
    if last.notice:
        note(last.notice)
    return last


def _clean_piece(text: str) -> str:
    """A piece of a text, spaces and line ends kept."""
    return "".join(c if c.isprintable() or c == "\n" else " " for c in text)


def _hit_json(hit: Hit) -> dict[str, Any]:
    told = {} if hit.explain is None else {"explain": dict(hit.explain)}
    return {
        "id": hit.id,
        "document_id": hit.document_id,
        "score": float(hit.score),
        "text": hit.text,
        "metadata": dict(hit.metadata),
        **told,
    }


def _hit(out: Console, rank: int, hit: Hit, marks: _Highlight | None = None) -> None:
    line = (
        Text(f"{rank:>2}  ")
        + Text(f"{hit.score:.3f}", "green")
        + Text("  ")
        + Text(_clean(hit.document_id or hit.id), "bold")
    )
    for name in ("title", "source"):
        value = hit.metadata.get(name)
        if isinstance(value, str) and value and value != hit.document_id:
            line += Text(f"  {_clean(value)}", "dim")
    out.print(line)
    width = _width() - 4
    if marks is not None and marks.sentences:
        for start, end in sorted(marks.sentences):
            line, at = Text("    "), start
            for a, b in (term for term in marks.terms if start <= term[0] < end):
                line.append(_spaced(hit.text[at:a])).append(_spaced(hit.text[a:b]), "bold")
                at = b
            out.print(line.append(_spaced(hit.text[at:end])))
    else:
        for row in textwrap.wrap(_clean(hit.text[: 8 * width]), width, max_lines=2, placeholder=" ..."):
            out.print(Text(f"    {row}"))
    if hit.explain is not None:
        out.print(Text(f"    {_told(hit.explain)}", "cyan"))


def _told(explain: Mapping[str, Any]) -> str:
    return _clean(", ".join(f"{name} {_value(value)}" for name, value in explain.items() if value not in ([], ())))


def _value(value: Any) -> str:
    match value:
        case float():
            return f"{value:.4g}"
        case Mapping():
            return "(" + ", ".join(f"{name} {_value(inner)}" for name, inner in value.items()) + ")"
        case list() | tuple():
            return "; ".join(_value(inner) for inner in value)
    return str(value)


def document(document: Document, json_wanted: bool) -> None:
    if json_wanted:
        as_json({"id": document.id, "text": document.text, "metadata": dict(document.metadata)})
        return
    out = _out()
    out.print(Text(_clean(document.id), "bold"))
    for name, value in document.metadata.items():
        shown = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
        out.print(Text(f"{_clean(name)}: {_clean(shown)}", "dim"))
    out.print()
    out.print(Text(_lines(document.text)))


def removed(count: int, asked: int | None, json_wanted: bool) -> None:
    if json_wanted:
        as_json({"removed": count})
    elif asked is None or asked == count:
        print(f"removed {_plural(count, 'document')}")
    else:
        print(f"removed {_plural(count, 'document')}; {asked - count:,} of the {asked:,} were not there")


def facts(facts: Mapping[str, Any], json_wanted: bool) -> None:
    if json_wanted:
        as_json(facts)
        return
    out = _out()
    width = max(len(name) for name in facts)
    for name, value in facts.items():
        if name in ("failed", "repaired"):
            shown = f"{len(value):,}"
        elif isinstance(value, Mapping):
            shown = ", ".join(f"{key}={_fact(key, inner)}" for key, inner in value.items()) or "none"
        else:
            shown = f"{value:,}" if isinstance(value, int) else str(value)
        out.print(Text(f"{name:<{width}}  ", "dim") + Text(_clean(shown)))
    for name, reason in facts["failed"].items():
        out.print(Text("failed ", "red") + Text(f"{_clean(name)}: {_clean(reason)}"))


def _fact(name: str, value: Any) -> str:
    if isinstance(value, Mapping):
        return f"({', '.join(f'{key}={_fact(key, inner)}' for key, inner in value.items())})"
    if value is None:
        return "not told by the database"
    if name.endswith("_bytes"):
        return f"{value / 2**20:,.1f} MiB"
    if isinstance(value, float):
        return f"{round(value, 4):,}"
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)


_ANSWERS = {  # how each measure is called, and what it is the share of
    "found": ("answered", "of all questions; of the others the documents seem to tell nothing"),
    "confidence": ("confidence", "over all questions"),
    "judged_recall": ("relevant cited", "of the relevant documents, over all questions"),
    "support": ("support", "of an answer's sentences, by a source that they cite"),
    "citation_precision": ("citation precision", "of an answer's citations support their sentence"),
    "judged_precision": ("cited relevant", "of the documents that an answer cites"),
}


class _Evaluation(Protocol):
    dataset: str
    documents: int
    queries: int
    modes: dict[str, dict[str, float]]
    seconds: dict[str, float]
    pooled: int
    failed: list[Failure]
    intervals: dict[str, dict[str, tuple[float, float]]]
    comparisons: list[Any]
    per_query: dict[str, dict[str, dict[str, float]]]
    answers: dict[str, float]
    settings: dict[str, Any]

    def to_json(self) -> dict[str, Any]: ...


def made(folder: str, queries: int, spent: Spent, json_wanted: bool) -> None:
    if json_wanted:
        as_json({"folder": folder, "queries": queries, "requests": spent.requests, "dollars": spent.dollars})
        return
    out = _out()
    out.print(f"{_plural(queries, 'query', 'queries')} in {_clean(folder)}; measure with: nearest eval {folder}")
    if spent.requests:
        cost = "price unknown" if spent.dollars is None else f"${spent.dollars:.4f}"
        out.print(f"{_plural(spent.requests, 'request')} to the generator, {cost}")


def evaluation(
    evaluation: _Evaluation, json_wanted: bool, *, per_query: bool = False, side_by_side: bool = False
) -> None:
    """per_query: every measure of each. side_by_side: nDCG of each query, a column a mode."""
    if json_wanted:
        as_json(evaluation.to_json() | ({"per_query": evaluation.per_query} if per_query or side_by_side else {}))
        return
    from rich.table import Table

    out = _out()
    wide = Console(width=max(_width(), 120), highlight=False, markup=False, emoji=False)  # no number is cut off
    measures = list(next(iter(evaluation.modes.values())))
    table = Table(title=None, box=None, pad_edge=False)
    table.add_column("mode")
    for measure in [*measures, "seconds"]:
        table.add_column(measure, justify="right")
    for mode, values in evaluation.modes.items():
        within = evaluation.intervals[mode]
        cells = (f"{values[m]:.4f}\n{within[m][0]:.2f}-{within[m][1]:.2f}" for m in measures)
        table.add_row(mode, *cells, f"{evaluation.seconds[mode]:.2f}")
    documents = _plural(evaluation.documents, "document")
    queries = _plural(evaluation.queries, "query", "queries")
    index = f"indexed in {evaluation.seconds['index']:.1f} s"
    out.print(f"{_clean(evaluation.dataset)}: {documents}, {queries}, {index}")
    if evaluation.pooled:
        out.print(f"{_plural(evaluation.pooled, 'text')} over the model's limit, embedded in windows")
    if side_by_side and not per_query:
        modes, measure = evaluation.per_query, f"ndcg@{evaluation.settings['k']}"
        each_query = Table(title=measure, box=None, pad_edge=False, title_justify="left")
        each_query.add_column("query", overflow="fold")
        for mode in modes:
            each_query.add_column(mode, justify="right", no_wrap=True)
        for query in next(iter(modes.values()), {}):
            each_query.add_row(Text(_clean(query)), *(f"{each[query][measure]:.4f}" for each in modes.values()))
        wide.print(each_query)
    for name, value in evaluation.settings.items():
        if name != "k":
            out.print(f"{name}: {_clean(value if isinstance(value, str) else json.dumps(value, ensure_ascii=False))}")
    wide.print(table)
    out.print("Below each mean: where it lies with 95% confidence, by these queries (bootstrap).")
    for each in evaluation.comparisons:
        sure = f"p = {each.p:.3f}, better on {each.better}, worse on {each.worse}"
        out.print(f"{each.first} - {_clean(each.second)}: {each.difference:+.4f} {each.measure} ({sure})")
    if evaluation.answers:
        told = Table(title=None, box=None, pad_edge=False, show_header=False)
        for name, (low, high) in evaluation.intervals["answers"].items():
            label, meaning = _ANSWERS[name]
            told.add_row(label, f"{evaluation.answers[name]:.4f}", f"{low:.2f}-{high:.2f}", meaning)
        out.print(f"Answers to {queries}, with 95% confidence intervals:")
        wide.print(told)
        if over := int(evaluation.answers["over_budget"]):
            out.print(f"{_plural(over, 'question')} not answered: no passage fits the budget of tokens.")
        cost = evaluation.answers.get("dollars")
        if cost != 0:
            out.print("What they cost is not known." if cost is None else f"They cost {cost:.4f} dollars in all.")
    if per_query:
        table = Table(title=None, box=None, pad_edge=False)
        for column in ("query", "mode"):
            table.add_column(column, overflow="fold")
        for measure in measures:
            table.add_column(measure, justify="right", no_wrap=True)
        for query in next(iter(evaluation.per_query.values()), {}):
            for mode, each in evaluation.per_query.items():
                table.add_row(Text(_clean(query)), mode, *(f"{each[query][m]:.4f}" for m in measures))
        wide.print(table)
    _failures(out, evaluation.failed)


def similarities(found: Similarities, json_wanted: bool) -> None:
    """How models see pairs of texts, and how far they agree."""
    if json_wanted:
        as_json(found.to_json())
        return
    from rich.table import Table

    out = _out()
    table = Table(title=None, box=None, pad_edge=False)
    several = len(found.pairs) > 1
    for name in ("model", "dimensions", *(("mean", "least", "most") if several else ("similarity",))):
        table.add_column(name, justify="left" if name == "model" else "right")
    for view in found.views:
        row = view.similarities
        values = (row.mean(), row.min(), row.max()) if several else row
        table.add_row(Text(_clean(view.model)), f"{view.dimension:,}", *(f"{value:.4f}" for value in values))
    if several:
        out.print(f"cosine similarity of {_plural(len(found.pairs), 'pair')}")
    out.print(table)
    if found.agreement:
        table = Table(title=None, box=None, pad_edge=False)
        for name in ("agreement", "", "Spearman", "Pearson"):
            table.add_column(name, justify="right" if name in ("Spearman", "Pearson") else "left", overflow="fold")
        for one in found.agreement:
            told = ("undefined" if value is None else f"{value:.4f}" for value in (one.spearman, one.pearson))
            table.add_row(Text(_clean(one.model)), Text(_clean(one.other)), *told)
        out.print()
        out.print(table)
    for view in found.views:
        if view.truncated:
            note(f"{view.model}: {_plural(view.truncated, 'text')} cut to the model's limit")
        if view.note:
            note(f"{view.model}: {view.note}")


def chunks(file: str, strategy: str, cuts: Sequence[_Cut | Failure], json_wanted: bool) -> int:
    """Each chunk below a line that tells its number, tokens, characters and headings; what it repeats is dim."""
    from nearest.contract import Failure

    failed = [cut for cut in cuts if isinstance(cut, Failure)]
    made = [cut for cut in cuts if not isinstance(cut, Failure)]
    if json_wanted:
        documents = [{"id": cut.document.id, "chunks": _chunks_json(cut)} for cut in made]
        told = [{"id": failure.id, "reason": failure.reason} for failure in failed]
        as_json({"file": file, "strategy": strategy, "documents": documents, "failed": told})
        return 1 if failed else 0
    out = _out()
    for cut in made:
        end = 0
        for chunk, tokens in zip(cut.chunks, cut.tokens, strict=True):
            facts = [
                f"{cut.document.id}#{chunk.ordinal}",
                f"{tokens:,} tokens",
                f"characters {chunk.start}-{chunk.end}",
            ]
            if (page := cut.document.place(chunk.start).get("page")) is not None:
                facts.append(f"page {page}")
            facts += [" > ".join(chunk.headings)] if chunk.headings else []
            out.print(Text("-- " + _clean(", ".join(facts)), "bold magenta"))
            if chunk.prefix:
                out.print(Text(_lines(chunk.prefix).rstrip("\n"), "green"))
            repeated = max(0, min(end, chunk.end) - chunk.start)
            colour = _COLOURS[chunk.ordinal % len(_COLOURS)]
            text = Text().append(_lines(chunk.text[:repeated]), f"{colour} dim")
            text.append(_lines(chunk.text[repeated:]), colour)
            text.rstrip()
            out.print(text)
            end = chunk.end
    _failures(out, failed, again=False)
    return 1 if failed else 0


def _chunks_json(cut: _Cut) -> list[dict[str, Any]]:
    return [
        {
            "ordinal": chunk.ordinal, "start": chunk.start, "end": chunk.end, "tokens": tokens,
            "headings": list(chunk.headings), "page": cut.document.place(chunk.start).get("page"),
            "prefix": chunk.prefix, "text": chunk.text,
        }
        for chunk, tokens in zip(cut.chunks, cut.tokens, strict=True)
    ]  # fmt: skip


def stores(stores: Sequence[Mapping[str, Any]], json_wanted: bool) -> None:
    if json_wanted:
        as_json({"stores": list(stores)})
        return
    out = _out()
    for store in stores:
        state = Text("installed", "green") if store["installed"] else Text(store["install"], "yellow")
        out.print(Text(", ".join(f"{scheme}:" for scheme in store["schemes"]), "bold") + Text("  ") + state)
        for name in ("features", "filters"):
            for row in textwrap.wrap(f"{name}: {' '.join(store[name])}", _width() - 4, subsequent_indent="  "):
                out.print(Text(f"    {row}", "dim"))
        for gap in store["known_gaps"]:
            out.print(Text(f"    gap ({gap['why']}): {_clean(gap['reason'])}", "dim"))


def demo(
    collection: str,
    report: _Report,
    answers: Sequence[tuple[str, Mapping[str, Any] | None, Sequence[Hit]]],
    json_wanted: bool,
) -> None:
    if json_wanted:
        told = [
            {"query": query, "where": where, "hits": [_hit_json(hit) for hit in hits]} for query, where, hits in answers
        ]
        as_json({"collection": collection, "report": _report_json(report), "answers": told})
        return
    out = _out()
    out.print(_report_line(report))
    _failures(out, report.failed)
    for query, where, hits in answers:
        out.print()
        asked = Text(f"? {query}", "bold blue")
        if where is not None:
            asked += Text(f"   where {json.dumps(where)}", "blue")
        out.print(asked)
        best: dict[str | None, Hit] = {}
        for hit in hits:
            best.setdefault(hit.document_id, hit)  # of a document's passages the first
        for rank, hit in enumerate(list(best.values())[:3], 1):
            _hit(out, rank, hit)
    out.print()
    out.print(Text("Now your own folder:", "bold"))
    program = _program()
    out.print(f"    {program} add YOUR_FOLDER", markup=False)
    out.print(f"    {program} search 'your question'", markup=False)


def _program() -> str:
    """How the reader calls this program from where they are: it may not be on the PATH."""
    here = Path(sys.argv[0]).absolute()
    if here.stem != "nearest" or shutil.which("nearest") in (str(here), str(here.resolve())):
        return "nearest"
    return os.path.relpath(here)
