"""What shadows say of the quality of accepted drafts."""

from __future__ import annotations

import pytest

from farthing import Savings

pytestmark = pytest.mark.once


def test_nothing_is_said_without_shadows() -> None:
    assert Savings().worse is None
    assert "quality" not in str(Savings())


@pytest.mark.parametrize(("shadowed", "good"), [(100, 97), (50, 50), (1, 0), (1, 1), (20_000, 19_400)])
def test_the_share_that_was_worse_has_an_interval(shadowed: int, good: int) -> None:
    bill = Savings(shadowed=shadowed, shadowed_good=good)
    assert bill.worse
    share, low, high = bill.worse
    assert share == pytest.approx(1 - good / shadowed)
    # The ends are the shares that the observed one is just 1.96 of their own standard deviations away from.
    for end in {low, high} - {share}:
        assert abs(share - end) == pytest.approx(1.96 * (end * (1 - end) / shadowed) ** 0.5, rel=1e-4)
    assert f"{shadowed:,} compared" in str(bill)


def test_bills_add_up_to_a_narrower_one() -> None:
    one = Savings(shadowed=40, shadowed_good=38)
    wide, narrow = one.worse, (one + one + one).worse
    assert wide and narrow
    assert narrow[0] == pytest.approx(wide[0])
    assert narrow[2] - narrow[1] < wide[2] - wide[1]
