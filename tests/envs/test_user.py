"""What a world says of itself, in words."""

import numpy as np

from pixelcontrol.envs.user import in_words


def test_a_world_in_words():
    low, high = np.array([-1.0, -1.0]), np.array([1.5, 20.0])
    assert in_words(["camera 0"], "red, green, blue", {}, low, high) == (
        "the planes of an image are red, green, blue of camera 0; actions are in [-1, 1], for controls from -1 to "
        "1.5,20"
    )
    assert in_words(["'front'", "'wrist'"], "red", {"joints": 3, "speeds": 2}, low, -low) == (
        "the planes of an image are red of 'front', then of 'wrist'; proprio is joints (3), speeds (2), in this "
        "order; actions are in [-1, 1], for controls from -1 to 1"
    )
