"""How good a collection's answers are: BEIR-layout data sets, measures, side-by-side runs, and how sure they are.

`metrics` is arithmetic on rankings and `answers` on citations, `beir` reads a data set and `known` makes one, `run`
asks its questions in every mode, `significance` compares, `trec` reads and writes run files.
"""

from nearest.evaluate import known
from nearest.evaluate.beir import Dataset, load
from nearest.evaluate.run import (
    MEASURES,
    Comparison,
    Evaluation,
    Stage,
    ask,
    check_k,
    check_runs,
    compare,
    compare_with,
    per_query,
    read_run,
    run,
    write_runs,
)

__all__ = [
    "MEASURES",
    "Comparison",
    "Dataset",
    "Evaluation",
    "Stage",
    "ask",
    "check_k",
    "check_runs",
    "compare",
    "compare_with",
    "known",
    "load",
    "per_query",
    "read_run",
    "run",
    "write_runs",
]
