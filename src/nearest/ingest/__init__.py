"""The write path: read, chunk, embed, upsert, record in the ledger. Nothing lost, nothing half-served.

`files` turns paths into documents; `write` makes documents searchable, overlapping the stages, and
repairs what a crash left.
"""

from nearest.ingest.plan import Plan
from nearest.ingest.profile import Profile
from nearest.ingest.write import Progress, Report, Writer

__all__ = ["Plan", "Profile", "Progress", "Report", "Writer"]
