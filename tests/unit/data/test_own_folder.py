"""What is told of a folder of your own images before anything is trained, on small real files."""

import re
import unicodedata

import numpy as np
import pytest
import torch
from PIL import Image
from scipy import ndimage

from xai_utils.data import load, pictures
from xai_utils.data.__main__ import main
from xai_utils.data.checks import BITS, check
from xai_utils.data.fitting import FITS, fitted, fitted_mask
from xai_utils.data.grouping import divided, fingerprint, grouped_split, groups_of, nearly_equal
from xai_utils.data.own import check_folder
from xai_utils.data.surveys import split_of, survey_classes, survey_targets


def grain(i, height=24, width=32):
    """A surface of its own for every i."""
    return np.random.default_rng(i).integers(60, 190, (height, width)).astype(np.uint8)


def save(path, pixels, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.asarray(pixels)).save(path, **options)
    return path


def line(i, height=24, width=32):
    mask = np.zeros((height, width), np.uint8)
    mask[4:20, 8 + i % 12] = 255
    return mask


def make(folder, classes=("crack", "sound"), n=10, masks=True, suffix="png"):
    for k, name in enumerate(classes):
        for i in range(n):
            save(folder / name / f"{i:02d}.{suffix}", grain(100 * k + i))
            if masks and name == "crack":
                save(folder / "masks" / name / f"{i:02d}.png", line(i))
    return folder


def found(folder, masks="masks", **options):
    return [str(finding) for finding in check_folder(str(folder), masks=masks, **options).findings]


def one(findings, *parts):
    """The only finding that holds all these parts."""
    held = [text for text in findings if all(part in text for part in parts)]
    assert len(held) == 1, findings
    return held[0]


# --- the reader --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", sorted(pictures.SUFFIXES - {".pbm"}))
def test_every_suffix_that_is_listed_is_read(tmp_path, suffix):
    name = {".jfif": "JPEG", ".jpe": "JPEG", ".pnm": "PPM", ".pgm": "PPM"}.get(suffix)
    path = tmp_path / f"x{suffix}"
    smooth = ndimage.gaussian_filter(grain(0), 3)
    Image.fromarray(smooth).save(path, name, **({"lossless": True} if suffix == ".webp" else {}))
    pixels = pictures.grey(pictures.as_float(pictures.read_picture(path)))
    assert np.abs(pixels[..., 0] - smooth / 255).max() < 0.03


@pytest.mark.parametrize(
    "content", [b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\nshowpage\n", b"", b"GIF89a", b"\x89PNG"]
)
def test_what_is_no_picture_of_these_formats_is_refused_by_name(tmp_path, content):
    """An EPS called .png would start another program."""
    path = tmp_path / "x.png"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"image .*x\.png cannot be read: .*Replace or remove it"):
        pictures.read_picture(path)
    with pytest.raises(ValueError, match=r"image .*x\.png cannot be read: "):
        pictures.upright_size(path)


def test_an_eps_is_not_opened_whatever_its_name(tmp_path, monkeypatch):
    from PIL import EpsImagePlugin

    monkeypatch.setattr(EpsImagePlugin, "Ghostscript", lambda *_, **__: pytest.fail("Ghostscript was called"))
    path = tmp_path / "x.png"
    Image.fromarray(grain(0)).save(path, "EPS")
    with pytest.raises(
        ValueError, match="no picture in one of the formats BMP, GIF, JPEG, JPEG2000, PNG, PPM, TIFF, WEBP"
    ):
        pictures.read_picture(path)


def test_a_picture_of_too_many_pixels_is_refused_by_name(tmp_path, monkeypatch):
    path = save(tmp_path / "x.png", grain(0))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 500)
    with pytest.raises(
        ValueError, match=r"x\.png cannot be read: Image size \(768 pixels\) exceeds limit of 500 pixels"
    ):
        pictures.read_picture(path)


@pytest.mark.parametrize("turned", range(1, 9))
@pytest.mark.parametrize("suffix", ["png", "jpg", "tif", "webp"])
def test_a_picture_is_read_as_it_is_seen(tmp_path, suffix, turned):
    seen = np.zeros((24, 40), np.uint8)
    seen[:8, :10] = 250  # light at the top left
    back = {2: 2, 3: 3, 4: 4, 5: 5, 6: 8, 7: 7, 8: 6}  # the turn that undoes it
    stored = np.asarray(pictures.turn(Image.fromarray(seen), back.get(turned, 1)))
    exif = Image.Exif()
    exif[0x0112] = turned
    path = tmp_path / f"x.{suffix}"
    Image.fromarray(stored).save(path, exif=exif)
    assert pictures.upright_size(path) == (40, 24)
    pixels = pictures.grey(pictures.as_float(pictures.read_picture(path)))[..., 0]
    assert pixels.shape == (24, 40)
    assert pixels[1:7, 1:9].min() > 0.9
    assert pixels[10:, :].max() < 0.1
    assert pixels[:, 12:].max() < 0.1


@pytest.mark.parametrize("big", [False, True])
def test_sixteen_bits_of_any_format_are_the_same_picture(tmp_path, big):
    deep = grain(0).astype(np.uint16) * 257
    files = [tmp_path / f"x.{suffix}" for suffix in ("png", "tif", "jp2", "pgm")]
    for path in files[:3]:
        Image.fromarray(deep).save(path)
    files[3].write_bytes(b"P5 32 24 65535\n" + deep.astype(">u2").tobytes())
    if big:
        files = [tmp_path / "big.tif"]
        Image.frombytes("I;16B", (32, 24), deep.astype(">u2").tobytes()).save(files[0])
    for path in files:
        picture = pictures.read_picture(path)
        assert picture.mode == "I;16", path
        assert np.allclose(pictures.as_float(picture)[..., 0], grain(0) / 255, atol=1e-6)
        assert np.array_equal(np.asarray(pictures.as_8_bit(picture, "L")), grain(0))


@pytest.mark.parametrize("bits", [8, 10, 12, 14, 16])
def test_few_bits_in_sixteen_are_not_nearly_black(tmp_path, bits):
    """A camera of 12 bits writes 16-bit files whose white is 4095."""
    top = 2**bits - 1
    for k, name in enumerate(("a", "b")):
        for i in range(6):
            save(tmp_path / name / f"{i}.png", np.rint(grain(10 * k + i) / 255 * top).astype(np.uint16))
    pixels = load("folder", folder=tmp_path, size=32).images
    assert pixels.mean().item() == pytest.approx(124.5 / 255, abs=0.02)
    assert one(found(tmp_path, None), "12 images have 16 bits", f"{top} is taken for white")
    assert BITS[-1] == 16


def test_a_dark_one_among_deep_images_is_named(tmp_path):
    for k, name in enumerate(("a", "b")):
        for i in range(6):
            save(tmp_path / name / f"{i}.png", grain(10 * k + i).astype(np.uint16) * 257)
    save(tmp_path / "a" / "3.png", grain(3).astype(np.uint16) * 16)
    assert one(found(tmp_path, None), "12 images have 16 bits", "1 of them stay below an eighth", "black: a/3.png")


# --- squares -----------------------------------------------------------------------------------------------------


def test_letterbox_keeps_everything_and_its_margins_are_the_mean(tmp_path):
    picture = np.zeros((36, 64, 1), np.float32)
    picture[:, :4] = picture[:, -4:] = 1.0  # what the central square would cut off
    square = fitted(picture, 64, "letterbox")
    assert square.shape == (1, 64, 64)
    assert np.array_equal(square[0, 14:50], picture[..., 0])
    assert np.allclose(square[0, :14], picture.mean())
    assert np.allclose(square[0, 50:], picture.mean())
    stretched = fitted(picture, 64, "stretch")
    assert np.allclose(stretched[0], picture[18, :, 0])
    assert fitted(picture, 36, "crop").max() == 0


@pytest.mark.parametrize("fit", FITS)
@pytest.mark.parametrize("shape", [(1080, 1920), (480, 640), (64, 64), (30, 20), (7, 200)])
def test_no_thin_crack_vanishes(shape, fit):
    """One pixel wide, anywhere that is kept: 13 of 40 masks were empty at 64 pixels."""
    for row in range(0, shape[0], max(1, shape[0] // 9)):
        mask = np.zeros(shape, bool)
        mask[row, shape[1] // 2] = True
        assert fitted_mask(mask, 64, fit).sum() >= (1 if fit != "crop" else 0)
    whole = fitted_mask(np.ones(shape, bool), 64, fit)
    assert whole.all() == (fit != "letterbox" or shape[0] == shape[1])
    assert not fitted_mask(np.zeros(shape, bool), 64, fit).any()


def test_what_the_central_square_loses_is_counted(tmp_path):
    folder = make(tmp_path, masks=False)
    for i in range(10):  # 24 × 32: the square keeps columns 4 … 27
        mask = np.zeros((24, 32), np.uint8)
        mask[:, 2 if i < 4 else 10] = 255
        save(folder / "masks/crack" / f"{i:02d}.png", mask)
    text = one(found(folder, fit="crop"), "the central square cuts 40% of the marked area off")
    assert "all of it in 4 images: crack/00.png" in text
    assert "-p square letterbox keeps all" in text
    assert one(found(folder), "nothing marked is cut off; at 64 px masks cover 3.1% of the picture, 3.1% as they are")
    images = load("folder", folder=folder, masks="masks", size=32)
    assert images.masks[images.labels == 0].any((1, 2)).all()
    assert load("folder", folder=folder, masks="masks", size=32, fit="crop").masks.any((1, 2)).sum() == 6


def test_another_fit_is_named(tmp_path):
    with pytest.raises(ValueError, match="fit is 'pad', expected one of letterbox, stretch, crop"):
        load("folder", folder=make(tmp_path), fit="pad")


# --- files -------------------------------------------------------------------------------------------------------


def test_links_are_followed_and_a_loop_ends(tmp_path):
    make(tmp_path / "far", n=10)
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "sound").symlink_to(tmp_path / "far/sound")
    (folder / "crack").mkdir()
    for path in (tmp_path / "far/crack").iterdir():
        (folder / "crack" / path.name).symlink_to(path)
    (folder / "crack/again").symlink_to(folder)
    here, there = (load("folder", folder=root, size=8) for root in (folder, tmp_path / "far"))
    assert here.ids.tolist() == there.ids.tolist()
    assert torch.equal(here.images, there.images)


def test_images_in_folders_of_a_class_are_its(tmp_path):
    folder = make(tmp_path, masks=False)
    for i in range(5):
        save(folder / "crack/line 2" / f"{i:02d}.png", grain(500 + i))
        save(folder / "masks/crack/line 2" / f"{i:02d}.png", line(i))
        save(folder / "masks/crack" / f"{i:02d}.png", line(i))
        save(folder / "masks/crack" / f"{i + 5:02d}.png", line(i))
    images = load("folder", folder=folder, size=32, masks="masks")
    assert sum(name.startswith("crack/line 2/") for name in images.ids) == 5
    assert images.masks.any((1, 2)).sum() == 15


def test_what_is_no_picture_is_counted_aloud(tmp_path, capsys):
    folder = make(tmp_path)
    for name in ("a.heic", "b.heic", "c.pdf"):
        (folder / "crack" / name).write_bytes(b"?")
    (folder / "notes.txt").write_text("lists and notes are nobody's images")
    load("folder", folder=folder, size=8, masks="masks")
    assert "Look at: 3 files passed over: .heic 2, .pdf 1 → save them as one of .bmp, " in capsys.readouterr().out


@pytest.mark.parametrize("names", [("é.png",), ("Übergang é.png", "ガ.png")])
def test_names_are_one_form_whatever_the_disk_has(tmp_path, names):
    """macOS hands out e + accent where people type é."""
    folder = make(tmp_path, masks=False)
    for i in range(10):
        save(folder / "masks/crack" / f"{i:02d}.png", line(i))
    for i, name in enumerate(names):
        save(folder / "crack" / unicodedata.normalize("NFD", name), grain(700 + i))
        save(folder / "masks/crack" / unicodedata.normalize("NFC", name), line(i))
    images = load("folder", folder=folder, size=32, masks="masks")
    for name in names:
        assert f"crack/{unicodedata.normalize('NFC', name)}" in images.ids.tolist()
    assert images.masks.any((1, 2)).sum() == 10 + len(names)
    save(folder / "crack" / unicodedata.normalize("NFC", names[0]), grain(0))
    with pytest.raises(ValueError, match=r"holds two files called .*, written differently; rename one of them"):
        load("folder", folder=folder, size=8)


@pytest.mark.parametrize(
    "text",
    [
        "file,target\r\r\na.png,1\r\r\nb.png,-2.5\r\r\n",
        "file,target\n\na.png,1\n\n\nb.png,-2.5\n\n",
        "file;target\na.png;1\nb.png;-2,5\n",
        "\ufefffile\ttarget\na.png\t1\nb.png\t-2.5\n",
        " file , target \n a.png , 1 \n b.png , -2.5 \n",
    ],
    ids=["windows twice", "blank lines", "semicolons", "tabs", "blanks"],
)
def test_lists_as_people_write_them(tmp_path, text):
    for name in ("a.png", "b.png"):
        save(tmp_path / name, grain(0))
    (tmp_path / "targets.csv").write_bytes(text.encode())
    survey = survey_targets(tmp_path, "targets.csv", None)
    assert (survey.ids, survey.labels) == (["a.png", "b.png"], [1.0, -2.5])


def test_a_mask_drawn_on_the_stored_pixels_is_turned_with_its_image(tmp_path):
    folder = make(tmp_path)
    stored = np.zeros((24, 32), np.uint8)
    stored[:, 28:] = 255  # at the right as stored; at the bottom as seen
    exif = Image.Exif()
    exif[0x0112] = 6
    save(folder / "crack/00.png", stored, exif=exif)
    save(folder / "masks/crack/00.png", stored)
    images = load("folder", folder=folder, size=32, masks="masks")
    row = images.ids.tolist().index("crack/00.png")
    assert torch.equal(images.masks[row], (images.images[row, 0] > 0.5) & images.masks[row])
    assert images.masks[row][28:, 4:28].all()
    assert not images.masks[row][:28].any()


@pytest.mark.parametrize("turned", [2, 3, 4])
def test_where_the_size_does_not_tell_it_is_said(tmp_path, turned):
    folder = make(tmp_path)
    exif = Image.Exif()
    exif[0x0112] = turned
    save(folder / "crack/00.png", grain(0), exif=exif)
    save(folder / "sound/00.png", grain(1), exif=exif)
    texts = found(folder)
    assert one(texts, "2 images are turned by their EXIF tag, as they are seen: crack/00.png, sound/00.png")
    assert one(texts, "1 of them have masks of which the size does not say", "crack/00.png")


def test_a_flat_folder_of_masks_goes_by_names(tmp_path):
    folder = make(tmp_path, masks=False)
    for i in range(10):
        (folder / f"sound/{i:02d}.png").rename(folder / f"sound/s{i:02d}.png")
        save(folder / "masks" / f"{i:02d}.png", line(i))
    images = load("folder", folder=folder, size=32, masks="masks")
    assert images.masks.any((1, 2)).tolist() == [label == 0 for label in images.labels.tolist()]
    (folder / "masks/03.png").unlink()
    with pytest.raises(ValueError, match=r"image 'crack/03.png' has 0 masks 03\.\* below"):
        load("folder", folder=folder, size=8, masks="masks")


def test_a_flat_folder_of_masks_for_images_of_one_name(tmp_path):
    folder = make(tmp_path, masks=False)
    for i in range(10):
        save(folder / "masks" / f"{i:02d}.png", line(i))
    with pytest.raises(
        ValueError, match=r"'crack/00.png' and 'sound/00.png' have one name: put each mask into the fol"
    ):
        load("folder", folder=folder, size=8, masks="masks")


@pytest.mark.parametrize("n", [1, 4])
def test_a_class_of_hardly_any_images_is_refused(tmp_path, n):
    folder = make(tmp_path, masks=False)
    for i in range(n):
        save(folder / "dent" / f"{i}.png", grain(900 + i))
    with pytest.raises(ValueError, match=rf"in class 'dent': it has {n} images .* Give every class five or more"):
        load("folder", folder=folder)


def test_the_same_folder_serves_every_paper(tmp_path):
    """Classes, masks and targets beside each other: each loader takes its own, and says what it leaves."""
    folder = make(tmp_path)
    names = [f"{kind}/{i:02d}.png" for kind in ("crack", "sound") for i in range(10)]
    (folder / "targets.csv").write_text("file,target\n" + "".join(f"{name},{i}\n" for i, name in enumerate(names)))
    for masks in (None, "masks"):
        classes = load("folder", folder=folder, size=8, masks=masks)
        assert classes.class_names == ("crack", "sound")
        assert len(classes) == 20
    targets = load("target_folder", folder=folder, size=8)
    assert sorted(targets.ids.tolist()) == sorted(names)
    assert one(found(folder, None), "folder masks/ holds masks by its names", "and is no class", "-p masks masks")
    assert one(found(folder, None, paper="2"), "folder masks/ holds masks by its names", "-p masks masks")


def test_a_class_may_be_called_as_masks_are(tmp_path):
    folder = make(tmp_path, classes=("labels", "masks"), masks=False)
    for i in range(10):
        (folder / f"masks/{i:02d}.png").rename(folder / f"masks/other {i:02d}.png")
    assert load("folder", folder=folder, size=8).class_names == ("labels", "masks")


def test_a_folder_of_lists_is_no_class(tmp_path):
    folder = make(tmp_path, masks=False)
    (folder / "annotations").mkdir()
    (folder / "annotations/00.xml").write_text("<annotation/>")
    assert load("folder", folder=folder, size=8).class_names == ("crack", "sound")
    assert one(found(folder, None), "folder annotations/ holds no images, only 00.xml")
    (folder / "annotations/00.xml").rename(folder / "annotations/00.heic")
    with pytest.raises(ValueError, match=r"class folder .*annotations holds no images"):
        load("folder", folder=folder, size=8)


@pytest.mark.parametrize("name", ["folder", "target_folder"])
def test_no_folder_is_not_the_repository(name):
    with pytest.raises(ValueError, match="folder is empty: name the folder of your images, such as -p folder"):
        load(name, folder="")


def test_all_faulty_files_are_named_at_once(tmp_path):
    folder = make(tmp_path)
    for name in ("crack/01.png", "sound/02.png"):
        (folder / name).write_bytes(b"no picture")
    save(folder / "masks/crack/03.png", line(3)[:9])
    with pytest.raises(
        ValueError, match=r"(?s)crack/01\.png cannot.*sound/02\.png cannot.*03\.png has \(32, 9\) pixels"
    ):
        load("folder", folder=folder, masks="masks")


# --- groups ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rule", ["prefix:3", r"/(\w{3})_", r"p\d\d", "groups.csv"])
def test_rules_for_groups(tmp_path, rule):
    ids = [f"{kind}/p{i // 3:02d}_{i}.png" for kind in ("crack", "sound") for i in range(12)]
    (tmp_path / "groups.csv").write_text("file,group\n" + "".join(f"{n},{n.split('/')[1][:3]}\n" for n in ids))
    assert groups_of(rule, ids, tmp_path).tolist() == [name.split("/")[1][:3] for name in ids]
    assert groups_of("", ids, tmp_path) is None


@pytest.mark.parametrize(
    ("rule", "text"),
    [
        ("prefix:0", "groups is 'prefix:0', expected 'prefix:N'"),
        ("prefix:", "groups is 'prefix:', expected 'prefix:N'"),
        ("(", r"groups is '\(', no regular expression"),
        ("x9", r"groups: 'x9' finds nothing in 1 of 1 paths, 'a/b\.png'"),
        ("lacking.csv", r"groups: .*lacking\.csv does not exist; expected 'prefix:N'"),
        ("part.csv", r"part\.csv: 1 images have no group, 'a/b\.png' among them"),
        ("other.csv", r"other\.csv: the header is 'name,group', expected file,group"),
    ],
)
def test_a_rule_that_does_not_fit_is_named(tmp_path, rule, text):
    (tmp_path / "part.csv").write_text("file,group\n")
    (tmp_path / "other.csv").write_text("name,group\na/b.png,1\n")
    with pytest.raises(ValueError, match=text):
        groups_of(rule, ["a/b.png"], tmp_path)


@pytest.mark.parametrize("seed", range(5))
def test_a_split_divides_no_group_and_every_class_is_everywhere(seed):
    rng = np.random.default_rng(seed)
    sizes = rng.integers(1, 9, 60)
    groups = np.repeat([f"g{i}" for i in range(60)], sizes).tolist()
    labels = np.repeat(np.arange(60) % 3, sizes).tolist()
    split = grouped_split(labels, groups, seed=seed)
    assert divided(split.tolist(), groups) == []
    for label in range(3):
        shares = {part: (split[np.array(labels) == label] == part).mean() for part in ("train", "val", "test")}
        assert shares == pytest.approx({"train": 0.7, "val": 0.1, "test": 0.2}, abs=0.09)
    order = rng.permutation(len(groups))
    again = grouped_split([labels[i] for i in order], [groups[i] for i in order], seed=seed)
    assert again.tolist() == split[order].tolist()


def test_the_order_of_the_images_moves_none_into_another_split():
    """Also where a group has as many images of one class as of another."""
    labels, groups = [0, 1] * 20 + [0, 0] * 20, [f"g{i // 2}" for i in range(80)]
    straight = grouped_split(labels, groups, seed=1)
    assert grouped_split(labels[::-1], groups[::-1], seed=1)[::-1].tolist() == straight.tolist()


def test_groups_hold_for_both_kinds_of_folders(tmp_path):
    folder = make(tmp_path, n=20)
    (folder / "targets.csv").write_text(
        "file,target\n" + "".join(f"{kind}/{i:02d}.png,{i}\n" for kind in ("crack", "sound") for i in range(20))
    )
    for name in ("folder", "target_folder"):
        images = load(name, folder=folder, size=8, groups=r"/(\d\d)")  # one of each class in a group
        assert sorted(set(images.groups)) == [f"{i:02d}" for i in range(20)]
        assert divided(images.split.tolist(), images.groups.tolist()) == []
        assert {part: (images.split == part).sum() for part in ("train", "val", "test")}["test"] == 8
        assert divided(load(name, folder=folder, size=8).split.tolist(), images.groups.tolist()) != []


def test_splits_of_your_own_that_divide_a_group_are_refused(tmp_path):
    for part in ("train", "val", "test"):
        make(tmp_path / part, masks=False, n=3)
    with pytest.raises(
        ValueError, match=r"3 of 3 groups have images in more than one of train, val and test \(00, 01, 02"
    ):
        load("folder", folder=tmp_path, size=8, groups="prefix:2")


def test_too_few_groups_are_refused(tmp_path):
    with pytest.raises(
        ValueError, match=r"in class 'crack': it has 1 groups of images .* Give every class three or more"
    ):
        load("folder", folder=make(tmp_path), size=8, groups="prefix:1")


# --- copies ------------------------------------------------------------------------------------------------------


def test_exact_copies_are_found_across_splits_and_classes(tmp_path):
    for k, part in enumerate(("train", "val", "test")):
        for c, kind in enumerate(("crack", "sound")):
            for i in range(4):
                save(tmp_path / part / kind / f"{i}.png", grain(100 * k + 10 * c + i))
    save(tmp_path / "test/crack/0.png", grain(0))  # train/crack/0.png
    save(tmp_path / "val/sound/0.png", grain(1))  # train/crack/1.png, of another class
    text = one(found(tmp_path, None), "4 images are exact copies")
    assert "copies in more than one of train, val and test: 2 times" in text
    assert "copies with more than one class: train/crack/1.png = val/sound/0.png" in text


def changed(i, how):
    smooth = ndimage.gaussian_filter(np.random.default_rng(i).normal(0, 1, (96, 128)), 3)
    picture = Image.fromarray(np.clip(128 + 300 * smooth, 0, 255).astype(np.uint8))
    if how == "darker":
        return picture.point(lambda value: 0.8 * value + 5)
    if how == "smaller":
        return picture.resize((96, 72))
    if how == "shifted":
        return picture.crop((1, 1, 128, 96))
    return picture


@pytest.mark.parametrize("how", ["darker", "smaller", "shifted", "coded again"])
def test_images_that_are_nearly_the_same_are_found(how):
    plain = [fingerprint(changed(i, "")) for i in range(40)]
    other = [fingerprint(changed(i, how)) for i in range(0, 40, 10)]
    pairs = nearly_equal(np.stack(plain + other))
    assert pairs == [(10 * k, 40 + k) for k in range(4)]


def test_copies_are_found_across_blocks(monkeypatch):
    monkeypatch.setattr("xai_utils.data.grouping._BLOCK", 3)
    prints = np.stack([fingerprint(changed(i % 7, "")) for i in range(10)])
    assert nearly_equal(prints) == [(0, 7), (1, 8), (2, 9)]


def test_flat_pictures_are_like_none():
    prints = [fingerprint(Image.new("L", (30, 30), value)) for value in (0, 0, 80, 255)]
    assert nearly_equal(np.stack(prints)) == []


def test_near_copies_on_both_sides_of_a_split_are_told_unless_groups_are_given(tmp_path):
    for i in range(20):
        for k, kind in enumerate(("crack", "sound")):
            (tmp_path / kind).mkdir(exist_ok=True)
            changed(100 * k + i // 2, "darker" if i % 2 else "").save(
                tmp_path / kind / f"{i // 2:02d}_{i % 2}.jpg", quality=80
            )
    text = one(found(tmp_path, None), "40 images look nearly like another, crack/00_0.jpg ≈ crack/00_1.jpg")
    split, _ = split_of(survey_classes(tmp_path, None), "", 0)
    ids = load("folder", folder=tmp_path, size=8).ids.tolist()
    of = dict(zip(ids, split))
    leaked = sum(
        of[n] == "test" != of[n.replace("_0.", "_x.").replace("_1.", "_0.").replace("_x.", "_1.")] for n in ids
    )
    assert f"{leaked} test images look nearly like one of train or val" in text
    assert leaked > 0
    texts = found(tmp_path, None, groups="prefix:2")
    assert one(texts, "10 groups of images, none in two of train, val and test")
    assert not [text for text in texts if "nearly" in text]


def test_without_groups_it_is_said_what_cannot_be_known(tmp_path):
    assert one(found(make(tmp_path)), "no groups are given and no two images look nearly alike", "is not known here")


# --- masks -------------------------------------------------------------------------------------------------------


def test_masks_that_mark_nothing_or_everything_are_named(tmp_path):
    folder = make(tmp_path)
    save(folder / "masks/crack/02.png", np.zeros((24, 32), np.uint8))
    save(folder / "masks/crack/04.png", np.full((24, 32), 255, np.uint8))
    texts = found(folder)
    assert one(texts, "1 masks mark nothing: crack/02.png")
    assert one(texts, "1 masks mark the whole image: crack/04.png")
    table = check_folder(str(folder), masks="masks").table
    assert table.loc["crack", ["train", "val", "test", "all", "masks", "empty"]].tolist() == [7, 1, 2, 10, 10, 1]
    assert table.loc["sound", ["all", "masks"]].tolist() == [10, 0]
    assert table.loc["sound", "width × height"] == "32×24 (10)"


def test_masks_the_wrong_way_round_are_suspected(tmp_path):
    folder = make(tmp_path)
    for i in range(10):
        save(folder / "masks/crack" / f"{i:02d}.png", 255 - line(i))
    assert one(found(folder), "half of the masks mark more than 98% of their image", "the other way round?")


# --- what a paper asks for ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("classes", [("a", "b", "c", "d", "e", "f"), ("hole", "sound"), ("crack", "hole", "sound")])
def test_paper_5_refuses_other_classes_before_it_trains(tmp_path, classes):
    folder = make(tmp_path, classes=classes, masks=False)
    text = rf"has {len(classes)} classes \(.*\), expected two: crack/ and one other. Rename the folder"
    with pytest.raises(ValueError, match=text):
        load("folder", folder=folder, needs="crack")
    assert one(found(folder, None, paper="5"), "expected two: crack/ and one other")
    assert found(folder, None, paper="05_lrp_bn") == found(folder, None, paper="5")


def test_papers_2_3_and_4_say_what_they_miss(tmp_path):
    folder = make(tmp_path, masks=False)
    assert one(found(folder, None, paper="3"), "classes without a defect, by their names: sound", '-p normal ""')
    assert one(found(folder, None, paper="4"), "fewer than 30 training images", "crack, sound", "-p per_class 0")
    assert one(found(folder, None, paper="2"), "targets", "do not exist: write a CSV file with the header file,target")
    with pytest.raises(ValueError, match="paper is '7', expected 1 to 5"):
        check_folder(str(folder), paper="7")


@pytest.mark.parametrize(("sign", "lacking"), [(1, "negative"), (-1, "positive")])
def test_targets_of_one_sign_are_no_fault_but_told(tmp_path, sign, lacking):
    for i in range(10):
        save(tmp_path / f"{i}.png", grain(i))
    (tmp_path / "targets.csv").write_text("file,target\n" + "".join(f"{i}.png,{sign * (i + 1)}\n" for i in range(10)))
    checked = check_folder(str(tmp_path))
    assert one([str(f) for f in checked.findings], f"no target is {lacking}", "not defined")
    assert checked.refused == []
    (tmp_path / "targets.csv").write_text("file,target\n" + "".join(f"{i}.png,3\n" for i in range(10)))
    with pytest.raises(ValueError, match="all targets are 3: there is nothing to learn"):
        load("target_folder", folder=tmp_path, size=8)


def test_a_shape_that_tells_the_class_is_told(tmp_path):
    for i in range(10):
        save(tmp_path / "a" / f"{i}.png", grain(i, 24, 32))
        save(tmp_path / "b" / f"{i}.png", grain(100 + i, 32, 24))
    assert one(found(tmp_path, None), "the shape of an image (width / height) tells its class 100% of the time")


# --- the command -------------------------------------------------------------------------------------------------


def test_the_command_prints_the_table_and_its_status_says_whether_a_run_would_stop(tmp_path, capsys, monkeypatch):
    folder = make(tmp_path / "mine")
    monkeypatch.chdir(tmp_path)
    assert main(["check", "mine", "--masks", "masks", "--for", "5", "--group-by", "prefix:2"]) == 0
    said = capsys.readouterr().out
    assert re.search(r"^crack +7 +1 +2 +10 +10 +0 +32×24 \(10\)$", said, re.MULTILINE)
    assert "Note: 10 groups of images, none in two of train, val and test" in said
    (folder / "masks/crack/03.png").unlink()
    assert main(["check", "mine", "--masks", "masks"]) == 1
    said = capsys.readouterr().out
    assert re.search(r"^crack +7 +1 +2 +10 +32×24 \(10\)$", said, re.MULTILINE)  # the table is there all the same
    assert "Refused: image 'crack/03.png' has 0 masks crack/03.* below" in said
    assert said.count("\n-p NAME VALUE is written after notebooks/run; this check takes --masks, --group-by") == 1
    assert main(["check", "gone"]) == 1
    assert "image folder" in capsys.readouterr().err


def test_a_loader_prints_what_the_command_does(tmp_path, capsys):
    folder = make(tmp_path)
    load("folder", folder=folder, masks="masks", size=64)
    printed = capsys.readouterr().out.rstrip()
    assert printed == str(check_folder(str(folder), masks="masks", size=64))
    survey = survey_classes(folder, "masks")
    assert str(check(survey, split_of(survey, "", 0)[0].tolist(), None)) == printed
