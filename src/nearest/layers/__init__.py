"""Layers: each wraps any store and is itself a store.

From the caller to the database they lie in this order, which `stack` makes:

    Lexical     words, by a companion store; above Residual, since its two stores lack different conditions
    Residual    completes conditions; its many small searches are each repeated, counted and timed on their own
    Retry       repeats what failed
    Metrics     counts every attempt, so that errors which a repetition hides are seen
    Timeout     next to the database, so that each attempt has its own deadline
    Chaos       (tests) in the place of a bad network: below Timeout
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from nearest.contract import Store
from nearest.layers.residual import Residual

if TYPE_CHECKING:
    from nearest.layers.metrics import Meter


ATTEMPTS = 6
SECONDS = 60.0


def stack_for(store: Store, *, companion: Store | None = None, meter: Meter | None = None) -> Store:
    """`stack`, with repetition and deadlines where the store is across a network."""
    remote = store.capabilities.remote
    return stack(
        store, companion=companion, meter=meter, seconds=SECONDS if remote else None, attempts=ATTEMPTS if remote else 1
    )


def stack(
    store: Store,
    *,
    companion: Store | None = None,
    meter: Meter | None = None,
    seconds: float | None = None,
    attempts: int = 1,
) -> Store:
    """A store on which every filter holds, and with a companion text search (see `lexical`).

    meter: counts its calls. seconds: the deadline of each attempt; for a database across a network. attempts: calls
    for one, where errors can pass; none begins later than 2.5 times `seconds` after the first.
    """
    if seconds is not None:
        from nearest.layers.timeout import Timeout

        store = Timeout(store, seconds)
    if meter is not None:
        from nearest.layers.metrics import Metrics

        store = Metrics(store, meter)
    if attempts > 1:
        from nearest.layers.retry import Retry

        # After two attempts that had no answer there is time for a third.
        store = Retry(store, attempts=attempts, deadline=2.5 * (seconds or SECONDS))
    if companion is not None:
        from nearest.layers.lexical import Lexical

        return Lexical(store, companion)
    return Residual(store)
