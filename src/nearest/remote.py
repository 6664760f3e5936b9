"""What parts behind an HTTP API share: their client, their key, their price, and what an answer's status means."""

from __future__ import annotations

import contextlib
import email.utils
import importlib
import math
import os
import time
from collections.abc import Mapping
from types import ModuleType
from urllib.parse import urlsplit

from nearest.errors import (
    AccessDenied,
    ConnectionFailed,
    InvalidInput,
    MissingDependency,
    ModelError,
    NearestError,
    Throttled,
    TimedOut,
    UnsupportedError,
)

_SHOWN = 300  # characters of what a provider said


def client(module: str, extra: str) -> ModuleType:
    """A provider's client; raises MissingDependency with the command that installs it."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise MissingDependency(
            f"{extra} models need its client; run: pip install 'nearest[{extra}]'", extra=extra
        ) from error


def key(name: str, variable: str) -> str:
    """An API key from the environment, where it stays; `none` without a variable. Raises AccessDenied."""
    if not variable:
        return "none"
    found = os.environ.get(variable, "").strip()
    if not found:
        raise AccessDenied(f"{name} needs an API key; put it in the environment variable {variable}")
    return found


def check_url(url: str) -> None:
    """Raises InvalidInput unless it is an address without a secret in it, since names are shown and kept."""
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise InvalidInput("base_url must be the address of a server, such as http://localhost:8000/v1")
    if parts.username or parts.password or parts.query or parts.fragment:
        raise InvalidInput(
            "base_url holds a user, a password or parameters; put the key in an environment variable and name that: "
            "api_key_env=NAME"
        )


def prices(input_price: float | None, output_price: float | None) -> tuple[float, float] | None:
    """Dollars a million tokens, read and written; None where they are not given. Raises InvalidInput."""
    if input_price is None and output_price is None:
        return None
    if input_price is None or output_price is None:
        raise InvalidInput("give input_price and output_price together (dollars a million tokens)")
    for price in (input_price, output_price):
        check_price(price, "a million tokens")
    return input_price, output_price


def check_price(price: float, of: str) -> None:
    """Raises InvalidInput unless it is a number of dollars. of: what it is the price of, for the message."""
    if not isinstance(price, int | float) or isinstance(price, bool) or not 0 <= price < math.inf:
        raise InvalidInput(f"a price is in dollars {of}, from 0, got {price!r}")


def cost(tokens: tuple[int, int], price: tuple[float, float] | None) -> float | None:
    """Dollars for tokens read and written; None where the price is not known."""
    return None if price is None else (tokens[0] * price[0] + tokens[1] * price[1]) / 1e6


def status(name: str, code: int, message: str, headers: Mapping[str, str], variable: str = "") -> NearestError:
    """An HTTP status that is no success, as our error. variable: that of the key, which is not repeated."""
    secret = os.environ.get(variable, "").strip() if variable else ""
    said = (message.replace(secret, "***") if secret else message).strip()[:_SHOWN]
    if code in (401, 403):
        where = variable or "its environment variable (api_key_env=NAME says which)"
        return AccessDenied(f"{name} refused the API key, or lacks the right ({code}); check {where}")
    if code == 402:
        return AccessDenied(f"{name}: the account has no credit left; see its billing page")
    if code == 404:
        return UnsupportedError(f"{name}: there is no such model, or no such address ({code}): {said}")
    if code == 429:
        return Throttled(f"{name} is asked too much: {said}", retry_after=retry_after(headers))
    if code in (408, 504):
        return TimedOut(f"{name} did not answer in time ({code})", retry_after=retry_after(headers))
    if code >= 500 or code == 409:
        return ConnectionFailed(f"{name} failed ({code}): {said}", retry_after=retry_after(headers))
    return ModelError(f"{name} refused ({code}): {said}")


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds, by Retry-After (RFC 9110: seconds or a date) or retry-after-ms; None where neither says."""
    low = {name.lower(): value for name, value in headers.items()}
    with contextlib.suppress(KeyError, ValueError):
        return max(float(low["retry-after-ms"]) / 1000, 0.0)
    said = low.get("retry-after", "")
    with contextlib.suppress(ValueError):
        return max(float(said), 0.0)
    with contextlib.suppress(ValueError, TypeError):
        return max(email.utils.parsedate_to_datetime(said).timestamp() - time.time(), 0.0)
    return None
