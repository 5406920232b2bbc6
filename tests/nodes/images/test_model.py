"""Invariant: an image answers as a plain dictionary does that is searched by the words of RFC 1034, 4592 and 6672.

The model below knows nothing of hashing, arenas, wire form or compression: names are tuples of labels, root first.
dnspython reads our octets, so that compression is proven by the same run.
"""

from __future__ import annotations

import hashlib
import tempfile
from pathlib import Path

import dns.message
import dns.rdatatype
from hypothesis import given, settings
from hypothesis import strategies as st

from raydns.actors.zone.image_writer import ZoneSource, build
from raydns.actors.zone.zone_data import RRsetData, ZoneData
from raydns.nodes.images import ZoneTable, open_image
from raydns.schemas import names, wire
from raydns.schemas.cluster import ImageRef, ZoneEntry

APEX = ("zone",)
A, NS, CNAME, SOA, TXT, DNAME, DS, ANY = 1, 2, 5, 6, 16, 39, 43, 255
LABELS = ["a", "b", "B", "*"]
Name = tuple[str, ...]
"""Labels, root first, lower case."""
Zone = dict[Name, dict[int, list[str]]]


def wire_name(name: Name) -> bytes:
    """The wire form."""
    return names.from_labels([label.encode() for label in reversed(name)])


relative = st.lists(st.sampled_from(LABELS), min_size=1, max_size=3).map(tuple)
inside = st.lists(st.sampled_from(["a", "b", "c", "*"]), max_size=4).map(lambda labels: APEX + tuple(labels))
content = st.one_of(
    st.just({A: ["10.0.0.1"]}),
    st.just({A: ["10.0.0.1", "10.0.0.2"], TXT: ["t"]}),
    st.builds(lambda target: {CNAME: [".".join(target)]}, inside),
    st.builds(lambda target: {NS: [".".join(target)]}, inside),
    st.just({NS: ["zone.a"], DS: ["ds"], A: ["10.0.0.3"]}),
    st.builds(lambda target: {DNAME: [".".join(target)], TXT: ["d"]}, inside),
)
zones = st.dictionaries(relative, content, max_size=8)
queries = st.lists(st.tuples(inside, st.sampled_from([A, NS, CNAME, TXT, DNAME, DS, ANY])), min_size=1, max_size=12)


def rdata(rtype: int, text: str) -> bytes:
    """RDATA of the few forms that the model uses."""
    if rtype == A:
        return bytes(int(part) for part in text.split("."))
    if rtype == TXT:
        return bytes((len(text),)) + text.encode()
    if rtype == SOA:
        return 2 * wire_name(("zone", "ns")) + bytes(16) + (60).to_bytes(4, "big")
    if rtype == DS:
        return bytes((0, 1, 13, 2)) + bytes(32)
    return wire_name(tuple(text.split(".")))


def to_zone_data(drawn: dict[Name, dict[int, list[str]]]) -> tuple[ZoneData, Zone]:
    """The zone for the writer and for the model; owners that differ in case only are one."""
    soa = rdata(SOA, "soa")
    data = ZoneData(wire_name(APEX), {wire_name(APEX): {SOA: RRsetData(SOA, 300, [soa])}})
    model: Zone = {APEX: {SOA: ["soa"]}}
    for labels, rrsets in drawn.items():
        name = APEX + labels
        key = tuple(label.lower() for label in name)
        if key in model:
            continue
        model[key] = rrsets
        data.names[wire_name(key)] = {t: RRsetData(t, 300, [rdata(t, x) for x in r]) for t, r in rrsets.items()}
        if key != name:
            data.owners[wire_name(key)] = wire_name(name)
    return data, model


Record = tuple[Name, int, str]
Model = tuple[int, bool, list[Record], list[Record]]


def lookup(zone: Zone, asked: Name, qtype: int) -> Model:
    """RFC 1034 section 4.3.2 over a dictionary; answer and authority as lists of records."""
    answer: list[Record] = []
    name, first, seen = asked, True, {asked}
    aa = True
    for _ in range(12):
        code, found, authority, target, referral = one(zone, name, qtype)
        answer += [record for record in found if record not in answer]
        if first and referral:
            aa = False
        first = False
        if target is None or target in seen:
            return code, aa, answer, authority if target is None else []
        name = target
        seen.add(name)
        if name[: len(APEX)] != APEX:
            return 0, aa, answer, []
    return 0, aa, answer, []


def one(zone: Zone, name: Name, qtype: int) -> tuple[int, list[Record], list[Record], Name | None, bool]:
    """One name: rcode, answer, authority, where to go on, whether it is a referral."""
    exists = {owner[:size] for owner in zone for size in range(1, len(owner) + 1)}
    soa: list[Record] = [(APEX, SOA, "soa")]
    for size in range(len(APEX), len(name) + 1):
        here = name[:size]
        if here not in exists:
            encloser = name[: size - 1]
            star = (*encloser, "*")
            if star not in exists:
                return 3, [], soa, None, False
            return data(zone.get(star, {}), name, qtype, soa)
        rrsets = zone.get(here, {})
        whole = size == len(name)
        if NS in rrsets and here != APEX and not (whole and qtype == DS):
            return 0, [], [(here, NS, text) for text in rrsets[NS]], None, True
        if DNAME in rrsets and not whole:
            target = tuple(rrsets[DNAME][0].split(".")) + name[size:]
            made: list[Record] = [(here, DNAME, rrsets[DNAME][0]), (name, CNAME, ".".join(target))]
            return 0, made, [], None if qtype == CNAME else target, False
    return data(zone.get(name, {}), name, qtype, soa)


def data(
    rrsets: dict[int, list[str]], name: Name, qtype: int, soa: list[Record]
) -> tuple[int, list[Record], list[Record], Name | None, bool]:
    """What a node has for the type."""
    if qtype == ANY and rrsets:
        least = min(rrsets)
        return 0, [(name, least, text) for text in rrsets[least]], [], None, False
    if qtype in rrsets:
        return 0, [(name, qtype, text) for text in rrsets[qtype]], [], None, False
    if CNAME in rrsets:
        target = rrsets[CNAME][0]
        return 0, [(name, CNAME, target)], [], tuple(target.split(".")), False
    return 0, [], soa, None, False


def records(rrsets: list[dns.rrset.RRset]) -> list[tuple[bytes, int, bytes]]:
    """A section of a real message."""
    return [
        ((rrset.name.to_wire() or b"").lower(), int(rrset.rdtype), bytes(rdata.to_wire() or b"").lower())
        for rrset in rrsets
        for rdata in rrset
    ]


def expected(found: list[Record]) -> list[tuple[bytes, int, bytes]]:
    """The model's section in the same form."""
    return [(wire_name(name), rtype, rdata(rtype, text).lower()) for name, rtype, text in found]


@settings(max_examples=120, deadline=None)
@given(zones, queries)
def test_image_answers_as_a_dictionary_does(
    drawn: dict[Name, dict[int, list[str]]], asked: list[tuple[Name, int]]
) -> None:
    """Rcode, AA, answer in its order and authority equal the model's, for cuts, wildcards, DNAMEs and empty names."""
    zone, model = to_zone_data(drawn)
    octets = build([ZoneSource(zone)])
    assert build([ZoneSource(zone)]) == octets
    sha256 = hashlib.sha256(octets).hexdigest()
    with tempfile.TemporaryDirectory(prefix="rd-", dir="/tmp") as folder:
        path = Path(folder) / "image"
        path.write_bytes(octets)
        table = ZoneTable([ZoneEntry(zone.apex, 0, 0, 0, 0, ImageRef(sha256, len(octets)))], {sha256: path})
    assert table.refusals == []
    for name, qtype in asked:
        query = wire.Query(0, 0, wire_name(name), wire_name(name), qtype, 1, 0, None)
        found = table.answer(query)
        assert found is not None
        assert wire.layout(found.message) == found.layout
        message = dns.message.from_wire(found.message)
        code, aa, answer, authority = lookup(model, name, qtype)
        assert (message.rcode(), bool(message.flags & 0x400)) == (code, aa), (name, qtype)
        assert sorted(records(message.answer)) == sorted(expected(answer)), (name, qtype)
        got = records(message.authority)
        if authority and authority[0][1] == SOA:
            assert [(owner, rtype) for owner, rtype, _ in got] == [(zone.apex, SOA)]
        else:
            assert got == expected(authority), (name, qtype)


labels_bytes = st.binary(min_size=1, max_size=6)
name_bytes = st.lists(labels_bytes, max_size=4).map(lambda labels: names.from_labels([*labels, b"zone"]))


@settings(max_examples=100, deadline=None)
@given(st.sets(name_bytes, max_size=30))
def test_nodes_come_in_canonical_order(drawn: set[bytes]) -> None:
    """The order section lists every name once, as RFC 4034 section 6.1 orders them, and each is found by its key."""
    zone, _ = to_zone_data({})
    for name in drawn:
        zone.names.setdefault(name.lower(), {A: RRsetData(A, 1, [bytes(4)])})
    with tempfile.TemporaryDirectory(prefix="rd-", dir="/tmp") as folder:
        path = Path(folder) / "image"
        path.write_bytes(build([ZoneSource(zone)]))
        image = open_image(path)
    keys = [node.key for node in image.zones[0].nodes()]
    assert keys == sorted(keys, key=names.canonical_key)
    assert len(set(keys)) == len(keys)
    assert set(zone.names) <= set(keys)
    for key in keys:
        node = image.zones[0].find(key)
        assert node is not None
        assert node.key == key
