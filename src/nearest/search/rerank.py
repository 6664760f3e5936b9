"""The second stage: a model that reads query and passages judges the first stage's best, within a time budget."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from nearest.contract import TOKENS, Float32, Hit, LateInteraction, Reranker
from nearest.errors import ConnectionFailed, ModelError, TimedOut


def rerank(
    reranker: Reranker, query: str, hits: Sequence[Hit], seconds: float | None, *, stored: bool = False
) -> tuple[list[Hit], str | None]:
    """The hits by falling score of the reranker, ties by id; or as they were, and why.

    stored: the hits bring the reranker's own token vectors, so their texts need not be read.

    seconds: with a budget, a model that does not answer within it, or cannot be asked at all for now, costs the
    reranking alone. Without one, what it raises is raised, as is, either way, what repeating cannot help.
    """
    if not hits:
        return [], None
    try:
        scores = _scores(reranker, query, hits, seconds, stored)
    except ConnectionFailed as error:
        if seconds is None:
            raise
        return list(hits), str(error)
    again = [replace(hit, score=float(score)) for hit, score in zip(hits, scores, strict=True)]
    return sorted(again, key=lambda hit: (-hit.score, hit.id)), None


def _scores(reranker: Reranker, query: str, hits: Sequence[Hit], seconds: float | None, stored: bool) -> Float32:
    def judge(some: Sequence[Hit]) -> Float32:
        if stored and isinstance(reranker, LateInteraction):
            scores = reranker.scores_of_vectors(query, [hit.vectors[TOKENS] for hit in some])
        else:
            scores = reranker.scores(query, [hit.text for hit in some])
        if scores.shape != (len(some),) or not np.isfinite(scores).all():
            raise ModelError(
                f"{reranker.name} gave scores of shape {scores.shape} for {len(some)} texts, or not finite"
            )
        return scores

    if seconds is None:
        return judge(hits)
    size = reranker.batch or len(hits)
    parts = [hits[at : at + size] for at in range(0, len(hits), size)]
    scores = _within(seconds, [lambda part=part: judge(part) for part in parts], reranker.name)  # type: ignore[misc]
    return np.concatenate(scores)


def _within(seconds: float, calls: Sequence[Callable[[], Float32]], name: str) -> list[Float32]:
    """What the calls return, made one after the other in a thread; TimedOut if that takes longer.

    A call that is under way cannot be stopped: it ends on its own, and none is begun after it.
    """
    stop = threading.Event()
    answers: queue.SimpleQueue[list[Float32] | BaseException] = queue.SimpleQueue()

    def work() -> None:
        done: list[Float32] = []
        try:
            for call in calls:
                if stop.is_set():
                    return
                done.append(call())
        except BaseException as error:  # noqa: BLE001 -- raised again in the thread that waits
            answers.put(error)
        else:
            answers.put(done)

    threading.Thread(target=work, name="rerank", daemon=True).start()
    try:
        answer = answers.get(timeout=seconds)
    except queue.Empty:
        stop.set()
        raise TimedOut(f"{name} did not answer within {seconds:g} s") from None
    if isinstance(answer, BaseException):
        raise answer
    return answer
