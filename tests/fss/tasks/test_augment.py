"""Views as tensors, against pictures that can be turned and mirrored by hand."""

import numpy as np
import pytest
import torch
from PIL import Image

from fss.imaging import images
from fss.tasks import augment, views
from fss.tasks.views import Augment, View
from tests.fss.conftest import noise_image

SIDE = 33
CHANGED = View(True, (0.1, 0.2, 0.8, 0.9), 7.0, 1.4, 1.1, 0.8, 1.2, 0.02)


def picture(seed: int = 0) -> torch.Tensor:
    """(3, SIDE, SIDE) uint8."""
    return images.to_bytes(noise_image(seed), SIDE)


def labels(seed: int = 0) -> torch.Tensor:
    values = np.random.default_rng(seed).choice(np.array([0, 1, 255], np.uint8), (SIDE, SIDE))
    return torch.from_numpy(values)


def shown(pixels: torch.Tensor, view: View) -> torch.Tensor:
    return augment.images(pixels[None], [view])[0]


def seen(mask: torch.Tensor, view: View) -> torch.Tensor:
    return augment.masks(mask[None], [view])[0]


def test_the_image_itself_is_what_the_network_sees_to_the_bit():
    image = noise_image(0)
    plain = shown(images.to_bytes(image, SIDE), View())
    assert torch.equal(plain, images.to_tensor(image, SIDE))
    assert torch.equal(seen(labels(), View(aspect=1.3)), labels())
    assert torch.equal(shown(picture(), View(flip=True)), shown(picture(), View()).flip(-1))
    assert torch.equal(seen(labels(), View(flip=True)), labels().flip(-1))


def test_the_input_is_left_alone():
    for pixels in (picture(), picture().float() / 255):
        before = pixels.clone()
        shown(pixels, CHANGED)
        assert torch.equal(pixels, before)
    mask, before = labels(), labels()
    seen(mask, CHANGED)
    assert torch.equal(mask, before)


@pytest.mark.parametrize(("angle", "turns"), [(90, -1), (180, 2), (-90, 1)])
@pytest.mark.parametrize("flip", [False, True])
def test_quarter_turns_of_a_square(angle, turns, flip):
    """Clockwise; the mask in step; then mirrored."""
    expected, mask = torch.rot90(shown(picture(), View()), turns, (-2, -1)), torch.rot90(labels(), turns, (-2, -1))
    if flip:
        expected, mask = expected.flip(-1), mask.flip(-1)
    view = View(flip, angle=angle)
    torch.testing.assert_close(shown(picture(), view), expected, atol=1e-3, rtol=0)
    assert torch.equal(seen(labels(), view), mask)


@pytest.mark.parametrize("flip", [False, True])
def test_top_to_bottom(flip):
    view, expected = View(flip, upside=True), shown(picture(), View()).flip(-2)
    torch.testing.assert_close(shown(picture(), view), expected.flip(-1) if flip else expected, atol=1e-4, rtol=0)
    assert torch.equal(seen(labels(), view), labels().flip(-2, -1) if flip else labels().flip(-2))


def test_a_crop_enlarges_and_moves_the_mask_in_step():
    mask = torch.zeros(32, 32, dtype=torch.uint8)
    mask[8:16, 16:24] = 1
    view = View(box=(0.5, 0.25, 1.0, 0.75))  # columns 16..31, rows 8..23: the object in the upper left quarter
    expected = torch.zeros(32, 32, dtype=torch.uint8)
    expected[:16, :16] = 1
    assert torch.equal(seen(mask, view), expected)
    pixels = (mask * 255).expand(3, 32, 32)
    bright = shown(pixels, view) > images.normalise(torch.full((3, 1, 1), 0.5))
    assert torch.equal(bright[0], expected.bool())


def test_outside_of_the_image_is_void_and_the_mean_colour():
    view = View(angle=45)
    mask, pixels = seen(torch.ones(SIDE, SIDE, dtype=torch.uint8), view), shown(picture(), view)
    assert mask[0, 0] == 255
    assert set(mask.unique().tolist()) == {1, 255}
    assert (mask == 255).float().mean() == pytest.approx(1 - 2 * (np.sqrt(2) - 1), abs=0.02)  # of a turned square
    torch.testing.assert_close(pixels[:, 0, 0], torch.zeros(3), atol=1e-6, rtol=0)
    assert mask[SIDE // 2, SIDE // 2] == 1


def test_colours_by_hand():
    """Brightness first, contrast about the mean grey, saturation about each pixel's own."""
    grey = torch.full((3, 4, 4), 0.5)
    half = images.normalise(torch.full((3, 4, 4), 0.25))
    torch.testing.assert_close(shown(grey, View(brightness=0.5, contrast=0.3, saturation=0.1)), half)
    steps = torch.tensor([0.2, 0.6]).repeat(2, 1).expand(3, 2, 2)
    torch.testing.assert_close(
        shown(steps, View(contrast=0.5)), images.normalise(torch.tensor([0.3, 0.5]).repeat(2, 1).expand(3, 2, 2))
    )
    red = torch.zeros(3, 2, 2)
    red[0] = 1.0
    expected = torch.tensor([0.299 + 0.5 * 0.701, 0.1495, 0.1495]).view(3, 1, 1).expand(3, 2, 2)
    torch.testing.assert_close(shown(red, View(saturation=0.5)), images.normalise(expected))


def test_a_third_of_the_circle_turns_red_to_green():
    red, green = torch.zeros(3, 2, 2), torch.zeros(3, 2, 2)
    red[0], green[1] = 0.8, 0.8
    torch.testing.assert_close(shown(red, View(hue=1 / 3)), images.normalise(green))
    grey = torch.full((3, 2, 2), 0.4)
    torch.testing.assert_close(shown(grey, View(hue=0.2)), images.normalise(grey))


def test_a_blur_keeps_the_mean_and_spreads_a_point():
    point = torch.zeros(3, SIDE, SIDE)
    point[:, 16, 16] = 1
    zero = images.normalise(torch.zeros(3, 1, 1))
    blurred = (shown(point, View(blur=1.5 / SIDE)) - zero) * torch.tensor(images.STD).view(3, 1, 1)
    torch.testing.assert_close(blurred.sum((1, 2)), torch.ones(3))
    across = blurred[0].sum(0)
    variance = (across * (torch.arange(SIDE) - 16) ** 2).sum()
    assert float(variance) == pytest.approx(1.5**2, rel=0.1)
    assert torch.equal(blurred[0], blurred[0].T) or torch.allclose(blurred[0], blurred[0].T, atol=1e-6)


def test_colours_and_blur_leave_masks_alone():
    assert torch.equal(seen(labels(), View(brightness=1.2, contrast=0.8, saturation=0.8, blur=0.01)), labels())


def test_a_batch_is_its_rows_one_by_one():
    chosen = [View(), CHANGED, View(flip=True), View(angle=4), View(contrast=0.9), View(blur=0.02)]
    chosen += [views.draw(0, "a", number, Augment(), (3, 4)) for number in range(2, 8)]
    pixels, masks = torch.stack([picture(i) for i in range(12)]), torch.stack([labels(i) for i in range(12)])
    together, cut = augment.images(pixels, chosen), augment.masks(masks, chosen)
    for row, view in enumerate(chosen):
        assert torch.equal(together[row], shown(pixels[row], view))
        assert torch.equal(cut[row], seen(masks[row], view))


def test_image_and_mask_of_real_sizes_stay_together():
    """A black and white picture of its own mask, 3:2, squeezed, cut and turned: both agree but at borders."""
    mask = np.zeros((200, 300), np.uint8)
    mask[60:150, 40:190] = 1
    image = Image.fromarray(mask * 255).convert("RGB")
    for number in range(2, 30):
        view = views.draw(0, "a", number, Augment(colour=0, blur=0), mask.shape, mask)
        pixels = augment.images(images.to_bytes(image, 97)[None], [view])[0, 0]
        moved = augment.masks(augment.square(torch.from_numpy(mask), 97)[None], [view])[0]
        bright = pixels > images.normalise(torch.full((3, 1, 1), 0.5))[0]
        inside = moved != 255
        assert (bright[inside] == (moved[inside] == 1)).float().mean() > 0.985
        assert (moved == 1).any()
