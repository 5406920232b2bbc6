"""What the supervisor's tests share: a node in the background with fake children, and questions to it."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from raydns.nodes.paths import StateDir
from raydns.nodes.supervisor import main, procfs
from raydns.nodes.supervisor.plan import RayPlan
from raydns.schemas.config import Config
from raydns.schemas.errors import UnreachableError

HERE = Path(__file__).parent


def until(condition: Callable[[], Any], what: str, timeout_s: float = 20.0) -> Any:
    """Waits for a condition with a deadline and returns what made it true."""
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        found = condition()
        if found:
            return found
        time.sleep(0.01)
    raise AssertionError(f"not within {timeout_s:g} s: {what}")


def config(place: Path, **server: Any) -> Config:
    """A node on loopback, a free port, without HTTP."""
    options = {"state_dir": str(place), "listen": ["127.0.0.1", "::1"], "port": 0, **server}
    return Config.model_validate({"server": options, "web": {"enabled": False}})


def fake_ingress(place: Path) -> list[str]:
    """The command of the fake ingress."""
    return [sys.executable, str(HERE / "fake_ingress.py"), "--state-dir", str(place)]


def fake_plan(place: Path, **env: str) -> RayPlan:
    """A plan with the fake Ray."""
    script = [sys.executable, str(HERE / "fake_ray.py")]
    return RayPlan(start=[*script, "start", str(place)], env=env, bootstrap=[*script, "bootstrap", str(place)])


class Background:
    """A node in the background, and what a test asks of it."""

    def __init__(self, place: Path) -> None:
        self.place = place
        self.state_dir = StateDir(place)

    def start(
        self, *, ray: RayPlan | None = None, ingress: Sequence[str] | None = None, **server: Any
    ) -> dict[str, Any]:
        """Starts it; the fake ingress unless another is named."""
        command = fake_ingress(self.place) if ingress is None else (ingress or None)
        return main.start(config(self.place, **server), ray=ray, ingress=command)

    def status(self) -> dict[str, Any]:
        """Its status; empty while it does not answer."""
        with contextlib.suppress(UnreachableError):
            return main.status(self.state_dir)
        return {}

    def ask(self, text: bytes = b"hi", address: str | None = None, timeout_s: float = 5.0) -> int:
        """Sends one packet and returns the process id of the ingress that echoed it."""
        host, _, port = (address or self.status()["addresses"][0]).rpartition(":")
        family = socket.AF_INET6 if "[" in host else socket.AF_INET
        with socket.socket(family, socket.SOCK_DGRAM) as client:
            client.settimeout(timeout_s)
            client.connect((host.strip("[]"), int(port)))
            client.send(text)
            pid, _, back = client.recv(4096).partition(b" ")
            assert back == text
            return int(pid)

    def processes(self) -> list[str]:
        """Every living process that has this state directory in its command line or Ray mark."""
        found = [procfs.command_line(pid) for pid in procfs.all_processes() if pid != os.getpid()]
        return [line for line in found if str(self.place) in line]


@contextlib.contextmanager
def background() -> Iterator[Background]:
    """A node that is ended, with all its children, whatever the test did."""
    place = Path(tempfile.mkdtemp(prefix="rd-", dir="/tmp"))
    node = Background(place)
    try:
        yield node
    finally:
        with contextlib.suppress(UnreachableError):
            main.stop(node.state_dir, immediate=True, timeout_s=20)
        for pid in procfs.all_processes():
            if str(place) in procfs.command_line(pid) and pid != os.getpid():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        shutil.rmtree(place, ignore_errors=True)
