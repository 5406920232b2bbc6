"""What all configuration sections share: frozen models that refuse unknown keys, and the common field types."""

from __future__ import annotations

from ipaddress import ip_address, ip_network
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, PlainSerializer

from raydns.schemas import names
from raydns.schemas.errors import NameError_


class Section(BaseModel):
    """A frozen group of options; unknown keys are refused, field docstrings become the JSON schema's descriptions."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True, validate_default=True)


def split_address(text: str, port: int | None = None) -> tuple[str, int | None]:
    """Splits ``ADDRESS``, ``ADDRESS:PORT`` or ``[IPV6]:PORT``; raises ``ValueError`` with a sentence."""
    if not isinstance(text, str) or not text:
        raise ValueError("an address is written ADDRESS, ADDRESS:PORT or [IPV6]:PORT")
    host, tail = text, ""
    if text.startswith("["):
        host, bracket, tail = text[1:].partition("]")
        if not bracket or (tail and not tail.startswith(":")):
            raise ValueError(f"{text!r} is not an address; IPv6 with a port is written [::1]:53")
        tail = tail[1:]
    elif text.count(":") == 1:
        host, _, tail = text.partition(":")
    if tail:
        if not tail.isdecimal() or int(tail) > 65535:
            raise ValueError(f"{tail!r} is not a port (0 to 65535)")
        port = int(tail)
    try:
        return str(ip_address(host)), port
    except ValueError:
        raise ValueError(f"{host!r} is not an IP address") from None


def _socket_address(value: Any) -> str:
    host, port = split_address(value)
    if port is None:
        return host
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _prefix(value: Any) -> str:
    try:
        return str(ip_network(value))
    except ValueError as error:
        raise ValueError(f"{value!r} is not a prefix such as 192.0.2.0/24 or 2001:db8::/32 ({error})") from None


def _domain(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError(f"{value!r} is not a domain name")
    try:
        return names.to_text(names.key(names.from_text(value)))
    except NameError_ as error:
        raise ValueError(str(error)) from None


SocketAddress = Annotated[str, BeforeValidator(_socket_address)]
"""An IP address with or without a port, normalised text."""
Prefix = Annotated[str, BeforeValidator(_prefix)]
"""A network prefix, normalised text; host bits must be zero."""
Domain = Annotated[str, BeforeValidator(_domain), PlainSerializer(str)]
"""A domain name, absolute, lower case, as text."""
