"""The budget of one client query: it only shrinks, and it travels."""

from __future__ import annotations

import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from raydns.actors.query.budget import Budget, BudgetExhausted, DeadlinePassed
from tests.actors.query.kit import item


def test_it_comes_out_of_an_item_and_goes_back() -> None:
    """What was spent here is missing there; the deadline is what is left of it."""
    query = item("a.", deadline_ms=5000)
    budget = Budget.from_item(query, 100.0)
    budget.spend_query(101.0)
    budget.spend_octets(300)
    budget.spend_cname(2)
    onward = item("a.")
    budget.write_to(onward, 102.5)
    assert (onward.queries_left, onward.octets_left, onward.cname_left, onward.deadline_ms) == (127, 99_700, 9, 2500)
    budget.spend_octets(200_000)
    budget.write_to(onward, 200.0)
    assert (onward.octets_left, onward.deadline_ms) == (0, 0)


def test_each_purse_has_its_error() -> None:
    """Queries, octets, CNAME steps and time; errors survive a pickle and say what ran out."""
    budget = Budget(1, 10, 2, 100.0)
    budget.spend_query(1.0)
    with pytest.raises(BudgetExhausted, match="exchanges"):
        budget.spend_query(1.0)
    with pytest.raises(DeadlinePassed):
        budget.check(100.0)
    budget.spend_octets(10)
    with pytest.raises(BudgetExhausted, match="octets"):
        budget.check(1.0)
    with pytest.raises(BudgetExhausted, match="CNAME") as caught:
        budget.spend_cname(3)
    again = pickle.loads(pickle.dumps(caught.value))
    assert isinstance(again, BudgetExhausted)
    assert again.message == caught.value.message


@given(st.lists(st.sampled_from(["query", "octets", "cname"]), max_size=300))
def test_it_never_grows(spending: list[str]) -> None:
    """Whatever is spent in whatever order: no purse grows, none is spent twice."""
    budget = Budget(20, 2000, 11, 1e9)
    for kind in spending:
        before = (budget.queries_left, budget.octets_left, budget.cname_left)
        try:
            if kind == "query":
                budget.spend_query(0.0)
            elif kind == "octets":
                budget.spend_octets(150)
            else:
                budget.spend_cname()
        except BudgetExhausted:
            pass
        after = (budget.queries_left, budget.octets_left, budget.cname_left)
        assert all(b >= a for b, a in zip(before, after, strict=True))
        assert budget.queries_left >= 0
        assert budget.cname_left >= 0
