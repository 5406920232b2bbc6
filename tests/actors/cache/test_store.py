"""The store: bytes, eviction, overhead."""

from __future__ import annotations

import random
import tracemalloc

from hypothesis import given, settings
from hypothesis import strategies as st

from raydns.actors.cache.failures import Failures
from raydns.actors.cache.store import OVERHEAD, Entry, Store


def put(store: Store, key: bytes, size: int = 100, now: float = 0.0, until: float = 1e9) -> Entry:
    """Puts an entry as the shard does."""
    entry = store.put(key)
    entry.message = bytes(size)
    entry.fresh_until = entry.stale_until = until
    store.settle(entry, now)
    return entry


def consistent(store: Store) -> bool:
    """Whether queues, table and sums agree, and the bound holds."""
    queued = [*store._small, *store._main]
    return (
        len(queued) == len(store) == len({e.key for e in queued})
        and store.size == sum(e.measure() for e in queued)
        and store._small_size == sum(e.size for e in store._small)
        and store.size <= store.bytes_max
    )


@given(st.lists(st.tuples(st.sampled_from("pgflr"), st.integers(0, 30), st.integers(0, 3000)), max_size=120))
@settings(max_examples=150, deadline=None)
def test_the_bound_holds_and_nothing_is_lost_from_the_queues(steps: list[tuple[str, int, int]]) -> None:
    """Whatever is put, asked for, forgotten, replaced and resized: bytes never exceed the bound, books balance."""
    store = Store(12_000)
    for now, (what, number, size) in enumerate(steps):
        key = b"key%d" % number
        if what in "pr":
            put(store, key, size, now, now + size)
        elif what == "g":
            store.get(key)
        elif what == "f":
            entry = store.peek(key)
            if entry is not None:
                store.forget(entry)
        else:
            store.limit(6_000 + size * 4, now)
        assert consistent(store)


def test_a_scan_does_not_push_out_what_is_asked_for() -> None:
    """S3-FIFO: 20,000 names that are asked once leave the popular ones where they are; an LRU would lose them all."""
    store = Store(1000 * (OVERHEAD + 110))
    popular = [b"popular%d" % n for n in range(300)]
    for _ in range(3):
        for key in popular:
            if store.get(key) is None:
                put(store, key)
    for n in range(20_000):
        put(store, b"scan%d" % n)
        if n % 10 == 0:
            store.get(popular[n // 10 % 300])
    assert sum(store.peek(key) is not None for key in popular) >= 290


def test_zipf_with_scans_hits_more_often_than_fifo() -> None:
    """On a Zipf-like load with scans the hit rate leaves far fewer avoidable misses than plain FIFO."""
    rng = random.Random(5)
    names = [b"name%d" % int(rng.paretovariate(0.8)) for _ in range(30_000)]
    load = [key if n % 4 else b"scan%d" % n for n, key in enumerate(names)]
    store, hits = Store(400 * (OVERHEAD + 110)), 0
    fifo: dict[bytes, None] = {}
    fifo_hits = 0
    for key in load:
        if store.get(key) is not None:
            hits += 1
        else:
            put(store, key)
        if key in fifo:
            fifo_hits += 1
        else:
            fifo[key] = None
            if len(fifo) > 400:
                del fifo[next(iter(fifo))]
    scans = len(load) // 4
    assert len(load) - scans - hits < 0.6 * (len(load) - scans - fifo_hits)


def test_who_comes_back_enters_main() -> None:
    """A key whose ghost is remembered is not put on probation again."""
    store = Store(10 * (OVERHEAD + 110))
    for n in range(40):
        put(store, b"key%02d" % n)
    gone = next(n for n in range(39, -1, -1) if store.peek(b"key%02d" % n) is None)
    assert put(store, b"key%02d" % gone).in_main


def test_the_counted_size_is_what_it_costs() -> None:
    """Bytes counted are within a fifth of what the interpreter really takes, and not far above it."""
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        store = Store(1 << 30)
        for n in range(20_000):
            entry = store.put(b"\x08name%04d\x07example\x00\x00\x01\x00\x01\x00\x00\x00\x00" % n + n.to_bytes(4, "big"))
            entry.message, entry.layout, entry.facts = bytes(60 + n % 7), bytes(7), bytes(9 + n % 3)
            entry.fresh_until, entry.stale_until = n + 0.5, n + 1.5
            entry.began = n << 40
            store.settle(entry, 0.0)
        real = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
    assert store.size * 0.8 <= real <= store.size * 1.2, (real / 20_000, store.size / 20_000)


def test_expired_entries_go_first() -> None:
    """An entry beyond its stale time is not given a second chance, however popular it was."""
    store = Store(10 * (OVERHEAD + 110))
    old = put(store, b"old", until=5.0)
    for _ in range(3):
        store.get(b"old")
    assert old.frequency == 3
    for n in range(12):
        put(store, b"new%02d" % n, now=10.0)
    assert store.peek(b"old") is None


def test_failures_double_up_to_a_bound_and_are_few() -> None:
    """RFC 9520 section 3.2: 5 s, doubling to 300 s; a long pause begins anew; at most so many are kept."""
    failures = Failures(records_max=3)
    now, spans = 100.0, []
    for _ in range(9):
        record = failures.add(b"a", now, 5.0, 300.0)
        spans.append(record.until - now)
        assert failures.get(b"a", record.until - 0.01) is record
        assert failures.get(b"a", record.until) is None
        now = record.until
    assert spans == [5, 10, 20, 40, 80, 160, 300, 300, 300]
    assert failures.add(b"a", now + 301, 5.0, 300.0).count == 1
    for key in (b"b", b"c", b"d"):
        failures.add(key, now, 5.0, 300.0)
    assert len(failures) == 3
    assert failures.get(b"a", now) is None
