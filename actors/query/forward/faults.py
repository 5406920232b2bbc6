"""What can be wrong with an upstream's reply or with an upstream: one name for each, and what it means.

The names stand in metrics and logs. ``BLAMED`` are the ones that speak against the server itself and so count
at its breaker; the others can be provoked by whoever owns the name that is asked (a loop of CNAMEs, say), and a
stranger must not be able to open a breaker.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Final

from raydns.schemas import dns
from raydns.schemas.errors import MessageError, UpstreamError


class Fault(StrEnum):
    """Why an exchange brought no usable answer."""

    TIMEOUT = "timeout"
    UNREACHABLE = "unreachable"  # ICMP, a refused or lost connection
    WRONG_ID = "wrong_id"
    WRONG_QUESTION = "wrong_question"
    WRONG_CASE = "wrong_case"  # the right question, but 0x20 did not come back
    MALFORMED = "malformed"
    TRUNCATED = "truncated"  # TC where it cannot be: over TCP
    OUT_OF_BAILIWICK = "out_of_bailiwick"  # records, and none that the question leads to
    BROKEN_CHAIN = "broken_chain"  # a loop, or a CNAME that its DNAME contradicts
    TOO_MANY_RECORDS = "too_many_records"
    NOT_RECURSIVE = "not_recursive"  # a referral instead of an answer
    FORMERR = "formerr"
    SERVFAIL = "servfail"
    NOTIMP = "notimp"
    REFUSED = "refused"
    OTHER_RCODE = "other_rcode"
    BUSY = "busy"  # ours: too many exchanges with this upstream already
    UNRESOLVED = "unresolved"  # the upstream's own host name has no address
    LOOP = "loop"  # the upstream is ourselves


BLAMED: Final = frozenset(
    {
        Fault.TIMEOUT,
        Fault.UNREACHABLE,
        Fault.WRONG_ID,
        Fault.WRONG_QUESTION,
        Fault.MALFORMED,
        Fault.TRUNCATED,
        Fault.OUT_OF_BAILIWICK,
    }
)
"""Faults that count at the breaker of a server at once."""
PROBE_ONLY: Final = frozenset({Fault.SERVFAIL, Fault.REFUSED, Fault.NOTIMP, Fault.FORMERR, Fault.NOT_RECURSIVE})
"""Faults that count only if a probe meets them too."""
BY_RCODE: Final = {
    int(dns.Rcode.FORMERR): Fault.FORMERR,
    int(dns.Rcode.SERVFAIL): Fault.SERVFAIL,
    int(dns.Rcode.NOTIMP): Fault.NOTIMP,
    int(dns.Rcode.REFUSED): Fault.REFUSED,
}


class BadReply(MessageError):
    """A reply that is not believed; ``fault`` says why."""

    code = "wire.reply"

    def __init__(self, fault: Fault, message: str = "", *, ede: int = -1, ede_text: str = "") -> None:
        super().__init__(message or fault.value)
        self.fault = fault
        self.ede = ede  # what the upstream itself said about it (RFC 8914)
        self.ede_text = ede_text

    def __reduce__(self) -> tuple[object, ...]:
        return (BadReply, (self.fault, self.message))


class UpstreamFailed(UpstreamError):
    """No upstream of a rule gave an answer; ``fault`` is the last one's, or the one that explains most."""

    code = "upstream.failed"

    def __init__(self, fault: Fault, message: str, *, where: str = "", hint: str = "", ede: int = -1) -> None:
        super().__init__(message, where=where, hint=hint)
        self.fault = fault
        self.ede = ede
        self.ours = fault is Fault.BUSY
        """Whether the failure is of our own making, and so cached in no tier."""

    def __reduce__(self) -> tuple[object, ...]:
        return (UpstreamFailed, (self.fault, self.message))


class UpstreamUnresolved(UpstreamError):
    """An upstream's host name has no address that we could learn."""

    code = "upstream.unresolved"
