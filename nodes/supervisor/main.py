"""What commands call: run a node in the foreground, start one in the background, ask one, stop one."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import resource
import signal
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

from raydns.nodes import control, logs
from raydns.nodes.paths import StateDir
from raydns.schemas.config import Config
from raydns.schemas.config.telemetry import LogConfig
from raydns.schemas.errors import RaydnsError, StateError, UnreachableError

from . import boot, daemon, process, procfs
from .node import Node, Web
from .notify import take_listen_fds
from .plan import RayPlan

_log = logging.getLogger(__name__)

START_TIMEOUT_S: Final = 60.0
STOP_TIMEOUT_S: Final = 90.0
"""Drain (15 s at most), then Ray (8 s politely, 8 s less so, 10 s by force), and slack for a busy machine."""
_POLL_S: Final = 0.05

OnReady = Callable[[dict[str, Any]], None]


def run(
    config: Config,
    config_path: str | Path | None = None,
    *,
    foreground: bool = True,
    ray: RayPlan | None = None,
    on_ready: OnReady | None = None,
    on_trouble: Callable[[RaydnsError], None] | None = None,
    ingress: Sequence[str] | None = None,
) -> int:
    """Runs this machine's node until it is told to stop; returns the exit code.

    Args:
        config: the machine's configuration.
        config_path: where it came from, for ``status``.
        foreground: on a terminal, whose end (SIGHUP) ends the node.
        ray: how Ray is run; ``None``: without it.
        on_ready: called once DNS is answered, with ``status``.
        on_trouble: called once if the ingress fails to start again and again; the node goes on trying.
        ingress: another command in place of the ingress's own.

    Raises:
        StateError: the state directory, its lock or its secret cannot be used.
        SocketError: an address cannot be bound.
    """
    state_dir = StateDir(config.server.state_dir).create()
    with state_dir.lock():
        boot.prepare(state_dir, config)
        given = take_listen_fds(os.environ)
        process.seal_descriptors()
        _raise_file_limit()
        asyncio.run(
            _serve(
                lambda: Node(
                    config,
                    state_dir,
                    ray=ray,
                    environ=dict(os.environ),
                    config_path=str(config_path or ""),
                    given=given,
                    ingress=ingress,
                    web=(lambda: _make_web(config, state_dir)) if config.web.enabled else None,
                    on_ready=on_ready or (lambda _: None),
                    on_trouble=on_trouble or (lambda _: None),
                ),
                foreground=foreground,
            )
        )
    return 0


def start(
    config: Config,
    config_path: str | Path | None = None,
    *,
    ray: RayPlan | None = None,
    ingress: Sequence[str] | None = None,
    timeout_s: float = START_TIMEOUT_S,
) -> dict[str, Any]:
    """Starts a node in the background and returns its status once DNS is answered; said twice it changes nothing.

    Returns:
        The node's status, with ``already`` telling whether it ran before.

    Raises:
        RaydnsError: why it did not start, as its own class; ``UnreachableError`` if it still tries at the deadline.
    """
    state_dir = StateDir(config.server.state_dir).create()
    deadline = time.monotonic() + timeout_s
    while True:
        running = _wait_running(state_dir, deadline)
        if running is not None:
            return {**running, "already": True}
        order = daemon.Order(
            # Only what was set: whether `listen` was is remembered (a default IPv6 wildcard may be missing).
            config=config.model_dump(mode="json", exclude_unset=True),
            config_path=str(config_path or ""),
            ray=daemon.plan_as_dict(ray),
            ingress=list(ingress) if ingress is not None else None,
        )
        left_s = max(0.0, deadline - time.monotonic())
        try:
            found = daemon.start(order, state_dir, left_s)
        except StateError:
            if not state_dir.lock_holder() or time.monotonic() > deadline:
                raise
            continue  # another start was faster: its node is as good as ours
        return {**found, "already": False}


def status(state_dir: StateDir, timeout_s: float = 5.0) -> dict[str, Any]:
    """The status of the node that runs on this state directory; raises ``UnreachableError`` if none does."""
    return control.call_sync(state_dir.node_socket, "status", timeout_s=timeout_s)


def takeover(state_dir: StateDir, timeout_s: float = 65.0) -> dict[str, Any]:
    """Puts a new ingress in place of the running one without losing a query."""
    return control.call_sync(state_dir.node_socket, "takeover", timeout_s=timeout_s)


def stop(state_dir: StateDir, *, immediate: bool = False, timeout_s: float = STOP_TIMEOUT_S) -> bool:
    """Stops the node and waits until nothing of it is left; ``False`` if none ran.

    Raises:
        UnreachableError: it still runs at the deadline.
    """
    if not state_dir.lock_holder():
        return False
    deadline = time.monotonic() + timeout_s
    while (holder := state_dir.lock_holder()) and time.monotonic() < deadline:
        # It may be in the middle of its start, and then has no control socket yet.
        with contextlib.suppress(UnreachableError):
            control.call_sync(state_dir.node_socket, "stop", {"immediate": immediate}, timeout_s=5.0)
            break
        time.sleep(_POLL_S)
    while (holder := state_dir.lock_holder()) and time.monotonic() < deadline:
        time.sleep(_POLL_S)
    if holder:
        raise UnreachableError(
            f"the node still runs after {timeout_s:g} s",
            where=f"process {holder}",
            hint=f"`kill -9 {holder}` ends it; what it leaves is found by the next start; {state_dir.logs} has more",
        )
    return True


async def _serve(make: Callable[[], Node], *, foreground: bool) -> None:
    node = make()
    loop = asyncio.get_running_loop()

    def asked_to_stop() -> None:
        node.stop(immediate=node.stopping)

    for number in (signal.SIGTERM, signal.SIGINT, *((signal.SIGHUP,) if foreground else ())):
        loop.add_signal_handler(number, asked_to_stop)
    if not foreground:
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
    if os.getpid() == 1:
        loop.add_signal_handler(signal.SIGCHLD, _reap_strangers)
    await node.run()


def _make_web(config: Config, state_dir: StateDir) -> Web:
    """Imported here, since it takes aiohttp, and that 370 ms which DNS should not wait for."""
    from raydns.nodes.web import WebServer  # type: ignore[import-not-found,unused-ignore]

    made: Web = WebServer(config.web, state_dir)
    return made


def _reap_strangers() -> None:
    """As process 1 of a container we inherit orphans; our own children are reaped where they are watched."""
    for one in procfs.zombies_of(os.getpid()):
        if not process.is_watched(one.pid):
            with contextlib.suppress(ChildProcessError):
                os.waitpid(one.pid, os.WNOHANG)


def _raise_file_limit() -> None:
    """Every TCP client is a file: children start with all that they may have."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    except (OSError, ValueError) as error:
        _log.warning("file limit stays as it is", extra={"problem": str(error)})


def _wait_running(state_dir: StateDir, deadline: float) -> dict[str, Any] | None:
    """The status of a node that runs, once it answers DNS; ``None`` as soon as none runs."""
    while holder := state_dir.lock_holder():
        with contextlib.suppress(UnreachableError):  # only starting, or ending
            found = status(state_dir)
            if found.get("ready"):
                return found
        if time.monotonic() > deadline:
            raise UnreachableError(
                "a node runs on this state directory and does not answer DNS",
                where=f"process {holder}",
                hint=f"{state_dir.logs}/ingress.log and node.log say why; `raydns node stop` ends it",
            )
        time.sleep(_POLL_S)
    return None


def _main() -> int:
    """The background process: takes its order from standard input, reports once by the pipe."""
    report = daemon.Report(int(sys.argv[1]))
    logs.setup(LogConfig(), "node")
    try:
        order = daemon.Order.from_json(json.load(sys.stdin))
        config = Config.model_validate(order.config)
        logs.setup(config.telemetry.log, "node")
        return run(
            config,
            order.config_path,
            foreground=False,
            ray=daemon.plan_from_dict(order.ray),
            on_ready=report.ready,
            on_trouble=report.trouble,
            ingress=order.ingress,
        )
    except RaydnsError as error:
        _log.error("node ended", extra={"problem": str(error)})
        report.failed(error)
        return error.exit_code
    except Exception as error:
        _log.exception("node ended")
        report.failed(StateError(f"unexpected: {error}", hint="node.log has the details"))
        return 1


if __name__ == "__main__":
    sys.exit(_main())
