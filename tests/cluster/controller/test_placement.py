"""Placement as a pure function."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from raydns.cluster.controller import placement
from raydns.schemas.cluster import Machine

MACHINES = [Machine(f"m{i}", f"n{i}", "127.0.0.1", head=i == 0) for i in range(4)]


@given(
    st.integers(0, 20), st.integers(1, 4), st.dictionaries(st.integers(0, 9), st.sampled_from(["m0", "m1"]), max_size=6)
)
def test_what_is_missing_is_placed_evenly_under_free_numbers(want: int, count: int, taken: dict[int, str]) -> None:
    """Proves that the wanted number is reached, no index is used twice, and new ones go where least stands."""
    found = placement.missing(want, taken, MACHINES[:count])
    assert len(found) == max(0, want - len(taken))
    assert not {index for index, _ in found} & set(taken)
    assert len({index for index, _ in found}) == len(found)
    if not taken:
        standing = [m.name for _, m in found] + [m.name for m in MACHINES[:count]]
        assert placement.spread(standing) <= 1


@given(st.integers(0, 10), st.dictionaries(st.integers(0, 20), st.sampled_from(["m0", "m1", "m2"]), max_size=12))
def test_what_is_too_much_leaves_the_fullest_machine_first(want: int, taken: dict[int, str]) -> None:
    """Proves that exactly the surplus goes, and that it never makes the spread worse."""
    gone = placement.surplus(want, taken)
    left = {i: m for i, m in taken.items() if i not in gone}
    assert len(left) == min(want, len(taken))
    if left:
        assert placement.spread(left.values()) <= max(1, placement.spread(taken.values()))


def test_nothing_is_placed_without_a_machine() -> None:
    """Proves that an empty cluster gets no command."""
    assert placement.missing(3, {}, []) == []
