import pytest
import torch

from pixelcontrol.schedules import linear_schedule


@pytest.mark.parametrize(
    ("step", "value"),
    [(0, 1.0), (1, 0.991), (25, 0.775), (50, 0.55), (99, 0.109), (100, 0.1), (101, 0.1), (10**9, 0.1)],
)
def test_goes_straight_from_initial_to_final_and_stays(step, value):
    assert linear_schedule(torch.tensor(step), 1.0, 0.1, 100).item() == pytest.approx(value, abs=1e-6)


def test_rises_too():
    assert linear_schedule(torch.tensor(3), 0.0, 8.0, 4).item() == 6.0


def test_follows_a_step_that_changes_in_place():
    step = torch.tensor(0)
    assert linear_schedule(step, 1.0, 0.0, 4).item() == 1.0
    step.fill_(2)
    assert linear_schedule(step, 1.0, 0.0, 4).item() == 0.5
