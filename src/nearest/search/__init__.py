"""The read path: a question to hits, from one consistent state of the collection."""

from nearest.search.cache import CachedSearcher, ResultCache
from nearest.search.cache import connect as connect_cache
from nearest.search.feedback import Examples
from nearest.search.highlight import Highlight, highlight
from nearest.search.hits import Hits
from nearest.search.refine import Group, Refinement
from nearest.search.search import FUSIONS, MODES, Expand, Mode, Searcher

__all__ = [
    "FUSIONS",
    "MODES",
    "CachedSearcher",
    "Examples",
    "Expand",
    "Group",
    "Highlight",
    "Hits",
    "Mode",
    "Refinement",
    "ResultCache",
    "Searcher",
    "connect_cache",
    "highlight",
]
