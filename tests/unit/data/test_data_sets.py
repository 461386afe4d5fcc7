"""ImageSet, load, the stratified split, and the loaders digits, mnist and folder."""

import gzip
import hashlib
import math
import re
import struct
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from data_server import tree, write_registry
from PIL import Image

from xai_utils import training
from xai_utils.data import ImageSet, load, stratified_split
from xai_utils.data.folder import read_image
from xai_utils.data.sets.digits import load_digits
from xai_utils.data.sets.mnist import read_idx


@pytest.fixture(scope="module")
def digits():
    return load("digits")


def counts(images):
    return {part: int((images.split == part).sum()) for part in ("train", "val", "test")}


# --- the split


def slow_split(labels, ids, seed, cycle):
    out = {}
    for label in set(labels):
        mine = [i for i, own in zip(ids, labels) if own == label]
        mine.sort(key=lambda i: hashlib.sha256((str(seed) + "/" + i).encode()).hexdigest())
        for position, i in enumerate(mine):
            out[i] = cycle[position % len(cycle)]
    return [out[i] for i in ids]


def test_split_is_the_documented_one_and_does_not_depend_on_the_order_of_rows():
    labels = [0] * 23 + [1] * 10 + [2] * 1 + [0] * 7
    ids = [f"x/{i}" for i in range(len(labels))]
    cycle = ["train", "train", "test", "train", "val", "train", "train", "test", "train", "train"]
    split = stratified_split(labels, ids, seed=3)
    assert split.tolist() == slow_split(labels, ids, 3, cycle)
    back = stratified_split(labels[::-1], ids[::-1], seed=3)
    assert back[::-1].tolist() == split.tolist()
    assert stratified_split(labels, ids, seed=4).tolist() != split.tolist()
    assert [(split[:33][np.array(labels[:33]) == 1] == part).sum() for part in ("train", "val", "test")] == [7, 1, 2]
    assert split[33] == "train"  # a class of one image can be learnt from
    ninety = stratified_split(labels, ids, seed=0, cycle=("train",) * 4 + ("val",) + ("train",) * 5)
    assert (ninety == "val").sum() == 3 + 1


@pytest.mark.parametrize("seed", [-1, 1.0, "0", True])
def test_split_refuses_a_bad_seed(seed):
    with pytest.raises(ValueError, match="seed is"):
        stratified_split([0], ["a"], seed=seed)


# --- ImageSet and load


def small(**changes):
    fields = {
        "name": "x",
        "pixels": torch.linspace(0, 1, 6 * 4).reshape(6, 1, 2, 2),
        "labels": torch.tensor([0, 1, 0, 1, 0, 1]),
        "split": np.array(["train", "val", "train", "test", "train", "val"]),
        "ids": np.array(list("abcdef")),
        "class_names": ("zero", "one"),
        "provenance": {"name": "x", "sha256": "0", "variant": "own"},
    }
    return ImageSet(**{**fields, **changes})


def test_subset_keeps_rows_together():
    images = small()
    assert len(images) == 6
    val = images.subset("val")
    assert val.ids.tolist() == ["b", "f"]
    assert val.labels.tolist() == [1, 1]
    assert torch.equal(val.images, images.images[[1, 5]])
    assert val.provenance == images.provenance
    assert len(small().subset("test")) == 1
    with pytest.raises(ValueError, match="unknown split 'valid', expected one of train, val, test"):
        images.subset("valid")


def test_targets_masks_and_groups_stay_with_their_images():
    masks = torch.arange(24).reshape(6, 2, 2) % 5 == 0
    groups = np.array(["p", "q", "p", "r", "q", "s"])
    images = small(labels=torch.linspace(-1, 1, 6), class_names=(), masks=masks, groups=groups)
    val = images.subset("val")
    assert torch.equal(val.labels, torch.linspace(-1, 1, 6)[[1, 5]])
    assert torch.equal(val.masks, masks[[1, 5]])
    assert val.groups.tolist() == ["q", "s"]
    assert small().subset("val").masks is small().subset("val").groups is None
    pixels, targets = val.batches()[1]
    assert (pixels.shape, targets.item()) == ((1, 2, 2), 1.0)


KINDS = {
    "list": list,
    "array": lambda rows: np.array(rows, dtype=np.int32),
    "tensor": lambda rows: torch.tensor(rows, dtype=torch.int64),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("rows", [[], [4], [5, 0]], ids=["none", "one", "two"])
def test_rows_are_taken_however_they_are_listed(
    rows, kind
):  # one wrong answer: numpy reads a tensor of one as a number
    masks = torch.arange(24).reshape(6, 2, 2) % 5 == 0
    images = small(masks=masks, groups=np.array(list("ppqqrr")))
    taken = images.take(KINDS[kind](rows))
    assert len(taken) == len(rows)
    assert taken.ids.tolist() == ["abcdef"[row] for row in rows]
    assert taken.groups.tolist() == ["ppqqrr"[row] for row in rows]
    assert taken.split.tolist() == [images.split[row] for row in rows]
    assert torch.equal(taken.labels, images.labels[rows])
    assert torch.equal(taken.images, images.images[rows])
    assert torch.equal(taken.masks, masks[rows])


def test_8_bit_pixels_stay_so_and_become_float_a_batch_at_a_time():
    stored = torch.arange(6 * 4, dtype=torch.uint8).reshape(6, 1, 2, 2) * 11
    images, whole = small(pixels=stored), small(pixels=stored.float() / 255)
    assert images.pixels is stored
    assert images.subset("val").pixels.dtype == torch.uint8
    assert images.images.dtype == torch.float32
    assert torch.equal(images.images, whole.images)
    assert torch.equal(images.subset("val").images, whole.subset("val").images)
    rows = torch.tensor([4, 0, 1])
    for change in (None, lambda x: (x - 0.25) / 3):
        (few, labels), (others, theirs) = images.batches(change)[rows], whole.batches(change)[rows]
        assert torch.equal(few, others)
        expected = stored[rows].float() / 255
        assert torch.equal(few, expected if change is None else change(expected))
        assert torch.equal(labels, images.labels[rows])
        assert torch.equal(labels, theirs)
    assert len(images.batches()) == 6


def test_training_takes_8_bit_pixels_and_ends_as_with_floats():
    stored = torch.randint(256, (6, 1, 2, 2), generator=torch.Generator().manual_seed(0)).byte()
    ends = []
    for pixels in (stored, stored.float() / 255):
        model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(4, 2))
        torch.nn.init.ones_(model[1].weight)
        torch.nn.init.zeros_(model[1].bias)
        rows = training.fit(
            model,
            lambda net, batch, _: torch.nn.functional.cross_entropy(net(batch[0]), batch[1]),
            small(pixels=pixels).batches(lambda x: 2 * x - 1),
            epochs=3,
            optimizer=partial(torch.optim.SGD, lr=0.5),
            seed=0,
            batch_size=4,
        )
        ends.append((rows["train_loss"].tolist(), model.state_dict()))
    assert ends[0][0] == ends[1][0]
    assert ends[0][0][-1] < ends[0][0][0]
    assert all(torch.equal(value, ends[1][1][name]) for name, value in ends[0][1].items())


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"pixels": torch.zeros(6, 2, 2)}, "pixels are \\(6, 2, 2\\) torch.float32, not \\(6, C, H, W\\)"),
        ({"pixels": torch.zeros(5, 1, 2, 2)}, "not \\(6, C, H, W\\)"),
        ({"pixels": torch.zeros(6, 1, 2, 2, dtype=torch.float64)}, "float64, not .* uint8 or float32 in \\[0, 1\\]"),
        ({"pixels": torch.zeros(6, 1, 2, 2, dtype=torch.int16)}, "int16"),
        ({"pixels": torch.full((6, 1, 2, 2), math.nan)}, "finite"),
        ({"pixels": torch.full((6, 1, 2, 2), math.inf)}, "finite"),
        ({"pixels": torch.full((6, 1, 2, 2), 1.001)}, "in \\[0, 1\\]"),
        ({"pixels": torch.full((6, 1, 2, 2), -0.001)}, "in \\[0, 1\\]"),
        ({"labels": torch.tensor([0, 1, 0, 1, 0, 2])}, "0 … 1"),
        ({"labels": torch.tensor([0, 1, 0, 1, 0, -1])}, "0 … 1"),
        ({"labels": torch.zeros(6, dtype=torch.int32)}, "int64"),
        ({"ids": np.array(["a"])}, "ids"),
        ({"split": np.array(["train"] * 5 + ["dev"])}, "dev"),
        ({"class_names": ()}, "labels must be \\(6,\\) torch.float32"),  # a regression has no class indices
        ({"class_names": (), "labels": torch.full((6,), math.nan)}, "targets must be finite"),
        ({"class_names": (), "labels": torch.zeros(6, 1)}, "labels must be"),
        (
            {"masks": torch.zeros(6, 2, 3, dtype=torch.bool)},
            "masks are \\(6, 2, 3\\) torch.bool, not",
        ),
        ({"masks": torch.zeros(6, 2, 2)}, "masks are .* torch.float32"),
        ({"groups": np.array(["a"])}, "groups are \\(1,\\), not \\(6,\\)"),
    ],
)
def test_image_set_refuses_what_no_model_should_see(changes, text):
    with pytest.raises(ValueError, match=text):
        small(**changes)


def test_load_refuses_unknown_names_options_splits_and_limits(monkeypatch):
    monkeypatch.setenv("XAI_ROOT", str(Path(__file__).resolve().parents[3]))
    with pytest.raises(ValueError, match=r"unknown data set 'digts'. Did you mean 'digits'.*Known:.*folder.*mnist"):
        load("digts")
    with pytest.raises(ValueError, match="'rdd2022_sample' has no loader yet"):
        load("rdd2022_sample")
    with pytest.raises(TypeError, match=r"'digits' has no option 'size'; its options: split, limit, seed"):
        load("digits", size=3)
    with pytest.raises(ValueError, match="unknown split 'all'"):
        load("digits", split="all")
    with pytest.raises(ValueError, match="unknown split 'all'"):
        load("digits", limit={"all": 3})
    for bad in (0, -1, 1.5, True, {"train": 0}):
        with pytest.raises(ValueError, match="limit for train is"):
            load("digits", limit=bad)


def test_load_splits_and_limits(digits):
    assert load("digits", split="val").ids.tolist() == digits.subset("val").ids.tolist()
    few = load("digits", limit={"train": 20, "val": 5})
    assert counts(few) == {"train": 20, "val": 5, "test": counts(digits)["test"]}
    assert few.subset("train").ids.tolist() == digits.subset("train").ids[:20].tolist()
    assert few.ids.tolist() == sorted(few.ids.tolist())  # rows stay in the order of the set
    assert counts(load("digits", split="test", limit=7)) == {"train": 0, "val": 0, "test": 7}
    assert len(load("digits", limit=10**6)) == 1797


# --- digits


def test_digits_are_scikit_learns_in_their_order(digits):
    from sklearn.datasets import load_digits as sklearn_digits

    source = sklearn_digits()
    assert digits.images.shape == (1797, 1, 28, 28)
    assert digits.labels.tolist() == source.target.tolist()
    assert digits.ids[[0, 1796]].tolist() == ["digits/0000", "digits/1796"]
    raw = bytes(int(v) for v in source.images.ravel()) + bytes(int(v) for v in source.target)
    assert digits.provenance == {
        "name": "digits",
        "sha256": hashlib.sha256(raw).hexdigest(),
        "variant": "embedded",
    }


def test_digits_enlargement_against_loops_and_pillow(digits):
    from sklearn.datasets import load_digits as sklearn_digits

    source = sklearn_digits().images / 16
    for row in (0, 900, 1796):
        for y in range(28):
            for x in range(28):
                value = 0.0
                v, u = [min(max((c + 0.5) * 8 / 28 - 0.5, 0.0), 7.0) for c in (y, x)]
                for j in range(8):
                    for i in range(8):
                        value += max(0.0, 1 - abs(v - j)) * max(0.0, 1 - abs(u - i)) * source[row, j, i]
                assert digits.images[row, 0, y, x].item() == pytest.approx(value, abs=1e-6)
        small_image = Image.fromarray(source[row].astype(np.float32))
        pillow = np.asarray(small_image.resize((28, 28), Image.Resampling.BILINEAR))
        np.testing.assert_allclose(digits.images[row, 0].numpy(), pillow, atol=1e-6)


def test_digits_split_is_stratified_and_follows_the_seed(digits):
    for label in range(10):
        mine = digits.split[digits.labels.numpy() == label]
        for part, share in {"train": 0.7, "val": 0.1, "test": 0.2}.items():
            assert abs((mine == part).sum() - share * len(mine)) < 1.5
    again, other = load_digits(seed=0), load_digits(seed=1)
    assert again.split.tolist() == digits.split.tolist()
    assert other.split.tolist() != digits.split.tolist()
    assert torch.equal(other.images, digits.images)


# --- mnist, on idx files of our own


def idx(array, magic=None):
    head = struct.pack(">I", magic or {1: 0x801, 3: 0x803}[array.ndim])
    return head + b"".join(struct.pack(">I", n) for n in array.shape) + array.astype(np.uint8).tobytes()


def tiny_mnist(root, train=30, test=8, **replaced):
    rng = np.random.default_rng(0)
    arrays = {}
    for stem, n in (("train", train), ("t10k", test)):
        arrays[f"{stem}-images-idx3-ubyte.gz"] = rng.integers(0, 256, (n, 28, 28))
        arrays[f"{stem}-labels-idx1-ubyte.gz"] = np.arange(n) % 10
    arrays.update({name.replace("_", "-") + "-ubyte.gz": array for name, array in replaced.items()})
    files = {f"MNIST/raw/{name}": gzip.compress(idx(array), mtime=0) for name, array in arrays.items()}
    write_registry(root, {"mnist": ("direct", ["https://example.org"], files)})
    for path, body in files.items():
        (root / "data" / path).parent.mkdir(parents=True, exist_ok=True)
        (root / "data" / path).write_bytes(body)
    rows = [f"train/{i:05d},{'val' if i % 10 == 4 else 'train'}" for i in range(train)]
    rows += [f"test/{i:05d},test" for i in range(test)]
    (root / "data/splits").mkdir(exist_ok=True)
    (root / "data/splits/mnist.csv").write_text("\n".join(["id,split", *rows]) + "\n")
    return arrays


@pytest.fixture
def root(tmp_path, monkeypatch):
    monkeypatch.setenv("XAI_ROOT", str(tmp_path))
    monkeypatch.delenv("XAI_DATA", raising=False)
    return tmp_path


def test_mnist_reads_the_four_files_and_the_split(root):
    arrays = tiny_mnist(root)
    images = load("mnist")
    assert counts(images) == {"train": 27, "val": 3, "test": 8}
    assert images.ids[[0, 29, 30, 37]].tolist() == ["train/00000", "train/00029", "test/00000", "test/00007"]
    pixels = np.concatenate([arrays["train-images-idx3-ubyte.gz"], arrays["t10k-images-idx3-ubyte.gz"]])
    for row in range(38):
        for y, x in ((0, 0), (3, 20), (27, 27)):
            assert images.images[row, 0, y, x].item() == np.float32(int(pixels[row, y, x]) / 255)
    assert images.labels.tolist() == [i % 10 for i in range(30)] + [i % 10 for i in range(8)]
    assert images.provenance["variant"] == "origin"
    few = load("mnist", limit={"train": 5, "val": 1, "test": 2})
    assert few.ids.tolist() == [f"train/{i:05d}" for i in range(6)] + ["test/00000", "test/00001"]
    assert load("mnist", split="val").ids.tolist() == ["train/00004", "train/00014", "train/00024"]


def test_mnist_that_is_missing_is_never_replaced_by_something_else(root):
    tiny_mnist(root)
    (root / "data/MNIST/raw/t10k-labels-idx1-ubyte.gz").unlink()
    before = tree(root)
    with pytest.raises(FileNotFoundError, match=r"data set 'mnist'.*(?s:.*)lacks MNIST/raw/t10k-labels"):
        load("mnist")
    assert tree(root) == before


@pytest.mark.parametrize(
    ("replaced", "text"),
    [
        ({"train-images_idx3": np.zeros((29, 28, 28))}, r"MNIST train: images \(29, 28, 28\) and labels \(30,\)"),
        ({"t10k-images_idx3": np.zeros((8, 28, 27))}, r"MNIST test: images \(8, 28, 27\)"),
        ({"t10k-labels_idx1": np.full(8, 10)}, r"largest label 10"),
    ],
)
def test_mnist_parts_that_do_not_fit(root, replaced, text):
    tiny_mnist(root, **replaced)
    with pytest.raises(ValueError, match=text):
        load("mnist")


@pytest.mark.parametrize(
    "spoil",
    [
        lambda lines: lines[:-1],
        lambda lines: [*lines, "test/00008,test"],
        lambda lines: [*lines, lines[-1]],
        lambda lines: ["split,id", *lines[1:]],
        lambda lines: [lines[0], "train/99999,train", *lines[2:]],
    ],
)
def test_mnist_split_file_must_name_every_image_once(root, spoil):
    tiny_mnist(root)
    path = root / "data/splits/mnist.csv"
    path.write_text("\n".join(spoil(path.read_text().split())))
    with pytest.raises(ValueError, match=r"mnist\.csv must name each of the 38 images once"):
        load("mnist")


GOOD = idx(np.zeros((2, 3, 4)))


@pytest.mark.parametrize(
    ("raw", "text"),
    [
        (b"plain text", "not an intact gzip file"),
        (gzip.compress(GOOD, mtime=0)[:-4], "not an intact gzip file"),
        (gzip.compress(GOOD, mtime=0)[:12] + b"\xff" * 9, "not an intact gzip file"),
        (gzip.compress(b"", mtime=0), "starts with '', expected the idx magic number 00000803"),
        (gzip.compress(GOOD[:10], mtime=0), "expected the idx magic number"),
        (gzip.compress(idx(np.zeros(5)), mtime=0), "starts with '00000801', expected the idx magic number 00000803"),
        (
            gzip.compress(idx(np.zeros((2, 3, 4)), 0xD03), mtime=0),
            "starts with '00000d03', expected the idx magic",
        ),  # floats
        (gzip.compress(GOOD[:-1], mtime=0), r"the header says \(2, 3, 4\), but 23 bytes follow"),
        (gzip.compress(GOOD + b"x", mtime=0), r"the header says \(2, 3, 4\), but 25 bytes follow"),
    ],
)
def test_idx_files_that_are_wrong_name_themselves(tmp_path, raw, text):
    (tmp_path / "x.gz").write_bytes(raw)
    with pytest.raises(ValueError, match=rf"x\.gz.*{text}"):
        read_idx(tmp_path / "x.gz", 3)


# --- your own folder


def save(path, pixels, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.asarray(pixels, dtype=np.uint8)).save(path, **options)


def make_folder(folder, classes=("cat", "dog"), n=10):
    for k, name in enumerate(classes):
        for i in range(n):
            save(folder / name / f"{i:02d}.png", np.full((6, 6), 10 * i + k))
    return folder


def test_folder_reads_classes_in_turn_with_a_split_of_its_own(tmp_path):
    folder = make_folder(tmp_path / "mine")
    (folder / "cat" / "notes.txt").write_text("no image")
    (folder / "cat" / ".hidden.png").write_text("no image")
    (folder / "README.md").write_text("no class")
    (folder / ".cache").mkdir()
    images = load("folder", folder=folder, size=4)
    assert images.class_names == ("cat", "dog")
    assert images.ids[:4].tolist() == ["cat/00.png", "dog/00.png", "cat/01.png", "dog/01.png"]
    assert images.labels[:4].tolist() == [0, 1, 0, 1]
    assert images.images.shape == (20, 1, 4, 4)
    for row, name in enumerate(images.ids):
        value = (10 * int(name[4:6]) + (name[:3] == "dog")) / 255
        assert images.images[row].numpy() == pytest.approx(value, abs=1e-7)
    assert counts(images) == {"train": 14, "val": 2, "test": 4}
    assert images.split.tolist() == stratified_split(images.labels.tolist(), images.ids.tolist(), seed=0).tolist()
    lines = "".join(f"{i} {hashlib.sha256((folder / i).read_bytes()).hexdigest()}\n" for i in sorted(images.ids))
    sha256 = hashlib.sha256(lines.encode()).hexdigest()
    assert images.provenance == {"name": "mine", "sha256": sha256, "variant": "own"}
    assert str(tmp_path) not in str(images.provenance)
    assert sorted(load("folder", folder=folder, limit=4).subset("train").labels.tolist()) != [0, 0, 0, 0]
    assert load("folder", folder=folder, seed=1).split.tolist() != images.split.tolist()


def test_folder_with_given_splits_and_a_relative_path(tmp_path, monkeypatch):
    monkeypatch.setenv("XAI_ROOT", str(tmp_path))
    for part, n in (("train", 3), ("val", 1), ("test", 2)):
        make_folder(tmp_path / "mine" / part, n=n)
    images = load("folder", folder="mine", grey=False)
    assert counts(images) == {"train": 6, "val": 2, "test": 4}
    assert images.class_names == ("cat", "dog")
    assert images.images.shape == (12, 3, 28, 28)
    assert all(i.startswith(part + "/") for i, part in zip(images.ids, images.split))


def spoil_empty(folder):
    (folder / "emu").mkdir()


def spoil_single(folder):
    for path in [*(folder / "dog").iterdir()]:
        path.unlink()
    (folder / "dog").rmdir()


def spoil_truncated(folder):
    path = folder / "dog/03.png"
    save(path, np.random.default_rng(0).integers(0, 256, (50, 50)))
    path.write_bytes(path.read_bytes()[:900])


def spoil_text(folder):
    (folder / "cat/00.png").write_text("no picture")


def spoil_no_train(folder):
    (folder / "val/cat").mkdir(parents=True)


def spoil_class_not_in_train(folder):
    for part in ("train", "val", "test"):
        make_folder(folder / part, n=1)
    make_folder(folder / "test", classes=("emu",), n=1)


def spoil_no_val(folder):
    for part in ("train", "test"):
        make_folder(folder / part, n=1)


def spoil_few(folder):
    for path in folder.glob("*/0[3-9].png"):
        path.unlink()


@pytest.mark.parametrize(
    ("spoil", "text"),
    [
        (spoil_empty, r"class folder .*emu holds no images"),
        (spoil_single, r"mine has 1 class folders \(cat\), expected two or more"),
        (spoil_truncated, r"image .*dog/03\.png cannot be read.*Replace or remove it"),
        (spoil_text, r"image .*cat/00\.png cannot be read"),
        (spoil_no_train, r"mine has val but no train folder with classes in it"),
        (spoil_class_not_in_train, r"class 'emu' has no folder in .*/train: a network cannot learn a class"),
        (spoil_no_val, r"no images for val \(4 images in all\)"),
        (
            spoil_few,
            r"in class 'cat': it has 3 images \(6 images in all\)\. Give every class five",
        ),
    ],
)
def test_folder_faults_are_named(tmp_path, spoil, text):
    folder = make_folder(tmp_path / "mine")
    spoil(folder)
    with pytest.raises(ValueError, match=text):
        load("folder", folder=folder)


def test_folder_that_is_missing_empty_or_flat(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"image folder .*gone does not exist"):
        load("folder", folder=tmp_path / "gone")
    with pytest.raises(ValueError, match="has 0 class folders"):
        load("folder", folder=tmp_path)
    save(tmp_path / "flat.png", np.zeros((3, 3)))
    with pytest.raises(ValueError, match="has 0 class folders"):
        load("folder", folder=tmp_path)
    for size in (0, 2.5, True):
        with pytest.raises(ValueError, match="size is"):
            load("folder", folder=tmp_path, size=size)
    with pytest.raises(TypeError, match="folder"):
        load("folder")


@pytest.mark.parametrize(
    ("mode", "pixel", "rgb"),
    [
        ("1", 1, (1, 1, 1)),
        ("L", 51, (0.2, 0.2, 0.2)),
        ("LA", (0, 0), (1, 1, 1)),
        ("LA", (0, 102), (0.6, 0.6, 0.6)),
        ("RGB", (255, 102, 0), (1, 0.4, 0)),
        ("RGBA", (255, 102, 0, 255), (1, 0.4, 0)),
        ("RGBA", (255, 102, 0, 51), (1, 0.88, 0.8)),
        ("I;16", 13107, (0.2, 0.2, 0.2)),
        ("I;16", 257, (257 / 65535,) * 3),
        ("P", 7, (1, 0.4, 0)),
    ],
)
def test_image_modes(tmp_path, mode, pixel, rgb):
    image = Image.new(mode, (5, 5))
    if mode == "P":
        image.putpalette([0, 0, 0] * 7 + [255, 102, 0])
    image.paste(pixel, (0, 0, 5, 5))
    image.save(tmp_path / "x.png")
    colour = read_image(tmp_path / "x.png", 3, grey=False)
    assert colour.shape == (3, 3, 3)
    assert colour.dtype == np.float32
    np.testing.assert_allclose(colour, np.broadcast_to(np.array(rgb)[:, None, None], (3, 3, 3)), atol=1e-6)
    luma = 0.299 * rgb[0] + 0.587 * rgb[1] + 0.114 * rgb[2]
    np.testing.assert_allclose(read_image(tmp_path / "x.png", 3, grey=True), np.full((1, 3, 3), luma), atol=1e-6)


@pytest.mark.parametrize("dtype", [np.float32, np.int32])
def test_images_of_no_fixed_range_are_refused(tmp_path, dtype):
    Image.fromarray(np.ones((4, 4), dtype=dtype)).save(tmp_path / "x.tif")
    with pytest.raises(ValueError, match=r"x\.tif cannot be read.*no fixed range"):
        read_image(tmp_path / "x.tif", 4, grey=True)


def test_images_are_cut_to_the_central_square_and_turned_upright(tmp_path):
    wide = np.zeros((4, 8), dtype=np.uint8)
    wide[:, 2:6] = 255
    save(tmp_path / "wide.png", wide)
    assert (read_image(tmp_path / "wide.png", 4, grey=True, fit="crop") == 1).all()
    upright = np.zeros((8, 8), dtype=np.uint8)
    upright[:4] = 255
    exif = Image.Exif()
    exif[0x0112] = 3  # the camera was upside down
    save(tmp_path / "turned.png", upright, exif=exif)
    expected = np.repeat([[0.0], [1.0]], 4, axis=0).repeat(8, axis=1)
    assert (read_image(tmp_path / "turned.png", 8, grey=True)[0] == expected).all()


def test_resize_against_loops(tmp_path):
    rng = np.random.default_rng(1)
    pixels = rng.integers(0, 256, (12, 12))
    save(tmp_path / "x.png", pixels)
    got = read_image(tmp_path / "x.png", 4, grey=True)[0]
    for y in range(4):
        for x in range(4):
            total = weight = 0.0
            for j in range(12):
                for i in range(12):
                    # a triangle three pixels to either side of the centre: bilinear with antialiasing, 12 -> 4
                    w = max(0.0, 1 - abs(j + 0.5 - 3 * (y + 0.5)) / 3) * max(0.0, 1 - abs(i + 0.5 - 3 * (x + 0.5)) / 3)
                    total, weight = total + w * pixels[j, i] / 255, weight + w
            assert got[y, x] == pytest.approx(total / weight, abs=1e-6)


def test_example_in_the_readme_names_real_options():
    text = (Path(__file__).resolve().parents[3] / "data/README.md").read_text()
    example = re.search(r'load\("folder", (.*)\)', text)[1]
    assert re.findall(r"(\w+)=", example) == ["folder", "size", "grey", "seed"]
