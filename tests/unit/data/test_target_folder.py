"""Your own regression data: images, targets from a CSV file, masks; every fault is named."""

import hashlib
import re

import numpy as np
import pytest
import torch
from PIL import Image

from xai_utils.data import load, stratified_split


def save(path, pixels, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.asarray(pixels, dtype=np.uint8)).save(path, **options)


def targets(folder, *lines, header="file,target", encoding="utf-8"):
    (folder / "targets.csv").write_text("\n".join([header, *lines]) + "\n", encoding=encoding)


def make(folder, n=10, masks=False):
    """Images 00.png … of 6×8 pixels, grey value 10 i; targets i / 4 − 1; masks: column i mod 8 and all to the right."""
    for i in range(n):
        save(folder / f"{i:02d}.png", np.full((6, 8, 3), 10 * i))
        if masks:
            region = np.zeros((6, 8))
            region[:, i % 8 :] = 255
            save(folder / "masks" / f"{i:02d}.png", region)
    targets(folder, *(f"{i:02d}.png,{i / 4 - 1}" for i in range(n)))
    return folder


def counts(images):
    return {part: int((images.split == part).sum()) for part in ("train", "val", "test")}


def read(folder, **options):
    return load("target_folder", folder=folder, **{"size": 4, **options})


def test_images_and_targets_in_the_order_of_the_file(tmp_path):
    folder = make(tmp_path / "mine")
    save(folder / "deep" / "er" / "x.jpg", np.full((9, 9, 3), 255))
    targets(folder, "deep/er/x.jpg,-2.5e1", *(f"{i:02d}.png, {i / 4 - 1}" for i in (3, 1, 2, 0, *range(4, 10))))
    (folder / ".hidden.png").write_text("no image")
    (folder / ".cache").mkdir()
    (folder / ".cache" / "thumb.png").write_text("no image")
    (folder / "notes.txt").write_text("no image")
    images = read(folder)
    assert images.ids[:3].tolist() == ["deep/er/x.jpg", "03.png", "01.png"]
    assert images.labels.tolist() == [-25.0] + [i / 4 - 1 for i in (3, 1, 2, 0, *range(4, 10))]
    assert images.labels.dtype == torch.float32
    assert images.class_names == ()
    assert images.masks is None
    assert images.images.shape == (11, 3, 4, 4)
    for i, name in list(enumerate(images.ids))[1:]:
        assert images.images[i].numpy() == pytest.approx(10 * int(name[:2]) / 255, abs=1e-6)
    assert read(folder, grey=True, size=5).images.shape == (11, 1, 5, 5)
    assert images.split.tolist() == stratified_split([0] * 11, images.ids.tolist(), seed=0).tolist()
    assert counts(images) == {"train": 8, "val": 1, "test": 2}
    assert read(folder, seed=3).split.tolist() != images.split.tolist()


def test_checksum_covers_images_targets_and_masks_and_no_path_leaks(tmp_path, monkeypatch):
    folder = make(tmp_path / "mine", masks=True)
    names = ["targets.csv", *(f"{i:02d}.png" for i in range(10)), *(f"masks/{i:02d}.png" for i in range(10))]
    lines = "".join(f"{i} {hashlib.sha256((folder / i).read_bytes()).hexdigest()}\n" for i in sorted(names))
    sha256 = hashlib.sha256(lines.encode()).hexdigest()
    monkeypatch.setenv("XAI_ROOT", str(tmp_path))
    images = read("mine", masks="masks")  # from the repository's root
    assert images.provenance == {"name": "mine", "sha256": sha256, "variant": "own"}


def test_given_split_and_another_name_of_the_file(tmp_path):
    folder = make(tmp_path / "mine", n=4)
    splits = ["test", "train", "val", "test"]
    text = "file,target,split\r\n" + "".join(f'"{i:02d}.png",{i},{part}\r\n' for i, part in enumerate(splits))
    (folder / "angles.csv").write_text(text, encoding="utf-8-sig")  # as spreadsheets write it
    images = read(folder, targets="angles.csv", seed=5)
    assert images.split.tolist() == splits
    assert images.labels.tolist() == [0, 1, 2, 3]
    assert len(load("target_folder", folder=folder, targets="angles.csv", split="test", limit=1)) == 1


@pytest.mark.parametrize("fit", ["letterbox", "stretch", "crop"])
def test_masks_lie_where_their_images_do(tmp_path, fit):
    folder = make(tmp_path / "mine", masks=True)
    rng = np.random.default_rng(0)
    for i in range(10):  # image = mask; whole cells, standing and lying
        pixels = np.kron(rng.integers(0, 2, (8, 16)), np.ones((5, 5))) * 255
        pixels = pixels if i % 2 else pixels.T
        save(folder / f"{i:02d}.png", pixels)
        save(folder / "masks" / f"{i:02d}.png", pixels)
    size = {"letterbox": 80, "stretch": 80, "crop": 40}[fit]  # no pixel is divided
    images = read(folder, masks="masks", size=size, fit=fit)
    assert images.masks.shape == (10, size, size)
    assert images.masks.dtype == torch.bool
    inner = slice(20, 60) if fit == "letterbox" else slice(0, size)
    for row in range(10):
        rows, columns = (inner, slice(0, size)) if row % 2 else (slice(0, size), inner)
        outside = images.masks[row].clone()
        outside[rows, columns] = False
        assert not outside.any()
        shown, region = images.images[row, 0, rows, columns], images.masks[row, rows, columns]
        assert ((shown - region.float()).abs() < 0.5).float().mean() > 0.99
    assert 0.2 < images.masks.float().mean() < 0.8
    plain = read(make(tmp_path / "other", masks=True), masks="masks", size=6, fit="crop")
    assert plain.masks[3].tolist() == [[False] * 2 + [True] * 4] * 6  # columns 1 … 6 of 8 are kept
    assert plain.ids.tolist() == [f"{i:02d}.png" for i in range(10)]


def test_mask_may_have_another_suffix_and_be_turned_as_its_image_is(tmp_path):
    folder = make(tmp_path / "mine", masks=True)
    region = np.zeros((6, 8))
    region[:2] = 255
    turned = Image.Exif()
    turned[0x0112] = 6  # shown turned by 90° clockwise: 6 wide, 8 high
    save(folder / "00.png", region, exif=turned)
    (folder / "masks" / "00.png").unlink()
    save(folder / "masks" / "00.bmp", np.rot90(region, -1))
    images = read(folder, masks="masks", size=6, fit="crop")
    assert torch.equal(images.masks[0], images.images[0, 0] > 0.5)
    assert images.masks[0].tolist() == [[False] * 4 + [True] * 2] * 6


def test_an_empty_mask_is_a_picture_without_the_region(tmp_path):
    folder = make(tmp_path / "mine", masks=True)
    save(folder / "masks" / "02.png", np.zeros((6, 8)))
    assert read(folder, masks="masks").masks.any((1, 2)).tolist() == [i != 2 for i in range(10)]
    cut = read(folder, masks="masks", fit="crop")
    assert cut.masks.any((1, 2)).tolist() == [i not in (2, 7) for i in range(10)]  # 7: its only column is cut off


LINES = [f"{i:02d}.png,{i}" for i in range(10)]


@pytest.mark.parametrize(
    ("lines", "header", "text"),
    [
        (LINES, "name,target", "targets.csv: the header is 'name,target', expected file,target or file,target,split"),
        (LINES, "file;target", "line 2: 1 fields, expected 2: file;target"),
        (LINES, "file|target", r"the header is 'file\|target', expected file,target"),
        (LINES[1:], LINES[0], "the header is '00.png,0', expected"),
        ([], "", r"with the header file,target or file,target,split: it is empty"),
        (["99.png,1", *LINES], "file,target", r"line 2: there is no image '99\.png' below .*mine"),
        (["../mine/00.png,1", *LINES], "file,target", r"line 2: there is no image '\.\./mine/00\.png'"),
        ([*LINES, "03.png,4"], "file,target", r"line 12: '03\.png' has a target already"),
        (LINES[2:], "file,target", r"targets\.csv: 2 images have no line, 00\.png, 01\.png among them; add their"),
        (["00.png,abc", *LINES[1:]], "file,target", r"line 2: the target of '00\.png' is 'abc', expected a number"),
        (["00.png,", *LINES[1:]], "file,target", r"the target of '00\.png' is '', expected a number"),
        (
            [LINES[0], "01.png,nan", *LINES[2:]],
            "file,target",
            r"line 3: the target of '01\.png' is 'nan', expected a fin",
        ),
        (["00.png,-inf", *LINES[1:]], "file,target", "is '-inf', expected a finite number"),
        (["00.png,1e39", *LINES[1:]], "file,target", "is '1e39', expected a finite number that float32 holds"),
        (["00.png", *LINES[1:]], "file,target", "line 2: 1 fields, expected 2: file,target"),
        (["00.png,0,5", *LINES[1:]], "file,target", "line 2: 3 fields, expected 2"),
        (LINES, "file,target,split", "line 2: 2 fields, expected 3: file,target,split"),
        (
            [line + ",dev" for line in LINES],
            "file,target,split",
            r"line 2: the split of '00\.png' is 'dev', expected one",
        ),
        ([line + "," for line in LINES], "file,target,split", r"the split of '00\.png' is '', expected one of train"),
        ([line + ",train" for line in LINES], "file,target,split", r"no images for val and test \(10 images in all\)"),
    ],
)
def test_faults_of_the_csv_file_are_named(tmp_path, lines, header, text):
    folder = make(tmp_path / "mine")
    targets(folder, *lines, header=header)
    with pytest.raises(ValueError, match=text):
        read(folder)


def test_a_file_that_is_empty_or_no_text(tmp_path):
    folder = make(tmp_path / "mine")
    for raw in (b"", b"file,target\n\xff\xfe\xe4.png,1\n"):
        (folder / "targets.csv").write_bytes(raw)
        with pytest.raises(ValueError, match=r"targets\.csv is not a CSV file in UTF-8 with the header file,target"):
            read(folder)


@pytest.mark.parametrize("encoding", ["latin-1", "cp1252", "shift_jis", "utf-16"])
def test_a_list_in_another_encoding_is_told_its_line_and_what_to_do(tmp_path, encoding):
    folder = make(tmp_path / "mine")
    name = "ひび.png" if encoding == "shift_jis" else "größe.png"
    targets(folder, *LINES[:3], f"{name},0.5", encoding=encoding)
    line = 1 if encoding == "utf-16" else 5
    remedy = rf"line {line} is not in UTF-8: save it as “CSV UTF-8” from the spreadsheet, or iconv -f CP1252"
    with pytest.raises(ValueError, match=remedy):
        read(folder)


def test_fewer_images_than_splits(tmp_path):
    with pytest.raises(
        ValueError, match=r"no images for val \(4 images in all\)\. Give five or more images, or a column"
    ):
        read(make(tmp_path / "four", n=4))
    with pytest.raises(ValueError, match="no images for val and test"):
        read(make(tmp_path / "one", n=1))
    (tmp_path / "none").mkdir()
    make(tmp_path / "none", n=0)
    with pytest.raises(ValueError, match=r"none holds no images \(\.bmp"):
        read(tmp_path / "none")
    assert counts(read(make(tmp_path / "five", n=5))) == {"train": 3, "val": 1, "test": 1}


def test_missing_folders_and_files(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"image folder .*gone does not exist"):
        read(tmp_path / "gone")
    folder = make(tmp_path / "mine")
    with pytest.raises(FileNotFoundError, match=r"masks' folder .*regions does not exist"):
        read(folder, masks="regions")
    with pytest.raises(
        FileNotFoundError, match=r"targets .*angles\.csv do not exist: write a CSV file with the header"
    ):
        read(folder, targets="angles.csv")
    for size in (0, 4.0, True):
        with pytest.raises(ValueError, match=f"size is {re.escape(repr(size))}, expected an int of at least 1"):
            read(folder, size=size)


def test_an_image_that_cannot_be_read(tmp_path):
    folder = make(tmp_path / "mine")
    (folder / "04.png").write_text("no picture")
    with pytest.raises(ValueError, match=r"image .*04\.png cannot be read.*Replace or remove it"):
        read(folder)


def no_mask(masks):
    (masks / "03.png").unlink()


def two_masks(masks):
    save(masks / "03.bmp", np.zeros((6, 8)))


def other_size(masks):
    save(masks / "03.png", np.zeros((8, 6)))


def three_values(masks):
    save(masks / "03.png", np.arange(48).reshape(6, 8) % 3)


def transparent(masks):
    (masks / "03.png").unlink()
    Image.fromarray((np.arange(48).reshape(6, 8, 1) % 2 * 255).repeat(4, axis=2).astype(np.uint8)).save(
        masks / "03.png"
    )


def no_picture(masks):
    (masks / "03.png").write_text("no picture")


@pytest.mark.parametrize(
    ("spoil", "text"),
    [
        (no_mask, r"image '03\.png' has 0 masks 03\.\* below .*masks, expected one"),
        (two_masks, r"image '03\.png' has 2 masks 03\.\* below .*masks, expected one"),
        (other_size, r"mask .*03\.png has \(6, 8\) pixels \(width, height\), its image .*mine/03\.png \(8, 6\)"),
        (
            three_values,
            r"mask .*03\.png holds the values 0, 1, 2, expected two: 0 outside, one other value inside\. To",
        ),
        (transparent, r"mask .*03\.png is transparent in part, expected two: 0 outside"),
        (no_picture, r"mask .*03\.png cannot be read: it is damaged, or no picture in one of the formats BMP, "),
    ],
)
def test_faults_of_a_mask_are_named(tmp_path, spoil, text):
    folder = make(tmp_path / "mine", masks=True)
    spoil(folder / "masks")
    with pytest.raises(ValueError, match=text):
        read(folder, masks="masks")
