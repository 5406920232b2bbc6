"""What makes records a zone: ``Builder`` takes them one by one and says what does not fit together.

Errors (the zone cannot be served rightly): no SOA or several, SOA below the apex, no NS at the apex, CNAME beside
other data, several CNAMEs or DNAMEs at a name, more records or types than the limits. Warnings (it can): data
outside the zone (left out), differing TTLs (the lowest wins, RFC 2181 section 5.2), missing glue, data that a cut or
DNAME hides, servers or exchangers that are aliases, signatures that are not served yet.
"""

from __future__ import annotations

from typing import Final, Literal

import dns.rdatatype

from raydns.schemas import names
from raydns.schemas.dns import Type

from .problems import Problem, Problems
from .rdata_names import names_of
from .zone_data import RRS_MAX, TYPES_MAX, RRsetData, ZoneData

_BESIDE_CNAME: Final = frozenset({int(Type.RRSIG), int(Type.NSEC), 25})  # RFC 4034, RFC 2181 section 10.1 with KEY
_ONE_ONLY: Final = frozenset({int(Type.CNAME), int(Type.DNAME), int(Type.SOA)})
_NAMES_ONLY: Final = frozenset({int(Type.NS), int(Type.CNAME), int(Type.PTR), int(Type.DNAME)})
_CAREFUL: Final = _ONE_ONLY | _NAMES_ONLY
_GLUE: Final = frozenset({int(Type.A), int(Type.AAAA)})
_SIGNED: Final = frozenset({int(Type.RRSIG), int(Type.NSEC), int(Type.NSEC3), int(Type.NSEC3PARAM)})

_CNAME: Final = int(Type.CNAME)
_DNAME: Final = int(Type.DNAME)
_NS: Final = int(Type.NS)
_SOA: Final = int(Type.SOA)
_RRSIG: Final = int(Type.RRSIG)


class Builder:
    """Records on their way to a ``ZoneData``."""

    def __init__(self, apex: bytes | None, problems: Problems) -> None:
        self._apex = apex
        self._problems = problems
        self._names: dict[bytes, dict[int, RRsetData]] = {}
        self._owners: dict[bytes, bytes] = {}
        self._places: dict[bytes, tuple[str, int]] = {}
        self._told: set[tuple[bytes, int, str]] = set()

    def add(  # noqa: PLR0917 - a record has as many fields, and this runs once a record
        self, owner: bytes, key: bytes, rtype: int, ttl: int, rdata: bytes, file: str, line: int
    ) -> None:
        """Takes one record in."""
        at_name = self._names.get(key)
        if at_name is None:
            at_name = self._names[key] = {}
            self._places[key] = (file, line)
            if owner != key:
                self._owners[key] = owner
        rrset = at_name.get(rtype)
        if rrset is not None and len(rrset.rdatas) < RRS_MAX and rtype not in _CAREFUL and rrset.ttl == ttl:
            if rdata not in rrset.rdatas:  # RFC 2181 section 5: duplicates are one record
                rrset.rdatas.append(rdata)
            return
        if rrset is None:
            self._new_type(key, at_name, rtype, file, line)
            at_name[rtype] = RRsetData(rtype, ttl, [rdata])
            return
        self._unusual(key, rrset, ttl, rdata, file, line)

    def _new_type(self, key: bytes, at_name: dict[int, RRsetData], rtype: int, file: str, line: int) -> None:
        if rtype == _SOA:
            if self._apex is None:
                self._apex = key
            elif key != self._apex:
                self._tell("error", "soa-below-apex", key, rtype, "an SOA that is not at the apex", file, line)
        if not at_name:
            return
        others = at_name.keys() - _BESIDE_CNAME
        if others and (rtype == _CNAME or (_CNAME in others and rtype not in _BESIDE_CNAME)):
            # RFC 1034 section 3.6.2, RFC 2181 section 10.1
            self._tell("error", "cname-and-other-data", key, _CNAME, "CNAME beside other data", file, line)
        if {_DNAME, _NS} <= {rtype, *at_name} and key != self._apex:  # RFC 6672 section 2.3
            self._tell("error", "dname-and-ns", key, _DNAME, "DNAME beside NS below the apex", file, line)
        if len(at_name) == TYPES_MAX:
            self._tell("error", "too-many-types", key, 0, f"more than {TYPES_MAX} types at a name", file, line)

    def _unusual(  # noqa: PLR0917 - as ``add``
        self, key: bytes, rrset: RRsetData, ttl: int, rdata: bytes, file: str, line: int
    ) -> None:
        rtype = rrset.rtype
        same = rdata in rrset.rdatas or (
            rtype in _NAMES_ONLY and rdata.lower() in {known.lower() for known in rrset.rdatas}
        )
        if ttl != rrset.ttl and rtype != _RRSIG:  # an RRSIG has the TTL of what it covers (RFC 4034 section 3)
            text = f"TTL {ttl} differs from {rrset.ttl} in one RRset; the lowest is used"
            self._tell("warning", "ttl-differs", key, rtype, text, file, line)
        rrset.ttl = min(ttl, rrset.ttl)
        if same:
            return
        if rtype in _ONE_ONLY:
            kind = "two-soas" if rtype == _SOA else "several-records"
            text = f"a second {_type_text(rtype)} at one name"
            self._tell("error", kind, key, rtype, text, file, line)
        elif len(rrset.rdatas) >= RRS_MAX:
            self._tell("error", "too-many-records", key, rtype, f"more than {RRS_MAX} records in an RRset", file, line)
        else:
            rrset.rdatas.append(rdata)

    def _tell(  # noqa: PLR0917 - a problem's own fields
        self, severity: Literal["error", "warning"], code: str, key: bytes, rtype: int, text: str, file: str, line: int
    ) -> None:
        if (key, rtype, code) in self._told:
            return
        self._told.add((key, rtype, code))
        self._problems.add(Problem(severity, code, f"{names.to_text(key)}: {text}", file, line))

    def finish(self, file: str) -> ZoneData | None:
        """The zone, after the checks that need all of it; ``None`` without an apex."""
        apex = self._apex
        if apex is None:
            self._problems.add(Problem("error", "no-soa", "the zone has no SOA record", file))
            return None
        self._leave_out_foreign(apex)
        at_apex = self._names.get(apex, {})
        for rtype, code in ((_SOA, "no-soa"), (_NS, "no-ns")):
            if rtype not in at_apex:
                text = f"{names.to_text(apex)}: the zone has no {_type_text(rtype)} record at its apex"
                self._problems.add(Problem("error", code, text, file))
        if self._problems.errors:
            return None
        data = ZoneData(apex, self._names, self._owners)
        self._check_whole(data)
        return data

    def _leave_out_foreign(self, apex: bytes) -> None:
        for key in [key for key in self._names if not names.is_subdomain(key, apex)]:
            file, line = self._places[key]
            text = f"outside the zone {names.to_text(apex)}; left out"
            self._tell("warning", "out-of-zone", key, 0, text, file, line)
            del self._names[key]
            self._owners.pop(key, None)

    def _check_whole(self, data: ZoneData) -> None:
        if any(_SIGNED & at_name.keys() for at_name in data.names.values()):
            text = "it holds DNSSEC records: they are answered when asked for, answers do not carry signatures yet"
            self._problems.add(Problem("warning", "signed", f"{names.to_text(data.apex)}: {text}"))
        tops = {
            key for key, at_name in data.names.items() if _DNAME in at_name or (_NS in at_name and key != data.apex)
        }
        for key, at_name in data.names.items():
            file, line = self._places[key]
            above = _covering(key, tops, data.apex)
            if above is not None and (_DNAME in data.names[above] or not at_name.keys() <= _GLUE):
                text = f"hidden by {names.to_text(above)} above it"
                self._tell("warning", "occluded", key, 0, text, file, line)
                continue
            for rtype in (_NS, int(Type.MX)):
                rrset = at_name.get(rtype)
                if rrset is not None:
                    self._check_targets(data, key, rrset, tops, (file, line))

    def _check_targets(
        self, data: ZoneData, key: bytes, rrset: RRsetData, tops: set[bytes], place: tuple[str, int]
    ) -> None:
        for rdata in rrset.rdatas:
            for name, _ in names_of(rrset.rtype, rdata):
                target = name.lower()
                if not names.is_subdomain(target, data.apex):
                    continue
                at_target = data.names.get(target, {})
                text = names.to_text(name)
                if _CNAME in at_target:  # RFC 2181 section 10.3
                    self._tell("warning", "alias-target", key, rrset.rtype, f"{text} is an alias", *place)
                elif (
                    rrset.rtype == _NS
                    and not _GLUE & at_target.keys()
                    and (_covering(target, tops, data.apex) or not _covered_by_wildcard(data, target))
                ):
                    self._tell("warning", "missing-glue", key, _NS, f"no address for {text}", *place)


def _covered_by_wildcard(data: ZoneData, key: bytes) -> bool:
    if key in data.names:
        return False
    return any(b"\x01*" + ancestor in data.names for ancestor in names.ancestors(key) if len(ancestor) < len(key))


def _covering(key: bytes, tops: set[bytes], apex: bytes) -> bytes | None:
    """The cut or DNAME above a name that hides it; the apex counts with its DNAME only."""
    if not tops:
        return None
    position = key[0] + 1 if key[0] else 0
    found = None
    while len(key) - position >= len(apex) and position:
        ancestor = key[position:]
        if ancestor in tops:
            found = ancestor
        if not key[position]:
            break
        position += key[position] + 1
    return found


def _type_text(rtype: int) -> str:
    return dns.rdatatype.to_text(dns.rdatatype.RdataType.make(rtype))
