"""Queries that never reach resolution: malformed ones, other operation codes, classes and types."""

from __future__ import annotations

from typing import Final

from raydns.schemas import dns
from raydns.schemas.config.server import ServerConfig
from raydns.schemas.dns import Ede, Rcode
from raydns.schemas.wire import BadQuery, Query

from .counters import Counters
from .render import TCP_SIZE_MAX, Renderer
from .special import Chaos

_IN: Final = int(dns.Class.IN)
_KNOWN_OPCODES: Final = frozenset({dns.Opcode.QUERY, dns.Opcode.NOTIFY, dns.Opcode.UPDATE})
_NOT_A_QTYPE: Final = frozenset({0, dns.Type.OPT, dns.Type.TSIG})  # RFC 6895 section 3.1
_NOT_IMPLEMENTED: Final = frozenset({249, 253, 254})  # TKEY, MAILB, MAILA
_TRANSFERS: Final = frozenset({dns.Type.AXFR, dns.Type.IXFR})
_ODD_TYPES: Final = _NOT_A_QTYPE | _NOT_IMPLEMENTED | _TRANSFERS


def is_odd(query: Query) -> bool:
    """Whether a query is for this file."""
    return query.flags & dns.OPCODE_MASK != 0 or query.qclass != _IN or query.qtype in _ODD_TYPES


class Odd:
    """The replies."""

    def __init__(self, server: ServerConfig, renderer: Renderer, counters: Counters) -> None:
        self._renderer = renderer
        self._counters = counters
        self._chaos = Chaos(server)

    def malformed(self, data: bytes, problem: BadQuery) -> bytes:
        """The reply to what has a header but is no query that can be read."""
        rcode = problem.rcode
        kind = "badvers" if rcode == Rcode.BADVERS else "formerr"
        if (data[2] & 0x78) >> 3 not in _KNOWN_OPCODES:
            rcode, kind = Rcode.NOTIMP, "opcode"  # its format is not ours to judge
        self._counters.malformed.inc(kind)
        return self._renderer.malformed(data, rcode)

    def answer(self, data: bytes, query: Query, limit: int) -> bytes:
        """The reply to an odd query that could be read."""
        error = self._renderer.error
        opcode, qtype = query.opcode, query.qtype
        if opcode in (dns.Opcode.NOTIFY, dns.Opcode.UPDATE):
            # Transfers, NOTIFY and UPDATE are the zone shard's; it takes none yet.
            return error(data, query, Rcode.REFUSED, ede=Ede.NOT_SUPPORTED)
        if opcode:
            self._counters.malformed.inc("opcode")
            return error(data, query, Rcode.NOTIMP)
        if qtype in _NOT_A_QTYPE:
            self._counters.malformed.inc("qtype")
            return error(data, query, Rcode.FORMERR)
        if qtype in _NOT_IMPLEMENTED:
            return error(data, query, Rcode.NOTIMP)
        if query.qclass == dns.Class.CH:
            answer = self._chaos.find(query)
            if answer is not None:
                return self._renderer.reply(data, query, answer, answer.tail, min(limit, TCP_SIZE_MAX), 0)
        return error(data, query, Rcode.REFUSED, ede=Ede.NOT_SUPPORTED)
