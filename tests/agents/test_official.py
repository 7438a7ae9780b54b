"""Our agents against the official codes' own numbers, which `official.py` made them tell."""

import csv
from collections import defaultdict

import pytest
from official import KINDS, TABLE, learn, new_agent, new_batch

BATCH_SIZE = 16
# By how much the official code's own numbers differ between one thread and two, several times over: Adam turns the
# smallest gradients, which are rounding errors, into whole steps.
PRECISION = {"drqv2": 3e-4, "sac": 3e-4, "drq": 3e-3, "curl": 2e-3}


def official_losses(kind):
    """Return what the official code told of each update, {loss: number}."""
    updates = defaultdict(dict)
    with TABLE.open(newline="") as file:
        for row in csv.DictReader(file):
            if row["agent"] == kind:
                updates[int(row["update"])][row["loss"]] = float(row["official"])
    return [updates[number] for number in range(len(updates))]


@pytest.mark.parametrize("kind", KINDS)
def test_updates_are_those_of_the_official_code(kind):
    expected = official_losses(kind)
    assert len(expected) == 8
    agent = new_agent(kind)
    for number, losses in enumerate(expected):
        ours, _ = learn(kind, agent, number, new_batch(kind, BATCH_SIZE, number))
        assert ours.keys() == losses.keys()
        for name, value in ours.items():
            # the temperature moves by a ten-thousandth per update
            precision = 3e-6 if name == "temperature" else PRECISION[kind]
            assert value == pytest.approx(losses[name], rel=precision), f"{name} of update {number}"
