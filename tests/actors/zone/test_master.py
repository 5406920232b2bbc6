"""Master files: grammar, every error at once with its place, sanity of zones, limits."""

from __future__ import annotations

import contextlib
import pickle
from pathlib import Path

import dns.rdata
import dns.rdataclass
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raydns.actors.zone.master import confined_includes, parse
from raydns.actors.zone.problems import MasterFileError
from raydns.actors.zone.zone_data import ZoneData
from raydns.schemas import names
from raydns.schemas.errors import ZoneFileError

N = names.from_text
APEX = N("example.")
HEAD = "$TTL 300\n@ SOA ns hostmaster 1 2 3 4 5\n@ NS ns\nns A 192.0.2.1\n"


def zone(text: str, *, head: str = HEAD) -> ZoneData:
    """A zone that must be accepted."""
    return parse(head + text, APEX, origin_file="t.zone")


def problems(text: str, *, head: str = HEAD) -> list[str]:
    """The errors of a zone that must be refused."""
    with pytest.raises(MasterFileError) as caught:
        parse(head + text, APEX, origin_file="t.zone")
    return [str(problem) for problem in caught.value.problems if problem.severity == "error"]


def warnings(text: str) -> list[str]:
    """The warnings of a zone that is accepted."""
    return [f"{warning.code}:{warning.line}" for warning in zone(text).warnings]


def rdatas(data: ZoneData, name: str, rtype: int) -> list[bytes]:
    """The RDATA of an RRset."""
    return data.names[N(name).lower()][rtype].rdatas


def test_directives_owners_parentheses_and_comments() -> None:
    """$ORIGIN and $TTL with units, inherited owners, @, parentheses over lines, comments and CRLF."""
    text = (
        "$TTL 1h30m ; ninety minutes\r\n@ IN SOA ns hostmaster (\r\n 1 ; serial (not this)\r\n 2h 3m 4w 5 )\r\n"
        "  IN NS ns\r\nns 60 IN A 192.0.2.1\r\n IN 61 AAAA 2001:db8::1\r\n$ORIGIN sub.example.\r\nx A 192.0.2.2\r\n"
        "y.example. CLASS1 A 192.0.2.3\r\n"
    )
    data = parse(text, N("Example."))
    assert data.names[APEX][6].ttl == 5400
    assert data.soa.rdatas[0][-20:] == b"".join(n.to_bytes(4, "big") for n in (1, 7200, 180, 2419200, 5))
    assert data.names[N("ns.example.")][1].ttl == 60
    assert data.names[N("ns.example.")][28].ttl == 61
    assert {N("x.sub.example."), N("y.example.")} <= set(data.names)
    assert data.owners[APEX] == N("Example.")
    assert (data.serial, data.minimum, data.records) == (1, 5, 6)


def test_strings_escapes_and_quotes() -> None:
    r"""Quoted and bare strings, \DDD, \X, semicolons and blanks in quotes, UTF-8 octets."""
    data = zone('t TXT "a;b (c)" bare "q\\"q" "\\065\\000" "é" ""\n')
    assert rdatas(data, "t.example.", 16) == [b'\x07a;b (c)\x04bare\x03q"q\x02A\x00\x02\xc3\xa9\x00']


def test_unknown_types_and_generic_data() -> None:
    r"""TYPE numbers take ``\#`` data; known types take it too and are checked by their own form."""
    data = zone("u TYPE65280 \\# 3 01 0203\nz TYPE65281 \\# 0\na A \\# 4 c0000207\nn TYPE1 192.0.2.8\n")
    assert rdatas(data, "u.example.", 65280) == [b"\x01\x02\x03"]
    assert rdatas(data, "z.example.", 65281) == [b""]
    assert rdatas(data, "a.example.", 1) == [b"\xc0\x00\x02\x07"]
    assert rdatas(data, "n.example.", 1) == [b"\xc0\x00\x02\x08"]
    assert len(problems("a A \\# 3 c00002\nb TYPE65280 \\# 2 01\nc TYPE65280 \\# 1 0x\nd TYPE65280 \\#\n")) == 4


@pytest.mark.parametrize(
    ("rtype", "text"),
    [
        ("A", "192.0.2.1"),
        ("AAAA", "2001:db8::1"),
        ("CAA", '0 issue "ca.example.net"'),
        ("CDS", "0 0 0 00"),
        ("CNAME", "Target.example."),
        ("DNAME", "target.example."),
        ("DNSKEY", "257 3 13 mdsswUyr3DPW132mOi8V9xESWE8jTo0dxCjjnopKl+GqJxpVXckHAeF+KkxLbxILfDLUT0rAK9iUzy1L53eKGQ=="),
        ("DS", "60485 5 1 2BB183AF5F22588179A53B0A98631FAD1A292118"),
        ("HINFO", '"PDP-11/70" "UNIX"'),
        ("HTTPS", '1 . alpn="h2,h3" ipv4hint="192.0.2.1" port="8443"'),
        ("LOC", "52 22 23.000 N 4 53 32.000 E -2.00m 0.00m 10000m 10m"),
        ("MX", "10 mail.example."),
        ("NAPTR", '100 10 "S" "SIP+D2U" "!^.*$!x!" _sip._udp.example.'),
        ("NS", "ns2.example."),
        ("OPENPGPKEY", "AQID"),
        ("PTR", "a.example."),
        ("RP", "a.example. b.example."),
        ("SMIMEA", "3 1 0 aabb"),
        ("SRV", "1 2 3 target.example."),
        ("SSHFP", "2 1 123456789abcdef67890123456789abcdef67890"),
        ("SVCB", "0 target.example."),
        ("TLSA", "3 1 1 0b9fa5a59eed715c26c1020c711b4f6ec42d58b0015e14337a39dad301c5afc3"),
        ("TXT", '"a" "b"'),
        ("URI", '10 1 "ftp://x.example/"'),
        ("ZONEMD", "2018031900 1 1 " + "61" * 48),
    ],
)
def test_every_type_as_dnspython_reads_it(rtype: str, text: str) -> None:
    """What the file says becomes the octets that dnspython makes of it, by hand-written readers too."""
    data = zone(f"x {rtype} {text}\n")
    wanted = dns.rdata.from_text(dns.rdataclass.IN, rtype, text)
    assert rdatas(data, "x.example.", int(wanted.rdtype)) == [wanted.to_wire()]


def test_generate_with_all_modifiers() -> None:
    """Ranges with steps, offsets, widths and bases, nibbles, escaped dollars, TTL and class in the template."""
    data = zone(
        "$GENERATE 1-5/2 h$ 60 IN A 10.0.0.$\n$GENERATE 10-11 x${-2,4,x}-${0,0,o} TXT ${5}\n"
        "$GENERATE 18-18 ${0,7,n}.rev PTR c\\$$\n"
    )
    assert sorted(names.to_text(name) for name in data.names if name[1:2] in (b"h", b"x")) == [
        "h1.example.",
        "h3.example.",
        "h5.example.",
        "x0008-12.example.",
        "x0009-13.example.",
    ]
    assert data.names[N("h3.example.")][1].ttl == 60
    assert rdatas(data, "x0008-12.example.", 16) == [b"\x0215"]
    assert rdatas(data, "2.1.0.0.rev.example.", 12) == [N("c\\$18.example.")]
    for bad in ("5-1 h A 1.1.1.1", "1-2/0 h A 1.1.1.1", "0-999999 h$ A 1.1.1.1", "1-2 h${0,0,q} A 1.1.1.1", "1-2 h$"):
        assert len(problems(f"$GENERATE {bad}\n")) == 1
    assert "number 2" in problems("$GENERATE 2-3 h$ A 1.1.$\n")[0]


def test_include_is_confined_and_keeps_origin_and_owner(tmp_path: Path) -> None:
    """An include reads from the zone's folder only; its $ORIGIN ends with it; errors name the included file."""
    (tmp_path / "zone").mkdir()
    (tmp_path / "zone" / "more").write_text("$ORIGIN deep.example.\na A 192.0.2.5\n")
    (tmp_path / "zone" / "bad").write_text("\n\na A nonsense\n")
    (tmp_path / "zone" / "again").write_text("$INCLUDE again\n")
    (tmp_path / "secret").write_text("root:x:0:0\n")
    (tmp_path / "zone" / "link").symlink_to(tmp_path / "secret")
    read = confined_includes(tmp_path / "zone")
    data = parse(HEAD + "o A 192.0.2.4\n$INCLUDE more\n TXT still-o\nb A 192.0.2.6\n", APEX, read_include=read)
    assert {N("a.deep.example."), N("b.example.")} <= set(data.names)
    assert 16 in data.names[N("o.example.")]
    sub = parse(HEAD + "$INCLUDE more sub.example.\n", APEX, read_include=read)
    assert N("a.deep.example.") in sub.names
    with pytest.raises(MasterFileError) as caught:
        parse(
            HEAD + "$INCLUDE ../secret\n$INCLUDE /etc/passwd\n$INCLUDE link\n$INCLUDE absent\n$INCLUDE bad\n",
            APEX,
            origin_file="t.zone",
            read_include=read,
        )
    text = caught.value.report()
    assert text.count("leaves the zone's folder") == 3
    assert "cannot be read: No such file" in text
    assert "bad:3:5: error: not an IPv4 address; found 'nonsense'" in text
    assert "root:x" not in text
    with pytest.raises(MasterFileError, match="deeper than"):
        parse(HEAD + "$INCLUDE again\n", APEX, read_include=read)


def test_all_errors_in_one_run_with_their_places() -> None:
    """One run lists every error with file, line, column, what stood there and what was expected."""
    found = problems(
        'a A 1.2.3\nb 99999999999 A 1.2.3.4\nc FOO x\nd TXT "open\n$NOPE\ne MX ten mail\nf AAAA ::g\ng CH A 1.2.3.4\n'
        "h SOA\ni SVCB junk\nj A 1.2.3.4 5\n..k A 1.2.3.4\nl TXT " + "x" * 256 + "\nm ( A\n"
    )
    assert [text.split(": error")[0] for text in found] == [
        "t.zone:5:5",
        "t.zone:6:3",
        "t.zone:7:3",
        "t.zone:8:7",
        "t.zone:9:1",
        "t.zone:10:6",
        "t.zone:11:8",
        "t.zone:12:3",
        "t.zone:13:6",
        "t.zone:14:8",
        "t.zone:15:13",
        "t.zone:16:1",
        "t.zone:17:7",
        "t.zone:18:3",
    ]
    assert "found '1.2.3'; expected four numbers" in found[0]
    assert "expected a record type" in found[2]


def test_errors_travel_between_processes() -> None:
    """The error keeps every problem through the pickle with which an actor raises, and its dictionary is complete."""
    with pytest.raises(MasterFileError) as caught:
        parse("x A y\n", APEX, origin_file="t.zone")
    copy = pickle.loads(pickle.dumps(caught.value))
    assert copy.problems == caught.value.problems
    assert isinstance(copy, ZoneFileError)
    assert copy.as_dict()["code"] == "zone.master"
    assert copy.as_dict()["where"].startswith("t.zone:1")


def test_what_stops_a_zone() -> None:
    """No SOA, two, one below the apex, no NS, CNAME or DNAME beside what they may not stand beside, the limits."""
    assert "no SOA" in problems("", head="")[0]
    cases = {
        "@ SOA ns hostmaster 2 2 3 4 5\n": "a second SOA",
        "x SOA ns hostmaster 2 2 3 4 5\n": "not at the apex",
        "c CNAME a\nc A 1.2.3.4\n": "CNAME beside other data",
        "c A 1.2.3.4\nc CNAME a\n": "CNAME beside other data",
        "c CNAME a\nc CNAME b\n": "a second CNAME",
        "d DNAME a\nd DNAME b\n": "a second DNAME",
        "d DNAME a\nd NS b\n": "DNAME beside NS",
        "".join(f"t A 10.0.{i >> 8}.{i & 255}\n" for i in range(257)): "more than 256 records",
        "".join(f"t TYPE{65280 + i} \\# 0\n" for i in range(101)): "more than 100 types",
    }
    for text, wanted in cases.items():
        found = problems(text)
        assert len(found) == 1, found
        assert wanted in found[0]
    assert "no NS record" in problems("", head="$TTL 1\n@ SOA a b 1 2 3 4 5\n")[0]
    assert "no TTL" in problems("a A 1.2.3.4\n", head="")[0]


def test_what_is_only_warned_about() -> None:
    """Out-of-zone data, differing TTLs, missing glue, hidden data, alias targets and signatures let the zone live."""
    assert warnings("x.other. A 1.2.3.4\n") == ["out-of-zone:5"]
    assert warnings("t 5 A 1.1.1.1\nt 4 A 1.1.1.2\nt 9 A 1.1.1.3\n") == ["ttl-differs:6"]
    assert zone("t 5 A 1.1.1.1\nt 4 A 1.1.1.2\n").names[N("t.example.")][1].ttl == 4
    assert warnings("s NS ns.s\n") == ["missing-glue:5"]
    assert warnings('s NS ns\nx.s TXT "hidden"\ng.s A 1.2.3.4\n') == ["occluded:6"]
    assert warnings("d DNAME a\nx.d A 1.2.3.4\n") == ["occluded:6"]
    assert warnings("m MX 1 c\nc CNAME ns\n") == ["alias-target:5"]
    assert "signed" in warnings("n NSEC ns A\n")[0]
    assert warnings("*.w A 1.2.3.4\ns NS h.w\n") == []


def test_duplicates_are_one_record() -> None:
    """The same record twice is once, names in any case (RFC 2181 section 5)."""
    data = zone("a A 1.2.3.4\nA A 1.2.3.4\n@ NS NS\nm MX 65 x\nm MX 97 x\n")
    assert len(rdatas(data, "a.example.", 1)) == 1
    assert len(rdatas(data, "example.", 2)) == 1
    assert len(rdatas(data, "m.example.", 15)) == 2


def test_apex_from_the_soa() -> None:
    """Without a name given, the SOA's owner is the zone; relative names before an origin are an error."""
    assert parse("$ORIGIN T.\n$TTL 1\n@ SOA a b 1 2 3 4 5\n@ NS a\n", None).apex == N("t.")
    with pytest.raises(MasterFileError, match="relative"):
        parse("@ 1 SOA a. b. 1 2 3 4 5\n", None)


def test_reports_are_bounded() -> None:
    """A file of nonsense ends the reading at a thousand errors instead of filling memory."""
    with pytest.raises(MasterFileError) as caught:
        parse("x A y\n" * 5000, APEX)
    assert 1000 <= len(caught.value.problems) <= 1010


@settings(max_examples=300, deadline=None)
@given(
    st.lists(
        st.one_of(
            st.sampled_from(
                ["@", "a", "A", "IN", "NS", "SOA", "TXT", "(", ")", '"', ";", "\\", "\n", " ", "\t", "$TTL", "$ORIGIN",
                 "$GENERATE", "1-3", "$", "${", "}", "60", "\\#", "TYPE65280", "192.0.2.1", "x.y.", "..", "\\300", "é",
                 "HTTPS", "alpn=", "LOC", "\r", "\x00", "\udc80"]
            ),
            st.text(max_size=8),
        ),
        max_size=40,
    )
)  # fmt: skip
def test_no_text_breaks_the_parser(pieces: list[str]) -> None:
    """Whatever the text, it becomes a zone or a ``MasterFileError``."""
    for text in (" ".join(pieces), HEAD + "".join(pieces)):
        with contextlib.suppress(MasterFileError):
            assert parse(text, APEX).records
