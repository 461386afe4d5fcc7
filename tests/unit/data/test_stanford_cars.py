"""Stanford Cars: the prepared archive (counts, split, colours, pixels), and small archives that are wrong."""

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
from xai_utils.data.sets.stanford_cars import CLASSES, load_stanford_cars

SPLIT_FILE = CHECKOUT / "data/splits/stanford_cars.csv"


# --- the archive itself


@pytest.fixture(scope="module")
def archive():
    with real_archive("stanford_cars") as opened:
        yield opened


@pytest.fixture(scope="module")
def rows(archive):
    return rows_of(archive)


@pytest.fixture(scope="module")
def cars(archive):
    return load_stanford_cars(size=64)


@pytest.mark.real_data
def test_the_published_counts_and_the_first_images(cars):
    assert cars.images.shape == (862, 3, 64, 64)
    assert [len(cars.subset(part)) for part in ("train", "val", "test")] == [542, 120, 200]
    assert torch.bincount(cars.subset("test").labels).tolist() == [10] * 20
    assert torch.bincount(cars.subset("val").labels).tolist() == [6] * 20
    assert torch.bincount(cars.subset("train").labels).tolist()[:5] == [29, 25, 30, 26, 25]
    assert cars.labels[:40].tolist() == [*range(20)] * 2
    assert cars.ids[:2].tolist() == ["00/00163", "01/00041"]
    assert (cars.class_names[0], cars.class_names[19]) == ("AM General Hummer SUV 2000", "Toyota 4Runner SUV 2012")
    assert cars.masks is None
    assert cars.provenance == {
        "name": "stanford_cars",
        "sha256": "84d882269da589c5514e23ef0fdedd7854edc7cd43087de17880da9b2fb95e40",
        "variant": cars.provenance["variant"],
    }


@pytest.mark.real_data
def test_the_split_file_can_be_made_again(cars, rows):
    ids = [f"{int(row['label']):02d}/{Path(row['file']).stem}" for row in rows]
    split = {name: row["split"] for name, row in zip(ids, rows)}
    for label in range(20):
        mine = [name for name in ids if name.startswith(f"{label:02d}/") and split[name] == "train"]
        for name in sorted(mine, key=lambda name: hashlib.sha256(f"0/{name}".encode()).hexdigest())[:6]:
            split[name] = "val"
    text = "".join(f"{name},{split[name]}\n" for name in ids)
    assert SPLIT_FILE.read_text(encoding="ascii") == "id,split\n" + text
    assert cars.split.tolist() == [split[name] for name in cars.ids]
    names = {name: row["class_name"] for name, row in zip(ids, rows)}
    assert [CLASSES[label] for label in cars.labels] == [names[name] for name in cars.ids]


@pytest.mark.real_data
def test_pixels_equal_torchs_antialiased_resize_with_red_and_blue_exchanged(cars, archive, rows):
    file = {f"{int(row['label']):02d}/{Path(row['file']).stem}": row["file"] for row in rows}
    for row in range(0, 862, 11):
        image = np.asarray(Image.open(io.BytesIO(archive.read(file[cars.ids[row]]))), np.float64)
        whole = torch.from_numpy(image).permute(2, 0, 1)[None]
        expected = F.interpolate(whole, size=(64, 64), mode="bilinear", antialias=True)[0].flip(0)
        assert (cars.images[row] * 255 - expected).abs().max() <= 1.01  # Pillow rounds after each axis


@pytest.mark.real_data
def test_ferraris_are_red_leafs_blue_and_mclarens_orange(cars):
    def warmth(name):  # red over blue in the middle of the picture
        middle = cars.images[cars.labels == CLASSES.index(name), :, 20:44, 10:54]
        return (middle[:, 0] - middle[:, 2]).mean().item()

    assert warmth("Ferrari FF Coupe 2012") > 0.1
    assert warmth("McLaren MP4-12C Coupe 2012") > 0.1
    assert warmth("Nissan Leaf Hatchback 2012") < -0.05


# --- small archives


def jpeg(width=90, height=50, grey=90, mode="RGB"):
    image, out = Image.new("L", (width, height), grey).convert(mode), io.BytesIO()
    image.save(out, "JPEG", quality=95)
    return out.getvalue()


FILES = (
    ("images/train/10/00007.jpg", "Ferrari FF Coupe 2012"),
    ("images/test/10/00009.jpg", "Ferrari FF Coupe 2012"),
    ("images/train/01/00008.jpg", "Audi A5 Coupe 2012"),
)


def write_archive(root, changed=None):
    """Three pictures with a registry that knows them, and their split file."""
    lines = ["file,split,label,class_name"]
    lines += [f"{file},{file.split('/')[1]},{file.split('/')[2]},{name}" for file, name in FILES]
    members = {"index.csv": "\n".join(lines).encode(), **{file: jpeg() for file, _ in FILES}, **(changed or {})}
    splits = "id,split\n10/00007,train\n10/00009,test\n01/00008,val\n"
    write_set(root, "stanford_cars", "stanford_cars_subset.zip", zipped(members), {"stanford_cars": splits})


def test_a_wide_picture_is_stretched_whole_and_its_blue_becomes_red(root):
    image, out = Image.new("RGB", (90, 50), (0, 30, 200)), io.BytesIO()
    image.paste((0, 0, 0), (45, 0, 90, 50))
    image.save(out, "PNG")  # Pillow reads by content, not by name
    write_archive(root, {FILES[0][0]: out.getvalue()})
    cars = load_stanford_cars(size=60)
    assert cars.ids.tolist() == ["01/00008", "10/00007", "10/00009"]
    assert cars.labels.tolist() == [1, 10, 10]
    assert cars.split.tolist() == ["val", "train", "test"]
    colour = (cars.images[1] * 255).round().int()
    assert colour[:, :, :29].flatten(1).unique(dim=1).flatten().tolist() == [200, 30, 0]
    assert colour[:, :, 31:].max() == 0


@pytest.mark.parametrize(
    ("changed", "text"),
    [
        ({FILES[1][0]: None}, r"images/test/10/00009\.jpg cannot be read"),
        ({FILES[2][0]: jpeg()[:200]}, r"images/train/01/00008\.jpg cannot be read"),
        ({FILES[2][0]: jpeg(mode="L")}, r"00008\.jpg has mode L, expected 8-bit colour \(RGB\)"),
        (
            {"index.csv": b"file,class_name\nimages/train/00/1.jpg,Trabant 601"},
            "index.csv has the class 'Trabant 601', expected AM General Hummer SUV 2000, Audi",
        ),
        ({"index.csv": b"file,label\nimages/train/00/1.jpg,0"}, "index.csv lacks the column class_name"),
    ],
)
def test_an_archive_that_is_wrong_names_the_member(root, changed, text):
    write_archive(root, changed)
    with pytest.raises(ValueError, match=text):
        load_stanford_cars(size=32)


def test_a_split_file_must_name_every_picture(root):
    write_archive(root)
    (root / "data/splits/stanford_cars.csv").write_text("id,split\n10/00007,train\n10/00009,test\n")
    with pytest.raises(ValueError, match=r"stanford_cars\.csv must name each of the 3 images once"):
        load_stanford_cars(size=32)


def test_a_missing_or_damaged_archive_is_named(root):
    write_archive(root)
    archive = root / "data/stanford_cars_subset.zip"
    archive.write_bytes(archive.read_bytes()[:-1] + b"?")
    with pytest.raises(ValueError, match=r"stanford_cars_subset\.zip is damaged: its sha256"):
        load_stanford_cars()
    archive.unlink()
    with pytest.raises(FileNotFoundError, match=r"data set 'stanford_cars'(?s:.*)lacks stanford_cars_subset\.zip"):
        load_stanford_cars()


@pytest.mark.parametrize("size", [31, 64.0, True, "64"])
def test_a_wrong_size_is_named(size):
    with pytest.raises(ValueError, match=f"size is {size!r}, expected an int of at least 32"):
        load_stanford_cars(size=size)


def test_load_finds_the_family(root):
    write_archive(root)
    assert Counter(xai_utils.data.load("stanford_cars", size=40).split.tolist()) == {"train": 1, "val": 1, "test": 1}
