"""Section ``server``: where this machine listens, how much it takes on, where it keeps its state."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from raydns.schemas.config.base import Section, SocketAddress


class TcpConfig(Section):
    """Limits of DNS over TCP (RFC 7766, RFC 9210)."""

    clients_max: Annotated[int, Field(ge=1, le=1_000_000)] = 1024
    """Connections at once; the longest idle is closed for a new one."""
    prefix_clients_max: Annotated[int, Field(ge=1)] = 32
    """Connections at once from one /24 or /56."""
    idle_s: Annotated[float, Field(gt=0, le=3600)] = 10.0
    """Seconds without a query after which a connection is closed (RFC 7766 section 6.2.3)."""
    in_flight_max: Annotated[int, Field(ge=1, le=1024)] = 64
    """Unanswered queries on one connection; reading pauses above it."""
    turn: Annotated[int, Field(ge=1)] = 50
    """Queries of one connection before another connection gets its turn."""


class ServerConfig(Section):
    """The DNS service of a machine."""

    listen: tuple[SocketAddress, ...] = ("0.0.0.0", "::")  # noqa: S104 - classes decide
    """Addresses for UDP and TCP: ``ADDRESS``, ``ADDRESS:PORT`` or ``[IPV6]:PORT``."""
    port: Annotated[int, Field(ge=0, le=65535)] = 1053
    """Port where ``listen`` names none; 0 takes a free one (tests)."""
    state_dir: str = "~/.raydns"
    """Directory for all that must survive: secrets, images, zones, what was last known. Created with mode 0700."""
    name: str = ""
    """This machine's name; empty: the host name. It survives a new Ray node id."""
    max_concurrent_queries: Annotated[int, Field(ge=1, le=1_000_000)] = 10_000
    """Queries of this machine that wait for an answer from above; beyond it the newest is shed."""
    query_timeout_s: Annotated[float, Field(gt=0, le=60)] = 7.0
    """How long a client query may take, in seconds; then SERVFAIL with EDE. Prompts have ``llm.wait_stub_ms``."""
    waiters_per_name_max: Annotated[int, Field(ge=1)] = 10_000
    """Clients of this machine that wait for the same name; the rest get a stale answer or SERVFAIL."""
    waiters_per_prefix_max: Annotated[int, Field(ge=1)] = 100
    """Of these, how many one client prefix (/24, /56) may have."""
    udp_size: Annotated[int, Field(ge=512, le=4096)] = 1232
    """Largest UDP answer in octets, and what our OPT announces."""
    receive_buffer: Annotated[int, Field(ge=65536)] = 4 * 1024 * 1024
    """SO_RCVBUF of UDP sockets in octets."""
    nsid: str = ""
    """NSID (RFC 5001) and ``id.server`` CH TXT; empty: the machine's name is not told."""
    version: str = ""
    """``version.bind`` CH TXT; empty: not told."""
    tcp: TcpConfig = TcpConfig()
    """Limits of TCP."""
