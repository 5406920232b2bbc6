"""What of a reply is believed: invariant of the whole file: a typed ``BadReply``, or an answer that follows."""

from __future__ import annotations

import random
import struct

import dns.message
import dns.name
import dns.rdatatype
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raydns.actors.query.forward.faults import BadReply, Fault
from raydns.actors.query.forward.message import Question, Sent, build, randomise_case
from raydns.actors.query.forward.reply import Reply, read
from raydns.actors.query.forward.ttl import Lifetimes
from raydns.schemas import facts, names, wire
from tests.actors.query.kit import (
    AAAA,
    CNAME,
    DNAME,
    HERE,
    NS,
    NSEC,
    OPT,
    RRSIG,
    SOA,
    TXT,
    A,
    name,
    record,
    response,
    sent_for,
    soa,
)

LIFE = Lifetimes(stale_max_s=86400)
IP = b"\xc0\x00\x02\x01"
ID = b"\x12\x34"
NOW = 1_700_000_000


def take(sent: Sent, data: bytes, **options: object) -> Reply:
    """Reads a reply with the bounds of this file."""
    return read(data, sent, LIFE, NOW, **options)  # type: ignore[arg-type]


def fault(sent: Sent, data: bytes) -> Fault:
    """The fault for which a reply is refused."""
    with pytest.raises(BadReply) as caught:
        take(sent, data)
    return caught.value.fault


def parsed(reply: Reply) -> dns.message.Message:
    """The answer as a foreign implementation reads it; also checks form and layout."""
    assert reply.message[:2] == b"\x00\x00"
    assert reply.layout == wire.layout(reply.message)
    return dns.message.from_wire(reply.message, ignore_trailing=False)


def test_one_address_is_copied_with_the_question_in_key_form() -> None:
    """A plain answer comes out without OPT, with ID 0, the question lowered, and facts."""
    sent = sent_for("WWW.Example.com.")
    reply = take(sent, response(ID, sent.asked, [record(HERE, A, IP), record(HERE, A, b"\xc0\x00\x02\x02", 100)]))
    message = parsed(reply)
    assert str(message.answer[0]) == "www.example.com. 100 IN A 192.0.2.1\nwww.example.com. 100 IN A 192.0.2.2"
    assert reply.message[12:29] == name("www.example.com.")
    assert reply.fresh_s == 100
    assert facts.decode(reply.facts).addresses == (IP, b"\xc0\x00\x02\x02")
    assert not message.additional
    assert message.edns == -1


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda d: d[:11], Fault.MALFORMED),
        (lambda d: d[:2] + b"\x01\x80" + d[4:], Fault.MALFORMED),  # QR clear
        (lambda d: d[:2] + b"\xa9\x80" + d[4:], Fault.MALFORMED),  # opcode UPDATE
        (lambda d: d[:4] + b"\x00\x02" + d[6:], Fault.WRONG_QUESTION),
        (lambda d: d[:12] + d[12:].replace(b"\x07", b"\x06", 1), Fault.WRONG_QUESTION),
        (lambda d: d + b"\x00", Fault.MALFORMED),  # octets behind the end
        (lambda d: d[:-1], Fault.MALFORMED),
        (lambda d: d[:2] + b"\x83\x80" + d[4:], Fault.TRUNCATED),
        (lambda d: d[:3] + b"\x82" + d[4:], Fault.SERVFAIL),
        (lambda d: d[:3] + b"\x85" + d[4:], Fault.REFUSED),
        (lambda d: d[:3] + b"\x84" + d[4:], Fault.NOTIMP),
        (lambda d: d[:3] + b"\x81" + d[4:], Fault.FORMERR),
        (lambda d: d[:3] + b"\x89" + d[4:], Fault.OTHER_RCODE),
        (lambda d: d[:3] + b"\x83" + d[4:], Fault.MALFORMED),  # NXDOMAIN with an answer
    ],
)
def test_each_kind_of_bad_reply_has_its_own_fault(change: object, expected: Fault) -> None:
    """Header, question, framing and response codes are told apart."""
    sent = sent_for("www.example.com.")
    data = response(ID, sent.asked, [record(HERE, A, IP)])
    assert fault(sent, change(data)) is expected  # type: ignore[operator]


def test_case_that_does_not_come_back_is_noticed() -> None:
    """0x20: the right question in another case is its own fault, and is accepted where nobody can forge."""
    sent = sent_for("www.example.com.")
    assert sent.case_random
    lowered = sent.question.key + sent.asked[-4:]
    data = response(ID, lowered, [record(HERE, A, IP)])
    assert fault(sent, data) is Fault.WRONG_CASE
    assert take(sent, data, exact_case=False).rcode == 0


def test_records_that_the_question_does_not_lead_to_are_dropped() -> None:
    """Only the question's own records are kept; what stands beside them never reaches a cache."""
    sent = sent_for("www.example.com.")
    evil = record(name("www.bank.example."), A, b"\x06\x06\x06\x06")
    glue = record(name("ns.example.com."), A, b"\x06\x06\x06\x07")
    servers = record(name("example.com."), NS, name("ns.example.com."))
    for answer in ([evil, record(HERE, A, IP)], [record(HERE, A, IP), evil]):
        reply = take(sent, response(ID, sent.asked, answer, [servers, evil], [glue, OPT]))
        assert b"\x06\x06\x06" not in reply.message
        assert [str(r) for r in parsed(reply).answer] == ["www.example.com. 300 IN A 192.0.2.1"]
        assert not parsed(reply).authority


def test_an_answer_of_strangers_only_is_a_lie() -> None:
    """Records, and none that follows from the question: out of bailiwick, whatever the response code."""
    sent = sent_for("www.example.com.")
    evil = record(name("www.bank.example."), A, b"\x06\x06\x06\x06")
    assert fault(sent, response(ID, sent.asked, [evil])) is Fault.OUT_OF_BAILIWICK
    assert fault(sent, response(ID, sent.asked, [evil], rcode=3)) is Fault.OUT_OF_BAILIWICK
    other_type = record(HERE, AAAA, bytes(16))
    assert fault(sent, response(ID, sent.asked, [other_type])) is Fault.OUT_OF_BAILIWICK


def test_a_chain_is_put_in_order() -> None:
    """CNAMEs stand before their targets in whatever order they came, and the least TTL is told."""
    sent = sent_for("a.example.com.")
    one = record(HERE, CNAME, name("b.example.net."), 50)
    two = record(name("b.example.net."), CNAME, name("c.example.org."), 40)
    end = record(name("c.example.org."), A, IP, 30)
    for answer in ([one, two, end], [end, two, one], [two, end, one]):
        reply = take(sent, response(ID, sent.asked, answer))
        assert [r.rdtype for r in parsed(reply).answer] == [CNAME, CNAME, A]
        assert reply.chain == (name("a.example.com."), name("b.example.net."))
        assert reply.fresh_s == 30
        assert reply.target is None


def test_a_chain_ends_where_another_is_asked() -> None:
    """What lies beyond a name that is not this upstream's is not believed but asked for."""
    sent = sent_for("a.example.com.")
    one = record(HERE, CNAME, name("www.corp."), 50)
    end = record(name("www.corp."), A, b"\x06\x06\x06\x06", 30)
    for rcode, answer in ((0, [one, end]), (3, [one])):
        data = response(ID, sent.asked, answer, [soa("corp.")], rcode=rcode)
        reply = take(sent, data, owns=lambda key: not key.endswith(b"\x04corp\x00"))
        assert reply.target == name("www.corp.")
        assert reply.rcode == 0
        assert b"\x06\x06\x06\x06" not in reply.message
        assert not parsed(reply).authority


def test_a_lone_cname_leaves_the_rest_to_be_asked() -> None:
    """A server that does not follow CNAMEs is followed for (RFC 1034 section 4.3.2)."""
    sent = sent_for("a.example.com.")
    reply = take(sent, response(ID, sent.asked, [record(HERE, CNAME, name("b.example.com."))]))
    assert reply.target == name("b.example.com.")


@pytest.mark.parametrize(
    "answer",
    [
        [record(HERE, CNAME, name("a.example.com."))],
        [record(HERE, CNAME, name("b.example.com.")), record(name("b.example.com."), CNAME, name("a.example.com."))],
        [record(HERE, CNAME, name("b.example.com.")), record(HERE, CNAME, name("c.example.com."))],
        [record(name("example.com."), DNAME, name("x.test.")), record(HERE, CNAME, name("a.y.test."))],
    ],
)
def test_loops_and_contradictions_are_refused(answer: list[bytes]) -> None:
    """A loop, two CNAMEs at a name, and a CNAME that contradicts its DNAME are broken chains."""
    sent = sent_for("a.example.com.")
    assert fault(sent, response(ID, sent.asked, answer)) is Fault.BROKEN_CHAIN


def test_dname_with_and_without_its_cname() -> None:
    """A DNAME leads on, and the CNAME it stands for is made where the server left it out (RFC 6672)."""
    sent = sent_for("a.b.example.com.")
    dname = record(name("example.com."), DNAME, name("test."), 70)
    cname = record(HERE, CNAME, name("a.b.test."), 70)
    end = record(name("a.b.test."), A, IP, 90)
    for answer in ([dname, cname, end], [end, dname, cname], [dname, end]):
        message = parsed(take(sent, response(ID, sent.asked, answer)))
        assert [str(r) for r in message.answer] == [
            "example.com. 70 IN DNAME test.",
            "a.b.example.com. 70 IN CNAME a.b.test.",
            "a.b.test. 90 IN A 192.0.2.1",
        ]


def test_negative_answers_live_as_long_as_their_soa_says() -> None:
    """NXDOMAIN and NODATA keep the SOA of an ancestor with the TTL of RFC 2308; a stranger's SOA is dropped."""
    sent = sent_for("no.example.com.")
    for rcode in (0, 3):
        reply = take(sent, response(ID, sent.asked, [], [soa("example.com.", 900, 60)], rcode=rcode))
        assert (reply.rcode, reply.fresh_s) == (rcode, 60)
        assert parsed(reply).authority[0].ttl == 60
        lied = take(sent, response(ID, sent.asked, [], [soa("bank.example.")], rcode=rcode))
        assert lied.fresh_s == 0
        assert not parsed(lied).authority


def test_a_referral_is_no_answer() -> None:
    """A server that does not recurse says so by a referral; NODATA without SOA is another thing (RFC 2308)."""
    sent = sent_for("www.example.com.")
    servers = [record(name("example.com."), NS, name("ns.example.com."))]
    assert fault(sent, response(ID, sent.asked, [], servers, flags=0x8000)) is Fault.NOT_RECURSIVE
    assert take(sent, response(ID, sent.asked, [], servers)).fresh_s == 0


def _rrsig(covered: int, signer: str, original: int, expires: int) -> bytes:
    fixed = struct.pack("!HBBIIIH", covered, 13, 2, original, expires, NOW - 1000, 1)
    return fixed + name(signer) + bytes(64)


def test_signatures_bound_ttls() -> None:
    """No TTL exceeds an RRSIG's original TTL or what is left of its validity (RFC 4035 section 5.3.3)."""
    sent = sent_for("www.example.com.", do=True)
    for original, left, expected in ((3600, 40, 40), (20, 9999, 20), (3600, -5, 0)):
        signature = record(HERE, RRSIG, _rrsig(A, "example.com.", original, NOW + left), 300)
        reply = take(sent, response(ID, sent.asked, [record(HERE, A, IP), signature]))
        assert reply.fresh_s == expected
        assert {r.ttl for r in parsed(reply).answer} == {expected}
    plain = sent_for("www.example.com.")
    reply = take(plain, response(ID, plain.asked, [record(HERE, A, IP), signature]))
    assert [r.rdtype for r in parsed(reply).answer] == [A]


def test_denials_stay_with_do_and_only_of_the_zone() -> None:
    """With DO, SOA, NSEC and their signatures of the question's zone are kept, those of other zones are not."""
    sent = sent_for("no.example.com.", do=True)
    nsec = record(name("a.example.com."), NSEC, name("z.example.com.") + b"\x00\x01\x40")
    signature = record(name("a.example.com."), RRSIG, _rrsig(NSEC, "example.com.", 300, NOW + 500))
    foreign = record(name("a.bank.example."), NSEC, name("z.bank.example.") + b"\x00\x01\x40")
    data = response(ID, sent.asked, [], [foreign, soa("example.com."), nsec, signature], rcode=3)
    message = parsed(take(sent, data))
    assert [r.rdtype for r in message.authority] == [SOA, NSEC, RRSIG]
    assert b"bank" not in message.to_wire()


def test_limits_of_records() -> None:
    """256 records of an RRset are taken, 257 are not (design: limits)."""
    sent = sent_for("www.example.com.")
    many = [record(HERE, A, struct.pack("!I", i)) for i in range(257)]
    assert len(parsed(take(sent, response(ID, sent.asked, many[:256]))).answer[0]) == 256
    assert fault(sent, response(ID, sent.asked, many)) is Fault.TOO_MANY_RECORDS


def test_ttls_are_brought_into_bounds() -> None:
    """A day at most; above 2^31 counts as 0 (RFC 2181 section 8)."""
    sent = sent_for("www.example.com.")
    for ttl, expected in ((999_999, 86400), (0x80000000, 0), (0, 0), (5, 5)):
        reply = take(sent, response(ID, sent.asked, [record(HERE, A, IP, ttl)]))
        assert (reply.fresh_s, parsed(reply).answer[0].ttl) == (expected, expected)


@pytest.mark.parametrize(
    "owner",
    [b"\xc0\x00", b"\xc0\x02", b"\xc0\xff", b"\x01a\xc0\x21", b"\x40a\x00", b"\xc0", b"\x3fabc", b"\x80\x00"],
)
def test_pointers_that_lead_astray_are_refused(owner: bytes) -> None:
    """Pointers into the header, forwards, at themselves, and unknown label types are malformed."""
    sent = sent_for("www.example.com.")
    assert fault(sent, response(ID, sent.asked, [record(owner, A, IP)])) is Fault.MALFORMED


def test_a_pointer_into_a_ttl_is_not_copied() -> None:
    """A name that is read out of another record's TTL keeps its meaning when that TTL is changed."""
    sent = sent_for("www.example.com.")
    first_at = 12 + len(sent.asked)
    # The TTL of the first record reads as the name "a." when followed.
    first = record(HERE, CNAME, name("x.test."), 0x01610000)
    odd = record(struct.pack("!H", 0xC000 | (first_at + 6)), A, IP, 60)
    end = record(name("x.test."), A, IP, 60)
    reply = take(sent, response(ID, sent.asked, [first, end, odd]))
    assert [str(r.name) for r in parsed(reply).answer] == ["www.example.com.", "x.test."]


def test_compression_where_it_is_forbidden_is_read_and_not_passed_on() -> None:
    """An SRV target that is compressed (RFC 3597 section 4 forbids it) comes out whole."""
    sent = sent_for("_a._tcp.example.com.", 33)
    target = b"\x03srv" + struct.pack("!H", 0xC000 | (12 + 8))
    reply = take(sent, response(ID, sent.asked, [record(HERE, 33, b"\x00\x01\x00\x02\x00\x35" + target)]))
    assert "srv.example.com." in str(parsed(reply).answer[0])
    assert name("srv.example.com.") in reply.message


def test_upstreams_own_explanation_is_kept() -> None:
    """An Extended DNS Error in the reply's OPT goes down with a failure and with an answer (RFC 8914)."""
    sent = sent_for("www.example.com.")
    ede = b"\x00\x0f\x00\x05\x00\x06bad"
    opt = b"\x00\x00\x29\x04\xd0\x00\x00\x00\x00" + struct.pack("!H", len(ede)) + ede
    with pytest.raises(BadReply) as caught:
        take(sent, response(ID, sent.asked, [], [], [opt], rcode=2))
    assert (caught.value.ede, caught.value.ede_text) == (6, "bad")
    assert take(sent, response(ID, sent.asked, [record(HERE, A, IP)], [], [opt])).ede == 6


def test_extended_rcodes_are_read() -> None:
    """The upper bits of the response code stand in OPT (RFC 6891 section 6.1.3)."""
    sent = sent_for("www.example.com.")
    opt = b"\x00\x00\x29\x04\xd0\x01\x00\x00\x00\x00\x00"
    assert fault(sent, response(ID, sent.asked, [], [], [opt])) is Fault.OTHER_RCODE


@given(st.lists(st.binary(min_size=1, max_size=20), min_size=0, max_size=6), st.integers(0, 2**32))
def test_random_case_changes_nothing_but_case(labels: list[bytes], seed: int) -> None:
    """The name as sent is the name that was asked, in some case."""
    key = names.from_labels(labels).lower()
    asked = randomise_case(key, random.Random(seed).randbytes)
    assert asked.lower() == key


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_what_is_kept_follows_from_the_question(data: st.DataObject) -> None:
    """Whatever mixture of records comes: every owner kept is on the chain, and CNAMEs stand before targets."""
    pool = [name(f"n{i}.example.com.") for i in range(5)]
    sent = build(Question(pool[0], data.draw(st.sampled_from([A, TXT, CNAME, 255]))), random.Random(1).randbytes)
    entries = []
    for _ in range(data.draw(st.integers(0, 8))):
        owner = data.draw(st.sampled_from(pool))
        kind = data.draw(st.sampled_from([A, CNAME, TXT, DNAME]))
        rdata = {A: IP, TXT: b"\x01x"}.get(kind) or data.draw(st.sampled_from(pool))
        entries.append(record(owner, kind, rdata, data.draw(st.integers(0, 100))))
    try:
        reply = take(sent, response(ID, sent.asked, entries, [soa("example.com.")]))
    except BadReply:
        return
    allowed = {sent.question.key}
    for rrset in parsed(reply).answer:
        owner = rrset.name.to_wire()
        assert owner is not None
        assert owner.lower() in allowed or rrset.rdtype == DNAME
        if rrset.rdtype == CNAME:
            target = rrset[0].target.to_wire()
            allowed.add(target.lower())


def _corpus() -> list[tuple[Sent, bytes]]:
    plain, signed = sent_for("www.example.com."), sent_for("no.example.com.", do=True)
    nsec = record(name("a.example.com."), NSEC, name("z.example.com.") + b"\x00\x01\x40")
    chain = [
        record(HERE, CNAME, b"\x01b\xc0\x10"),
        record(b"\x01b\xc0\x10", A, IP),
        record(HERE, 33, b"\0\0\0\0\0\0" + HERE),
    ]
    return [
        (plain, response(ID, plain.asked, [record(HERE, A, IP), record(HERE, A, IP)])),
        (plain, response(ID, plain.asked, chain, [soa("example.com.")])),
        (
            plain,
            response(
                ID, plain.asked, [record(name("com."), DNAME, name("net.")), record(name("www.example.net."), A, IP)]
            ),
        ),
        (signed, response(ID, signed.asked, [], [soa("example.com."), nsec], rcode=3)),
        (signed, response(ID, signed.asked, [record(HERE, RRSIG, _rrsig(A, "com.", 1, NOW)), record(HERE, A, IP)])),
    ]


def test_fifty_thousand_mutated_replies() -> None:
    """Whatever arrives, the checker raises ``BadReply`` or returns an answer that is well-formed; seeded."""
    rng = random.Random(20261125)
    corpus = _corpus()
    good = bad = 0
    faults: set[Fault] = set()
    for _ in range(50_000):
        sent, data = rng.choice(corpus)
        mutated = bytearray(data)
        for _ in range(rng.randint(1, 4)):
            way = rng.random()
            at = (
                rng.randrange(len(mutated))
                if rng.random() < 0.2
                else rng.randrange(min(12 + len(sent.asked), len(mutated)), len(mutated) + 1)
            )
            if way < 0.7 and at < len(mutated):
                mutated[at] = rng.choice((0, 1, 12, 41, 192, 255, rng.randrange(256)))
            elif way < 0.85:
                del mutated[at : at + rng.randint(1, 8)]
            else:
                mutated[at:at] = rng.randbytes(rng.randint(1, 8))
            if len(mutated) <= 12:
                break
        try:
            reply = read(bytes(mutated), sent, LIFE, NOW)
        except BadReply as error:
            faults.add(error.fault)
            bad += 1
            continue
        good += 1
        assert reply.layout == wire.layout(reply.message)
        assert reply.message[12 : 12 + len(sent.question.key)] == sent.question.key
        assert 0 <= reply.fresh_s <= 86400
        assert all(o <= len(reply.message) for o, *_ in wire.LAYOUT.iter_unpack(reply.layout))
    assert len(faults) > 5
    assert good > 2000
    assert bad > 20000


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=200))
def test_garbage_behind_a_right_question(tail: bytes) -> None:
    """Random octets behind a right header and question never raise anything but ``BadReply``."""
    sent = sent_for("www.example.com.")
    head = ID + struct.pack("!HHHHH", 0x8180, 1, *struct.unpack("!BBB", (tail + b"\1\1\1")[:3]))
    try:
        read(head + sent.asked + tail[3:], sent, LIFE, NOW)
    except BadReply:
        return


def test_no_facts_are_still_facts() -> None:
    """An answer without facts carries the encoded empty facts, not nothing."""
    sent = sent_for("www.example.com.", TXT)
    reply = take(sent, response(ID, sent.asked, [record(HERE, TXT, b"\x01x")]))
    assert facts.decode(reply.facts) == facts.Facts()
