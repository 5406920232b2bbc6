"""Names: text and wire, canonical order against dnspython's, the label walk, and the ring's hash."""

from __future__ import annotations

import itertools
import random

import dns.exception
import dns.name
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from raydns.schemas import names
from raydns.schemas.errors import NameError_

# Two busy cores: how long one example takes proves nothing.
settings.register_profile("raydns", deadline=None)
settings.load_profile("raydns")

MASK = (1 << 64) - 1


def fits(parts: list[bytes]) -> bool:
    """Whether these labels make a name of at most 255 octets."""
    return sum(len(part) + 1 for part in parts) + 1 <= 255


LABEL = st.binary(min_size=1, max_size=63)
WIRE_NAMES = st.lists(LABEL, max_size=12).filter(fits).map(names.from_labels)
# Few octets, so that names are often equal, related, or differ in case only; with the octets that order badly.
CLOSE_LABEL = st.binary(min_size=1, max_size=3).map(lambda b: bytes(b"aAbB\x00\x01\x02.\\*-z\xff"[x % 13] for x in b))
CLOSE_NAMES = st.lists(CLOSE_LABEL, max_size=4).map(names.from_labels)
ANY_NAME = st.one_of(WIRE_NAMES, CLOSE_NAMES)


def peer(name: bytes) -> dns.name.Name:
    """The same name in dnspython."""
    return dns.name.from_wire(name, 0)[0]


@given(ANY_NAME)
def test_text_round_trip(name: bytes) -> None:
    """Every wire name survives the way to text and back, octet for octet."""
    text = names.to_text(name)
    assert text.isascii()
    assert text.isprintable()
    assert " " not in text
    assert names.from_text(text) == name
    assert names.check(name) is name


@given(ANY_NAME)
def test_text_is_read_alike_by_dnspython(name: bytes) -> None:
    """What we write dnspython reads as the same name, and the other way round."""
    assert dns.name.from_text(names.to_text(name)).to_wire() == name
    assert names.from_text(peer(name).to_text()) == name


@given(st.text(max_size=300))
@example("\\")
@example("\\1")
@example("\\256.")
@example("a..b")
@example(".a")
@example("\\٣٣٣")
@example("\ud800")
def test_any_text_is_a_name_or_a_name_error(text: str) -> None:
    """Whatever people type gives a whole wire name or NameError_, never another exception."""
    for origin in (None, names.from_text("origin.example.")):
        try:
            name = names.from_text(text, origin)
        except NameError_:
            continue
        names.check(name)


@given(ANY_NAME, ANY_NAME)
def test_relative_names(name: bytes, origin: bytes) -> None:
    """A name without its final dot is completed by the origin; one with it is not."""
    text = names.to_text(name)
    assert names.from_text(text, origin) == name
    if name == names.ROOT:
        return
    if len(name) - 1 + len(origin) > 255:
        with pytest.raises(NameError_):
            names.from_text(text[:-1], origin)
    else:
        assert names.from_text(text[:-1], origin) == name[:-1] + origin


def test_origin_and_root_spellings() -> None:
    """'@' and the empty string are the origin, '.' is the root, an escaped dot does not end a name."""
    origin = names.from_text("example.")
    assert names.from_text("@", origin) == names.from_text("", origin) == origin
    assert names.from_text(".", origin) == names.from_text(".") == names.ROOT
    assert names.from_text("a\\.", origin) == b"\x02a.\x07example\x00"
    assert names.from_text("a\\046b.") == b"\x03a.b\x00"
    assert names.from_text("@") == b"\x01@\x00"
    assert names.from_text("bücher.example") == "\x07bücher\x07example\x00".encode()
    for bad in ("", "a..b", ".a", "x" * 64, "\\", "a\\", "\\12", "\\999", ".".join(["abc"] * 64)):
        with pytest.raises(NameError_):
            names.from_text(bad)


@given(st.binary(max_size=300))
def test_check_accepts_exactly_whole_names(data: bytes) -> None:
    """The check passes what dnspython reads as one uncompressed name to the last octet, and refuses the rest."""
    try:
        name, used = dns.name.from_wire(data, 0)
        whole = used == len(data) and not any(octet >= 0xC0 for octet in data[:1]) and name.to_wire() == data
    except dns.exception.DNSException:
        whole = False
    if whole:
        assert names.check(data) == data
    else:
        with pytest.raises(NameError_):
            names.check(data)


@given(ANY_NAME, ANY_NAME)
def test_canonical_order_is_dnspythons(one: bytes, two: bytes) -> None:
    """Canonical keys sort exactly as RFC 4034 section 6.1 orders the names."""
    left, right = names.canonical_key(one), names.canonical_key(two)
    assert (left < right) == (peer(one) < peer(two))
    assert (left == right) == (peer(one) == peer(two)) == (names.key(one) == names.key(two))


def test_canonical_order_of_the_rfc() -> None:
    """The example of RFC 4034 section 6.1 comes out in its order, wherever it starts."""
    ordered = [
        names.from_text(text)
        for text in (
            "example.",
            "a.example.",
            "yljkjljk.a.example.",
            "Z.a.example.",
            "zABC.a.EXAMPLE.",
            "z.example.",
            "\\001.z.example.",
            "*.z.example.",
            "\\200.z.example.",
        )
    ]
    shuffled = list(ordered)
    random.Random(1).shuffle(shuffled)
    assert sorted(shuffled, key=names.canonical_key) == ordered


@given(ANY_NAME)
def test_label_walk(name: bytes) -> None:
    """The walk goes from the name through each parent to the root, in one step a label."""
    walk = list(names.ancestors(name))
    assert walk[0] == name
    assert walk[-1] == names.ROOT
    assert len(walk) == names.label_count(name) + 1 == len(names.labels(name)) + 1
    for child, above in itertools.pairwise(walk):
        assert names.parent(child) == above
    assert names.parent(names.ROOT) == names.ROOT
    assert names.from_labels(names.labels(name)) == name
    assert all(names.is_subdomain(name, ancestor) for ancestor in walk)
    assert [ancestor.to_wire() for ancestor in ancestors_of_peer(name)] == walk


def ancestors_of_peer(name: bytes) -> list[dns.name.Name]:
    """The label walk as dnspython does it."""
    found = [peer(name)]
    while found[-1] != dns.name.root:
        found.append(found[-1].parent())
    return found


@given(ANY_NAME, ANY_NAME)
def test_is_subdomain_is_dnspythons(one: bytes, two: bytes) -> None:
    """Being below agrees with dnspython on any two names, also where one ends in the other's octets by chance."""
    one, two = names.key(one), names.key(two)
    assert names.is_subdomain(one, two) == peer(one).is_subdomain(peer(two))


def test_is_subdomain_is_not_fooled_by_label_content() -> None:
    """A label whose content looks like an ancestor is not below it."""
    assert not names.is_subdomain(b"\x05xx\x02ab\x00", b"\x02ab\x00")
    assert names.is_subdomain(b"\x01x\x02ab\x00", b"\x02ab\x00")


@given(ANY_NAME)
def test_key_form_keeps_lengths(name: bytes) -> None:
    """Lowering a wire name touches letters only, twice is once, and dnspython calls it equal."""
    lowered = names.key(name)
    assert names.check(lowered) == lowered
    assert names.key(lowered) == lowered
    assert peer(lowered) == peer(name)


def rotate(value: int, by: int) -> int:
    """Rotates 64 bits to the left."""
    return ((value << by) | (value >> (64 - by))) & MASK


def mix(value: int) -> int:
    """The finalisation of MurmurHash3."""
    value = ((value ^ (value >> 33)) * 0xFF51AFD7ED558CCD) & MASK
    value = ((value ^ (value >> 33)) * 0xC4CEB9FE1A85EC53) & MASK
    return value ^ (value >> 33)


def murmur(data: bytes, seed: int) -> int:
    """The first 64 bits of MurmurHash3 x64 128, from its definition alone."""
    c1, c2 = 0x87C37B91114253D5, 0x4CF5AD432745937F
    h1 = h2 = seed
    blocks = len(data) // 16
    for index in range(blocks):
        k1 = int.from_bytes(data[index * 16 : index * 16 + 8], "little")
        k2 = int.from_bytes(data[index * 16 + 8 : index * 16 + 16], "little")
        h1 ^= (rotate((k1 * c1) & MASK, 31) * c2) & MASK
        h1 = ((rotate(h1, 27) + h2) * 5 + 0x52DCE729) & MASK
        h2 ^= (rotate((k2 * c2) & MASK, 33) * c1) & MASK
        h2 = ((rotate(h2, 31) + h1) * 5 + 0x38495AB5) & MASK
    tail = data[blocks * 16 :]
    k2 = int.from_bytes(tail[8:], "little")
    h2 ^= (rotate((k2 * c2) & MASK, 33) * c1) & MASK
    k1 = int.from_bytes(tail[:8], "little")
    h1 ^= (rotate((k1 * c1) & MASK, 31) * c2) & MASK
    h1 ^= len(data)
    h2 ^= len(data)
    h1 = (h1 + h2) & MASK
    h2 = (h2 + h1) & MASK
    h1, h2 = mix(h1), mix(h2)
    return (h1 + h2) & MASK


@given(st.one_of(ANY_NAME, st.binary(max_size=80)), st.integers(0, 0xFFFFFFFF))
def test_ring_hash_is_murmur3(name: bytes, seed: int) -> None:
    """The ring's hash is MurmurHash3 x64 128 as its definition says, for every length and seed."""
    assert names.ring_hash(name, seed) == murmur(name, seed)


RING_VECTORS = [
    # name, seed, hash: never to change; the native engine has the same table
    (".", 0x0, 0x4610ABE56EFF5CB5),
    ("example.", 0x0, 0xAF6709D0F25DAFBD),
    ("www.example.com.", 0x0, 0xE2F479CB3C2AC676),
    ("WWW.Example.COM.", 0x0, 0xE2F479CB3C2AC676),
    ("\\000\\255.x.", 0x0, 0x5FC166368245AB87),
    (
        "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa.bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb.ccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccc.ddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddd.",
        0x0,
        0x0ED623BC16823375,
    ),
    (".", 0x52AD, 0xEA897EDEE2F0EC52),
    ("example.", 0x52AD, 0x115272B4129B0983),
    ("www.example.com.", 0x52AD, 0x36AE8CDAFEBDF478),
    ("WWW.Example.COM.", 0x52AD, 0x36AE8CDAFEBDF478),
    ("\\000\\255.x.", 0x52AD, 0x538079F1CDD8C61F),
    (
        "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa.bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb.ccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccc.ddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddd.",
        0x52AD,
        0xCFCA65171EE4B126,
    ),
    (".", 0xFFFFFFFF, 0x97FA8C007C7250E6),
    ("example.", 0xFFFFFFFF, 0x76E26C1137CB61B7),
    ("www.example.com.", 0xFFFFFFFF, 0x31F189B97B54DF47),
    ("WWW.Example.COM.", 0xFFFFFFFF, 0x31F189B97B54DF47),
    ("\\000\\255.x.", 0xFFFFFFFF, 0x90377C11956807CC),
    (
        "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa.bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb.ccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccc.ddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddd.",
        0xFFFFFFFF,
        0x93EF070BBA47C54A,
    ),
]


@pytest.mark.parametrize(("text", "seed", "expected"), RING_VECTORS)
def test_ring_hash_golden_vectors(text: str, seed: int, expected: int) -> None:
    """A fixed seed gives fixed hashes: every machine, release and language must agree on them."""
    assert names.ring_hash(names.key(names.from_text(text)), seed) == expected


def test_mutated_names() -> None:
    """20,000 seeded mutations of wire names: check says NameError_ or returns a name that survives text."""
    rng = random.Random(20260725)
    seeds = [names.from_text(t) for t in ("www.example.com.", ".", "*.a\\.b.x.", "a" * 63 + "." + "b" * 63 + ".c.")]
    for _ in range(20_000):
        data = bytearray(rng.choice(seeds))
        for _ in range(rng.randint(1, 3)):
            if rng.random() < 0.5 and data:
                data[rng.randrange(len(data))] = rng.randrange(256)
            else:
                at = rng.randint(0, len(data))
                data[at:at] = rng.randbytes(rng.randint(1, 3))
        try:
            name = names.check(bytes(data))
        except NameError_:
            continue
        assert names.from_text(names.to_text(name)) == name
