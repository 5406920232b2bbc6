"""Exit codes: one table for the commands, the documentation and the tests."""

from __future__ import annotations

from typing import Final

from raydns.schemas.errors import RaydnsError, UnreachableError

OK: Final = 0
FAILED: Final = 1
USAGE: Final = 2
BAD_INPUT: Final = 3
UNREACHABLE: Final = 4
LOCAL: Final = 5
TIMEOUT: Final = 6
INTERRUPTED: Final = 130

MEANING: Final = {
    OK: "done",
    FAILED: "failed",
    USAGE: "a command or argument that makes no sense",
    BAD_INPUT: "a configuration, zone file or name that cannot be used",
    UNREACHABLE: "a node, actor or controller that is not there",
    LOCAL: "a directory, file or socket of this machine that cannot be used",
    TIMEOUT: "no answer in time",
    INTERRUPTED: "interrupted by Ctrl-C",
}


def exit_code(error: BaseException) -> int:
    """The exit code that tells this error from others."""
    if isinstance(error, UnreachableError) and isinstance(error.__cause__, TimeoutError):
        return TIMEOUT
    if isinstance(error, RaydnsError):
        return error.exit_code
    return LOCAL if isinstance(error, OSError) else FAILED
