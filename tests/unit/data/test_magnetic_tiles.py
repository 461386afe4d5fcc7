"""Magnetic tiles: the prepared archive itself (counts, split, groups, pixels), and small archives that are wrong."""

import hashlib
import io
from collections import Counter

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from prepared import CHECKOUT, real_archive, rows_of, write_set, zipped

import xai_utils.data
from xai_utils.data.sets.magnetic_tiles import CLASSES, load_magnetic_tiles

SPLIT_FILE = CHECKOUT / "data/splits/magnetic_tiles.csv"
PUBLISHED = {"MT_Blowhole": 115, "MT_Break": 85, "MT_Crack": 57, "MT_Fray": 32, "MT_Free": 952, "MT_Uneven": 103}
SHARES = {"train": 0.6, "val": 0.2, "test": 0.2}


def split_of_groups(rows):
    """data/README.md's rule: group → split, from the rows of index.csv."""
    size = Counter(row["class"] for row in rows)
    members = {}
    for row in rows:
        members.setdefault(row["group"], Counter())[row["class"]] += 1
    kind = {group: min(sorted(found), key=size.get) for group, found in members.items()}  # its rarest class
    hashed = {group: hashlib.sha256(f"0/{group}".encode()).hexdigest() for group in members}
    total = Counter()
    for group, found in members.items():
        total[kind[group]] += found[kind[group]]
    lacking = {(name, part): share * total[name] for name in total for part, share in SHARES.items()}
    out = {}
    for group in sorted(members, key=lambda g: (-members[g][kind[g]], hashed[g])):
        name = kind[group]
        out[group] = max(SHARES, key=lambda part: lacking[name, part])
        lacking[name, out[group]] -= members[group][name]
    return out


# --- the archive itself


@pytest.fixture(scope="module")
def archive():
    with real_archive("magnetic_tiles") as opened:
        yield opened


@pytest.fixture(scope="module")
def rows(archive):
    return rows_of(archive)


@pytest.fixture(scope="module")
def tiles(archive):
    return load_magnetic_tiles(size=128)


@pytest.mark.real_data
def test_the_published_counts_and_the_first_images_of_every_class(tiles):
    assert tiles.images.shape == (1344, 1, 128, 128)
    assert tiles.class_names == CLASSES == tuple(PUBLISHED)
    assert dict(zip(CLASSES, torch.bincount(tiles.labels).tolist())) == PUBLISHED
    assert len(set(tiles.ids)) == 1344
    assert all(name.split("/")[0] == CLASSES[label] for name, label in zip(tiles.ids, tiles.labels))
    assert tiles.labels[:12].tolist() == [0, 1, 2, 3, 4, 5] * 2
    assert tiles.provenance == {
        "name": "magnetic_tiles",
        "sha256": "b9162345d8de8b7fd4345bcb43d32b8bcfe7ff691037bd3adf60b8ad0fa5c160",
        "variant": tiles.provenance["variant"],
    }


@pytest.mark.real_data
def test_the_split_file_can_be_made_again_and_divides_no_group(tiles, rows):
    made = split_of_groups(rows)
    text = "".join(f"{row['class']}/{row['id']},{made[row['group']]}\n" for row in rows)
    assert SPLIT_FILE.read_text(encoding="ascii") == "id,split\n" + text
    assert tiles.split.tolist() == [made[group] for group in tiles.groups]
    parts = {part: set(tiles.groups[tiles.split == part]) for part in SHARES}
    assert sum(map(len, parts.values())) == len(set.union(*parts.values())) == 263


@pytest.mark.real_data
def test_every_class_has_its_share_of_every_split(tiles):
    for label, name in enumerate(CLASSES):
        for part, share in SHARES.items():
            mine = (tiles.labels.numpy() == label) & (tiles.split == part)
            assert mine.sum() / PUBLISHED[name] == pytest.approx(share, abs=0.06)
            assert len(set(tiles.groups[mine])) >= 2


@pytest.mark.real_data
def test_groups_are_runs_of_frame_numbers_at_most_60_apart(tiles):
    frames = np.array([int(name.rsplit("_", 1)[1]) for name in tiles.ids])
    order = np.argsort(frames, kind="stable")
    group = np.empty(len(frames), int)
    group[order] = np.cumsum(np.diff(frames[order], prepend=frames.min()) > 60)
    assert len(set(zip(group.tolist(), tiles.groups.tolist()))) == len(set(group.tolist())) == 263


@pytest.mark.real_data
def test_masks_are_empty_where_the_sources_say(tiles):
    area = tiles.masks.sum((1, 2)).numpy()
    empty = Counter(name.split("/")[0] for name in tiles.ids[area == 0])
    assert empty == {"MT_Free": 952, "MT_Uneven": 6}
    for frame in ("exp3_num_45042", "exp4_num_45057", "exp4_num_124690", "exp4_num_352527"):
        assert area[tiles.ids == f"MT_Uneven/{frame}"] == 0


@pytest.mark.real_data
def test_pixels_and_masks_equal_torchs_antialiased_resize_in_a_frame_of_mean_grey(tiles, archive):
    with_defect = np.flatnonzero(tiles.masks.sum((1, 2)).numpy() > 0)[::5]
    assert len(with_defect) > 60
    for row in with_defect:
        name = tiles.ids[row]
        image = np.asarray(Image.open(io.BytesIO(archive.read(f"images/{name}.jpg"))))
        mask = np.asarray(Image.open(io.BytesIO(archive.read(f"masks/{name}.png"))))
        longer = max(image.shape)
        height, width = (round(128 * side / longer) for side in image.shape)
        top, left = (128 - height) // 2, (128 - width) // 2
        both = torch.from_numpy(np.stack([image, mask]).astype(np.float64))[None]
        scaled = F.interpolate(both, size=(height, width), mode="bilinear", antialias=True)[0]
        expected = torch.full((128, 128), float(round(image.mean())), dtype=torch.float64)
        expected[top : top + height, left : left + width] = scaled[0]
        assert (tiles.images[row, 0] * 255 - expected).abs().max() <= 1.01  # Pillow rounds after each axis
        inside = torch.zeros(128, 128, dtype=torch.float64)
        inside[top : top + height, left : left + width] = scaled[1]
        certain = (inside - 127.5).abs() > 1.5
        assert torch.equal(tiles.masks[row][certain], (inside > 127.5)[certain])


# --- small archives


def jpeg(width, height, grey=90, mode="L"):
    image, out = Image.new("L", (width, height), grey).convert(mode), io.BytesIO()
    image.save(out, "JPEG", quality=95)
    return out.getvalue()


def png(width, height, box=None, mode="L"):
    image, out = Image.new("L", (width, height), 0), io.BytesIO()
    if box:
        image.paste(255, box)
    image.convert(mode).save(out, "PNG")
    return out.getvalue()


def write_archive(root, changed=None, names=("MT_Crack/exp1_num_10", "MT_Crack/exp2_num_15", "MT_Free/exp1_num_99")):
    """An archive of 60×40 tiles with a registry that knows it, and its split file."""
    lines = ["class,id,group,split,width,height,defect_px"]
    lines += [f"{name.replace('/', ',')},{int(name[-2] == '9')},train,60,40,0" for name in names]
    members = {"index.csv": "\n".join(lines).encode()}
    for name in names:
        members |= {f"images/{name}.jpg": jpeg(60, 40), f"masks/{name}.png": png(60, 40, (6, 10, 30, 30))}
    members |= changed or {}
    splits = "id,split\n" + "".join(f"{name},{split}\n" for name, split in zip(names, ["train", "train", "test"]))
    write_set(root, "magnetic_tiles", "magnetic_tile_defects.zip", zipped(members), {"magnetic_tiles": splits})


def test_a_tile_keeps_its_shape_in_the_middle_of_its_mean_grey(root):
    left_half = Image.open(io.BytesIO(jpeg(60, 40, 60)))
    left_half.paste(180, (30, 0, 60, 40))
    out = io.BytesIO()
    left_half.save(out, "PNG")  # Pillow reads by content, not by name
    write_archive(root, {"images/MT_Crack/exp1_num_10.jpg": out.getvalue()})
    tiles = load_magnetic_tiles(size=60)
    grey = (tiles.images[0, 0] * 255).round().int()
    assert tiles.ids.tolist() == ["MT_Crack/exp1_num_10", "MT_Free/exp1_num_99", "MT_Crack/exp2_num_15"]
    assert tiles.labels.tolist() == [2, 4, 2]
    assert tiles.split.tolist() == ["train", "test", "train"]
    assert tiles.groups.tolist() == ["0", "1", "0"]
    assert grey[:10].unique().tolist() == grey[50:].unique().tolist() == [120]
    assert grey[10:50, :30].unique().tolist() == [60]
    assert grey[10:50, 30:].unique().tolist() == [180]
    rows, columns = np.nonzero(tiles.masks[0].numpy())
    assert (rows.min(), rows.max(), columns.min(), columns.max(), len(rows)) == (20, 39, 6, 29, 480)
    half = load_magnetic_tiles(size=32)
    assert half.masks[0].sum() == pytest.approx(480 * (32 / 60) ** 2, rel=0.1)
    assert half.images[0, 0, :5].unique().numel() == 1


@pytest.mark.parametrize(
    ("changed", "text"),
    [
        ({"masks/MT_Free/exp1_num_99.png": None}, "masks/MT_Free/exp1_num_99.png cannot be read"),
        ({"images/MT_Crack/exp1_num_10.jpg": jpeg(60, 40)[:200]}, "images/MT_Crack/exp1_num_10.jpg cannot be read"),
        ({"images/MT_Crack/exp1_num_10.jpg": b"no image"}, "images/MT_Crack/exp1_num_10.jpg cannot be read"),
        (
            {"masks/MT_Crack/exp2_num_15.png": png(40, 60)},
            r"MT_Crack/exp2_num_15 has \(60, 40\) pixels, its mask \(40, 60\); expected the same size",
        ),
        ({"images/MT_Free/exp1_num_99.jpg": jpeg(60, 40, mode="RGB")}, r"MT_Free/exp1_num_99.jpg has mode RGB"),
        ({"masks/MT_Free/exp1_num_99.png": png(60, 40, mode="1")}, "MT_Free/exp1_num_99.png has mode 1, expected"),
        (
            {"index.csv": b"class,id,group\nMT_Hole,exp1_num_10,0"},
            "index.csv has the class 'MT_Hole', expected MT_Blow",
        ),
    ],
)
def test_an_archive_that_is_wrong_names_the_image(root, changed, text):
    write_archive(root, changed)
    with pytest.raises(ValueError, match=text):
        load_magnetic_tiles(size=32)


def test_a_split_file_may_not_divide_a_group_nor_leave_out_an_image(root):
    write_archive(root)
    path = root / "data/splits/magnetic_tiles.csv"
    whole = path.read_text()
    path.write_text(whole.replace("exp2_num_15,train", "exp2_num_15,val"))
    with pytest.raises(ValueError, match=r"magnetic_tiles\.csv divides the images of 1 tile groups, 0 among them"):
        load_magnetic_tiles()
    path.write_text(whole.replace("MT_Free/exp1_num_99,test\n", ""))
    with pytest.raises(ValueError, match=r"magnetic_tiles\.csv must name each of the 3 images once"):
        load_magnetic_tiles()


def test_a_missing_or_damaged_archive_is_named(root):
    write_archive(root)
    archive = root / "data/magnetic_tile_defects.zip"
    archive.write_bytes(archive.read_bytes()[:-1] + b"?")
    with pytest.raises(ValueError, match=r"magnetic_tile_defects\.zip is damaged: its sha256"):
        load_magnetic_tiles()
    archive.unlink()
    with pytest.raises(FileNotFoundError, match=r"data set 'magnetic_tiles'(?s:.*)lacks magnetic_tile_defects\.zip"):
        load_magnetic_tiles()


@pytest.mark.parametrize("size", [31, 64.0, True, "64"])
def test_a_wrong_size_is_named(size):
    with pytest.raises(ValueError, match=f"size is {size!r}, expected an int of at least 32"):
        load_magnetic_tiles(size=size)


def test_load_finds_the_family(root):
    write_archive(root)
    assert len(xai_utils.data.load("magnetic_tiles", split="test", size=40)) == 1
