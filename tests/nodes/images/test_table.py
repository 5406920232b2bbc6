"""``ZoneTable``: longest apex, chains over zones, case, bounds, entries without an image."""

from __future__ import annotations

from pathlib import Path

import dns.flags
import dns.message
import pytest

from raydns.nodes.images import ZoneTable
from raydns.nodes.images import table as table_module
from raydns.nodes.images.table import retired
from raydns.schemas import names, wire
from raydns.schemas.cluster import ImageRef, ZoneEntry
from tests.nodes.images.zones import HEAD, ask, is_aa, raw, rcode, section, table

N = names.from_text


def entry(apex: str, image: ImageRef | None = None, **more: object) -> ZoneEntry:
    """An entry of the apex table."""
    return ZoneEntry(N(apex), 0, 0, 1, 0, image, **more)  # type: ignore[arg-type]


def test_longest_apex_wins_and_an_apex_without_image_is_not_passed_over(tmp_path: Path) -> None:
    """A name below an apex without a usable image is that entry's, never the parent zone's."""
    with_image = table(tmp_path, {"example.": HEAD + "sub NS ns.sub\nns.sub A 192.0.2.2\n"})
    paths = {e.image.sha256: tmp_path / f"{e.image.sha256}.img" for e in with_image.entries if e.image}
    zones = ZoneTable([*with_image.entries, entry("sub.example.")], paths)
    found = zones.find(N("x.sub.example."))
    assert found is not None
    assert found.apex == N("sub.example.")
    assert zones.missing == 1
    assert zones.answer(wire.parse_query(dns.message.make_query("x.sub.example.", "A").to_wire())) is None
    assert zones.find(N("other.")) is None
    assert section(ask(zones, "ns.example.", "A").answer) == ["ns.example. 3600 IN A 192.0.2.1"]


def test_ds_finds_the_parent(tmp_path: Path) -> None:
    """DS at an apex belongs to the parent that is served here; other types, and names below, to the child."""
    zones = table(tmp_path, {"example.": HEAD + "sub NS ns\n", "sub.example.": HEAD})
    assert zones.find(N("sub.example."), 43) == zones.find(N("example."))
    assert zones.find(N("sub.example."), 1) == zones.find(N("x.sub.example."), 43)
    assert zones.find(N("example."), 43) == zones.find(N("example."))


def test_a_damaged_image_is_refused_and_the_others_serve(tmp_path: Path) -> None:
    """A damaged file costs its own zone only, and the refusal says what is wrong."""
    good = table(tmp_path, {"good.": HEAD})
    bad_file = tmp_path / "bad.img"
    octets = bytearray(next(tmp_path.glob("*.img")).read_bytes())
    octets[-1] ^= 1
    bad_file.write_bytes(octets)
    sha256 = good.entries[0].image.sha256 if good.entries[0].image else ""
    zones = ZoneTable(
        [*good.entries, entry("bad.", ImageRef("bad", 1))], {sha256: tmp_path / f"{sha256}.img", "bad": bad_file}
    )
    assert [(refused.apex, refused.sha256) for refused in zones.refusals] == [(N("bad."), "bad")]
    assert "damaged" in zones.refusals[0].problem
    assert rcode(ask(zones, "good.", "SOA")) == "NOERROR"


def test_an_image_without_the_entrys_zone_is_refused(tmp_path: Path) -> None:
    """An entry whose image holds another zone is refused by name, not answered from it."""
    good = table(tmp_path, {"good.": HEAD})
    path = next(tmp_path.glob("*.img"))
    zones = ZoneTable([entry("other.", ImageRef("x", 1))], {"x": path})
    assert "holds no zone other." in zones.refusals[0].problem
    assert len(good.entries) == 1


def test_unchanged_images_stay_mapped(tmp_path: Path) -> None:
    """A new table takes over what it shares with the one before; only what it lacks is retired."""
    first = table(tmp_path, {"a.": HEAD, "b.": HEAD})
    paths = {e.image.sha256: tmp_path / f"{e.image.sha256}.img" for e in first.entries if e.image}
    second = ZoneTable(first.entries[:1], paths, previous=first)
    assert second.zone(first.entries[0]) is not None
    gone = retired(first, second)
    assert len(gone) == 1
    gone[0].close()
    gone[0].close()
    assert rcode(ask(second, "a.", "SOA")) == "NOERROR"


def test_question_case_is_kept_and_owners_follow_it(tmp_path: Path) -> None:
    """The question comes back as asked, also from a kept answer; names elsewhere are as written."""
    zones = table(tmp_path, {"example.": HEAD + "Www A 192.0.2.3\nal CNAME WwW\n"})
    for name in ("www.example.", "wWw.eXample.", "www.example."):
        message = raw(zones, name, "A").message
        assert message[12 : 12 + len(N(name))] == N(name)
        assert ask(zones, name, "A").answer[0].name.to_text() == name
    assert "WwW.example." in ask(zones, "al.example.", "A").answer[0].to_text()


def test_chains_cross_zones_and_end_in_the_last_zones_rcode(tmp_path: Path) -> None:
    """CNAMEs stand before their targets; the rcode and SOA are those of the last zone, AA of the first name."""
    zones = table(
        tmp_path,
        {
            "one.": HEAD + "a CNAME b.two.\nn CNAME no.two.\nr CNAME x.c.two.\n",
            "two.": HEAD + "b CNAME ns\nc NS ns.c\nns.c A 192.0.2.2\n",
        },
    )
    assert [r.to_text().split()[3] for r in ask(zones, "a.one.", "A").answer] == ["CNAME", "CNAME", "A"]
    missing = ask(zones, "n.one.", "A")
    assert rcode(missing) == "NXDOMAIN"
    assert section(missing.authority)[0].startswith("two. 300 IN SOA")
    referred = ask(zones, "r.one.", "A")
    assert is_aa(referred)
    assert section(referred.authority) == ["c.two. 3600 IN NS ns.c.two."]


def test_loops_and_long_chains_end(tmp_path: Path) -> None:
    """Loops end at the first repeated name, chains after eleven steps, both with what was found."""
    chain = "".join(f"c{i} CNAME c{i + 1}\n" for i in range(30))
    zones = table(tmp_path, {"example.": HEAD + chain + "l1 CNAME l2\nl2 CNAME l1\ns CNAME s\nd DNAME x.d\n"})
    assert len(ask(zones, "c0.example.", "A").answer) == 12
    assert raw(zones, "c0.example.", "A").incomplete_cname is None
    assert len(ask(zones, "l1.example.", "A").answer) == 2
    assert len(ask(zones, "s.example.", "A").answer) == 1
    assert rcode(ask(zones, "y.d.example.", "A")) in {"NOERROR", "YXDOMAIN"}


def test_classes_and_meta_types(tmp_path: Path) -> None:
    """Class ANY is answered without AA, other classes and transfers are refused, meta types not implemented."""
    zones = table(tmp_path, {"example.": HEAD})
    answer = ask(zones, "ns.example.", "A", qclass="ANY")
    assert (len(answer.answer), is_aa(answer)) == (1, False)
    assert rcode(ask(zones, "ns.example.", "A", qclass="CH")) == "REFUSED"
    assert rcode(ask(zones, "ns.example.", "AXFR")) == "REFUSED"
    assert rcode(ask(zones, "ns.example.", "MAILB")) == "NOTIMP"


def test_an_answer_larger_than_a_message_says_tc(tmp_path: Path) -> None:
    """RRsets that exceed 65,535 octets stay out whole, with TC; the layout agrees with what is there."""
    text = HEAD + "".join(f'big TXT "{i:03d}{"x" * 250}" "{"y" * 255}"\n' for i in range(200))
    zones = table(tmp_path, {"example.": text})
    answer = ask(zones, "big.example.", "TXT")
    assert answer.flags & dns.flags.TC
    assert answer.answer == []
    fits = HEAD + "".join(f'big TXT "{i:03d}{"x" * 250}"\n' for i in range(200))
    zones = table(tmp_path, {"example.": fits})
    assert len(ask(zones, "big.example.", "TXT").answer[0]) == 200


def test_pointers_stop_at_their_reach(tmp_path: Path) -> None:
    """Names beyond offset 16,383 are written out, since a pointer has 14 bits; the message still reads right."""
    text = HEAD + "".join(f"m MX {i} {'h' * 60}{i:03d}.{'g' * 60}{i:03d}\n" for i in range(250))
    zones = table(tmp_path, {"example.": text})
    answer = ask(zones, "m.example.", "MX")
    assert len(answer.answer[0]) == 250
    assert len(raw(zones, "m.example.", "MX").message) > 0x4000


def test_kept_answers_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A flood of different names never keeps more answers than the bound."""
    monkeypatch.setattr(table_module, "ANSWERS_KEPT_MAX", 10)
    zones = table(tmp_path, {"example.": HEAD})
    for number in range(50):
        assert rcode(ask(zones, f"n{number}.example.", "A")) == "NXDOMAIN"
    assert zones.statistics()["answers_kept"] == 10


def test_any_octet_in_a_label_and_the_longest_names(tmp_path: Path) -> None:
    """Labels of 63 octets, names of 255 and octets from 0 to 255 are found and answered."""
    label = "a" * 63
    longest = ".".join([label, label, label, "b" * 53])
    odd = "\\000\\001\\046\\255"
    zones = table(tmp_path, {"example.": HEAD + f"{longest} A 192.0.2.4\n{odd} A 192.0.2.5\n"})
    assert len(N(f"{longest}.example.")) == 255
    assert len(ask(zones, f"{longest}.example.", "A").answer) == 1
    assert len(ask(zones, f"{odd}.example.", "A").answer) == 1


@pytest.mark.parametrize("damage", ["overwritten", "cut"])
def test_a_file_that_somebody_writes_into_is_not_answered_from(tmp_path: Path, damage: str) -> None:
    """Neither SIGBUS nor a lie: new answers stop, kept ones stay, other zones serve, the next table maps anew."""
    zones = table(tmp_path, {"a.": HEAD + "x A 192.0.2.5\nalias CNAME ns.b.\n", "b.": HEAD})
    sha256 = next(e.image.sha256 for e in zones.entries if e.image and e.apex == N("a."))
    path = tmp_path / f"{sha256}.img"
    good = path.read_bytes()
    kept = ask(zones, "ns.a.", "A").answer
    with path.open("r+b") as file:
        if damage == "cut":
            file.truncate(0)
        else:
            file.write(b"\xff" * len(good))
    new = wire.parse_query(dns.message.make_query("x.a.", "A").to_wire())
    assert zones.answer(new) is None
    assert zones.answer(new) is None
    assert ask(zones, "ns.a.", "A").answer == kept
    assert ask(zones, "ns.b.", "A").answer
    gone = ZoneTable(zones.entries, {s: p for s, p in paths_of(zones, tmp_path).items() if s != sha256}, previous=zones)
    assert gone.missing == 1
    path.unlink()
    path.write_bytes(good)
    mended = ZoneTable(zones.entries, paths_of(zones, tmp_path), previous=zones)
    assert section(ask(mended, "x.a.", "A").answer) == ["x.a. 3600 IN A 192.0.2.5"]
    assert [image.path for image in retired(zones, mended)] == [path]
    for image in retired(zones, mended):
        image.close()
        image.close()


def test_a_file_that_is_only_unlinked_goes_on(tmp_path: Path) -> None:
    """What is mapped is still whole: it serves from there, in this table and the next."""
    zones = table(tmp_path, {"a.": HEAD})
    next(tmp_path.glob("*.img")).unlink()
    again = ZoneTable(zones.entries, {}, previous=zones)
    assert ask(again, "ns.a.", "A").answer
    assert retired(zones, again) == []


def paths_of(zones: ZoneTable, folder: Path) -> dict[str, Path]:
    """Image files of a table's entries."""
    return {e.image.sha256: folder / f"{e.image.sha256}.img" for e in zones.entries if e.image}
