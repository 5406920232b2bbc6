"""Admission: who a client is (its class), whether it may ask at all, and how fast.

One order for every transport: parse → class → access list → token bucket → rights. What is found out about a
source address is kept in a ``Client`` so that its next query costs one look-up in a dictionary. Both tables here
are bounded by *two generations*: a full young one becomes the old one, and what is asked for again moves back.
That is an approximation of LRU that costs a hit nothing.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from typing import Final, Generic, TypeVar

import mmh3
import msgspec

from raydns.schemas.batch import Right
from raydns.schemas.config.access import AccessConfig, ClassConfig

V = TypeVar("V")

ALLOW: Final = 0
REFUSE: Final = 1
DROP: Final = 2
_ACTIONS: Final = {"allow": ALLOW, "refuse": REFUSE, "drop": DROP}
_MAPPED: Final = bytes(10) + b"\xff\xff"
_CLASS_IDS: Final = 0xFFFF  # 0 is the class of nobody
_NAMES_MAX: Final = 4096  # names that left and whose ids are still kept

RIGHTS: Final = {
    "cache": Right.CACHE,
    "recurse": Right.RECURSE,
    "forward": Right.FORWARD,
    "catch_all": Right.CATCH_ALL,
    "llm": Right.LLM,
    "update": Right.UPDATE,
    "transfer": Right.TRANSFER,
    "trace": Right.TRACE,
}


class ClientClass(msgspec.Struct, frozen=True, gc=False):
    """A class as the data path uses it."""

    id: int
    name: str
    rights: int
    action: int = ALLOW
    view: int = 0
    queries_per_second: float = 0.0
    burst: float = 0.0


NOBODY: Final = ClientClass(0, "none", 0)
"""The class of a source that no prefix covers: zones served here, nothing else."""


class Bucket:
    """A token bucket; shared by the addresses of one IPv6 /64."""

    __slots__ = ("at", "tokens")

    def __init__(self, tokens: float, at: float) -> None:
        self.tokens = tokens
        self.at = at


class Client:
    """What is known of one source address."""

    __slots__ = ("address", "bucket", "burst", "host", "klass", "loopback", "prefix", "rate")

    def __init__(self, host: str, address: bytes, klass: ClientClass) -> None:
        self.host = host
        self.address = address  # 16 octets
        self.klass = klass
        mapped = address[:12] == _MAPPED
        self.loopback = address[12] == 127 if mapped else address == _LOOPBACK6
        self.prefix = address[:15] if mapped else address[:7]  # /24 or /56: what shares limits on waiters and TCP
        self.bucket: Bucket | None = None  # None: not limited
        self.rate = 0.0
        self.burst = 0.0


_LOOPBACK6: Final = bytes(15) + b"\x01"


class Generations(Generic[V]):
    """A mapping of at most ``size`` entries that forgets about the least recently used half."""

    __slots__ = ("_half", "_old", "_young")

    def __init__(self, size: int) -> None:
        self._half = max(size // 2, 1)
        self._young: dict[object, V] = {}
        self._old: dict[object, V] = {}

    def __len__(self) -> int:
        return len(self._young) + len(self._old)

    def get(self, key: object) -> V | None:
        """The value, which counts as used; ``None`` where there is none."""
        found = self._young.get(key)
        if found is None:
            found = self._old.pop(key, None)
            if found is not None:
                self.put(key, found)
        return found

    def put(self, key: object, value: V) -> None:
        """Adds or replaces a value."""
        if len(self._young) >= self._half:
            self._old = self._young
            self._young = {}
        self._young[key] = value


class ClassTable:
    """Longest prefix over all classes; IPv4 and IPv6 apart, IPv4-mapped sources are IPv4.

    A class's id is made from its name, so that it is the same after a reload, after a restart and on every machine.
    """

    def __init__(
        self, access: AccessConfig, interface_prefixes: Sequence[str] = (), previous: ClassTable | None = None
    ) -> None:
        self.ids: dict[str, int] = _assign_ids(access.classes, previous.ids if previous else {})
        tables: tuple[dict[int, dict[int, ClientClass]], dict[int, dict[int, ClientClass]]] = ({}, {})
        for config in access.classes:
            klass = _client_class(config, self.ids[config.name], access)
            for text in (*config.prefixes, *(interface_prefixes if config.on_link else ())):
                version, length, bits = _split_prefix(text)
                # The first class that names a prefix has it: what an operator wrote wins over what came later.
                tables[version].setdefault(length, {}).setdefault(bits, klass)
        self._v4 = sorted(tables[0].items(), reverse=True)
        self._v6 = sorted(tables[1].items(), reverse=True)

    def find(self, address: bytes) -> ClientClass:
        """The class of a source, 16 octets."""
        if address[:12] == _MAPPED:
            value, width, table = int.from_bytes(address[12:], "big"), 32, self._v4
        else:
            value, width, table = int.from_bytes(address, "big"), 128, self._v6
        for length, prefixes in table:
            found = prefixes.get(value >> (width - length))
            if found is not None:
                return found
        return NOBODY


class Admission:
    """Classes and token buckets of one installed state; buckets survive a reload."""

    def __init__(
        self, access: AccessConfig, interface_prefixes: Sequence[str] = (), previous: Admission | None = None
    ) -> None:
        rate = access.rate
        self.table: ClassTable = ClassTable(access, interface_prefixes, previous.table if previous else None)
        self.enforced = rate.mode == "enforce"
        self._limited = rate.mode != "off"
        self._exempt_loopback = rate.exempt_loopback
        self._clients: Generations[Client] = Generations(rate.clients_max)
        keep = previous is not None and previous.clients_max == rate.clients_max
        self.clients_max: int = rate.clients_max
        self._buckets: Generations[Bucket] = previous._buckets if previous and keep else Generations(rate.clients_max)

    @property
    def clients(self) -> int:
        """Addresses remembered now."""
        return len(self._clients)

    @property
    def buckets(self) -> int:
        """Token buckets kept now."""
        return len(self._buckets)

    def client(self, host: str, now: float) -> Client:
        """What is known of a source, by its address as the socket gives it."""
        found = self._clients.get(host)
        return found if found is not None else self._meet(host, now)

    def admits(self, client: Client, now: float) -> bool:
        """Takes a token; ``False`` where there is none (in shadow mode as well: the caller decides)."""
        bucket = client.bucket
        if bucket is None:
            return True
        tokens = bucket.tokens + (now - bucket.at) * client.rate
        bucket.at = now
        if tokens < 1.0:
            bucket.tokens = max(tokens, 0.0)
            return False
        bucket.tokens = (tokens if tokens < client.burst else client.burst) - 1.0
        return True

    def _meet(self, host: str, now: float) -> Client:
        address = pack_address(host)
        klass = self.table.find(address)
        client = Client(host, address, klass)
        if self._limited and not (client.loopback and self._exempt_loopback):
            client.rate, client.burst = klass.queries_per_second, klass.burst
            key = (klass.id, address if address[:12] == _MAPPED else address[:8])  # one IPv6 /64 is one client
            bucket = self._buckets.get(key)
            if bucket is None:
                bucket = Bucket(client.burst, now)
                self._buckets.put(key, bucket)
            client.bucket = bucket
        self._clients.put(host, client)
        return client


def pack_address(host: str) -> bytes:
    """A textual address as 16 octets, IPv4 mapped; a zone index (``%eth0``) is left out."""
    address = ipaddress.ip_address(host.partition("%")[0])
    return _MAPPED + address.packed if address.version == 4 else address.packed


def unpack_address(address: bytes) -> str:
    """The text of a packed address."""
    if address[:12] == _MAPPED:
        return str(ipaddress.IPv4Address(address[12:]))
    return str(ipaddress.IPv6Address(address))


def _client_class(config: ClassConfig, ident: int, access: AccessConfig) -> ClientClass:
    rights = 0
    for name in config.rights:
        rights |= RIGHTS[name]
    own = config.queries_per_second
    # A class with a rate of its own gets two seconds of it as burst, as the default rate has.
    rate, burst = (own, max(2 * own, 1.0)) if own else (access.rate.queries_per_second, float(access.rate.burst))
    return ClientClass(ident, config.name, rights, _ACTIONS[config.action], 0, rate, burst)


def _assign_ids(classes: Sequence[ClassConfig], known: dict[str, int]) -> dict[str, int]:
    # Names that left keep their id as long as this table's line lives: nobody else may get it meanwhile.
    ids = dict(known)
    if len(ids) > _NAMES_MAX:
        ids = {config.name: known[config.name] for config in classes if config.name in known}
    taken = set(ids.values())
    for name in sorted(config.name for config in classes):
        if name in ids:
            continue
        ident = mmh3.hash(name, signed=False) % _CLASS_IDS + 1
        while ident in taken:
            ident = ident % _CLASS_IDS + 1
        ids[name] = ident
        taken.add(ident)
    return ids


def _split_prefix(text: str) -> tuple[int, int, int]:
    network = ipaddress.ip_network(text, strict=False)
    packed, length = network.network_address.packed, network.prefixlen
    if network.version == 6 and packed[:12] == _MAPPED and length >= 96:
        packed, length = packed[12:], length - 96
    elif network.version == 6:
        return 1, length, int.from_bytes(packed, "big") >> (128 - length)
    return 0, length, int.from_bytes(packed, "big") >> (32 - length)
