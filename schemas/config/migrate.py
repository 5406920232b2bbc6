"""Older formats of the configuration become the present one before anything else looks at them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from raydns.schemas.config.problems import Problem
from raydns.schemas.config.source import Document

CURRENT: Final = 1
"""The format that this release reads and writes."""
MIGRATIONS: Final[dict[int, Callable[[dict[str, Any]], dict[str, Any]]]] = {}
"""From a format to the next one; format 1 is the first, so there is none yet."""


def migrate(document: Document) -> list[Problem]:
    """Brings ``document.tree`` to the present format; a format that cannot be read is a problem."""
    version = document.tree.get("version", CURRENT)
    line = document.line_of(("version",))
    if isinstance(version, bool) or not isinstance(version, int) or version < 1:
        document.tree.pop("version", None)
        return [
            Problem("version", repr(version), "is not a format", f"write version: {CURRENT}", line, document.source)
        ]
    if version > CURRENT:
        document.tree.pop("version", None)
        hint = "upgrade raydns on this machine, or use a file of this release"
        said = f"is a newer format; this release reads up to {CURRENT}"
        return [Problem("version", str(version), said, hint, line, document.source)]
    while version < CURRENT:
        document.tree = MIGRATIONS[version](document.tree)
        version += 1
        document.tree["version"] = version
    return []
