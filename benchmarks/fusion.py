"""Fusion: nDCG@10 of the two parts and of every method of putting them together, on each judged data set at hand.

    python -m benchmarks fusion                  all of them
    python -m benchmarks.fusion code xquad/en    some

The rule for the default (adaptive): on every set at most 0.01 below the better of its parts, dense and BM25.

code      made from the standard library of this Python: the first sentence of a docstring asks for its function, whose
          source without the docstring is the document. At most 3,000 functions and 300 questions, drawn by a fixed seed
xquad/LL  the questions of one language, on paragraphs of all twelve, with the condition that the language be theirs
NAME      the other folders of ../shared/data in BEIR's layout
"""

from __future__ import annotations

import argparse
import ast
import json
import random
import sysconfig
import tempfile
import textwrap
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import nearest
from benchmarks.common import DATA, table
from nearest import app, evaluate, readers
from nearest.app import Collection
from nearest.chunkers import _sentences
from nearest.evaluate.run import DEFAULT, FUSIONS

MEASURE = "ndcg@10"
ALLOWED = 0.01
FUNCTIONS, QUESTIONS, SEED = 3_000, 300, 0
WORDS = 4  # a sentence of fewer asks nothing
LEFT_OUT = {"site-packages", "dist-packages", "test", "tests", "__pycache__"}
BY_LANGUAGE = "xquad"


def run() -> None:
    measure([])


def measure(only: list[str]) -> None:
    """Print the table of these sets; of all, where none are named."""
    told = {}
    with tempfile.TemporaryDirectory() as made:
        for name, evaluation in _sets(Path(made)):
            if not only or name in only:
                told[name] = evaluation()
                print(f"  {name} is done", flush=True)
    parts = [name for name, how in FUSIONS.items() if how["mode"] != "hybrid"]
    rows = []
    for name, each in told.items():
        scores = {mode: each.modes[mode][MEASURE] for mode in FUSIONS}
        better = max(parts, key=scores.__getitem__)
        p = next(c.p for c in each.comparisons if (c.first, c.second, c.measure) == (better, DEFAULT, MEASURE))
        less = scores[DEFAULT] - scores[better]
        rows.append((name, f"{each.documents:,}", f"{each.queries:,}", *(f"{score:.3f}" for score in scores.values()),
                     f"{less:+.3f} (p {p:.3f})", "holds" if less >= -ALLOWED else "BROKEN"))  # fmt: skip
    means = [sum(each.modes[mode][MEASURE] for each in told.values()) / max(len(told), 1) for mode in FUSIONS]
    kept = sum(row[-1] == "holds" for row in rows)
    rows.append(("mean", "", "", *(f"{mean:.3f}" for mean in means), "", f"{kept} of {len(rows)}"))
    table(
        f"fusion, {MEASURE}, {app.DEFAULT_EMBEDDER}, 100 candidates each; the default is {DEFAULT}",
        ("set", "documents", "queries", *FUSIONS, "less the better part", "rule"),
        rows,
    )


def _sets(made: Path) -> Iterator[tuple[str, Callable[[], evaluate.Evaluation]]]:
    """Each set's name, and what measures it."""
    yield "code", lambda: app.evaluate(code(made / "code"), fusions=True)
    for folder in sorted(path.parent for path in DATA.glob("*/corpus.jsonl")):
        if folder.name != BY_LANGUAGE:
            yield folder.name, partial(app.evaluate, folder, fusions=True)
            continue
        rows = map(json.loads, (folder / "queries.jsonl").read_text(encoding="utf-8").splitlines())
        spoken = {row["_id"]: row["metadata"]["lang"] for row in rows}
        for language in sorted(set(spoken.values())):
            yield f"{folder.name}/{language}", partial(_of_language, folder, spoken, language, made)


# --- by language -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Under:
    """A collection that is only searched under a condition."""

    kb: Collection
    where: dict[str, Any]

    def add(self, documents: Any, **how: Any) -> Any:
        return self.kb.add(documents, **how)

    def search_many(self, queries: Any, **how: Any) -> Any:
        return self.kb.search_many(queries, where=self.where, **how)

    def info(self) -> dict[str, Any]:
        return self.kb.info()


def _of_language(folder: Path, spoken: dict[str, str], language: str, made: Path) -> evaluate.Evaluation:
    whole = evaluate.load(folder, readers.for_path(folder / "corpus.jsonl"))
    asked = {query: text for query, text in whole.queries.items() if spoken[query] == language}
    some = replace(whole, queries=asked, qrels={query: whole.qrels[query] for query in asked})
    with nearest.open(made / folder.name, chunker="whole", fields={"lang": "keyword"}) as kb:
        return evaluate.run(Under(kb, {"lang": language}), some, fusions=True)


# --- code ------------------------------------------------------------------------------------------


def code(folder: Path) -> Path:
    """The set of the standard library, in BEIR's layout, in a new folder."""
    functions = list({text: (name, text, sentence) for name, text, sentence in _functions()}.values())
    drawn = random.Random(SEED).sample(functions, min(FUNCTIONS, len(functions)))
    times = Counter(sentence for _, _, sentence in functions)
    asked = [(name, sentence) for name, _, sentence in drawn if times[sentence] == 1][:QUESTIONS]
    folder.mkdir(parents=True)

    def write(name: str, lines: Iterator[str]) -> None:
        (folder / name).write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")

    write("corpus.jsonl", (json.dumps({"_id": name, "title": "", "text": text}) for name, text, _ in drawn))
    # A query's id must not be its document's: as in BEIR that one would be left out.
    write("queries.jsonl", (json.dumps({"_id": f"q:{name}", "text": sentence}) for name, sentence in asked))
    write("qrels.tsv", (f"q:{name}\t{name}\t1" for name, _ in asked))
    return folder


def _functions() -> Iterator[tuple[str, str, str]]:
    """Of each function with a docstring and code: its place, its source without the docstring, the first sentence."""
    library = Path(sysconfig.get_paths()["stdlib"])
    for path in sorted(library.rglob("*.py")):
        inside = path.relative_to(library)
        if LEFT_OUT & set(inside.parts):
            continue
        try:
            source = path.read_text(encoding="utf-8")
            tree = ast.parse(source)
        except (UnicodeDecodeError, SyntaxError):
            continue  # kept there for the library's own tests
        lines = source.splitlines()
        for node in ast.walk(tree):
            if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) or len(node.body) < 2:
                continue
            text, first = (ast.get_docstring(node) or "").partition("\n\n")[0], node.body[0]
            if first.lineno == node.lineno:
                continue
            sentence = " ".join(text[: next(iter(_sentences.starts(text)), len(text))].split())
            if len(sentence.split()) >= WORDS:
                kept = lines[node.lineno - 1 : first.lineno - 1] + lines[first.end_lineno : node.end_lineno]
                yield f"{inside.as_posix()}:{node.lineno}", textwrap.dedent("\n".join(kept)), sentence


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.fusion", description=__doc__)
    parser.add_argument("sets", nargs="*", metavar="set", help="code, xquad/en, scifact, and so on; all if none")
    measure(parser.parse_args().sets)


if __name__ == "__main__":
    main()
