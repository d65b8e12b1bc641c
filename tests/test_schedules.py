"""Learning rates as functions of the step, against numbers worked out by hand."""

import pytest

from minilstm import schedules


def rates(schedule, steps):
    return [schedule(step) for step in steps]


def test_constant_never_changes():
    assert rates(schedules.constant(0.3), [0, 7, 10**6]) == [0.3] * 3


def test_exponential_decays_by_its_rate_every_decay_steps():
    assert rates(schedules.exponential(8.0, 10, 0.25), [0, 5, 10, 20]) == pytest.approx([8, 4, 2, 0.5])
    assert rates(schedules.exponential(8.0, 10, 0.25, staircase=True), [0, 9, 10, 19, 20]) == [8, 8, 2, 2, 0.5]


def test_piecewise_changes_after_each_boundary():
    schedule = schedules.piecewise([2, 5], [1.0, 0.5, 0.1])
    assert rates(schedule, range(8)) == [1, 1, 1, 0.5, 0.5, 0.5, 0.1, 0.1]


def test_piecewise_needs_one_rate_more_than_boundaries():
    with pytest.raises(ValueError, match="2 boundaries need 3 rates, got 2"):
        schedules.piecewise([1, 2], [1.0, 0.5])


def test_cosine_goes_from_the_rate_to_its_final_share_and_stays():
    assert rates(schedules.cosine(2.0, 8), [0, 2, 4, 8, 100]) == pytest.approx([2, 1 + 0.5**0.5, 1, 0, 0])
    assert rates(schedules.cosine(2.0, 8, final=0.25), [0, 4, 8, 9]) == pytest.approx([2, 1.25, 0.5, 0.5])


def test_warm_up_rises_linearly_to_the_schedule():
    schedule = schedules.warm_up(schedules.constant(4.0), 4)
    assert rates(schedule, range(6)) == [1, 2, 3, 4, 4, 4]
    assert schedules.warm_up(schedules.exponential(8.0, 10, 0.25), 2)(0) == 4


def test_halving_keeps_the_rate_for_the_full_epochs_and_then_halves_every_epoch():
    schedule = schedules.halving(1.0, full_epochs=4, steps_per_epoch=3)
    assert [schedule(3 * epoch) for epoch in range(7)] == [1, 1, 1, 1, 0.5, 0.25, 0.125]
    assert rates(schedule, [11, 12, 14, 15]) == [1, 0.5, 0.5, 0.25]
    assert schedules.halving(1.0, 1, 2, decay=0.1)(2) == pytest.approx(0.1)
