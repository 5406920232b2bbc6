"""Domain names as lower-cased or case-preserving wire bytes, and what is computed from them.

A name is ``bytes`` in uncompressed wire form (RFC 1035 section 3.1), always with its root octet; it is
compared, hashed and stored in *key* form, which is the same with A–Z lowered. Lowering the whole buffer is
safe: a length octet is at most 63, below ``A``. Text appears only where a person reads or writes.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import mmh3

from raydns.schemas.errors import NameError_

ROOT: Final = b"\x00"
NAME_SIZE_MAX: Final = 255
LABEL_SIZE_MAX: Final = 63
LABELS_MAX: Final = 127

# RFC 4343 section 2.1: these are written with a backslash; everything outside 0x21..0x7E as \DDD.
_ESCAPED: Final = frozenset(b'."\\();@$')


def from_text(text: str, origin: bytes | None = None) -> bytes:
    r"""Reads a name as master files and people write it, with ``\.`` and ``\DDD`` escapes.

    Args:
        text: the name; characters above U+007F are taken as their UTF-8 octets.
        origin: what a name without a final dot is relative to; ``None`` makes it absolute.

    Returns:
        The name in wire form, case preserved.

    Raises:
        NameError_: an empty or overlong label or name, or a bad escape.
    """
    if text in {".", ""}:
        if text == "" and origin is None:
            raise NameError_("an empty string is not a name", hint="the root is written '.'")
        return ROOT if text == "." or origin is None else origin
    if text == "@" and origin is not None:
        return origin
    labels, absolute = _split(text)
    for label in labels:
        if not label:
            raise NameError_(f"empty label in {text!r}", hint="two dots stand next to each other, or one at the start")
        if len(label) > LABEL_SIZE_MAX:
            raise NameError_(
                f"a label of {len(label)} octets in {text!r}; a label has at most {LABEL_SIZE_MAX}",
                hint="shorten it, or put a dot into it",
            )
    tail = ROOT if absolute or origin is None else origin
    wire = b"".join(bytes((len(label),)) + label for label in labels) + tail
    if len(wire) > NAME_SIZE_MAX:
        raise NameError_(f"{text!r} has {len(wire)} octets; a name has at most {NAME_SIZE_MAX}", hint="shorten it")
    return wire


def _split(text: str) -> tuple[list[bytes], bool]:
    try:
        raw = text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError as error:  # half of a surrogate pair, as JSON can spell it
        raise NameError_(f"{text!r} holds a character that is none", hint="write octets as \\DDD") from error
    if b"\\" not in raw:
        absolute = raw.endswith(b".")
        return (raw[:-1] if absolute else raw).split(b"."), absolute
    labels: list[bytes] = []
    label = bytearray()
    absolute = False
    i = 0
    while i < len(raw):
        octet = raw[i]
        absolute = False
        if octet == 0x5C:
            digits = raw[i + 1 : i + 4]
            if digits[:1].isdigit():
                if len(digits) < 3 or not digits.isdigit() or int(digits) > 255:
                    raise NameError_(f"bad escape in {text!r}", hint="write \\DDD with three digits up to 255")
                label.append(int(digits))
                i += 4
                continue
            if i + 1 >= len(raw):
                raise NameError_(f"{text!r} ends in a lone backslash", hint="a backslash itself is written \\\\")
            label.append(raw[i + 1])
            i += 2
            continue
        if octet == 0x2E:
            labels.append(bytes(label))
            label.clear()
            absolute = True
        else:
            label.append(octet)
        i += 1
    if not absolute:
        labels.append(bytes(label))
    return labels, absolute


def to_text(name: bytes) -> str:
    r"""The name as people read it, absolute, with ``\DDD`` for what cannot be printed (RFC 1035 section 5.1)."""
    if name == ROOT:
        return "."
    out: list[str] = []
    for label in labels(name):
        for octet in label:
            if octet in _ESCAPED:
                out.append("\\" + chr(octet))
            elif 0x21 <= octet <= 0x7E:
                out.append(chr(octet))
            else:
                out.append(f"\\{octet:03d}")
        out.append(".")
    return "".join(out)


def check(name: bytes) -> bytes:
    """Returns ``name`` if it is one whole uncompressed wire name; raises ``NameError_`` otherwise."""
    position = 0
    while True:
        if position >= len(name):
            raise NameError_(f"{name!r} lacks its root label")
        size = name[position]
        if size == 0:
            break
        if size > LABEL_SIZE_MAX:
            raise NameError_(f"{name!r} has a label octet of {size}")
        position += size + 1
    if position + 1 != len(name) or len(name) > NAME_SIZE_MAX:
        raise NameError_(f"{name!r} is not one whole name of at most {NAME_SIZE_MAX} octets")
    return name


def key(name: bytes) -> bytes:
    """The name with A–Z lowered: what is compared, hashed and stored (RFC 4343)."""
    return name.lower()


def labels(name: bytes) -> list[bytes]:
    """The labels, leftmost first, without the root."""
    found: list[bytes] = []
    position = 0
    while size := name[position]:
        found.append(name[position + 1 : position + 1 + size])
        position += size + 1
    return found


def label_count(name: bytes) -> int:
    """How many labels the name has, the root not counted."""
    count = position = 0
    while size := name[position]:
        position += size + 1
        count += 1
    return count


def from_labels(parts: list[bytes]) -> bytes:
    """The wire form of these labels, leftmost first."""
    return b"".join(bytes((len(part),)) + part for part in parts) + ROOT


def ancestors(name: bytes) -> Iterator[bytes]:
    """The name itself, its parent, and so on up to the root: the label walk."""
    position = 0
    while name[position]:
        yield name[position:]
        position += name[position] + 1
    yield ROOT


def parent(name: bytes) -> bytes:
    """The name without its leftmost label; the root's parent is the root."""
    return name[name[0] + 1 :] or ROOT


def is_subdomain(name: bytes, ancestor: bytes) -> bool:
    """Whether ``name`` is ``ancestor`` or below it; both in key form."""
    if not name.endswith(ancestor):
        return False
    cut = len(name) - len(ancestor)
    position = 0
    while position < cut:  # endswith may have matched inside a label
        position += name[position] + 1
    return position == cut


def canonical_key(name: bytes) -> bytes:
    """Bytes that sort as RFC 4034 section 6.1 orders names: by labels from the right, lower case.

    Each label ends in 0x00; a zero or one inside a label becomes 0x01 0x01 or 0x01 0x02, so that shorter
    labels come first and no content can pass for an end.
    """
    parts = labels(name.lower())
    parts.reverse()
    return b"".join(part.replace(b"\x01", b"\x01\x02").replace(b"\x00", b"\x01\x01") + b"\x00" for part in parts)


def ring_hash(name: bytes, seed: int) -> int:
    """Where a name in key form stands on the ring: the first 64 bits of MurmurHash3 x64 128.

    Every machine and the native engine must agree on it: the golden vectors are in ``tests/schemas``.
    """
    return mmh3.mmh3_x64_128_utupledigest(name, seed)[0]
