"""The read path: a question to hits, from one consistent state of the collection."""

from nearest.search.search import FUSIONS, MODES, Mode, Searcher

__all__ = ["FUSIONS", "MODES", "Mode", "Searcher"]
