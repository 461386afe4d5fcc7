"""Road views: the prepared archive (counts, split, segments, pixels, masks), and small archives that are wrong."""

import io
from collections import Counter

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image, ImageDraw
from prepared import CHECKOUT, real_archive, rows_of, write_set, zipped

import xai_utils.data
from xai_utils.data.sets.road_views import CLASSES, WATERMARK, load_road_views

SPLIT_FILE = CHECKOUT / "data/splits/road_views.csv"


# --- the archive itself


@pytest.fixture(scope="module")
def archive():
    with real_archive("road_cracks") as opened:
        yield opened


@pytest.fixture(scope="module")
def rows(archive):
    return rows_of(archive)


@pytest.fixture(scope="module")
def views(archive):
    return load_road_views(size=96)


@pytest.mark.real_data
def test_the_published_counts_and_the_first_images_of_both_classes(views):
    assert views.images.shape == (838, 3, 96, 96)
    assert views.class_names == CLASSES == ("no pothole", "pothole")
    for part, counts in (("train", [433, 189]), ("val", [43, 22]), ("test", [110, 41])):
        assert torch.bincount(views.subset(part).labels).tolist() == counts
    assert views.labels[:6].tolist() == [0, 1] * 3
    assert views.labels[504:].sum() == 0  # the 252 potholes are over
    assert views.ids[:2].tolist() == ["1014583_RS_386_386RS124739_29840", "1008367_RS_386_386RS289112_32760"]
    assert len(set(views.ids)) == 838
    assert views.provenance == {
        "name": "road_cracks",
        "sha256": "f52e38474f2ce9c8f7076c78e96aa91ba731b6ad4f9c65b57b0db06fafb09583",
        "variant": views.provenance["variant"],
    }


@pytest.mark.real_data
def test_split_and_segments_are_the_archives_own_and_no_segment_is_divided(views, rows):
    own = {row["id"]: row for row in rows}
    assert SPLIT_FILE.read_text(encoding="ascii") == "id,split\n" + "".join(f"{r['id']},{r['split']}\n" for r in rows)
    assert views.split.tolist() == [own[name]["split"] for name in views.ids]
    assert views.groups.tolist() == [own[name]["road_segment"] for name in views.ids]
    assert views.labels.tolist() == [int(own[name]["pothole_px"]) > 0 for name in views.ids]
    assert len(set(views.groups)) == 22
    for segment in set(views.groups):
        assert len(set(views.split[views.groups == segment])) == 1


@pytest.mark.real_data
def test_masks_are_the_potholes_and_none_is_lost_at_96_pixels(views, rows):
    share = views.masks.double().mean((1, 2))
    assert share[views.labels == 0].max() == 0
    assert share[views.labels == 1].min() > 0
    own = {row["id"]: int(row["pothole_px"]) / (int(row["width"]) * int(row["height"])) for row in rows}
    expected = np.array([own[name] for name in views.ids])
    large = expected > 0.005
    assert large.sum() > 60
    assert share.numpy()[large] == pytest.approx(expected[large], rel=0.15)


@pytest.mark.real_data
def test_pixels_equal_torchs_antialiased_resize_where_there_are_no_letters(views, archive):
    for row in range(0, 838, 60):
        image = np.asarray(Image.open(io.BytesIO(archive.read(f"images/{views.ids[row]}.jpg"))), np.float64)
        whole = torch.from_numpy(image).permute(2, 0, 1)[None]
        expected = F.interpolate(whole, size=(96, 96), mode="bilinear", antialias=True)[0]
        off = (views.images[row] * 255 - expected).abs()
        assert off[:, 11:].max() <= 1.01  # Pillow rounds after each axis
        assert off[:, :, :79].max() <= 1.01


@pytest.mark.real_data
def test_the_rectangle_holds_the_letters_of_every_image(archive, rows):
    left, top, right, bottom = WATERMARK
    corner = [
        Image.open(io.BytesIO(archive.read(f"images/{row['id']}.jpg"))).convert("L").crop((850, 4, 1020, 70))
        for row in rows[::6]
    ]
    grey = np.array([np.asarray(image, np.float64) for image in corner])
    same = sum(np.abs(np.median(np.gradient(grey, axis=axis), 0)) for axis in (1, 2)) > 4  # edges all images share
    down, across = np.nonzero(same)
    assert same.sum() > 500
    assert top <= down.min() + 4 < top + 6
    assert bottom - 6 < down.max() + 4 < bottom
    assert left <= across.min() + 850 < left + 6
    assert right - 6 < across.max() + 850 < right


# --- small archives


def picture(width=1024, height=640, grey=90, mode="RGB", kind="PNG"):
    image, out = Image.new("L", (width, height), grey).convert(mode), io.BytesIO()
    image.save(out, kind)
    return out.getvalue()


def hole(box, width=1024, height=640):
    mask, out = Image.new("1", (width, height)), io.BytesIO()
    if box:
        ImageDraw.Draw(mask).rectangle([box[0], box[1], box[2] - 1, box[3] - 1], fill=1)
    mask.save(out, "PNG")
    return out.getvalue()


def lettered():
    """Red to the left of column 512, and white letters, a fifth of their rectangle, on black."""
    image, out = Image.new("RGB", (1024, 640)), io.BytesIO()
    image.paste((200, 0, 0), (0, 0, 512, 640))
    left, top, _, bottom = WATERMARK
    image.paste((255, 255, 255), (left + 37, top, left + 74, bottom))
    image.save(out, "PNG")  # Pillow reads by content, not by name
    return out.getvalue()


MEMBERS = {
    "index.csv": b"id,road_segment,split\na,S1,train\nb,S1,train\nc,S2,test",
    "images/a.jpg": picture(),
    "images/b.jpg": lettered(),
    "images/c.jpg": picture(height=630),
    "masks/pothole/a.png": hole(None),
    "masks/pothole/b.png": hole((128, 320, 256, 480)),
    "masks/pothole/c.png": hole(None, height=630),
}


def write_archive(root, changed=None):
    """Three views with a registry that knows them, and their split file."""
    body, splits = zipped(MEMBERS | (changed or {})), "id,split\na,train\nb,train\nc,test\n"
    write_set(root, "road_cracks", "brazil_road_cracks.zip", body, {"road_views": splits})


def test_the_whole_view_is_stretched_with_its_mask(root):
    write_archive(root)
    views = load_road_views(size=64)
    assert views.ids.tolist() == ["a", "b", "c"]
    assert views.labels.tolist() == [0, 1, 0]
    assert views.groups.tolist() == ["S1", "S1", "S2"]
    assert views.split.tolist() == ["train", "train", "test"]
    red = (views.images[1] * 255).round().int()
    assert red[:, 20:, :31].flatten(1).unique(dim=1).flatten().tolist() == [200, 0, 0]
    assert red[:, 20:, 33:].max() == 0
    inside = torch.zeros(64, 64, dtype=torch.bool)
    inside[32:48, 8:16] = True
    assert torch.equal(views.masks[1], inside)
    assert not views.masks[[0, 2]].any()


def test_the_letters_are_painted_over_unless_asked_for(root):
    write_archive(root)
    plain, printed = (load_road_views(size=640, watermark=seen).images[1] * 255 for seen in (False, True))
    left, top, right, bottom = (round(edge * share) for edge, share in zip(WATERMARK, (0.625, 1, 0.625, 1)))
    assert plain[:, top + 1 : bottom - 1, left + 2 : right - 2].unique().round().tolist() == [64]  # 255 · 37 / 148
    assert printed[0, top + 5, left + 30] > 250
    assert printed[0, top + 5, left + 60] == 0
    outside = torch.ones(640, 640, dtype=torch.bool)
    outside[top - 1 : bottom + 1, left - 2 : right + 2] = False
    assert torch.equal(plain[:, outside], printed[:, outside])


@pytest.mark.parametrize(
    ("changed", "text"),
    [
        ({"images/b.jpg": None}, r"images/b\.jpg cannot be read"),
        ({"images/c.jpg": picture(kind="JPEG")[:300]}, r"images/c\.jpg cannot be read"),
        ({"images/c.jpg": picture(mode="L")}, r"images/c\.jpg has mode L, expected 8-bit colour \(RGB\)"),
        ({"masks/pothole/a.png": None}, r"masks/pothole/a\.png cannot be read"),
        ({"masks/pothole/a.png": picture(mode="L")}, r"a\.png has mode L, expected black and white \(1\)"),
        (
            {"masks/pothole/c.png": hole(None)},
            r"c has \(1024, 630\) pixels, its mask \(1024, 640\); expected the same size",
        ),
        ({"index.csv": b"id,split\na,train"}, "index.csv lacks the column road_segment"),
    ],
)
def test_an_archive_that_is_wrong_names_the_member(root, changed, text):
    write_archive(root, changed)
    with pytest.raises(ValueError, match=text):
        load_road_views(size=32)


def test_a_split_file_may_not_divide_a_segment_nor_leave_out_an_image(root):
    write_archive(root)
    path = root / "data/splits/road_views.csv"
    path.write_text("id,split\na,train\nb,val\nc,test\n")
    with pytest.raises(ValueError, match=r"road_views\.csv divides the images of 1 road segments, S1 among them; put"):
        load_road_views(size=32)
    path.write_text("id,split\na,train\nb,train\n")
    with pytest.raises(ValueError, match=r"road_views\.csv must name each of the 3 images once"):
        load_road_views(size=32)


def test_a_missing_or_damaged_archive_is_named(root):
    write_archive(root)
    archive = root / "data/brazil_road_cracks.zip"
    archive.write_bytes(archive.read_bytes()[:-1] + b"?")
    with pytest.raises(ValueError, match=r"brazil_road_cracks\.zip is damaged: its sha256"):
        load_road_views()
    archive.unlink()
    with pytest.raises(FileNotFoundError, match=r"data set 'road_cracks'(?s:.*)lacks brazil_road_cracks\.zip"):
        load_road_views()


@pytest.mark.parametrize("size", [31, 64.0, True, "64"])
def test_a_wrong_size_is_named(size):
    with pytest.raises(ValueError, match=f"size is {size!r}, expected an int of at least 32"):
        load_road_views(size=size)


def test_load_finds_the_family(root):
    write_archive(root)
    assert Counter(xai_utils.data.load("road_views", split="train", size=40).groups.tolist()) == {"S1": 2}
