"""The token by which our own query is known when it comes back."""

from __future__ import annotations

from raydns.schemas import dns, loops, wire


def test_the_token_is_the_clusters() -> None:
    """Equal for one ring seed on every machine, another for another cluster, and golden for a fixed one."""
    assert loops.token(7) == loops.token(7)
    assert loops.token(7) != loops.token(8)
    assert loops.token(2**64 - 1) != loops.token(0)
    assert len(loops.token(7)) == 8
    assert loops.option(7) == wire.option(dns.EdnsOption.LOOP, loops.token(7))
