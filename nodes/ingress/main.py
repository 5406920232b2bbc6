"""``python -m raydns.nodes.ingress.main --state-dir D``: the process that answers DNS on a machine.

Its sockets come from whoever starts it (LISTEN_FDS, see ``nodes/handover.py``); it is its own session, so that it
outlives its supervisor. SIGTERM drains; a second one ends it at once.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import logging
import os
import signal
import socket
import sys
from collections.abc import Callable, Mapping, Sequence

from raydns.nodes import garbage, handover, logs
from raydns.nodes.paths import StateDir
from raydns.schemas.config.telemetry import LogConfig
from raydns.schemas.errors import RaydnsError

from .service import Service

log = logging.getLogger(__name__)


def main(arguments: Sequence[str] | None = None, environ: Mapping[str, str] = os.environ) -> int:
    """Runs the ingress until it is told to stop; returns the exit code."""
    parser = argparse.ArgumentParser(prog="raydns.nodes.ingress.main", description="The ingress of a raydns node.")
    parser.add_argument("--state-dir", required=True, help="the machine's state directory")
    options = parser.parse_args(arguments)
    logs.setup(LogConfig(), "ingress")
    with contextlib.suppress(PermissionError):  # already a session's leader: whoever started us saw to it
        os.setsid()
    try:
        state_dir = StateDir(options.state_dir)
        sockets = handover.inherited_sockets(environ)
        if not sockets:
            log.warning("started without sockets: nothing will be answered", extra={"hint": "`raydns node` gives them"})
        with asyncio.Runner(loop_factory=loop_factory()) as runner:
            return runner.run(run(state_dir, sockets, environ))
    except RaydnsError as error:
        log.critical("ingress cannot run", extra={"code": error.code, "problem": str(error)})
        return error.exit_code


async def run(state_dir: StateDir, sockets: Sequence[tuple[str, socket.socket]], environ: Mapping[str, str]) -> int:
    """Serves until SIGTERM or SIGINT."""
    loop = asyncio.get_running_loop()
    told = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, told.set)
    service = Service(state_dir, sockets)
    await service.start()
    garbage.settle()
    stopping = asyncio.ensure_future(told.wait())
    installed = asyncio.ensure_future(service.installed.wait())
    await asyncio.wait({stopping, installed}, return_when=asyncio.FIRST_COMPLETED)
    if installed.done():
        handover.announce_ready(environ)
        log.info("ingress answers", extra={"engine": service.engine.name, "pid": os.getpid()})
    installed.cancel()
    await stopping
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.remove_signal_handler(number)  # the second one ends the process at once
    drained = await service.stop()
    log.info("ingress has ended", extra={"drained": drained})
    return 0


def loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """Uvloop's where it is installed: half the cost of a wake-up."""
    try:
        import uvloop
    except ImportError:
        return None
    factory: Callable[[], asyncio.AbstractEventLoop] = uvloop.new_event_loop
    return factory


if __name__ == "__main__":
    sys.exit(main())
