"""Answers: how often the answer is in the sentences that an extractive answer quotes; whether its confidence is true.

    python -m benchmarks answers          measures on the test questions
    python -m benchmarks.answers fit [FOLDER]    fits the coefficients of nearest/answer/confidence.py, and prints
                                                 them; FOLDER keeps the collections for another time

XQuAD's 1,190 English questions are ordered by the SHA-256 of their ids: the first 500 are the test, the others are
for development and fitting. SciFact is used by its training claims alone. An answer counts when one of its
strings is inside a quoted sentence; a question that is answered with "not in these documents" counts as a miss.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import math
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

import nearest
from benchmarks.common import DATA, table
from nearest.answer import Source, confidence, extract, support
from nearest.answer.context import pack
from nearest.app import Collection
from nearest.contract import Embedder, Float32, Hit
from nearest.stores._bm25 import Analyzer

TEST = 500
HITS, BUDGET = 8, 3000  # as `Collection.ask` has them
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Question:
    """A question or a claim.

    gold: the documents that hold the answer. answers: its strings; none for a claim, whose
    evidence is a document.
    """

    id: str
    text: str
    gold: frozenset[str]
    answers: tuple[str, ...]

    def held(self, document: str, sentence: str) -> bool:
        """Whether a sentence of a document answers."""
        if not self.answers:
            return document in self.gold
        return any(answer.casefold() in sentence.casefold() for answer in self.answers)


# --- the questions ---------------------------------------------------------------------------------


def xquad() -> tuple[list[nearest.Document], list[Question], list[Question]]:
    """Paragraphs as documents; test and development questions."""
    documents = [
        nearest.Document(row["_id"], row["text"], {"article": row["metadata"]["article"]})
        for row in _rows("xquad/corpus.jsonl")
        if row["metadata"]["lang"] == "en"
    ]
    gold = _judged("xquad/qrels.tsv")
    questions = [
        Question(row["_id"], row["text"], gold[row["_id"]], tuple(row["metadata"]["answers"]))
        for row in _rows("xquad/queries.jsonl")
        if row["metadata"]["lang"] == "en"
    ]
    questions.sort(key=lambda question: hashlib.sha256(question.id.encode()).hexdigest())
    return documents, questions[:TEST], questions[TEST:]


def scifact() -> tuple[list[nearest.Document], list[Question]]:
    """Abstracts, and the claims of the training set."""
    documents = [nearest.Document(r["_id"], f"{r['title']}\n\n{r['text']}") for r in _rows("scifact/corpus.jsonl")]
    gold = _judged("scifact/qrels_train.tsv")
    return documents, [
        Question(row["_id"], row["text"], gold[row["_id"]], ())
        for row in _rows("scifact/queries_train.jsonl")
        if row["_id"] in gold
    ]


def _rows(name: str) -> Iterator[dict[str, Any]]:
    with (DATA / name).open(encoding="utf-8") as lines:
        yield from map(json.loads, lines)


def _judged(name: str) -> dict[str, frozenset[str]]:
    judged: dict[str, set[str]] = {}
    for line in (DATA / name).read_text().splitlines()[1:]:
        query, document, score = line.split("\t")
        if int(score) > 0:
            judged.setdefault(query, set()).add(document)
    return {query: frozenset(documents) for query, documents in judged.items()}


class Remembering(Embedder):
    """An embedder that embeds each text once: fitting meets the same sentences many times."""

    def __init__(self, inner: Embedder) -> None:
        self.inner = inner
        self.name, self.dimension, self.max_tokens = inner.name, inner.dimension, inner.max_tokens
        self.fingerprint, self.tokenizer = inner.fingerprint, inner.tokenizer
        self.known: dict[str, Float32] = {}

    def embed_documents(self, texts: Sequence[str], *, truncate: bool = False) -> Float32:
        new = [text for text in dict.fromkeys(texts) if text not in self.known]
        self.known |= dict(zip(new, self.inner.embed_documents(new, truncate=truncate), strict=True))
        return np.stack([self.known[text] for text in texts])

    def embed_query(self, text: str, *, truncate: bool = False) -> Float32:
        query = f"query: {text}"
        if query not in self.known:
            self.known[query] = self.inner.embed_query(text, truncate=truncate)
        return self.known[query]


# --- measuring -------------------------------------------------------------------------------------


def run() -> None:
    documents, test, _ = xquad()
    with tempfile.TemporaryDirectory() as folder, nearest.open(Path(folder) / "kb") as kb:
        kb.add(documents)
        inside, quoted, outcomes, gone = 0, 0, [], []
        for question in test:
            answer = kb.ask(question.text)
            by_number = {source.number: source for source in answer.sources}
            right = any(
                c.supported and s.text in " ".join(by_number[c.source].text.split())
                and question.held(by_number[c.source].document_id, s.text)
                for s in answer.sentences for c in s.citations
            )  # fmt: skip
            inside += right
            quoted += len(answer.sentences)
            outcomes.append((answer.confidence, answer.found, right))
        for question in test:  # the same, where no document holds the answer
            hits = [h for h in kb.search(question.text, k=HITS + 8) if h.document_id not in question.gold][:HITS]
            answer = _answer_from(kb, hits, question.text)
            gone.append((answer.confidence, answer.found, False))
        rows, holds = _support_cases(Remembering(kb.embedder), documents, test, [])
        checked = [
            (confidence.SUPPORT(row) * (1 - row["numbers"]), True, ok) for row, ok in zip(rows, holds, strict=True)
        ]
    right_checks = sum((p >= support.HOLDS) == ok for p, _, ok in checked) / len(checked)
    found = [outcome for outcome in outcomes if outcome[1]]
    table(
        f"answers, extractive: {TEST} XQuAD English questions, {len(documents)} paragraphs",
        ("measure", "value"),
        (
            ("answer inside the quoted, cited sentences", f"{inside / TEST:.3f}"),
            ("sentences an answer", f"{quoted / max(len(found), 1):.2f}"),
            ("answered with 'not in these documents'", f"{1 - len(found) / TEST:.3f}"),
            ("  where the paragraph with the answer is missing", f"{sum(not o[1] for o in gone) / TEST:.3f}"),
            ("confidence, expected calibration error (10 bins)", f"{calibration_error(outcomes + gone):.3f}"),
            ("confidence, Brier score", f"{np.mean([(p - right) ** 2 for p, _, right in outcomes + gone]):.3f}"),
            ("confidence, area under the ROC curve", f"{roc_area(outcomes + gone):.3f}"),
            (f"support of {len(checked)} statements, rightly told", f"{right_checks:.3f}"),
            ("  area under the ROC curve", f"{roc_area(checked):.3f}"),
        ),
    )


def calibration_error(outcomes: Sequence[tuple[float, bool, bool]]) -> float:
    """The mean gap between confidence and the share of right answers, over ten bins of equal width."""
    bins: list[list[tuple[float, bool]]] = [[] for _ in range(10)]
    for probability, _, right in outcomes:
        bins[min(int(probability * 10), 9)].append((probability, right))
    gaps = [abs(sum(p for p, _ in b) - sum(r for _, r in b)) for b in bins]
    return sum(gaps) / len(outcomes)


def roc_area(outcomes: Sequence[tuple[float, bool, bool]]) -> float:
    """The chance that a right answer has more confidence than a wrong one; ties count half."""
    right = np.array([p for p, _, ok in outcomes if ok])[:, None]
    wrong = np.array([p for p, _, ok in outcomes if not ok])[None]
    return float(np.mean((right > wrong) + 0.5 * (right == wrong)))


def _answer_from(kb: Collection, hits: list[Hit], question: str) -> Any:
    from nearest.answer import Answerer, Asked

    terms = Analyzer("english").terms
    return Answerer(lambda *_, **__: hits, lambda: kb.embedder, terms).answer(question, Asked(HITS, budget=BUDGET))


# --- fitting ---------------------------------------------------------------------------------------


def fit() -> None:
    """Sentences first, since evidence is made of them; then evidence; then support."""
    documents, _, development = xquad()
    abstracts, claims = scifact()
    terms = Analyzer("english").terms
    with tempfile.TemporaryDirectory() as made:
        folder = sys.argv[2] if len(sys.argv) > 2 else made
        one, two = nearest.open(Path(folder) / "xquad"), nearest.open(Path(folder) / "scifact")
        model = Remembering(one.embedder)
        one.add(documents)
        two.add(abstracts, pool=True)
        cases = [*_cases(one, development), *_cases(two, claims)]
        rows, labels = [], []
        for question, sources in cases:
            if question.answers and any(s.document_id in question.gold for s in sources):
                for candidate in extract.rank(question.text, sources, model, terms):
                    rows.append(candidate.features)
                    right = candidate.source.document_id in question.gold
                    labels.append(right and question.held(candidate.source.document_id, candidate.text))
        confidence.SENTENCE = _report("SENTENCE", rows, labels)
        rows, labels = [], []
        for question, sources in cases:
            evidence = extract.evidence(question.text, sources, model, terms)
            if evidence.features:
                rows.append(evidence.features)
                labels.append(
                    any(c.source.document_id in question.gold and question.held(c.source.document_id, c.text)
                        for c in evidence.best)
                )  # fmt: skip
        confidence.EVIDENCE = _report("EVIDENCE", rows, labels)
        told = [(confidence.EVIDENCE(row), label) for row, label in zip(rows, labels, strict=True)]
        for threshold in (0.1, 0.15, 0.2, 0.25, 0.3, 0.35, 0.4, 0.45, 0.5):
            kept = sum(p >= threshold for p, label in told if label) / sum(labels)
            refused = sum(p < threshold for p, label in told if not label) / (len(labels) - sum(labels))
            print(
                f"  threshold {threshold:.2f}: {kept:.3f} of those with evidence kept, {refused:.3f} of others refused"
            )
        rows, labels = _support_cases(model, documents, development, cases)
        confidence.SUPPORT = _report("SUPPORT", rows, labels)


def _cases(kb: Collection, questions: Sequence[Question]) -> Iterator[tuple[Question, Sequence[Source]]]:
    """Each question with all documents, without those that answer it, and (XQuAD) without their whole article."""

    def count(text: str) -> int:
        return len(kb.embedder.tokenizer.encode(text).ids)

    for at in range(0, len(questions), 64):
        some = questions[at : at + 64]
        for question, hits in zip(some, kb.search_many([q.text for q in some], k=60), strict=True):
            articles = {d.rpartition("-")[0] for d in question.gold} if question.answers else set()
            yield question, pack(hits[:HITS], count, BUDGET)[0]
            for left in (
                [h for h in hits if h.document_id not in question.gold],
                [h for h in hits if (h.document_id or "").rpartition("-")[0] not in articles],
            ):
                if left != hits and left and (question.answers or left[0].document_id not in question.gold):
                    yield question, pack(left[:HITS], count, BUDGET)[0]


def _support_cases(
    model: Embedder,
    documents: Sequence[nearest.Document],
    questions: Sequence[Question],
    cases: Sequence[tuple[Question, Sequence[Source]]],
) -> tuple[list[Mapping[str, float]], list[bool]]:
    """Statements (a question with an answer; a claim) and passages that hold them or not.

    Not: the answer of a question about the next paragraph; the statement itself with the next paragraph; a claim
    with the best abstract that it was not judged to be about.
    """
    text = {document.id: document.text for document in documents}
    by_gold: dict[str, list[Question]] = {}
    for question in questions:
        by_gold.setdefault(next(iter(question.gold)), []).append(question)
    pairs: list[tuple[str, str, bool]] = []
    for (gold, some), (after, others) in itertools.pairwise(by_gold.items()):
        for question, other in zip(some, itertools.cycle(others), strict=False):
            stem, passage = question.text.rstrip("? "), text[gold]
            pairs.append((f"{stem}: {question.answers[0]}.", passage, True))
            pairs.append((f"{stem}: {question.answers[0]}.", text[after], False))
            if other.answers[0].casefold() not in passage.casefold():
                pairs.append((f"{stem}: {other.answers[0]}.", passage, False))
    for question, sources in cases:
        holding = [s for s in sources if s.document_id in question.gold]
        rest = [s for s in sources if s.document_id not in question.gold]
        if not question.answers and holding and rest:
            pairs += [(question.text, holding[0].text, True), (question.text, rest[0].text, False)]
    terms = Analyzer("english").terms
    rows: list[Mapping[str, float]] = []
    for statement, passage, _ in pairs:
        windows = support.windows(passage)
        vectors = model.embed_documents([statement, *windows], truncate=True)
        rows.append(support.features(statement, passage, windows, vectors[0], vectors[1:], terms))
    return rows, [holds for _, _, holds in pairs]


def _report(name: str, rows: Sequence[Mapping[str, float]], labels: Sequence[bool]) -> confidence.Logistic:
    names = list(rows[0])
    x = np.array([[row[n] for n in names] for row in rows])
    y = np.array(labels, float)
    fitted = logistic(x, y)
    weights = {n: round(float(w), 3) for n, w in zip(names, fitted[1:], strict=True)}
    model = confidence.Logistic(round(float(fitted[0]), 3), weights)
    told = [(model(row), True, label) for row, label in zip(rows, labels, strict=True)]
    print(f"{name} = {model!r}")
    print(f"  {len(rows)} cases, {y.mean():.3f} hold; area under ROC {roc_area(told):.3f}, "
          f"calibration error {calibration_error(told):.3f}", flush=True)  # fmt: skip
    return model


def logistic(x: Floats, y: Floats, penalty: float = 1.0, rounds: int = 30) -> Floats:
    """Logistic regression by Newton's method: bias and weights, (1 + features,). The bias is not penalised."""
    design = np.column_stack([np.ones(len(x)), x])
    weights = np.zeros(design.shape[1])
    ridge = penalty * np.diag([0.0, *[1.0] * x.shape[1]])
    for _ in range(rounds):
        p = 1 / (1 + np.exp(-np.clip(design @ weights, -30, 30)))
        gradient = design.T @ (p - y) + ridge @ weights
        hessian = (design * (p * (1 - p))[:, None]).T @ design + ridge
        step = np.linalg.solve(hessian, gradient)
        weights -= step
        if math.sqrt(step @ step) < 1e-9:
            break
    return weights


if __name__ == "__main__":
    fit() if sys.argv[1:2] == ["fit"] else run()
