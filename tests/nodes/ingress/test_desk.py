"""The order of answering, rights, limits and malformed queries: the desk without sockets."""

from __future__ import annotations

import struct
from pathlib import Path

import dns.edns
import dns.flags
import dns.message
import dns.rcode
import pytest

from raydns.schemas import batch, loops, names, wire
from raydns.schemas.batch import AnswerFlag, QueryFlag

from .harness import ONE_SHARD, Counter, answer, ask, state, zone_entry, zone_files

STRANGER = "198.51.100.1"
ZONE = """$TTL 3600
@ SOA ns hostmaster 1 7200 900 86400 300
@ NS ns
ns A 192.0.2.1
www A 192.0.2.80
out CNAME www.elsewhere.net.
in CNAME www
big TXT "{0}" "{0}" "{0}" "{0}" "{0}" "{0}"
""".format("x" * 250)


@pytest.fixture(name="zoned")
def zoned_fixture(tmp_path: Path) -> Counter:
    """A desk that holds ``example.com``."""
    entries, images = zone_files(tmp_path, {"example.com.": ZONE})
    return Counter(zones=entries, images=images)


def ede(message: dns.message.Message) -> list[int]:
    """The Extended DNS Errors of a reply."""
    return [int(option.code) for option in message.options if isinstance(option, dns.edns.EDEOption)]


# Order of answering


def test_zones_answer_everybody(zoned: Counter) -> None:
    """A zone served here is answered with AA to strangers too, without RA for them."""
    near, far = zoned.ask("WWW.example.com"), zoned.ask("www.example.com", host=STRANGER)
    assert near.answer[0].to_text() == "WWW.example.com. 3600 IN A 192.0.2.80"
    assert near.flags & dns.flags.AA
    assert near.flags & dns.flags.RA
    assert far.flags & dns.flags.AA
    assert not far.flags & dns.flags.RA
    assert zoned.ask("nope.example.com").rcode() == dns.rcode.NXDOMAIN
    assert zoned.take() == []


def test_zone_answers_are_in_no_tier_of_the_cache(zoned: Counter) -> None:
    """Asking a zone leaves L1 empty."""
    zoned.ask("www.example.com")
    assert zoned.desk.l1 is not None
    assert len(zoned.desk.l1) == 0


def test_a_large_zone_answer_is_cut_for_udp_and_whole_for_tcp(zoned: Counter) -> None:
    """TC over UDP, everything over TCP."""
    assert zoned.ask("big.example.com", "TXT").flags & dns.flags.TC
    reply = zoned.raw(ask("big.example.com", "TXT"), transport=2)
    assert reply
    assert len(dns.message.from_wire(reply).answer[0][0].strings) == 6


def test_an_apex_without_image_goes_up_and_never_falls_through() -> None:
    """Its names go to the zone shard with APEX set, whatever the client's rights; without a shard SERVFAIL with EDE."""
    counter = Counter(zones=[zone_entry("example.com")])
    counter.pending("www.example.com", host=STRANGER, use_edns=0)
    counter.pending("www.example.com", host=STRANGER, port=4001, use_edns=0)
    (item,) = counter.take()
    assert item.flags == QueryFlag.APEX
    counter.later(7.1)
    assert [message.rcode() for message in counter.door.messages()] == [dns.rcode.SERVFAIL] * 2
    assert ede(counter.last()) == [22]


def test_an_apex_comes_before_l1() -> None:
    """What was cached before a zone came is not served below its apex."""
    counter = Counter()
    counter.pending("www.example.com")
    counter.serve()
    assert counter.ask("www.example.com").answer
    counter.desk.install(state(zones=[zone_entry("example.com")]))
    counter.pending("www.example.com")


def test_llm_zones_are_apexes_for_those_who_may() -> None:
    """Names below an LLM zone go up with APEX for the right ``llm``; without it they are REFUSED."""
    rights = {"access": {"classes": [{"name": "all", "prefixes": ["0.0.0.0/0"], "rights": ["cache", "recurse"]}]}}
    counter = Counter()
    counter.pending("what.is.rust.llm.example", "TXT", host=STRANGER)
    assert counter.take()[0].flags == QueryFlag.APEX
    assert ede(Counter(rights).ask("what.is.rust.llm.example", "TXT", use_edns=0)) == [18]


def test_the_longer_of_zone_and_llm_zone_wins(tmp_path: Path) -> None:
    """A zone above an LLM zone leaves it alone; a zone below it is a zone."""
    entries, images = zone_files(tmp_path, {"example.com.": ZONE, "z.llm.example.com.": ZONE})
    counter = Counter({"llm": {"zones": ["llm.example.com"]}}, zones=entries, images=images)
    counter.pending("hello.llm.example.com", "TXT")
    assert counter.ask("www.z.llm.example.com").answer
    assert counter.ask("www.example.com").answer


def test_an_alias_that_leads_out_goes_up_for_those_who_may(zoned: Counter) -> None:
    """With RD and rights the pipeline follows the chain; a stranger, and RD=0, get the zone's part at once."""
    assert zoned.ask("in.example.com").answer[1].to_text().endswith("192.0.2.80")
    zoned.pending("out.example.com")
    assert zoned.take()[0].flags == QueryFlag.APEX
    far = zoned.ask("out.example.com", host=STRANGER)
    assert [rrset.rdtype for rrset in far.answer] == [5]
    assert zoned.ask("out.example.com", flags=0).answer
    zoned.later(8)
    assert zoned.last().rcode() == 0
    assert [rrset.rdtype for rrset in zoned.last().answer] == [5]  # the zone's part, not SERVFAIL


def test_an_alias_that_leads_out_is_answered_without_anybody_above(tmp_path: Path) -> None:
    """With no shard to ask, what the zone holds is the answer, at once."""
    entries, images = zone_files(tmp_path, {"example.com.": ZONE})
    counter = Counter(zones=entries, images=images, reachable=False)
    assert counter.ask("out.example.com").answer


# Rights


def test_strangers_are_refused_what_is_not_served_here() -> None:
    """No CACHE, RECURSE, FORWARD or CATCH_ALL: REFUSED with EDE 18, and nothing goes up."""
    counter = Counter()
    made = counter.ask("www.example.com", host=STRANGER, use_edns=0)
    assert made.rcode() == dns.rcode.REFUSED
    assert ede(made) == [18]
    assert not made.flags & dns.flags.RA
    assert counter.take() == []


def test_rd_0_is_only_looked_up() -> None:
    """Beyond apexes RD=0 never goes upstream, and does not lead or join a flight with RD=1."""
    counter = Counter()
    counter.pending("www.example.com", flags=0)
    counter.pending("www.example.com", port=4001)
    lookup, usual = counter.take()
    assert lookup.flags == QueryFlag.LOOKUP_ONLY
    assert usual.flags == 0
    assert (lookup.message[2] & 1, usual.message[2] & 1) == (0, 1)


@pytest.mark.parametrize(
    ("rights", "name", "rtype", "goes_up"),
    [
        (["recurse"], "www.example.org", "A", True),
        (["forward"], "www.example.org", "A", False),
        (["forward"], "www.corp.example", "A", True),
        (["recurse"], "www.corp.example", "A", False),
        (["catch_all"], "what.is.rust", "TXT", True),
        (["catch_all"], "what.is.rust", "A", False),
        (["forward"], "what.is.rust", "TXT", False),
        (["cache"], "www.example.org", "A", True),
    ],
)
def test_each_name_asks_for_its_right(rights: list[str], name: str, rtype: str, goes_up: bool) -> None:
    """A forward rule's names need ``forward``, catch-all prompts ``catch_all``, the rest ``recurse``."""
    config = {
        "access": {"classes": [{"name": "all", "prefixes": ["0.0.0.0/0"], "rights": rights}]},
        "forward": {"rules": [{"suffix": "corp.example.", "upstreams": [{"address": "192.0.2.53"}]}]},
    }
    counter = Counter(config)
    reply = counter.raw(ask(name, rtype))
    assert (reply == b"") is goes_up
    items = counter.take()
    assert len(items) == goes_up
    if rights == ["cache"]:
        assert items[0].flags == QueryFlag.LOOKUP_ONLY  # only what is held already


def test_a_class_without_cache_does_not_read_l1() -> None:
    """Its queries go up although an answer is here."""
    classes = [
        {"name": "near", "prefixes": ["127.0.0.0/8"], "rights": ["cache", "recurse"]},
        {"name": "far", "prefixes": ["0.0.0.0/0"], "rights": ["recurse"]},
    ]
    counter = Counter({"access": {"classes": classes}})
    counter.pending("www.example.com")
    counter.serve()
    assert counter.ask("www.example.com").answer
    counter.pending("www.example.com", host=STRANGER)


# Access list and rate


def test_the_access_list_refuses_and_drops_before_anything_else() -> None:
    """refuse: REFUSED with EDE 18, also to what is malformed; drop: silence."""
    classes = [
        {"name": "no", "prefixes": ["10.0.0.0/8"], "action": "refuse", "rights": ["recurse"]},
        {"name": "never", "prefixes": ["11.0.0.0/8"], "action": "drop", "rights": ["recurse"]},
    ]
    counter = Counter({"access": {"classes": classes}})
    refused = counter.ask("localhost", host="10.0.0.1", use_edns=0)
    assert refused.rcode() == dns.rcode.REFUSED
    assert ede(refused) == [18]
    malformed = ask("www.example.com")[:-1]
    reply = counter.raw(malformed, host="10.0.0.1")
    assert reply is not None
    assert reply[3] & 15 == 5
    assert counter.raw(ask("localhost"), host="11.0.0.1") is None
    assert counter.raw(malformed, host="11.0.0.1") is None
    assert counter.desk.counters.dropped.values == {"access": 2}


@pytest.mark.parametrize(("mode", "answered"), [("off", 6), ("shadow", 6), ("enforce", 2)])
def test_the_rate_limit_in_its_three_modes(mode: str, answered: int) -> None:
    """off: nothing; shadow: counted; enforce: silence above the burst."""
    counter = Counter({"access": {"rate": {"mode": mode, "burst": 2, "queries_per_second": 1}}})
    replies = [counter.raw(ask("localhost"), host="10.0.0.1") for _ in range(6)]
    assert sum(reply is not None for reply in replies) == answered
    assert counter.desk.counters.limited.total == (0 if mode == "off" else 4)


def test_a_class_may_have_a_rate_of_its_own() -> None:
    """``queries_per_second`` of a class stands in for the default."""
    classes = [{"name": "slow", "prefixes": ["0.0.0.0/0"], "rights": ["recurse"], "queries_per_second": 1}]
    counter = Counter({"access": {"classes": classes}})
    assert [counter.raw(ask("localhost"), host="10.0.0.1") is not None for _ in range(3)] == [True, True, False]


# Malformed and odd


def header(flags: int = 0x0100, counts: tuple[int, int, int, int] = (1, 0, 0, 0)) -> bytes:
    """A header with ID 1."""
    return struct.pack("!HHHHHH", 1, flags, *counts)


QUESTION = names.from_text("www.example.com.") + b"\x00\x01\x00\x01"
OPT = wire.opt_record(udp_size=1232, do=False)


@pytest.mark.parametrize(
    ("octets", "kind"),
    [
        (b"", "short"),
        (b"\x00" * 11, "short"),
        (header(0x8100) + QUESTION, "response"),
        (header(0x8000, (0, 0, 0, 0)), "response"),
    ],
)
def test_silence(octets: bytes, kind: str) -> None:
    """What is too short to answer and what is a response gets none (RFC 1035, RFC 9619), and is counted."""
    counter = Counter()
    assert counter.raw(octets) is None
    assert counter.desk.counters.malformed.values == {kind: 1}


@pytest.mark.parametrize(
    ("octets", "rcode", "kind"),
    [
        (header(counts=(0, 0, 0, 0)), 1, "formerr"),
        (header(counts=(2, 0, 0, 0)) + QUESTION * 2, 1, "formerr"),
        (header(counts=(1, 0, 0, 0)) + QUESTION[:-1], 1, "formerr"),
        (header() + QUESTION + b"\x00", 1, "formerr"),
        (header() + b"\xc0\x0c\x00\x01\x00\x01", 1, "formerr"),
        (header() + b"\x40" + QUESTION, 1, "formerr"),
        (header() + b"\x3f" + b"a" * 63 * 5, 1, "formerr"),
        (header(counts=(1, 0, 0, 1)) + QUESTION, 1, "formerr"),
        (header(counts=(1, 0, 0, 2)) + QUESTION + OPT + OPT, 1, "formerr"),
        (header(counts=(1, 0, 0, 1)) + QUESTION + b"\x01a" + OPT, 1, "formerr"),
        (header(counts=(1, 0, 0, 1)) + QUESTION + OPT[:-2] + b"\x00\x04\x00\x03\x00\x09", 1, "formerr"),
        (header(0x1000, (0, 0, 0, 0)), 4, "opcode"),
        (header(0x1100) + QUESTION, 4, "opcode"),
        (header(0x7800) + QUESTION, 4, "opcode"),
        (header() + names.from_text("a.") + b"\x00\x29\x00\x01", 1, "qtype"),
    ],
)
def test_errors(octets: bytes, rcode: int, kind: str) -> None:
    """FORMERR or NOTIMP with our header and the query's ID; never an exception."""
    counter = Counter()
    reply = counter.raw(octets)
    assert reply
    assert reply[:2] == b"\x00\x01"
    assert reply[2] & 0x80
    assert reply[3] & 15 == rcode
    assert counter.desk.counters.malformed.values == {kind: 1}


def test_badvers_names_our_version() -> None:
    """EDNS version 1: BADVERS with the question and an OPT of version 0 (RFC 6891 section 6.1.3)."""
    counter = Counter()
    query = dns.message.make_query("www.example.com", "A", use_edns=1)
    reply = counter.raw(query.to_wire())
    assert reply
    made = dns.message.from_wire(reply)
    assert query.is_response(made)
    assert (made.rcode(), made.edns) == (dns.rcode.BADVERS, 0)


def test_unknown_options_and_flags_are_ignored() -> None:
    """Unknown EDNS options, Z bits and a size below 512 change nothing (RFC 6891 sections 6.1.2 and 6.2.3)."""
    counter = Counter()
    options = [dns.edns.GenericOption(65001, b"x" * 20), dns.edns.GenericOption(8, b"\x00\x01\x18\x00\xc0\x00\x02")]
    counter.pending("www.example.com", use_edns=0, payload=100, options=options)
    (item,) = counter.serve(lambda item: answer(item, *(f"A 192.0.2.{n}" for n in range(1, 31))))
    assert item.message == header(0x0100)[:0] + b"\x00\x00\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00" + QUESTION
    reply = counter.door.sent[-1][0]
    assert len(reply) <= 512
    assert dns.message.from_wire(reply).flags & dns.flags.TC


@pytest.mark.parametrize(("rtype", "rcode"), [("AXFR", 5), ("IXFR", 5), ("MAILB", 4), ("TKEY", 4)])
def test_types_that_are_no_questions_of_ours(rtype: str, rcode: int) -> None:
    """Transfers are REFUSED for now, obsolete meta types NOTIMP."""
    counter = Counter()
    reply = counter.raw(
        header() + QUESTION[:-4] + struct.pack("!HH", {"MAILB": 253, "TKEY": 249, "AXFR": 252, "IXFR": 251}[rtype], 1)
    )
    assert reply
    assert reply[3] & 15 == rcode


@pytest.mark.parametrize("opcode", [4, 5])
def test_notify_and_update_are_refused(opcode: int) -> None:
    """Nobody may change or announce zones through this door yet."""
    made = Counter().raw(header(opcode << 11) + names.from_text("example.com.") + b"\x00\x06\x00\x01")
    assert made
    assert made[3] & 15 == 5


def test_our_own_query_does_not_go_up_twice() -> None:
    """A query with this cluster's loop token is SERVFAIL where it would go up, and answered where it need not."""
    counter = Counter()
    token = dns.edns.GenericOption(65501, loops.token(ONE_SHARD.seed))
    made = counter.ask("www.example.com", use_edns=0, options=[token])
    assert made.rcode() == dns.rcode.SERVFAIL
    assert "loop" in made.options[0].text
    assert counter.desk.counters.shed.values == {"loop": 1}
    assert counter.ask("localhost", use_edns=0, options=[token]).answer
    counter.pending("www.example.com", use_edns=0, options=[dns.edns.GenericOption(65501, b"anything")])
    counter.serve()
    assert counter.ask("www.example.com", use_edns=0, options=[token]).answer


# L1


def test_ttls_count_down_and_end() -> None:
    """Each second takes one from every TTL; at the end the next query goes up."""
    counter = Counter()
    counter.pending("www.example.com")
    counter.serve(lambda item: answer(item, "A 192.0.2.1", ttl=10))
    seen = []
    for _ in range(10):
        seen.append(counter.ask("www.example.com").answer[0].ttl)
        counter.clock.now += 1
    assert seen == [10, 9, 8, 7, 6, 5, 4, 3, 2, 1]
    counter.pending("www.example.com")


def test_case_do_and_cd_of_a_hit() -> None:
    """Any spelling hits; DO and CD are other answers."""
    counter = Counter()
    counter.pending("www.example.com")
    counter.serve()
    assert counter.ask("WWW.EXAMPLE.COM").question[0].name.to_text() == "WWW.EXAMPLE.COM."
    counter.pending("www.example.com", want_dnssec=True)
    counter.pending("www.example.com", flags=dns.flags.RD | dns.flags.CD)
    do, cd = counter.take()
    assert wire.parse_query(do.message).do
    assert wire.parse_query(cd.message).cd


def test_a_flush_is_a_miss() -> None:
    """After a flush that covers it, a cached answer is asked for again."""
    from raydns.schemas.cluster import Flush, Version

    counter = Counter()
    counter.pending("www.example.com")
    counter.serve()
    assert counter.ask("www.example.com").answer
    flush = Flush(names.from_text("com."), True, Version(1, 2))
    counter.desk.install(state(version=Version(1, 2), flushes=[flush]))
    counter.pending("www.example.com")


def test_popular_answers_are_asked_for_before_they_end() -> None:
    """In the last tenth of its life an answer with enough hits goes up once, and nobody waits for it."""
    counter = Counter()
    counter.pending("www.example.com")
    counter.serve(lambda item: answer(item, "A 192.0.2.1", ttl=100))
    for _ in range(5):
        counter.ask("www.example.com")
    assert counter.take() == []
    counter.clock.now += 91
    for _ in range(3):
        assert counter.ask("www.example.com").answer[0].ttl == 9
    (item,) = counter.serve(lambda item: answer(item, "A 192.0.2.2", ttl=100))
    assert item.flags == QueryFlag.PREFETCH
    assert counter.ask("www.example.com").answer[0].ttl == 100
    assert counter.ask("www.example.com").answer[0][0].to_text() == "192.0.2.2"


def test_an_ede_of_an_answer_travels_with_it() -> None:
    """The shard's Extended DNS Error is rendered for clients with EDNS, on a hit as well."""
    counter = Counter()
    counter.pending("www.example.com", use_edns=0)
    counter.serve(lambda item: answer(item, "A 192.0.2.1", ede=4, ede_text="made up"))
    assert ede(counter.last()) == [4]
    assert ede(counter.ask("www.example.com", use_edns=0)) == [4]
    assert counter.ask("www.example.com").edns == -1


def test_bad_batches_raise_and_bad_answers_do_not() -> None:
    """What is no batch is a ``BatchError`` for the stream; a bad answer in a good batch is SERVFAIL for its slot."""
    from raydns.schemas.errors import BatchError

    counter = Counter()
    for octets in (b"", b"RB", batch.encode_queries([])):
        with pytest.raises(BatchError):
            counter.desk.deliver(octets)
    for port, change in enumerate((lambda m: m[:20], lambda m: m[:12] + b"\x03abc" + m[16:], lambda m: m[:-2])):
        counter.pending("www.example.com", port=5000 + port)
        (item,) = counter.take()
        made = answer(item, "A 192.0.2.1")
        made.message = change(made.message)
        counter.deliver(made)
        assert counter.last().rcode() == dns.rcode.SERVFAIL
    assert counter.desk.counters.answers_bad.total == 3
    assert counter.desk.flights.in_flight == 0


def test_an_answer_for_a_slot_that_nobody_has_is_ignored() -> None:
    """Late and invented slots are counted and change nothing."""
    counter = Counter()
    counter.pending("www.example.com")
    (item,) = counter.take()
    late = answer(item, "A 192.0.2.1")
    late.slot += 7
    counter.deliver(late)
    assert counter.door.sent == []
    assert counter.desk.counters.answers_bad.values == {"unwanted": 1}


def test_an_aa_flag_from_above_is_kept_for_authoritative_answers() -> None:
    """A zone shard's answer keeps AA and is not stored."""
    counter = Counter(zones=[zone_entry("example.com")])

    def authoritative(item: batch.QueryItem) -> batch.AnswerItem:
        made = answer(item, "A 192.0.2.1", flags=AnswerFlag.SHAREABLE | AnswerFlag.AUTHORITATIVE)
        made.message = made.message[:2] + bytes((made.message[2] | 4,)) + made.message[3:]
        return made

    counter.pending("www.example.com")
    counter.serve(authoritative)
    assert counter.last().flags & dns.flags.AA
    assert counter.desk.l1 is not None
    assert len(counter.desk.l1) == 0
