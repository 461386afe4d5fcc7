"""CrackForest: pairs of crops on small archives, faults, and the archive itself."""

import io

import numpy as np
import pytest
import torch
from PIL import Image
from prepared import real, write_set, zipped

from xai_utils.data import load
from xai_utils.data.sets.crackforest import RULE, load_crackforest


def encoded(pixels, form="PNG"):
    out = io.BytesIO()
    Image.fromarray(np.asarray(pixels, np.uint8)).save(out, form, **({"quality": 95} if form == "JPEG" else {}))
    return out.getvalue()


def write_archive(root, changed=None):
    """001 has a crack 100 long from (40, 60); 002 and 003 none there, but 002 has something unexplained at the left."""
    members, lines = {}, ["id,width,height,crack_px,has_mask,extra_labels"]
    for name, level in (("001", 120), ("002", 121), ("003", 116), ("004", 120)):
        grey, mask = np.full((160, 240, 3), level), np.zeros((160, 240))
        if name == "001":
            mask[60:64, 40:140] = 255
        elif name != "004":
            mask[150:154, 180:240] = 255
        grey[mask > 0] -= 20
        members[f"images/{name}.jpg"] = encoded(grey, "JPEG")
        members[f"masks/{name}.png"] = encoded(mask)
        lines.append(f"{name},240,160,1,{int(name != '004')},")
    other = np.zeros((160, 240))
    other[50:54, 30:36] = 128
    members |= {"masks_other/002.png": encoded(other), "index.csv": "\n".join(lines).encode()} | (changed or {})
    write_set(root, "crackforest", "crackforest_cfd.zip", zipped(members))


def test_crops_lie_along_the_crack_and_partners_have_none(root):
    write_archive(root)
    images = load("crackforest", size=64)
    assert images.split.tolist() == ["test"] * len(images)
    assert images.labels.tolist() == [1, 0] * (len(images) // 2)
    assert images.groups.tolist() == [name.split("/")[0] for name in images.ids]
    mine = [k for k, name in enumerate(images.ids) if name.startswith("001/") and images.labels[k]]
    places = {images.ids[k].split("/")[1]: images.ids[k + 1] for k in mine}
    # 100 long: two squares of 64; at the left 002 is no partner, at the right it is nearer in grey than 003
    assert places == {"40_30_64": "003/40_30_64", "76_30_64": "002/76_30_64"}
    mask = images.masks[mine[0]].numpy()
    x = int(images.ids[mine[0]].split("/")[1].split("_")[0])
    rows, columns = np.nonzero(mask)
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (30, 33, 40 - x if x == 40 else 0, 63)
    assert not images.masks[1::2].any()
    assert "004" not in images.groups
    assert images.images[mine[0]].mean() * 255 == pytest.approx(120 - 20 * mask.mean(), abs=1)
    assert load_crackforest(size=64, grey=False).images.shape[1:] == (3, 64, 64)


@pytest.mark.parametrize(
    ("changed", "text"),
    [
        ({"masks/003.png": None}, r"crackforest_cfd\.zip: masks/003\.png cannot be read"),
        ({"images/001.jpg": b"no image"}, "images/001.jpg cannot be read"),
        ({"images/001.jpg": encoded(np.zeros((160, 240, 3)), "JPEG")[:500]}, "images/001.jpg cannot be read"),
        (
            {"masks/003.png": encoded(np.zeros((9, 8)))},
            r"image 003 has \(240, 160\) pixels, its mask \(8, 9\); expected the same",
        ),
        ({"masks_other/001.png": encoded(np.zeros((9, 8)))}, r"image 001 has .*, its mask \(8, 9\); expected the same"),
        ({"index.csv": None}, r"crackforest_cfd\.zip: index\.csv cannot be read"),
        ({"index.csv": b"id\n001\n"}, r"index\.csv lacks the column has_mask"),
    ],
)
def test_an_archive_that_is_wrong_names_the_image(root, changed, text):
    write_archive(root, changed)
    with pytest.raises(ValueError, match=text):
        load_crackforest(size=32)


@pytest.mark.parametrize("size", [31, 64.0, True, "64"])
def test_a_wrong_size_is_named(size):
    with pytest.raises(ValueError, match=f"size is {size!r}, expected an int of at least 32"):
        load_crackforest(size=size)


@pytest.mark.real_data
def test_the_archive_itself():
    with real("crackforest"):
        images = load_crackforest(size=64)
    number = len(images) // 2
    assert number > 400
    assert images.labels.tolist() == [1, 0] * number
    assert len(set(images.groups)) > 110
    assert images.masks[0::2].any((1, 2)).all()
    assert not images.masks[1::2].any()
    places = [name.split("/")[1] for name in images.ids]
    assert places[0::2] == places[1::2]
    assert all(64 <= int(place.split("_")[2]) <= 160 for place in places)
    brightness = images.images.double().mean((1, 2, 3)) * 255
    apart = brightness[0::2] - brightness[1::2]
    assert apart.abs().max() <= RULE["brightness"] + 1
    assert apart.mean().abs() < 0.5
    darker = [
        image[0][~mask].mean() - image[0][mask].mean() for image, mask in zip(images.images[0::2], images.masks[0::2])
    ]
    assert torch.stack(darker).median() * 255 > 15
