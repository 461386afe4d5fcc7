"""Chest radiographs: the prepared archive (counts, split, patients, pixels), and small archives that are wrong."""

import hashlib
import io
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from prepared import CHECKOUT, real_archive, rows_of, write_set, zipped

import xai_utils.data
from xai_utils.data.sets.chest_xrays import CLASSES, load_chest_xrays

SPLIT_FILE = CHECKOUT / "data/splits/chest_xray.csv"
IMAGES = {"train": 240, "val": 60, "test": 100}  # of either class


def split_of_patients(rows):
    """data/README.md's rule: patient → split, from the rows of index.csv."""
    split = {row["patient"]: row["split"] for row in rows}
    for name in CLASSES:
        mine = Counter(row["patient"] for row in rows if row["class"] == name and row["split"] == "train")
        room = 60
        for patient in sorted(mine, key=lambda p: hashlib.sha256(f"0/{p}".encode()).hexdigest()):
            if mine[patient] <= room:
                split[patient], room = "val", room - mine[patient]
    return split


# --- the archive itself


@pytest.fixture(scope="module")
def archive():
    with real_archive("chest_xray") as opened:
        yield opened


@pytest.fixture(scope="module")
def rows(archive):
    return rows_of(archive)


@pytest.fixture(scope="module")
def xrays(archive):
    return load_chest_xrays()


@pytest.mark.real_data
def test_the_published_counts_and_the_first_images_of_both_classes(xrays):
    assert xrays.images.shape == (800, 1, 64, 64)
    assert xrays.class_names == CLASSES == ("NORMAL", "PNEUMONIA")
    assert torch.bincount(xrays.labels).tolist() == [400, 400]
    assert len(set(xrays.ids)) == 800
    assert all(name.split("/")[0] == CLASSES[label] for name, label in zip(xrays.ids, xrays.labels))
    assert xrays.labels[:6].tolist() == [0, 1] * 3
    assert xrays.ids[0] == "NORMAL/IM-0117-0001"
    assert xrays.masks is None
    assert xrays.provenance == {
        "name": "chest_xray",
        "sha256": "3fce27ad314482a657512cdff0cd3ad0dcd60f36bb7649761f3a88500bc9ed33",
        "variant": xrays.provenance["variant"],
    }


@pytest.mark.real_data
def test_the_split_file_can_be_made_again_and_divides_no_patient(xrays, rows):
    made = split_of_patients(rows)
    names = [f"{row['class']}/{row['file'].rsplit('/', 1)[1].removesuffix('.jpg')}" for row in rows]
    text = "".join(f"{name},{made[row['patient']]}\n" for name, row in zip(names, rows))
    assert SPLIT_FILE.read_text(encoding="ascii") == "id,split\n" + text
    assert xrays.split.tolist() == [made[patient] for patient in xrays.groups]
    parts = {part: set(xrays.groups[xrays.split == part]) for part in IMAGES}
    assert sum(map(len, parts.values())) == len(set.union(*parts.values())) == 677
    for label in (0, 1):
        assert Counter(xrays.split[xrays.labels.numpy() == label].tolist()) == IMAGES


@pytest.mark.real_data
def test_groups_are_the_patients_that_the_file_names_tell(xrays):
    for name, patient in zip(xrays.ids, xrays.groups):
        kind, stem = name.split("/")
        parts = stem.split("_")[:1] if kind == "PNEUMONIA" else [stem[: stem.index("IM-") + 7]]
        assert parts == [patient]
    assert max(Counter(xrays.groups.tolist()).values()) == 3


@pytest.mark.real_data
def test_pixels_equal_torchs_antialiased_resize_of_the_whole_image(xrays, archive, rows):
    file = {f"{row['class']}/{Path(row['file']).stem}": row["file"] for row in rows}
    for row in range(0, 800, 11):
        image = np.asarray(Image.open(io.BytesIO(archive.read(file[xrays.ids[row]]))))
        whole = torch.from_numpy(image.astype(np.float64))[None, None]
        expected = F.interpolate(whole, size=(64, 64), mode="bilinear", antialias=True)[0, 0]
        assert (xrays.images[row, 0] * 255 - expected).abs().max() <= 1.01  # Pillow rounds after each axis


# --- small archives


def jpeg(width=60, height=40, grey=90, mode="L"):
    image, out = Image.new("L", (width, height), grey).convert(mode), io.BytesIO()
    image.save(out, "JPEG", quality=95)
    return out.getvalue()


FILES = (
    ("train/NORMAL/IM-0001-0001.jpg", "IM-0001"),
    ("train/NORMAL/IM-0001-0002.jpg", "IM-0001"),
    ("test/PNEUMONIA/person7_virus_1.jpg", "person7"),
)


def write_archive(root, changed=None):
    """An archive of 60×40 images with a registry that knows it, and its split file."""
    lines = ["file,class,subtype,patient,split"]
    lines += [f"{file},{file.split('/')[1]},,{patient},{file.split('/')[0]}" for file, patient in FILES]
    members = {"index.csv": "\n".join(lines).encode(), **{file: jpeg() for file, _ in FILES}, **(changed or {})}
    splits = "id,split\nNORMAL/IM-0001-0001,val\nNORMAL/IM-0001-0002,val\nPNEUMONIA/person7_virus_1,test\n"
    write_set(root, "chest_xray", "chest_xray_pediatric_subset.zip", zipped(members), {"chest_xray": splits})


def test_a_wide_image_is_stretched_whole_to_a_square(root):
    left_half = Image.open(io.BytesIO(jpeg(grey=60)))
    left_half.paste(180, (30, 0, 60, 20))
    out = io.BytesIO()
    left_half.save(out, "PNG")  # Pillow reads by content, not by name
    write_archive(root, {FILES[0][0]: out.getvalue()})
    xrays = load_chest_xrays(size=60)
    grey = (xrays.images[0, 0] * 255).round().int()
    assert xrays.ids.tolist() == ["NORMAL/IM-0001-0001", "PNEUMONIA/person7_virus_1", "NORMAL/IM-0001-0002"]
    assert xrays.labels.tolist() == [0, 1, 0]
    assert xrays.split.tolist() == ["val", "test", "val"]
    assert xrays.groups.tolist() == ["IM-0001", "person7", "IM-0001"]
    assert grey[:, :30].unique().tolist() == [60]
    assert grey[:29, 30:].unique().tolist() == [180]
    assert grey[31:, 30:].unique().tolist() == [60]


@pytest.mark.parametrize(
    ("changed", "text"),
    [
        ({FILES[1][0]: None}, r"train/NORMAL/IM-0001-0002\.jpg cannot be read"),
        ({FILES[2][0]: jpeg()[:200]}, r"person7_virus_1\.jpg cannot be read"),
        ({FILES[2][0]: b"no image"}, r"person7_virus_1\.jpg cannot be read"),
        ({FILES[0][0]: jpeg(mode="RGB")}, r"IM-0001-0001\.jpg has mode RGB, expected 8-bit grey \(L\)"),
        (
            {"index.csv": b"file,class,patient\ntrain/COVID/a.jpg,COVID,a"},
            "index.csv has the class 'COVID', expected NORMAL, PNEUMONIA",
        ),
        ({"index.csv": None}, r"subset\.zip: index\.csv cannot be read"),
        ({"index.csv": b"file,patient\na.jpg,a"}, r"subset\.zip: index\.csv lacks the column class"),
    ],
)
def test_an_archive_that_is_wrong_names_the_image(root, changed, text):
    write_archive(root, changed)
    with pytest.raises(ValueError, match=text):
        load_chest_xrays(size=32)


def test_a_split_file_may_not_divide_a_patient_nor_leave_out_an_image(root):
    write_archive(root)
    path = root / "data/splits/chest_xray.csv"
    whole = path.read_text()
    path.write_text(whole.replace("0002,val", "0002,train"))
    with pytest.raises(ValueError, match=r"chest_xray\.csv divides the images of 1 patients, IM-0001 among them; put"):
        load_chest_xrays()
    path.write_text(whole.replace("PNEUMONIA/person7_virus_1,test\n", ""))
    with pytest.raises(ValueError, match=r"chest_xray\.csv must name each of the 3 images once"):
        load_chest_xrays()


def test_a_missing_or_damaged_archive_is_named(root):
    write_archive(root)
    archive = root / "data/chest_xray_pediatric_subset.zip"
    archive.write_bytes(archive.read_bytes()[:-1] + b"?")
    with pytest.raises(ValueError, match=r"chest_xray_pediatric_subset\.zip is damaged: its sha256"):
        load_chest_xrays()
    archive.unlink()
    with pytest.raises(FileNotFoundError, match=r"data set 'chest_xray'(?s:.*)lacks chest_xray_pediatric_subset\.zip"):
        load_chest_xrays()


@pytest.mark.parametrize("size", [31, 64.0, True, "64"])
def test_a_wrong_size_is_named(size):
    with pytest.raises(ValueError, match=f"size is {size!r}, expected an int of at least 32"):
        load_chest_xrays(size=size)


def test_load_finds_the_family(root):
    write_archive(root)
    assert len(xai_utils.data.load("chest_xrays", split="test", size=40)) == 1
