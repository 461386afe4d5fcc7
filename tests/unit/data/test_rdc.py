"""RDC from an RDD2022 folder: crops, no-crack places, near-duplicates and split, faults; the sample images."""

import os
import zipfile

import numpy as np
import psutil
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from prepared import real

from xai_utils.data import load, origins
from xai_utils.data.sets.rdc import COUNTRIES, SIDE, _nearest, load_rdc, nearest
from xai_utils.data.voc import read_voc


def voc(*boxes):
    text = "".join(
        f"<object><name>{kind}</name><bndbox><xmin>{a}</xmin><ymin>{b}</ymin><xmax>{c}</xmax><ymax>{d}</ymax></bndbox>"
        "</object>"
        for kind, a, b, c, d in boxes
    )
    return f"<annotation><size><width>1</width></size>{text}</annotation>"


def picture(i, width=120, height=80):
    """Random blocks: pictures of different i share about half of their bits."""
    return np.kron(np.random.default_rng(i).integers(0, 256, (height // 8, width // 8, 3)), np.ones((8, 8, 1)))


def add(folder, name, boxes, pixels, suffix="png"):
    for part in ("images", "annotations/xmls"):
        (folder / part).mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.asarray(pixels, dtype=np.uint8)).save(folder / f"images/{name}.{suffix}")
    (folder / f"annotations/xmls/{name}.xml").write_text(voc(*boxes))


def boxes_of(i):
    return [("D00", 8 + i % 5, 10, 38 + i % 7, 30), ("D40", 80, 50, 100, 70)] if i % 3 else [("D20", 50, 5, 60, 45)]


def make(root, countries=COUNTRIES, each=6):
    """RDD2022 as unpacked, `each` images a country, two thirds of them with a pothole (D40), too."""
    for k, country in enumerate(countries):
        for i in range(each):
            add(root / country / "train", f"{country}_{i:06d}", boxes_of(i), picture(100 * k + i))
        (root / country / "test/images").mkdir(parents=True)
        Image.new("L", (9, 9)).save(root / country / "test/images" / f"{country}_{each:06d}.png")
    return root


def read(folder, **options):
    return load("rdc", folder=folder, **{"size": 16, "shares": (70, 15, 15), **options})


def box_of(name):
    photograph, box = name.split("/")
    return photograph, tuple(map(int, box.split("_")))


# --- crops


def test_crack_crops_are_the_boxes_of_the_categories_resized(tmp_path):
    images = read(make(tmp_path))
    cracks = images.take(np.flatnonzero(images.labels.numpy() == 1))
    expected = {}
    for k, country in enumerate(COUNTRIES):
        for i in range(6):
            expected[f"{country}_{i:06d}"] = (100 * k + i, boxes_of(i)[0][1:])
    assert {box_of(name) for name in cracks.ids} == {(name, box) for name, (_, box) in expected.items()}
    assert images.class_names == ("no_crack", "crack")
    assert images.masks is None
    for row, name in enumerate(cracks.ids[:10]):
        seed, (left, top, right, bottom) = expected[box_of(name)[0]]
        whole = torch.from_numpy(picture(seed)).permute(2, 0, 1)[None]
        small = F.interpolate(whole[..., top:bottom, left:right], size=(16, 16), mode="bilinear", antialias=True)[0]
        inner = (cracks.images[row] * 255 - small)[:, 2:-2, 2:-2]  # at the border Pillow looks beyond the box
        assert inner.abs().max() <= 1.5
    assert {box_of(name)[1] for name in read(tmp_path, categories=("D40",)).ids} > {(80, 50, 100, 70)}


def test_no_crack_crops_touch_no_box_and_have_heights_and_widths_of_boxes(tmp_path):
    images = read(make(tmp_path, each=30))
    free = images.take(np.flatnonzero(images.labels.numpy() == 0))
    assert len(free) == round(30430 / 47513 * 150)
    widths, heights = set(), set()
    for name in free.ids:
        photograph, (left, top, right, bottom) = box_of(name)
        covered = np.zeros((80, 120), bool)
        covered[top:bottom, left:right] = True
        assert covered.sum() == (right - left) * (bottom - top)  # inside the image
        for _, a, b, c, d in boxes_of(int(photograph[-6:])):
            assert not covered[b:d, a:c].any()
        widths.add(right - left)
        heights.add(bottom - top)
    drawn = [boxes_of(i)[0][1:] for i in range(30)]
    assert widths <= {c - a for a, _, c, _ in drawn}
    assert heights == {d - b for _, b, _, d in drawn} == {20, 40}
    assert len(widths) > 3
    shapes = {(box[2] - box[0], box[3] - box[1]) for _, box in map(box_of, free.ids)}
    assert not shapes <= {(c - a, d - b) for a, b, c, d in drawn}  # height and width, each by itself


def test_height_and_width_come_from_the_country_of_the_image(tmp_path):
    for i in range(20):
        add(tmp_path / "train", f"Japan_{i:03d}", [("D00", 0, 0, 10, 10)], picture(i))
        add(tmp_path / "train", f"Norway_{i:03d}", [("D00", 0, 0, 70, 50)], picture(50 + i, 240, 160))
    images = read(tmp_path, countries=("Japan", "Norway"))
    sides = {(name[:5], box_of(name)[1][2] - box_of(name)[1][0]) for name in images.ids}
    assert sides == {("Japan", 10), ("Norwa", 70)}


def test_other_countries_are_left_out_and_missing_ones_named(tmp_path):
    folder = make(tmp_path, ("Japan", "Czech", "China_Drone"), each=20)
    images = read(folder, countries=("Japan", "Czech"))
    assert {name.rpartition("_")[0] for name in images.groups} == {"Japan", "Czech"}
    text = r"has no annotated image of India, Norway, United_States \(it has China_Drone, Czech, Japan\).*countries="
    with pytest.raises(ValueError, match=text):
        read(folder)


def test_your_own_boxes_without_countries(tmp_path):
    for i in range(20):
        add(tmp_path, f"road {i}", [("hole", 20, 20, 50, 40)], picture(i))
    images = read(tmp_path, countries=None, categories=("hole",))
    assert (images.labels == 1).sum() == 20
    assert images.provenance["name"] == tmp_path.name
    assert images.provenance["variant"] == "own"
    with pytest.raises(ValueError, match=r"no box of D00, D10, D20 \(there are hole\)"):
        read(tmp_path, countries=None)


def test_n_keeps_so_many_crops_half_of_them_cracks(tmp_path):
    make(tmp_path, each=12)
    some = read(tmp_path, n=40)
    assert torch.bincount(some.labels).tolist() == [20, 20]
    everything = read(tmp_path)
    assert set(some.ids) < set(everything.ids)
    split = dict(zip(everything.ids, everything.split))
    assert [split[name] for name in some.ids] == some.split.tolist()
    assert len(read(tmp_path, n=10_000)) == len(everything)


def test_everything_follows_from_the_seed(tmp_path):
    make(tmp_path, each=10)
    one, again, other = read(tmp_path), read(tmp_path), read(tmp_path, seed=1)
    assert one.ids.tolist() == again.ids.tolist()
    assert one.split.tolist() == again.split.tolist()
    assert torch.equal(one.images, again.images)
    assert set(one.ids) != set(other.ids)


def test_photographs_are_upright(tmp_path):
    for i in range(12):
        add(tmp_path, f"a{i}", [("D00", 10, 60, 30, 100)], picture(i), "jpg")
        path, exif = tmp_path / f"images/a{i}.jpg", Image.Exif()
        exif[0x0112] = 6  # the 120×80 pixels are shown 80 wide and 120 high
        with Image.open(path) as image:
            image.save(path, exif=exif, quality=95)
    images = read(tmp_path, countries=None, grey=True)
    row = [name.startswith("a3/10_60") for name in images.ids].index(True)
    shown = np.rot90(picture(3) @ [0.299, 0.587, 0.114], -1)
    assert images.images.shape[1:] == (1, 16, 16)
    assert images.images[row].mean().item() * 255 == pytest.approx(shown[60:100, 10:30].mean(), abs=4)


# --- near-duplicates and split


def test_nearest_is_the_share_of_bits_that_differ(tmp_path, monkeypatch):
    paths, bits = [], []
    for i in range(7):
        grey = np.random.default_rng(min(i, 5)).integers(0, 256, (48, 48))
        grey = grey if i < 6 else grey // 2 + 40  # the one before, with less contrast
        paths.append(tmp_path / f"{i}.png")
        Image.fromarray(grey.astype(np.uint8)).save(paths[-1])
        small = np.asarray(Image.fromarray(grey.astype(np.uint8)).resize((SIDE, SIDE)), dtype=float)
        bits.append(((small - small.mean()) / small.std() > 0).ravel())
    expected = [min((a ^ b).mean() for b in bits if b is not a) for a in bits]
    assert nearest(paths) == pytest.approx(expected)
    assert expected[5] == expected[6] < 0.03 < min(expected[:5])
    monkeypatch.setattr("xai_utils.data.sets.rdc._BLOCK", 3)
    assert nearest(paths) == pytest.approx(expected)
    assert nearest(paths[:1]).tolist() == [1]


def test_nearest_of_thousands_is_exact():
    signs = np.random.default_rng(0).choice(np.float32([-1, 1]), (2100, 256))
    signs[2050] = signs[3]
    signs[2050, :9] *= -1
    found = _nearest(signs)
    slow = [(signs[i] != np.delete(signs, i, 0)).mean(1).min() for i in (0, 3, 1024, 2050, 2099)]
    assert found[[0, 3, 1024, 2050, 2099]].tolist() == slow
    assert found[3] == 9 / 256


def test_test_images_have_no_near_duplicate_and_no_photograph_is_in_two_splits(tmp_path):
    folder = make(tmp_path, ("Japan",), each=40)
    for i in range(20):  # images 0 to 19 once more, a little darker
        add(folder / "Japan/train", f"Japan_1{i:05d}", boxes_of(i), picture(i) * 0.9)
    images = read(folder, countries=("Japan",), shares=(60, 20, 20))
    parts = {part: images.subset(part) for part in ("train", "val", "test")}
    assert {int(name[-6:]) for name in parts["test"].groups} <= set(range(20, 40))
    groups = [set(part.groups) for part in parts.values()]
    assert sum(map(len, groups)) == len(set.union(*groups))
    for part, share in (("train", 0.6), ("val", 0.2), ("test", 0.2)):
        assert len(parts[part]) / len(images) == pytest.approx(share, abs=0.06)
    text = r"only 20 of 60 images have no near-duplicate, .* Lower alike = 0\.1 or the share of test"
    with pytest.raises(ValueError, match=text):
        read(folder, countries=("Japan",), shares=(20, 20, 60))


# --- faults


@pytest.fixture
def japan(tmp_path):
    return make(tmp_path, ("Japan",), each=12) / "Japan/train"


@pytest.mark.parametrize(
    ("box", "text"),
    [
        (("D00", 100, 10, 121, 20), r"000001\.xml: box D00 \(xmin 100, .*is not inside its image \(120×80\); correct"),
        (("D00", -1, 10, 20, 20), "xmin -1, .* is not inside its image"),
        (("D00", 10, 10, 10, 20), "has no area; correct the file, or leave such boxes out with bad_boxes='skip'"),
        (("D00", 10, 20, 30, 10), "has no area"),
        (("D00", 10, 20, 30, 20), "has no area"),
    ],
)
def test_a_bad_box_is_named_or_left_out(japan, box, text):
    (japan / "annotations/xmls/Japan_000001.xml").write_text(voc(box))
    with pytest.raises(ValueError, match=text):
        read(japan, countries=("Japan",))
    with pytest.warns(UserWarning, match=r"1 boxes are left out: .*000001\.xml: box D00"):
        kept = read(japan, countries=("Japan",), bad_boxes="skip")
    assert not [name for name, label in zip(kept.groups, kept.labels) if label and name == "Japan_000001"]


def test_a_bad_box_of_an_unused_class_only_warns(japan):
    (japan / "annotations/xmls/Japan_000001.xml").write_text(voc(("D00", 8, 10, 38, 30), ("D40", 10, 10, 20, 81)))
    with pytest.warns(UserWarning, match=r"1 boxes are left out: .*box D40 .* is not inside its image \(120×80\)"):
        kept = read(japan, countries=("Japan",))
    assert "Japan_000001/8_10_38_30" in kept.ids.tolist()


def test_linked_country_folders_are_read(tmp_path):
    folder = make(tmp_path / "far", ("Japan",), each=12)
    (tmp_path / "rdd").mkdir()
    (tmp_path / "rdd/Japan").symlink_to(folder / "Japan")
    one, other = (read(root, countries=("Japan",)) for root in (folder, tmp_path / "rdd"))
    assert one.ids.tolist() == other.ids.tolist()
    assert torch.equal(one.images, other.images)


@pytest.mark.parametrize("grey", [True, False])
def test_sixteen_bits_are_not_white_and_floats_are_refused(tmp_path, grey):
    """0.476 of the range in 8 and in 16 bits is the same crop; a float has no range."""
    for i in range(12):
        add(tmp_path, f"a{i:02d}", [("D00", 10, 10, 40, 40)], picture(i))
    shades = np.linspace(0.2, 0.752, 80)[:, None].repeat(120, axis=1)
    for i, (kind, top) in enumerate(((np.uint8, 255), (np.uint16, 65535))):
        Image.fromarray(np.rint(shades * top).astype(kind)).save(tmp_path / f"images/a0{i}.png")
    images = read(tmp_path, countries=None, grey=grey)
    rows = [images.ids.tolist().index(f"a0{i}/10_10_40_40") for i in (0, 1)]
    assert images.images[rows[0]].mean().item() == pytest.approx(shades[10:40].mean(), abs=0.005)
    assert (images.images[rows[0]] - images.images[rows[1]]).abs().max() <= 1 / 255
    Image.fromarray(shades.astype(np.float32)).save(tmp_path / "images/a01.tif")
    (tmp_path / "images/a01.png").unlink()
    with pytest.raises(ValueError, match=r"image .*a01\.tif cannot be read: pixels of mode F \(32 bit\) have no fixed"):
        read(tmp_path, countries=None)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('<!DOCTYPE a [<!ENTITY b "c">]><annotation>&b;</annotation>', r"Japan_000001\.xml is no .*EntitiesForbidden"),
        (
            '<!DOCTYPE a [<!ENTITY b SYSTEM "file:///etc/passwd">]><annotation>&b;</annotation>',
            r"Japan_000001\.xml is no Pascal VOC file: EntitiesForbidden",
        ),
        ("<annotation>", r"Japan_000001\.xml is no Pascal VOC file: no element found"),
        ("", r"Japan_000001\.xml is no Pascal VOC file"),
        (
            "<annotation><object><name>D00</name></object></annotation>",
            "object 1 has the name, .*None.*expected a name",
        ),
        (voc(("D00", 1, 2, "three", 4)), "object 1 has .*'three'"),
        (voc(("D00", 1, 2, "inf", 4)), "object 1 has .*'inf'"),
    ],
)
def test_a_file_that_is_no_voc_is_named(japan, text, message):
    (japan / "annotations/xmls/Japan_000001.xml").write_text(text)
    with pytest.raises(ValueError, match=message):
        read(japan, countries=("Japan",))


def test_read_voc_rounds_and_keeps_the_order():
    text = voc(("D00", "1.6", 2, 30, 4), (" D10 ", 5, 6, 7, 8)).encode()
    assert read_voc(text, "a.xml") == [("D00", 2, 2, 30, 4), ("D10", 5, 6, 7, 8)]
    assert read_voc(b"<annotation/>", "a.xml") == []


def test_an_image_without_boxes_and_boxes_without_an_image(japan):
    xml = japan / "annotations/xmls/Japan_000001.xml"
    body = xml.read_text()
    xml.unlink()
    with pytest.raises(ValueError, match=r"image .*images/Japan_000001\.\* has no box file .*, and 0 more"):
        read(japan, countries=("Japan",))
    xml.write_text(body)
    (japan / "images/Japan_000001.png").unlink()
    with pytest.raises(ValueError, match=r"box file .*Japan_000001\.xml has no image .*images/Japan_000001\.\*"):
        read(japan, countries=("Japan",))
    xml.unlink()
    Image.new("L", (9, 9)).save(japan / "images/Japan_000002.jpg")
    with pytest.raises(ValueError, match=r"images: image 'Japan_000002' is there twice"):
        read(japan, countries=("Japan",))


def test_an_unreadable_image_is_named(japan):
    path = japan / "images/Japan_000001.png"
    whole = path.read_bytes()
    for body in (b"no image", whole[: len(whole) // 2]):
        path.write_bytes(body)
        with pytest.raises(ValueError, match=r"image .*Japan_000001\.png cannot be read: .*Replace or remove it"):
            read(japan, countries=("Japan",))


def test_folders_that_are_not_there(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"folder .*nothing does not exist"):
        read(tmp_path / "nothing")
    (tmp_path / "images").mkdir()
    with pytest.raises(
        ValueError, match="holds no folder `images` with a folder `annotations` beside it; expected RDD"
    ):
        read(tmp_path)


def test_a_split_without_cracks(tmp_path):
    make(tmp_path, ("Japan",), each=2)
    with pytest.raises(ValueError, match=r"no crack crop in .*\(2 crack crops in all, of [12] images\)\. Give more"):
        read(tmp_path, countries=("Japan",), shares=(8, 1, 1))


def test_boxes_that_leave_no_room(tmp_path):
    for i in range(4):
        add(tmp_path, f"a{i}", [("D00", 0, 0, 110, 75)], picture(i))
    with pytest.raises(ValueError, match=r"only 0 of 3 no-crack crops found in 600 tries; the boxes leave too little"):
        read(tmp_path, countries=None)


def test_too_many_images_for_the_memory(japan, monkeypatch):
    class Memory:
        available = 10_000

    monkeypatch.setattr(psutil, "virtual_memory", Memory)
    with pytest.raises(MemoryError, match=r"20 crops of 3×16×16 need 0\.0 GB, 0\.0 GB are free: choose a smaller size"):
        read(japan, countries=("Japan",))


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"size": 0}, "size is 0, expected an int of at least 1"),
        ({"n": 1}, "n is 1, expected an int of at least 2, or None"),
        ({"shares": (1, 1)}, r"shares are \(1, 1\), expected one number above 0 for each of train, val, test"),
        ({"shares": (1, 0, 1)}, r"shares are \(1, 0, 1\)"),
        ({"alike": 1.0}, r"alike is 1\.0, expected a share"),
        ({"bad_boxes": "ignore"}, "bad_boxes is 'ignore', expected 'error' or 'skip'"),
        ({"countries": "Japan"}, "countries is 'Japan', expected a sequence of names, or None"),
    ],
)
def test_bad_options_are_named(japan, options, text):
    with pytest.raises(ValueError, match=text):
        read(japan, **{"countries": ("Japan",), **options})


# --- the sample images


@pytest.mark.real_data
def test_the_ten_annotated_sample_images(tmp_path):
    with real("rdd2022_sample") as paths:
        origins.unpack(*paths.values(), tmp_path / "rdd", limit=1 << 30)
    options = {"folder": tmp_path / "rdd", "size": 32, "shares": (4, 3, 3)}
    with pytest.raises(ValueError, match=r"no annotated image of India, Czech \(it has Japan, Norway, United_States\)"):
        load_rdc(**options)
    images = load_rdc(**options, countries=("Japan", "Norway", "United_States"))
    cracks = images.take(np.flatnonzero(images.labels.numpy() == 1))
    assert len(cracks) == 8  # D00 3, D10 3, D20 2; the two Japanese images show potholes only
    assert (images.labels == 0).sum() == 5
    assert {name.rpartition("_")[0] for name in cracks.groups} == {"Norway", "United_States"}
    assert cracks.images.std((1, 2, 3)).min() > 0.01
    with zipfile.ZipFile(paths["rdd2022_sample.zip"]) as archive:
        listed = archive.read("index.csv").decode().split()
    names = [row.split(",")[0].split("/")[-1][:-4] for row in listed if "train/images" in row]
    assert set(images.groups) <= set(names)
    assert os.path.basename(tmp_path / "rdd") == images.provenance["name"]
