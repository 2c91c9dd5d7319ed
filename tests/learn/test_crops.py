"""Crops and the operations that came with DINO, against torchvision; draws are functions of the generator."""

import dataclasses

import pytest
import torch
from torch.nn.functional import interpolate
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as tv

from pipeline.learn import augment, colour, crops
from pipeline.learn.samples import draws
from pipeline.runs.spec import Augment, Blur
from pipeline.study import paper

PLAIN: Augment = dataclasses.replace(
    paper.DINO_AUGMENT, first_jitter=paper.OFF, grey=0.0, blur=None, horizontal_flip=0.0, mean=(0, 0, 0), std=(1, 1, 1)
)


def smooth(n: int = 4, side: int = 40) -> torch.Tensor:
    small = torch.rand(n, 3, 8, 8, generator=torch.Generator().manual_seed(2))
    return interpolate(small, size=(side, side), mode="bicubic").clamp(0, 1)


def pixels(n: int = 4, side: int = 40) -> torch.Tensor:
    return (smooth(n, side).permute(0, 2, 3, 1) * 255).round().to(torch.uint8)


@pytest.mark.parametrize("side", [3, 13])
def test_every_image_is_blurred_by_its_own_sigma_as_torchvision_does(side):
    images, sigma = smooth(), torch.tensor([0.1, 0.7, 1.3, 2.0], dtype=torch.float64)
    theirs = [tv.gaussian_blur(image, [side, side], [float(s)]) for image, s in zip(images, sigma, strict=True)]
    drawn = augment.draw(PLAIN, 4, 40, 40, draws("blur")).colours
    ours = colour.recolour(images.clone(), dataclasses.replace(drawn, sigma=sigma, blur_side=side))
    torch.testing.assert_close(ours, torch.stack(theirs), atol=1e-5, rtol=0)


def test_a_sigma_of_zero_leaves_the_image_as_it_is():
    images = smooth()
    spec = dataclasses.replace(PLAIN, blur=Blur(p=0.0, least=0.1, most=2.0, side=13))
    assert torch.equal(colour.recolour(images.clone(), augment.draw(spec, 4, 40, 40, draws("blur")).colours), images)


def test_solarisation_and_greyscale_are_torchvisions():
    images = smooth()
    spec = dataclasses.replace(PLAIN, solarise=1.0)
    ours = colour.recolour(images.clone(), augment.draw(spec, 4, 40, 40, draws("solarise")).colours)
    torch.testing.assert_close(ours, tv.solarize(images, 0.5), atol=0, rtol=0)
    spec = dataclasses.replace(PLAIN, grey=1.0)
    ours = colour.recolour(images.clone(), augment.draw(spec, 4, 40, 40, draws("grey")).colours)
    torch.testing.assert_close(ours, tv.rgb_to_grayscale(images, 3), atol=1e-5, rtol=0)


def test_what_came_later_is_applied_as_often_as_asked_and_changes_no_earlier_draw():
    spec = paper.augmentation(blur=True, solarise=True)
    n = 4000
    before, after = (augment.draw(one, n, 20, 20, draws("often")) for one in (paper.AUGMENT, spec))
    assert torch.equal(before.warp, after.warp)
    before, after = before.colours, after.colours
    assert torch.equal(before.jitters[1].factors, after.jitters[1].factors)
    assert not (before.grey.any() or before.sigma.any() or before.solarise.any())
    blurred = after.sigma > 0
    assert blurred.float().mean() == pytest.approx(0.5, abs=0.03)
    assert after.solarise.float().mean() == pytest.approx(0.2, abs=0.03)
    assert 0.1 <= after.sigma[blurred].min() and after.sigma.max() <= 2.0


def test_colour_jitter_with_hue_as_strong_as_dinos_is_torchvisions():
    images = smooth(2)
    factors = torch.tensor([[1.7, 0.3, 1.6, 0.2], [0.3, 1.7, 0.2, -0.2]])
    order = torch.tensor([[3, 1, 0, 2], [2, 3, 1, 0]])
    ours = images.clone()
    for image, places, values in zip(ours.split(1), order.tolist(), factors.tolist(), strict=True):
        colour.jitter(image, places, values)
    operations = (tv.adjust_brightness, tv.adjust_contrast, tv.adjust_saturation, tv.adjust_hue)
    for image, places, values, found in zip(images, order, factors, ours, strict=True):
        for place in places:
            image = operations[int(place)](image, float(values[place]))
        torch.testing.assert_close(found, image, atol=1e-4, rtol=0)


@pytest.mark.parametrize("side", [40, 64, 16])
def test_a_crop_is_torchvisions_inside_its_edges(side):
    images = smooth(2)
    boxes = torch.tensor([[3, 5, 20, 24], [0, 12, 30, 26]], dtype=torch.float64)
    ours = augment.warp(images, crops.crop_warp(boxes, side), (side, side), "border")
    for image, (left, top, columns, rows), found in zip(images, boxes.int().tolist(), ours, strict=True):
        theirs = tv.resized_crop(image, top, left, rows, columns, [side, side], antialias=False)
        # torchvision repeats the box's last pixel where we see the image's next one
        edge = -(-side // min(rows, columns))
        inside = (slice(None), slice(edge, -edge), slice(edge, -edge))
        torch.testing.assert_close(found[inside], theirs[inside], atol=1e-4, rtol=0)


def test_without_antialiasing_a_crop_made_smaller_is_a_little_sharper_than_torchvisions():
    """The tolerance that crops.py's docstring is about: DINO's small crops shrink their box by 1.7 at most."""
    image = smooth(1, 64)
    box = torch.tensor([[4, 4, 48, 48]], dtype=torch.float64)
    ours = augment.warp(image, crops.crop_warp(box, 28), (28, 28), "border")
    theirs = tv.resized_crop(image, 4, 4, 48, 48, [28, 28], antialias=True)
    difference = (ours - theirs).abs()
    assert 0 < difference.mean() < 0.01


@pytest.mark.parametrize(("least", "most"), [(0.05, 0.4), (0.5, 1.0)])
def test_boxes_follow_torchvisions_law(least, most):
    """Mean, deviation and extremes of 3,000 boxes of each (two-sample Kolmogorov-Smirnov, at one in ten thousand)."""
    from scipy.stats import ks_2samp

    torch.manual_seed(0)
    n, image = 3000, torch.empty(3, 64, 64)
    ours = crops.draw_boxes(crops.Crop(least, most, 32), n, 64, 64, draws("boxes"))
    their = v2.RandomResizedCrop(32, scale=(least, most)).make_params
    found = [their([image]) for _ in range(n)]
    theirs = torch.tensor([[one[key] for key in ("left", "top", "width", "height")] for one in found])
    for column in range(4):
        assert ks_2samp(ours[:, column].numpy(), theirs[:, column].double().numpy()).pvalue > 1e-4
    assert (ours[:, 0] + ours[:, 2]).max() <= 64 and (ours[:, 1] + ours[:, 3]).max() <= 64
    assert ours.min() >= 0


def test_where_no_box_fits_the_whole_image_is_taken():
    boxes = crops.draw_boxes(crops.Crop(1.0, 1.0, 8), 500, 64, 64, draws("whole"))
    assert (boxes == torch.tensor([0.0, 0, 64, 64])).all()


def test_a_flip_is_fused_with_the_crop():
    spec = dataclasses.replace(PLAIN, horizontal_flip=1.0)
    whole = crops.Crop(1.0, 1.0, 40)
    (ours,) = crops.recoloured_crops(pixels(), spec, (whole,), draws("flip"), one_draw=False)
    torch.testing.assert_close(ours, augment.unit(pixels()).flip(3), atol=1e-5, rtol=0)


def test_crops_of_one_call_share_their_colours_and_not_their_boxes():
    kinds = (crops.Crop(0.05, 0.4, 40), crops.Crop(0.5, 1.0, 24))
    local, whole = crops.recoloured_crops(pixels(), paper.DINO_AUGMENT, kinds, draws("a"), one_draw=False)
    again = crops.recoloured_crops(pixels(), paper.DINO_AUGMENT, kinds, draws("a"), one_draw=False)
    other = crops.recoloured_crops(pixels(), paper.DINO_AUGMENT, kinds, draws("b"), one_draw=False)
    assert local.shape == (4, 3, 40, 40) and whole.shape == (4, 3, 24, 24)
    assert torch.equal(again[0], local) and torch.equal(again[1], whole)
    assert not torch.equal(other[0], local)


def test_draws_for_the_batch_treat_every_image_alike_and_others_do_not():
    same = pixels(1).repeat(4, 1, 1, 1)
    kinds = (crops.Crop(0.05, 0.4, 32),)
    (one,) = crops.recoloured_crops(same, paper.DINO_AUGMENT, kinds, draws("a"), one_draw=True)
    (own,) = crops.recoloured_crops(same, paper.DINO_AUGMENT, kinds, draws("a"), one_draw=False)
    assert all(torch.equal(one[0], view) for view in one[1:])
    assert not any(torch.equal(own[0], view) for view in own[1:])


def test_dinos_own_order_crops_before_it_blurs():
    blurred = dataclasses.replace(PLAIN, blur=Blur(p=1.0, least=1.5, most=1.5, side=13))
    crop = crops.Crop(0.2, 0.3, 48)
    sharp = crops.cropped_then_recoloured(pixels(), [(PLAIN, crop)], draws("a"))
    ours = crops.cropped_then_recoloured(pixels(), [(blurred, crop)], draws("a"))
    # the blur's draws come before the boxes', so compare with the boxes of the same generator
    generator = draws("a")
    drawn = augment.draw(blurred, 4, 40, 40, generator)
    boxes = crops.draw_boxes(crop, 4, 40, 40, generator)
    image = augment.warp(augment.unit(pixels()), drawn.warp @ crops.crop_warp(boxes, 48), (48, 48), "border")
    expected = torch.stack([tv.gaussian_blur(one, [13, 13], [1.5]) for one in image])
    torch.testing.assert_close(ours, expected, atol=1e-5, rtol=0)
    assert sharp.shape == ours.shape


def test_a_crop_that_is_not_possible_is_an_error():
    with pytest.raises(ValueError, match="areas are parts of the image in"):
        crops.Crop(0.5, 0.4, 32)
