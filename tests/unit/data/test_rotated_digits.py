"""Rotated digits: angles from the seed and the id alone, pixels against slow loops and scikit-image."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from data_server import write_registry
from scipy.stats import kstest
from skimage.transform import rotate

from xai_utils.data import load
from xai_utils.data.sets import rotated_digits
from xai_utils.data.sets.rotated_digits import load_rotated_digits
from xai_utils.seeds import derive


@pytest.fixture(scope="module")
def digits():
    return load("digits")


@pytest.fixture(scope="module")
def rotated():
    return load("rotated_digits")


@pytest.fixture
def reading(monkeypatch):
    """Make the loader read this set, whatever source it asks for."""

    def use(images):
        monkeypatch.setattr(rotated_digits, "load", lambda name, limit: images)

    return use


@pytest.fixture
def turning(monkeypatch):
    """Make every digit turn by this share of the largest angle, −1 … 1."""

    def use(share):
        monkeypatch.setattr(rotated_digits, "derive", lambda *names: int((share + 1) * 2**62))

    return use


def slow_rotation(image, degrees, shrunk=1.0):
    """Each pixel looks up where it came from: back, that is clockwise, about the centre; bilinear, 0 outside."""
    height, width = image.shape
    cos, sin = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    out = np.zeros(image.shape)
    for row in range(height):
        for column in range(width):
            x, y = column - (width - 1) / 2, (height - 1) / 2 - row  # y upwards
            u, v = shrunk * (cos * x + sin * y), shrunk * (-sin * x + cos * y)
            from_row, from_column = (height - 1) / 2 - v, u + (width - 1) / 2
            for j in (math.floor(from_row), math.floor(from_row) + 1):
                for i in (math.floor(from_column), math.floor(from_column) + 1):
                    if 0 <= j < height and 0 <= i < width:
                        weight = (1 - abs(from_row - j)) * (1 - abs(from_column - i))
                        out[row, column] += weight * float(image[j, i])
    return out


def test_pixels_in_slow_loops_and_by_scikit_image(digits, rotated, reading):
    for i in (0, 1, 900, 1796):  # scikit-learn's digits have no margin and get one
        source, degrees = digits.images[i, 0].double().numpy(), rotated.labels[i].item() * 45
        np.testing.assert_allclose(rotated.images[i, 0], slow_rotation(source, degrees, 1.4), rtol=0, atol=1e-5)
    reading(digits)
    rotated = load_rotated_digits(source="mnist")
    for i in (0, 1, 900, 1796):
        source, degrees = digits.images[i, 0].double().numpy(), rotated.labels[i].item() * 45
        np.testing.assert_allclose(rotated.images[i, 0], slow_rotation(source, degrees), rtol=0, atol=1e-5)
        library = rotate(source, degrees, order=1, mode="constant", cval=0)
        inside = (slice(4, 24), slice(4, 24))  # at the border it fades out otherwise
        np.testing.assert_allclose(rotated.images[i, 0][inside], library[inside], rtol=0, atol=1e-5)


@pytest.mark.parametrize(("degrees", "turns"), [(90, 1), (-90, -1), (180, 2)])
def test_a_positive_angle_turns_counter_clockwise(digits, turning, reading, degrees, turns):
    turning(degrees / 180)
    reading(digits)
    images = load_rotated_digits(source="mnist", max_angle=180)
    torch.testing.assert_close(images.images, digits.images.rot90(turns, (2, 3)), rtol=0, atol=2e-5)
    assert images.labels.tolist() == [degrees / 180] * 1797


def test_no_angle_is_the_digit_itself(digits, turning, reading):
    turning(0)
    reading(digits)
    images = load_rotated_digits(source="mnist")
    torch.testing.assert_close(images.images, digits.images, rtol=0, atol=1e-5)
    assert not images.labels.any()


def test_angle_follows_from_seed_and_id(digits, rotated):
    for i in (0, 5, 1796):
        drawn = derive(0, "rotated_digits", f"digits/{i:04d}")  # 63 bits
        assert rotated.labels[i].item() == pytest.approx(2 * drawn / 2**63 - 1, abs=1e-7)
    assert kstest(rotated.labels.numpy(), "uniform", args=(-1, 2)).statistic < 0.035
    assert abs(np.corrcoef(rotated.labels, digits.labels)[0, 1]) < 0.06
    other = load("rotated_digits", seed=1)
    assert np.abs(np.corrcoef(rotated.labels, other.labels)[0, 1]) < 0.06
    assert other.split.tolist() == rotated.split.tolist()
    assert other.provenance["sha256"] != rotated.provenance["sha256"]


def test_angle_and_picture_do_not_depend_on_order_number_or_batch(digits, rotated, reading, monkeypatch):
    rows = np.array([1700, 3, 1025, 4, 900])
    reading(digits.take(rows))
    monkeypatch.setattr(rotated_digits, "_BATCH", 2)
    torch.manual_seed(7)
    few = load_rotated_digits()
    assert few.ids.tolist() == rotated.ids[rows].tolist()
    assert torch.equal(few.labels, rotated.labels[rows])
    torch.testing.assert_close(few.images, rotated.images[rows], rtol=0, atol=1e-6)


def test_targets_are_shares_of_the_largest_angle(digits, rotated):
    narrow = load("rotated_digits", max_angle=9)
    assert torch.equal(narrow.labels, rotated.labels)
    np.testing.assert_allclose(
        narrow.images[7, 0], slow_rotation(digits.images[7, 0], 9 * narrow.labels[7].item(), 1.4), atol=1e-5
    )
    assert narrow.provenance["sha256"] != rotated.provenance["sha256"]


def test_another_size_and_fewer_digits(digits, rotated, turning, reading):
    few = load("rotated_digits", size=56, keep={"train": 5, "val": 2, "test": 3})
    assert few.images.shape == (10, 1, 56, 56)
    assert few.masks.shape == (10, 56, 56)
    assert [len(few.subset(part)) for part in ("train", "val", "test")] == [5, 2, 3]
    rows = [rotated.ids.tolist().index(name) for name in few.ids]
    assert torch.equal(few.labels, rotated.labels[rows])  # the angle is the digit's own
    turning(0)
    reading(digits)
    still = load_rotated_digits(source="mnist", size=56)
    inside = (slice(None), slice(None), slice(1, -1), slice(1, -1))  # outside of the digits' image is 0
    expected = F.interpolate(digits.images, (56, 56), mode="bilinear", align_corners=False)
    torch.testing.assert_close(still.images[inside], expected[inside], rtol=0, atol=1e-5)


def test_source_gives_ids_and_split_and_the_ink_is_the_mask(digits, rotated):
    assert rotated.ids.tolist() == digits.ids.tolist()
    assert rotated.split.tolist() == digits.split.tolist()
    assert rotated.class_names == ()
    assert rotated.labels.dtype == torch.float32
    assert torch.equal(rotated.masks, (rotated.images > 0.5).any(1))
    assert rotated.masks.sum((1, 2)).min() > 50
    assert rotated.provenance["name"] == "rotated_digits"
    assert rotated.provenance["variant"] == "embedded"
    lost = 1 - 1.4**2 * rotated.images.sum((1, 2, 3)) / digits.images.sum((1, 2, 3))
    assert lost.abs().max() < 0.01  # no ink leaves the image: its border would tell the angle
    few = load("rotated_digits", split="test", limit=6)
    assert len(few) == len(few.masks) == 6


def test_mnist_keeps_its_split_and_says_where_it_comes_from(digits, rotated, reading):
    provenance = {"name": "mnist", "sha256": "1" * 64, "variant": "prepared"}
    reading(replace(digits.take(np.arange(9)), name="mnist", provenance=provenance))
    images = load_rotated_digits(source="mnist")
    assert images.provenance["name"] == "rotated_mnist"
    assert images.provenance["variant"] == "prepared"
    reading(replace(digits.take(np.arange(9)), name="mnist", provenance=provenance | {"sha256": "2" * 64}))
    assert load_rotated_digits(source="mnist").provenance["sha256"] != images.provenance["sha256"]


@pytest.mark.parametrize(
    ("options", "error", "text"),
    [
        ({"source": "emnist"}, ValueError, "source is 'emnist', expected one of digits, mnist"),
        ({"max_angle": 0}, ValueError, "max_angle is 0, expected degrees above 0 and at most 180"),
        ({"max_angle": -45.0}, ValueError, r"max_angle is -45\.0"),
        ({"max_angle": 181}, ValueError, "max_angle is 181"),
        ({"max_angle": float("nan")}, ValueError, "max_angle is nan"),
        ({"max_angle": True}, ValueError, "max_angle is True"),
        ({"max_angle": "45"}, ValueError, "max_angle is '45'"),
        ({"size": 7}, ValueError, "size is 7, expected an int of at least 8"),
        ({"size": 28.0}, ValueError, r"size is 28\.0"),
        ({"seed": -1}, ValueError, "seed = -1"),
        ({"seed": 1.0}, TypeError, r"seed = 1\.0"),
    ],
)
def test_bad_options_are_named(options, error, text):
    with pytest.raises(error, match=text):
        load("rotated_digits", **options)


def test_a_missing_source_is_never_replaced(tmp_path, monkeypatch):
    monkeypatch.setenv("XAI_ROOT", str(tmp_path))
    monkeypatch.delenv("XAI_DATA", raising=False)
    write_registry(tmp_path, {"mnist": ("direct", ["https://example.org"], {"MNIST/raw/x": b"x"})})
    with pytest.raises(FileNotFoundError, match="data set 'mnist'"):
        load("rotated_digits", source="mnist")
