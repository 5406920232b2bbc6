"""What a client with ``dig`` gets from a running node (issue: what it must show, 1)."""

from __future__ import annotations

import re
import time

import pytest

from .node import Node

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(180)]

TRANSPORTS = [("127.0.0.1", "+notcp"), ("127.0.0.1", "+tcp"), ("::1", "+notcp"), ("::1", "+tcp")]

EXPECTED = [
    ("www.raydns.example", "A", ["192.0.2.80", "192.0.2.81"]),
    ("www.raydns.example", "AAAA", ["2001:db8::80"]),
    ("raydns.example", "MX", ["10 mail.raydns.example.", "20 mail.backup.raydns.example."]),
    ("txt.raydns.example", "TXT", ['"several" "strings in" "one record"']),
    ("_dns._udp.raydns.example", "SRV", ["0 5 1053 ns1.raydns.example.", "1 5 1053 ns2.raydns.example."]),
    ("raydns.example", "CAA", ['0 iodef "mailto:security@raydns.example"', '0 issue "ca.example.net"']),
    ("_dns.ns1.raydns.example", "SVCB", ['1 ns1.raydns.example. alpn="dot" port=853']),
    ("raydns.example", "HTTPS", ['1 . alpn="h2,h3" ipv4hint=192.0.2.10 ipv6hint=2001:db8::10']),
    (
        "_25._tcp.mail.raydns.example",
        "TLSA",
        ["3 1 1 D2ABDE240D7CD3EE6B4B28C54DF034B97983A1D16E8A410E4561CB10 6618E971"],
    ),
    ("unknown.raydns.example", "TYPE65280", ["\\# 4 0A000001"]),
    ("a.b.wild.raydns.example", "A", ["192.0.2.42"]),
    ("host.wild.raydns.example", "A", ["192.0.2.43"]),
    ("host.old.raydns.example", "A", ["192.0.2.60", "host.new.raydns.example.", "new.raydns.example."]),
    (
        "alias1.raydns.example",
        "A",
        ["192.0.2.80", "192.0.2.81", "alias2.raydns.example.", "alias3.raydns.example.", "www.raydns.example."],
    ),
]


@pytest.mark.parametrize(("server", "transport"), TRANSPORTS)
def test_every_type_is_answered_over_every_transport(node: Node, server: str, transport: str) -> None:
    """Proves that the zone's records of each type come over UDP and TCP, IPv4 and IPv6."""
    for name, qtype, expected in EXPECTED:
        got = sorted(node.short(transport, name, qtype, server=server))
        assert got == sorted(expected), f"{name} {qtype} over {server} {transport}: {got}"


@pytest.mark.parametrize(("server", "transport"), TRANSPORTS)
def test_nodata_nxdomain_any_and_referrals(node: Node, server: str, transport: str) -> None:
    """Proves rcode, AA and authority of a missing type, a missing name, an empty non-terminal, ANY and a cut."""
    nodata = node.dig(transport, "www.raydns.example", "MX", server=server)
    assert "status: NOERROR" in nodata
    assert re.search(r"raydns\.example\.\s+300\s+IN\s+SOA", nodata)
    missing = node.dig(transport, "nothing.raydns.example", "A", server=server)
    assert "status: NXDOMAIN" in missing
    assert "flags: qr aa rd" in missing
    empty = node.dig(transport, "empty.raydns.example", "A", server=server)
    assert "status: NOERROR" in empty
    assert "ANSWER: 0" in empty
    any_answer = node.dig(transport, "www.raydns.example", "ANY", server=server)
    assert "status: NOERROR" in any_answer
    assert "ANSWER: 0" not in any_answer
    referral = node.dig(transport, "+norecurse", "host.sub.raydns.example", "A", server=server)
    assert re.search(r"flags: qr( ra)?;", referral)  # no AA
    assert re.search(r"sub\.raydns\.example\.\s+3600\s+IN\s+NS\s+ns1\.sub\.raydns\.example\.", referral)
    assert re.search(r"ns1\.sub\.raydns\.example\.\s+3600\s+IN\s+A\s+192\.0\.2\.101", referral)


@pytest.mark.peer
def test_a_name_that_a_rule_forwards_comes_from_the_real_upstream_and_is_kept(node: Node) -> None:
    """Proves that a forwarded answer is right over both transports, and is counted down from the cache after that."""
    assert node.short("www.upstream.test", "A") == ["198.51.100.1"]
    assert sorted(node.short("+tcp", "alias.upstream.test", "A")) == ["198.51.100.1", "www.upstream.test."]
    first = node.dig("x1.cold.upstream.test", "A")
    assert "flags: qr rd ra" in first
    time.sleep(1.1)  # a TTL counts whole seconds
    again = node.dig("X1.COLD.upstream.test", "A")
    ttl = int(re.search(r"X1\.COLD\.upstream\.test\.\s+(\d+)\s+IN\s+A", again)[1])  # type: ignore[index]
    assert 290 <= ttl < 300
    assert "status: NXDOMAIN" in node.dig("nothing.upstream.test", "A")
    assert "status: NOERROR" in node.dig("www.upstream.test", "MX")


def test_four_kilobytes_come_over_tcp_after_tc(node: Node) -> None:
    """Proves that UDP says TC within 1232 octets and that dig's own retry over TCP gets the whole text."""
    cut = node.dig("+ignore", "big.raydns.example", "TXT")
    assert re.search(r"flags: qr aa tc rd", cut)
    assert int(re.search(r"MSG SIZE  rcvd: (\d+)", cut)[1]) <= 1232  # type: ignore[index]
    whole = node.dig("big.raydns.example", "TXT")
    assert int(re.search(r"MSG SIZE  rcvd: (\d+)", whole)[1]) > 4096  # type: ignore[index]
    text = "".join(re.findall(r'"([^"]*)"', "".join(node.short("big.raydns.example", "TXT"))))
    assert len(text) == 4096


def test_a_name_that_nobody_has_is_refused_with_the_reason(node: Node) -> None:
    """Proves that what no zone, rule or prompt covers gets REFUSED and an Extended DNS Error."""
    answer = node.dig("www.elsewhere.example", "A")
    assert "status: REFUSED" in answer
    assert "EDE: 20" in answer


@pytest.mark.model
@pytest.mark.parametrize("transport", ["+notcp", "+tcp"])
def test_the_embedded_model_knows_the_capital_of_france(node: Node, transport: str) -> None:
    """Proves that a catch-all TXT question is answered by the embedded model, at the latest when asked again."""
    deadline = time.monotonic() + 60
    answer: list[str] = []
    while time.monotonic() < deadline and "Paris" not in "".join(answer):
        answer = node.short(transport, "+time=10", "what.is.the.capital.of.france", "TXT")
    assert len(answer) == 1
    assert "Paris" in answer[0]
    assert "[offline demo]" in answer[0]


@pytest.mark.model
def test_a_name_in_the_llm_zone_is_answered_without_recursion_desired(node: Node) -> None:
    """Proves zone mode for resolvers: RD=0, AA set, other types NODATA, the apex has its records."""
    deadline = time.monotonic() + 60
    answer = ""
    while time.monotonic() < deadline and "Paris" not in answer:
        answer = node.dig("+norecurse", "+time=10", "what.is.the.capital.of.france.llm.example", "TXT")
    assert "Paris" in answer
    assert "flags: qr aa" in answer
    other = node.dig("+norecurse", "what.is.rust.llm.example", "A")
    assert "status: NOERROR" in other
    assert "ANSWER: 0" in other
    assert "SOA" in node.dig("+norecurse", "llm.example", "SOA")
