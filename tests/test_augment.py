import numpy as np
import torch

from pixelcontrol.augment import random_shift, shift


def random_images(*shape):
    return torch.randint(0, 256, shape, dtype=torch.uint8)


def slow_shift(images, offset, pad):
    """Crop each edge-padded image, one by one; `offset` counts from the centre."""
    result = np.empty_like(images)
    _, _, height, width = images.shape
    for sample, (down, right) in enumerate(offset):
        for channel in range(images.shape[1]):
            padded = np.pad(images[sample, channel], pad, mode="edge")
            top, left = pad + down, pad + right
            result[sample, channel] = padded[top : top + height, left : left + width]
    return result


def test_worked_shift():
    image = torch.arange(9, dtype=torch.uint8).view(1, 1, 3, 3)  # 0 1 2 / 3 4 5 / 6 7 8
    down_one = shift(image, torch.tensor([[1, 0]]), 2)
    left_two = shift(image, torch.tensor([[0, -2]]), 2)
    assert down_one.tolist() == [[[[3, 4, 5], [6, 7, 8], [6, 7, 8]]]]
    assert left_two.tolist() == [[[[0, 0, 0], [3, 3, 3], [6, 6, 6]]]]


def test_equals_cropping_the_padded_image_at_every_offset():
    offset = torch.cartesian_prod(torch.arange(-4, 5), torch.arange(-4, 5))
    images = random_images(len(offset), 9, 13, 11)
    expected = slow_shift(images.numpy(), offset.tolist(), pad=4)
    np.testing.assert_array_equal(shift(images, offset, 4).numpy(), expected)


def offsets_drawn(batch, pad, generator):
    """Read the offsets off images whose channels hold each pixel's own coordinates."""
    size = 2 * pad + 3
    y, x = torch.meshgrid(torch.arange(size), torch.arange(size), indexing="ij")
    image = torch.stack([y, x]).to(torch.uint8)
    shifted = random_shift(image.expand(batch, 2, size, size), pad, generator)
    centre = size // 2
    return shifted[:, :, centre, centre].long() - centre


def test_every_offset_is_equally_likely_and_axes_are_independent():
    offsets = offsets_drawn(20_000, 4, torch.Generator().manual_seed(1))
    assert offsets.min() == -4
    assert offsets.max() == 4
    counts = torch.bincount((offsets[:, 0] + 4) * 9 + offsets[:, 1] + 4, minlength=81)
    assert len(counts) == 81
    expected = len(offsets) / 81
    chi_square = ((counts - expected) ** 2 / expected).sum().item()
    # 80 degrees of freedom: mean 80, standard deviation √160
    assert abs(chi_square - 80) < 4 * 160**0.5


def test_consecutive_samples_are_independent():
    offsets = offsets_drawn(20_000, 1, torch.Generator().manual_seed(1)) + 1
    place = offsets[:, 0] * 3 + offsets[:, 1]
    counts = torch.bincount(place[:-1] * 9 + place[1:], minlength=81)
    expected = (len(place) - 1) / 81
    assert abs(((counts - expected) ** 2 / expected).sum().item() - 80) < 4 * 160**0.5


def test_all_channels_of_a_sample_move_together():
    picture = random_images(64, 1, 12, 12)
    shifted = random_shift(picture.expand(64, 9, 12, 12), 4, torch.Generator().manual_seed(1))
    assert (shifted == shifted[:, :1]).all()
    assert (shifted != picture).any()


def test_random_shift_is_a_crop_of_each_sample():
    images = random_images(32, 9, 12, 14)
    offset = offsets_drawn(32, 4, torch.Generator().manual_seed(3))
    shifted = random_shift(images, 4, torch.Generator().manual_seed(3))
    np.testing.assert_array_equal(shifted.numpy(), slow_shift(images.numpy(), offset.tolist(), pad=4))


def test_no_padding_leaves_images_as_they_are():
    images = random_images(4, 9, 8, 8)
    assert torch.equal(random_shift(images, 0, torch.Generator()), images)


def test_the_input_stays_and_only_the_given_generator_advances():
    images = random_images(4, 9, 8, 8)
    before, state = images.clone(), torch.get_rng_state()
    random_shift(images, 4, torch.Generator().manual_seed(1))
    assert torch.equal(images, before)
    assert torch.equal(torch.get_rng_state(), state)
