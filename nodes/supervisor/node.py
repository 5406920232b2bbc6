"""The supervisor's shell: gives the core events and the time, and does what it commands.

Order of a start: directory and lock, secret and snapshot, what an earlier supervisor left, sockets, control socket,
ingress, Ray. Nothing slow (Ray, HTTP) is waited for before DNS is answered. Order of an end: the ingress drains
while Ray still answers its misses, then Ray, then the sockets.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import sys
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, Protocol

from raydns.nodes import handover
from raydns.nodes.control import ControlServer
from raydns.nodes.paths import StateDir
from raydns.schemas.config import Config
from raydns.schemas.config.base import split_address
from raydns.schemas.errors import CommandError, RaydnsError, SocketError, UnreachableError

from . import events as ev
from . import process, records, sockets
from .core import SupervisorCore
from .ingress_child import IngressChildren
from .notify import notify
from .plan import RayPlan
from .ray_child import RayChild
from .sockets import Named
from .spare import Spare

_log = logging.getLogger(__name__)

TAKEOVER_TIMEOUT_S: Final = 60.0
WEB_CLOSE_S: Final = 3.0
_NOT_FOR_CHILDREN: Final = ("NOTIFY_SOCKET", "LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES", "RAYDNS_READY_FD")


class Web(Protocol):
    """The HTTP service as the supervisor hosts it (``raydns.nodes.web``)."""

    port: int
    """In use, after ``start``."""

    async def start(self) -> None:
        """Begins to serve; raises ``SocketError`` where it cannot listen."""

    async def close(self) -> None:
        """Ends."""


INGRESS: Final = "raydns.nodes.ingress.main"
"""The module of the ingress; its ``main()`` is called without arguments."""


class Node:
    """One machine's supervisor while it runs."""

    def __init__(
        self,
        config: Config,
        state_dir: StateDir,
        *,
        ray: RayPlan | None,
        environ: Mapping[str, str],
        config_path: str = "",
        given: Sequence[Named] = (),
        ingress: Sequence[str] | None = None,
        web: Callable[[], Web] | None = None,
        on_ready: Callable[[dict[str, Any]], None] = lambda _: None,
        on_trouble: Callable[[RaydnsError], None] = lambda _: None,
    ) -> None:
        self._config = config
        self._config_path = config_path
        self._state_dir = state_dir
        self._environ = environ
        children = {name: value for name, value in environ.items() if name not in _NOT_FOR_CHILDREN}
        self._core = SupervisorCore(ray)
        arguments = ["--state-dir", str(state_dir.path)]
        command = [sys.executable, "-m", INGRESS, *arguments] if ingress is None else ingress
        spare = Spare(INGRESS, arguments, children, state_dir.logs / "ingress.log") if ingress is None else None
        self._ingress = IngressChildren(state_dir, command, children, self.tell, spare)
        self._ray = RayChild(state_dir, ray, children, self.tell)
        self._given = sockets.adopt_given(given, config.server.receive_buffer)
        self._sockets: list[Named] = []
        self._addresses = state_dir.run / "addresses.json"
        self._make_web = web
        self._web: Web | None = None
        self._web_problem: RaydnsError | None = None
        self._on_ready = on_ready
        self._on_trouble = on_trouble
        self._events: deque[ev.Event] = deque()
        self._handling = False
        self._timer: asyncio.TimerHandle | None = None
        self._finished = asyncio.Event()
        self._adopted = False
        self._takeovers: list[asyncio.Future[ev.ReportTakeover]] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._began = time.time()

    @property
    def sockets(self) -> list[Named]:
        """The DNS sockets that this node holds."""
        return self._sockets

    async def run(self) -> None:
        """Serves until it has been told to stop and everything has stopped.

        Raises:
            SocketError: an address cannot be bound.
        """
        control = ControlServer(
            self._state_dir.node_socket, {"status": self._status, "stop": self._stop, "takeover": self._takeover}
        )
        try:
            self._adopted = await self._ingress.find()
            renew = self._take_or_bind()
            await control.start()
            self.tell(ev.Started(self._adopted, await self._ray.find()))
            if renew:
                self.tell(ev.TakeoverAsked())
            elif self._adopted:
                self._spawn(self._ingress.refresh(0))  # our own part of the configuration may have changed
            self._spawn(self._ingress.watch_health(lambda: self._core.ingress.serving))
            await self._finished.wait()
            if self._web_problem is not None and self._web is None:
                raise self._web_problem
        finally:
            await self._close(control)

    def tell(self, event: ev.Event) -> None:
        """Gives the core an event; what it commands is done at once or begun."""
        self._events.append(event)
        if self._handling:
            return  # a command failed on the spot: its event waits for its turn
        self._handling = True
        try:
            while self._events:
                for command in self._core.handle(self._events.popleft(), self._now()):
                    self._do(command)
        finally:
            self._handling = False
        self._set_timer()

    def stop(self, *, immediate: bool = False) -> None:
        """Begins the end; said twice it is immediate."""
        if not self._core.stopping:
            notify(self._environ, "STOPPING=1")
            _log.info("stopping")
        self.tell(ev.StopAsked(immediate))

    @property
    def stopping(self) -> bool:
        """Whether the end has begun."""
        return self._core.stopping

    def status(self) -> dict[str, Any]:
        """What ``raydns node status`` shows."""
        core = self._core.statistics()
        host, _ = split_address(self._config.web.listen)
        core["ingress"]["pid"] = self._ingress.pid(self._core.ingress.serving)
        core["ingress"]["spare"] = self._ingress.spare_pid
        core["ray"]["pid"] = self._ray.pid
        return {
            "pid": os.getpid(),
            "state_dir": str(self._state_dir.path),
            "since": self._began,
            "ready": self._core.ingress.serving is not None,
            "addresses": self._listed(),
            "config": self._config_path,
            "web": str(sockets.Address(host, self._web.port)) if self._web is not None else "",
            **core,
        }

    # -- commands of the core ----------------------------------------------------------------------------

    def _do(self, command: ev.Command) -> None:
        match command:
            case ev.StartIngress(number, fresh):
                self._start_ingress(number, fresh=fresh)
            case ev.ReleaseIngress(number):
                self._ingress.release(number)
            case ev.KillIngress(number):
                self._ingress.kill(number)
            case ev.StartRay(number):
                self._ray.start(number)
            case ev.ClearRay(number, immediate):
                self._ray.clear(number, immediate=immediate)
            case ev.RunJob(number, job):
                self._ray.run(number, job)
            case ev.ReportTakeover():
                self._report(command)
            case ev.ReportReady():
                self._ready()
            case ev.ReportTrouble(reason):
                self._trouble(reason)
            case ev.Finish():
                self._finished.set()

    def _start_ingress(self, number: int, *, fresh: bool) -> None:
        try:
            if not self._sockets:
                self._bind(())
        except SocketError as error:
            _log.error("no sockets", extra={"problem": str(error)})
            self.tell(ev.IngressExited(number, str(error)))
            return
        self._ingress.start(number, self._sockets, fresh=fresh)

    def _ready(self) -> None:
        status = self.status()
        _log.info("DNS is answered", extra={"addresses": status["addresses"]})
        notify(self._environ, f"READY=1\nSTATUS=answering on {', '.join(status['addresses'])}")
        if self._make_web is not None:
            self._spawn(self._start_web(self._make_web))
        else:
            self._on_ready(status)

    async def _start_web(self, make: Callable[[], Web]) -> None:
        try:
            web = make()
            await web.start()
            self._web = web
        except RaydnsError as error:
            _log.error("no HTTP service", extra={"problem": str(error)})
            if not self._adopted:
                # Nobody relies on this node yet: its operator should hear of it now. Later, DNS never stops for it.
                self._web_problem = error
                self.stop()
                return
        except Exception:
            _log.exception("no HTTP service")
        self._on_ready(self.status())

    def _trouble(self, reason: str) -> None:
        tail = process.log_tail(self._ingress.log, lines=1)
        error = UnreachableError(
            f"DNS is not answered: the ingress does not start ({reason})" + (f": {tail}" if tail else ""),
            where=str(self._ingress.log),
            hint="the node goes on trying; `raydns node stop` ends it",
        )
        _log.error("ingress does not start", extra={"problem": str(error)})
        self._on_trouble(error)

    def _report(self, report: ev.ReportTakeover) -> None:
        if report.problem:
            _log.error("take-over failed", extra={"problem": report.problem})
        waiting, self._takeovers = self._takeovers, []
        for future in waiting:
            if not future.done():
                future.set_result(report)

    # -- sockets -----------------------------------------------------------------------------------------

    def _take_or_bind(self) -> bool:
        """Gets the sockets; whether a living ingress must be renewed, since it does not hold exactly these."""
        held: list[Named] = []
        if self._adopted:
            try:
                held = handover.take_sockets(self._state_dir.ingress_fds_socket)
            except RaydnsError as error:
                _log.error("the living ingress keeps its sockets to itself", extra={"problem": str(error)})
                return False
        before = {(name, sockets.address_of(one)) for name, one in held}
        self._bind(held)
        kept = {id(one) for _, one in self._sockets}
        for _, one in held:
            if id(one) not in kept:
                one.close()
        return self._adopted and before != {(name, sockets.address_of(one)) for name, one in self._sockets}

    def _bind(self, held: Sequence[Named]) -> None:
        if self._given:
            self._sockets = list(self._given)
        else:
            last = records.load(self._addresses, records.AddressRecord) or records.AddressRecord()
            self._sockets = sockets.bind_all(
                sockets.wanted(self._config),
                receive_buffer=self._config.server.receive_buffer,
                held=held,
                port_hint=last.port,
            )
        free = any(address.port == 0 for address in sockets.wanted(self._config))
        port = sockets.address_of(self._sockets[0][1]).port if free else 0
        places: dict[str, list[tuple[str, int]]] = {"udp": [], "tcp": []}
        for name, one in self._sockets:
            address = sockets.address_of(one)
            places[name].append((address.host, address.port))
        records.save(self._addresses, records.AddressRecord(places["udp"], places["tcp"], port))

    def _listed(self) -> list[str]:
        return [str(sockets.address_of(one)) for name, one in self._sockets if name == "udp"]

    # -- control socket ----------------------------------------------------------------------------------

    async def _status(self, _: dict[str, Any]) -> dict[str, Any]:
        return self.status()

    async def _stop(self, params: dict[str, Any]) -> dict[str, Any]:
        # After the answer: the caller should not lose it to the end that it asked for.
        asyncio.get_running_loop().call_soon(lambda: self.stop(immediate=bool(params.get("immediate"))))
        return {"pid": os.getpid()}

    async def _takeover(self, _: dict[str, Any]) -> dict[str, Any]:
        future: asyncio.Future[ev.ReportTakeover] = asyncio.get_running_loop().create_future()
        self._takeovers.append(future)
        self.tell(ev.TakeoverAsked())
        async with asyncio.timeout(TAKEOVER_TIMEOUT_S):
            report = await future
        if report.problem:
            raise CommandError(
                f"no take-over: {report.problem}",
                where="ingress",
                hint=f"see {self._ingress.log}; DNS goes on as before",
            )
        return {"number": report.number, "pid": self._ingress.pid(report.number)}

    # -- around ------------------------------------------------------------------------------------------

    async def _close(self, control: ControlServer) -> None:
        for task in self._tasks:
            task.cancel()
        if self._timer is not None:
            self._timer.cancel()
        if self._web is not None:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(WEB_CLOSE_S):
                    await self._web.close()
        if self._finished.is_set():
            await self._ingress.close()
            for path in (self._state_dir.ingress_socket, self._state_dir.ingress_fds_socket):
                path.unlink(missing_ok=True)
        else:
            self._ingress.forget()
            self._ray.forget()
        await control.close()
        for _, one in self._sockets:
            one.close()

    def _set_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        at = self._core.wake_at
        if at is not None and not self._finished.is_set():
            self._timer = asyncio.get_running_loop().call_at(max(at, self._now()), self.tell, ev.TimePassed())

    def _spawn(self, work: Any) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    @staticmethod
    def _now() -> float:
        return asyncio.get_running_loop().time()
