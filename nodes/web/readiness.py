"""Whether this machine can be sent queries: it has a state, and a real question gets a real reply."""

from __future__ import annotations

import asyncio
import random
from typing import Any, Final

from raydns.nodes.streams.probe import PROBE_MESSAGE
from raydns.schemas.config.base import split_address

from .sources import Source

PROBE_TIMEOUT_S: Final = 1.0
_WILDCARDS: Final = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - read, not bound


def reasons(node: Source[dict[str, Any]], ingress: Source[dict[str, Any]]) -> list[str]:
    """Why the machine is not ready by what its processes say; empty if nothing speaks against it."""
    found: list[str] = []
    if not ingress.up:
        found.append(f"the ingress does not answer: {ingress.problem or 'not asked yet'}")
    elif ingress.value.get("ready") is not True:
        why = ingress.value.get("problem") or "it has no state installed yet"
        found.append(f"the ingress is not ready: {why}")
    if node.up and node.value.get("stopping"):
        found.append("the node is stopping")
    return found


def probe_target(node: dict[str, Any]) -> tuple[str, int] | None:
    """An address at which this machine itself should be answered; ``None`` where none is known."""
    addresses = node.get("addresses")
    for text in addresses if isinstance(addresses, list | tuple) else ():
        try:
            host, port = split_address(str(text))
        except ValueError:
            continue
        if port:
            return _WILDCARDS.get(host, host), port
    return None


async def answers(target: tuple[str, int], timeout_s: float = PROBE_TIMEOUT_S) -> str:
    """Asks over UDP as a client does; what is wrong, or the empty text if any reply with our ID came."""
    loop = asyncio.get_running_loop()
    ident = random.getrandbits(16).to_bytes(2, "big")
    reply: asyncio.Future[str] = loop.create_future()
    place = f"{target[0]} port {target[1]}"
    try:
        transport, _ = await loop.create_datagram_endpoint(lambda: _Probe(ident, reply), remote_addr=target)
    except OSError as error:
        return f"no query can be sent to {place}: {error.strerror or error}"
    try:
        transport.sendto(ident + PROBE_MESSAGE[2:])
        return await asyncio.wait_for(reply, timeout_s)
    except TimeoutError:
        return f"a query to {place} got no reply within {timeout_s:g} s"
    finally:
        transport.close()


class _Probe(asyncio.DatagramProtocol):
    def __init__(self, ident: bytes, reply: asyncio.Future[str]) -> None:
        self._ident = ident
        self._reply = reply

    def datagram_received(self, data: bytes, _addr: tuple[str | Any, int]) -> None:
        if data[:2] == self._ident and len(data) >= 12 and data[2] & 0x80 and not self._reply.done():
            self._reply.set_result("")

    def error_received(self, error: Exception) -> None:
        if not self._reply.done():
            self._reply.set_result(f"a query was refused: {error}")
