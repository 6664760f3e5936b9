"""Asks a data set's questions in every mode and measures the answers.

Judgements are about documents and hits are chunks, so a document stands where its best chunk does. As in
BEIR, a document with the query's own id is left out of its ranking: in some data sets the queries are
part of the corpus.
"""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, Protocol, get_args

from nearest.contract import MAX_K, Document, Failure, FusionMethod, Hit
from nearest.errors import InvalidInput
from nearest.evaluate import answers, metrics, significance, trec
from nearest.evaluate.beir import Dataset

DEFAULT = "adaptive"
MODES: Mapping[str, Mapping[str, str]] = {mode: {"mode": mode} for mode in ("dense", "lexical", "hybrid")}
FUSIONS: Mapping[str, Mapping[str, str]] = {
    "dense": MODES["dense"],
    "lexical": MODES["lexical"],
    **{method: {"mode": "hybrid", "fusion": method} for method in get_args(FusionMethod)},
}
MEASURES: Mapping[str, tuple[Callable[[Sequence[str], metrics.Judgements, int], float], int]] = {
    "ndcg@10": (metrics.ndcg, 10),
    "recall@100": (metrics.recall, 100),
    "mrr@10": (metrics.mrr, 10),
    "map@100": (metrics.average_precision, 100),
    "precision@10": (metrics.precision, 10),
}
_DEPTH = 100  # documents a ranking, for recall@100
_BATCH = 64  # queries at once


class Stage(NamedTuple):
    """How far an evaluation is. name: `index` or a mode; of: how many documents or queries there are."""

    name: str
    done: int
    of: int


class Collection(Protocol):
    """What is needed of a collection."""

    def add(self, documents: Iterable[Document], *, pool: bool, progress: Callable[[Any], None] | None) -> Any: ...
    def search_many(
        self, queries: Sequence[str], *, k: int, mode: Any, fusion: Any = DEFAULT
    ) -> Sequence[Sequence[Hit]]: ...
    def info(self) -> dict[str, Any]: ...


@dataclass
class Evaluation:
    """What was measured.

    modes: each of MEASURES of each mode. seconds: `index`, and each mode's for all queries. failed: documents that
    could not be indexed. pooled: texts over the model's limit, embedded in windows. intervals: where each mean lies,
    with 95% confidence by the bootstrap. comparisons: of each two modes, or of each fusion and part with the default
    one, by `compare`. rankings: the documents of each
    query, best first, with the scores of their best chunks, by mode. per_query: the measures of each, by mode. answers:
    see `ask`; empty where none were asked for.
    """

    dataset: str
    documents: int
    queries: int
    embedder: str
    chunker: Mapping[str, Any]
    modes: dict[str, dict[str, float]]
    seconds: dict[str, float]
    pooled: int
    failed: list[Failure]
    intervals: dict[str, dict[str, tuple[float, float]]] = field(default_factory=dict)
    comparisons: list[Comparison] = field(default_factory=list)
    rankings: dict[str, dict[str, list[tuple[str, float]]]] = field(default_factory=dict)
    per_query: dict[str, dict[str, dict[str, float]]] = field(default_factory=dict)
    answers: dict[str, float] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """All but the rankings and the queries one by one, which are long."""
        told = {name: value for name, value in vars(self).items() if name not in ("rankings", "per_query")}
        failed = [{"id": failure.id, "reason": failure.reason} for failure in self.failed]
        return {**told, "failed": failed, "comparisons": [each._asdict() for each in self.comparisons]}


class Comparison(NamedTuple):
    """One run against another. difference: of the means, first minus second. p: by the paired randomisation test.

    better, worse: queries on which the first is.
    """

    first: str
    second: str
    measure: str
    difference: float
    p: float
    better: int
    worse: int


def per_query(
    rankings: Mapping[str, Sequence[str]], qrels: Mapping[str, metrics.Judgements]
) -> dict[str, dict[str, float]]:
    """Each of MEASURES for each query with a positive judgement; one without a ranking has 0."""
    return {
        query: {name: measure(rankings.get(query, ()), qrels[query], k) for name, (measure, k) in MEASURES.items()}
        for query in metrics.judged_queries(qrels)
    }


def compare(
    first: str,
    one: Mapping[str, Mapping[str, float]],
    second: str,
    two: Mapping[str, Mapping[str, float]],
    measure: str = "ndcg@10",
) -> Comparison:
    """Two runs by what `per_query` gives of each; raises InvalidInput if they are about different queries."""
    if set(one) != set(two):
        raise InvalidInput(f"{first} and {second} are about different queries; compare runs on one data set")
    pairs = [(one[query][measure], two[query][measure]) for query in one]
    a, b = [pair[0] for pair in pairs], [pair[1] for pair in pairs]
    difference = (math.fsum(a) - math.fsum(b)) / len(pairs)
    p = significance.randomisation(a, b)
    return Comparison(first, second, measure, difference, p, sum(x > y for x, y in pairs), sum(x < y for x, y in pairs))


def read_run(path: str | Path, dataset: Dataset) -> dict[str, dict[str, float]]:
    """The measures of a TREC run file, of each query with a positive judgement.

    One without a line in it found nothing, and has 0. Raises InvalidInput for a run about other queries.
    """
    theirs = {query: [document for document, _ in ranking] for query, ranking in trec.read(path).items()}
    strange = next((query for query in theirs if query not in dataset.queries), None)
    if strange is not None or not theirs.keys() & metrics.judged_queries(dataset.qrels):
        what = f"such as {strange!r}" if strange is not None else "of which none is judged"
        raise InvalidInput(f"{path} is about other queries than {dataset.name}, {what}; compare runs on one data set")
    return per_query(theirs, dataset.qrels)


def compare_with(evaluation: Evaluation, name: str, theirs: Mapping[str, Mapping[str, float]]) -> None:
    """Compare each mode with another run, by what `read_run` gives of it; adds the results to `comparisons`."""
    evaluation.comparisons += [compare(mode, each, name, theirs) for mode, each in evaluation.per_query.items()]


def check_runs(folder: str | Path, dataset: Dataset) -> None:
    """Raises InvalidInput where `write_runs` could not write: ids that hold a space, a file in the folder's place."""
    if Path(folder).exists() and not Path(folder).is_dir():
        raise InvalidInput(f"{folder} is a file; run files are written to a folder")
    for name in itertools.chain(dataset.ids, dataset.qrels):
        trec.check(name)


def write_runs(evaluation: Evaluation, folder: str | Path) -> None:
    """A TREC run file a mode, `dense.run` and so on. Raises InvalidInput for ids that hold a space."""
    Path(folder).mkdir(parents=True, exist_ok=True)
    for mode, rankings in evaluation.rankings.items():
        trec.write(Path(folder) / f"{mode}.run", rankings, mode)


def ask(
    queries: Mapping[str, str],
    qrels: Mapping[str, metrics.Judgements],
    answer: Callable[[str], Any],
    tell: Callable[[Stage], None] | None = None,
) -> dict[str, float]:
    """The means of the measures of `answers` over the queries with a positive judgement.

    answer: a question to what `Collection.ask` gives. found: the share that was answered; support and precision are
    over those, recall and confidence over all. dollars: by the generator, left out where they are not known.
    """
    told: dict[str, list[float]] = {name: [] for name in ("found", "confidence", "judged_recall")}
    over_found: dict[str, list[float]] = {name: [] for name in ("support", "citation_precision", "judged_precision")}
    dollars: list[float | None] = []
    asked = metrics.judged_queries(qrels)
    for number, query in enumerate(asked, 1):
        given = answer(queries[query])
        documents = {source.number: source.document_id for source in given.sources}
        sentences = [
            [answers.Cited(documents.get(c.source, ""), c.supported) for c in sentence.citations]
            for sentence in given.sentences
        ]
        relevant = {document for document, relevance in qrels[query].items() if relevance > 0}
        told["found"].append(float(given.found))
        told["confidence"].append(given.confidence)
        told["judged_recall"].append(answers.judged_recall(sentences, relevant))
        dollars.append(given.spent.dollars)
        if sentences:
            over_found["support"].append(answers.support(sentences))
            over_found["citation_precision"].append(answers.citation_precision(sentences))
            over_found["judged_precision"].append(answers.judged_precision(sentences, relevant))
        if tell is not None:
            tell(Stage("answers", number, len(asked)))
    means = {name: math.fsum(v) / len(v) for name, v in {**told, **over_found}.items() if v}
    known = [each for each in dollars if each is not None]
    return {**means, **({"dollars": math.fsum(known)} if len(known) == len(dollars) else {})}


def run(
    kb: Collection,
    dataset: Dataset,
    progress: Callable[[Stage], None] | None = None,
    *,
    fusions: bool = False,
    index: bool = True,
) -> Evaluation:
    """Index what the collection lacks of a data set, pooling what is over the model's limit, and measure it.

    index: or measure the collection as it is.
    fusions: instead of the three modes, every method of fusion and its two parts; the modes are then named after them.
    """
    tell = progress or (lambda stage: None)
    total = len(dataset.ids)
    started = time.perf_counter()
    pooled, failed = 0, list(dataset.failed)
    if index:
        report = kb.add(
            dataset.documents(), pool=True, progress=lambda at: tell(Stage("index", at.documents + at.failed, total))
        )
        pooled, failed = report.pooled, [*failed, *report.failed]
    seconds = {"index": time.perf_counter() - started}
    modes: dict[str, dict[str, float]] = {}
    intervals: dict[str, dict[str, tuple[float, float]]] = {}
    found: dict[str, dict[str, list[tuple[str, float]]]] = {}
    each: dict[str, dict[str, dict[str, float]]] = {}
    queries = {query: dataset.queries[query] for query in metrics.judged_queries(dataset.qrels)}
    for mode, how in (FUSIONS if fusions else MODES).items():
        started = time.perf_counter()
        rankings = _rankings(kb, queries, mode, how, tell)
        seconds[mode] = time.perf_counter() - started
        found[mode] = rankings
        each[mode] = per_query({query: [d for d, _ in ranking] for query, ranking in rankings.items()}, dataset.qrels)
        values = {name: [told[name] for told in each[mode].values()] for name in MEASURES}
        modes[mode] = {name: math.fsum(some) / len(some) for name, some in values.items()}
        intervals[mode] = {name: significance.interval(some) for name, some in values.items()}
    facts = kb.info()
    pairs = (
        [(name, DEFAULT) for name in FUSIONS if name != DEFAULT]
        if fusions
        else list(itertools.combinations(reversed(list(MODES)), 2))
    )
    return Evaluation(
        dataset.name, facts["documents"], len(queries), facts["embedder"], facts["chunker"], modes,
        {name: round(value, 3) for name, value in seconds.items()}, pooled, failed, intervals,
        [compare(a, each[a], b, each[b]) for a, b in pairs], found, each,
    )  # fmt: skip


def _rankings(
    kb: Collection, queries: Mapping[str, str], mode: str, how: Mapping[str, str], tell: Callable[[Stage], None]
) -> dict[str, list[tuple[str, float]]]:
    """The `_DEPTH` best documents of each query, each with the score of its best chunk."""
    rankings: dict[str, list[tuple[str, float]]] = {}
    ids = list(queries)
    for start in range(0, len(ids), _BATCH):
        batch = ids[start : start + _BATCH]
        found: dict[str, dict[str, float]] = {query: {} for query in batch}
        k = _DEPTH + 1  # the query itself may be among them
        while batch:
            lists = kb.search_many([queries[query] for query in batch], k=k, **how)
            short = []
            for query, hits in zip(batch, lists, strict=True):
                # A deeper search may fuse a little differently; what the first one ranked stays in front.
                ranked = found[query]
                for hit in hits:
                    ranked.setdefault(hit.document_id or hit.id, hit.score)
                ranked.pop(query, None)
                if len(ranked) < _DEPTH and len(hits) == k < MAX_K:
                    short.append(query)
            batch, k = short, min(2 * k, MAX_K)
        rankings |= {query: list(ranking.items())[:_DEPTH] for query, ranking in found.items()}
        tell(Stage(mode, len(rankings), len(queries)))
    return rankings
