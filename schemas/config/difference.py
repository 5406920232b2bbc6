"""What changed between two configurations, and what of it a running machine cannot take without a restart."""

from __future__ import annotations

from typing import Any, Final

from raydns.schemas.config import Config
from raydns.schemas.config.options import flatten

RESTART_ONLY: Final = frozenset(
    {
        "server.listen",  # sockets are bound once, by the supervisor, with its privileges
        "server.port",
        "server.receive_buffer",
        "server.state_dir",
        "server.name",
        "cluster",  # arguments of `ray start`
        "web.listen",
        "web.enabled",
        "zones.shards",  # a zone's shard is on disk; moving it is a command of its own
    }
)
"""Dotted options or sections that take effect only when ``raydns node`` starts anew."""


def diff(old: Config, new: Config) -> list[tuple[str, Any, Any]]:
    """(option, old value, new value) of every option that differs, in the order of the files."""
    before, after = flatten(old), flatten(new)
    return [(name, before[name], after[name]) for name in before if before[name] != after[name]]


def needs_restart(option: str) -> bool:
    """Whether a change of this option waits for a restart."""
    parts = option.split(".")
    return any(".".join(parts[:end]) in RESTART_ONLY for end in range(1, len(parts) + 1))
