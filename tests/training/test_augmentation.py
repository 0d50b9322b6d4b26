"""Augmentation of pictures: of the published laws, of each picture's key alone, the same in batches as one by one."""

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.stats import binomtest, ks_2samp, kstest

from transphere.training.config import Encoder
from transphere.training.encoders.networks import pipeline
from transphere.training.pipelines.augmentation import Augmentation

pytestmark = pytest.mark.usefixtures("one_thread")
DEVICES = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]


def coordinates(height, width):
    """(1, 3, height, width): a picture that says of each pixel its row and column, 0 .. 1, at their centres."""
    y, x = torch.meshgrid((torch.arange(height) + 0.5) / height, (torch.arange(width) + 0.5) / width, indexing="ij")
    return torch.stack([y, x, y])[None]


def boxes(height, width, keys):
    """Top, left, height and width of the parts that "crop" takes, (n, 4), read off their pixels: middle and slopes say where they are."""
    size = 128  # the parts grow, and the filter keeps a slope
    augment = Augmentation(size, ["crop"])
    found = []
    for key in keys:
        middle = augment(coordinates(height, width), [key])[0, :2, size // 4 : -size // 4, size // 4 : -size // 4]  # free of the borders
        steps = (middle[0, -1, 0] - middle[0, 0, 0], middle[1, 0, -1] - middle[1, 0, 0])
        sides = [float(step) * size / (middle.shape[1] - 1) for step in steps]
        centres = [float(middle[0].mean()), float(middle[1].mean())]
        found.append([c - s / 2 for c, s in zip(centres, sides, strict=True)] + sides)
    return np.array(found) * [height, width, height, width]


def published_boxes(height, width, n, seed=0):
    """RandomResizedCrop as Szegedy et al. (2015) and torchvision have it: ten attempts at area and ratio, then the largest that fits."""
    random, found = np.random.default_rng(seed), []
    while len(found) < n:
        for _ in range(10):
            area, ratio = height * width * random.uniform(0.08, 1), np.exp(random.uniform(np.log(3 / 4), np.log(4 / 3)))
            w, h = round(np.sqrt(area * ratio)), round(np.sqrt(area / ratio))
            if 0 < w <= width and 0 < h <= height:
                found.append([random.integers(height - h + 1), random.integers(width - w + 1), h, w])
                break
        else:
            h, w = min(height, round(width * 4 / 3)), min(width, round(height * 4 / 3))
            found.append([random.integers(height - h + 1), random.integers(width - w + 1), h, w])
    return np.array(found, float)


@pytest.mark.parametrize(("height", "width"), [(96, 128), (100, 100), (40, 120)])
def test_crops_are_those_of_the_published_law(height, width):
    ours, published = boxes(height, width, range(600)), published_boxes(height, width, 6000)
    assert (np.abs(ours - ours.round()) < 0.06).all()  # whole pixels
    ours = ours.round()
    assert (ours[:, :2] >= 0).all() and (ours[:, 0] + ours[:, 2] <= height).all() and (ours[:, 1] + ours[:, 3] <= width).all()
    for statistic in (
        lambda top, left, h, w: h * w / (height * width),
        lambda top, left, h, w: np.log(w / h),
        lambda top, left, h, w: top,
        lambda top, left, h, w: left,
    ):
        assert ks_2samp(statistic(*ours.T), statistic(*published.T)).pvalue > 0.01


def test_crops_are_resized_as_by_pillow():
    """Filtered where they shrink: without that a picture of noise would keep its contrast."""
    pixels = np.random.default_rng(0).integers(60, 190, (90, 120, 3), dtype=np.uint8)  # Pillow clips between its two passes
    x = torch.from_numpy(pixels).permute(2, 0, 1)[None]  # bytes
    for key in range(8):
        top, left, height, width = boxes(90, 120, [key])[0].round().astype(int)
        part = Image.fromarray(pixels[top : top + height, left : left + width]).resize((32, 32), Image.Resampling.BICUBIC)
        got = Augmentation(32, ["crop"])(x, [key])[0].permute(1, 2, 0)
        np.testing.assert_allclose(got.numpy() * 255, np.asarray(part), atol=1.01)  # and rounds twice


def test_flips_and_erasures_are_of_the_published_shares():
    n, size = 2000, 32
    ramp = coordinates(size, size).expand(n, -1, -1, -1)
    flipped = Augmentation(size, ["flip"])(ramp, range(n))
    mirrored = (flipped == ramp.flip(3)).flatten(1).all(1)
    assert torch.equal(flipped[~mirrored], ramp[~mirrored]) and binomtest(int(mirrored.sum()), n, 0.5).pvalue > 0.01

    erased = Augmentation(size, ["erase"])(torch.zeros(n, 3, size, size), range(n))
    assert set(erased.unique().tolist()) == {0, 0.5} and (erased == erased[:, :1]).all()
    grey = erased[:, 0] > 0  # (n, size, size)
    chosen = grey.flatten(1).any(1)
    assert binomtest(int(chosen.sum()), n, 0.2).pvalue > 0.01
    rows, columns = grey[chosen].any(2).sum(1), grey[chosen].any(1).sum(1)
    area = rows * columns
    assert torch.equal(area, grey[chosen].flatten(1).sum(1))  # rectangles
    assert kstest(area / size**2, "uniform", (0.02, 0.31)).pvalue > 0.01
    assert (rows > columns).float().mean().sub(0.5).abs() < 0.1
    inside = (rows < size) & (columns < size)  # the others were cut at the picture's edge
    assert ((rows / columns)[inside] > 0.22).all() and ((rows / columns)[inside] < 4.5).all()  # .3 and 3.3, before rounding to pixels


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("chosen", [["crop"], ["flip"], ["erase"], ["crop", "flip", "erase"]])
def test_a_batch_is_its_pictures_one_by_one(chosen, device):
    x = torch.rand(12, 3, 50, 70, generator=torch.Generator().manual_seed(0))
    keys = [*range(10), 2**63 - 1, 0]
    augment, before = Augmentation(24, chosen), torch.random.get_rng_state()
    whole = augment(x.to(device), keys)
    assert whole.device.type == device and torch.equal(torch.random.get_rng_state(), before)
    torch.manual_seed(7)  # whatever the global generator is
    for i in reversed(range(12)):
        torch.testing.assert_close(augment(x[i : i + 1], keys[i : i + 1])[0], whole[i].cpu(), atol=0 if device == "cpu" else 1e-5, rtol=0)
    torch.testing.assert_close(augment(x[:1], keys[-1:]), augment(x[:1], [0]), atol=0, rtol=0)
    others = augment(x, [key + 1 for key in range(12)])
    assert not torch.equal(others, whole.cpu())


def test_what_is_drawn_for_one_does_not_depend_on_the_other():
    x = coordinates(48, 64)
    for key in range(20):
        cropped = Augmentation(16, ["crop"])(x, [key])
        assert torch.equal(Augmentation(16, ["flip"])(cropped, [key]), Augmentation(16, ["crop", "flip"])(x, [key]))


def test_bytes_are_floats_from_0_to_1():
    x = torch.randint(256, (3, 3, 30, 40), dtype=torch.uint8)
    for chosen in ([], ["crop"], ["erase"], ["crop", "flip", "erase"]):
        torch.testing.assert_close(Augmentation(24, chosen)(x, range(3)), Augmentation(24, chosen)(x / 255, range(3)), atol=1e-6, rtol=0)


def test_threads_do_not_change_a_bit():
    """Those that read have one thread each, a process that reads for itself has all."""
    x = torch.rand(1, 3, 300, 400, generator=torch.Generator().manual_seed(0))
    augment = Augmentation(96, ["crop", "flip", "erase"])
    alone = [augment(x, [key]) for key in range(4)]
    torch.set_num_threads(4)
    assert all(torch.equal(augment(x, [key]), alone[key]) for key in range(4))


@pytest.mark.parametrize("name", ["clip-image", "vit", "resnet18"])
def test_encoders_get_them_in_their_own_colours(name):
    made = pipeline(Encoder(name, size="tiny", augment=["crop", "flip", "erase"]))
    image, grey = Image.new("RGB", (90, 60), (255, 0, 51)), (0.5 - made.mean) / made.deviation
    red = (torch.tensor([1.0, 0.0, 0.2])[:, None, None] - made.mean) / made.deviation
    random, erased = np.random.default_rng(0), 0
    for _ in range(40):
        x = made.of_image(image, random)
        assert x.shape == (3, 64, 64)
        of_red, of_grey = ((x - colour).abs().amax(0) < 1e-4 for colour in (red, grey))
        assert (of_red | of_grey).all()
        erased += bool(of_grey.any())
    assert 2 <= erased <= 16
    for size in ((1, 1), (1, 60_000), (60_000, 1)):
        assert made.of_image(Image.new("RGB", size), random).shape == made.of_image(Image.new("RGB", size), None).shape == (3, 64, 64)
