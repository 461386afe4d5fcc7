"""Your own classes of images with a folder of masks, and images that differ in mode or lack in a split.

The images without masks: test_data_sets.py.
"""

import hashlib
import math
import re
import shutil

import numpy as np
import pytest
import torch
from PIL import Image

from xai_utils.data import load


def save(path, pixels, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.asarray(pixels, dtype=np.uint8)).save(path, **options)


def region(i):
    """Blocks of 5×5 pixels inside or outside, 35×45 lying or standing; never empty."""
    pixels = np.kron(np.random.default_rng(i).integers(0, 2, (7, 9)), np.ones((5, 5))) * 255
    return pixels if i % 2 else pixels.T


def make(folder, parts=("",), n=10):
    """Classes crack (with masks) and good (without), images 00.jpg … of grey value 10 i."""
    for part in parts:
        for i in range(n):
            for kind in ("crack", "good"):
                save(folder / part / kind / f"{i:02d}.jpg", np.full((*region(i).shape, 3), 10 * i))
            save(folder / "masks" / part / "crack" / f"{i:02d}.png", region(i))
    return folder


def read(folder, **options):
    return load("folder", folder=folder, **{"size": 16, "masks": "masks", **options})


def slow_mask(i, size):
    """Region i in the middle of a square: a pixel is inside if any part of what it stands for is."""
    pixels, square = region(i), np.zeros((size, size), dtype=bool)
    height, width = (round(size * side / 45) for side in pixels.shape)
    for row in range(height):
        for column in range(width):
            top, bottom = row * pixels.shape[0] / height, (row + 1) * pixels.shape[0] / height
            left, right = column * pixels.shape[1] / width, (column + 1) * pixels.shape[1] / width
            part = pixels[math.floor(top) : math.ceil(bottom), math.floor(left) : math.ceil(right)]
            square[row + (size - height) // 2, column + (size - width) // 2] = part.any()
    return square


def test_masks_are_resized_and_a_class_without_a_folder_has_none(tmp_path):
    images = read(make(tmp_path / "mine"))
    assert images.class_names == ("crack", "good")
    assert images.ids[:4].tolist() == ["crack/00.jpg", "good/00.jpg", "crack/01.jpg", "good/01.jpg"]
    assert (images.masks.shape, images.masks.dtype) == ((20, 16, 16), torch.bool)
    for row, name in enumerate(images.ids):
        kind, i = name.split("/")[0], int(name[-6:-4])
        expected = slow_mask(i, 16) if kind == "crack" else np.zeros((16, 16), dtype=bool)
        assert np.array_equal(images.masks[row].numpy(), expected), name
    assert 0.2 < images.masks[images.labels == 0].float().mean() < 0.8


def test_all_else_is_as_without_masks(tmp_path):
    folder = make(tmp_path / "mine")
    with_masks = read(folder, masks="masks/", seed=3)  # as a shell completes it
    (folder / "masks").rename(tmp_path / "masks")
    without = read(folder, masks=None, seed=3)
    assert without.masks is None
    assert with_masks.class_names == without.class_names
    for field in ("ids", "split"):
        assert getattr(with_masks, field).tolist() == getattr(without, field).tolist()
    assert torch.equal(with_masks.images, without.images)
    assert torch.equal(with_masks.labels, without.labels)


def test_checksum_covers_the_masks_and_no_path_leaks(tmp_path, monkeypatch):
    folder = make(tmp_path / "mine")
    monkeypatch.setenv("XAI_ROOT", str(tmp_path))

    def sha256(names):
        lines = "".join(f"{i} {hashlib.sha256((folder / i).read_bytes()).hexdigest()}\n" for i in sorted(names))
        return hashlib.sha256(lines.encode()).hexdigest()

    pictures = [f"{kind}/{i:02d}.jpg" for kind in ("crack", "good") for i in range(10)]
    drawn = [f"masks/crack/{i:02d}.png" for i in range(10)]
    expected = {"name": "mine", "sha256": sha256(pictures + drawn), "variant": "own"}
    assert read("mine").provenance == expected  # from the repository's root
    (folder / "masks").rename(tmp_path / "masks")
    assert read("mine", masks=None).provenance == {**expected, "sha256": sha256(pictures)}


def test_masks_in_split_folders(tmp_path):
    folder = make(tmp_path / "mine", ("train", "val", "test"), n=2)
    save(folder / "train" / "masks" / "a.png", np.full((9, 9), 5))  # a class of that name is one
    images = read(folder)
    assert images.class_names == ("crack", "good", "masks")
    drawn = [name for name, mask in zip(images.ids, images.masks) if mask.any()]
    assert drawn == [f"{part}/crack/{i:02d}.jpg" for part in ("train", "val", "test") for i in range(2)]
    for name in drawn:
        row = images.ids.tolist().index(name)
        assert np.array_equal(images.masks[row].numpy(), slow_mask(int(name[-6:-4]), 16))


def test_a_class_with_masks_in_one_split_needs_them_in_all(tmp_path):
    folder = make(tmp_path / "mine", ("train", "val", "test"), n=2)
    shutil.rmtree(folder / "masks" / "val" / "crack")
    with pytest.raises(ValueError, match=r"image 'val/crack/00.jpg' has 0 masks val/crack/00\.\* below"):
        read(folder)


def test_an_empty_mask_hidden_files_and_other_files_are_no_fault(tmp_path):
    folder = make(tmp_path / "mine")
    save(folder / "masks" / "crack" / "04.png", np.zeros_like(region(4)))
    (folder / "masks" / ".cache").mkdir()
    (folder / "masks" / ".thumb.png").write_text("no image")
    (folder / "masks" / "crack" / "notes.txt").write_text("no image")
    images = read(folder)
    assert [name for name, mask in zip(images.ids, images.masks) if mask.any()] == [
        f"crack/{i:02d}.jpg" for i in range(10) if i != 4
    ]


def two_colours():
    red = Image.fromarray((region(3) // 255).astype(np.uint8), mode="P")
    red.putpalette([0, 0, 0, 128, 0, 0])
    return red


@pytest.mark.parametrize(
    "mask",
    [
        *(Image.fromarray(region(3).astype(np.uint8)).convert(mode) for mode in ("1", "L", "RGB", "RGBA", "P", "LA")),
        Image.fromarray((region(3) // 255).astype(np.uint8)),  # 0 and 1
        Image.fromarray((region(3) // 2).astype(np.uint8)),  # 0 and 127
        Image.fromarray((region(3) * 257).astype(np.uint16)),
        Image.fromarray((region(3) // 255).astype(np.uint16)),  # 0 and 1 in 16 bits
        Image.fromarray((region(3) // 255 * 7).astype(np.uint16)),
        Image.fromarray((region(3)[..., None] * [1, 0, 0]).astype(np.uint8)),  # black and red
        two_colours(),
    ],
    ids=["1", "L", "RGB", "RGBA", "P", "LA", "0 1", "0 127", "16", "16: 0 1", "16: 0 7", "red", "palette"],
)
def test_two_values_of_any_kind_make_a_mask(tmp_path, mask):
    folder = make(tmp_path / "mine")
    mask.save(folder / "masks" / "crack" / "03.png")
    images = read(folder)
    assert np.array_equal(images.masks[images.ids == "crack/03.jpg"][0].numpy(), slow_mask(3, 16))


@pytest.mark.parametrize("kind", [np.int32, np.float32])
def test_labels_of_32_bits_make_a_mask(tmp_path, kind):
    folder = make(tmp_path / "mine")
    (folder / "masks" / "crack" / "03.png").unlink()
    Image.fromarray((region(3) // 255).astype(kind)).save(folder / "masks" / "crack" / "03.tif")
    images = read(folder)
    assert np.array_equal(images.masks[images.ids == "crack/03.jpg"][0].numpy(), slow_mask(3, 16))


def no_masks(masks):
    for path in (masks / "crack").iterdir():
        path.unlink()
    (masks / "crack").rmdir()


def empty_folder(masks):
    for path in (masks / "crack").iterdir():
        path.unlink()


def no_mask(masks):
    (masks / "crack" / "03.png").unlink()


def no_mask_of_a_class(masks):
    (masks / "good").mkdir()


def two_masks(masks):
    save(masks / "crack" / "03.bmp", region(3))


def misspelt_mask(masks):
    (masks / "crack" / "03.png").rename(masks / "crack" / "03_msk.png")


def mask_too_many(masks):
    save(masks / "crack" / "99.png", region(3))


def mask_of_no_class(masks):
    save(masks / "77.png", region(0))


def misspelt_folder(masks):
    (masks / "crack").rename(masks / "crak")


def folder_too_many(masks):
    (masks / "dent").mkdir()


def folder_in_a_class(masks):
    (masks / "crack" / "more").mkdir()


def other_size(masks):
    save(masks / "crack" / "03.png", region(3).T)


def three_values(masks):
    save(masks / "crack" / "03.png", region(3) // 255 * (1 + np.arange(45) % 2))


def three_colours(masks):
    save(masks / "crack" / "03.png", region(3)[..., None] * np.eye(3)[np.arange(45) % 2])


def blurred(masks):
    (masks / "crack" / "03.png").unlink()
    save(masks / "crack" / "03.jpg", region(3), quality=50)


def transparent(masks):
    save(masks / "crack" / "03.png", region(3)[..., None].repeat(4, axis=2))


def no_picture(masks):
    (masks / "crack" / "03.png").write_text("no picture")


def half_a_file(masks):
    path = masks / "crack" / "03.png"
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


@pytest.mark.parametrize(
    ("spoil", "text"),
    [
        (no_masks, r"masks' folder .*mine/masks holds no masks \(\.bmp, "),
        (empty_folder, r"masks' folder .*mine/masks holds no masks"),
        (no_mask, r"image 'crack/03\.jpg' has 0 masks crack/03\.\* below .*masks, expected one"),
        (no_mask_of_a_class, r"image 'good/00\.jpg' has 0 masks good/00\.\* below .*masks, expected one"),
        (two_masks, r"image 'crack/03\.jpg' has 2 masks crack/03\.\* below .*masks, expected one"),
        (misspelt_mask, r"mask .*masks/crack/03_msk\.png belongs to no image, expected one .*mine/crack/03_msk\.\*"),
        (mask_too_many, r"mask .*masks/crack/99\.png belongs to no image, .*; rename or remove it"),
        (mask_of_no_class, r"mask .*masks/77\.png belongs to no image"),
        (misspelt_folder, r"masks' folder .*masks/crak belongs to no images, expected some in .*mine/crak; rename"),
        (folder_too_many, r"masks' folder .*masks/dent belongs to no images"),
        (folder_in_a_class, r"masks' folder .*masks/crack/more belongs to no images"),
        (other_size, r"mask .*03\.png has \(35, 45\) pixels \(width, height\), its image .*crack/03\.jpg \(45, 35\)"),
        (
            three_values,
            r"mask .*03\.png holds the values 0, 1, 2, expected two: 0 outside, one other value inside\. To",
        ),
        (three_colours, r"mask .*03\.png holds the values 0, \(0, 255, 0\), \(255, 0, 0\), expected two"),
        (
            blurred,
            r"mask .*03\.jpg holds the values 0, 1, .* … \(\d+ in all\), .*a JPEG's are blurred, save masks as PNG",
        ),
        (transparent, r"mask .*03\.png is transparent in part, expected two: 0 outside"),
        (no_picture, r"mask .*masks/crack/03\.png cannot be read: it is damaged, or no picture"),
        (half_a_file, r"mask .*masks/crack/03\.png cannot be read: .*Replace or remove it"),
    ],
)
def test_faults_of_the_masks_are_named(tmp_path, spoil, text):
    folder = make(tmp_path / "mine")
    spoil(folder / "masks")
    with pytest.raises(ValueError, match=text):
        read(folder)


def test_masks_of_a_split_that_has_no_such_images(tmp_path):
    folder = make(tmp_path / "mine", ("train", "val", "test"), n=1)
    save(folder / "masks" / "tset" / "crack" / "00.png", region(0))
    with pytest.raises(ValueError, match=r"masks' folder .*masks/tset belongs to no images"):
        read(folder)
    (folder / "masks" / "tset" / "crack" / "00.png").unlink()
    (folder / "masks" / "tset" / "crack").rmdir()
    (folder / "masks" / "tset").rmdir()
    (folder / "test" / "crack" / "00.jpg").unlink()
    (folder / "test" / "crack").rmdir()
    with pytest.raises(ValueError, match=r"masks' folder .*masks/test/crack belongs to no images"):
        read(folder)


@pytest.mark.parametrize("masks", ["regions", "", ".", "..", "masks/crack", "crack/00.jpg"])
def test_a_masks_folder_that_is_not_there(tmp_path, masks):
    folder = make(tmp_path / "mine")
    with pytest.raises(FileNotFoundError, match=r"masks' folder .* does not exist, or is not a folder directly below"):
        read(folder, masks=masks)


def test_a_masks_folder_that_is_a_split(tmp_path):
    folder = make(tmp_path / "mine", ("train", "val", "test"), n=1)
    with pytest.raises(ValueError, match="masks is 'test', the name of a folder of images; expected another name"):
        read(folder, masks="test")


# --- images


def test_half_a_jpeg_is_an_error_that_names_it(tmp_path):
    folder = make(tmp_path / "mine")
    path = folder / "good" / "05.jpg"
    save(path, np.random.default_rng(0).integers(0, 256, (60, 60, 3)))
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(ValueError, match=rf"{re.escape(str(path))} cannot be read: .*truncated.*Replace or remove it"):
        read(folder)
    (folder / "masks").rename(tmp_path / "masks")
    with pytest.raises(ValueError, match=rf"{re.escape(str(path))} cannot be read: .*truncated"):
        read(folder, masks=None)


@pytest.mark.parametrize("grey", [True, False])
def test_modes_may_be_mixed(tmp_path, grey):
    values = np.arange(0, 250, 25)
    for i, value in enumerate(values):
        save(tmp_path / "a" / f"{i:02d}.png", np.full((5, 8), value))
        save(tmp_path / "b" / f"{i:02d}.png", np.full((8, 5, 3), value))
        save(tmp_path / "c" / f"{i:02d}.png", np.full((6, 6, 4), [value, value, value, 255]))
        (tmp_path / "d").mkdir(exist_ok=True)
        Image.fromarray(np.full((7, 7), value * 257, dtype=np.uint16)).save(tmp_path / "d" / f"{i:02d}.png")
    images = load("folder", folder=tmp_path, size=4, grey=grey)
    assert images.images.shape == (40, 1 if grey else 3, 4, 4)
    for row, name in enumerate(images.ids):
        assert images.images[row].numpy() == pytest.approx(values[int(name[2:4])] / 255, abs=1e-6), name


def test_a_class_that_lacks_in_the_test_split_keeps_its_name_and_number(tmp_path):
    folder = make(tmp_path / "mine", ("train", "val", "test"), n=2)
    for part in ("masks/test", "test"):
        for path in (folder / part / "crack").iterdir():
            path.unlink()
        (folder / part / "crack").rmdir()
    images = read(folder)
    assert images.class_names == ("crack", "good")
    test = images.subset("test")
    assert test.class_names == ("crack", "good")
    assert test.labels.tolist() == [1, 1]
    assert test.ids.tolist() == ["test/good/00.jpg", "test/good/01.jpg"]
    assert images.labels.tolist() == [0, 1] * 4 + [1, 1]
    assert images.masks.any((1, 2)).tolist() == [True, False] * 4 + [False] * 2
