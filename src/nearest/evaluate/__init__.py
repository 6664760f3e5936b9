"""How good a collection's answers are: BEIR-layout data sets, nDCG, recall and MRR, side-by-side runs.

`metrics` is arithmetic, `beir` reads a data set, `run` asks its questions in every mode.
"""

from nearest.evaluate.beir import Dataset, load
from nearest.evaluate.run import Evaluation, Stage, run

__all__ = ["Dataset", "Evaluation", "Stage", "load", "run"]
