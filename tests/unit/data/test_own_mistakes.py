"""Folders as people have them: laid out, named, listed or asked for in another way than the suite expects."""

import re
import shutil
import unicodedata
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image
from test_own_folder import found, grain, line, make, one, save

from xai_utils.data import load
from xai_utils.data.grouping import groups_of
from xai_utils.data.own import SIDES, check_folder
from xai_utils.data.surveys import survey_classes

ROOT = Path(__file__).parents[3]


def ids(folder, masks=None):
    return survey_classes(folder, masks).ids


def move(folder, pattern, to):
    """Move what fits a pattern; `to` makes the new path below the folder of the old one."""
    for path in sorted(folder.glob(pattern)):
        target = folder / to(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        path.rename(target)


# --- masks where images are expected ---------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["masks", "Mask", "ground_truth", "gt", "labels"])
def test_masks_below_their_class_are_no_images_of_it(tmp_path, name):
    folder = make(tmp_path)
    move(folder, "masks/crack/*.png", lambda path: f"crack/{name}/{path.name}")
    (folder / "masks/crack").rmdir()
    (folder / "masks").rmdir()
    assert len(ids(folder)) == 20
    assert not any(name in path for path in ids(folder))
    assert one(found(folder, None), "10 files below crack/ are masks by their names", f"crack/{name}/00.png")


def test_masks_and_images_in_two_folders_of_each_class(tmp_path):
    folder = make(tmp_path)
    move(folder, "masks/crack/*.png", lambda path: f"crack/masks/{path.name}")
    move(folder, "crack/*.png", lambda path: f"crack/images/{path.name}")
    (folder / "masks/crack").rmdir()
    (folder / "masks").rmdir()
    assert sorted(ids(folder))[:2] == ["crack/images/00.png", "crack/images/01.png"]
    assert len(ids(folder)) == 20
    advice = one(found(folder, None), "10 files below crack/", "move each to <masks>/<path of its image>")
    move(folder, "crack/masks/*.png", lambda path: f"masks/crack/images/{path.name}")
    (folder / "crack/masks").rmdir()
    assert advice.endswith("pass -p masks <masks>")
    assert load("folder", folder=folder, size=16, masks="masks").masks.any((1, 2)).sum() == 10


def test_a_folder_of_a_class_that_holds_other_images_is_read(tmp_path):
    folder = make(tmp_path, masks=False)
    for i in range(10):
        save(folder / f"crack/labels/parcel {i}.png", grain(500 + i))
    assert len(ids(folder)) == 30


ENDINGS = ["_mask", "-mask", "_gt", "_label", "_seg", ".mask", "_GT", " mask", "_mask_1", "_mask2"]


@pytest.mark.parametrize("ending", ENDINGS)
def test_masks_beside_their_images_are_no_images(tmp_path, ending):
    folder = make(tmp_path)
    move(folder, "masks/crack/*.png", lambda path: f"crack/{path.stem}{ending}.png")
    (folder / "masks/crack").rmdir()
    (folder / "masks").rmdir()
    assert len(ids(folder)) == 20
    assert one(found(folder, None), "10 files below crack/ are masks by their names", f"crack/00{ending}.png")


@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize("place", ["masks/crack", "masks", "crack/masks"])
def test_masks_called_after_their_images_are_found_wherever_they_lie(tmp_path, ending, place):
    folder = make(tmp_path)
    move(folder, "sound/*.png", lambda path: f"sound/s{path.name}")
    move(folder, "masks/crack/*.png", lambda path: f"{place}/{path.stem}{ending}.png")
    if place != "masks/crack":
        (folder / "masks/crack").rmdir()
    if place == "crack/masks":
        (folder / "masks").rmdir()
        assert len(ids(folder)) == 20
        return
    assert survey_classes(folder, None).class_names == ("crack", "sound")
    assert load("folder", folder=folder, size=16, masks="masks").masks.any((1, 2)).sum() == 10
    (folder / place / "00.png").write_bytes((folder / place / f"00{ending}.png").read_bytes())
    with pytest.raises(ValueError, match="belongs to no image"):
        load("folder", folder=folder, size=16, masks="masks")


def test_defects_of_mvtec_as_three_folders(tmp_path):
    for kind, ending in (("good", ""), ("hole", ""), ("ground_truth/hole", "_mask")):
        for i in range(10):
            save(tmp_path / kind / f"{i:03d}{ending}.png", line(i) if ending else grain(i + 50 * (kind == "hole")))
    assert survey_classes(tmp_path, None).class_names == ("good", "hole")
    assert load("folder", folder=tmp_path, size=16, masks="ground_truth").masks.any((1, 2)).sum() == 10


def test_a_name_that_ends_so_without_its_image_is_an_image(tmp_path):
    folder = make(tmp_path, masks=False)
    save(folder / "crack/face_mask.png", grain(500))
    assert "crack/face_mask.png" in ids(folder)


def test_a_png_beside_each_jpeg_of_its_name_is_asked_about(tmp_path):
    """As the magnetic tiles are laid out where they come from."""
    folder = make(tmp_path, suffix="jpg")
    move(folder, "masks/crack/*.png", lambda path: f"crack/{path.name}")
    (folder / "masks/crack").rmdir()
    (folder / "masks").rmdir()
    with pytest.raises(ValueError, match=r"crack holds 10 pairs of images of one name, 00\.jpg and 00\.png for"):
        load("folder", folder=folder, size=8)
    assert one(found(folder, None), "10 pairs of images of one name", "<masks>/<path of its image>")


def test_a_few_images_of_one_name_are_told_and_read(tmp_path):
    folder = make(tmp_path, masks=False)
    for i in range(2):
        save(folder / f"crack/{i:02d}.jpg", grain(500 + i))
    assert len(ids(folder)) == 22
    assert one(found(folder, None), "crack/ holds 2 pairs of images of one name", "00.jpg and 00.png")


@pytest.mark.parametrize("flat", [True, False])
def test_a_mask_too_many_makes_no_class_of_the_masks(tmp_path, flat):
    folder = make(tmp_path)
    if flat:
        move(folder, "sound/*.png", lambda path: f"sound/s{path.name}")
        move(folder, "masks/crack/*.png", lambda path: f"masks/{path.name}")
        (folder / "masks/crack").rmdir()
    save(folder / ("masks/99.png" if flat else "masks/crack/99.png"), line(0))
    assert survey_classes(folder, None).class_names == ("crack", "sound")
    text = one(found(folder, None), "folder masks/ holds masks by its names", "and is no class")
    assert "1 of its 11 files belong to no image" in text
    assert text.endswith("to use them: -p masks masks")
    assert "99.png belongs to no image" in one(found(folder), "belongs to no image")


@pytest.mark.parametrize("drawn", [False, True])
def test_a_class_of_masked_faces_is_one_unless_its_files_look_like_masks(tmp_path, drawn):
    for kind in ("mask", "no_mask"):
        for i in range(20):
            save(
                tmp_path / kind / f"{i}.png", line(i) if drawn and kind == "mask" else grain(i + 100 * (kind == "mask"))
            )
    if drawn:
        with pytest.raises(ValueError, match=r"1 class folders \(no_mask\).*folder mask/ .*if it is one, rename it"):
            survey_classes(tmp_path, None)
    else:
        assert survey_classes(tmp_path, None).class_names == ("mask", "no_mask")


def test_photographs_of_labels_are_no_masks(tmp_path):
    folder = make(tmp_path, masks=False)
    for i in range(10):
        save(folder / f"crack/{i:02d}_label.png", grain(500 + i))
        save(folder / f"sound/labels/{i:02d}.png", grain(600 + i))
    assert len(ids(folder)) == 40


@pytest.mark.parametrize("place", ["Label", "seg", "GT_masks", "SegmentationClass", "annotation"])
def test_masks_of_other_words_are_found_by_their_values(tmp_path, place):
    folder = make(tmp_path)
    move(folder, "masks/crack/*.png", lambda path: f"crack/{place}/{path.name}")
    (folder / "masks/crack").rmdir()
    (folder / "masks").rmdir()
    assert len(ids(folder)) == 20


def test_what_looks_like_masks_whatever_its_name_is_told(tmp_path):
    folder = make(tmp_path)
    move(folder, "masks/crack/*.png", lambda path: f"crack/x{path.name}")
    (folder / "masks/crack").rmdir()
    (folder / "masks").rmdir()
    assert one(found(folder, None), "10 images hold a few values only, as masks do: crack/x00.png", "if they are masks")
    drawings = make(tmp_path / "drawings", masks=False)
    for path in drawings.glob("*/*.png"):
        save(path, line(int(path.stem)))
    assert not [text for text in found(drawings, None) if "a few values" in text]


def test_masks_in_the_folders_of_splits_are_no_class(tmp_path):
    for part, n in (("train", 6), ("val", 2), ("test", 2)):
        for i in range(n):
            for kind in ("crack", "sound"):
                save(tmp_path / part / kind / f"{i}.png", grain(i + 10 * len(part) + 100 * len(kind)))
            save(tmp_path / part / "masks/crack" / f"{i}.png", line(i))
    assert survey_classes(tmp_path, None).class_names == ("crack", "sound")
    text = one(found(tmp_path, None), "folder train/masks/ holds masks by its names")
    assert text.endswith("move it to masks/train/ beside train, and pass -p masks masks")
    for part in ("train", "val", "test"):
        target = tmp_path / "masks" / part
        target.parent.mkdir(exist_ok=True)
        (tmp_path / part / "masks").rename(target)
    assert load("folder", folder=tmp_path, size=16, masks="masks").masks.any((1, 2)).sum() == 10


def test_names_of_masks_and_classes_may_be_written_in_two_forms(tmp_path):
    """As a disk of a Mac writes them: ö as two characters."""
    apart = unicodedata.normalize("NFD", "Öl")
    for i in range(10):
        save(tmp_path / apart / f"{i}.png", grain(i))
        save(tmp_path / "sound" / f"{i}.png", grain(50 + i))
        save(tmp_path / unicodedata.normalize("NFD", "für masken") / apart / f"{i}.png", line(i))
    images = load("folder", folder=tmp_path, size=16, masks=unicodedata.normalize("NFC", "für masken"))
    assert images.masks.any((1, 2)).sum() == 10


def test_folders_of_images_and_of_masks_above_the_classes(tmp_path):
    folder = make(tmp_path)
    for name in ("crack", "sound"):
        (folder / name).rename(folder / name.upper())
    for name in ("crack", "sound"):
        (folder / "images").mkdir(exist_ok=True)
        (folder / name.upper()).rename(folder / "images" / name)
    with pytest.raises(ValueError, match=r"1 class folders \(images\), expected two .*did you mean .*/images, masks"):
        load("folder", folder=folder)


def test_a_refusal_of_the_masks_is_not_followed_by_advice_to_use_them(tmp_path):
    folder = make(tmp_path)
    (folder / "masks/crack/03.png").unlink()
    findings = found(folder)
    assert one(findings, "image 'crack/03.png' has 0 masks")
    assert not [text for text in findings if "to use them" in text]


def test_one_folder_with_masks_of_one_class_serves_the_regression_too(tmp_path):
    folder = make(tmp_path)
    names = [f"{kind}/{i:02d}.png" for kind in ("crack", "sound") for i in range(10)]
    (folder / "targets.csv").write_text("file,target\n" + "".join(f"{n},{i / 10 - 1}\n" for i, n in enumerate(names)))
    images = load("target_folder", folder=folder, size=16, masks="masks")
    assert images.masks.any((1, 2)).tolist() == [name.startswith("crack") for name in images.ids]
    (folder / "masks/crack/03.png").unlink()
    with pytest.raises(ValueError, match=r"image 'crack/03\.png' has 0 masks"):
        load("target_folder", folder=folder, size=16, masks="masks")


# --- splits ----------------------------------------------------------------------------------------------------------


def split_up(folder, names):
    make(folder, masks=False)
    for part, name in zip(("train", "val", "test"), names, strict=True):
        for kind in ("crack", "sound"):
            start, stop = {"train": (0, 6), "val": (6, 8), "test": (8, 10)}[part]
            for i in range(start, stop):
                target = folder / name / kind / f"{i:02d}.png"
                target.parent.mkdir(parents=True, exist_ok=True)
                (folder / kind / f"{i:02d}.png").rename(target)
    for kind in ("crack", "sound"):
        (folder / kind).rmdir()
    return folder


@pytest.mark.parametrize(
    "names",
    [
        ("Train", "Val", "Test"),
        ("training", "validation", "testing"),
        ("train", "valid", "test"),
        ("TRAIN", "dev", "test"),
        ("training_set", "val_set", "test_set"),
        ("seg_train", "seg_val", "seg_test"),
        ("train2017", "val2017", "test2017"),
    ],
)
def test_splits_of_other_names_are_no_classes(tmp_path, names):
    folder = split_up(tmp_path, names)
    wrong = [f"{name} → {part}" for name, part in zip(names, ("train", "val", "test"), strict=True) if name != part]
    with pytest.raises(ValueError, match="are splits by their names") as refusal:
        load("folder", folder=folder)
    assert all(text in str(refusal.value) for text in wrong)


def test_a_class_may_be_called_as_a_split(tmp_path):
    folder = make(tmp_path, classes=("Test", "valid"), masks=False)
    assert survey_classes(folder, None).class_names == ("Test", "valid")


@pytest.mark.parametrize("names", [("bus", "train"), ("control", "test"), ("valid", "invalid")])
def test_a_class_may_have_the_very_name_of_a_split(tmp_path, names):
    assert survey_classes(make(tmp_path, classes=names, masks=False), None).class_names == tuple(sorted(names))


def test_splits_without_classes_are_named(tmp_path):
    with pytest.raises(ValueError, match=r"test and train hold images and no class folders; expected one folder"):
        survey_classes(make(tmp_path, classes=("train", "test"), masks=False), None)


def test_without_validation_images_the_remedy_is_to_make_some(tmp_path):
    folder = split_up(tmp_path, ("train", "val", "test"))
    shutil.rmtree(folder / "val")
    with pytest.raises(ValueError, match=r"no images for val .*Make the folder val of some of train's images, or join"):
        load("folder", folder=folder, size=8)


@pytest.mark.parametrize("names", [("fold1", "fold2"), ("訓練", "テスト")])
def test_folds_that_hold_the_same_classes_are_told(tmp_path, names):
    for name in names:
        make(tmp_path / name, masks=False)
    assert one(found(tmp_path, None), "all hold the folders crack, sound: if these are the classes, join the folders")


def test_what_systems_leave_behind_is_no_class_and_no_file(tmp_path):
    folder = make(tmp_path, masks=False)
    (folder / "__MACOSX").mkdir()
    (folder / "crack/Thumbs.db").write_bytes(b"x")
    assert survey_classes(folder, None).class_names == ("crack", "sound")
    assert not [text for text in found(folder, None) if "passed over" in text]


def test_a_list_of_groups_that_nobody_named_is_told(tmp_path):
    folder = make(tmp_path, masks=False)
    (folder / "groups.csv").write_text("file,group\n")
    assert one(found(folder, None), "groups.csv is there and is not used", "-p group_by groups.csv")
    assert not [text for text in found(folder, None, groups="prefix=3") if "classes without images" in text]


def test_a_train_may_be_a_vehicle(tmp_path):
    folder = make(tmp_path, classes=("Bus", "Train"), masks=False)
    move(folder, "Train/*.png", lambda path: f"Train/fast/{path.name}")
    assert survey_classes(folder, None).class_names == ("Bus", "Train")


def test_another_folder_beside_splits_is_no_split_of_another_name(tmp_path):
    folder = split_up(tmp_path, ("train", "val", "test"))
    save(folder / "dev/notes/1.png", grain(1))
    assert one(found(folder, None), "folders beside train and val and test are not read: dev")


def test_training_on_one_class_alone_is_named_as_what_it_is(tmp_path):
    """MVTec AD as unpacked."""
    for part, kind in [("train", "good"), ("test", "good"), ("test", "hole"), ("ground_truth", "hole")]:
        for i in range(6):
            save(tmp_path / part / kind / f"{i:03d}{'_mask' * (part == 'ground_truth')}.png", grain(i))
    with pytest.raises(ValueError, match=r"class 'hole' has no folder in .*/train: ") as refusal:
        load("folder", folder=tmp_path)
    assert "without the folders train and test" in str(refusal.value)
    assert not (tmp_path / "train/hole").exists()
    assert "/train/hole" not in str(refusal.value)


# --- lists and rules -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("lines", "text"),
    [
        (["crack/00.png,a", "crack/00.png,b"], r"line 3: 'crack/00\.png' has a group already"),
        (["crack/00.png,"], r"line 2: 'crack/00\.png' has no group; give it one"),
        (["crack/00.png,a", "crack/nowhere.png,b"], r"line 3: 'crack/nowhere\.png' is no image of this set"),
    ],
)
def test_a_list_of_groups_is_read_as_strictly_as_one_of_targets(tmp_path, lines, text):
    (tmp_path / "groups.csv").write_text("file,group\n" + "\n".join(lines) + "\n")
    with pytest.raises(ValueError, match=text):
        groups_of("groups.csv", ["crack/00.png"], tmp_path)


@pytest.mark.parametrize("rule", ["prefix=3", "prefix 3", "prefix-3", "prefix3", "prefix:", "prefix:0"])
def test_a_rule_that_is_nearly_a_prefix_is_no_expression(tmp_path, rule):
    with pytest.raises(ValueError, match=rf"groups is '{re.escape(rule)}', expected 'prefix:N'"):
        groups_of(rule, ["crack/prefix 3 prefix=3 prefix-3 prefix3 prefix: prefix:0.png"], tmp_path)


def test_a_rule_by_which_each_image_is_a_group_is_told(tmp_path):
    folder = make(tmp_path, masks=False)
    for i in range(10):
        (folder / f"sound/{i:02d}.png").rename(folder / f"sound/s{i:02d}.png")
    assert one(found(folder, None, groups="prefix:99"), "each image is a group of its own by the rule")
    assert one(found(folder, None, groups="prefix:99"), "no two images look nearly alike")  # looked for all the same
    assert not [text for text in found(folder, None, groups="prefix:1") if "of its own" in text]


# --- what the check lets pass, a run takes ---------------------------------------------------------------------------


def test_a_folder_of_good_parts_alone_is_refused_for_paper_3(tmp_path):
    folder = make(tmp_path, classes=("good", "ok"), masks=False)
    assert any(
        "all classes (good, ok) are without a defect" in str(f) for f in check_folder(str(folder), paper="3").refused
    )
    assert not check_folder(str(folder), paper="4").refused


def test_what_a_notebook_has_no_parameter_for_is_refused(tmp_path):
    folder = make(tmp_path)
    (folder / "labels.csv").write_text("file,target\n" + "".join(
        f"{kind}/{i:02d}.png,{i / 10 - 0.5}\n" for kind in ("crack", "sound") for i in range(10)))  # fmt: skip
    said = check_folder(str(folder), targets="labels.csv", masks=None, paper="2").refused
    assert ["reads its targets from targets.csv" in str(f) for f in said] == [True]
    for paper in "1345":
        refused = " ".join(map(str, check_folder(str(folder), targets="labels.csv", paper=paper).refused))
        assert f"paper {paper} takes one folder for each class, and no list of targets (labels.csv)" in refused
        assert "are without a defect" not in refused
    assert "the notebooks take images of 1 to 1024 pixels" in str(check_folder(str(folder), size=2000).refused[0])
    assert "takes no masks" in str(check_folder(str(folder), masks="masks", paper="1").refused[0])
    assert "takes images of 28 pixels" in str(check_folder(str(folder), paper="1", size=64).refused[0])


@pytest.mark.parametrize("number", sorted(SIDES))
def test_sizes_are_those_that_the_notebook_takes(tmp_path, number):
    name = next((ROOT / "notebooks/parameters").glob(f"{number:02d}_*.yaml"))
    known = yaml.safe_load(name.read_text(encoding="utf-8"))
    assert SIDES[number] == ((known["size"]["minimum"], known["size"]["maximum"]) if "size" in known else (28, 28))
    folder = make(tmp_path, masks=False)
    if number == 2:
        (folder / "targets.csv").write_text("file,target\n" + "".join(
            f"{kind}/{i:02d}.png,{i / 10 - 0.5}\n" for kind in ("crack", "sound") for i in range(10)))  # fmt: skip
    least, most = SIDES[number]
    for size in (least - 1, most + 1):
        assert f"size is {size} pixels" in str(check_folder(str(folder), paper=str(number), size=size).refused[0])
    for size in {least, min(most, 64)}:
        assert not check_folder(str(folder), paper=str(number), size=size).refused


@pytest.mark.parametrize("paper", [None, "3", "2"])
def test_images_in_no_folder_are_answered_by_what_was_asked(tmp_path, paper):
    for i in range(10):
        save(tmp_path / f"{i:02d}.png", grain(i))
    text = " ".join(str(f) for f in check_folder(str(tmp_path), paper=paper).refused)
    assert ("one folder for each class" in text) == (paper != "2")
    assert ("file,target" in text) == (paper != "3")


@pytest.mark.parametrize("side", [1, 2, 3])
def test_specks_are_refused_by_name(tmp_path, side):
    folder = make(tmp_path, masks=False)
    save(folder / "sound/dot.png", grain(7, side, 30))
    with pytest.raises(ValueError, match=r"1 images have fewer than 4 pixels on a side: sound/dot\.png"):
        load("folder", folder=folder, size=16)


@pytest.mark.parametrize(
    ("low", "high", "remedy"),
    [
        (20, 979, "divide them by 979"),
        (290, 310, "take 300 off them in the list, then divide them by 10"),
        (-0.001, 0.0005, "divide them by 0.001"),
        (-2, 2, None),
        (0, 1, None),
        (-9999, 1, "if it marks a missing value, take the image out"),
    ],
)
def test_targets_far_from_one_are_told(tmp_path, low, high, remedy):
    for i in range(40):
        save(tmp_path / f"{i:02d}.png", grain(i))
    values = np.linspace(low, high, 40) if low > -9000 else np.r_[low, np.linspace(0, high, 39)]
    (tmp_path / "targets.csv").write_text(
        "file,target\n" + "".join(f"{i:02d}.png,{v!r}\n" for i, v in enumerate(values.tolist()))
    )
    said = [text for text in found(tmp_path, None, paper="2") if "networks start" in text or "stands alone" in text]
    assert [text.partition(" → ")[2] for text in said] == [remedy] * (remedy is not None)


# --- the recipe for masks --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["grey", "colour", "colour of greys", "transparent", "palette", "palette of greys"])
def test_the_recipe_for_masks_makes_one(tmp_path, kind):
    """What the refusal says is run as it stands, with the value filled in."""
    folder = make(tmp_path)
    inside = line(0) > 0
    path = folder / "masks/crack/00.png"
    if kind == "grey":
        pixels = np.where(inside, 7, 0).astype(np.uint8)
        pixels[0, 0] = 3
        Image.fromarray(pixels).save(path)
        fill = "[7]"
    elif kind.startswith("palette"):
        picture = Image.fromarray(np.where(inside, 2, 1).astype(np.uint8), "P")
        picture.putpalette([9, 9, 9, *([0, 0, 200, 200, 0, 0] if kind == "palette" else [90, 90, 90, 200, 200, 200])])
        picture.save(path)
        fill = "[200, 0, 0]" if kind == "palette" else "[200, 200, 200]"
    elif kind == "colour of greys":
        values = np.where(inside, 128, 0)
        values[0, 0] = 200
        pixels = np.stack([values, values, values, np.full_like(values, 255)], 2).astype(np.uint8)
        Image.fromarray(pixels).save(path)
        fill = "[128, 128, 128]"
    else:
        pixels = np.zeros((*inside.shape, 4), np.uint8)
        pixels[..., :3] = np.where(inside[..., None], [200, 0, 0], [0, 0, 200])
        pixels[..., 3] = np.where(inside, 255, 0) if kind == "transparent" else 255
        Image.fromarray(pixels).save(path)
        fill = "[200, 0, 0]"
    with pytest.raises(ValueError, match="To make such masks") as refusal:
        load("folder", folder=folder, size=8, masks="masks")
    recipe = re.search(r"make such masks: (.*?\.astype\(np\.uint8\)\))", str(refusal.value).splitlines()[0])[1]
    made = eval(recipe.replace("FILE", repr(str(path))).replace("[VALUES INSIDE]", fill).replace("[R, G, B]", fill),
                {"Image": Image, "np": np})  # fmt: skip
    made.save(path)
    assert (np.asarray(Image.open(path)) > 0).tolist() == inside.tolist()
    assert load("folder", folder=folder, size=8, masks="masks").masks.any()
