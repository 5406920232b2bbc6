"""Where this node answers DNS: asked of the supervisor, else of the ingress, else read from the configuration."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from raydns.schemas.errors import CommandError, RaydnsError

if TYPE_CHECKING:
    from .shared import Settings

DEFAULT_PORT: Final = 53
_ANY: Final = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - what is asked instead of it


def server_of(settings: Settings, named: str | None) -> tuple[str, int]:
    """Address and port to ask: the one named, or this node's first; raises ``CommandError``, ``UnreachableError``."""
    from raydns.schemas.config.base import split_address

    if named:
        try:
            address, port = split_address(named, DEFAULT_PORT)
        except ValueError as error:
            hint = "ADDRESS, ADDRESS:PORT or [IPV6]:PORT"
            raise CommandError(str(error), where="query --server", hint=hint) from None
        return address, int(port or DEFAULT_PORT)
    found = addresses(settings)
    return found[0]


def addresses(settings: Settings) -> list[tuple[str, int]]:
    """Where this node answers, loopback in place of "any address"."""
    problem: RaydnsError | None = None
    for socket in (settings.state_dir.node_socket, settings.state_dir.ingress_socket):
        try:
            found = from_status(settings.call(socket, "status"))
        except RaydnsError as error:
            problem = problem or error
            continue
        if found:
            return found
    if problem is not None:
        raise problem
    return _from_config(settings)


def from_status(status: dict[str, Any]) -> list[tuple[str, int]]:
    """The addresses in a supervisor's status (``addresses``) or an ingress's (``sockets``: ``udp ADDRESS:PORT``)."""
    from raydns.schemas.config.base import split_address

    found: list[tuple[str, int]] = []
    for text in status.get("addresses") or status.get("sockets", []):
        try:
            address, port = split_address(str(text).rpartition(" ")[2])
        except ValueError:
            continue  # a socket that is closed has no address
        pair = (_ANY.get(address, address), int(port or DEFAULT_PORT))
        if pair not in found:
            found.append(pair)
    return found


def _from_config(settings: Settings) -> list[tuple[str, int]]:
    from raydns.schemas.config.base import split_address

    server = settings.loaded.config.server
    pairs = [split_address(text, server.port) for text in server.listen]
    return [(_ANY.get(address, address), int(port or DEFAULT_PORT)) for address, port in pairs]
