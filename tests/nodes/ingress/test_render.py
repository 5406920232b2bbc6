"""Replies: what belongs to the query is put in, and what does not fit is cut at RRset boundaries."""

from __future__ import annotations

import dns.edns
import dns.flags
import dns.message
import dns.rcode
import pytest
from hypothesis import given
from hypothesis import strategies as st

from raydns.nodes.ingress.render import Renderer, Stored
from raydns.schemas import dns as numbers
from raydns.schemas import wire
from raydns.schemas.batch import QueryItem
from raydns.schemas.config.server import ServerConfig
from raydns.schemas.errors import MessageError

from .harness import answer, ask


def stored_for(query: bytes, *records: str, **more: object) -> Stored:
    """A stored answer for this query."""
    item = answer(QueryItem(1, query, 1000), *records, **more)  # type: ignore[arg-type]
    return Stored.of(item.message, item.layout, wire.parse_query(query).question_end)


def reply(query: bytes, stored: Stored, limit: int = 65535, ra: int = numbers.RA) -> dns.message.Message:
    """The rendered reply, parsed."""
    octets = Renderer(ServerConfig()).reply(query, wire.parse_query(query), stored, stored.tail, limit, ra)
    assert len(octets) <= limit
    return dns.message.from_wire(octets)


def test_id_case_and_flags_are_the_querys() -> None:
    """ID, spelling of the name, RD and CD come from the query; RA from rights."""
    query = dns.message.make_query("wWw.ExAmPlE.cOm", "A", id=4711)
    query.flags |= dns.flags.CD
    octets = query.to_wire()
    made = reply(octets, stored_for(ask("www.example.com"), "A 192.0.2.1"))
    assert made.id == 4711
    assert made.question[0].name.to_text() == "wWw.ExAmPlE.cOm."
    assert made.answer[0].name.to_text() == "wWw.ExAmPlE.cOm."  # a pointer to the question
    assert made.flags == dns.flags.QR | dns.flags.RD | dns.flags.RA | dns.flags.CD
    assert made.edns == -1
    assert not reply(octets, stored_for(octets, "A 192.0.2.1"), ra=0).flags & dns.flags.RA


@pytest.mark.parametrize(("secure", "ad", "do", "wanted"), [(1, 1, 0, 1), (1, 0, 1, 1), (1, 0, 0, 0), (0, 1, 1, 0)])
def test_ad_only_if_secure_and_asked_for(secure: int, ad: int, do: int, wanted: int) -> None:
    """AD is set for validated answers, and only for those who set AD or DO (RFC 6840 section 5.7)."""
    query = dns.message.make_query("www.example.com", "A", want_dnssec=bool(do))
    query.flags |= dns.flags.AD if ad else 0
    octets = query.to_wire()
    stored = stored_for(octets, "A 192.0.2.1")
    stored.secure = bool(secure)
    assert bool(reply(octets, stored).flags & dns.flags.AD) is bool(wanted)


def test_opt_is_sent_to_those_who_sent_one() -> None:
    """OPT carries our size and the query's DO; NSID only where configured and asked for (RFC 5001)."""
    octets = ask("www.example.com", use_edns=0, want_dnssec=True, options=[dns.edns.GenericOption(3, b"")])
    stored = stored_for(octets, "A 192.0.2.1")
    made = reply(octets, stored)
    assert (made.edns, made.payload, made.options) == (0, 1232, ())
    assert made.ednsflags & 0x8000
    renderer = Renderer(ServerConfig(nsid="here"))
    told = dns.message.from_wire(renderer.reply(octets, wire.parse_query(octets), stored, stored.tail, 65535, 0))
    assert [option.to_wire() for option in told.options] == [b"here"]


@pytest.mark.parametrize(
    ("edns", "wanted"),
    [(None, 512), (0, 512), (511, 512), (512, 512), (1000, 1000), (1232, 1232), (4096, 1232), (65535, 1232)],
)
def test_the_size_of_a_udp_reply(edns: int | None, wanted: int) -> None:
    """Between 512 and ours, as the client says; 512 without EDNS (RFC 6891 section 6.2.5)."""
    octets = ask("a.example") if edns is None else ask("a.example", use_edns=0, payload=edns)
    assert Renderer(ServerConfig()).limit(wire.parse_query(octets)) == wanted


def test_additional_records_go_first_and_without_tc() -> None:
    """Glue of a mail exchanger is dropped in silence; the answer is whole."""
    octets = ask("example.com", "MX")
    extra = [f"mx.example.com A 192.0.2.{n}" for n in range(1, 40)]
    made = reply(octets, stored_for(octets, "MX 10 mx.example.com.", additional=extra), limit=512)
    assert not made.flags & dns.flags.TC
    assert len(made.answer) == 1
    assert made.additional == []


def test_an_rrset_is_whole_or_absent_and_tc_says_so() -> None:
    """An answer RRset that does not fit is left out as a whole, with TC (RFC 2181 sections 5 and 9)."""
    octets = ask("example.com", "TXT")
    texts = [f'TXT "{n:03d}{"x" * 60}"' for n in range(20)]
    made = reply(octets, stored_for(octets, *texts), limit=512)
    assert made.flags & dns.flags.TC
    assert made.answer == []
    chain = stored_for(octets, "CNAME target.example.com.", *(f"target.example.com {text}" for text in texts))
    made = reply(octets, chain, limit=512)
    assert made.flags & dns.flags.TC
    assert [rrset.rdtype for rrset in made.answer] == [5]


def test_an_authority_that_does_not_fit_says_tc() -> None:
    """A negative answer without its SOA would be another answer."""
    octets = ask("example.com", "TXT")
    soa = f"example.com SOA {'m' * 60}.{'m' * 60}. {'r' * 60}.{'r' * 60}.{'r' * 60}.{'r' * 50}. 1 2 3 4 5"
    stored = stored_for(octets, *(f'TXT "{"x" * 200}"' for _ in range(1)), authority=[soa])
    made = reply(octets, stored, limit=512)
    assert made.flags & dns.flags.TC
    assert len(made.answer) == 1


def test_a_referral_without_its_glue_says_tc() -> None:
    """RFC 9471: glue that does not fit is told by TC; in an answer it is not."""
    octets = ask("www.example.com")
    glue = [f"ns{n}.example.com A 192.0.2.{n}" for n in range(1, 40)]
    made = reply(octets, stored_for(octets, authority=["example.com NS ns1.example.com."], additional=glue), limit=512)
    assert made.flags & dns.flags.TC
    assert len(made.authority) == 1


@given(st.integers(0, 30), st.integers(0, 8), st.integers(0, 30), st.integers(512, 4096), st.booleans())
def test_every_reply_is_whole_and_fits(answers: int, authority: int, additional: int, limit: int, edns: bool) -> None:
    """Whatever is stored and however small the client, the reply parses, fits, and lacks nothing without TC."""
    octets = ask("example.com", "TXT", **({"use_edns": 0} if edns else {}))
    stored = stored_for(
        octets,
        *(f'TXT "{n:03d}{"x" * 50}"' for n in range(answers)),
        authority=[f"example.com NS ns{n}.example.net." for n in range(authority)],
        additional=[f"ns{n}.example.net A 192.0.2.{n}" for n in range(additional)],
    )
    made = reply(octets, stored, limit)
    whole = (
        sum(len(rrset) for rrset in made.answer) == answers and sum(len(rrset) for rrset in made.authority) == authority
    )
    assert bool(made.flags & dns.flags.TC) is not whole or not answers
    assert (made.edns == 0) is edns


@pytest.mark.parametrize("cut", [0, 5, 11, 20, -1, -8])
def test_a_torn_message_is_refused(cut: int) -> None:
    """A stored message whose layout points beyond it raises ``MessageError`` and nothing else."""
    item = answer(QueryItem(1, ask("www.example.com"), 1000), "A 192.0.2.1")
    with pytest.raises(MessageError):
        Stored.of(item.message[:cut], item.layout, 33)


def test_a_layout_is_made_where_it_is_missing() -> None:
    """A sender may leave the layout out."""
    item = answer(QueryItem(1, ask("www.example.com"), 1000), "A 192.0.2.1", "A 192.0.2.2")
    assert Stored.of(item.message, b"", 33).layout == item.layout


@given(st.binary(max_size=200), st.binary(max_size=60), st.integers(0, 250))
def test_no_octets_break_it(message: bytes, layout: bytes, end: int) -> None:
    """Arbitrary octets from above are refused as ``MessageError``."""
    try:
        stored = Stored.of(message, layout, end)
    except MessageError:
        return
    stored.aged(5)
    stored.capped(5)
