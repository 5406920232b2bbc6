"""The ingress processes of this machine, as the core commands them: start, release, kill, and find again.

Each is steered by its own name of its control socket, ``run/ingress.<pid>.sock``: a hard link, made when it is
ready. ``run/ingress.sock`` always belongs to the newest, so an old one could not be told to leave by it.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import socket
import struct
from collections.abc import Callable, Coroutine, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from raydns.nodes import control, handover
from raydns.nodes.paths import StateDir
from raydns.schemas.errors import RaydnsError

from . import events as ev
from . import process, procfs, records
from .process import Process
from .procfs import Identity
from .sockets import Named
from .spare import Spare

_log = logging.getLogger(__name__)

CALL_TIMEOUT_S: Final = 2.0
DRAIN_S: Final = 10.0
"""As long as an idle TCP connection may live."""
_HUNG_AFTER: Final = 3
_PATIENCE_S: Final = 5.0
_CREDENTIALS: Final = struct.Struct("3i")  # struct ucred of unix(7): pid, uid, gid


class IngressChildren:
    """All living ingress processes, by the core's numbers."""

    def __init__(
        self,
        state_dir: StateDir,
        command: Sequence[str],
        environ: Mapping[str, str],
        tell: Callable[[ev.Event], None],
        spare: Spare | None = None,
    ) -> None:
        self._spare = spare
        self._state_dir = state_dir
        self._command = list(command)
        self._environ = dict(environ)
        self._tell = tell
        self._all: dict[int, Process] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._record = state_dir.run / "ingress.json"
        self.log = state_dir.logs / "ingress.log"

    def pid(self, number: int | None) -> int:
        """The process id behind a number; 0 if there is none."""
        one = self._all.get(-1 if number is None else number)
        return one.pid if one is not None else 0

    @property
    def spare_pid(self) -> int:
        """The process id of the one in reserve, once it is of use; else 0."""
        return self._spare.pid if self._spare is not None and self._spare.ready else 0

    async def find(self) -> bool:
        """Adopts the ingress that an earlier supervisor left serving; others of its are sent away."""
        recorded = records.load(self._record, records.IngressRecord) or records.IngressRecord()
        serving = await self._who_serves()
        if serving is not None:
            self._watch(0, process.adopt(serving, self._exit_of(0)))
            self._link(serving.pid)
        for at, one in enumerate(recorded.processes):
            if one.who != serving and procfs.is_alive(one.who):
                _log.info("an earlier ingress still runs; it leaves", extra={"pid": one.pid})
                stray = process.adopt(one.who, self._exit_of(-2 - at))
                if stray is not None:
                    self._all[-2 - at] = stray
                    self._spawn(self._send_away(stray))
        self._note()
        if 0 in self._all:
            self._renew_spare()
        return 0 in self._all

    def start(self, number: int, sockets: Sequence[Named], *, fresh: bool) -> None:
        """Starts one with the sockets; tells ``IngressReady`` or ``IngressExited``."""
        reader, writer = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        environ = {
            **self._environ,
            "LISTEN_FDS": str(len(sockets)),
            "LISTEN_FDNAMES": ":".join(name for name, _ in sockets),
            "RAYDNS_READY_FD": str(handover.FIRST_DESCRIPTOR + len(sockets)),
        }
        handles = [*(one.fileno() for _, one in sockets), writer]
        try:
            child = None if fresh or self._spare is None else self._spare.use(environ, handles, self._exit_of(number))
            child = child or self._spawn_one(number, environ, handles)
        except OSError as error:
            os.close(reader)
            self._tell(ev.IngressExited(number, f"cannot be started: {error}"))
            return
        finally:
            os.close(writer)
        self._watch(number, child)
        self._note()
        asyncio.get_running_loop().add_reader(reader, self._heard, number, reader)
        _log.info("ingress started", extra={"pid": child.pid, "number": number})

    def _spawn_one(self, number: int, environ: Mapping[str, str], handles: Sequence[int]) -> Process:
        output = process.open_log(self.log)
        try:
            return process.spawn(
                self._command, environ, output=output, descriptors=handles, on_exit=self._exit_of(number)
            )
        finally:
            os.close(output)

    def release(self, number: int) -> None:
        """Has one stop reading, finish, and leave."""
        one = self._all.get(number)
        if one is not None:
            self._spawn(self._leave(one))

    def kill(self, number: int) -> None:
        """Ends one at once."""
        one = self._all.get(number)
        if one is not None:
            _log.warning("ingress is ended by force", extra={"pid": one.pid, "number": number})
            one.send(signal.SIGKILL)

    async def refresh(self, number: int) -> None:
        """Has one read again what is known."""
        try:
            await control.call(self._socket_of(self.pid(number)), "refresh")
        except RaydnsError as error:
            _log.warning("ingress did not refresh", extra={"number": number, "problem": str(error)})

    async def close(self) -> None:
        """Ends what the core does not count: those of an earlier supervisor that have not left yet."""
        for task in self._tasks:
            task.cancel()
        for one in list(self._all.values()):
            one.send(signal.SIGKILL)
            await one.wait()
        if self._spare is not None:
            await self._spare.close()

    def forget(self) -> None:
        """Leaves all of them alone: the supervisor goes, they stay."""
        for task in self._tasks:
            task.cancel()
        for one in self._all.values():
            one.forget()
        if self._spare is not None:
            self._spare.drop()

    async def watch_health(self, serving: Callable[[], int | None]) -> None:
        """Ends an ingress that lives and does not answer (stopped, or in a loop); its exit brings the next one."""
        silent = 0
        last: int | None = None
        while True:
            await asyncio.sleep(_PATIENCE_S)
            number = serving()
            silent = silent if number == last else 0
            last = number
            if number is None:
                continue
            try:
                await control.call(self._socket_of(self.pid(number)), "status", timeout_s=_PATIENCE_S)
                silent = 0
            except RaydnsError as error:
                silent += 1
                _log.warning("ingress does not answer", extra={"times": silent, "problem": str(error)})
            if silent >= _HUNG_AFTER:
                self.kill(number)

    async def _who_serves(self) -> Identity | None:
        """Who answers behind ``run/ingress.sock``; one that hangs there is ended, since it holds the port."""
        who = _peer(self._state_dir.ingress_socket)
        if who is None:
            return None
        try:
            await control.call(self._state_dir.ingress_socket, "status", timeout_s=CALL_TIMEOUT_S)
        except RaydnsError as error:
            _log.error("the ingress found does not answer; it is ended", extra={"pid": who.pid, "problem": str(error)})
            stuck = process.adopt(who, lambda _: None)
            if stuck is not None:
                stuck.send(signal.SIGKILL)
                await stuck.wait()
            return None
        return who

    def _heard(self, number: int, reader: int) -> None:
        try:
            data = os.read(reader, 64)
        except BlockingIOError:
            return
        asyncio.get_running_loop().remove_reader(reader)
        os.close(reader)
        one = self._all.get(number)
        if data.startswith(handover.READY.rstrip()) and one is not None:
            self._link(one.pid)
            _log.info("ingress is ready", extra={"pid": one.pid, "number": number})
            self._renew_spare()
            self._tell(ev.IngressReady(number))

    async def _leave(self, one: Process) -> None:
        path = self._socket_of(one.pid)
        try:
            await control.call(path, "stop_reading", timeout_s=CALL_TIMEOUT_S)
            await control.call(path, "drain", {"timeout_s": DRAIN_S}, timeout_s=DRAIN_S + CALL_TIMEOUT_S)
        except RaydnsError as error:
            if not one.gone:
                _log.warning("ingress did not drain", extra={"pid": one.pid, "problem": str(error)})
        one.send(signal.SIGTERM)

    async def _send_away(self, one: Process) -> None:
        await self._leave(one)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_PATIENCE_S):
                await one.wait()
        one.send(signal.SIGKILL)

    def _exit_of(self, number: int) -> Callable[[str], None]:
        def told(reason: str) -> None:
            one = self._all.pop(number, None)
            if one is not None:
                self._own_socket(one.pid).unlink(missing_ok=True)
            self._note()
            _log.info("ingress has gone", extra={"number": number, "reason": reason})
            self._tell(ev.IngressExited(number, reason))

        return told

    def _renew_spare(self) -> None:
        if self._spare is not None:
            self._spare.renew()

    def _watch(self, number: int, one: Process | None) -> None:
        if one is not None:
            self._all[number] = one

    def _note(self) -> None:
        listed = [records.ProcessRecord(*one.who) for one in self._all.values() if not one.gone]
        records.save(self._record, records.IngressRecord(listed))

    def _own_socket(self, pid: int) -> Path:
        return self._state_dir.run / f"ingress.{pid}.sock"

    def _socket_of(self, pid: int) -> Path:
        own = self._own_socket(pid)
        return own if own.exists() else self._state_dir.ingress_socket

    def _link(self, pid: int) -> None:
        own = self._own_socket(pid)
        own.unlink(missing_ok=True)
        try:
            os.link(self._state_dir.ingress_socket, own)
        except OSError as error:
            _log.warning("ingress has no control socket", extra={"pid": pid, "problem": str(error)})

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def _peer(path: Path) -> Identity | None:
    """Who listens behind a Unix socket (SO_PEERCRED tells the process that called listen)."""
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
            connection.settimeout(CALL_TIMEOUT_S)
            connection.connect(str(path))
            data = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    except OSError:
        return None
    return procfs.identity(_CREDENTIALS.unpack(data)[0])
