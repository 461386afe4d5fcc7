"""Crops of Brazilian roads: the committed list, the rule on small archives, the probe; the archive itself."""

import hashlib
import io
import zipfile
from collections import Counter, defaultdict

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from prepared import CHECKOUT, real_archive, rows_of, write_set, zipped

from xai_utils.data import load
from xai_utils.data.sets import road_cracks
from xai_utils.data.sets.road_cracks import (
    CLASSES,
    RULE,
    crack_counts,
    crops_as_csv,
    draw_crops,
    load_road_cracks,
    probe_shortcuts,
    read_crops,
)

TABLE = CHECKOUT / "data/splits/road_cracks.csv"


def digest(data):
    return hashlib.sha256(data).hexdigest()


@pytest.fixture
def checkout(monkeypatch):
    monkeypatch.setenv("XAI_ROOT", str(CHECKOUT))


# --- the list of crops


def test_every_crack_crop_is_followed_by_a_partner_of_its_place_side_format_and_brightness(checkout):
    rule, crops = yaml.safe_load(RULE.read_text()), read_crops()
    assert crops_as_csv(crops) == TABLE.read_text(encoding="ascii")
    for crack, other in zip(crops[::2], crops[1::2]):
        assert (crack.label, other.label) == (1, 0)
        assert (crack.x, crack.y, crack.side, crack.height, crack.split) == (
            other.x,
            other.y,
            other.side,
            other.height,
            other.split,
        )
        assert crack.image != other.image
        assert abs(crack.brightness - other.brightness) <= rule["brightness"] + 0.011
        assert 64 <= crack.side <= 224
        assert crack.x + crack.side <= 860 or crack.y >= 64  # the mark "DNIT"
    assert max(Counter((crop.image, crop.label) for crop in crops).values()) <= rule["per_image"]
    number = Counter(crop.split for crop in crops if crop.label)
    assert number["test"] >= 200
    assert number["train"] > 1500
    assert number["val"] >= 100


def test_crops_of_one_class_hardly_overlap(checkout):
    by_image = defaultdict(list)
    for crop in read_crops():
        by_image[crop.image, crop.label].append(crop)
    for crops in by_image.values():
        for k, a in enumerate(crops):
            for b in crops[:k]:
                wide = min(a.x + a.side, b.x + b.side) - max(a.x, b.x)
                high = min(a.y + a.side, b.y + b.side) - max(a.y, b.y)
                both = max(wide, 0) * max(high, 0)
                assert both / (a.side**2 + b.side**2 - both) <= 0.3


def test_shortcuts_do_not_tell_the_class(checkout):
    assert probe_shortcuts() <= 0.55
    assert probe_shortcuts(("brightness",)) <= 0.55
    assert probe_shortcuts(("x", "y", "side", "height")) == 0.5  # equal in both crops of every pair
    assert probe_shortcuts(("contrast",)) > 0.6  # content: a crack varies in grey


@pytest.mark.parametrize("columns", [("x", "label"), (), ("hue",)])
def test_probe_knows_its_columns(columns):
    with pytest.raises(
        ValueError, match=r"columns are .*expected one or more of x, y, side, height, brightness, contr"
    ):
        probe_shortcuts(columns)


def test_the_probe_finds_a_shortcut(tmp_path, monkeypatch):
    """Two lists of crops: in one the middle of crack crops lies 20 pixels further right, by their side."""
    monkeypatch.setenv("XAI_ROOT", str(tmp_path))
    (tmp_path / "data/splits").mkdir(parents=True)
    rng, found = np.random.default_rng(0), {}
    for moved in (0, 20):
        rows = []
        for i in range(600):
            x, y, split = rng.integers(0, 40), rng.integers(0, 400), "test" if i % 3 == 0 else "train"
            rows += [f"a{i}/{x}_{y}_{100 + 2 * moved},{split},crack,640,{rng.normal(100, 9)},3\n"]
            rows += [f"b{i}/{x}_{y}_100,{split},no_crack,640,{rng.normal(100, 9)},3\n"]
        head = "id,split,class,height,brightness,contrast\n"
        (tmp_path / "data/splits/road_cracks.csv").write_text(head + "".join(rows))
        found[moved] = probe_shortcuts(("x",)), probe_shortcuts(("brightness",)), probe_shortcuts(("side",))
    assert all(0.42 < value < 0.58 for value in (*found[0][:2], found[20][1]))
    assert found[0][2] == 0.5
    assert found[20][0] > 0.65
    assert found[20][2] == 1


# --- counting cracks


def test_cracks_are_pieces_further_apart_than_the_gap():
    masks = torch.zeros(5, 40, 40, dtype=torch.bool)
    masks[1, 5, 5:30] = True  # one
    masks[2, 5, 5:15] = masks[2, 5, 18:30] = True  # broken: 3 pixels between the pieces' centres
    masks[3, 5, 5:15] = masks[3, 20, 5:15] = True  # two
    masks[4, 5, 5:15] = masks[4, 20, 5:15] = masks[4, 35, 5] = True  # two and a speck
    assert crack_counts(masks, gap=0.1).tolist() == [0, 1, 1, 2, 2]
    assert crack_counts(masks, gap=0.3).tolist() == [0, 1, 1, 2, 2]
    assert crack_counts(masks, gap=0).tolist() == [0, 1, 2, 2, 2]
    assert crack_counts(masks, gap=0.5).tolist() == [0, 1, 1, 1, 1]
    assert crack_counts(masks, gap=0.1, least=1).tolist() == [0, 1, 1, 2, 3]
    assert crack_counts(masks, gap=0.1, least=11).tolist() == [0, 1, 1, 0, 0]
    assert crack_counts(masks[:0]).tolist() == []
    for options in ({"gap": -0.1}, {"gap": float("nan")}, {"least": 0}):
        with pytest.raises(ValueError, match=r"gap is .* and least .*, expected a share"):
            crack_counts(masks, **options)


# --- small archives: images of 1024×128, cracks and potholes where a test puts them


def encoded(pixels, end):
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "PNG" if end == "png" else "JPEG", **({"quality": 95} if end == "jpg" else {}))
    return out.getvalue()


def road(root, images, changed=None):
    """images: id → (segment, split, grey level, [crack boxes], [pothole boxes], lane box or None)."""
    lines, members = ["id,road_segment,split,width,height"], {}
    for name, (segment, split, level, cracks, holes, lane) in images.items():
        lines.append(f"{name},{segment},{split},1024,128")
        grey = np.full((128, 1024), level, np.uint8)
        masks = {kind: np.zeros((128, 1024), np.uint8) for kind in ("crack", "pothole", "lane")}
        left, top, right, bottom = lane or (0, 0, 1024, 128)
        masks["lane"][top:bottom, left:right] = 255
        for kind, boxes in (("crack", cracks), ("pothole", holes)):
            for a, b, c, d in boxes:
                masks[kind][b:d, a:c][:: 1 if kind == "pothole" else 8] = 255
        members[f"images/{name}.jpg"] = encoded(np.where(masks["crack"] > 0, level - 10, grey).astype(np.uint8), "jpg")
        members |= {f"masks/{kind}/{name}.png": encoded(mask, "png") for kind, mask in masks.items()}
        objects = "".join(
            f"<object><name>{kind}</name><bndbox><xmin>{a}</xmin><ymin>{b}</ymin><xmax>{c}</xmax><ymax>{d}</ymax>"
            "</bndbox></object>"
            for kind, boxes in (("crack", cracks), ("pothole", holes))
            for a, b, c, d in boxes
        )
        members[f"annotations/{name}.xml"] = f"<annotation>{objects}</annotation>".encode()
    members = {"index.csv": "\n".join(lines).encode()} | members | (changed or {})
    write_set(root, "road_cracks", "brazil_road_cracks.zip", zipped(members))
    return root / "data/brazil_road_cracks.zip"


BOX = (300, 20, 500, 120)  # 200×100: two squares of 120


def drawn(root, images, **options):
    with zipfile.ZipFile(road(root, images)) as archive:
        return draw_crops(archive, **options)


def test_a_long_box_is_covered_by_squares_of_its_shorter_side_and_a_margin(root):
    crops = drawn(root, {"a": ("s", "train", 100, [BOX], [], None), "b": ("s", "train", 100, [], [], None)})
    assert {(crop.image, crop.x, crop.y, crop.side) for crop in crops} == {
        (name, x, 8, 120) for name in "ab" for x in (300, 380)
    }
    assert [crop.label for crop in crops] == [1, 0] * 2
    small = drawn(
        root, {"a": ("s", "train", 100, [(400, 30, 412, 42)], [], None), "b": ("s", "train", 100, [], [], None)}
    )
    assert [(crop.x, crop.y, crop.side) for crop in small] == [(374, 4, 64)] * 2  # never below 64
    edge = drawn(root, {"a": ("s", "train", 100, [(0, 0, 30, 128)], [], None), "b": ("s", "train", 100, [], [], None)})
    assert {(crop.x, crop.y, crop.side) for crop in edge} == {(0, 0, 64), (0, 64, 64)}  # inside the image


@pytest.mark.parametrize(
    ("other", "why"),
    [
        (("s", "train", 104, [], [], None), "another brightness"),
        (("s", "val", 100, [], [], None), "another split"),
        (("s", "train", 100, [], [(280, 60, 284, 64)], None), "a pothole nearby"),
        (("s", "train", 100, [(505, 60, 511, 64)], [], None), "a crack nearby"),
        (("s", "train", 100, [], [], (340, 0, 1024, 128)), "not on the lane"),
    ],
)
def test_a_crop_without_a_partner_is_left_out(root, other, why):
    images = {"a": ("s", "train", 100, [(300, 20, 400, 120)], [], None), "b": other}
    if why == "a crack nearby":
        images["a"] = ("s", "train", 100, [(390, 20, 490, 120)], [], None)
    assert drawn(root, images) == []


def test_a_partner_comes_from_the_same_segment_first_then_from_the_nearest_brightness(root):
    box = [(300, 20, 400, 120)]
    images = {
        "a": ("s", "train", 100, box, [], None),
        "b": ("t", "train", 100, [], [], None),
        "c": ("s", "train", 98, [], [], None),
        "d": ("s", "train", 97, [], [], None),
    }
    assert [crop.image for crop in drawn(root, images)] == ["a", "c"]
    del images["c"], images["d"]
    assert [crop.image for crop in drawn(root, images)] == ["a", "b"]
    images["e"] = ("s", "train", 100, box, [], None)
    assert len(drawn(root, images)) == 2  # b is used once: the other crack crop would overlap


def test_crack_crops_show_no_pothole_and_keep_away_from_the_mark_and_the_verge(root):
    plain = ("s", "train", 100, [], [], None)
    box = (300, 20, 400, 120)
    for image in (
        ("s", "train", 100, [box], [(350, 60, 352, 62)], None),
        ("s", "train", 100, [(880, 20, 980, 120)], [], None),
        ("s", "train", 100, [box], [], (330, 0, 1024, 128)),
    ):
        assert drawn(root, {"a": image, "b": plain}) == []
    assert len(drawn(root, {"a": ("s", "train", 100, [box], [], (300, 0, 1024, 128)), "b": ("s", *plain[1:])})) == 2


def test_a_box_with_hardly_any_crack_in_it_gives_no_crop(root):
    images = {"a": ("s", "train", 100, [(300, 20, 304, 44)], [], None), "b": ("s", "train", 100, [], [], None)}
    assert drawn(root, images) == []  # 12 of 4,096 pixels


def write_list(root, *rows):
    head = "id,split,class,height,brightness,contrast\n"
    (root / "data/splits/road_cracks.csv").write_text(head + "".join(f"{row}\n" for row in rows))


def small_set(root, changed=None):
    images = {"a": ("s", "train", 100, [BOX], [], None), "b": ("t", "train", 100, [], [], None)}
    road(root, images, changed)
    write_list(root, "a/300_8_120,train,crack,128,99,9", "b/300_8_120,train,no_crack,128,100,0")


def test_crops_and_masks_are_cut_and_resized(root):
    small_set(root)
    images = load("road_cracks", size=40)
    assert images.images.shape == (2, 1, 40, 40)
    assert (images.class_names, images.labels.tolist()) == (CLASSES, [1, 0])
    assert images.ids.tolist() == ["a/300_8_120", "b/300_8_120"]
    assert images.groups.tolist() == ["s", "t"]
    assert images.split.tolist() == ["train", "train"]
    assert not images.masks[1].any()
    mask = np.zeros((128, 1024))
    mask[20:120:8, 300:500] = 1
    small = Image.fromarray(mask.astype(np.float32)).resize((40, 40), Image.Resampling.BILINEAR, box=(300, 8, 420, 128))
    assert np.array_equal(images.masks[0].numpy(), np.asarray(small) > 0.5)  # strokes of one pixel are lost
    assert np.array_equal(load_road_cracks(size=120).masks[0].numpy(), mask[8:128, 300:420] > 0)
    assert images.images[0].mean() * 255 == pytest.approx(100 - 10 * np.asarray(small).mean(), abs=1)
    assert torch.allclose(images.images[1] * 255, torch.tensor(100.0), atol=1.5)
    colours = load_road_cracks(size=40, grey=False)
    assert colours.images.shape == (2, 3, 40, 40)
    assert colours.images.mean().item() == pytest.approx(images.images.mean().item(), abs=0.01)
    with zipfile.ZipFile(root / "data/brazil_road_cracks.zip") as archive:
        inside = "".join(f"{name} {digest(archive.read(name))}\n" for name in sorted(archive.namelist()))
    table = (root / "data/splits/road_cracks.csv").read_bytes()
    lines = f"brazil_road_cracks.zip {digest(inside.encode())}\nsplits/road_cracks.csv {digest(table)}\n"
    assert images.provenance["sha256"] == digest(lines.encode())


@pytest.mark.parametrize(
    ("changed", "text"),
    [
        ({"masks/crack/a.png": None}, r"brazil_road_cracks\.zip: masks/crack/a\.png cannot be read"),
        ({"masks/crack/b.png": b"no image"}, r"masks/crack/b\.png cannot be read"),
        ({"images/b.jpg": None}, r"images/b\.jpg cannot be read"),
        ({"images/a.jpg": encoded(np.zeros((128, 1024), np.uint8), "jpg")[:400]}, r"images/a\.jpg cannot be read"),
        ({"masks/crack/a.png": encoded(np.zeros((9, 9), np.uint8), "png")}, r"a has \(1024, 128\) pixels .*\(9, 9\)"),
        (
            {"masks/crack/b.png": encoded(np.full((128, 1024), 255, np.uint8), "png")},
            "b/300_8_120 shows a crack, and 0",
        ),
        ({"index.csv": b"id,road_segment,split\na,s,train\n"}, "image 'b' is not in .*zip; restore the file"),
        ({"index.csv": None}, r"index\.csv cannot be read"),
        ({"index.csv": b"id,split\na,train\n"}, r"index\.csv lacks the column road_segment"),
    ],
)
def test_an_archive_that_is_wrong_is_named(root, changed, text):
    small_set(root, changed)
    with pytest.raises(ValueError, match=text):
        load_road_cracks(size=32)


@pytest.mark.parametrize(
    ("row", "text"),
    [
        ("a/300_8_120,test,crack,128,99,9", r"crop a/300_8_120 \(test, image height 128\) does not fit the archive"),
        ("a/300_9_120,train,crack,128,99,9", "crop a/300_9_120 .* does not fit"),
        ("a/-1_8_120,train,crack,128,99,9", "crop a/-1_8_120 .* does not fit"),
        ("a/300_8_0,train,crack,128,99,9", "crop a/300_8_0 .* does not fit"),
        ("a/300_8_120,train,crack,640,99,9", "image height 640"),
        ("a/300_8_120,train,pothole,128,99,9", r"road_cracks\.csv, line 2: .* is no crop: "),
        ("a/300_8,train,crack,128,99,9", "line 2: 'a/300_8,train,crack,128,99,9' is no crop"),
        ("a/300_8_120,train,crack,128", "line 2: .* is no crop"),
    ],
)
def test_a_list_that_is_wrong_is_named(root, row, text):
    small_set(root)
    write_list(root, row)
    with pytest.raises(ValueError, match=text):
        load_road_cracks(size=32)


def test_a_list_that_is_missing_has_other_columns_or_repeats(root):
    small_set(root)
    path = root / "data/splits/road_cracks.csv"
    write_list(root, *["a/300_8_120,train,crack,128,99,9"] * 2)
    with pytest.raises(ValueError, match=r"road_cracks\.csv lists a crop twice"):
        read_crops()
    path.write_text("id,split\n")
    with pytest.raises(ValueError, match=r"has the columns id, split, expected id, split, class, height, bright"):
        read_crops()
    path.unlink()
    with pytest.raises(FileNotFoundError, match=r"road_cracks\.csv is missing: it lists the crops and belongs to"):
        load_road_cracks()


@pytest.mark.parametrize("size", [31, 64.0, True, "64"])
def test_a_wrong_size_is_named(size):
    with pytest.raises(ValueError, match=f"size is {size!r}, expected an int of at least 32"):
        load_road_cracks(size=size)


# --- the archive itself


@pytest.fixture(scope="module")
def archive():
    with real_archive("road_cracks") as opened:
        yield opened


def grey_mask(archive, kind, name):
    return np.asarray(Image.open(io.BytesIO(archive.read(f"masks/{kind}/{name}.png"))).convert("L")) > 0


@pytest.mark.real_data
def test_listed_crops_show_what_they_say(archive):
    index = {row["id"]: row for row in rows_of(archive)}
    crops, segments = read_crops(), defaultdict(set)
    for crop in crops:
        row = index[crop.image]
        assert (crop.split, crop.height) == (row["split"], int(row["height"]))
        segments[crop.split].add(row["road_segment"])
    assert sum(map(len, segments.values())) == len(set.union(*segments.values()))
    assert len(segments["test"]) >= 5
    for crop in crops[::97]:  # both classes: 97 is odd
        square = np.s_[crop.y : crop.y + crop.side, crop.x : crop.x + crop.side]
        around = np.s_[max(0, crop.y - 12) : crop.y + crop.side + 12, max(0, crop.x - 12) : crop.x + crop.side + 12]
        cracks, holes = grey_mask(archive, "crack", crop.image), grey_mask(archive, "pothole", crop.image)
        assert grey_mask(archive, "lane", crop.image)[square].mean() >= 0.9
        assert not holes[square].any()
        if crop.label:
            assert cracks[square].mean() >= 0.005
        else:
            assert not (cracks | holes)[around].any()
        picture = Image.open(io.BytesIO(archive.read(f"images/{crop.image}.jpg"))).convert("L")
        grey = np.asarray(picture, dtype=float)[square]
        assert crop.brightness == pytest.approx(grey.mean(), abs=0.6)
        assert crop.contrast == pytest.approx(grey.std(), abs=0.6)


@pytest.mark.real_data
def test_the_list_can_be_made_again(archive):
    again = draw_crops(archive, splits=("val",))
    listed = [crop for crop in read_crops() if crop.split == "val"]
    same = {crop.id for crop in again} & {crop.id for crop in listed}
    assert len(same) >= 0.97 * max(len(again), len(listed))  # another JPEG decoder may choose another partner


@pytest.mark.real_data
def test_loaded_crops(archive, monkeypatch):
    listed = [crop for crop in read_crops() if crop.split == "test"][:60]
    monkeypatch.setattr(road_cracks, "read_crops", lambda: listed)
    images = load_road_cracks()
    assert images.images.shape == (60, 1, 112, 112)
    assert images.masks[0::2].any((1, 2)).all()
    brightness = images.images.mean((1, 2, 3)).numpy() * 255
    assert brightness == pytest.approx([crop.brightness for crop in listed], abs=1.5)
    share = images.masks[0::2].double().mean().item()
    rows = []
    for crop in listed[::2]:
        cracks = grey_mask(archive, "crack", crop.image)
        rows.append(cracks[crop.y : crop.y + crop.side, crop.x : crop.x + crop.side].mean())
    assert share == pytest.approx(np.mean(rows), rel=0.08)  # the threshold of one half keeps the strokes' width
