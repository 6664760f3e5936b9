"""Every error that nearest raises, in one tree.

NearestError
├── InvalidInput                 what the caller gave is wrong; nothing was written   (also a ValueError)
│   ├── InvalidFilter            a `where` condition; the message starts with the path of the fault
│   ├── InvalidQuery             k, mode, an empty query
│   ├── InvalidRecord            a record's id, vector or payload
│   └── InvalidDocument          a document's id, text or metadata
├── UnsupportedError             this store, model or format cannot do that
├── NotACollection               the folder or URL holds no collection
├── SchemaMismatch               the collection was made with another schema
│   └── ModelMismatch            ... or with another embedding model
├── CollectionLocked             another process has the collection open               (retryable)
├── CollectionDamaged            what is on disk does not fit together
├── StorageError                 the disk refused
│   ├── DiskFull
│   └── ReadOnly
├── ConnectionFailed             a database or a provider did not answer               (retryable)
│   ├── TimedOut                 ... within its time
│   └── Throttled                ... because it is asked too much; context.retry_after: seconds, if it said
├── AccessDenied                 a wrong password or key, or a right that is missing
├── BatchFailed                  some records of a call; `failed` says which and why   (retryable if any is)
├── MissingDependency            a client that an extra brings is not installed        (also an ImportError)
├── ModelError                   a model's files are missing, altered, or of an unknown kind
│   ├── TextTooLong              a text is over the model's limit and truncation was not asked for
│   └── TextsFailed              some texts of a call; `failed` says which and why   (retryable if any is)
├── BudgetExceeded               the next step would cost more than what is left of the budget
└── Unreadable                   a file that no reader could turn into documents

Every error carries `kind` (its class name, stable, for logs and metrics), `retryable` (whether the
same call can succeed later without a change) and `context` (facts about the failure, JSON-able).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Self


class NearestError(Exception):
    """The root. `str(error)` says what is wrong and what to do."""

    retryable: ClassVar[bool] = False

    def __init__(self, message: str, **context: Any) -> None:
        super().__init__(message)
        self.context: dict[str, Any] = context

    @property
    def kind(self) -> str:
        return type(self).__name__


class InvalidInput(NearestError, ValueError):
    pass


class InvalidFilter(InvalidInput):
    pass


class InvalidQuery(InvalidInput):
    pass


class InvalidRecord(InvalidInput):
    pass


class InvalidDocument(InvalidInput):
    pass


class UnsupportedError(NearestError):
    pass


class NotACollection(NearestError):
    pass


class SchemaMismatch(NearestError):
    pass


class ModelMismatch(SchemaMismatch):
    pass


class CollectionLocked(NearestError):
    retryable = True


class CollectionDamaged(NearestError):
    pass


class StorageError(NearestError):
    pass


class DiskFull(StorageError):
    pass


class ReadOnly(StorageError):
    pass


class ConnectionFailed(NearestError):
    retryable = True


class TimedOut(ConnectionFailed):
    pass


class Throttled(ConnectionFailed):
    pass


class AccessDenied(NearestError):
    pass


class BatchFailed(NearestError):
    """The other records of the call are written. failed: record id -> its error, in the order given."""

    def __init__(self, message: str, failed: Mapping[str, NearestError], **context: Any) -> None:
        super().__init__(message, **context)
        self.failed = dict(failed)
        self.retryable = any(error.retryable for error in self.failed.values())  # type: ignore[misc]

    @classmethod
    def of(cls, failed: Mapping[str, NearestError], count: int, **context: Any) -> Self:
        """Those that failed, at least one, of so many records."""
        first, error = next(iter(failed.items()))
        return cls(f"{len(failed)} of {count} records failed; the first is {first!r}: {error}", failed, **context)


class MissingDependency(NearestError, ImportError):
    pass


class ModelError(NearestError):
    pass


class TextTooLong(ModelError):
    pass


class TextsFailed(ModelError):
    """failed: index of a text -> its error. vectors: float32 (n, d) of all texts; NaN for those that failed."""

    def __init__(self, failed: Mapping[int, NearestError], vectors: Any) -> None:
        index, error = next(iter(failed.items()))
        super().__init__(f"{len(failed)} of {len(vectors)} texts failed; the first is text {index}: {error}")
        self.failed = dict(failed)
        self.vectors = vectors
        self.retryable = any(each.retryable for each in self.failed.values())  # type: ignore[misc]


class BudgetExceeded(NearestError):
    pass


class Unreadable(NearestError):
    pass
