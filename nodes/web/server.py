"""The aiohttp application: five routes, headers that keep browsers honest, and the loop that samples rates."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import errno
import hashlib
import html
import logging
import re
import socket
import time
from collections.abc import Awaitable, Callable
from importlib import resources
from ipaddress import ip_address
from typing import Any, Final

import msgspec
from aiohttp import web

from raydns.nodes.metrics import Family, Sample, merge
from raydns.nodes.paths import StateDir
from raydns.schemas.config.base import split_address
from raydns.schemas.config.telemetry import WebConfig
from raydns.schemas.errors import SocketError

from . import readiness, status
from .exposition import CONTENT_TYPE, render
from .processes import memory
from .rates import ActorRates, History, read
from .sources import Sources, wait

log = logging.getLogger(__name__)

PORT: Final = 8053
VIEWED_S: Final = 15.0  # after a look at the status, so long it is kept current every second
SAMPLE_S: Final = 1.0
SAMPLE_IDLE_S: Final = 5.0
PATIENCE_S: Final = 0.5  # a slow process does not hold up the page: its last known answer is shown
SCRAPE_PATIENCE_S: Final = 4.0
BODY_MAX: Final = 1024  # nothing here takes a body

_HOST: Final = re.compile(r"(?:\[(?P<six>[^\[\]]+)\]|(?P<name>[^:\[\]]+))(?::\d*)?")

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class WebServer:
    """The HTTP service of one machine.

    Args:
        config: section ``web``.
        state_dir: whose control sockets are asked.
        sources: what is asked instead; tests put their own here.
        machine: this machine's name, until the agent tells it.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        config: WebConfig,
        state_dir: StateDir,
        *,
        sources: Sources | None = None,
        machine: str = "",
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.config = config
        self.port = 0
        """In use, after ``start``."""
        self._clock = clock
        self._machine = machine or socket.gethostname()
        self._sources = sources or Sources(state_dir, clock)
        self._history = History()
        self._actor_rates = ActorRates()
        self._started_at = clock()
        self._viewed_at = -VIEWED_S
        self._runner: web.AppRunner | None = None
        self._sampler: asyncio.Task[None] | None = None
        self._wake = asyncio.Event()
        self._page, self._policy = _load_page()
        host, port = split_address(config.listen, PORT)
        self._host, self._wanted_port = host, PORT if port is None else port
        self._loopback = ip_address(host).is_loopback

    @property
    def url(self) -> str:
        """Where the page is."""
        host = f"[{self._host}]" if ":" in self._host else self._host
        return f"http://{host}:{self.port}/"

    async def start(self) -> None:
        """Begins to serve; raises ``SocketError`` where it cannot listen."""
        app = web.Application(middlewares=[self._guard], client_max_size=BODY_MAX)
        for path, handler in (
            ("/", self._index),
            ("/metrics", self._metrics),
            ("/health", self._health),
            ("/ready", self._ready),
            ("/status", self._status),
        ):
            app.router.add_get(path, handler)
        runner = web.AppRunner(app, access_log=None, keepalive_timeout=30.0, shutdown_timeout=1.0)
        await runner.setup()
        try:
            await web.TCPSite(runner, self._host, self._wanted_port).start()
        except OSError as error:
            await runner.cleanup()
            raise _cannot_listen(error, self._host, self._wanted_port) from error
        self._runner = runner
        self.port = runner.addresses[0][1]
        self._sampler = asyncio.get_running_loop().create_task(self._sample_forever())
        log.info("web_listening", extra={"url": self.url})

    async def close(self) -> None:
        """Ends; questions that are out are given up."""
        if self._sampler is not None:
            self._sampler.cancel()
            await asyncio.gather(self._sampler, return_exceptions=True)
        self._sources.close()
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    # -- routes ------------------------------------------------------------------------------------------

    async def _index(self, _: web.Request) -> web.Response:
        self._look()
        return web.Response(
            body=self._page,
            content_type="text/html",
            charset="utf-8",
            headers={"Content-Security-Policy": self._policy},
        )

    async def _status(self, _: web.Request) -> web.Response:
        self._look()
        s = self._sources
        await wait([s.node.refresh(), s.ingress.refresh(), s.agent.refresh(), s.recent.refresh()], PATIENCE_S)
        now = self._clock()
        return _json(
            status.build(
                s,
                self._history,
                self._actor_rates,
                machine=self._machine,
                started_s=self._started_at,
                now=now,
                wall=time.time(),
            )
        )

    async def _health(self, _: web.Request) -> web.Response:
        await wait([self._sources.ingress.refresh()], PATIENCE_S)
        engine = self._sources.ingress.value.get("engine")
        return _json(
            {
                "status": "ok",
                "engine": status.plain(engine) if engine else None,
                "machine": self._machine,
                "uptime_s": round(self._clock() - self._started_at, 1),
            }
        )

    async def _ready(self, _: web.Request) -> web.Response:
        s = self._sources
        await wait([s.node.refresh(), s.ingress.refresh()], PATIENCE_S)
        reasons = readiness.reasons(s.node, s.ingress)
        target = readiness.probe_target(s.node.value)
        if not reasons and target is not None and (problem := await readiness.answers(target)):
            reasons.append(problem)
        return _json({"ready": not reasons, "reasons": reasons}, status=503 if reasons else 200)

    async def _metrics(self, _: web.Request) -> web.Response:
        s = self._sources
        await wait([s.ingress_metrics.refresh(), s.agent_metrics.refresh(), s.node.refresh()], SCRAPE_PATIENCE_S)
        families = merge([s.ingress_metrics.value, s.agent_metrics.value, self._own_families()])
        body = await asyncio.to_thread(render, families)
        return web.Response(body=body, headers={"Content-Type": CONTENT_TYPE})

    def _own_families(self) -> list[Family]:
        shown = (self._sources.ingress_metrics, self._sources.agent_metrics)
        pairs = [({"source": source.name.removesuffix("_metrics")}, source) for source in shown]
        return [
            Family(
                "raydns_web_source_up",
                "gauge",
                "Whether the source of these metrics answered last time.",
                [Sample(labels, float(source.up)) for labels, source in pairs],
            ),
            Family(
                "raydns_web_source_age_seconds",
                "gauge",
                "Age of the metrics shown; those of a source that is gone are its last known ones.",
                [Sample(labels, source.age_s) for labels, source in pairs if source.age_s is not None],
            ),
            Family(
                "raydns_web_process_resident_bytes",
                "gauge",
                "Resident memory of this machine's processes.",
                [Sample({"process": name}, float(size)) for name, size in memory(self._sources).items()],
            ),
        ]

    # -- sampling ----------------------------------------------------------------------------------------

    def _look(self) -> None:
        """Somebody looks at the status: it is kept current for a while."""
        if self._clock() - self._viewed_at >= VIEWED_S:
            self._wake.set()
        self._viewed_at = self._clock()

    async def _sample_forever(self) -> None:
        """Reads the ingress's counters: every second while somebody looks, else rarely, for the history."""
        while True:
            viewed = self._clock() - self._viewed_at < VIEWED_S
            await self._sample(viewed)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._wake.wait(), SAMPLE_S if viewed else SAMPLE_IDLE_S)
            self._wake.clear()

    async def _sample(self, viewed: bool) -> None:
        s = self._sources
        asked = [s.ingress_metrics.refresh(SAMPLE_S / 2)]
        if viewed:  # these go through every actor: only for somebody who looks
            asked += [s.agent_metrics.refresh(), s.known.refresh()]
        await wait(asked, PATIENCE_S)
        if s.ingress_metrics.up and s.ingress_metrics.age_s is not None:
            self._history.add(read(s.ingress_metrics.value, self._clock() - s.ingress_metrics.age_s))
        if s.agent_metrics.up and s.agent_metrics.age_s is not None:
            self._actor_rates.add(s.agent_metrics.value, self._clock() - s.agent_metrics.age_s)

    # -- the door ----------------------------------------------------------------------------------------

    @web.middleware
    async def _guard(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Refuses what comes through a name that was rebound to loopback; adds headers; hides our insides."""
        if self._loopback and not _is_local(request.host):
            response: web.StreamResponse = web.Response(
                status=421, text="this service is only known as localhost or by its address\n"
            )
        else:
            try:
                response = await handler(request)
            except web.HTTPException as error:
                response = web.Response(
                    status=error.status, text=f"{error.status} {html.escape(error.reason)}\n", headers=_allow(error)
                )
            except Exception:
                log.exception("web_request_failed", extra={"path": request.path})
                response = web.Response(status=500, text="500 see the log of the node\n")
        response.headers.setdefault("Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'")
        response.headers["Cache-Control"] = "no-store"
        response.headers["X-Content-Type-Options"] = "nosniff"
        response.headers["Referrer-Policy"] = "no-referrer"
        response.headers["Cross-Origin-Resource-Policy"] = "same-origin"
        response.headers["Server"] = "raydns"
        return response


def _allow(error: web.HTTPException) -> dict[str, str]:
    return {"Allow": error.headers["Allow"]} if "Allow" in error.headers else {}


def _json(value: Any, *, status: int = 200) -> web.Response:
    return web.Response(body=msgspec.json.encode(value), content_type="application/json", status=status)


def _is_local(host: str) -> bool:
    """Whether a Host header names this machine by address or as localhost (against DNS rebinding)."""
    found = _HOST.fullmatch(host)
    if found is None:
        return False
    name = found["six"] or found["name"]
    if name.lower().removesuffix(".") == "localhost":
        return True
    try:
        return bool(ip_address(name))
    except ValueError:
        return False


def _load_page() -> tuple[bytes, str]:
    """The page, and the policy that lets exactly its own style and script run."""
    text = resources.files(__package__ or "raydns.nodes.web").joinpath("page.html").read_text(encoding="utf-8")

    def digests(tag: str) -> str:
        found = re.findall(f"<{tag}>(.*?)</{tag}>", text, re.DOTALL)
        return " ".join(f"'sha256-{base64.b64encode(hashlib.sha256(b.encode()).digest()).decode()}'" for b in found)

    policy = (
        f"default-src 'none'; connect-src 'self'; img-src data:; style-src {digests('style')}; "
        f"script-src {digests('script')}; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
    return text.encode(), policy


def _cannot_listen(error: OSError, host: str, port: int) -> SocketError:
    where = f"{host}:{port}" if ":" not in host else f"[{host}]:{port}"
    if error.errno == errno.EADDRINUSE:
        return SocketError(
            "the port of the status page is in use",
            where=where,
            hint=f"`ss -ltnp sport = :{port}` tells by whom; set web.listen to another port, or web.enabled to false",
        )
    if error.errno == errno.EACCES:
        return SocketError(
            "no permission for the port of the status page", where=where, hint="choose a port from 1024 in web.listen"
        )
    if error.errno == errno.EADDRNOTAVAIL:
        return SocketError(
            "the address of the status page is not this machine's", where=where, hint="set web.listen to one that is"
        )
    return SocketError(
        f"the status page cannot listen: {error.strerror or error}",
        where=where,
        hint="set web.listen to another address",
    )
