"""The command line: parse, call `nearest.app`, print. `main` is the one place where errors become exit codes.

    0    done
    1    some documents failed, or the one asked for is not there
    2    the command cannot be done as it was given: usage, input, a missing model or dependency
    3    the collection cannot be used now: locked, damaged, its disk full or read-only, its server silent
    130  stopped with Ctrl-C

With --json, stdout holds one JSON document, also when something went wrong: `{"error": {"kind",
"message", "retryable", "context"}}`. People are spoken to on stderr.
"""

from __future__ import annotations

import contextlib
import gc
import io
import os
import sys
from collections.abc import Sequence

from nearest.errors import (
    BudgetExceeded,
    InvalidInput,
    MissingDependency,
    ModelError,
    NearestError,
    NotACollection,
    SchemaMismatch,
    Unreadable,
    UnsupportedError,
)

FAILED, USAGE, UNUSABLE, STOPPED = 1, 2, 3, 130
_USAGE = (
    *(InvalidInput, Unreadable, UnsupportedError, NotACollection, SchemaMismatch),
    *(MissingDependency, ModelError, BudgetExceeded),
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns its exit code. Errors that are not ours keep their traceback."""
    if arguments is None:
        # Importing makes many objects and no garbage: looking for it takes a tenth of a short command, here ...
        gc.set_threshold(100_000)
    try:
        return _main(arguments)
    except KeyboardInterrupt:  # outside of any command
        print("nearest: stopped.", file=sys.stderr)
        return STOPPED
    finally:
        if arguments is None:
            gc.freeze()  # ... and at the end


def _main(arguments: Sequence[str] | None) -> int:
    given = list(sys.argv[1:] if arguments is None else arguments)
    before_dashes = given[: given.index("--")] if "--" in given else given
    as_json = "--json" in before_dashes
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a terminal without Unicode is no reason to fail
    from nearest.cli import commands

    try:
        code = commands.run(given)
        sys.stdout.flush()
        return code
    except commands.UsageError as error:
        error.show()
        return _told(as_json, USAGE, "UsageError", error.format_message())
    except commands.Absent as error:
        print(f"nearest: {error}", file=sys.stderr)
        return _told(as_json, FAILED, "Absent", str(error))
    except commands.Stopped as stop:
        print(f"nearest: stopped. {stop}", file=sys.stderr)
        return _told(as_json, STOPPED, "Stopped", str(stop), retryable=True)
    except NearestError as error:
        print(f"nearest: {error}", file=sys.stderr)
        code = USAGE if isinstance(error, _USAGE) else UNUSABLE
        return _told(as_json, code, error.kind, str(error), retryable=error.retryable, context=error.context)
    except BrokenPipeError:
        # The reader (`| head`) has enough. Python flushes stdout again at exit, which must not fail.
        with contextlib.suppress(OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


def _told(as_json: bool, code: int, kind: str, message: str, *, retryable: bool = False, context: object = None) -> int:
    if as_json:
        from nearest.cli import show

        error = {"kind": kind, "message": message, "retryable": retryable, "context": context or {}}
        show.as_json({"error": error})
    return code
