"""Runs once after Ray has started on the head: makes sure that there is a controller, and gives it the configuration.

    python -m raydns.cluster.start.bootstrap --state-dir DIR [--config FILE]

May run again at any time; it finds the controller that is there. Exits 0 when the controller has recovered its
state, 1 with one line on standard error when it has not within the time.
"""

from __future__ import annotations

import argparse
import logging
import os
import socket
import sys
import time
from typing import Any

from raydns.nodes.known import Known
from raydns.nodes.paths import StateDir
from raydns.schemas.config import Config
from raydns.schemas.config.load import load
from raydns.schemas.errors import RaydnsError, UnreachableError

from . import ray_settings

GCS_WAIT_S = 60.0
READY_WAIT_S = 60.0


def main(arguments: list[str] | None = None) -> int:
    """See the head of this file."""
    parser = argparse.ArgumentParser(prog="raydns.cluster.start.bootstrap")
    parser.add_argument("--state-dir", required=True)
    parser.add_argument("--config", default=None)
    options = parser.parse_args(arguments)
    try:
        config = load(options.config, os.environ).config if options.config else None
        ensure_controller(StateDir(options.state_dir), config)
    except RaydnsError as error:
        print(f"raydns: {error}", file=sys.stderr)
        return error.exit_code
    return 0


def ensure_controller(state_dir: StateDir, config: Config | None) -> None:
    """Joins Ray, creates the controller where there is none, waits for it, and applies ``config``.

    Raises:
        UnreachableError: Ray or the controller did not come up in time.
    """
    known = Known(state_dir).load()
    if known is None:
        raise UnreachableError(
            "this machine knows no configuration yet", where=str(state_dir.path), hint="raydns node start"
        )
    machine = Config.model_validate(known.config)
    address = ray_settings.gcs_address(machine, ray_settings.head_ports(machine, state_dir))
    wait_listening(address, GCS_WAIT_S)  # ray.init itself would wait 40 s before it says anything
    os.environ.update(ray_settings.environment(machine, state_dir))
    import ray  # after its environment
    from ray.exceptions import GetTimeoutError, RayError, RayTaskError

    from raydns.cluster.controller.actor import Controller

    ray.init(address=address, namespace=machine.cluster.name, log_to_driver=False, logging_level=logging.WARNING)
    options: dict[str, Any] = {
        "name": "controller",
        "lifetime": "detached",
        "get_if_exists": True,
        "num_cpus": 0,
        "resources": {"node:__internal_head__": 0.001},
        "max_restarts": -1,
        "max_task_retries": -1,
        "max_concurrency": 1000,  # one long poll a machine waits in here
    }
    controller: Any = ray.remote(Controller).options(**options).remote(str(state_dir.path), machine.cluster.name)
    deadline = time.monotonic() + READY_WAIT_S
    try:
        while not ray.get(controller.ready.remote(), timeout=max(1.0, deadline - time.monotonic())):
            if time.monotonic() > deadline:
                raise UnreachableError("the controller does not recover", where="controller", hint="see its log")
            time.sleep(0.05)
        if config is not None:
            ray.get(controller.config_reload.remote({"config": config.model_dump(mode="json")}), timeout=READY_WAIT_S)
    except RayTaskError as error:
        if isinstance(error.cause, RaydnsError):
            raise error.cause from None
        raise
    except (RayError, GetTimeoutError) as error:
        raise UnreachableError(f"the controller does not start: {error}", where="controller") from error


def wait_listening(address: str, timeout_s: float) -> None:
    """Waits until somebody listens at ``HOST:PORT``; raises ``UnreachableError`` after ``timeout_s``."""
    host, _, port = address.rpartition(":")
    deadline = time.monotonic() + timeout_s
    while True:
        try:
            socket.create_connection((host, int(port)), timeout=1).close()
            return
        except OSError as error:
            if time.monotonic() > deadline:
                raise UnreachableError("Ray's GCS does not listen", where=address, hint="see the log of Ray") from error
            time.sleep(0.05)


if __name__ == "__main__":
    sys.exit(main())
