"""The store of one shard (L2): whole answers under a bound in octets, evicted by S3-FIFO.

Theory of operation (Yang et al., SOSP 2023: FIFO queues are all you need for cache eviction). New entries stand in
a *small* queue of a tenth of the bytes; who was asked for again before leaving it moves to the *main* queue, the
rest goes and leaves only the hash of its key in a *ghost* list; who comes back while its ghost is there enters
main directly. A scan of names that are asked once thus passes through a tenth of the memory.
Main is a FIFO with second chances, up to three.

Invariants: every entry in ``_entries`` stands in exactly one queue, and the other way round: an entry that is
replaced or forgotten is changed in place, so that no husk is ever left in a queue. ``size`` is the sum of the
entries' sizes and never exceeds ``bytes_max`` after a call returns.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from dataclasses import dataclass
from typing import Final

import msgspec

# What an entry of CPython 3.11 costs beside its octets: the object, its numbers, headers of its strings, its places in
# dict, queue and (later) ghost list. ``tests/actors/cache/test_store.py`` compares it with tracemalloc.
OVERHEAD: Final = 480
SMALL_SHARE: Final = 10  # one tenth, as in the paper
FREQUENCY_MAX: Final = 3
# The paper moves to main after two hits; here each hit in L2 stands for many that L1 below has absorbed.
FREQUENCY_MAIN: Final = 1
GHOSTS_MIN: Final = 128


class Entry(msgspec.Struct, gc=False, eq=False):
    """One answer. Times are seconds of the shard's clock; one that is gone keeps its place and nothing else.

    Not tracked by the garbage collector: it holds no container, and a full collection that visits hundreds of
    thousands of them would stop the shard for a tenth of a second.
    """

    key: bytes
    message: bytes = b""
    layout: bytes = b""
    facts: bytes = b""
    ede_text: str = ""
    ede: int = -1
    flags: int = 0
    scope: int = 0
    ttl: int = 0  # at its birth
    began: int = 0
    negative: bool = False
    hits: int = 0  # in this life, for prefetch
    fresh_until: float = 0.0
    stale_until: float = 0.0
    retry_at: float = 0.0  # when a fresh one is tried again after a failure
    frequency: int = 0  # for eviction, 0 to 3
    in_main: bool = False
    size: int = 0

    def clear(self) -> None:
        """Becomes an entry that is neither fresh nor stale, and holds nothing."""
        self.message = self.layout = self.facts = b""
        self.ede_text = ""
        self.ede = -1
        self.flags = self.scope = self.ttl = self.began = self.hits = 0
        self.negative = False
        self.fresh_until = self.stale_until = self.retry_at = 0.0

    def measure(self) -> int:
        """Its size in octets, overhead included."""
        return OVERHEAD + len(self.key) + len(self.message) + len(self.layout) + len(self.facts) + len(self.ede_text)


@dataclass(frozen=True, slots=True)
class StoreStatistics:
    """A snapshot of the store."""

    entries: int
    size: int
    bytes_max: int
    evictions: int
    ghosts: int


class Store:
    """Entries by key; see the head of this file."""

    def __init__(self, bytes_max: int) -> None:
        self.bytes_max = bytes_max
        self.size = 0
        self.evictions = 0
        self._entries: dict[bytes, Entry] = {}
        self._small: deque[Entry] = deque()
        self._main: deque[Entry] = deque()
        self._small_size = 0
        self._ghosts: OrderedDict[int, None] = OrderedDict()

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, key: bytes) -> Entry | None:
        """The entry, fresh or not; being asked for counts for its staying."""
        entry = self._entries.get(key)
        if entry is not None and entry.frequency < FREQUENCY_MAX:
            entry.frequency += 1
        return entry

    def peek(self, key: bytes) -> Entry | None:
        """The entry, without a trace of having asked."""
        return self._entries.get(key)

    def put(self, key: bytes) -> Entry:
        """The emptied entry of the key, in its old place or a new one; fill it, then call ``settle``."""
        entry = self._entries.get(key)
        if entry is not None:
            entry.clear()
            return entry
        entry = Entry(key)
        self._entries[key] = entry
        mark = hash(key)
        if mark in self._ghosts:
            del self._ghosts[mark]
            entry.in_main = True
            self._main.append(entry)
        else:
            self._small.append(entry)
        return entry

    def settle(self, entry: Entry, now: float) -> None:
        """Counts the entry's new size and makes room for it."""
        self._resize(entry, entry.measure())
        if self.size > self.bytes_max:
            self._make_room(now)

    def forget(self, entry: Entry) -> None:
        """The entry's answer is gone (a flush, or beyond stale)."""
        entry.clear()
        self._resize(entry, entry.measure())

    def clear(self) -> None:
        """Everything is gone."""
        self._entries.clear()
        self._small.clear()
        self._main.clear()
        self._ghosts.clear()
        self.size = self._small_size = 0

    def limit(self, bytes_max: int, now: float) -> None:
        """A new bound; what is too much goes at once."""
        self.bytes_max = bytes_max
        self._make_room(now)

    def statistics(self) -> StoreStatistics:
        """What it holds."""
        return StoreStatistics(len(self._entries), self.size, self.bytes_max, self.evictions, len(self._ghosts))

    def _resize(self, entry: Entry, size: int) -> None:
        change = size - entry.size
        entry.size = size
        self.size += change
        if not entry.in_main:
            self._small_size += change

    def _make_room(self, now: float) -> None:
        while self.size > self.bytes_max and self._entries:
            if self._small and (self._small_size * SMALL_SHARE > self.bytes_max or not self._main):
                self._evict_small(now)
            else:
                self._evict_main(now)

    def _evict_small(self, now: float) -> None:
        entry = self._small.popleft()
        self._small_size -= entry.size
        if entry.frequency >= FREQUENCY_MAIN and now < entry.stale_until:
            entry.frequency = 0
            entry.in_main = True
            self._main.append(entry)
            return
        self._ghosts[hash(entry.key)] = None
        while len(self._ghosts) > max(GHOSTS_MIN, len(self._main)):
            self._ghosts.popitem(last=False)
        self._drop(entry)

    def _evict_main(self, now: float) -> None:
        entry = self._main.popleft()
        if entry.frequency and now < entry.stale_until:
            entry.frequency -= 1
            self._main.append(entry)
            return
        self._drop(entry)

    def _drop(self, entry: Entry) -> None:
        del self._entries[entry.key]
        self.size -= entry.size
        self.evictions += 1
