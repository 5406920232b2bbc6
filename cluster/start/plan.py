"""The plan that the supervisor gets: which commands run Ray on this machine, as data."""

from __future__ import annotations

import secrets
import sys
from pathlib import Path

from raydns.nodes.paths import StateDir, write_atomically
from raydns.nodes.supervisor.plan import RayPlan
from raydns.schemas.config import Config

from . import ray_settings


def ray_plan(config: Config, state_dir: StateDir, config_path: Path | None) -> RayPlan:
    """How Ray runs on this machine, and what makes the controller on the head.

    Args:
        config: of this machine.
        state_dir: exists already; Ray's token is made here where there is none.
        config_path: handed to the bootstrap, which gives its content to the controller.
    """
    if not state_dir.ray_token.exists():
        write_atomically(state_dir.ray_token, secrets.token_hex(32).encode())
    place = ["--state-dir", str(state_dir.path)]
    bootstrap = None
    if config.cluster.head:
        bootstrap = [sys.executable, "-m", "raydns.cluster.start.bootstrap", *place]
        bootstrap += ["--config", str(config_path)] if config_path is not None else []
    return RayPlan(
        start=[sys.executable, "-m", "raydns.cluster.start.launch", *place],
        env=ray_settings.environment(config, state_dir),
        bootstrap=bootstrap,
    )
