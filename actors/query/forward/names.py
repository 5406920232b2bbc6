"""Addresses of upstreams that are given by host name, learned from bootstrap resolvers and kept when these fail."""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Awaitable, Callable
from ipaddress import ip_address
from pathlib import Path
from typing import Final

from raydns.actors.query.budget import Budget
from raydns.schemas import dns, facts, names
from raydns.schemas.errors import RaydnsError

from .faults import UpstreamUnresolved
from .message import Question
from .reply import Reply

log = logging.getLogger(__name__)

TTL_MIN_S: Final = 30.0  # however short-lived the records are, we do not ask more often
TTL_MAX_S: Final = 3600.0
RETRY_FIRST_S: Final = 1.0
RETRY_MAX_S: Final = 60.0
LOOKUP_S: Final = 5.0
ADDRESSES_MAX: Final = 6  # design: limits, addresses a server
RESOLV_CONF: Final = Path("/etc/resolv.conf")

Resolve = Callable[[Question, Budget], Awaitable[Reply]]


class _Host:
    __slots__ = ("addresses", "failures", "problem", "refresh_at", "task")

    def __init__(self) -> None:
        self.addresses: tuple[str, ...] = ()  # last known, in whatever state the resolvers are now
        self.refresh_at = float("-inf")
        self.failures = 0  # in a row
        self.problem = ""
        self.task: asyncio.Task[None] | None = None


class HostNames:
    """Keeps the addresses of each host name that is asked for.

    Args:
        resolve: asks the bootstrap resolvers.
        clock: monotonic seconds.
        random: uniform in [0, 1), for jitter.
    """

    def __init__(self, resolve: Resolve, clock: Callable[[], float], random: Callable[[], float]) -> None:
        self.version = 0  # changes with any host's addresses
        self._resolve = resolve
        self._clock = clock
        self._random = random
        self._hosts: dict[str, _Host] = {}  # bounded by the configuration

    def known(self, host: str) -> tuple[str, ...]:
        """The last known addresses, perhaps none; starts to learn them anew where that is due."""
        state = self._hosts.setdefault(host, _Host())
        if state.task is None and self._clock() >= state.refresh_at:
            state.task = asyncio.get_running_loop().create_task(self._refresh(host, state))
        return state.addresses

    async def wait(self, host: str, timeout_s: float) -> tuple[str, ...]:
        """The addresses, waiting for a look-up that is under way.

        Raises:
            UpstreamUnresolved: there are none; says which host and why.
        """
        found = self.known(host)
        state = self._hosts[host]
        if not found and state.task is not None:
            await asyncio.wait({state.task}, timeout=timeout_s)
            found = state.addresses
        if not found:
            raise UpstreamUnresolved(
                f"upstream {host!r} does not resolve: {state.problem or 'no answer in time'}",
                where="forward.rules",
                hint="name the upstream by its address, or give forward.bootstrap a resolver that knows it",
            )
        return found

    def keep_only(self, hosts: set[str]) -> None:
        """Forgets hosts that no rule names any more."""
        for host in [h for h in self._hosts if h not in hosts]:
            state = self._hosts.pop(host)
            if state.task is not None:
                state.task.cancel()

    def retry(self) -> None:
        """The bootstrap resolvers changed: hosts without an address are tried at once."""
        for state in self._hosts.values():
            if not state.addresses:
                state.refresh_at = float("-inf")

    def problems(self) -> dict[str, str]:
        """Hosts whose last look-up failed, and why."""
        return {host: state.problem for host, state in self._hosts.items() if state.problem}

    async def close(self) -> None:
        """Ends look-ups that are under way."""
        tasks = [state.task for state in self._hosts.values() if state.task is not None]
        self.keep_only(set())
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _refresh(self, host: str, state: _Host) -> None:
        try:
            found, ttl, problem = await self._look_up(host)
            now = self._clock()
            if found:
                state.failures = 0
                state.problem = ""
                state.refresh_at = now + min(max(ttl, TTL_MIN_S), TTL_MAX_S)
                if found != state.addresses:
                    state.addresses = found
                    self.version += 1
            else:
                pause = min(RETRY_FIRST_S * 2.0 ** min(state.failures, 16), RETRY_MAX_S)
                state.failures += 1
                state.problem = problem
                state.refresh_at = now + pause * (0.75 + self._random() / 2.0)
                log.warning(
                    "upstream_unresolved",
                    extra={"host": host, "problem": problem, "kept": len(state.addresses), "again_s": round(pause, 1)},
                )
        finally:
            state.task = None

    async def _look_up(self, host: str) -> tuple[tuple[str, ...], float, str]:
        """Addresses, how long they hold, and what went wrong."""
        key = names.key(names.from_text(host + "."))
        results = await asyncio.gather(
            *(self._ask(Question(key, qtype)) for qtype in (dns.Type.A, dns.Type.AAAA)), return_exceptions=True
        )
        found: list[str] = []
        ttl = TTL_MAX_S
        problem = "it has no address"
        for result in results:
            if isinstance(result, Reply):
                found += [str(ip_address(raw)) for raw in facts.decode(result.facts).addresses]
                if result.fresh_s:
                    ttl = min(ttl, float(result.fresh_s))
            elif isinstance(result, RaydnsError):
                problem = str(result)
            elif isinstance(result, BaseException):
                raise result
        return tuple(dict.fromkeys(found))[:ADDRESSES_MAX], ttl, problem

    async def _ask(self, question: Question) -> Reply:
        now = self._clock()
        return await self._resolve(question, Budget(16, 65536, 8, now + LOOKUP_S))


def system_resolvers(path: Path = RESOLV_CONF) -> list[str]:
    """The name servers of resolv.conf(5); at most three, as the C library reads them; scoped ones are left out."""
    try:
        text = path.read_text(errors="replace")
    except OSError:
        return []
    found: list[str] = []
    for line in text.splitlines():
        match = re.match(r"\s*nameserver\s+(\S+)", line)
        if match:
            try:
                found.append(str(ip_address(match[1])))
            except ValueError:
                continue
    return [host for host in found[:3] if "%" not in host]
