"""The good path against real servers: Unbound recursing to NSD, both from Debian, on loopback."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import dns.message
import pytest

from raydns.actors.query.budget import Budget
from raydns.actors.query.forward.message import Question
from tests.actors.query.kit import config, forwarding, name

pytestmark = [
    pytest.mark.peer,
    pytest.mark.skipif(
        not (shutil.which("unbound") and shutil.which("nsd")), reason="needs unbound and nsd (apt-packages)"
    ),
]

ZONE = """$ORIGIN peer.test.
$TTL 300
@ SOA ns host 1 3600 600 86400 60
@ NS ns
ns A 127.0.0.1
www A 192.0.2.1
www A 192.0.2.2
www AAAA 2001:db8::1
alias CNAME alias2
alias2 CNAME www
broken CNAME nowhere
sub DNAME other
x.other A 192.0.2.9
mx MX 10 mail
mail A 192.0.2.3
_s._tcp SRV 1 2 53 mail
*.wild A 192.0.2.7
naptr NAPTR 10 20 "u" "E2U+sip" "!^.*$!sip:a@b!" .
strange TYPE65400 \\# 3 010203
svc HTTPS 1 . alpn=h2
caa CAA 0 issue "ca.test"
big TXT "{chunk}" "{chunk}" "{chunk}" "{chunk}" "{chunk}" "{chunk}" "{chunk}" "{chunk}"
big TXT "2{chunk}" "{chunk}" "{chunk}" "{chunk}" "{chunk}" "{chunk}" "{chunk}" "{chunk}"
""".replace("{chunk}", "x" * 250)


def _free_port() -> int:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port


@pytest.fixture(scope="module")
def unbound() -> Iterator[int]:
    """The port of an Unbound whose stub zone ``peer.test.`` is served by an NSD."""
    with tempfile.TemporaryDirectory(prefix="rd-peer-") as text:
        directory = Path(text)
        nsd_port, port = _free_port(), _free_port()
        (directory / "peer.zone").write_text(ZONE)
        # NSD limits answers to 200/s a source by default, wildcards in one bucket: Unbound would then say SERVFAIL.
        (directory / "nsd.conf").write_text(
            f'server:\n ip-address: 127.0.0.1@{nsd_port}\n username: ""\n zonesdir: "{text}"\n'
            f' pidfile: "{text}/nsd.pid"\n xfrdfile: "{text}/xfrd.state"\n zonelistfile: "{text}/zone.list"\n'
            f' xfrdir: "{text}"\n server-count: 1\n rrl-ratelimit: 0\nremote-control:\n control-enable: no\n'
            f'zone:\n name: "peer.test."\n zonefile: "peer.zone"\n'
        )
        (directory / "unbound.conf").write_text(
            f'server:\n interface: 127.0.0.1@{port}\n username: ""\n chroot: ""\n directory: "{text}"\n'
            f' pidfile: ""\n use-syslog: no\n do-daemonize: no\n do-not-query-localhost: no\n'
            f' module-config: "iterator"\n'
            f' local-zone: "test." nodefault\n access-control: 127.0.0.0/8 allow\n num-threads: 1\n'
            f'stub-zone:\n name: "peer.test."\n stub-addr: 127.0.0.1@{nsd_port}\nremote-control:\n control-enable: no\n'
        )
        processes = [
            subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            for command in (
                ["nsd", "-d", "-c", f"{text}/nsd.conf"],
                ["unbound", "-d", "-c", f"{text}/unbound.conf"],
            )
        ]
        try:
            _wait_ready(port)
            yield port
        finally:
            for process in processes:
                process.terminate()
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(5)
                process.kill()
                process.wait()


def _wait_ready(port: int) -> None:
    query = dns.message.make_query("www.peer.test.", "A").to_wire()
    end = time.monotonic() + 10
    while time.monotonic() < end:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.settimeout(0.3)
            with contextlib.suppress(OSError):
                sock.connect(("127.0.0.1", port))
                sock.send(query)
                if sock.recv(4096)[3] & 15 == 0:
                    return
        time.sleep(0.05)
    raise AssertionError("the peers did not start")


@pytest.mark.parametrize(
    ("text", "qtype", "rcode", "answer"),
    [
        ("www", "A", 0, ["www A 192.0.2.1", "www A 192.0.2.2"]),
        ("www", "AAAA", 0, ["www AAAA 2001:db8::1"]),
        ("WWW", "MX", 0, []),
        ("no", "A", 3, []),
        ("alias", "A", 0, ["alias CNAME alias2", "alias2 CNAME www", "www A 192.0.2.1", "www A 192.0.2.2"]),
        ("broken", "A", 3, ["broken CNAME nowhere"]),
        ("x.sub", "A", 0, ["sub DNAME other", "x.sub CNAME x.other", "x.other A 192.0.2.9"]),
        ("mx", "MX", 0, ["mx MX 10 mail"]),
        ("_s._tcp", "SRV", 0, ["_s._tcp SRV 1 2 53 mail"]),
        ("a.b.wild", "A", 0, ["a.b.wild A 192.0.2.7"]),
        ("naptr", "NAPTR", 0, ['naptr NAPTR 10 20 "u" "E2U+sip" "!^.*$!sip:a@b!" .']),
        ("strange", "TYPE65400", 0, ["strange TYPE65400 \\# 3 010203"]),
        ("svc", "HTTPS", 0, ['svc HTTPS 1 . alpn="h2"']),
        ("caa", "CAA", 0, ['caa CAA 0 issue "ca.test"']),
    ],
)
async def test_every_kind_of_answer_comes_through(
    unbound: int, text: str, qtype: str, rcode: int, answer: list[str]
) -> None:
    """What Unbound tells arrives whole and in order, with the times of RFC 2308 for negative answers."""
    async with forwarding(config((".", [f"127.0.0.1:{unbound}"]))) as forwarder:
        rule = forwarder.rules.rules[0]
        rdtype = dns.rdatatype.from_text(qtype)
        question = Question(name(f"{text}.peer.test."), int(rdtype), 1, text == "www")
        result = await forwarder.resolve(rule, question, Budget(20, 100_000, 11, time.monotonic() + 5))
        reply = result.reply
        message = dns.message.from_wire(reply.message)
        assert (reply.rcode, int(message.rcode())) == (rcode, rcode)
        origin = dns.name.from_text("peer.test.")
        found = [
            f"{rrset.name.relativize(origin)} {dns.rdatatype.to_text(rrset.rdtype)} {rd.to_text(origin)}"
            for rrset in message.answer
            for rd in sorted(rrset, key=str)
        ]
        assert found == answer
        assert reply.target is None
        if not answer or rcode:
            assert 0 < reply.fresh_s <= 60
        else:
            assert 0 < reply.fresh_s <= 300


async def test_a_large_answer_comes_over_tcp(unbound: int) -> None:
    """4 KB of TXT: truncated over UDP, whole over TCP."""
    async with forwarding(config((".", [f"127.0.0.1:{unbound}"]))) as forwarder:
        rule = forwarder.rules.rules[0]
        question = Question(name("big.peer.test."), 16)
        result = await forwarder.resolve(rule, question, Budget(20, 100_000, 11, time.monotonic() + 5))
        assert len(result.reply.message) > 4000
        assert forwarder.servers()[0].tcp.opened == 1


async def test_five_hundred_at_once(unbound: int) -> None:
    """Random wildcard names, all answered, with case that comes back and nothing strange."""
    async with forwarding(config((".", [f"127.0.0.1:{unbound}"]))) as forwarder:
        rule = forwarder.rules.rules[0]

        async def one(n: int) -> int:
            question = Question(name(f"r{n}.wild.peer.test."), 1)
            result = await forwarder.resolve(rule, question, Budget(20, 100_000, 11, time.monotonic() + 5))
            return result.reply.rcode

        for at in range(0, 500, 100):
            assert set(await asyncio.gather(*(one(n) for n in range(at, at + 100)))) == {0}
        server = forwarder.servers()[0]
        assert server.udp.strangers == 0
        assert server.state.case_random
        assert server.state.edns
