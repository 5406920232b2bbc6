"""How a query that we sent out ourselves is known again when it comes back: a loop of forwarding.

A query actor puts EDNS option ``dns.EdnsOption.LOOP`` with ``token(ring.seed)`` into what it sends to loopback,
private and own addresses (nowhere else: some servers on the internet choke on unknown options). An ingress that
finds its own cluster's token in a query answers it from what it holds, but never sends it up again. A forged token
harms only who forged it. Loops through a foreign forwarder, which drops the option, end in the single flight of
their own name: one query is under way, and it waits for itself until its deadline.
"""

from __future__ import annotations

import hashlib

from raydns.schemas import dns, wire


def token(ring_seed: int) -> bytes:
    """Eight octets that all machines of a cluster share; nothing can be learnt of the seed from them."""
    return hashlib.blake2b(ring_seed.to_bytes(16, "little"), digest_size=8, person=b"raydns loop").digest()


def option(ring_seed: int) -> bytes:
    """The encoded EDNS option, ready to stand in an OPT record."""
    return wire.option(dns.EdnsOption.LOOP, token(ring_seed))
