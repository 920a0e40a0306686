import numpy as np
import pytest

from tests.unit.trainer import reference
from trainer.byol import schedules

TOTAL = 40


def test_tau_at_the_first_the_middle_and_the_last_step():
    assert float(schedules.target_tau(0, TOTAL, 0.96)) == pytest.approx(0.96, abs=1e-7)
    assert float(schedules.target_tau(TOTAL // 2, TOTAL, 0.96)) == pytest.approx(0.98, abs=1e-6)
    assert float(schedules.target_tau(TOTAL, TOTAL, 0.96)) == 1.0


def test_tau_follows_the_reference_rises_and_stays_at_one_behind_the_end():
    values = [float(schedules.target_tau(step, TOTAL, 0.9)) for step in range(TOTAL + 5)]
    expected = [reference.tau(step, TOTAL, 0.9) for step in range(TOTAL + 1)]
    np.testing.assert_allclose(values[: TOTAL + 1], expected, atol=1e-6)
    assert np.all(np.diff(values[: TOTAL + 1]) > 0)
    assert values[TOTAL:] == [1.0] * 5


@pytest.mark.parametrize("base", [0.0, 0.5, 1.0])
def test_tau_is_exact_at_step_zero(base):
    assert float(schedules.target_tau(0, TOTAL, base)) == base


def test_tau_of_one_stays_one():
    assert {float(schedules.target_tau(step, TOTAL, 1.0)) for step in range(TOTAL)} == {1.0}


def test_the_learning_rate_at_the_first_the_middle_and_the_last_step():
    schedule = schedules.learning_rate_schedule(0.2, 512, warmup_steps=8, total_steps=TOTAL)
    assert float(schedule(0)) == 0.0
    assert float(schedule(4)) == pytest.approx(0.2, rel=1e-6)  # half of 0.2 * 512 / 256
    assert float(schedule(8)) == pytest.approx(0.4, rel=1e-6)
    assert float(schedule(24)) == pytest.approx(0.2, rel=1e-5)  # half way down
    assert float(schedule(TOTAL)) == pytest.approx(0.0, abs=1e-7)


@pytest.mark.parametrize("warmup", [0, 1, 8])
def test_the_learning_rate_follows_the_reference_up_and_down(warmup):
    schedule = schedules.learning_rate_schedule(0.3, 128, warmup, TOTAL)
    values = [float(schedule(step)) for step in range(TOTAL + 1)]
    expected = [reference.learning_rate(step, 0.15, warmup, TOTAL) for step in range(TOTAL + 1)]
    np.testing.assert_allclose(values, expected, atol=1e-6)
    assert np.all(np.diff(values[: warmup + 1]) > 0)
    assert np.all(np.diff(values[warmup:]) < 0)
