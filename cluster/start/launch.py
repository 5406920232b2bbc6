"""Becomes ``ray start --block``: clears what an earlier Ray left on this machine, then replaces itself by Ray.

    python -m raydns.cluster.start.launch --state-dir DIR

Run by the supervisor only while no Ray of this state directory runs.
"""

from __future__ import annotations

import argparse
import os
import shutil

from raydns.nodes.known import Known
from raydns.nodes.paths import StateDir
from raydns.schemas.config import Config

from . import ray_settings


def main() -> None:
    """See the head of this file."""
    parser = argparse.ArgumentParser(prog="raydns.cluster.start.launch")
    parser.add_argument("--state-dir", required=True)
    state_dir = StateDir(parser.parse_args().state_dir)
    snapshot = Known(state_dir).load()
    config = Config.model_validate(snapshot.config) if snapshot is not None else Config()
    clear(state_dir, keep_gcs=snapshot is not None and len(snapshot.machines) > 1)
    if config.cluster.head:
        link_logs(state_dir)
    command = ray_settings.start_command(config, state_dir, ray_settings.head_ports(config, state_dir))
    os.execve(command[0], command, {**os.environ, **ray_settings.environment(config, state_dir)})  # noqa: S606 - ours


def clear(state_dir: StateDir, *, keep_gcs: bool) -> None:
    """Removes Ray's session files, and the GCS's memory where no other machine's raylet needs it.

    On a machine by itself everything that matters is in the snapshot, and a GCS that remembers actors of a node
    that is gone only delays their successors.
    """
    shutil.rmtree(ray_settings.temp_dir(state_dir), ignore_errors=True)
    if not keep_gcs:
        shutil.rmtree(state_dir.gcs, ignore_errors=True)
    state_dir.gcs.mkdir(mode=0o700, exist_ok=True)


def link_logs(state_dir: StateDir) -> None:
    """``logs/actors`` leads to where Ray writes what our actors log: an operator finds all logs in one place."""
    link = state_dir.logs / "actors"
    link.unlink(missing_ok=True)
    link.symlink_to(ray_settings.temp_dir(state_dir) / "session_latest" / "logs")


if __name__ == "__main__":
    main()
