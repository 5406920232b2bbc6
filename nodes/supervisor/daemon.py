"""A node in the background: started as a fresh process in a session of its own, that reports once how it went.

A fresh process and not a fork of the command: it holds none of the command's files and libraries, and no lock of
one of its threads. The order goes by standard input, since it may hold keys and arguments are everybody's to read.
"""

from __future__ import annotations

import dataclasses
import json
import os
import select
import subprocess
import sys
import time
from dataclasses import dataclass
from typing import Any

from raydns.nodes.paths import StateDir
from raydns.schemas.errors import RaydnsError, StateError, UnreachableError, catalogue

from . import process
from .plan import RayPlan


@dataclass(frozen=True, slots=True)
class Order:
    """What the background process is to run."""

    config: dict[str, Any]
    """As it was set, without defaults."""
    config_path: str
    ray: dict[str, Any] | None
    ingress: list[str] | None

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Order:
        """An order as it was sent."""
        return cls(**data)


class Report:
    """The one message of the background process to the command that started it."""

    def __init__(self, handle: int) -> None:
        self._handle = handle
        os.set_inheritable(handle, False)  # else the ingress would keep the command waiting

    def ready(self, status: dict[str, Any]) -> None:
        """DNS is answered."""
        self._send({"ok": status})

    def failed(self, error: RaydnsError) -> None:
        """It is not, and will not be."""
        self._send({"error": error.as_dict()})

    def trouble(self, error: RaydnsError) -> None:
        """It is not yet, and does not look well; the node goes on trying."""
        self._send({"error": error.as_dict(), "goes_on": True})

    def _send(self, message: dict[str, Any]) -> None:
        if self._handle < 0:
            return
        try:
            os.write(self._handle, json.dumps(message).encode() + b"\n")
        except BrokenPipeError:
            pass  # the command did not wait for so long
        finally:
            os.close(self._handle)
            self._handle = -1


def start(order: Order, state_dir: StateDir, timeout_s: float) -> dict[str, Any]:
    """Starts the process and waits for its report.

    Raises:
        RaydnsError: why it could not start, as its own class.
        UnreachableError: no report by the deadline; it goes on trying.
    """
    log = state_dir.logs / "node.log"
    reader, writer = os.pipe2(os.O_CLOEXEC)
    try:
        output = process.open_log(log)
        try:
            child = subprocess.Popen(
                [sys.executable, "-m", "raydns.nodes.supervisor.main", str(writer)],
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=output,
                pass_fds=[writer],
                start_new_session=True,
            )
        finally:
            os.close(output)
            os.close(writer)
        if child.stdin is not None:
            child.stdin.write(json.dumps(dataclasses.asdict(order)).encode())
            child.stdin.close()
        return _await_report(reader, child, state_dir, timeout_s)
    except OSError as error:
        raise StateError(f"the node cannot be started: {error}", where=str(log)) from error
    finally:
        os.close(reader)


def _await_report(reader: int, child: subprocess.Popen[bytes], state_dir: StateDir, timeout_s: float) -> dict[str, Any]:
    log, ingress_log = state_dir.logs / "node.log", state_dir.logs / "ingress.log"
    deadline = time.monotonic() + timeout_s
    data = b""
    while not data.endswith(b"\n"):
        readable, _, _ = select.select([reader], [], [], max(0.0, deadline - time.monotonic()))
        if not readable:
            if state_dir.lock_holder() != child.pid:
                # It has not even begun; left alone it would begin after its `stop` had found nothing to stop.
                child.kill()
                child.wait()
                raise UnreachableError(
                    f"the node has not begun to start after {timeout_s:g} s",
                    where=str(log),
                    hint="the machine is overloaded, or the log says more",
                )
            tail = process.log_tail(ingress_log, lines=1)
            child.returncode = 0  # it goes on without us: no complaint of an unfinished child
            raise UnreachableError(
                f"DNS is not answered after {timeout_s:g} s; the node goes on trying" + (f": {tail}" if tail else ""),
                where=f"process {child.pid}",
                hint=f"{ingress_log} and {log} say why; `raydns node stop` ends it",
            )
        part = os.read(reader, 65536)
        if not part:
            break
        data += part
    if not data:
        code = child.wait()
        raise StateError(
            f"the node ended at once with status {code}: {process.log_tail(log, lines=1)}",
            where=str(log),
            hint="the log has the details",
        )
    message = json.loads(data)
    if "error" in message:
        if message.get("goes_on"):
            child.returncode = 0
        else:
            child.wait()
        problem = message["error"]
        raise catalogue().get(problem["code"], RaydnsError)(
            problem["message"], where=problem["where"], hint=problem["hint"]
        )
    child.returncode = 0
    status: dict[str, Any] = message["ok"]
    return status


def plan_as_dict(plan: RayPlan | None) -> dict[str, Any] | None:
    """A plan for the order."""
    if plan is None:
        return None
    return {**dataclasses.asdict(plan), "env": dict(plan.env)}


def plan_from_dict(data: dict[str, Any] | None) -> RayPlan | None:
    """The plan of an order."""
    return RayPlan(**data) if data is not None else None
