"""What no single option can tell: checks between options, and what works but hardly as meant.

They stand here and not in the models, so that one load tells all of them together with their lines.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from raydns.schemas import names
from raydns.schemas.config import Config
from raydns.schemas.config.base import split_address
from raydns.schemas.config.problems import value_text
from raydns.schemas.errors import NameError_

Found = tuple[tuple[str | int, ...], str, str, str]
"""Path, value, message, hint."""


def check(config: Config) -> list[Found]:
    """Everything that makes the configuration unusable."""
    return [
        *_access(config),
        *_cache(config),
        *_forward(config),
        *_zones(config),
        *_llm(config),
        *_machine(config),
    ]


def warn(config: Config) -> list[str]:
    """Sentences about what is legal and probably not meant."""
    found: list[str] = []
    for i, zone in enumerate(config.zones.files):
        if not Path(zone.file).is_file():
            found.append(f"zones.files[{i}].file: {zone.file} is not there; {zone.name} answers SERVFAIL until it is")
    if config.forward.timeout_s > config.server.query_timeout_s:
        found.append(
            f"forward.timeout_s ({config.forward.timeout_s:g}) is longer than server.query_timeout_s "
            f"({config.server.query_timeout_s:g}): clients get SERVFAIL first"
        )
    served = {zone.name for zone in config.zones.files}
    for i, name in enumerate(config.llm.zones):
        if config.llm.enabled and name in served:
            found.append(f"llm.zones[{i}]: {name} is also a zone with a master file, which wins")
    return found


def _access(config: Config) -> Iterator[Found]:
    classes = config.access.classes
    yield from _repeats("access", "classes", "name", (item.name for item in classes), "give each class a name")
    owner: dict[str, str] = {}
    for i, item in enumerate(classes):
        for j, prefix in enumerate(item.prefixes):
            other = owner.setdefault(prefix, item.name)
            if other != item.name:
                said = f"belongs to class {other} already"
                yield ("access", "classes", i, "prefixes", j), repr(prefix), said, "a prefix has one class; narrow one"


def _cache(config: Config) -> Iterator[Found]:
    cache = config.cache
    if cache.ttl_min_s > cache.ttl_max_s:
        said = f"is more than cache.ttl_max_s ({cache.ttl_max_s})"
        yield ("cache", "ttl_min_s"), str(cache.ttl_min_s), said, "lower it, or raise cache.ttl_max_s"
    if cache.failure_ttl_s > cache.failure_ttl_max_s:
        said = f"is more than cache.failure_ttl_max_s ({cache.failure_ttl_max_s:g})"
        yield ("cache", "failure_ttl_s"), f"{cache.failure_ttl_s:g}", said, "lower it"


def _forward(config: Config) -> Iterator[Found]:
    forward = config.forward
    if forward.port_min > forward.port_max:
        said = f"is more than forward.port_max ({forward.port_max})"
        yield ("forward", "port_min"), str(forward.port_min), said, "the range runs from port_min to port_max"
    if forward.breaker.open_s > forward.breaker.open_max_s:
        said = f"is more than forward.breaker.open_max_s ({forward.breaker.open_max_s:g})"
        yield ("forward", "breaker", "open_s"), f"{forward.breaker.open_s:g}", said, "lower it"
    suffixes = (rule.suffix for rule in forward.rules)
    yield from _repeats("forward", "rules", "suffix", suffixes, "put all upstreams into one rule")
    for i, rule in enumerate(forward.rules):
        for j, upstream in enumerate(rule.upstreams):
            problem = upstream_problem(upstream.address)
            if problem:
                hint = "write 192.0.2.1, 192.0.2.1:53, '[2001:db8::1]:53' or dns.example:53"
                path = ("forward", "rules", i, "upstreams", j, "address")
                yield path, value_text(path, upstream.address), problem, hint


def upstream_problem(address: str) -> str:
    """What is wrong with the address or ``NAME:PORT`` of an upstream; empty: nothing."""
    try:
        split_address(address)
    except ValueError as error:
        host, colon, port = address.partition(":")
        if not host or host.startswith("[") or ":" in port or host.replace(".", "").isdecimal():
            return f"is refused: {error}"
        if not colon:
            return "is a name without a port"
        if not port.isdecimal() or not 0 < int(port) <= 65535:
            return f"has no port from 1 to 65535 ({port!r})"
        try:
            names.from_text(host)
        except NameError_ as named:
            return f"is refused: {named.message}"
    return ""


def _zones(config: Config) -> Iterator[Found]:
    apexes = (zone.name for zone in config.zones.files)
    yield from _repeats("zones", "files", "name", apexes, "a zone has one master file")
    for i, zone in enumerate(config.zones.files):
        if not zone.file:
            yield ("zones", "files", i, "file"), "''", "is empty", "name the master file"


def _llm(config: Config) -> Iterator[Found]:
    llm = config.llm
    if not _is_variable(llm.api_key_env):
        # Somebody may have written the key itself here; it is hidden by the option's name.
        said, hint = "is not the name of a variable", "write OPENROUTER_API_KEY here and the key into the environment"
        yield ("llm", "api_key_env"), value_text(("llm", "api_key_env"), llm.api_key_env), said, hint
    if llm.api_key_file:
        path, value = ("llm", "api_key_file"), value_text(("api_key_file",), llm.api_key_file)
        try:
            mode = Path(llm.api_key_file).stat().st_mode
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or str(error)
            yield path, value, f"cannot be read: {reason}", "write the key alone into that file, mode 0600"
            return
        if mode & 0o077:
            said = f"can be read by others (mode {mode & 0o777:04o})"
            yield path, value, said, f"chmod 600 {value}"


def _is_variable(name: str) -> bool:
    return name == "" or (name.isascii() and name.isidentifier() and name == name.upper())


def _machine(config: Config) -> Iterator[Found]:
    server, cluster = config.server, config.cluster
    if not server.listen:
        yield ("server", "listen"), "", "names no address", "write ['0.0.0.0', '::'] for all"
    yield from _repeats("server", "listen", None, server.listen, "name each address once")
    if not server.state_dir:
        yield ("server", "state_dir"), "''", "is empty", "name a directory for what must survive"
    if not cluster.head and not cluster.address:
        hint = "write the head's HOST:PORT, or cluster.head: true"
        yield ("cluster", "address"), "", "is missing on a machine that is not the head", hint
    if config.web.enabled and split_address(config.web.listen)[1] is None:
        yield ("web", "listen"), repr(config.web.listen), "has no port", "write 127.0.0.1:8053"


def _repeats(section: str, option: str, key: str | None, values: Iterable[str], hint: str) -> Iterator[Found]:
    first: dict[str, int] = {}
    for i, value in enumerate(values):
        at = first.setdefault(value, i)
        if at != i:
            path = (section, option, i) if key is None else (section, option, i, key)
            yield path, repr(value), f"stands in {section}.{option}[{at}] already", hint
