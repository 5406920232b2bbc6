"""Wire views: against messages that dnspython builds, and against octets that nobody should send."""

from __future__ import annotations

import contextlib
import random
import struct

import dns.edns
import dns.exception
import dns.flags
import dns.message
import dns.name
import dns.opcode
import dns.rdataclass
import dns.rdatatype
import dns.rrset
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raydns.schemas import dns as numbers
from raydns.schemas import names, wire
from raydns.schemas.errors import MessageError
from tests.schemas.test_names import ANY_NAME

# Two busy cores: how long one example takes proves nothing.
settings.register_profile("raydns", deadline=None)
settings.load_profile("raydns")


def query_wire(name: bytes, qtype: int, qclass: int, ident: int, flags: int, options: list[tuple[int, bytes]]) -> bytes:
    """A query made by dnspython."""
    message = dns.message.Message(ident)
    message.flags = flags
    message.question.append(
        dns.rrset.RRset(
            dns.name.from_wire(name, 0)[0], dns.rdataclass.RdataClass.make(qclass), dns.rdatatype.RdataType.make(qtype)
        )
    )
    if options:
        made = [dns.edns.GenericOption(dns.edns.OptionType.make(code), value) for code, value in options]
        message.use_edns(0, dns.flags.DO, 1400, options=list(made))
    return message.to_wire()


OPTION_LISTS = st.lists(st.tuples(st.integers(1000, 1010), st.binary(max_size=20)), max_size=6)


@given(
    ANY_NAME,
    st.integers(1, 65535).filter(lambda t: t not in {41, 250}),
    st.sampled_from([1, 3, 254, 255, 4711]),
    st.integers(0, 65535),
    st.sampled_from([0, 0x0100, 0x0010, 0x0130, 0x2000]),
    OPTION_LISTS,
)
def test_queries_are_read_as_dnspython_wrote_them(
    name: bytes, qtype: int, qclass: int, ident: int, flags: int, options: list[tuple[int, bytes]]
) -> None:
    """Header, question and EDNS options of any query come out as they went in."""
    data = query_wire(name, qtype, qclass, ident, flags, options)
    query = wire.parse_query(data)
    assert (query.id, query.flags, query.qname, query.key) == (ident, flags, name, names.key(name))
    assert (query.qtype, query.qclass) == (qtype, qclass)
    assert query.question_end == 12 + len(name) + 4
    assert query.rd is bool(flags & 0x0100)
    assert query.cd is bool(flags & 0x0010)
    assert query.opcode == (flags >> 11) & 15
    if options:
        first: dict[int, bytes] = {}
        for code, value in options:
            first.setdefault(code, value)
        assert query.edns == wire.Edns(1400, 0, True, first)
        assert query.do
    else:
        assert query.edns is None


@given(st.binary(max_size=200))
def test_random_octets(data: bytes) -> None:
    """Random octets, also behind a plausible header, raise MessageError or nothing."""
    for candidate in (data, b"\0\1\1\0\0\1\0\0\0\0\0\1" + data, b"\0\1\1\0\0\1\0\1\0\1\0\1" + data):
        for read in (
            wire.parse_query,
            wire.layout,
            lambda d: wire.read_name(d, 0),
            lambda d: wire.skip_name(d, 0),
            lambda d: wire.parse_options(d, 0, len(d)),
            lambda d: wire.min_ttl(b"", d),
        ):
            with contextlib.suppress(MessageError):
                read(candidate)


def test_mutated_queries() -> None:
    """50,000 seeded mutations: MessageError or a query whose fields lie within the packet; errors can be answered."""
    rng = random.Random(20260725)
    originals = [
        query_wire(names.from_text("www.example.com."), 1, 1, 7, 0x0100, [(10, b"12345678"), (8, b"\0\1\x18\0\1\2\3")]),
        query_wire(names.from_text("."), 2, 1, 7, 0, []),
        query_wire(names.from_text("a.b.c.d.e.f."), 65, 1, 7, 0x0130, [(12, bytes(30))]),
    ]
    for number in range(50_000):
        data = bytearray(originals[number % 3])
        for _ in range(rng.randint(1, 4)):
            at = rng.randrange(len(data))
            choice = rng.randrange(3)
            if choice == 0:
                data[at] = rng.choice((0, 0x3F, 0x40, 0xC0, 0xFF, rng.randrange(256)))
            elif choice == 1:
                data[at : at + rng.randint(1, 8)] = b""
            else:
                data[at:at] = rng.randbytes(rng.randint(1, 8))
            if not data:
                break
        packet = bytes(data)
        query = None
        rcode: int = numbers.Rcode.SERVFAIL
        try:
            query = wire.parse_query(packet)
        except wire.NotAQuery:
            continue
        except wire.BadQuery as bad:
            rcode = bad.rcode
        if query is not None:
            assert names.check(query.qname) == packet[12 : query.question_end - 4]
            assert query.edns is None or len(query.edns.options) <= wire.EDNS_OPTIONS_MAX
        reply = wire.error_response(packet, query, rcode, ede=22, text="why")
        assert len(reply) <= len(packet) + 32
        assert reply[:2] == packet[:2]
        assert reply[2] & 0x80
        assert dns.message.from_wire(reply, ignore_trailing=False).rcode() == rcode


def records(rng: random.Random, base: str) -> list[dns.rrset.RRset]:
    """A few RRsets of several types, owners and TTLs."""
    found: list[dns.rrset.RRset] = []
    for index in range(rng.randint(0, 4)):
        owner = rng.choice([base, f"x{index}.{base}", "other.test.", "."])
        ttl = rng.choice([0, 1, 30, 300, 86400, 0x7FFFFFFF])
        kind = rng.choice(["A", "AAAA", "TXT", "NS", "MX", "CNAME", "TYPE65280"])
        texts = {
            "A": [f"192.0.2.{n}" for n in range(1, rng.randint(2, 4))],
            "AAAA": ["2001:db8::1"],
            "TXT": ['"one"', '"two"'],
            "NS": [f"ns{n}.{base}" for n in range(rng.randint(1, 3))],
            "MX": [f"10 mail.{base}"],
            "CNAME": [f"target.{base}"],
            "TYPE65280": ["\\# 3 abcdef"],
        }[kind]
        rrset = dns.rrset.from_text(owner, ttl, "IN", kind, *texts)
        if not any(r.name == rrset.name and r.rdtype == rrset.rdtype for r in found):
            found.append(rrset)
    return found


def test_layout_and_min_ttl_against_dnspython() -> None:
    """For 2,000 seeded responses each record's owner, TTL, section and RRset start are where dnspython put them."""
    rng = random.Random(20260725)
    for _ in range(2000):
        query = dns.message.make_query("www.example.com.", "A")
        response = dns.message.make_response(query)
        for section in (response.answer, response.authority, response.additional):
            section.extend(records(rng, "www.example.com."))
        data = response.to_wire()
        found = list(wire.LAYOUT.iter_unpack(wire.layout(data)))
        assert wire.layout(data, wire.parse_query(data[:2] + b"\1" + data[3:]).question_end) == wire.layout(data)
        expected = [
            (number, rrset.name, rrset.ttl, index == 0)
            for number, section in enumerate((response.answer, response.authority, response.additional))
            for rrset in section
            for index in range(len(rrset))
        ]
        got = [
            (
                section,
                dns.name.from_wire(data, owner_at)[0],
                int.from_bytes(data[ttl_at : ttl_at + 4], "big"),
                bool(starts),
            )
            for owner_at, ttl_at, section, starts in found
        ]
        assert got == expected
        assert wire.min_ttl(data, wire.layout(data)) == min((entry[2] for entry in expected), default=0)
        for owner_at, ttl_at, _, _ in found:  # patching a TTL where the layout says changes it and nothing else
            patched = data[:ttl_at] + b"\x00\x00\x00\x2a" + data[ttl_at + 4 :]
            assert wire.read_name(patched, owner_at) == wire.read_name(data, owner_at)
            message = dns.message.from_wire(patched, one_rr_per_rrset=True)
            assert 42 in {rrset.ttl for part in message.sections[1:] for rrset in part}


def test_rrset_whose_owner_is_written_twice() -> None:
    """An owner in full and then as a pointer, or in another case, is one RRset; another class is another."""
    head = struct.pack("!HHHHHH", 0, 0x8000, 0, 4, 0, 0)
    full = b"\x03www\x07example\x00" + struct.pack("!HHIH", 1, 1, 60, 4) + b"\1\2\3\4"
    pointer = b"\xc0\x0c" + struct.pack("!HHIH", 1, 1, 60, 4) + b"\1\2\3\5"
    upper = b"\x03WWW\x07EXAMPLE\x00" + struct.pack("!HHIH", 1, 1, 60, 4) + b"\1\2\3\6"
    chaos = b"\xc0\x0c" + struct.pack("!HHIH", 1, 3, 60, 4) + b"\1\2\3\7"
    found = [entry[3] for entry in wire.LAYOUT.iter_unpack(wire.layout(head + full + pointer + upper + chaos))]
    assert found == [1, 0, 0, 1]


def test_layout_of_bad_messages() -> None:
    """Truncated, overlong, too large or trailing octets are a MessageError."""
    good = dns.message.make_response(dns.message.make_query("a.example.", "A"))
    good.answer.append(dns.rrset.from_text("a.example.", 60, "IN", "A", "192.0.2.1"))
    data = good.to_wire()
    for cut in range(len(data)):
        with pytest.raises(MessageError):
            wire.layout(data[:cut])
    with pytest.raises(MessageError):
        wire.layout(data + b"\0")
    with pytest.raises(MessageError, match="65,535"):
        wire.layout(struct.pack("!HHHHHH", 0, 0x8000, 0, 0, 0, 0) + bytes(70_000))
    with pytest.raises(MessageError, match="torn"):
        wire.min_ttl(data, b"12345")


def test_layout_skips_opt_and_high_ttls_are_zero() -> None:
    """OPT is no record to patch; a TTL with its highest bit set counts as 0 (RFC 2181 section 8)."""
    response = dns.message.make_response(dns.message.make_query("a.example.", "A", use_edns=0))
    response.answer.append(dns.rrset.from_text("a.example.", 60, "IN", "A", "192.0.2.1"))
    data = bytearray(response.to_wire())
    found = wire.layout(bytes(data))
    assert len(found) == wire.LAYOUT.size
    _, ttl_at, _, _ = wire.LAYOUT.unpack(found)
    data[ttl_at] = 0x80
    assert wire.min_ttl(bytes(data), found) == 0
    assert wire.min_ttl(bytes(data), b"") == 0


@given(ANY_NAME, st.binary(max_size=40))
def test_read_name_of_plain_names(name: bytes, before: bytes) -> None:
    """An uncompressed name anywhere in a message is read whole, with the offset behind it."""
    data = before + name + b"tail"
    assert wire.read_name(data, len(before)) == (name, len(before) + len(name))
    assert wire.skip_name(data, len(before)) == len(before) + len(name)


@given(st.binary(max_size=120), st.integers(0, 119))
def test_read_name_agrees_with_dnspython(data: bytes, at: int) -> None:
    """What both read is the same name; what dnspython refuses we refuse, bar nothing."""
    try:
        ours: bytes | None = wire.read_name(data, at)[0]
    except MessageError:
        ours = None
    try:
        theirs: bytes | None = dns.name.from_wire(data, at)[0].to_wire() if at < len(data) else None
    except (dns.exception.DNSException, IndexError):
        theirs = None
    assert ours == theirs


def test_pointer_loops_and_bombs_end() -> None:
    """Pointers to themselves, forwards, in rings, or by the hundred are refused quickly."""
    for data in (b"\xc0\x00", b"\xc0\x02\xc0\x00", b"\x01a\xc0\x00", b"\xc0", b"\x40a", b"\x80a"):
        with pytest.raises(MessageError):
            wire.read_name(data, 0)
    chain = b"\x00\x00" + b"".join(struct.pack("!H", 0xC000 | (2 * n)) for n in range(400))
    with pytest.raises(MessageError, match="steps"):
        wire.read_name(chain, len(chain) - 2)
    long = b"".join(b"\x3f" + bytes(63) for _ in range(4)) + b"\x00"
    with pytest.raises(MessageError, match="255"):
        wire.read_name(long, 0)


def test_queries_that_are_answered_with_an_error_or_not_at_all() -> None:
    """Responses and stubs are silence; QDCOUNT other than 1 and two OPTs are FORMERR; EDNS 1 is BADVERS."""
    good = query_wire(names.from_text("a."), 1, 1, 1, 0x0100, [(10, b"12345678")])
    for silent in (b"", good[:11], good[:2] + b"\x81" + good[3:]):
        with pytest.raises(wire.NotAQuery):
            wire.parse_query(silent)
    opt = good[12 + 3 + 4 :]
    for bad in (
        good[:4] + b"\0\0" + good[6:],
        good[:4] + b"\0\2" + good[6:],
        good[:10] + b"\0\2" + good[12:] + opt,
        good + b"\0",
        good[:-1],
        good[:10] + b"\0\1\x01a\0" + good[15:19] + b"\x01x" + opt,
    ):
        with pytest.raises(wire.BadQuery) as caught:
            wire.parse_query(bad)
        assert caught.value.rcode == numbers.Rcode.FORMERR
    version = bytearray(good)
    version[12 + 3 + 4 + 6] = 1
    with pytest.raises(wire.BadQuery) as caught:
        wire.parse_query(bytes(version))
    assert caught.value.rcode == numbers.Rcode.BADVERS
    reply = dns.message.from_wire(wire.error_response(bytes(version), None, numbers.Rcode.BADVERS))
    assert reply.rcode() == 16
    assert reply.edns == 0


def test_error_responses_read_by_dnspython() -> None:
    """Error responses echo ID, opcode, RD, CD and question, and carry EDE (RFC 8914) where the client spoke EDNS."""
    for options in ([], [(10, b"12345678")]):
        data = query_wire(names.from_text("WwW.eXample."), 28, 1, 99, 0x0110, options)
        query = wire.parse_query(data)
        raw = wire.error_response(data, query, numbers.Rcode.REFUSED, ra=True, aa=True, ede=18, text="not for you")
        reply = dns.message.from_wire(raw)
        assert reply.id == 99
        assert reply.rcode() == 5
        assert reply.flags & 0xFFF0 == 0x8000 | 0x0400 | 0x0100 | 0x0080 | 0x0010
        assert reply.question[0].name.to_wire() == query.qname
        if options:
            assert reply.edns == 0
            assert reply.payload == numbers.UDP_SIZE_DEFAULT
            (ede,) = reply.options
            assert (ede.code, ede.text) == (18, "not for you")
        else:
            assert reply.edns == -1
