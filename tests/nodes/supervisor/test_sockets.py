"""Binding: options, free ports, and what an operator reads when it does not work."""

from __future__ import annotations

import errno
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from raydns.nodes.supervisor import holders, sockets
from raydns.nodes.supervisor.sockets import Address, Named, bind_all
from raydns.schemas.config import Config
from raydns.schemas.errors import SocketError

BUFFER = 1 << 20
LOOPBACK = [Address("127.0.0.1", 0), Address("::1", 0)]


@pytest.fixture
def bound() -> Iterator[list[Named]]:
    """Sockets on loopback, closed at the end."""
    made = bind_all(LOOPBACK, receive_buffer=BUFFER)
    yield made
    for _, one in made:
        one.close()


def port_of(named: list[Named]) -> int:
    """The port of the first."""
    return sockets.address_of(named[0][1]).port


def test_wanted_reads_the_configuration() -> None:
    """Ports come from the address or from server.port; duplicates count once; the default ``::`` is optional."""

    def of(**server: Any) -> list[Address]:
        return sockets.wanted(Config.model_validate({"server": server}))

    assert of() == [Address("0.0.0.0", 1053), Address("::", 1053, optional=True)]
    assert of(listen=["::"]) == [Address("::", 1053)]
    assert of(listen=["127.0.0.1", "127.0.0.1:5300", "[::1]:0", "127.0.0.1"], port=53) == [
        Address("127.0.0.1", 53),
        Address("127.0.0.1", 5300),
        Address("::1", 0),
    ]


def test_one_free_port_for_everything(bound: list[Named]) -> None:
    """Port 0 is the same free port for UDP and TCP of every address."""
    assert [name for name, _ in bound] == ["udp", "tcp", "udp", "tcp"]
    assert len({sockets.address_of(one).port for _, one in bound}) == 1


def test_options(bound: list[Named]) -> None:
    """UDP: no SO_REUSEADDR, a large buffer. TCP: SO_REUSEADDR, listening. IPv6 speaks IPv6 only. Nothing inherited."""
    for name, one in bound:
        reuse = one.getsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR)
        assert bool(reuse) is (name == "tcp")
        assert not os.get_inheritable(one.fileno())
        if name == "udp":
            assert one.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF) >= BUFFER
        else:
            assert one.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN) == 1
        if one.family == socket.AF_INET6:
            assert one.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY) == 1


def test_both_wildcards_side_by_side() -> None:
    """0.0.0.0 and :: bind the same port."""
    made = bind_all([Address("0.0.0.0", 0), Address("::", 0)], receive_buffer=BUFFER)
    assert len(made) == 4
    for _, one in made:
        one.close()


def test_held_sockets_are_used_and_the_port_is_kept(bound: list[Named]) -> None:
    """Sockets that fit are the same objects again, also for port 0; only what is new is bound."""
    more = bind_all([*LOOPBACK, Address("127.0.0.2", 0)], receive_buffer=BUFFER, held=bound)
    assert [one for _, one in more[:4]] == [one for _, one in bound]
    assert port_of(more[4:]) == port_of(bound)
    for _, one in more[4:]:
        one.close()


def test_the_port_of_last_time_is_tried_first(bound: list[Named]) -> None:
    """A free hint is taken; one that is in use is passed over."""
    port = port_of(bound)
    other = bind_all(LOOPBACK, receive_buffer=BUFFER, port_hint=port)
    assert port_of(other) != port
    for _, one in [*bound, *other]:
        one.close()
    again = bind_all(LOOPBACK, receive_buffer=BUFFER, port_hint=port)
    assert port_of(again) == port
    for _, one in again:
        one.close()


@pytest.mark.parametrize("kind", ["udp", "tcp"])
@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_port_in_use_names_the_holder(kind: str, host: str) -> None:
    """The message tells transport, address, process id and command of whoever has the port; nothing stays bound."""
    program = (
        "import socket, sys\n"
        f"s = socket.socket({'socket.AF_INET6' if ':' in host else 'socket.AF_INET'}, "
        f"{'socket.SOCK_DGRAM' if kind == 'udp' else 'socket.SOCK_STREAM'})\n"
        f"s.bind(({host!r}, 0))\n"
        f"{'s.listen()' if kind == 'tcp' else ''}\n"
        "print(s.getsockname()[1], flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout is not None
        port = int(holder.stdout.readline())
        before = len(os.listdir("/proc/self/fd"))
        with pytest.raises(SocketError) as caught:
            bind_all([Address(host, port)], receive_buffer=BUFFER)
        assert len(os.listdir("/proc/self/fd")) == before
        assert f"port {port} is in use by process {holder.pid} ({sys.executable}" in caught.value.message
        assert caught.value.where.startswith(kind.upper())
        assert host in caught.value.where
        assert "server.port" in caught.value.hint
        holder.kill()


def test_systemd_resolved_gets_its_own_hint(monkeypatch: pytest.MonkeyPatch) -> None:
    """A stub listener on 127.0.0.53 in the way of the wildcard is told how to switch off."""
    held = [holders.Holder("127.0.0.53:53", 0, "")]
    monkeypatch.setattr(holders, "find", lambda *_: held)
    error = sockets.explain(OSError(errno.EADDRINUSE, "in use"), "udp", Address("0.0.0.0", 53))
    assert "DNSStubListener=no" in error.hint
    assert "in use by a process of another user on 127.0.0.53:53" in error.message
    held[0] = holders.Holder("0.0.0.0:53", 77, "/usr/lib/systemd/systemd-resolved")
    error = sockets.explain(OSError(errno.EADDRINUSE, "in use"), "udp", Address("127.0.0.1", 53))
    assert "DNSStubListener=no" in error.hint
    held[0] = holders.Holder("0.0.0.0:53", 77, "python -m raydns.nodes.ingress.main --state-dir /x")
    error = sockets.explain(OSError(errno.EADDRINUSE, "in use"), "tcp", Address("127.0.0.1", 53))
    assert "kill 77" in error.hint
    held.clear()
    error = sockets.explain(OSError(errno.EADDRINUSE, "in use"), "tcp", Address("127.0.0.1", 53))
    assert error.message == "port 53 is in use"


def test_a_real_stub_listener_in_the_way() -> None:
    """Something on 127.0.0.53 keeps 0.0.0.0 from binding the port, and the message names it."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stub:
        stub.bind(("127.0.0.53", 0))
        port = stub.getsockname()[1]
        with pytest.raises(SocketError) as caught:
            bind_all([Address("0.0.0.0", port)], receive_buffer=BUFFER)
        assert f"process {os.getpid()} " in caught.value.message
        assert f"on 127.0.0.53:{port}" in caught.value.message
        assert "systemd-resolved" in caught.value.hint


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to drop privileges")
def test_port_53_without_permission() -> None:
    """As nobody, port 53 is refused with the capability that is missing and the port that would do."""
    with open("/proc/sys/net/ipv4/ip_unprivileged_port_start", encoding="ascii") as file:
        if int(file.read()) <= 53:
            pytest.skip("any user may bind port 53 here")
    program = (
        "import os\nfrom raydns.nodes.supervisor.sockets import Address, bind_all\n"
        "from raydns.schemas.errors import SocketError\n"
        "from raydns.nodes.supervisor import holders\nimport ipaddress, encodings.idna\n"
        "os.setgid(65534); os.setuid(65534)\n"
        "try: bind_all([Address('127.0.0.1', 53)], receive_buffer=65536)\nexcept SocketError as error: print(error)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=30, check=True)
    assert "UDP 127.0.0.1:53: port 53 needs a privilege that user 65534 does not have" in done.stdout
    assert "CAP_NET_BIND_SERVICE" in done.stdout
    assert "1053" in done.stdout


def test_an_address_that_is_not_here() -> None:
    """An address of another machine is named, with the command that shows ours."""
    with pytest.raises(SocketError, match=r"this machine has no address 192\.0\.2\.254") as caught:
        bind_all([Address("192.0.2.254", 5353)], receive_buffer=BUFFER)
    assert "ip address" in caught.value.hint


def test_a_machine_without_ipv6(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """The default ``::`` is a warning there; one that was written down is an error."""
    real = socket.socket

    class WithoutIPv6(real):  # type: ignore[valid-type,misc]
        def __init__(self, family: int = -1, *rest: Any, **more: Any) -> None:
            if family == socket.AF_INET6:
                raise OSError(errno.EAFNOSUPPORT, "Address family not supported by protocol")
            super().__init__(family, *rest, **more)

    monkeypatch.setattr(socket, "socket", WithoutIPv6)
    made = bind_all([Address("127.0.0.1", 0), Address("::", 0, optional=True)], receive_buffer=BUFFER)
    assert [name for name, _ in made] == ["udp", "tcp"]
    assert "no IPv6" in caplog.text
    for _, one in made:
        one.close()
    with pytest.raises(SocketError, match="does not speak that address family"):
        bind_all([Address("127.0.0.1", 0), Address("::", 0)], receive_buffer=BUFFER)
    with pytest.raises(SocketError, match="none of the addresses"):
        bind_all([Address("::", 1053, optional=True)], receive_buffer=BUFFER)


def test_given_sockets_of_socket_activation(bound: list[Named], caplog: pytest.LogCaptureFixture) -> None:
    """DNS sockets are told by their type, whatever systemd called them; Unix sockets and HTTP are left out."""
    with socket.socket(socket.AF_UNIX) as odd:
        given = [("raydns.socket", one) for _, one in bound[:2]] + [("web", bound[3][1]), ("x", odd)]
        assert [name for name, _ in sockets.adopt_given(given, BUFFER)] == ["udp", "tcp"]
        assert sockets.adopt_given([("x", bound[0][1])], BUFFER) == [("udp", bound[0][1])]
    assert "only one of UDP and TCP" in caplog.text
