"""Patches of magnetic tiles: what is cut from the prepared archive, and which tiles a small archive gives."""

import io
from collections import Counter

import numpy as np
import pytest
import torch
from PIL import Image
from prepared import real_archive, rows_of, write_set, zipped
from scipy import ndimage

import xai_utils.data
from xai_utils.data.sets.magnetic_patches import load_magnetic_patches
from xai_utils.data.sets.magnetic_tiles import CLASSES, load_magnetic_tiles

# --- the archive itself


@pytest.fixture(scope="module")
def archive():
    with real_archive("magnetic_tiles") as opened:
        yield opened


@pytest.fixture(scope="module")
def patches(archive):
    return load_magnetic_patches()


def opened(archive, kind, tile, end):
    return np.asarray(Image.open(io.BytesIO(archive.read(f"{kind}/{tile}.{end}"))))


@pytest.mark.real_data
def test_every_class_and_as_many_without_a_defect(patches):
    assert patches.images.shape[1:] == (1, 96, 96)
    assert patches.class_names == CLASSES
    assert dict(zip(CLASSES, torch.bincount(patches.labels).tolist())) == {
        "MT_Blowhole": 115, "MT_Break": 113, "MT_Crack": 69, "MT_Fray": 38, "MT_Free": 434, "MT_Uneven": 99,
    }  # fmt: skip
    free = patches.labels.numpy() == CLASSES.index("MT_Free")
    assert free.sum() == (~free).sum()
    assert patches.masks.any((1, 2)).numpy().tolist() == (~free).tolist()
    assert len(set(patches.ids)) == len(patches)


@pytest.mark.real_data
def test_split_and_group_are_the_tiles(patches):
    tiles = load_magnetic_tiles(size=32)
    split, group = dict(zip(tiles.ids, tiles.split)), dict(zip(tiles.ids, tiles.groups))
    names = [name.partition("@")[0] for name in patches.ids]
    assert patches.split.tolist() == [split[name] for name in names]
    assert patches.groups.tolist() == [group[name] for name in names]
    free = {name for name, label in zip(tiles.ids, tiles.labels) if CLASSES[label] == "MT_Free"}
    of = Counter(group[name] for name in names if name in free)
    assert of.keys() == {group[name] for name in free}  # every group without a defect is there
    there = Counter(group[name] for name in free)
    assert all(count == there[one] for one, count in of.items() if count < max(of.values()) - 1)  # in turns


@pytest.mark.real_data
def test_pixels_are_the_photographs_own(patches, archive):
    for row in range(0, len(patches), 13):
        tile, _, corner = patches.ids[row].partition("@")
        top, left = map(int, corner.split(","))
        place = slice(top, top + 96), slice(left, left + 96)
        assert (patches.pixels[row, 0].numpy() == opened(archive, "images", tile, "jpg")[place]).all()
        assert (patches.masks[row].numpy() == (opened(archive, "masks", tile, "png")[place] > 127)).all()


@pytest.mark.real_data
def test_every_piece_that_counts_is_met(patches, archive):
    seen = {}
    for name in patches.ids:
        tile, _, corner = name.partition("@")
        seen.setdefault(tile, []).append(tuple(map(int, corner.split(","))))
    for row in [row for row in rows_of(archive) if row["class"] != "MT_Free"][::3]:
        tile = f"{row['class']}/{row['id']}"
        pieces, count = ndimage.label(opened(archive, "masks", tile, "png") > 127, np.ones((3, 3)))
        shown = np.zeros(pieces.shape, bool)
        for top, left in seen.get(tile, ()):
            shown[top : top + 96, left : left + 96] = True
        large = [piece for piece in range(1, count + 1) if (pieces == piece).sum() >= 10]
        assert all(shown[pieces == piece].any() for piece in large)
        assert bool(large) == (tile in seen)


# --- small archives


def picture(kind, box=None):
    pixels = np.zeros((60, 50), np.uint8) if kind == "PNG" else (np.arange(3000) % 251).astype(np.uint8).reshape(60, 50)
    if box:
        pixels[box] = 255
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "PNG")  # Pillow reads by content, not by name
    return out.getvalue()


TILES = {  # name: group, split, box of the mask
    "MT_Crack/exp1_num_10": ("0", "train", (slice(20, 30), slice(20, 30))),
    "MT_Crack/exp1_num_12": ("0", "train", (slice(20, 22), slice(20, 22))),  # a speck
    "MT_Blowhole/exp1_num_80": ("1", "test", (slice(0, 9), slice(40, 50))),
    "MT_Fray/exp1_num_90": ("1", "test", (slice(10, 60), slice(0, 50))),
    "MT_Free/exp1_num_30": ("2", "train", None),
    "MT_Free/exp1_num_31": ("2", "train", None),
    "MT_Free/exp1_num_32": ("2", "train", None),
    "MT_Free/exp1_num_60": ("3", "val", None),
}


@pytest.fixture
def small(root):
    lines = ["class,id,group,split,width,height,defect_px"]
    lines += [f"{name.replace('/', ',')},{group},{split},50,60,0" for name, (group, split, _) in TILES.items()]
    members = {"index.csv": "\n".join(lines).encode()}
    for name, (_, _, box) in TILES.items():
        members |= {f"images/{name}.jpg": picture("JPEG"), f"masks/{name}.png": picture("PNG", box)}
    splits = "id,split\n" + "".join(f"{name},{split}\n" for name, (_, split, _) in TILES.items())
    write_set(root, "magnetic_tiles", "magnetic_tile_defects.zip", zipped(members), {"magnetic_tiles": splits})
    return root


def test_the_patches_of_a_small_archive(small):
    found = load_magnetic_patches(size=32)
    defects, free = ([name for name in found.ids if ("Free" in name) == no] for no in (False, True))
    assert defects == ["MT_Blowhole/exp1_num_80@0,18", "MT_Crack/exp1_num_10@8,8", "MT_Fray/exp1_num_90@18,8"]
    assert [name.partition("@")[0][-2:] for name in free] == ["30", "60", "31"]  # the groups take turns
    assert found.labels.tolist() == [0, 2, 3, 4, 4, 4]
    assert found.ids.tolist() == [*defects[:3], *free]
    assert found.split.tolist() == ["test", "train", "test", "train", "val", "train"]
    assert found.groups.tolist() == ["1", "0", "1", "2", "3", "2"]
    whole = (np.arange(3000) % 251).reshape(60, 50)
    for name, pixels, mask in zip(found.ids, found.pixels, found.masks):
        tile, _, corner = name.partition("@")
        top, left = map(int, corner.split(","))
        place = slice(top, top + 32), slice(left, left + 32)
        assert (pixels[0].numpy() == whole[place]).all()
        expected = np.zeros((60, 50), bool)
        if box := TILES[tile][2]:
            expected[box] = True
        assert (mask.numpy() == expected[place]).all()


def test_places_without_a_defect_follow_from_the_seed_alone(small):
    one, again, other = (load_magnetic_patches(size=32, seed=seed).ids.tolist() for seed in (0, 0, 1))
    assert one == again
    assert [name for name in one if "Free" not in name] == [name for name in other if "Free" not in name]
    assert one != other


def test_more_defects_than_tiles_without_one(small, monkeypatch):
    from xai_utils.data.sets import magnetic_patches

    monkeypatch.setattr(magnetic_patches, "around", lambda mask, size: [(row, 0) for row in range(3) if mask.any()])
    found = load_magnetic_patches(size=32)
    tiles = [name.partition("@")[0][-2:] for name in found.ids if "Free" in name]
    assert tiles == ["30", "60", "31", "32"] * 3


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (31, "size is 31, expected an int of at least 32"),
        ("96", "size is '96'"),
        (51, r"a patch of 51 pixels does not fit into a picture of \(60, 50\)"),
    ],
)
def test_a_wrong_size_is_named(small, size, text):
    with pytest.raises(ValueError, match=text):
        xai_utils.data.load("magnetic_patches", size=size)


def test_a_missing_mask_and_a_divided_group_are_named(small):
    path = small / "data/splits/magnetic_tiles.csv"
    path.write_text(path.read_text().replace("exp1_num_90,test", "exp1_num_90,val"))
    with pytest.raises(ValueError, match=r"magnetic_tiles\.csv divides the images of 1 tile groups, 1 among them"):
        load_magnetic_patches(size=32)
