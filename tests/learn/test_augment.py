"""Augmentation against torchvision's functional operations, and its draws."""

import dataclasses

import pytest
import torch
from torchvision.transforms.v2 import functional as tv

from pipeline.learn import augment, colour
from pipeline.learn.samples import draws
from pipeline.runs.spec import Jitter
from pipeline.study import paper

OFF = Jitter(p=0.0, brightness=0.0, contrast=0.0, saturation=0.0)
STILL = dataclasses.replace(
    paper.AUGMENT, first_jitter=OFF, second_jitter=OFF, vertical_flip=0.0, horizontal_flip=0.0, perspective_p=0.0
)


def random_images(n: int = 5, height: int = 24, width: int = 30) -> torch.Tensor:
    return torch.randint(0, 256, (n, height, width, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))


def smooth(n: int = 5) -> torch.Tensor:
    small = augment.unit(random_images(n, 8, 8))
    return torch.nn.functional.interpolate(small, size=(40, 40), mode="bicubic").clamp(0, 1)


def one_operation(operation: int, factors: list[float], images: torch.Tensor) -> torch.Tensor:
    """Jitter with one operation at work, by each image's own factor, and the others neutral."""
    images = images.clone()
    for image, factor in zip(images.split(1), factors, strict=True):
        values = list(colour.NEUTRAL)
        values[operation] = factor
        colour.jitter(image, range(4), values)
    return images


@pytest.mark.parametrize(
    ("operation", "oracle"),
    [
        (colour.BRIGHTNESS, tv.adjust_brightness),
        (colour.CONTRAST, tv.adjust_contrast),
        (colour.SATURATION, tv.adjust_saturation),
    ],
)
def test_each_colour_operation_is_torchvisions(operation, oracle):
    images, factors = augment.unit(random_images()), [0.8, 0.93, 1.0, 1.1, 1.2]
    ours = one_operation(operation, factors, images)
    theirs = torch.stack([oracle(image, factor) for image, factor in zip(images, factors, strict=True)])
    torch.testing.assert_close(ours, theirs, atol=2e-4, rtol=0)


def test_hue_is_torchvisions():
    images, shifts = augment.unit(random_images()), [-0.5, -0.1, 0.0, 0.07, 0.3]
    ours = one_operation(colour.HUE, shifts, images)
    theirs = torch.stack([tv.adjust_hue(image, shift) for image, shift in zip(images, shifts, strict=True)])
    torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=0)


def test_operations_follow_each_images_own_order():
    images = augment.unit(random_images(2))
    factors = torch.tensor([[1.2, 0.8, 1.0, 0.0]]).repeat(2, 1)
    order = torch.tensor([[0, 1, 2, 3], [1, 0, 2, 3]])
    drawn = augment.draw(STILL, 2, 24, 30, draws("order"))
    jitters = (colour.Jitters(order=order, factors=factors),)
    ours = colour.recolour(images.clone(), dataclasses.replace(drawn.colours, jitters=jitters))
    first = tv.adjust_contrast(tv.adjust_brightness(images[0], 1.2), 0.8)
    second = tv.adjust_brightness(tv.adjust_contrast(images[1], 0.8), 1.2)
    torch.testing.assert_close(ours, torch.stack([first, second]), atol=2e-4, rtol=0)


def test_an_image_without_an_operation_keeps_its_bits_next_to_one_with_it():
    """A batch's images do not see each other: each is what it is alone."""
    drawn = augment.draw(paper.AUGMENT, 40, 24, 30, draws("turns"))
    still = drawn.warp.eq(torch.eye(3, dtype=torch.float64)).all(dim=(1, 2))
    plain = still & torch.stack([(c.factors[:, 0] == 1) for c in drawn.colours.jitters]).all(dim=0)
    assert 0 < plain.sum() < still.sum() < len(still)
    images = augment.unit(random_images(40))
    ours = augment.warp(colour.recolour(images.clone(), drawn.colours), drawn.warp)
    assert torch.equal(ours[plain], images[plain])
    for i in (~still).nonzero()[:, 0].tolist():
        one = slice(i, i + 1)
        jitters = [(jitter.order[one], jitter.factors[one]) for jitter in drawn.colours.jitters]
        for order, factors in jitters:
            colour.jitter(alone := images[one].clone(), order[0].tolist(), factors[0].tolist())
            images[one] = alone
        found = augment.warp(images[one], drawn.warp[one])
        torch.testing.assert_close(found, ours[one], atol=1e-6, rtol=0)


ALL = dataclasses.replace(
    paper.AUGMENT, first_jitter=paper.DINO_AUGMENT.first_jitter, grey=0.4, blur=paper.BLUR, solarise=0.4
)


@pytest.mark.parametrize("drawn", [40, 1], ids=["each image", "the batch"])
@pytest.mark.parametrize("spec", [paper.AUGMENT, ALL], ids=["the paper's", "all operations"])
def test_images_changed_together_have_the_bits_of_images_changed_one_by_one(spec, drawn):
    images = torch.rand(40, 3, 24, 30, generator=torch.Generator().manual_seed(3))
    colours = augment.draw(spec, drawn, 24, 30, draws("together")).colours
    expected = colour.one_by_one(images.clone(), colours)
    assert torch.equal(colour.together(images.clone(), colours), expected)
    assert not torch.equal(expected, images)


def test_the_choices_of_several_batches_are_joined_in_their_order():
    images = torch.rand(10, 3, 24, 30, generator=torch.Generator().manual_seed(3))
    plain = dataclasses.replace(ALL, solarise=0.0)
    parts = [augment.draw(spec, 5, 24, 30, draws("join", str(spec.solarise))).colours for spec in (plain, ALL)]
    expected = [colour.one_by_one(part.clone(), one) for part, one in zip(images.chunk(2), parts, strict=True)]
    assert torch.equal(colour.one_by_one(images.clone(), colour.join(parts)), torch.cat(expected))


def test_perspective_is_torchvisions():
    images = smooth(3)
    inward = torch.tensor([[2.0, 1], [0, 3], [4, 2], [1, 1]], dtype=torch.float64) / 20
    matrix = augment.perspective_warp(inward.repeat(3, 1, 1), 40, 40)
    start = [[0, 0], [39, 0], [39, 39], [0, 39]]
    end = [[2, 1], [39, 3], [35, 37], [1, 38]]
    theirs = tv.perspective(images, start, end, interpolation=tv.InterpolationMode.BILINEAR, fill=None)
    torch.testing.assert_close(augment.warp(images, matrix), theirs, atol=1e-3, rtol=0)


def test_rotation_is_torchvisions():
    images, degrees = smooth(1), 8.0
    matrix = augment.rotation_warp(torch.tensor([degrees], dtype=torch.float64).deg2rad(), 40, 40)
    theirs = tv.affine(
        images, angle=degrees, translate=[0, 0], scale=1.0, shear=[0.0], interpolation=tv.InterpolationMode.BILINEAR
    )
    # torchvision rounds its grid differently; a pixel at the black border may fall on either side
    assert (augment.warp(images, matrix) - theirs).abs().mean() < 2e-3


def test_flips_mirror_the_image():
    images = augment.unit(random_images(2))
    spec = dataclasses.replace(STILL, degrees=0.0, horizontal_flip=1.0)
    matrix = augment.draw(spec, 2, 24, 30, draws("flip")).warp
    assert torch.equal(augment.warp(images, matrix), images.flip(3))
    spec = dataclasses.replace(STILL, degrees=0.0, vertical_flip=1.0)
    matrix = augment.draw(spec, 2, 24, 30, draws("flip")).warp
    assert torch.equal(augment.warp(images, matrix), images.flip(2))


def test_without_augmentation_only_normalisation_is_left():
    pixels = random_images()
    spec = dataclasses.replace(STILL, degrees=0.0)
    ours = augment.augment(pixels, spec, draws("still"))
    theirs = tv.normalize(pixels.permute(0, 3, 1, 2).float() / 255, list(spec.mean), list(spec.std))
    torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=0)


def test_draws_are_a_function_of_the_generators_seed():
    first = augment.augment(random_images(), paper.AUGMENT, draws("augment", 77, 0, 3))
    again = augment.augment(random_images(), paper.AUGMENT, draws("augment", 77, 0, 3))
    other = augment.augment(random_images(), paper.AUGMENT, draws("augment", 77, 0, 4))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


@pytest.mark.parametrize("device", ["cuda"], indirect=True)
def test_a_gpu_makes_the_images_that_a_cpu_makes(device):
    spec = dataclasses.replace(paper.DINO_AUGMENT, perspective_p=0.5, degrees=10.0, solarise=0.2)
    pixels = (smooth(32) * 255).to(torch.uint8).permute(0, 2, 3, 1).contiguous()
    ours, theirs = (augment.augment(p, spec, draws("device")).cpu() for p in (pixels, pixels.to(device)))
    # rounding decides on which side of black's border, or of solarisation's threshold, a pixel falls
    assert ((ours - theirs).abs() > 1e-3).float().mean() < 1e-3


def test_operations_are_applied_as_often_as_the_paper_says():
    n = 4000
    drawn = augment.draw(paper.AUGMENT, n, 20, 20, draws("often"))
    jittered = (drawn.colours.jitters[0].factors[:, 0] != 1).float().mean()
    mirrored = (torch.linalg.det(drawn.warp) < 0).float().mean()  # one of the two flips
    bent = (drawn.warp[:, 2, :2].abs().sum(dim=1) > 1e-9).float().mean()
    assert jittered == pytest.approx(0.3, abs=0.03)
    assert mirrored == pytest.approx(2 * 0.3 * 0.7, abs=0.03)
    assert bent == pytest.approx(0.15, abs=0.02)
