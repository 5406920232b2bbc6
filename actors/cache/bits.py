"""Flags of the batch as plain integers.

``&`` between an ``int`` and an ``IntFlag`` member makes a new member and costs a microsecond or more; a miss meets
thirteen of them, which was two thirds of its time.
"""

from __future__ import annotations

from typing import Final

from raydns.schemas import dns
from raydns.schemas.batch import AnswerFlag, Outcome, QueryFlag

LOOKUP_ONLY: Final = int(QueryFlag.LOOKUP_ONLY)
RELAYED: Final = int(QueryFlag.RELAYED)
APEX: Final = int(QueryFlag.APEX)
PREFETCH: Final = int(QueryFlag.PREFETCH)

SHAREABLE: Final = int(AnswerFlag.SHAREABLE)
MORE: Final = int(AnswerFlag.MORE)
LOCAL_FAILURE: Final = int(AnswerFlag.LOCAL_FAILURE)
STALE: Final = int(AnswerFlag.STALE)
TRACED: Final = int(AnswerFlag.TRACED)
NOT_TRACED: Final = 0xFFFF ^ TRACED
NEVER_KEPT: Final = int(AnswerFlag.AUTHORITATIVE | AnswerFlag.LOCAL_FAILURE | AnswerFlag.RETRY | AnswerFlag.MORE)
KEPT: Final = int(AnswerFlag.SHAREABLE | AnswerFlag.SECURE)

HIT: Final = int(Outcome.HIT)
MISS: Final = int(Outcome.MISS)
JOINED: Final = int(Outcome.JOINED)
STALE_SERVED: Final = int(Outcome.STALE)
REFUSED: Final = int(Outcome.REFUSED)
FAILED: Final = int(Outcome.FAILED)
TIMEOUT: Final = int(Outcome.TIMEOUT)
NEGATIVE: Final = int(Outcome.NEGATIVE)

NOERROR: Final = int(dns.Rcode.NOERROR)
NXDOMAIN: Final = int(dns.Rcode.NXDOMAIN)
SOA: Final = int(dns.Type.SOA)
ANY: Final = int(dns.Type.ANY)
