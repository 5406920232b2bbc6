"""The examples and rules of the RFCs themselves: 1034, 2308, 3597, 4592, 6672, 8482, 9460, 9471."""

from __future__ import annotations

from pathlib import Path

import pytest

from raydns.nodes.images import ZoneTable
from tests.nodes.images.zones import HEAD, ask, is_aa, raw, rcode, section, table

# RFC 1034 section 6.1, as far as the questions of 6.2 need it.
ROOT = """
$TTL 86400
. SOA SRI-NIC.ARPA. HOSTMASTER.SRI-NIC.ARPA. 870611 1800 300 604800 86400
. NS A.ISI.EDU.
. NS C.ISI.EDU.
. NS SRI-NIC.ARPA.
MIL. NS SRI-NIC.ARPA.
MIL. NS A.ISI.EDU.
EDU. NS SRI-NIC.ARPA.
EDU. NS C.ISI.EDU.
SRI-NIC.ARPA. A 26.0.0.73
SRI-NIC.ARPA. A 10.0.0.51
SRI-NIC.ARPA. MX 0 SRI-NIC.ARPA.
SRI-NIC.ARPA. HINFO DEC-2060 TOPS20
USC-ISIC.ARPA. CNAME C.ISI.EDU.
A.ISI.EDU. A 26.3.0.103
C.ISI.EDU. A 10.0.0.52
"""
ISI = """
$TTL 86400
@ SOA VENERA.ISI.EDU. ACTION.VENERA.ISI.EDU. 20 7200 600 3600000 60
@ NS A.ISI.EDU.
A A 26.3.0.103
C A 10.0.0.52
"""

# RFC 4592 section 2.2.1.
WILDCARDS = """
$TTL 3600
@ SOA ns.example.com. hostmaster.example.com. 1 3600 600 86400 300
@ NS ns.example.com.
@ NS ns.example.net.
* TXT "this is a wildcard"
* MX 10 host1.example.
sub.* TXT "this is not a wildcard"
host1 A 192.0.2.1
_ssh._tcp.host1 SRV 0 0 22 host1
_ssh._tcp.host2 SRV 0 0 22 host1
subdel NS ns.example.com.
subdel NS ns.example.net.
"""


@pytest.fixture(name="root")
def root_fixture(tmp_path: Path) -> ZoneTable:
    """A root server of 1987 that also serves ISI.EDU."""
    return table(tmp_path, {".": ROOT, "isi.edu.": ISI})


@pytest.fixture(name="wild")
def wild_fixture(tmp_path: Path) -> ZoneTable:
    """The wildcard zone."""
    return table(tmp_path, {"example.": WILDCARDS})


def test_1034_6_2_1_address(root: ZoneTable) -> None:
    """SRI-NIC.ARPA A: both addresses, authoritative."""
    answer = ask(root, "SRI-NIC.ARPA.", "A")
    assert is_aa(answer)
    assert section(answer.answer) == ["SRI-NIC.ARPA. 86400 IN A 10.0.0.51", "SRI-NIC.ARPA. 86400 IN A 26.0.0.73"]


def test_1034_6_2_2_any_is_one_rrset_as_8482_allows(root: ZoneTable) -> None:
    """SRI-NIC.ARPA ANY: the RRset with the lowest type and no more (RFC 8482 section 4.1)."""
    answer = ask(root, "SRI-NIC.ARPA.", "ANY")
    assert len(answer.answer) == 1
    assert section(answer.answer) == ["SRI-NIC.ARPA. 86400 IN A 10.0.0.51", "SRI-NIC.ARPA. 86400 IN A 26.0.0.73"]


def test_1034_6_2_3_exchanger_with_addresses(root: ZoneTable) -> None:
    """SRI-NIC.ARPA MX: the exchanger, and its addresses beside it."""
    answer = ask(root, "SRI-NIC.ARPA.", "MX")
    assert section(answer.answer) == ["SRI-NIC.ARPA. 86400 IN MX 0 SRI-NIC.ARPA."]
    assert len(section(answer.additional)) == 2


def test_1034_6_2_4_no_such_type(root: ZoneTable) -> None:
    """SRI-NIC.ARPA NS: no error, no data, and the SOA that RFC 2308 added."""
    answer = ask(root, "SRI-NIC.ARPA.", "NS")
    assert (rcode(answer), answer.answer, len(answer.authority)) == ("NOERROR", [], 1)
    assert is_aa(answer)


def test_1034_6_2_5_no_such_name(root: ZoneTable) -> None:
    """SIR-NIC.ARPA A: NXDOMAIN with the root's SOA."""
    answer = ask(root, "SIR-NIC.ARPA.", "A")
    assert rcode(answer) == "NXDOMAIN"
    assert section(answer.authority)[0].startswith(". 86400 IN SOA ")


def test_1034_6_2_6_referral(root: ZoneTable) -> None:
    """BRL.MIL A: a referral to MIL with the addresses of its servers."""
    answer = ask(root, "BRL.MIL.", "A")
    assert not is_aa(answer)
    assert section(answer.authority) == ["MIL. 86400 IN NS A.ISI.EDU.", "MIL. 86400 IN NS SRI-NIC.ARPA."]
    assert len(section(answer.additional)) == 3


def test_1034_6_2_7_alias_across_zones(root: ZoneTable) -> None:
    """USC-ISIC.ARPA A: the alias, then the address from another zone that is served here."""
    answer = ask(root, "USC-ISIC.ARPA.", "A")
    assert [rrset.to_text() for rrset in answer.answer] == [
        "USC-ISIC.ARPA. 86400 IN CNAME C.ISI.EDU.",
        "C.ISI.EDU. 86400 IN A 10.0.0.52",
    ]


def test_1034_6_2_8_the_alias_itself(root: ZoneTable) -> None:
    """USC-ISIC.ARPA CNAME: the alias and nothing behind it."""
    answer = ask(root, "USC-ISIC.ARPA.", "CNAME")
    assert section(answer.answer) == ["USC-ISIC.ARPA. 86400 IN CNAME C.ISI.EDU."]


@pytest.mark.parametrize(
    ("name", "qtype", "expected"),
    [
        ("host3.example.", "MX", "host3.example. 3600 IN MX 10 host1.example."),
        ("foo.bar.example.", "TXT", 'foo.bar.example. 3600 IN TXT "this is a wildcard"'),
    ],
)
def test_4592_synthesized(wild: ZoneTable, name: str, qtype: str, expected: str) -> None:
    """Names that RFC 4592 section 2.2.1 lists as synthesized come from the wildcard, under their own name."""
    answer = ask(wild, name, qtype)
    assert section(answer.answer) == [expected]
    assert is_aa(answer)


@pytest.mark.parametrize(
    ("name", "qtype", "wanted"),
    [
        ("host3.example.", "A", "NOERROR"),  # the wildcard has no A
        ("host1.example.", "MX", "NOERROR"),  # exists
        ("sub.*.example.", "MX", "NOERROR"),  # exists
        ("_telnet._tcp.host1.example.", "SRV", "NXDOMAIN"),  # _tcp.host1 exists, without a wildcard
        ("ghost.*.example.", "MX", "NXDOMAIN"),  # *.example exists and is the closest encloser
        ("host2.example.", "MX", "NOERROR"),  # an empty non-terminal
        ("_tcp.host2.example.", "TXT", "NOERROR"),  # another
        ("*.example.", "A", "NOERROR"),  # the wildcard asked by its own name
    ],
)
def test_4592_not_synthesized(wild: ZoneTable, name: str, qtype: str, wanted: str) -> None:
    """Names that exist, or whose closest encloser does, take nothing from the wildcard."""
    answer = ask(wild, name, qtype)
    assert (rcode(answer), answer.answer) == (wanted, [])
    assert section(answer.authority)[0].startswith("example. 300 IN SOA")


def test_4592_below_a_cut(wild: ZoneTable) -> None:
    """host.subdel.example A is a referral: the cut comes before the wildcard."""
    answer = ask(wild, "host.subdel.example.", "A")
    assert not is_aa(answer)
    assert len(section(answer.authority)) == 2


def test_4592_wildcard_that_is_an_empty_non_terminal(tmp_path: Path) -> None:
    """A ``*`` that exists only above another name covers names with NODATA (RFC 4592 section 4.9)."""
    zones = table(tmp_path, {"example.": HEAD + 'sub.*.e TXT "x"\n'})
    answer = ask(zones, "other.e.example.", "TXT")
    assert (rcode(answer), answer.answer) == ("NOERROR", [])


def test_4592_wildcard_cname_ns_and_ds(tmp_path: Path) -> None:
    """Aliases at a wildcard are followed; NS there makes no cut; DS there is data (RFC 4592 sections 4.2, 4.5, 4.6)."""
    text = HEAD + "*.c CNAME ns\n*.n NS ns\n*.d DS 1 13 2 " + "00" * 32 + "\n"
    zones = table(tmp_path, {"example.": text})
    assert section(ask(zones, "x.c.example.", "A").answer) == [
        "ns.example. 3600 IN A 192.0.2.1",
        "x.c.example. 3600 IN CNAME ns.example.",
    ]
    below = ask(zones, "x.n.example.", "A")
    assert (rcode(below), is_aa(below), below.answer) == ("NOERROR", True, [])
    assert section(ask(zones, "x.n.example.", "NS").answer) == ["x.n.example. 3600 IN NS ns.example."]
    assert len(ask(zones, "x.d.example.", "DS").answer) == 1


def test_2308_ttl_of_the_soa_is_the_lesser(tmp_path: Path) -> None:
    """A negative answer's SOA has the lesser of its TTL and MINIMUM; the SOA itself keeps its own."""
    low = "@ 60 SOA ns hostmaster 1 2 3 4 300\n@ 60 NS ns\nns 60 A 192.0.2.1\n"
    zones = table(tmp_path, {"high.": HEAD, "low.": low})
    assert ask(zones, "nope.high.", "A").authority[0].ttl == 300
    assert ask(zones, "high.", "SOA").answer[0].ttl == 3600
    assert ask(zones, "nope.low.", "A").authority[0].ttl == 60


DNAMES = f"""
d DNAME target.example.
d TXT "beside"
a.target A 192.0.2.7
out DNAME elsewhere.test.
long DNAME {"a" * 63}.{"b" * 63}.example.
"""


def test_6672_dname_and_its_cname(tmp_path: Path) -> None:
    """A name below a DNAME: DNAME, a CNAME with the DNAME's TTL, then the target's data, in this order."""
    zones = table(tmp_path, {"example.": HEAD + DNAMES})
    answer = ask(zones, "a.d.example.", "A")
    assert [rrset.to_text() for rrset in answer.answer] == [
        "d.example. 3600 IN DNAME target.example.",
        "a.d.example. 3600 IN CNAME a.target.example.",
        "a.target.example. 3600 IN A 192.0.2.7",
    ]
    assert is_aa(answer)
    assert rcode(ask(zones, "b.d.example.", "A")) == "NXDOMAIN"


def test_6672_the_owner_itself_is_not_redirected(tmp_path: Path) -> None:
    """At its own name a DNAME is data, beside other data (RFC 6672 section 2.3)."""
    zones = table(tmp_path, {"example.": HEAD + DNAMES})
    assert section(ask(zones, "d.example.", "TXT").answer) == ['d.example. 3600 IN TXT "beside"']
    assert section(ask(zones, "d.example.", "DNAME").answer) == ["d.example. 3600 IN DNAME target.example."]
    assert ask(zones, "d.example.", "A").answer == []


def test_6672_too_long_is_yxdomain(tmp_path: Path) -> None:
    """Where the new name would exceed 255 octets: YXDOMAIN with the DNAME (RFC 6672 section 2.2)."""
    zones = table(tmp_path, {"example.": HEAD + DNAMES})
    answer = ask(zones, ".".join(["c" * 63, "d" * 63, "long.example."]), "A")
    assert rcode(answer) == "YXDOMAIN"
    assert [rrset.rdtype.name for rrset in answer.answer] == ["DNAME"]


def test_6672_target_outside_is_told(tmp_path: Path) -> None:
    """A chain that leaves the zones held here ends with its alias; the caller learns the target."""
    zones = table(tmp_path, {"example.": HEAD + DNAMES})
    answer = raw(zones, "x.out.example.", "A")
    assert answer.incomplete_cname == b"\x01x\x09elsewhere\x04test\x00"
    assert (answer.rcode, len(answer.layout)) == (0, 12)


def test_3597_unknown_type_is_octets_and_never_compressed(tmp_path: Path) -> None:
    """RDATA of unknown types leaves as it came, also where it looks like a name that could be compressed."""
    zones = table(tmp_path, {"example.": HEAD + "u TYPE65280 \\# 9 076578616d706c6500\ns SRV 0 0 1 ns\n"})
    answer = raw(zones, "u.example.", "TYPE65280")
    assert answer.message.endswith(b"\x00\x09\x07example\x00")
    srv = raw(zones, "s.example.", "SRV")
    assert b"\x02ns\x07example\x00" in srv.message


def test_9471_in_domain_glue_is_required_siblings_are_not(tmp_path: Path) -> None:
    """A referral's in-domain glue stands first and counts as required; a sibling's glue follows and does not."""
    text = HEAD + "a NS ns.b\na NS ns.a\nns.a A 192.0.2.2\nns.a AAAA 2001:db8::2\nb NS ns.b\nns.b A 192.0.2.3\n"
    zones = table(tmp_path, {"example.": text})
    answer = raw(zones, "x.a.example.", "A")
    assert answer.required == 4
    found = [rrset.to_text() for rrset in ask(zones, "x.a.example.", "A").additional]
    assert found == [
        "ns.a.example. 3600 IN A 192.0.2.2",
        "ns.a.example. 3600 IN AAAA 2001:db8::2",
        "ns.b.example. 3600 IN A 192.0.2.3",
    ]


def test_ds_at_the_cut_and_at_a_childs_apex(tmp_path: Path) -> None:
    """DS is the parent's: answered at the cut, also when the child is served here; NODATA where only the child is."""
    parent = HEAD + "sub NS ns.sub\nns.sub A 192.0.2.9\nsub DS 1 13 2 " + "00" * 32 + "\n"
    both = table(tmp_path, {"example.": parent, "sub.example.": HEAD})
    answer = ask(both, "sub.example.", "DS")
    assert (is_aa(answer), len(answer.answer)) == (True, 1)
    assert section(ask(both, "ns.sub.example.", "A").answer) == ["ns.sub.example. 3600 IN A 192.0.2.1"]
    assert not is_aa(ask(table(tmp_path, {"example.": parent}), "x.sub.example.", "DS"))
    alone = ask(table(tmp_path, {"sub.example.": HEAD}), "sub.example.", "DS")
    assert section(alone.authority)[0].startswith("sub.example. 300 IN SOA")


def test_occluded_data_is_glue_and_never_an_answer(tmp_path: Path) -> None:
    """Below a cut nothing is answered, whatever stands in the file; addresses there serve as glue only."""
    zones = table(tmp_path, {"example.": HEAD + 'c NS ns.c\nns.c A 192.0.2.2\nt.c TXT "x"\nm MX 1 ns.c\n'})
    answer = ask(zones, "t.c.example.", "TXT")
    assert (is_aa(answer), answer.answer, len(answer.additional)) == (False, [], 1)
    assert ask(zones, "m.example.", "MX").additional == []


def test_9460_additional_of_service_and_alias_mode(tmp_path: Path) -> None:
    """ServiceMode brings addresses, ``.`` meaning the owner; AliasMode brings the alias's own records (section 4.1)."""
    text = HEAD + "s HTTPS 1 . alpn=h2\ns A 192.0.2.2\na HTTPS 0 s\nn HTTPS 0 .\nn A 192.0.2.3\n"
    zones = table(tmp_path, {"example.": text})
    assert section(ask(zones, "s.example.", "HTTPS").additional) == ["s.example. 3600 IN A 192.0.2.2"]
    assert section(ask(zones, "a.example.", "HTTPS").additional) == [
        "s.example. 3600 IN A 192.0.2.2",
        's.example. 3600 IN HTTPS 1 . alpn="h2"',
    ]
    assert ask(zones, "n.example.", "HTTPS").additional == []


def test_additional_of_srv_naptr_and_wildcard_targets(tmp_path: Path) -> None:
    """SRV, NAPTR and MX bring addresses, a NAPTR its SRV too, also where a wildcard has the target."""
    text = HEAD + '*.w A 192.0.2.5\nsrv SRV 0 0 1 h.w\nnap NAPTR 1 1 "S" "x" "" srv\nmx MX 1 h.w\n'
    zones = table(tmp_path, {"example.": text})
    assert section(ask(zones, "srv.example.", "SRV").additional) == ["h.w.example. 3600 IN A 192.0.2.5"]
    assert [r.rdtype.name for r in ask(zones, "nap.example.", "NAPTR").additional] == ["SRV"]
    assert section(ask(zones, "mx.example.", "MX").additional) == ["h.w.example. 3600 IN A 192.0.2.5"]
