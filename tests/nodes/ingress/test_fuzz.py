"""Fuzz. Invariant: whatever octets come in, from clients or from above, no exception, no hang, and no growth.

A hundred and fifty thousand seeded mutants go through the engine; what hypothesis makes goes through it too.
"""

from __future__ import annotations

import contextlib
import gc
import random
import tracemalloc

import dns.edns
import dns.message
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raydns.schemas import batch
from raydns.schemas.errors import BatchError

from .harness import Counter, ask, quick, zone_files

SEED = 20_261_125
MUTANTS = 150_000


def seeds() -> list[bytes]:
    """Queries of every kind that are known to be read."""
    cookie = [dns.edns.GenericOption(10, b"12345678"), dns.edns.ECSOption("192.0.2.0", 24)]
    return [
        ask("www.example.com"),
        ask("www.example.com", "TXT", use_edns=0, want_dnssec=True),
        ask("a.very.long.name.with.many.labels.example.com", "SVCB", use_edns=0, options=cookie),
        ask("localhost", "AAAA"),
        ask("1.0.0.127.in-addr.arpa", "PTR"),
        ask("version.bind", "TXT", rdclass="CH"),
        ask("what.is.rust.llm.example", "TXT", use_edns=0, payload=512),
        ask(".", "NS"),
        ask("zone.example", "SOA"),
        ask("x" * 63 + ".zone.example", "ANY"),
    ]


def mutant(rng: random.Random, octets: bytes) -> bytes:
    """One to four changes: flips, cuts, doublings, insertions, wild numbers."""
    data = bytearray(octets)
    for _ in range(rng.randint(1, 4)):
        at = rng.randrange(len(data)) if data else 0
        kind = rng.randrange(6)
        if kind == 0 and data:
            data[at] = rng.randrange(256)
        elif kind == 1 and data:
            data[at] ^= 1 << rng.randrange(8)
        elif kind == 2:
            del data[at : at + rng.randint(1, 8)]
        elif kind == 3:
            data[at:at] = rng.randbytes(rng.randint(1, 8))
        elif kind == 4:
            data += data[at : at + rng.randint(1, 40)]
        elif len(data) > at + 1:
            data[at : at + 2] = rng.choice((b"\x00\x00", b"\xff\xff", b"\xc0\x0c", b"\x00\x29"))
    return bytes(data)


def check(reply: bytes | None, data: bytes) -> None:
    """A reply is ours, a response, and never to a response."""
    if reply:
        assert len(reply) >= 12
        assert reply[:2] == data[:2]
        assert reply[2] & 0x80
        assert not data[2] & 0x80
        assert len(reply) <= 4096


@pytest.mark.timeout(60)
def test_mutants(tmp_path_factory: pytest.TempPathFactory) -> None:
    """150,000 mutants: each is answered or not, at once or later, and in the end nothing is left of them."""
    zone = "$TTL 60\n@ SOA a b 1 2 3 4 5\n@ NS a\na A 192.0.2.1\n*.w TXT x\n"
    entries, images = zone_files(tmp_path_factory.mktemp("zones"), {"zone.example.": zone})
    config = {"server": {"max_concurrent_queries": 500}, "cache": {"l1_bytes": 200_000}}
    counter = Counter(config, zones=entries, images=images)
    rng = random.Random(SEED)
    originals = seeds()
    growth = 0
    for number in range(MUTANTS):
        data = mutant(rng, rng.choice(originals))
        check(counter.raw(data, "127.0.0.1" if number & 1 else "198.51.100.1", number & 0xFFFF, 1 + (number & 1)), data)
        if number % 200 == 199:
            counter.serve(quick)
            counter.door.sent.clear()
            counter.later(0.01)
        if number == MUTANTS - 10_000:
            tracemalloc.start()
        elif number == MUTANTS - 5_000:
            gc.collect()  # what waits for a collection is no growth; how much waits depends on the tests before this
            growth = tracemalloc.get_traced_memory()[0]
            tracemalloc.stop()
    counter.later(8)
    counter.later(2)
    flights = counter.desk.flights
    assert (flights.waiting, flights.in_flight, flights.queued) == (0, 0, 0)
    assert 0 < growth < 2_000_000  # tables that turn over, not a leak a packet
    assert counter.desk.l1 is not None
    assert counter.desk.l1.bytes <= 200_000
    assert counter.desk.counters.malformed.total > MUTANTS / 10


@settings(max_examples=400, deadline=None)
@given(data=st.binary(max_size=600), transport=st.sampled_from([1, 2]))
def test_any_octets(data: bytes, transport: int) -> None:
    """Octets of any kind never raise."""
    check(SHARED.raw(data, transport=transport), data)


@settings(max_examples=400, deadline=None)
@given(
    flags=st.integers(0, 0x7FFF),
    counts=st.tuples(*[st.integers(0, 3)] * 4),
    labels=st.lists(st.binary(min_size=1, max_size=70), max_size=6),
    rest=st.binary(max_size=80),
)
def test_near_queries(flags: int, counts: tuple[int, int, int, int], labels: list[bytes], rest: bytes) -> None:
    """Messages with a proper header and nearly proper names never raise."""
    name = b"".join(bytes((len(label),)) + label for label in labels) + b"\x00"
    data = b"\x12\x34" + b"".join(n.to_bytes(2, "big") for n in (flags, *counts)) + name + rest
    check(SHARED.raw(data), data)


@settings(max_examples=300, deadline=None)
@given(st.lists(st.tuples(st.floats(0, 0.999), st.integers(0, 255)), max_size=5), st.integers(1, 4))
def test_batches_from_above(changes: list[tuple[float, int]], count: int) -> None:
    """A damaged batch of answers is refused as ``BatchError`` or its answers fail one by one; waiters still leave."""
    counter = SHARED
    assert counter.desk.l1 is not None
    counter.desk.l1.clear()
    for number in range(count):
        assert counter.raw(ask(f"n{number}.batch.example.com", id=number), port=number) == b""
    octets = bytearray(batch.encode_answers([quick(item) for item in counter.take()]))
    for place, value in changes:
        octets[int(place * len(octets))] = value
    with contextlib.suppress(BatchError):
        counter.desk.deliver(bytes(octets))
    counter.door.sent.clear()
    counter.later(8)
    counter.later(9)
    assert counter.desk.flights.waiting == counter.desk.flights.in_flight == 0


SHARED = Counter()
