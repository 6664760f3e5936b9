"""nearest: vector search in production, from a laptop to a cluster.

    import nearest
    with nearest.open("./kb") as kb:
        kb.add([nearest.Document(id="a", text="...")])
        hits = kb.search("a question")

Names are imported when first used, so that `import nearest` costs nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from nearest.app import Collection as Collection
    from nearest.app import connect as connect
    from nearest.app import embedder as embedder
    from nearest.app import open as open
    from nearest.contract import (
        Document as Document,
    )
    from nearest.contract import (
        Hit as Hit,
    )
    from nearest.contract import (
        IndexParams as IndexParams,
    )
    from nearest.contract import (
        Record as Record,
    )
    from nearest.contract import (
        Schema as Schema,
    )
    from nearest.contract import (
        SparseVector as SparseVector,
    )
    from nearest.contract import (
        VectorSpec as VectorSpec,
    )
    from nearest.errors import NearestError as NearestError
    from nearest.ingest import Report as Report
    from nearest.layers.metrics import Meter as Meter

_WHERE = {
    "open": "app",
    "connect": "app",
    "embedder": "app",
    "Collection": "app",
    "Document": "contract",
    "Hit": "contract",
    "Record": "contract",
    "Schema": "contract",
    "VectorSpec": "contract",
    "SparseVector": "contract",
    "IndexParams": "contract",
    "Report": "ingest",
    "Meter": "layers.metrics",
    "NearestError": "errors",
}

__all__ = [*_WHERE, "errors"]  # noqa: PLE0604 -- the table above holds strings


def __getattr__(name: str) -> Any:
    if name == "errors":
        return importlib.import_module("nearest.errors")
    if name in _WHERE:
        return getattr(importlib.import_module(f"nearest.{_WHERE[name]}"), name)
    raise AttributeError(f"module 'nearest' has no attribute {name!r}")
