"""Asks a data set's questions in every mode and measures the answers.

Judgements are about documents and hits are chunks, so a document stands where its best chunk does. As in
BEIR, a document with the query's own id is left out of its ranking: in some data sets the queries are
part of the corpus.
"""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, Protocol, get_args

from nearest.contract import MAX_K, Document, Failure, FusionMethod, Hit, Reranker
from nearest.errors import InvalidInput, InvalidQuery
from nearest.evaluate import answers, metrics, significance, trec
from nearest.evaluate.beir import Dataset

DEFAULT = "adaptive"
MODES: Mapping[str, Mapping[str, str]] = {mode: {"mode": mode} for mode in ("dense", "lexical", "hybrid")}
FUSIONS: Mapping[str, Mapping[str, str]] = {
    "dense": MODES["dense"],
    "lexical": MODES["lexical"],
    **{method: {"mode": "hybrid", "fusion": method} for method in get_args(FusionMethod)},
}
DEEP = 100  # documents that recall@100 and map@100 look at
JUDGED = 50  # hits that a reranker judges, as `Collection.search` has it
Measures = Mapping[str, tuple[Callable[[Sequence[str], metrics.Judgements, int], float], int]]


def measures(k: int = 10) -> Measures:
    """By name; k: how many documents nDCG, the reciprocal rank and precision look at."""
    return {
        f"ndcg@{k}": (metrics.ndcg, k),
        f"recall@{DEEP}": (metrics.recall, DEEP),
        f"mrr@{k}": (metrics.mrr, k),
        f"map@{DEEP}": (metrics.average_precision, DEEP),
        f"precision@{k}": (metrics.precision, k),
    }


MEASURES = measures()
MOST = 1000  # k
_BATCH = 64  # queries at once
_JUDGED_BATCH = 8  # the same, where each costs a reranker's time


class Stage(NamedTuple):
    """How far an evaluation is. name: `index` or a mode; of: how many documents or queries there are."""

    name: str
    done: int
    of: int


class Collection(Protocol):
    """What is needed of a collection."""

    def add(self, documents: Iterable[Document], *, pool: bool, progress: Callable[[Any], None] | None) -> Any: ...
    def search_many(self, queries: Sequence[str], *args: Any, **kwargs: Any) -> Sequence[Sequence[Hit]]: ...
    def info(self) -> dict[str, Any]: ...


@dataclass
class Evaluation:
    """What was measured.

    modes: each of the measures of each mode, and of `weighted` and `reranked` where they were asked for. seconds:
    `index`, and each mode's for all queries. failed: documents that could not be indexed. pooled: texts over the
    model's limit, embedded in windows. intervals: where each mean lies, with 95% confidence by the bootstrap.
    comparisons: by `compare`, of each two modes, or of each fusion and part with the default one; and of `weighted`
    and `reranked` with what they began from. rankings: the documents of each query, best first, with the scores of
    their best chunks, by mode. per_query: the measures of each, by mode. answers: see `ask`; empty where none were
    asked for, and otherwise `intervals` has theirs, as those of a mode `answers`. settings: k of the measures and, if
    given, the condition, the weights and the reranker.
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
    settings: dict[str, Any] = field(default_factory=lambda: {"k": 10})

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
    rankings: Mapping[str, Sequence[str]], qrels: Mapping[str, metrics.Judgements], measures: Measures = MEASURES
) -> dict[str, dict[str, float]]:
    """Each of the measures for each query with a positive judgement; one without a ranking has 0."""
    return {
        query: {name: measure(rankings.get(query, ()), qrels[query], k) for name, (measure, k) in measures.items()}
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


def read_run(path: str | Path, dataset: Dataset, k: int = 10) -> dict[str, dict[str, float]]:
    """The `measures` of a TREC run file, of each query with a positive judgement.

    One without a line in it found nothing, and has 0. Raises InvalidInput for a run about other queries.
    """
    theirs = {query: [document for document, _ in ranking] for query, ranking in trec.read(path).items()}
    strange = next((query for query in theirs if query not in dataset.queries), None)
    if strange is not None or not theirs.keys() & metrics.judged_queries(dataset.qrels):
        what = f"such as {strange!r}" if strange is not None else "of which none is judged"
        raise InvalidInput(f"{path} is about other queries than {dataset.name}, {what}; compare runs on one data set")
    return per_query(theirs, dataset.qrels, measures(k))


def compare_with(evaluation: Evaluation, name: str, theirs: Mapping[str, Mapping[str, float]]) -> None:
    """Compare each mode with another run, by what `read_run` gives of it; adds the results to `comparisons`."""
    measure = f"ndcg@{evaluation.settings['k']}"
    evaluation.comparisons += [
        compare(mode, each, name, theirs, measure) for mode, each in evaluation.per_query.items()
    ]


def check_runs(folder: str | Path, dataset: Dataset) -> None:
    """Makes the folder. Raises InvalidInput where `write_runs` could not write: ids that hold a space, no folder."""
    if Path(folder).exists() and not Path(folder).is_dir():
        raise InvalidInput(f"{folder} is a file; run files are written to a folder")
    for name in itertools.chain(dataset.ids, dataset.qrels):
        trec.check(name)
    try:
        Path(folder).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InvalidInput(f"{folder} cannot be made: {error.strerror}; give another folder for run files") from None


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
) -> tuple[dict[str, float], dict[str, tuple[float, float]]]:
    """The means of the measures of `answers` over the queries with a positive judgement, and their 95% intervals.

    answer: a question to what `Collection.ask` gives. found: the share that was answered; support and precision are
    over those, recall and confidence over all. over_budget: how many questions had no passage that fits the answer's
    budget; they count as not answered, and what their search cost is not told. dollars: of all models and answers
    together, left out where they are not known.
    """
    told: dict[str, list[float]] = {name: [] for name in ("found", "confidence", "judged_recall")}
    over_found: dict[str, list[float]] = {name: [] for name in ("support", "citation_precision", "judged_precision")}
    dollars: list[float | None] = []
    over_budget = 0
    asked = metrics.judged_queries(qrels)
    for number, query in enumerate(asked, 1):
        try:
            given = answer(queries[query])
        except InvalidQuery:  # of whole documents, say; the queries themselves were searched for before
            over_budget += 1
            for values in told.values():
                values.append(0.0)
            if tell is not None:
                tell(Stage("answers", number, len(asked)))
            continue
        documents = {source.number: source.document_id for source in given.sources}
        sentences = [
            [answers.Cited(documents.get(c.source, ""), c.supported) for c in sentence.citations]
            for sentence in given.sentences
        ]
        relevant = {document for document, relevance in qrels[query].items() if relevance > 0}
        told["found"].append(float(given.found))
        told["confidence"].append(given.confidence)
        told["judged_recall"].append(answers.judged_recall(sentences, relevant))
        dollars.append(given.dollars)
        if sentences:
            over_found["support"].append(answers.support(sentences))
            over_found["citation_precision"].append(answers.citation_precision(sentences))
            over_found["judged_precision"].append(answers.judged_precision(sentences, relevant))
        if tell is not None:
            tell(Stage("answers", number, len(asked)))
    measured = {name: some for name, some in {**told, **over_found}.items() if some}
    means = {name: math.fsum(some) / len(some) for name, some in measured.items()}
    means["over_budget"] = over_budget
    known = [each for each in dollars if each is not None]
    if len(known) == len(dollars):
        means["dollars"] = math.fsum(known)
    return means, {name: significance.interval(some) for name, some in measured.items()}


def check_k(k: int) -> None:
    """Raises InvalidInput for a k that nothing can be measured at."""
    if not isinstance(k, int) or isinstance(k, bool) or not 1 <= k <= MOST:
        raise InvalidInput(f"k must be a whole number from 1 to {MOST}, got {k!r}")


def run(
    kb: Collection,
    dataset: Dataset,
    progress: Callable[[Stage], None] | None = None,
    *,
    fusions: bool = False,
    index: bool = True,
    k: int = 10,
    where: Mapping[str, Any] | None = None,
    weights: Mapping[str, float] | None = None,
    rerank: Reranker | None = None,
) -> Evaluation:
    """Index what the collection lacks of a data set, pooling what is over the model's limit, and measure it.

    index: or measure the collection as it is.
    fusions: instead of the three modes, every method of fusion and its two parts; the modes are then named after them.
    k: see `measures`. where: a condition that every search has; what it keeps out counts as not found.
    weights: of several vectors, measured as one more mode, `weighted`, which is the default search with them.
    rerank: measured as one more, `reranked`: the JUDGED best (k if that is more) of the default search, or of
    `weighted`, by this model's scores, and behind them the others as they were. Raises InvalidInput for k and for a
    condition that nothing satisfies, and what a search raises.
    """
    check_k(k)
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
    asked = _Asked(kb, {query: dataset.queries[query] for query in metrics.judged_queries(dataset.qrels)}, max(DEEP, k))
    common: dict[str, Any] = {} if where is None else {"where": where}
    modes: dict[str, Mapping[str, Any]] = {
        name: {**how, **common} for name, how in (FUSIONS if fusions else MODES).items()
    }
    base = DEFAULT if fusions else "hybrid"
    pairs = (
        [(name, DEFAULT) for name in FUSIONS if name != DEFAULT]
        if fusions
        else list(itertools.combinations(reversed(list(MODES)), 2))
    )
    if weights is not None:
        modes["weighted"] = {**modes[base], "weights": weights}
        pairs.append(("weighted", base))
        base = "weighted"
    found: dict[str, dict[str, list[tuple[str, float]]]] = {}
    for mode, how in modes.items():
        started = time.perf_counter()
        found[mode] = asked.rankings(mode, how, tell)
        seconds[mode] = time.perf_counter() - started
        if where is not None and mode == "dense" and not any(found[mode].values()):
            raise InvalidInput(f"no document satisfies the condition {dict(where)}; nothing can be measured with it")
    if rerank is not None:
        started = time.perf_counter()
        judged = asked.judged("reranked", {**modes[base], "rerank": rerank}, max(JUDGED, k), tell)
        seconds["reranked"] = time.perf_counter() - started
        # A document stands once: where the reranker put it, or else where it was.
        found["reranked"] = {
            query: list((best | {d: score for d, score in found[base][query] if d not in best}).items())[: asked.depth]
            for query, best in judged.items()
        }
        pairs.append(("reranked", base))
    by_query = {
        mode: per_query({query: [d for d, _ in some] for query, some in rankings.items()}, dataset.qrels, measures(k))
        for mode, rankings in found.items()
    }
    means: dict[str, dict[str, float]] = {}
    intervals: dict[str, dict[str, tuple[float, float]]] = {}
    for mode, each in by_query.items():
        values = {name: [told[name] for told in each.values()] for name in measures(k)}
        means[mode] = {name: math.fsum(some) / len(some) for name, some in values.items()}
        intervals[mode] = {name: significance.interval(some) for name, some in values.items()}
    facts = kb.info()
    return Evaluation(
        dataset.name, facts["documents"], len(asked.queries), facts["embedder"], facts["chunker"], means,
        {name: round(value, 3) for name, value in seconds.items()}, pooled, failed, intervals,
        [compare(a, by_query[a], b, by_query[b], f"ndcg@{k}") for a, b in pairs], found, by_query,
        settings={
            "k": k,
            **common,
            **({"weights": dict(weights)} if weights is not None else {}),
            **({"rerank": rerank.name} if rerank is not None else {}),
        },
    )  # fmt: skip


class _Asked(NamedTuple):
    """A data set's queries, asked of a collection. depth: documents a ranking."""

    kb: Collection
    queries: Mapping[str, str]
    depth: int

    def rankings(
        self, mode: str, how: Mapping[str, Any], tell: Callable[[Stage], None]
    ) -> dict[str, list[tuple[str, float]]]:
        """The `depth` best documents of each query, each with the score of its best chunk."""
        rankings: dict[str, list[tuple[str, float]]] = {}
        for batch in self._batches(_BATCH):
            found: dict[str, dict[str, float]] = {query: {} for query in batch}
            k = self.depth + 1  # the query itself may be among them
            while batch:
                lists = self.kb.search_many([self.queries[query] for query in batch], k=k, **how)
                short = []
                for query, hits in zip(batch, lists, strict=True):
                    # A deeper search may fuse a little differently; what the first one ranked stays in front.
                    ranked = found[query] = _documents(query, hits, found[query])
                    if len(ranked) < self.depth and len(hits) == k < MAX_K:
                        short.append(query)
                batch, k = short, min(2 * k, MAX_K)
            rankings |= {query: list(ranking.items())[: self.depth] for query, ranking in found.items()}
            tell(Stage(mode, len(rankings), len(self.queries)))
        return rankings

    def judged(
        self, mode: str, how: Mapping[str, Any], k: int, tell: Callable[[Stage], None]
    ) -> dict[str, dict[str, float]]:
        """The documents of the k best hits of each query, as a reranker orders them, with its scores."""
        found: dict[str, dict[str, float]] = {}
        for batch in self._batches(_JUDGED_BATCH):
            lists = self.kb.search_many([self.queries[query] for query in batch], k=k, **how)
            for query, hits in zip(batch, lists, strict=True):
                found[query] = _documents(query, hits)
            tell(Stage(mode, len(found), len(self.queries)))
        return found

    def _batches(self, size: int) -> Iterator[list[str]]:
        ids = list(self.queries)
        return (ids[start : start + size] for start in range(0, len(ids), size))


def _documents(query: str, hits: Sequence[Hit], known: Mapping[str, float] | None = None) -> dict[str, float]:
    """The documents of hits but the query itself, each with the score of its best chunk, after those that are known."""
    ranked = dict(known or {})
    for hit in hits:
        ranked.setdefault(hit.document_id or hit.id, hit.score)
    ranked.pop(query, None)
    return ranked
