"""List prices of some models, as published pages told them in the month that stands with each.

Lists change, and nothing here learns of it: `input_price` and `output_price` say otherwise. A model that is not here
has no price, nor has any model at another address (`base_url`). What providers take off, for prompts they remember
or for batches, is not taken off here.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple


class Price(NamedTuple):
    """Dollars a million tokens, read and written. month: year-month when this was so."""

    input: float
    output: float
    month: str


PRICES: Mapping[str, Price] = {
    "openai:gpt-4.1": Price(2.00, 8.00, "2026-03"),
    "openai:gpt-4.1-mini": Price(0.40, 1.60, "2026-04"),
    "anthropic:claude-haiku-4-5": Price(1.00, 5.00, "2026-10"),
    "gemini:gemini-2.5-flash": Price(0.30, 2.50, "2026-07"),
}


def listed(provider: str, model: str) -> tuple[float, float] | None:
    """Dollars a million tokens, read and written; None where no list is known."""
    price = PRICES.get(f"{provider}:{model}")
    return None if price is None else (price.input, price.output)
