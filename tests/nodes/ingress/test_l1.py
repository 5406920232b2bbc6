"""L1: bounded by octets, scan-proof, never a negative TTL, flushed lazily."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raydns.nodes.ingress.l1 import AnswerCache, Key, facet
from raydns.nodes.ingress.render import Stored
from raydns.schemas import names, wire
from raydns.schemas.batch import AnswerFlag, AnswerItem, QueryItem
from raydns.schemas.cluster import Flush, FlushTable, Version
from raydns.schemas.config.cache import CacheConfig

from .harness import answer, quick
from .harness import ask as query_octets


def made(name: str, *, ttl: int = 300, **more: int) -> tuple[Key, Stored, AnswerItem]:
    """A key and an answer for it."""
    octets = query_octets(name)
    item = answer(QueryItem(1, octets, 1000), "A 192.0.2.1", ttl=ttl, **more)
    query = wire.parse_query(octets)
    return (query.key, facet(1, 1, do=False, cd=False)), Stored.of(item.message, item.layout, query.question_end), item


def light(number: int) -> tuple[Key, Stored, AnswerItem]:
    """The same without dnspython."""
    name = names.from_text(f"n{number}.example.")
    octets = struct.pack("!HHHHHH", 0, 0x100, 1, 0, 0, 0) + name + b"\x00\x01\x00\x01"
    item = quick(QueryItem(1, octets, 1000))
    return (name, facet(1, 1, do=False, cd=False)), Stored.of(item.message, item.layout, len(octets)), item


def cache(flushes: list[Flush] | None = None, **config: object) -> AnswerCache:
    """An empty cache."""
    return AnswerCache(CacheConfig.model_validate(config), FlushTable(flushes or []))


def test_what_is_stored_is_found_until_its_time() -> None:
    """An entry is a hit until its freshness ends and stale until its window ends."""
    l1 = cache(stale_max_s=100)
    key, stored, item = made("www.example.com", ttl=60)
    assert l1.store(key, stored, item, 1000.0)
    assert l1.find(key, 1059.9)
    assert l1.find(key, 1060.0) is None
    assert l1.find_stale(key, 1159.9)
    assert l1.find_stale(key, 1160.0) is None
    assert (l1.hits, l1.misses) == (1, 1)


def test_facets_do_not_mix() -> None:
    """Type, class, DO, CD, view and scope each make another key."""
    seen = {
        facet(1, 1, do=False, cd=False),
        facet(28, 1, do=False, cd=False),
        facet(1, 3, do=False, cd=False),
        facet(1, 1, do=True, cd=False),
        facet(1, 1, do=False, cd=True),
        facet(1, 1, do=False, cd=False, view=1),
        facet(1, 1, do=False, cd=False, scope=24),
        facet(65, 1, do=False, cd=False),
        facet(97, 1, do=False, cd=False),
    }
    assert len(seen) == 9


@given(st.integers(0, 2**31 - 1), st.floats(0, 2**31))
def test_a_ttl_is_never_negative(ttl: int, age: float) -> None:
    """Whatever the age, every TTL is what is left of it, or zero."""
    _, stored, _ = light(1)
    ((at, _),) = stored.ttls()
    stored.tail = stored.tail[:at] + ttl.to_bytes(4, "big") + stored.tail[at + 4 :]
    tail = stored.aged(int(age))
    assert int.from_bytes(tail[at : at + 4], "big") == max(ttl - int(age), 0)
    capped = stored.capped(30)
    assert int.from_bytes(capped[at : at + 4], "big") == min(ttl, 30)


@pytest.mark.parametrize(
    "flags",
    [
        0,
        AnswerFlag.SHAREABLE | AnswerFlag.AUTHORITATIVE,
        AnswerFlag.SHAREABLE | AnswerFlag.LOCAL_FAILURE,
        AnswerFlag.SHAREABLE | AnswerFlag.RETRY,
    ],
)
def test_what_may_not_be_kept_is_not(flags: int) -> None:
    """Answers for one slot, authoritative data and failures of our own making are never stored."""
    l1 = cache()
    key, stored, item = made("www.example.com", flags=flags)
    assert l1.store(key, stored, item, 0.0) is None
    assert len(l1) == 0


def test_truncated_answers_and_ttl_zero_are_not_kept() -> None:
    """TC is never stored; TTL 0 serves those who wait, then goes."""
    l1 = cache()
    key, stored, item = made("www.example.com")
    item.message = item.message[:2] + bytes((item.message[2] | 2,)) + item.message[3:]
    assert l1.store(key, stored, item, 0.0) is None
    key, stored, item = made("www.example.com", fresh_s=0)
    assert l1.store(key, stored, item, 0.0) is None


def test_a_failure_never_replaces_an_answer_that_can_serve_stale() -> None:
    """SERVFAIL is stored where there is nothing, and refused where an old answer stands."""
    l1 = cache()
    key, stored, item = made("www.example.com", ttl=10)
    failed = answer(QueryItem(1, query_octets("www.example.com"), 1000), rcode=2, fresh_s=5)
    failure = Stored.of(failed.message, failed.layout, stored.question_end)
    assert l1.store(key, failure, failed, 0.0)
    assert l1.store(key, stored, item, 1.0)
    assert l1.store(key, failure, failed, 20.0) is None
    assert l1.find_stale(key, 20.0) is not None


def test_disabled_keeps_nothing() -> None:
    """``cache.enabled: false`` stores nothing and forgets what was there."""
    l1 = cache()
    key, stored, item = made("www.example.com")
    l1.store(key, stored, item, 0.0)
    l1.configure(CacheConfig(enabled=False), FlushTable([]))
    assert len(l1) == 0
    assert l1.bytes == 0
    assert l1.store(key, stored, item, 0.0) is None


def test_a_flush_reaches_names_and_subtrees_lazily() -> None:
    """Entries from before a flush at or above their name are misses; others are checked once and stay."""
    l1 = cache()
    for name in ("www.example.com", "example.com", "www.example.net"):
        key, stored, item = made(name)
        l1.store(key, stored, item, 0.0)
    flush = Flush(names.from_text("example.com."), True, Version(1, 5))
    l1.configure(CacheConfig(), FlushTable([flush]))
    assert l1.find(made("www.example.com")[0], 1.0) is None
    assert l1.find(made("example.com")[0], 1.0) is None
    kept = l1.find(made("www.example.net")[0], 1.0)
    assert kept is not None
    assert kept.began == Version(1, 5).packed  # from now on one comparison
    assert l1.find_stale(made("example.com")[0], 1.0) is None


def test_an_answer_whose_flight_began_before_the_flush_is_not_kept() -> None:
    """What was under way while its name was flushed cannot come back through the door."""
    l1 = cache([Flush(names.from_text("example.com."), True, Version(1, 5))])
    key, stored, item = made("www.example.com", began=Version(1, 4).packed)
    assert l1.store(key, stored, item, 0.0) is None
    key, stored, item = made("www.example.com", began=Version(1, 5).packed)
    assert l1.store(key, stored, item, 0.0) is not None


def test_the_bound_in_octets_holds_and_accounts_are_right() -> None:
    """Ten times more answers than fit leave no more than the bound, and the sum of the sizes is the count."""
    l1 = cache(l1_bytes=200_000)
    for number in range(2000):
        l1.store(*light(number), 0.0)
        assert l1.bytes <= 200_000
    assert l1.bytes == sum(entry.size for entry in l1._table.values())
    assert len(l1) == len(l1._small) + len(l1._main)
    assert len(l1._ghosts) <= 1024


def test_a_scan_does_not_push_out_what_is_popular() -> None:
    """Fifty popular names survive a walk through twenty thousand names asked once."""
    l1 = cache(l1_bytes=200_000)
    popular = [light(number) for number in range(50)]
    for entry in popular:
        l1.store(*entry, 0.0)
    for _ in range(3):
        for key, _, _ in popular:
            l1.find(key, 1.0)
    for number in range(1000, 21_000):
        l1.store(*light(number), 1.0)
        if number % 400 == 0:
            for key, _, _ in popular:
                l1.find(key, 1.0)
    assert sum(l1.find(key, 2.0) is not None for key, _, _ in popular) >= 48


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 60), st.booleans()), max_size=300))
def test_queues_and_table_agree_after_any_use(steps: list[tuple[int, bool]]) -> None:
    """After any mixture of stores and look-ups both queues hold exactly what the table holds, within the bound."""
    l1 = cache(l1_bytes=65536)
    entries = [light(number) for number in range(61)]
    for number, store in steps:
        if store:
            l1.store(*entries[number], 0.0)
        else:
            l1.find(entries[number][0], 0.0)
    queued = [*l1._small, *l1._main]
    assert {id(entry) for entry in queued} == {id(entry) for entry in l1._table.values()}
    assert len(queued) == len(l1._table)
    assert l1._small_bytes == sum(entry.size for entry in l1._small)
    assert l1.bytes == sum(entry.size for entry in queued) <= 65536
