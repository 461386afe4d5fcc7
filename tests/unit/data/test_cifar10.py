"""CIFAR-10: the prepared file (counts, split, classes, boxes), and small files that are wrong."""

import csv
import io

import numpy as np
import pytest
import torch
from prepared import CHECKOUT, real, write_set

import xai_utils.data
from xai_utils.data import stratified_split
from xai_utils.data.sets.cifar10 import CLASSES, load_cifar10, read_boxes

TRAIN = [517, 524, 490, 493, 537, 475, 503, 516, 529, 501]  # of each class
TEST = [105, 93, 100, 104, 92, 87, 114, 102, 110, 110]


# --- the file itself


@pytest.fixture(scope="module")
def arrays():
    with real("cifar10") as paths, np.load(*paths.values(), allow_pickle=False) as file:
        yield {name: file[name] for name in file.files}


@pytest.fixture(scope="module")
def cifar(arrays):
    return load_cifar10(boxes=True)


@pytest.mark.real_data
def test_the_published_counts_pixels_and_labels(cifar, arrays):
    assert cifar.class_names == CLASSES == tuple(arrays["class_names"].tolist())
    test = cifar.split == "test"
    assert torch.bincount(cifar.labels[~test]).tolist() == TRAIN
    assert torch.bincount(cifar.labels[test]).tolist() == TEST
    for part, rows in (("train", slice(0, 5085)), ("test", slice(5085, 6102))):
        pixels = (cifar.images[rows] * 255).round().byte().permute(0, 2, 3, 1).numpy()
        assert np.array_equal(pixels, arrays[f"x_{part}"])
        assert cifar.labels[rows].tolist() == arrays[f"y_{part}"].tolist()
    assert cifar.ids[[0, 5084, 5085, 6101]].tolist() == ["train/00000", "train/05084", "test/00000", "test/01016"]
    assert cifar.provenance == {
        "name": "cifar10",
        "sha256": "1fdf6d543e5e7dfd0ec85b0eebc8115e842a2de499323996b8cbe400a439b3df",
        "variant": cifar.provenance["variant"],
    }


@pytest.mark.real_data
def test_the_split_file_can_be_made_again_with_50_val_images_a_class(cifar):
    labels, ids = cifar.labels[:5085].tolist(), cifar.ids[:5085].tolist()
    cycle = ("val",) * 50 + ("train",) * 5085
    made = [*stratified_split(labels, ids, seed=0, cycle=cycle), *["test"] * 1017]
    assert cifar.split.tolist() == made
    text = "".join(f"{name},{part}\n" for name, part in zip(cifar.ids, made))
    assert (CHECKOUT / "data/splits/cifar10.csv").read_text(encoding="ascii") == "id,split\n" + text
    assert torch.bincount(cifar.subset("val").labels).tolist() == [50] * 10


@pytest.mark.real_data
def test_classes_are_picked_and_numbered_in_the_order_asked_for(cifar):
    some = load_cifar10(classes=["dog", "cat"])
    assert some.class_names == ("dog", "cat")
    assert torch.bincount(some.labels).tolist() == [475 + 87, 493 + 104]
    rows = (cifar.labels == 5) | (cifar.labels == 3)
    assert some.ids.tolist() == cifar.ids[rows.numpy()].tolist()
    assert torch.equal(some.images, cifar.images[rows])
    assert some.labels.tolist() == [0 if label == 5 else 1 for label in cifar.labels[rows].tolist()]
    assert some.split.tolist() == cifar.split[rows.numpy()].tolist()
    assert some.masks is None


@pytest.mark.real_data
def test_the_first_50_cats_and_dogs_of_the_test_part_have_a_box(cifar):
    boxes = read_boxes()
    for name in ("cat", "dog"):
        rows = np.flatnonzero((cifar.split == "test") & (cifar.labels.numpy() == CLASSES.index(name)))
        assert set(cifar.ids[rows[:50]]) <= boxes.keys()
        share = cifar.masks[rows[:50]].double().mean((1, 2))
        assert share.min() > 0.15
        assert 0.6 < share.mean() < 0.75
        assert (share == 1).sum() <= 2
    assert len(boxes) == 100
    boxed = np.isin(cifar.ids, list(boxes))
    assert cifar.masks.flatten(1).any(1).tolist() == boxed.tolist()
    assert boxes["test/00356"] == (5, 5, 27, 29)  # an orange cat on grey ground
    cat = cifar.images[cifar.ids.tolist().index("test/00356")]
    orange = ((cat[0] - cat[2]) > 0.3).numpy()
    assert orange.sum() > 150
    assert not orange[cifar.masks[cifar.ids.tolist().index("test/00356")].logical_not().numpy()].any()


@pytest.mark.real_data
def test_boxes_go_with_the_images_that_are_picked(cifar):
    pets = load_cifar10(classes=("cat", "dog"), boxes=True)
    assert int(pets.masks.flatten(1).any(1).sum()) == 100
    whole = dict(zip(cifar.ids.tolist(), cifar.masks))
    assert all(torch.equal(mask, whole[name]) for name, mask in zip(pets.ids.tolist(), pets.masks))


def test_every_box_lies_in_the_picture_and_the_file_is_in_order(monkeypatch):
    monkeypatch.setenv("XAI_ROOT", str(CHECKOUT))
    with (CHECKOUT / "data/boxes/cifar10_cats_dogs.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    assert [row["id"] for row in rows] == sorted({row["id"] for row in rows})
    assert all(row["id"].startswith("test/") for row in rows)
    boxes = read_boxes()
    for row in rows:
        left, top, right, bottom = (int(row[name]) for name in ("left", "top", "right", "bottom"))
        assert boxes[row["id"]] == (left, top, right, bottom)
        assert 0 <= left < left + 8 < right <= 32
        assert 0 <= top < top + 8 < bottom <= 32


# --- small files


def small(**changes):
    """Arrays of two training images and one test image."""
    arrays = {
        "x_train": np.arange(2 * 32 * 32 * 3, dtype=np.uint32).reshape(2, 32, 32, 3).astype(np.uint8),
        "y_train": np.array([3, 9], np.uint8),
        "x_test": np.full((1, 32, 32, 3), 51, np.uint8),
        "y_test": np.array([5], np.uint8),
        "class_names": np.array(CLASSES),
    }
    out = io.BytesIO()
    np.savez(out, **{name: value for name, value in (arrays | changes).items() if value is not None})
    return out.getvalue()


BOXES = "id,left,top,right,bottom\ntest/00000,4,8,20,32\n"


def write_file(root, body=None, boxes=BOXES):
    """The file with a registry that knows it, its split file and its boxes."""
    body, splits = small() if body is None else body, "id,split\ntrain/00000,val\ntrain/00001,train\ntest/00000,test\n"
    write_set(root, "cifar10", "cifar10_lossless_subset.npz", body, {"cifar10": splits})
    (root / "data/boxes").mkdir()
    (root / "data/boxes/cifar10_cats_dogs.csv").write_text(boxes)


def test_a_box_is_a_mask_and_images_without_one_have_an_empty_mask(root):
    write_file(root)
    images = load_cifar10(boxes=True)
    inside = torch.zeros(32, 32, dtype=torch.bool)
    inside[8:32, 4:20] = True
    assert images.ids.tolist() == ["train/00000", "train/00001", "test/00000"]
    assert images.split.tolist() == ["val", "train", "test"]
    assert images.labels.tolist() == [3, 9, 5]
    assert torch.equal(images.masks[2], inside)
    assert not images.masks[:2].any()
    assert (images.images[0] * 255).round()[:, 0, :2].tolist() == [[0, 3], [1, 4], [2, 5]]
    assert load_cifar10().masks is None


@pytest.mark.parametrize(
    ("body", "text"),
    [
        (b"no npz", "npz is not the expected file of arrays"),
        (small(y_test=None), "npz is not the expected file of arrays"),
        (small(y_test=np.array([5], object)), "npz is not the expected file of arrays.*allow_pickle=False"),
        (small(y_test=np.array([10], np.uint8)), r"npz, test: images .* and labels \(1,\) uint8 do not fit"),
        (small(y_train=np.array([3], np.uint8)), r"npz, train: images \(2, 32, 32, 3\) uint8 and labels \(1,\) uint8"),
        (small(x_test=np.zeros((1, 3, 32, 32), np.uint8)), r"expected \(N, 32, 32, 3\) and \(N,\) of uint8"),
        (small(x_test=np.zeros((1, 32, 32, 3))), r"images \(1, 32, 32, 3\) float64"),
        (small(class_names=np.array([*CLASSES[:9], "lorry"])), r"npz has the classes .*'lorry'\], expected \["),
    ],
)
def test_a_file_that_is_wrong_is_named(root, body, text):
    write_file(root, body)
    with pytest.raises(ValueError, match=text):
        load_cifar10()


@pytest.mark.parametrize(
    ("boxes", "text"),
    [
        ("id,x,y\n", "dogs.csv has the columns id, x, y; expected id, left, top, right, bottom"),
        ("", "has the columns ; expected id"),
        (BOXES + "test/00000,1,2,3,4\n", "the line 'test/00000,1,2,3,4' is not a new id and four whole numbers"),
        (BOXES.replace("20", "20.5"), r"the line 'test/00000,4,8,20\.5,32' is not a new id"),
        (BOXES.replace("4,8", "-4,8"), "the line 'test/00000,-4,8,20,32' is not a new id"),
        (BOXES.replace(",32", ""), "the line 'test/00000,4,8,20' is not a new id"),
        (BOXES.replace("20", "4"), r"the box of test/00000, \(4, 8, 4, 32\), is empty or leaves the 32×32 picture"),
        (BOXES.replace("32", "33"), r"the box of test/00000, \(4, 8, 20, 33\), is empty or leaves"),
        (BOXES.replace("00000", "00001"), "has the id 'test/00001', which is none of the 3 images"),
    ],
)
def test_boxes_that_are_wrong_are_named(root, boxes, text):
    write_file(root, boxes=boxes)
    with pytest.raises(ValueError, match=text):
        load_cifar10(boxes=True)


@pytest.mark.parametrize(
    ("classes", "error", "text"),
    [
        (("cat", "wolf"), ValueError, "classes has 'wolf', expected different ones of airplane, automobile"),
        (("cat", "dog", "cat"), ValueError, "classes has 'cat', expected different ones"),
        ("cat", TypeError, r"classes is the string 'cat', expected a sequence of names, such as \('cat',\)"),
    ],
)
def test_wrong_classes_are_named(classes, error, text):
    with pytest.raises(error, match=text):
        load_cifar10(classes=classes)


def test_a_missing_or_damaged_file_or_split_is_named(root):
    write_file(root)
    (root / "data/splits/cifar10.csv").write_text("id,split\ntrain/00000,val\ntest/00000,test\n")
    with pytest.raises(ValueError, match=r"cifar10\.csv must name each of the 3 images once"):
        load_cifar10()
    file = root / "data/cifar10_lossless_subset.npz"
    file.write_bytes(file.read_bytes()[:-1] + b"?")
    with pytest.raises(ValueError, match=r"cifar10_lossless_subset\.npz is damaged: its sha256"):
        load_cifar10()
    file.unlink()
    with pytest.raises(FileNotFoundError, match=r"data set 'cifar10'(?s:.*)lacks cifar10_lossless_subset\.npz"):
        load_cifar10()


def test_load_finds_the_family(root):
    write_file(root)
    assert xai_utils.data.load("cifar10", split="test", classes=["cat", "dog"]).labels.tolist() == [1]
