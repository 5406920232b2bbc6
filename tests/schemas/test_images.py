"""The numbers of image format 1: structures, hash and checksum never change under a file that is out there."""

from __future__ import annotations

from raydns.schemas import images


def test_sizes_of_the_structures_are_those_of_the_format_page() -> None:
    """Every fixed structure has the size that docs/image-format.md gives it."""
    sizes = [
        struct.size
        for struct in (
            images.PREAMBLE,
            images.SECTION,
            images.ZONE,
            images.SLOT,
            images.ORDER,
            images.NODE,
            images.RRSET,
            images.NAME_REF,
            images.EXTRA,
            images.EXTRA_RRSIG,
        )
    ]
    assert sizes == [64, 48, 256, 8, 8, 16, 32, 8, 8, 16]


def test_golden_vectors_of_hash_and_checksum() -> None:
    """Another language's reader can check its MurmurHash3 x64 128 against these."""
    key = b"\x03www\x07example\x00"
    assert images.name_hash(key, 0) == 0x16C2BB1FFDB15485
    assert images.name_hash(key, 1) == 0x80A80FB4FBB80852
    assert images.checksum(b"raydns").hex() == "79ddbf73bbd4cf38e4713c47026e2da5"
    assert images.checksum(b"raydns")[:8] == images.name_hash(b"raydns", 0).to_bytes(8, "little")


def test_slot_index_scales_to_any_table_size() -> None:
    """The first slot of a hash lies in the table, from its first to its last slot."""
    assert images.slot_index(0, 7) == 0
    assert images.slot_index((1 << 64) - 1, 7) == 6
    assert images.slot_index(1 << 63, 10) == 5


def test_aligned_rounds_up() -> None:
    """Alignment keeps what is aligned and raises the rest."""
    assert [images.aligned(n) for n in (0, 1, 64, 65)] == [0, 64, 64, 128]
    assert images.aligned(9, 8) == 16
