"""How good a collection's answers are: BEIR-layout data sets, measures, side-by-side runs, and how sure they are.

`metrics` is arithmetic on rankings and `answers` on citations, `beir` reads a data set and `known` makes one, `run`
asks its questions in every mode, `significance` compares, `trec` reads and writes run files.
"""

from nearest.evaluate.beir import Dataset, load
from nearest.evaluate.run import MEASURES, Comparison, Evaluation, Stage, compare, per_query, run

__all__ = ["MEASURES", "Comparison", "Dataset", "Evaluation", "Stage", "compare", "load", "per_query", "run"]
