"""What must be on a machine's disk before its ingress starts: the cluster secret and a first snapshot."""

from __future__ import annotations

import logging
from typing import Any, Final

from raydns.nodes.known import Known
from raydns.nodes.paths import StateDir
from raydns.nodes.streams import secret
from raydns.schemas.cluster import Snapshot, first_snapshot
from raydns.schemas.config import Config

_log = logging.getLogger(__name__)

OWN_SECTIONS: Final = ("server", "cluster", "telemetry", "web")
"""What the file on this machine decides, whatever the cluster last decided: its addresses, its place, its logs."""


def prepare(state_dir: StateDir, config: Config) -> Snapshot:
    """Makes the secret on a head's first start, and sees to it that something is known.

    A snapshot that is there stays as the controller made it, but for this machine's own sections of the
    configuration: who edits the address in the file and starts anew gets that address, with or without a cluster.
    (The rest of the file reaches the cluster by ``raydns config reload``.)

    Raises:
        StateError: the secret is damaged or missing where it must exist, or the disk takes nothing.
    """
    # A machine that joins never makes up a secret: its streams would be refused by everybody else.
    key = secret.load_or_create(state_dir.secret) if config.cluster.head else secret.load(state_dir.secret)
    known = Known(state_dir)
    snapshot = known.load()
    content = config.model_dump(mode="json")
    if snapshot is None:
        snapshot = first_snapshot(content, secret.ring_seed(key))
        known.save(snapshot)
        _log.info("first snapshot written", extra={"path": str(state_dir.known)})
        return snapshot
    merged = merge_own(snapshot.config, content)
    if merged != snapshot.config:
        snapshot.config = merged
        known.save(snapshot)
        _log.info("this machine's own configuration changed", extra={"version": list(snapshot.version)})
    return snapshot


def merge_own(cluster: dict[str, Any], own: dict[str, Any]) -> dict[str, Any]:
    """The cluster's configuration with this machine's own sections in it."""
    return {**cluster, **{section: own[section] for section in OWN_SECTIONS}}
