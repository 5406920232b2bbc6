"""L1: the ingress's own answers, bounded by octets, with an eviction that a scan cannot spoil.

Theory of operation: S3-FIFO. New answers enter a small queue (a tenth of the bound); those that nobody asked for
again leave it quickly and leave only a mark in a ghost list. Those asked again, or met in the ghost list, live in
the main queue, where a clock hand takes away one of up to three marks before it evicts. So a walk through a million
names passes through the small queue and the popular names stay. A hit costs one addition; nothing is moved.

An entry is replaced in place and leaves only by eviction: both queues hold exactly what the table holds.
TTLs are counted down when an entry is rendered, and once a second for an entry that is popular.
"""

from __future__ import annotations

from collections import deque
from typing import Final

import msgspec

from raydns.schemas.batch import AnswerFlag, AnswerItem
from raydns.schemas.cluster import FlushTable
from raydns.schemas.config.cache import CacheConfig

from .render import Stored

Key = tuple[bytes, int]
"""Name in key form, and ``facet``."""

ENTRY_OVERHEAD: Final = 650  # tracemalloc: 595 octets in all for one record and a name of 17, which count as 705
FREQUENCY_MAX: Final = 3


def facet(qtype: int, qclass: int, *, do: bool, cd: bool, view: int = 0, scope: int = 0) -> int:
    """All of the key but the name, in one integer."""
    return qtype | qclass << 16 | do << 32 | cd << 33 | view << 34 | scope << 50


class Entry(msgspec.Struct, gc=False, eq=False):
    """One cached answer and what is known of its use.

    Not tracked by the garbage collector, which would visit all new ones every 50,000 and stop the ingress for as
    long as 65 ms; it holds nothing that could lead back to it.
    """

    key: Key
    stored: Stored
    began: int = 0  # packed state version; re-stamped when a flush did not cover it
    born: float = 0.0
    fresh_s: int = 0
    stale_s: int = 0
    retry_at: float = 0.0  # until then a stale answer is given at once
    tail: bytes = b""  # with TTLs as of ``aged_at`` seconds of age
    aged_at: int = 0
    prefetching: bool = False
    hits: int = 0
    size: int = 0
    frequency: int = 0
    in_main: bool = False

    def replace(self, stored: Stored, *, began: int, born: float, fresh_s: int, stale_s: int) -> None:
        """Takes the place of an older answer; use and place in the queue stay."""
        self.stored = stored
        self.began = began
        self.born = born
        self.fresh_s = fresh_s
        self.stale_s = stale_s
        self.retry_at = 0.0
        self.tail = stored.tail
        self.aged_at = 0
        self.prefetching = False
        self.hits = 0
        self.size = len(self.key[0]) + 2 * len(stored.tail) + len(stored.layout) + ENTRY_OVERHEAD

    def fresh(self, now: float) -> bytes:
        """The records as of now; only while ``now < born + fresh_s``."""
        age = int(now - self.born)
        if age != self.aged_at:
            self.tail = self.stored.aged(age)
            self.aged_at = age
        return self.tail


class AnswerCache:
    """The table, its two queues and its ghosts."""

    def __init__(self, config: CacheConfig, flushes: FlushTable) -> None:
        self.hits = 0
        self.misses = 0
        self.evictions = 0
        self.bytes = 0
        self._table: dict[Key, Entry] = {}
        self._small: deque[Entry] = deque()
        self._main: deque[Entry] = deque()
        self._small_bytes = 0
        self._ghosts: dict[int, None] = {}
        self.configure(config, flushes)

    def __len__(self) -> int:
        return len(self._table)

    def configure(self, config: CacheConfig, flushes: FlushTable) -> None:
        """Takes new bounds and a new flush table; what is too much goes at once."""
        self.enabled = config.enabled
        self._bytes_max = config.l1_bytes
        self._small_max = max(config.l1_bytes // 10, 1)
        self._ttl_max = config.ttl_max_s
        self._ttl_min = config.ttl_min_s
        self._stale_max = config.stale_max_s if config.stale else 0
        self._flushes = flushes
        if not config.enabled:
            self.clear()
        self._make_room()

    def clear(self) -> None:
        """Forgets everything."""
        self._table.clear()
        self._small.clear()
        self._main.clear()
        self._ghosts.clear()
        self.bytes = self._small_bytes = 0

    def find(self, key: Key, now: float) -> Entry | None:
        """A fresh entry, counted as a hit; ``None`` otherwise."""
        entry = self._table.get(key)
        if entry is None or now >= entry.born + entry.fresh_s or not self._valid(entry):
            self.misses += 1
            return None
        self.hits += 1
        entry.hits += 1
        if entry.frequency < FREQUENCY_MAX:
            entry.frequency += 1
        return entry

    def find_stale(self, key: Key, now: float) -> Entry | None:
        """An entry that may be served now, beyond its freshness if need be (RFC 8767)."""
        entry = self._table.get(key)
        if entry is None or not self._valid(entry):
            return None
        end = entry.born + entry.fresh_s + min(entry.stale_s, self._stale_max)
        return entry if now < end else None

    def store(self, key: Key, stored: Stored, item: AnswerItem, now: float) -> Entry | None:
        """Keeps an answer that may be kept; returns the entry, or ``None`` where it may not.

        Truncated answers, authoritative data, failures of our own making and answers for one slot are never kept
        (design: cached answer). A failure never replaces an answer that can still serve stale.
        """
        flags = item.flags
        if (
            not self.enabled
            or not flags & AnswerFlag.SHAREABLE
            or flags & AnswerFlag.NEVER_KEPT
            or item.message[2] & 0x02
        ):
            return None
        fresh_s = min(item.fresh_s, self._ttl_max)
        if fresh_s <= 0 or self._flushes.covers(key[0], item.began):
            return None
        if stored.rcode not in (0, 3) and self.find_stale(key, now) is not None:
            return None
        entry = self._table.get(key)
        if entry is not None:
            before = entry.size
            entry.replace(stored, began=item.began, born=now, fresh_s=fresh_s, stale_s=item.stale_s)
            self._resized(entry, entry.size - before)
        else:
            entry = Entry(key, stored)
            entry.replace(stored, began=item.began, born=now, fresh_s=fresh_s, stale_s=item.stale_s)
            if entry.size > self._small_max:  # one entry may not push everybody out
                return None
            self._enter(entry)
        self._make_room()
        return entry

    def _enter(self, entry: Entry) -> None:
        mark = hash(entry.key)
        self._table[entry.key] = entry
        self.bytes += entry.size
        if mark in self._ghosts:
            del self._ghosts[mark]
            self._main.append(entry)
            entry.in_main = True
        else:
            self._small.append(entry)
            self._small_bytes += entry.size

    def _resized(self, entry: Entry, by: int) -> None:
        self.bytes += by
        if not entry.in_main:
            self._small_bytes += by

    def _valid(self, entry: Entry) -> bool:
        newest = self._flushes.newest
        if entry.began >= newest:
            return True
        if self._flushes.covers(entry.key[0], entry.began):
            # A miss for ever: without freshness and without a stale window it waits for eviction or replacement.
            entry.fresh_s = entry.stale_s = 0
            return False
        entry.began = newest  # checked once; the next look costs one comparison
        return True

    def _make_room(self) -> None:
        while self.bytes > self._bytes_max and self._table:
            if self._small and (self._small_bytes > self._small_max or not self._main):
                self._evict_small()
            else:
                self._evict_main()

    def _evict_small(self) -> None:
        entry = self._small.popleft()
        self._small_bytes -= entry.size
        if entry.frequency > 1:
            entry.frequency = 0
            self._main.append(entry)
            entry.in_main = True
            return
        self._forget(entry)
        self._ghosts[hash(entry.key)] = None
        if len(self._ghosts) > max(len(self._main), 1024):
            del self._ghosts[next(iter(self._ghosts))]

    def _evict_main(self) -> None:
        entry = self._main.popleft()
        if entry.frequency > 0:
            entry.frequency -= 1
            self._main.append(entry)
            return
        self._forget(entry)

    def _forget(self, entry: Entry) -> None:
        del self._table[entry.key]
        self.bytes -= entry.size
        self.evictions += 1
