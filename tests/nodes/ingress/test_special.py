"""Names that are answered here, who gets them, and what overrides them."""

from __future__ import annotations

import dns.flags
import dns.message
import dns.rcode
import pytest

from .harness import Counter, zone_entry


@pytest.mark.parametrize(
    "name",
    [
        "1.0.0.10.in-addr.arpa",
        "5.16.172.in-addr.arpa",
        "5.31.172.in-addr.arpa",
        "1.1.168.192.in-addr.arpa",
        "1.2.0.192.in-addr.arpa",
        "1.100.100.in-addr.arpa",
        "255.255.255.255.in-addr.arpa.",
        "a.d.f.ip6.arpa",
        "1.8.e.f.ip6.arpa",
        "printer.local",
        "x.test",
        "x.invalid",
        "abc.onion",
        "router.home.arpa",
    ],
)
def test_locally_served_names_do_not_exist(name: str) -> None:
    """They are NXDOMAIN (or NODATA at their apex) with the SOA of RFC 6303, and nothing goes up."""
    counter = Counter()
    made = counter.ask(name, "PTR")
    assert made.rcode() in (dns.rcode.NXDOMAIN, dns.rcode.NOERROR)
    assert made.rcode() == dns.rcode.NXDOMAIN or name == "255.255.255.255.in-addr.arpa."
    assert made.flags & dns.flags.AA
    assert "nobody.invalid. 1 3600 1200 604800 10800" in made.authority[0].to_text()
    assert counter.take() == []


@pytest.mark.parametrize(
    "name",
    [
        "15.172.in-addr.arpa",
        "5.32.172.in-addr.arpa",
        "63.100.in-addr.arpa",
        "example",
        "arpa",
        "notlocalhost",
        "in-addr.arpa",
    ],
)
def test_their_neighbours_are_not_special(name: str) -> None:
    """A name beside them goes its usual way."""
    counter = Counter()
    counter.pending(name, "PTR")
    assert len(counter.take()) == 1


def test_an_empty_zone_has_an_apex() -> None:
    """SOA and NS at the apex are answered, other types are NODATA."""
    counter = Counter()
    assert (
        counter.ask("10.in-addr.arpa", "SOA")
        .answer[0]
        .to_text()
        .startswith("10.in-addr.arpa. 10800 IN SOA 10.in-addr.arpa.")
    )
    assert counter.ask("10.in-addr.arpa", "NS").answer[0].to_text() == "10.in-addr.arpa. 10800 IN NS 10.in-addr.arpa."
    nothing = counter.ask("10.in-addr.arpa", "A")
    assert (nothing.rcode(), nothing.answer, len(nothing.authority)) == (0, [], 1)


def test_localhost_is_loopback() -> None:
    """Localhost and every name below it have the loopback addresses, and so has the way back (RFC 6761 section 6.3)."""
    counter = Counter()
    assert counter.ask("LocalHost", "A").answer[0].to_text() == "LocalHost. 10800 IN A 127.0.0.1"
    assert counter.ask("x.localhost", "AAAA").answer[0].to_text() == "x.localhost. 10800 IN AAAA ::1"
    nothing = counter.ask("localhost", "MX")
    assert (nothing.rcode(), nothing.answer) == (0, [])
    assert counter.ask("1.0.0.127.in-addr.arpa", "PTR").answer[0].to_text().endswith("PTR localhost.")
    assert counter.ask("1" + ".0" * 31 + ".ip6.arpa", "PTR").answer[0].to_text().endswith("PTR localhost.")
    assert counter.ask("0.127.in-addr.arpa", "PTR").rcode() == 0  # an empty non-terminal
    assert counter.ask("2.0.0.127.in-addr.arpa", "PTR").rcode() == dns.rcode.NXDOMAIN


def test_resolver_arpa_is_nodata() -> None:
    """No designated resolver is told of yet: NODATA, not NXDOMAIN (RFC 9462 section 6.4)."""
    made = Counter().ask("_dns.resolver.arpa", "SVCB")
    assert (made.rcode(), made.answer) == (0, [])
    assert made.authority[0].to_text().startswith("resolver.arpa. 10800 IN SOA")


def test_a_configured_zone_overrides() -> None:
    """A zone at or below a special name, and covering the name asked, wins; the rest stays special."""
    counter = Counter(zones=[zone_entry("1.168.192.in-addr.arpa")])
    counter.pending("5.1.168.192.in-addr.arpa", "PTR")
    assert counter.ask("5.2.168.192.in-addr.arpa", "PTR").rcode() == dns.rcode.NXDOMAIN


def test_a_forward_rule_overrides() -> None:
    """A rule for the suffix itself wins; one for the root does not."""
    rule = {"suffix": "local.", "upstreams": [{"address": "192.0.2.53"}]}
    counter = Counter({"forward": {"rules": [rule, {**rule, "suffix": "."}]}})
    counter.pending("printer.local")
    assert counter.ask("x.test").rcode() == dns.rcode.NXDOMAIN


def test_those_who_may_not_resolve_are_refused() -> None:
    """A stranger gets zones served here, else REFUSED: special names are no exception."""
    assert Counter().ask("localhost", host="198.51.100.1").rcode() == dns.rcode.REFUSED


def test_chaos_tells_what_is_configured() -> None:
    """id.server, version.bind and health.raydns as configured; the rest is REFUSED."""
    counter = Counter({"server": {"nsid": "ns1", "version": "raydns"}})
    told = {
        name: counter.ask(name, "TXT", rdclass="CH").answer[0][0].to_text()
        for name in ("id.server", "hostname.bind", "version.bind", "version.server", "HEALTH.raydns")
    }
    assert told == {
        "id.server": '"ns1"',
        "hostname.bind": '"ns1"',
        "version.bind": '"raydns"',
        "version.server": '"raydns"',
        "HEALTH.raydns": '"ingress"',
    }
    assert counter.ask("authors.bind", "TXT", rdclass="CH").rcode() == dns.rcode.REFUSED
    assert counter.ask("id.server", "A", rdclass="CH").answer == []
    assert counter.ask("id.server", "ANY", rdclass="CH").answer != []
    assert Counter().ask("id.server", "TXT", rdclass="CH").rcode() == dns.rcode.REFUSED


@pytest.mark.parametrize("rdclass", ["HS", "ANY", "NONE", "CLASS77"])
def test_other_classes_are_refused(rdclass: str) -> None:
    """Nothing is known of them here."""
    assert Counter().ask("www.example.com", "A", rdclass=rdclass).rcode() == dns.rcode.REFUSED
