"""One question to one upstream: over UDP, over TCP where UDP is not enough or not to be trusted, until its end.

    UDP ── answer ─────────────────────────────────────────────▶ done
     │├─ TC, wrong case, wrong question, second wrong ID ──▶ TCP ─▶ done
     │└─ FORMERR or NOTIMP to a query with OPT ──▶ again without OPT
     └─ silence: at ``patience`` the server is blamed; an answer is taken until the flight ends

Nothing here raises: whatever happens becomes an outcome. An exchange goes on when its flight no longer wants it,
until its patience ends, since its time is worth knowing.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from raydns.actors.query.budget import Budget, BudgetExhausted

from .faults import BadReply, Fault
from .message import Question, Sent, build
from .reply import Reply, read
from .tcp import TcpPool, TcpTicket, TooManyExchanges
from .ttl import Lifetimes
from .udp import Address, PortRange, Ticket, UdpPool
from .upstream import Upstream
from .world import Timer, World

WRONG_IDS_MAX: Final = 2  # design: wrong ID once, then TCP
IN_FLIGHT_MAX: Final = 1024  # exchanges with one upstream at once

Outcome = Reply | BadReply | BudgetExhausted


class Server:
    """An upstream with what is known of it and its sockets."""

    def __init__(
        self,
        address: Address,
        transport: str,
        state: Upstream,
        ports: PortRange,
        world: World,
        *,
        options: bytes = b"",
    ) -> None:
        self.address = address
        self.options = options
        """Encoded EDNS options of every query to it."""
        self.transport = transport  # "udp" or "tcp"
        self.state = state
        self.world = world
        self.udp = UdpPool(address, ports, world.loop, world.random_below)
        self.tcp = TcpPool(address, world.loop, world.random_below)

    def close(self) -> None:
        """Closes its sockets; who still waits hears that they are lost."""
        self.udp.close()
        self.tcp.close()


class Exchange:
    """See the picture above; implements ``udp.Waiter``."""

    __slots__ = (
        "_budget",
        "_done",
        "_ends_at",
        "_lifetimes",
        "_owns",
        "_retried",
        "_sent",
        "_strange",
        "_tcp_ticket",
        "_timer",
        "_udp_ticket",
        "asked",
        "began",
        "blamed",
        "finished",
        "over_tcp",
        "question",
        "server",
        "wanted",
    )

    def __init__(
        self,
        server: Server,
        question: Question,
        budget: Budget,
        ends_at: float,
        *,
        lifetimes: Lifetimes,
        owns: Callable[[bytes], bool] | None,
        done: Callable[[Exchange, Outcome], None],
    ) -> None:
        self.server = server
        self.question = question
        self.asked = b""
        self.began = 0.0
        self.over_tcp = server.transport == "tcp"
        self.wanted = True  # cleared by the flight once it has its answer
        self.finished = False
        self.blamed = False  # its patience ended without an answer
        self._budget = budget
        self._ends_at = ends_at
        self._lifetimes = lifetimes
        self._owns = owns
        self._done = done
        self._sent: Sent | None = None
        self._strange = 0
        self._retried = False
        self._udp_ticket: Ticket | None = None
        self._tcp_ticket: TcpTicket | None = None
        self._timer: Timer | None = None

    def start(self) -> None:
        """Sends the question; the budget has been asked already."""
        state = self.server.state
        self.began = self.server.world.clock()
        if state.in_flight >= IN_FLIGHT_MAX:
            self.finished = True
            self._done(self, BadReply(Fault.BUSY, "too many exchanges with this upstream"))
            return
        state.in_flight += 1
        self._timer = self.server.world.call_later(state.patience_s, self._on_patience)
        self._send(edns=state.edns)

    # What the transports call.

    def datagram(self, data: bytes) -> None:
        """A message with the right ID: read, and judged."""
        if self.finished:
            return
        sent = self._sent
        assert sent is not None
        world = self.server.world
        self._budget.spend_octets(len(data))
        try:
            reply = read(
                data,
                sent,
                self._lifetimes,
                int(world.unix_time()),
                self._owns,
                exact_case=not self.over_tcp,
            )
        except BadReply as bad:
            self._bad(bad, sent)
            return
        state = self.server.state
        if not sent.edns:
            state.edns = False
        if self.over_tcp and sent.case_random and not data.startswith(sent.asked, 12):
            state.keeps_case = False  # learned where nobody could have forged it
        if self.blamed:
            state.answered_late()
        else:
            state.answered(self.question.key, self.began, world.clock())
        self._finish(reply)

    def wrong_id(self) -> None:
        """Somebody guesses IDs of ours: the first is noted, the second moves the question to TCP."""
        self._strange += 1
        if self._strange >= WRONG_IDS_MAX and not self.over_tcp and not self.finished:
            self._drop_tickets()
            self._again(over_tcp=True, edns=self.server.state.edns)

    def lost(self, error: OSError) -> None:
        """The transport failed; a reused connection that was closed under us is tried once more (RFC 7766 6.2.4)."""
        if self.finished:
            return
        if isinstance(error, TooManyExchanges):
            self._fail(BadReply(Fault.BUSY, str(error)))
            return
        reused = self._tcp_ticket is not None and self._tcp_ticket[0].answered > 0
        self._udp_ticket = self._tcp_ticket = None
        if reused and not self._retried:
            self._retried = True
            self._again(over_tcp=True, edns=self.server.state.edns)
            return
        self._fail(BadReply(Fault.UNREACHABLE, f"{self.server.address}: {error.strerror or error}"))

    # Ways on.

    def _bad(self, bad: BadReply, sent: Sent) -> None:
        fault = bad.fault
        self._udp_ticket = self._tcp_ticket = None
        if not self.over_tcp and fault in {Fault.TRUNCATED, Fault.WRONG_CASE, Fault.WRONG_QUESTION}:
            self._again(over_tcp=True, edns=sent.edns)
        elif fault in {Fault.FORMERR, Fault.NOTIMP} and sent.edns:
            self._again(over_tcp=self.over_tcp, edns=False)
        else:
            self._fail(bad)

    def _again(self, *, over_tcp: bool, edns: bool) -> None:
        now = self.server.world.clock()
        try:
            self._budget.spend_query(now)
        except BudgetExhausted as spent:
            self._finish(spent)
            return
        self.began = now
        self.over_tcp = over_tcp
        self._send(edns=edns)

    def _send(self, *, edns: bool) -> None:
        server = self.server
        sent = self._sent
        if sent is None or sent.edns != edns:
            sent = self._sent = build(
                self.question,
                server.world.random_octets,
                case_random=server.state.case_random,
                edns=edns,
                options=server.options,
            )
            self.asked = sent.asked
        try:
            if self.over_tcp:
                self._tcp_ticket = server.tcp.start(sent.body, self)
            else:
                self._udp_ticket = server.udp.start(sent.body, self, self.began)
        except OSError as error:
            self.lost(error)

    def _fail(self, bad: BadReply) -> None:
        if not self.blamed:
            self.server.state.failed(bad.fault, self.question.key, self.began, self.server.world.clock())
        self._finish(bad)

    def _on_patience(self) -> None:
        """Silence for longer than this server usually takes."""
        self._timer = None
        world = self.server.world
        now = world.clock()
        if not self.blamed:
            self.blamed = True
            self.server.state.failed(Fault.TIMEOUT, self.question.key, self.began, now)
        if self.wanted and now < self._ends_at:
            self._timer = world.call_later(self._ends_at - now, self._on_patience)
        else:
            self._finish(BadReply(Fault.TIMEOUT, f"{self.server.address} did not answer in time"))

    def _finish(self, outcome: Outcome) -> None:
        if self.finished:
            return
        self.finished = True
        self.server.state.in_flight -= 1
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._drop_tickets()
        self._done(self, outcome)

    def _drop_tickets(self) -> None:
        if self._udp_ticket is not None:
            self.server.udp.cancel(self._udp_ticket)
            self._udp_ticket = None
        if self._tcp_ticket is not None:
            self.server.tcp.cancel(self._tcp_ticket)
            self._tcp_ticket = None
