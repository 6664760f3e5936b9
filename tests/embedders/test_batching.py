"""Batches and their pace, by a clock of their own."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nearest.embedders._batching import Answer, Limits, Pace, Sender, batches
from nearest.errors import InvalidInput, TimedOut


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        assert seconds > 0
        self.now += seconds


@given(st.lists(st.integers(0, 50), max_size=60), st.integers(1, 10), st.integers(1, 100))
def test_batches_hold_every_text_once_in_order_and_within_the_limits(sizes: list[int], texts: int, tokens: int) -> None:
    made = list(batches(sizes, Limits(texts, tokens)))
    assert [row for rows in made for row in rows] == list(range(len(sizes)))
    assert all(len(rows) <= texts for rows in made)
    assert all(len(rows) == 1 or sum(sizes[row] for row in rows) <= tokens for rows in made)


@pytest.mark.parametrize(
    ("rpm", "tpm", "tokens", "rate"),
    [(60, None, 1000, 1.0), (None, 60_000, 500, 2.0), (120, 60_000, 1000, 1.0), (60, 60_000, 100, 1.0)],
)
def test_no_more_requests_and_tokens_a_minute_than_said(
    rpm: int | None, tpm: int | None, tokens: int, rate: float
) -> None:
    """rate: requests a second."""
    clock = Clock()
    pace = Pace(rpm, tpm, clock, clock.sleep)
    sent = []
    for _ in range(300):
        pace.wait(tokens)
        sent.append(clock.now)
    # In any minute what a minute allows, and the tenth of one that it starts with.
    assert max(sum(start <= at < start + 60 for at in sent) for start in sent) <= 66 * rate + 1
    assert sent[-1] < 300 / rate + 1  # and not much less


def test_a_request_larger_than_a_minute_waits_and_goes() -> None:
    clock = Clock()
    pace = Pace(None, 1000, clock, clock.sleep)
    pace.wait(3000)
    pace.wait(10)
    assert 100 < clock.now < 400


def test_all_wait_when_the_provider_says_so() -> None:
    clock = Clock()
    pace = Pace(None, None, clock, clock.sleep)
    pace.wait(1)
    assert clock.now == 0
    pace.hold(30)
    pace.wait(1)
    assert clock.now == 30


def test_a_text_that_is_left_out_again_and_again_is_given_up_alone() -> None:
    clock = Clock()

    def ask(texts: list[str]) -> Answer:
        return Answer([None if text == "b" else np.ones(2, np.float32) for text in texts])

    sender = Sender(ask, Limits(10, 100, attempts=3), lambda: True, sleep=clock.sleep, clock=clock, seed=0)
    done = sender.send(["a", "b", "c"], [1, 1, 1])
    assert set(done.vectors) == {0, 2}
    assert "left this text out" in str(done.failed[1])


def test_no_attempt_is_begun_after_the_deadline() -> None:
    clock = Clock()
    asked = []

    def ask(texts: list[str]) -> Answer:
        asked.append(clock.now)
        raise TimedOut("no")

    sender = Sender(
        ask, Limits(10, 100, attempts=1000, deadline=60.0), lambda: True, sleep=clock.sleep, clock=clock, seed=0
    )
    done = sender.send(["a"], [1])
    assert isinstance(done.failed[0], TimedOut)
    assert 5 < len(asked) < 100
    assert asked[-1] <= 60


@pytest.mark.parametrize("name", ["texts", "tokens", "parallel", "rpm", "tpm", "attempts"])
def test_limits_make_sense(name: str) -> None:
    with pytest.raises(InvalidInput, match=name):
        Limits(**{"texts": 1, "tokens": 1, name: 0})
