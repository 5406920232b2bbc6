"""``open_image``: every damaged, truncated, foreign or too new file is refused with what and where.

Invariant of the fuzz tests: nothing but ``ImageError``, whatever the octets are.
"""

from __future__ import annotations

import base64
import random
import struct
from pathlib import Path

import pytest

from raydns.actors.zone.image_writer import ZoneSource, build
from raydns.actors.zone.master import parse
from raydns.nodes.images import ZoneTable, open_image
from raydns.schemas import images, names, wire
from raydns.schemas.cluster import ImageRef, ZoneEntry
from raydns.schemas.errors import ImageError, ZoneFileError
from tests.nodes.images.zones import HEAD

SEED = 20260101
GOLDEN = Path(__file__).parents[2] / "data" / "images" / "base-v1.img.base64"
GOLDEN_ZONE = Path(__file__).parents[2] / "data" / "images" / "base-v1.zone"


def image(*apexes: str) -> bytes:
    """A small image."""
    sources = []
    for apex in apexes or ("example.",):
        text = HEAD + 'www CNAME ns\nMiXed MX 1 ns\na.b TXT "x"\n*.w A 192.0.2.9\nsub NS ns.sub\nns.sub A 192.0.2.3\n'
        sources.append(ZoneSource(parse(text, names.from_text(apex)), 0, 7))
    return build(sources)


def refused(tmp_path: Path, octets: bytes) -> ImageError:
    """Opens octets that must be refused."""
    path = tmp_path / "x.img"
    path.write_bytes(octets)
    with pytest.raises(ImageError) as caught:
        open_image(path)
    assert str(path) in caught.value.where
    return caught.value


def resigned(octets: bytearray) -> bytes:
    """The same image with all checksums computed anew, so that the reader itself is tried."""
    at, size = struct.unpack_from("<QQ", octets, 24)
    directory = octets[at : at + size]
    # Sections stand in the directory as they were built: look for each by its offset and size.
    for start in range(0, len(directory) - images.SECTION.size + 1, 4):
        kind, flags, offset, length, count, _ = images.SECTION.unpack_from(directory, start)
        if 1 <= kind <= 8 and flags == 1 and offset % 64 == 0 and 0 < offset <= len(octets) and length <= len(octets):
            digest = images.checksum(bytes(octets[offset : offset + images.aligned(length)]))
            images.SECTION.pack_into(octets, at + start, kind, flags, offset, length, count, digest)
    octets[40:56] = bytes(16)
    octets[40:56] = images.checksum(bytes(octets[: images.aligned(at + size)]))
    return bytes(octets)


def test_what_was_written_is_read(tmp_path: Path) -> None:
    """Apex, serial, epoch, records, owners as written and empty non-terminals come back from the file."""
    path = tmp_path / "x.img"
    path.write_bytes(image("example.", "b.test."))
    opened = open_image(path)
    assert [(names.to_text(z.apex), z.serial, z.epoch, z.records) for z in opened.zones] == [
        ("example.", 1, 7, 9),
        ("b.test.", 1, 7, 9),
    ]
    zone = opened.zones[0]
    mixed = zone.find(names.from_text("mixed.example."))
    assert mixed is not None
    assert mixed.owner == names.from_text("MiXed.example.")
    empty = zone.find(names.from_text("b.example."))
    assert empty is not None
    assert empty.flags & images.NodeFlag.EMPTY
    assert zone.find(names.from_text("c.example.")) is None
    assert opened.zones[1].find(names.from_text("mixed.example.")) is None
    opened.close()
    opened.close()


def test_golden_image(tmp_path: Path) -> None:
    """The committed image of the committed zone: today's writer makes the same octets, today's reader reads them."""
    octets = base64.b64decode(GOLDEN.read_text())
    zone = parse(GOLDEN_ZONE.read_text(), names.from_text("Example."), origin_file="base-v1.zone")
    assert build([ZoneSource(zone, 0, 3)]) == octets
    assert len(octets) <= 4096
    path = tmp_path / "golden.img"
    path.write_bytes(octets)
    opened = open_image(path)
    assert opened.directory.writer == "raydns"
    assert opened.directory.may_ignore == images.Hint.WRITTEN_OWNERS
    assert [names.to_text(node.owner) for node in opened.zones[0].nodes()] == [
        "Example.",
        "*.Example.",
        "dn.Example.",
        "ent.example.",  # an empty non-terminal has no written form of its own
        "a.ent.Example.",
        "ns.Example.",
        "Sub.Example.",
        "ns.Sub.Example.",
        "unk.Example.",
    ]


def test_byte_flips_and_truncations_are_refused_at_open(tmp_path: Path) -> None:
    """2,000 flips and cuts, each an ``ImageError`` when the file is opened."""
    rng = random.Random(SEED)
    good = image()
    path = tmp_path / "x.img"
    for turn in range(2000):
        octets = bytearray(good)
        if turn % 4 == 0:
            del octets[rng.randrange(len(octets)) :]
        else:
            octets[rng.randrange(len(octets))] ^= 1 << rng.randrange(8)
        path.write_bytes(octets)
        with pytest.raises(ImageError):
            open_image(path)


def test_torn_images_with_right_checksums_never_break_the_reader(tmp_path: Path) -> None:
    """Flips under right checksums: opened or refused, answered or not; never another exception."""
    rng = random.Random(SEED)
    good = image()
    path = tmp_path / "x.img"
    asked = [
        ("www.example.", 1),
        ("q.w.example.", 1),
        ("x.sub.example.", 1),
        ("mixed.example.", 15),
        ("no.example.", 1),
    ]
    opened = 0
    for _ in range(800):
        octets = bytearray(good)
        for _ in range(rng.choice([1, 1, 2, 5])):
            octets[rng.randrange(64, len(octets))] = rng.randrange(256)
        path.write_bytes(resigned(octets))
        ref = ImageRef("x", len(octets))
        table = ZoneTable([ZoneEntry(names.from_text("example."), 0, 0, 1, 0, ref)], {"x": path})
        opened += not table.refusals
        for name, qtype in asked:
            key = names.from_text(name)
            found = table.answer(wire.Query(0, 0, key, key, qtype, 1, 0, None))
            if found is not None:
                assert wire.layout(found.message) == found.layout
    assert opened > 50


def test_resigning_alone_changes_nothing(tmp_path: Path) -> None:
    """The helper above computes the checksums that the writer computes."""
    good = image()
    assert resigned(bytearray(good)) == good


def test_foreign_files(tmp_path: Path) -> None:
    """Another magic, another byte order, nothing at all, and a directory: each says what it is."""
    good = image()
    assert "foreign" in refused(tmp_path, b"PK" + good[2:]).message
    assert "byte order" in refused(tmp_path, good[:8] + good[8:12][::-1] + good[12:]).message
    assert "truncated" in refused(tmp_path, b"").message
    assert "truncated" in refused(tmp_path, good[:63]).message
    assert "too long" in refused(tmp_path, good + bytes(64)).message
    with pytest.raises(ImageError, match="cannot be read"):
        open_image(tmp_path)
    with pytest.raises(ImageError, match="cannot be read"):
        open_image(tmp_path / "absent.img")


def test_too_new_files(tmp_path: Path) -> None:
    """A newer format, and a feature that this reader lacks, are refused by name with what to do."""
    octets = bytearray(image())
    octets[12] = 2
    error = refused(tmp_path, bytes(octets))
    assert "format 2" in error.message
    assert "upgrade" in error.hint


def test_unknown_must_understand_bits_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A must-understand bit stops a reader that lacks it; a may-ignore bit does not."""
    from raydns.actors.zone import image_writer

    monkeypatch.setattr(image_writer, "_must_understand", lambda: images.Feature.SIGNATURES | (1 << 40))
    error = refused(tmp_path, image())
    assert "SIGNATURES" in error.message
    assert "0x10000000000" in error.message
    monkeypatch.undo()
    monkeypatch.setattr(image_writer, "_hints", lambda hints: int(hints) | (1 << 50))
    path = tmp_path / "fine.img"
    path.write_bytes(image("a.", "b."))
    assert open_image(path).directory.may_ignore >> 50 == 1


def test_an_empty_image_is_never_written() -> None:
    """No zone, or a zone without SOA, makes no image."""
    with pytest.raises(ZoneFileError):
        build([])
    zone = parse(HEAD, names.from_text("example."))
    del zone.names[zone.apex][6]
    with pytest.raises(ZoneFileError, match="without SOA"):
        build([ZoneSource(zone)])


def test_decoded_nodes_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Asking for every name of a zone keeps no more decoded nodes than the bound, and finds them again afterwards."""
    from raydns.nodes.images import reader

    monkeypatch.setattr(reader, "NODES_KEPT_MAX", 16)
    text = HEAD + "".join(f"h{i} A 192.0.2.1\n" for i in range(100))
    path = tmp_path / "x.img"
    path.write_bytes(build([ZoneSource(parse(text, names.from_text("example.")))]))
    opened = open_image(path)
    assert len(list(opened.zones[0].nodes())) == 102
    for number in range(100):
        assert opened.zones[0].find(names.from_text(f"h{number}.example.")) is not None
    assert opened.nodes_kept <= 16
    assert opened.zones[0].find(names.from_text("h5.example.")) is not None
