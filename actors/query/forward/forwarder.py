"""Forwarding as the pipeline sees it: a question and a rule in, a believed answer or a typed error out.

Holds servers by address, so that a new configuration keeps what is known of them; equal questions share a flight;
no zone takes more than its share of flights. Lives in one event loop.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from ipaddress import ip_address
from typing import NamedTuple

from raydns.actors.query.budget import Budget, BudgetExhausted, DeadlinePassed
from raydns.schemas import dns, names
from raydns.schemas.config import Config
from raydns.schemas.config.base import split_address
from raydns.schemas.errors import ConfigError

from .exchange import Exchange, Outcome, Server
from .faults import PROBE_ONLY, BadReply, Fault, UpstreamFailed, UpstreamUnresolved
from .flight import Event, Flight, Policy, zone_of
from .message import Question
from .names import HostNames, system_resolvers
from .own import OwnAddresses
from .reply import Reply
from .rules import PORT, Rule, Target, table
from .shares import Shares
from .ttl import Lifetimes
from .udp import Address, PortRange
from .upstream import Upstream
from .world import World

log = logging.getLogger(__name__)

Owns = Callable[[bytes], bool] | None
_PROBE_S = 3.0


class Result(NamedTuple):
    """An answer and how it was come by."""

    reply: Reply
    upstream: str
    attempts: int
    events: tuple[Event, ...]
    joined: bool  # somebody else led the flight


_Key = tuple[bytes, int, Question]  # suffix of the rule, view, question: equal ones share a flight


class _Running(Flight[Server]):
    """A flight of a forwarder, and who waits for it."""

    __slots__ = ("_forwarder", "began", "key", "owns", "waiting", "zone")

    def __init__(
        self,
        forwarder: Forwarder,
        key: _Key,
        servers: Sequence[Server],
        budget: Budget,
        *,
        policy: Policy,
        zone: bytes,
        owns: Owns,
    ) -> None:
        super().__init__(key[2], servers, budget, policy, forwarder.world)
        self.key = key
        self.zone = zone
        self.owns = owns
        self.began = forwarder.world.clock()
        self.waiting: list[asyncio.Future[Result]] = []
        self._forwarder = forwarder

    def _launch(self, server: Server) -> None:
        lifetimes = self._forwarder.lifetimes
        exchange = Exchange(
            server, self.question, self.budget, self.ends_at, lifetimes=lifetimes, owns=self.owns, done=self._ended
        )
        self.launched(exchange, server.state)
        exchange.start()

    def _ended(self, exchange: Exchange, outcome: Outcome) -> None:
        server = exchange.server
        self.result(exchange, server.state, outcome)
        self._forwarder.exchange_ended(server, self.question)

    def _landed(self, result: Reply | Exception) -> None:
        self._forwarder.flight_landed(self, result)


class Forwarder:
    """See the head of this file.

    Args:
        config: the sections ``forward``, ``cache`` and ``query`` are read.
        world: time, chance and the loop.
        own: addresses that we listen on ourselves.
        on_time: told the seconds of each flight that ended, and whether with an answer.
        mark: EDNS option of queries to addresses that are not global, by which our ingresses know them again.
    """

    def __init__(
        self,
        config: Config,
        world: World,
        own: OwnAddresses,
        on_time: Callable[[float, bool], None] = lambda seconds, good: None,
        *,
        mark: bytes = b"",
    ) -> None:
        self.world = world
        self.problems: list[ConfigError] = []
        self.joined = 0  # questions that another's flight answered
        self.unresolved = 0
        self._on_time = on_time
        self._servers: dict[tuple[str, int, str], Server] = {}
        self._by_rule: dict[Rule, tuple[int, list[Server]]] = {}  # with the version of names it was made from
        self._flights: dict[_Key, _Running] = {}
        self._closing: set[Server] = set()
        self._probing: set[Server] = set()
        self._names = HostNames(self._bootstrap, world.clock, world.random)
        self._shares = Shares(config.query.in_flight_max)
        self._bootstrap_rule: Rule | None = None
        self._configure(config, own, mark)

    def update(self, config: Config, own: OwnAddresses, *, mark: bytes = b"") -> None:
        """Takes a new configuration; flights under way finish as they began, upstreams keep what is known of them."""
        self._configure(config, own, mark)

    def _configure(self, config: Config, own: OwnAddresses, mark: bytes) -> None:
        forward = config.forward
        self._config = forward
        self._own = own
        self._mark = mark
        self._policy = Policy(forward.attempts, forward.backoff_ms / 1000.0, forward.timeout_s)
        self._ports = PortRange(
            min(forward.port_min, forward.port_max), max(forward.port_min, forward.port_max), forward.sockets
        )
        cache = config.cache
        self.lifetimes = Lifetimes(
            cache.ttl_max_s,
            cache.negative_ttl_max_s,
            int(cache.failure_ttl_s),
            cache.stale_max_s if cache.stale else 0,
        )
        self._shares.limit = config.query.in_flight_max
        self.rules, self.problems = table(forward, own)
        for problem in self.problems:
            log.error("forward_rule_refused", extra={"where": problem.where, "problem": problem.message})
        before, bootstrap = self._bootstrap_rule, self._make_bootstrap(own)
        self._bootstrap_rule = bootstrap
        self._by_rule.clear()
        wanted = {t for rule in (*self.rules.rules, bootstrap) for t in rule.targets}
        self._names.keep_only({t.host for t in wanted if t.by_name})
        if before != bootstrap:
            self._names.retry()
        for server in self._servers.values():
            server.state.configure(forward.breaker, case_random=forward.case_randomization)
            server.options = self._options_for(server.address.host)
        self._drop_unused({(t.host, t.port, t.transport) for t in wanted if not t.by_name})

    def _make_bootstrap(self, own: OwnAddresses) -> Rule:
        texts = self._config.bootstrap or tuple(system_resolvers())
        targets: list[Target] = []
        for text in texts:
            host, port = split_address(text, PORT)
            if not own.holds(host, port or PORT):
                targets.append(Target(host, port or PORT, "udp", False, text))
        return Rule(b"bootstrap", tuple(targets))  # no name in key form looks like this suffix

    def _drop_unused(self, wanted: set[tuple[str, int, str]]) -> None:
        """Closes servers that no rule names; those with exchanges under way close when these have ended."""
        named = self._names_in_use()
        for key in [k for k in self._servers if k not in wanted and k not in named]:
            server = self._servers.pop(key)
            if server.state.in_flight:
                self._closing.add(server)
            else:
                server.close()

    def _names_in_use(self) -> set[tuple[str, int, str]]:
        return {
            (address, target.port, target.transport)
            for rule in self.rules.rules
            for target in rule.targets
            if target.by_name
            for address in self._names.known(target.host)
        }

    def match(self, key: bytes) -> Rule | None:
        """The forward rule for a name in key form: the longest suffix."""
        return self.rules.match(key)

    async def resolve(self, rule: Rule, question: Question, budget: Budget, owns: Owns = None, view: int = 0) -> Result:
        """Asks the rule's upstreams.

        Args:
            rule: of this forwarder.
            question: what to ask.
            budget: pays for exchanges, octets and CNAME steps.
            owns: whether a name is this rule's to answer; ``None``: every name is.
            view: of the asker; views may differ in what they own.

        Raises:
            UpstreamFailed: nobody gave an answer that can be believed; may be cached as a failure unless ``ours``.
            UpstreamUnresolved: no upstream of the rule has an address.
            BudgetExhausted: of our own making.
        """
        result = await self._resolve(rule, question, budget, owns, view)
        if result.reply.chain:
            budget.spend_cname(len(result.reply.chain))
        return result

    async def _resolve(self, rule: Rule, question: Question, budget: Budget, owns: Owns, view: int) -> Result:
        budget.check(self.world.clock())
        key = (rule.suffix, view, question)
        running = self._flights.get(key)
        if running is not None:
            self.joined += 1
            try:
                async with asyncio.timeout(budget.remaining_s(self.world.clock())):
                    return (await self._wait(running))._replace(joined=True)
            except TimeoutError:
                raise DeadlinePassed("the query's deadline passed before an upstream answered", hint="") from None
            except BudgetExhausted:
                # The leader's purse was empty, not ours: lead a flight of our own.
                budget.check(self.world.clock())
        servers = self._servers_of(rule) or await self._wait_for_servers(rule, budget)
        running = self._flights.get(key)
        if running is None:
            running = self._start(key, servers, budget, owns)
        return await self._wait(running)

    async def _wait(self, running: _Running) -> Result:
        future: asyncio.Future[Result] = self.world.loop.create_future()
        running.waiting.append(future)
        if running.attempts == 0:  # the first to wait starts it
            running.start()
        return await future

    def _start(self, key: _Key, servers: Sequence[Server], budget: Budget, owns: Owns) -> _Running:
        zone = zone_of(key[2].key)
        if not self._shares.take(zone):
            raise UpstreamFailed(
                Fault.BUSY,
                f"too many names below {names.to_text(zone)} wait for upstreams already",
                hint="query.in_flight_max bounds all of them together",
            )
        running = _Running(self, key, servers, budget, policy=self._policy, zone=zone, owns=owns)
        self._flights[key] = running
        return running

    def exchange_ended(self, server: Server, asked: Question) -> None:
        """Said by a flight after each of its exchanges: what that means for the server."""
        if server.state.breaker.wants_probe:
            self._probe(server, asked)
        self._close_unused(server)

    def flight_landed(self, running: _Running, result: Reply | Exception) -> None:
        """Said by a flight at its end: whoever waits hears of it."""
        self._flights.pop(running.key, None)
        self._shares.give_back(running.zone)
        self._on_time(self.world.clock() - running.began, isinstance(result, Reply))
        for future in running.waiting:
            if future.done():
                continue
            if isinstance(result, Exception):
                future.set_exception(result)
            else:
                future.set_result(Result(result, running.answered_by, running.attempts, tuple(running.events), False))

    def _close_unused(self, server: Server) -> None:
        if server in self._closing and not server.state.in_flight:
            self._closing.discard(server)
            server.close()

    def _probe(self, server: Server, asked: Question) -> None:
        """Asks for the apex of the rule: a server that fails even there is broken, not just some zones."""
        now = self.world.clock()
        server.state.breaker.probe_started(now)
        if server in self._probing:
            return
        rule = self.rules.match(asked.key)
        question = Question(rule.suffix if rule is not None else names.ROOT, int(dns.Type.SOA))
        self._probing.add(server)

        def done(_: Exchange, outcome: Outcome) -> None:
            self._probing.discard(server)
            self._close_unused(server)
            bad = isinstance(outcome, BadReply) and outcome.fault in PROBE_ONLY
            if bad or isinstance(outcome, Reply):
                server.state.breaker.probe_done(self.world.clock(), good=not bad)

        budget = Budget(4, 65536, 4, now + _PROBE_S)
        exchange = Exchange(server, question, budget, budget.ends_at, lifetimes=self.lifetimes, owns=None, done=done)
        exchange.start()

    # Servers of a rule.

    def _servers_of(self, rule: Rule) -> list[Server]:
        made = self._by_rule.get(rule)
        if made is not None and made[0] == self._names.version and not any(t.by_name for t in rule.targets):
            return made[1]
        servers = [server for target in rule.targets for server in self._servers_for(target)]
        servers = list(dict.fromkeys(servers))
        self._by_rule[rule] = (self._names.version, servers)
        return servers

    def _servers_for(self, target: Target) -> list[Server]:
        hosts = self._names.known(target.host) if target.by_name else (target.host,)
        found: list[Server] = []
        for host in hosts:
            if target.by_name and self._own.holds(host, target.port):
                log.error("upstream_is_ourselves", extra={"upstream": target.text, "address": host})
                continue
            key = (host, target.port, target.transport)
            server = self._servers.get(key)
            if server is None:
                address = Address(host, target.port)
                state = Upstream(address, self._config.breaker, case_random=self._config.case_randomization)
                options = self._options_for(host)
                server = Server(address, target.transport, state, self._ports, self.world, options=options)
                self._servers[key] = server
            found.append(server)
        return found

    def _options_for(self, host: str) -> bytes:
        """EDNS options of every query to an address: one that is near may lead back to us (schemas/loops.py)."""
        return b"" if ip_address(host).is_global else self._mark

    async def _wait_for_servers(self, rule: Rule, budget: Budget) -> list[Server]:
        hosts = [target.host for target in rule.targets if target.by_name]
        if not hosts:
            raise UpstreamUnresolved(
                "none of the rule's upstreams can be used",
                where="forward.rules",
                hint="`raydns config check` says why",
            )
        problem: UpstreamUnresolved | None = None
        remaining_s = budget.remaining_s(self.world.clock())
        looking = {self.world.loop.create_task(self._names.wait(host, remaining_s)) for host in hosts}
        try:
            while looking:  # the first that resolves is enough: the others join when they are known
                done, looking = await asyncio.wait(looking, return_when=asyncio.FIRST_COMPLETED)
                for error in (task.exception() for task in done):
                    if isinstance(error, UpstreamUnresolved):
                        problem = error
                    elif error is not None:
                        raise error
                if servers := self._servers_of(rule):
                    budget.check(self.world.clock())
                    return servers
        finally:
            for task in looking:
                task.cancel()
        self.unresolved += 1
        raise problem or UpstreamUnresolved(
            f"upstream {hosts[0]!r} leads back to this server", where="forward.rules", hint="name another server"
        )

    async def _bootstrap(self, question: Question, budget: Budget) -> Reply:
        rule = self._bootstrap_rule
        if rule is None or not rule.targets:
            raise UpstreamUnresolved(
                "there is no resolver that could be asked for its address",
                where="forward.bootstrap",
                hint="set forward.bootstrap to the address of a resolver",
            )
        return (await self._resolve(rule, question, budget, None, 0)).reply

    # Watching it.

    @property
    def in_flight(self) -> int:
        """Flights under way."""
        return len(self._flights)

    @property
    def shed(self) -> int:
        """Flights that were not started because their zone held its share."""
        return self._shares.shed

    def servers(self) -> list[Server]:
        """Every upstream server that a rule names, bootstrap resolvers included."""
        return list(self._servers.values())

    async def close(self) -> None:
        """Ends everything; whoever still waits gets ``UpstreamFailed``."""
        await self._names.close()
        for running in list(self._flights.values()):
            running.abandon(UpstreamFailed(Fault.BUSY, "the query actor is closing"))
        for server in [*self._servers.values(), *self._closing]:
            server.close()
        self._servers.clear()
        self._closing.clear()
