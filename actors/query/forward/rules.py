"""Forward rules as the pipeline uses them, and what is wrong with them as the operator is told."""

from __future__ import annotations

import re
from collections.abc import Iterator
from ipaddress import ip_address
from typing import Final, NamedTuple

from raydns.schemas import names
from raydns.schemas.config.base import split_address
from raydns.schemas.config.forward import ForwardConfig, RuleConfig, UpstreamConfig
from raydns.schemas.errors import ConfigError

from .own import OwnAddresses

PORT: Final = 53
_HOST_NAME: Final = re.compile(
    r"(?=.{1,253}$)([A-Za-z0-9_]([A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?)(\.[A-Za-z0-9_-]{1,63})*\.?"
)


class Target(NamedTuple):
    """An upstream as the configuration names it."""

    host: str  # an address in normal form, or a host name
    port: int
    transport: str  # "udp" or "tcp"
    by_name: bool
    text: str  # as written


class Rule(NamedTuple):
    """Names at or below ``suffix`` go to ``targets``."""

    suffix: bytes  # key form
    targets: tuple[Target, ...]


class RuleTable:
    """All rules; the longest suffix wins."""

    def __init__(self, rules: list[Rule]) -> None:
        self.rules = tuple(rules)
        self._by_suffix = {rule.suffix: rule for rule in rules}
        self._everything = self._by_suffix.get(names.ROOT) if len(rules) == 1 else None

    def match(self, key: bytes) -> Rule | None:
        """The rule for a name in key form."""
        if self._everything is not None or not self._by_suffix:
            return self._everything
        get = self._by_suffix.get
        position = 0
        while True:
            found = get(key[position:])
            if found is not None:
                return found
            size = key[position]
            if not size:
                return None
            position += size + 1


def parse_target(config: UpstreamConfig) -> Target:
    """Reads an upstream's address; raises ``ValueError`` with a sentence that says what is wrong."""
    text = config.address
    try:
        host, port = split_address(text, PORT)
    except ValueError:
        return _host_name(text, config.transport)
    address = ip_address(host)
    if not port:
        raise ValueError("port 0 is no port that can be asked")
    if address.is_unspecified or address.is_multicast or str(address) == "255.255.255.255":
        raise ValueError(f"{host} is no address of a server")
    return Target(host, port, config.transport, False, text)


def _host_name(text: str, transport: str) -> Target:
    host, colon, tail = text.partition(":")
    port = PORT
    if colon:
        if not tail.isdecimal() or not 0 < int(tail) < 65536:
            raise ValueError(f"{tail!r} is not a port (1 to 65535); IPv6 with a port is written [::1]:53")
        port = int(tail)
    # A last label of digits only is a mistyped address, never a name (RFC 1123 section 2.1).
    if not _HOST_NAME.fullmatch(host) or host.rstrip(".").rpartition(".")[2].isdecimal():
        raise ValueError(f"{host!r} is neither an IP address nor a host name")
    return Target(host.lower().rstrip("."), port, transport, True, text)


def problems(forward: ForwardConfig, own: OwnAddresses) -> list[ConfigError]:
    """Everything that is wrong with the section, each with its path; nothing is raised."""
    found: list[ConfigError] = []
    seen: dict[str, int] = {}
    for at, rule in enumerate(forward.rules):
        where = f"forward.rules[{at}]"
        if rule.suffix in seen:
            found.append(
                ConfigError(
                    f"suffix {rule.suffix!r} has a rule already (forward.rules[{seen[rule.suffix]}])",
                    where=f"{where}.suffix",
                    hint="put all upstreams of a suffix into one rule",
                )
            )
        seen.setdefault(rule.suffix, at)
        found.extend(error for _, error in _targets(rule, where, own) if error is not None)
    if forward.port_min > forward.port_max:
        found.append(
            ConfigError(
                f"port_min {forward.port_min} is above port_max {forward.port_max}",
                where="forward.port_min",
                hint="give a range of at least a thousand ports",
            )
        )
    for at, text in enumerate(forward.bootstrap):
        host, port = split_address(text, PORT)
        if own.holds(host, port or PORT):
            found.append(_loop_error(f"forward.bootstrap[{at}]", text))
    return found


def table(forward: ForwardConfig, own: OwnAddresses) -> tuple[RuleTable, list[ConfigError]]:
    """The rules without those upstreams that cannot be used, and why they cannot.

    A rule all of whose upstreams are refused stays, so that its names fail and do not fall through to another.
    """
    rules: dict[bytes, Rule] = {}
    for at, config in enumerate(forward.rules):
        targets = tuple(
            target
            for target, error in _targets(config, f"forward.rules[{at}]", own)
            if target is not None and error is None
        )
        suffix = names.key(names.from_text(config.suffix))
        rules.setdefault(suffix, Rule(suffix, targets))
    return RuleTable(list(rules.values())), problems(forward, own)


def _targets(rule: RuleConfig, where: str, own: OwnAddresses) -> Iterator[tuple[Target | None, ConfigError | None]]:
    for index, upstream in enumerate(rule.upstreams):
        path = f"{where}.upstreams[{index}].address"
        try:
            target = parse_target(upstream)
        except ValueError as error:
            hint = "write ADDRESS, ADDRESS:PORT, [IPV6]:PORT or a host name, with :PORT if it is not 53"
            yield None, ConfigError(f"{upstream.address!r}: {error}", where=path, hint=hint)
            continue
        looped = not target.by_name and own.holds(target.host, target.port)
        yield target, _loop_error(path, upstream.address) if looped else None


def _loop_error(where: str, text: str) -> ConfigError:
    return ConfigError(
        f"{text!r} is an address that this server itself listens on, so that it would ask itself for ever",
        where=where,
        hint="name another server, or another port",
    )
