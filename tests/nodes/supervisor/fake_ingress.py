"""A tiny ingress for the supervisor's tests: the same contract as the real one, an echo in place of DNS.

It answers each UDP packet with its process id, a space, and what came; over TCP it greets with its process id.
``--fail`` ends it before it is ready, ``--mute`` keeps it from ever being ready.
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
from pathlib import Path
from typing import Any

from raydns.nodes.control import ControlServer
from raydns.nodes.handover import SocketGiver, announce_ready, inherited_sockets
from raydns.nodes.paths import StateDir

PORTION = 32
"""Packets read in one turn before others get theirs."""


class Echo:
    """Reads its sockets until told to stop."""

    def __init__(self, named: list[tuple[str, socket.socket]], done: asyncio.Event) -> None:
        self.named = named
        self.done = done
        self.reading = False
        self.answered = 0

    def begin(self) -> None:
        """Reads every socket from now on."""
        self.reading = True
        for _, one in self.named:
            one.setblocking(False)
            read = self._packets if one.type == socket.SOCK_DGRAM else self._connection
            asyncio.get_running_loop().add_reader(one.fileno(), read, one)

    def stop_reading(self) -> None:
        """Leaves the sockets to others."""
        if self.reading:
            self.reading = False
            for _, one in self.named:
                asyncio.get_running_loop().remove_reader(one.fileno())

    def _packets(self, one: socket.socket) -> None:
        for _ in range(PORTION):
            try:
                data, source = one.recvfrom(4096)
            except BlockingIOError:
                return
            one.sendto(b"%d %s" % (os.getpid(), data), source)
            self.answered += 1

    def _connection(self, one: socket.socket) -> None:
        try:
            connection, _ = one.accept()
        except BlockingIOError:
            return
        with connection:
            connection.send(b"%d" % os.getpid())


async def main() -> None:
    """Serves until SIGTERM."""
    state_dir = StateDir(sys.argv[sys.argv.index("--state-dir") + 1])
    flag = Path(state_dir.path / "fake-mode")
    mode = flag.read_text() if flag.exists() else ""
    if mode == "fail":
        print("fake ingress: this start fails on purpose", file=sys.stderr)
        sys.exit(3)
    done = asyncio.Event()
    echo = Echo(inherited_sockets(os.environ), done)

    async def status(_: dict[str, Any]) -> dict[str, Any]:
        return {"pid": os.getpid(), "reading": echo.reading, "answered": echo.answered}

    async def stop_reading(_: dict[str, Any]) -> dict[str, Any]:
        echo.stop_reading()
        return {}

    async def drain(_: dict[str, Any]) -> dict[str, Any]:
        echo.stop_reading()
        return {"left": 0}

    control = ControlServer(state_dir.ingress_socket, {"status": status, "stop_reading": stop_reading, "drain": drain})
    giver = SocketGiver(state_dir.ingress_fds_socket, lambda: echo.named)
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, done.set)
    if mode == "mute":
        await done.wait()
        return
    await control.start()
    await giver.start()
    echo.begin()
    announce_ready(os.environ)
    await done.wait()
    echo.stop_reading()
    await giver.close()
    await control.close()


if __name__ == "__main__":
    asyncio.run(main())
