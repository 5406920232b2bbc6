"""Differential: the same zones and 2,000 seeded questions to NSD, to Knot, and to our images."""

from __future__ import annotations

import random
from collections import Counter
from pathlib import Path

import dns.flags
import dns.message
import dns.name
import dns.rcode
import dns.rdatatype
import pytest

from raydns.nodes.images import ZoneTable
from raydns.schemas import wire
from tests.nodes.images.peers import KNOT, NSD, running
from tests.nodes.images.zones import table

SEED = 4592
QUESTIONS = 2000

ZONE = r"""
$TTL 3600
@           SOA ns1 hostmaster 1 7200 900 86400 300
@           NS  ns1
@           NS  ns2.sub
@           NS  ns.else.test.
@           MX  10 mail
@           MX  20 mx.wild
@           A   192.0.2.80
ns1         A   192.0.2.1
ns1         AAAA 2001:db8::1
mail        A   192.0.2.2
Mixed.Case  TXT "as written"
a.b.c.ent   TXT "below empty non-terminals"
*.wild      A   192.0.2.3
*.wild      MX  5 mail
x.y.wild    TXT "blocks the wildcard"
*.mid.star  TXT "wildcard below a star's parent"
foo.*.deep  TXT "a star in the middle"
*.cw        CNAME target.wild
*.cn        CNAME nowhere
*.ds        DS  1 13 2 00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff
www         CNAME web
web         CNAME host
host        A   192.0.2.4
host        AAAA 2001:db8::4
out         CNAME www.elsewhere.invalid.
dangling    CNAME missing
tosub       CNAME www.sub
todname     CNAME a.dn
sub         NS  ns2.sub
sub         NS  ns.sub2
sub         DS  2 13 2 00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff
ns2.sub     A   192.0.2.5
hidden.sub  TXT "occluded"
sub2        NS  ns.sub2
ns.sub2     A   192.0.2.6
ns.sub2     AAAA 2001:db8::6
sub3        NS  ns.elsewhere.invalid.
dn          DNAME target
dn          TXT "beside a DNAME"
a.target    A   192.0.2.7
*.w.target  A   192.0.2.8
dnout       DNAME elsewhere.invalid.
srv         SRV 0 0 5060 host
svc         HTTPS 1 . alpn="h2"
svc         A   192.0.2.9
unk         TYPE65280 \# 3 010203
caa         CAA 0 issue "ca.test"
naptr       NAPTR 10 10 "a" "x" "" host
big         TXT "0" "1" "2"
multi       A   192.0.2.10
multi       A   192.0.2.11
multi       A   192.0.2.12
*.wns       NS  ns1
*.wdn       DNAME target
loop1       CNAME loop2
loop2       CNAME loop1
self        CNAME self
dl          DNAME dl2
dl2         DNAME dl
mxc         MX 1 www
mxc         MX 2 ns2.sub
mxc         MX 3 ns.else.test.
srvw        SRV 1 1 1 q.wild
nsw.delw    NS  q.wild
big2        NS  ns1.big2
ns1.big2    A   192.0.2.1
c1          CNAME c2
c2          CNAME c3
c3          CNAME c4
c4          CNAME c5
c5          CNAME c6
c6          CNAME c7
c7          CNAME c8
c8          A   192.0.2.13
tosub2      CNAME sub2
kx          KX 1 host
ptr         PTR host
"""

TYPES = [
    "A",
    "AAAA",
    "NS",
    "MX",
    "TXT",
    "CNAME",
    "DNAME",
    "DS",
    "SOA",
    "SRV",
    "TYPE65280",
    "CAA",
    "PTR",
    "SVCB",
    "ANY",
    "KX",
]
LABELS = ["a", "b", "c", "x", "y", "*", "foo", "zz", "www", "ns"]
ADDITIONAL_OURS = {"SVCB", "HTTPS", "NAPTR", "KX"}  # RFC 9460, 3403, 2230 ask for it; the peers leave it out


def questions(rng: random.Random) -> list[tuple[str, str]]:
    """Names of the zone, with labels in front, taken off or changed."""
    owners = sorted({line.split()[0] for line in ZONE.splitlines() if line and line[0] not in "$@ "})
    made = []
    for _ in range(QUESTIONS):
        labels = rng.choice(owners).split(".")
        for _ in range(rng.choice([0, 0, 1, 1, 2])):
            action = rng.randrange(3)
            if action == 0:
                labels.insert(0, rng.choice(LABELS))
            elif action == 1 and len(labels) > 1:
                labels.pop(0)
            else:
                labels[0] = rng.choice(LABELS)
        name = ".".join([*labels, "example", ""])
        made.append(("example." if rng.random() < 0.05 else name, rng.choice(TYPES)))
    return made


Shape = tuple[str, bool, frozenset[str], frozenset[str], frozenset[str]]


def shape(message: dns.message.Message) -> Shape:
    """What is compared: rcode, AA, and the sections as sets of records, names in lower case."""
    sections = [
        frozenset(line.lower() for rrset in part for line in rrset.to_text().splitlines())
        for part in (message.answer, message.authority, message.additional)
    ]
    return (dns.rcode.to_text(message.rcode()), bool(message.flags & dns.flags.AA), *sections)  # type: ignore[return-value]


def ours(zones: ZoneTable, query: dns.message.Message) -> Shape:
    """Our answer to the same octets."""
    found = zones.answer(wire.parse_query(query.to_wire()))
    assert found is not None
    assert wire.layout(found.message) == found.layout
    return shape(dns.message.from_wire(found.message))


@pytest.mark.peer
@pytest.mark.skipif(NSD is None or KNOT is None, reason="needs nsd and knotd")
def test_where_nsd_and_knot_agree_we_agree(tmp_path: Path) -> None:
    """Where NSD and Knot give the same rcode, AA and sections, so do we; elsewhere we match one of them in rcode."""
    zones = {"example.": ZONE}
    mine = table(tmp_path, zones)
    rng = random.Random(SEED)
    tally: Counter[str] = Counter()
    wrong: list[str] = []
    with running("nsd", zones) as nsd, running("knot", zones) as knot:
        for name, qtype in questions(rng):
            query = dns.message.make_query(name, qtype, use_edns=0, payload=4096)
            one, two, own = shape(nsd.ask(query)), shape(knot.ask(query)), ours(mine, query)
            if one[:4] != two[:4]:
                # Sections differ between the two: ours must be one of them.
                tally["peers differ"] += 1
                if own[:4] not in (one[:4], two[:4]):
                    wrong.append(f"{name} {qtype}: ours {own[:4]}, nsd {one[:4]}, knot {two[:4]}")
                continue
            tally["peers agree"] += 1
            additional_agrees = one[4] == two[4] and qtype not in ADDITIONAL_OURS
            if own[:4] != one[:4] or (additional_agrees and own[4] != one[4]):
                wrong.append(f"{name} {qtype}: ours {own}, both {one}")
    assert not wrong, f"seed {SEED}, {len(wrong)} of {tally}:\n" + "\n".join(wrong[:20])
    assert tally["peers agree"] > QUESTIONS * 0.8, tally
