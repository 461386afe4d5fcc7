"""MNIST itself: counts, pixels, split, and torchvision's reader."""

import gzip
import hashlib
import shutil
import zipfile

import numpy as np
import pytest
import torch
from data_server import DataServer
from prepared import CHECKOUT, real

from xai_utils.data import contents, load, store, stratified_split
from xai_utils.data.__main__ import main

pytestmark = pytest.mark.real_data
TRAIN = [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]  # per digit, as published
TEST = [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]


@pytest.fixture(scope="module")
def mnist():
    with real("mnist"):
        yield load("mnist")


def per_digit(labels):
    return [int((labels == digit).sum()) for digit in range(10)]


def test_counts_per_digit(mnist):
    official_test = np.char.startswith(mnist.ids, "test/")
    labels = mnist.labels.numpy()
    assert per_digit(labels[~official_test]) == TRAIN
    assert per_digit(labels[official_test]) == TEST
    assert (mnist.split[official_test] == "test").all()


def test_split_is_9_to_1_within_every_digit_and_can_be_made_again(mnist):
    assert [int((mnist.split == part).sum()) for part in ("train", "val", "test")] == [54000, 6000, 10000]
    val = per_digit(mnist.labels.numpy()[mnist.split == "val"])
    assert all(abs(found - n / 10) <= 0.5 for found, n in zip(val, TRAIN))
    cycle = ("train",) * 4 + ("val",) + ("train",) * 5
    again = stratified_split(mnist.labels[:60000].tolist(), mnist.ids[:60000].tolist(), seed=0, cycle=cycle)
    assert (again == mnist.split[:60000]).all()


def test_first_image_is_the_well_known_five(mnist):
    first = mnist.images[0, 0] * 255
    assert mnist.labels[0] == 5
    assert int(first.sum().round()) == 27525
    assert first[5, 12:24].round().int().tolist() == [3, 18, 18, 18, 126, 136, 175, 26, 166, 255, 247, 127]
    assert mnist.images.min() == 0
    assert mnist.images.max() == 1
    assert mnist.images[mnist.split != "test"].double().mean().item() == pytest.approx(0.13066047627, abs=1e-7)
    assert mnist.provenance["variant"] in ("prepared", "origin")


def test_pixels_and_labels_equal_torchvisions_reader(mnist, tmp_path):
    from torchvision.datasets.mnist import read_image_file, read_label_file

    paths, _ = store.locate("mnist")
    for kind, read in (("images-idx3", read_image_file), ("labels-idx1", read_label_file)):
        plain = tmp_path / kind
        plain.write_bytes(gzip.decompress(paths[f"MNIST/raw/t10k-{kind}-ubyte.gz"].read_bytes()))
        theirs = read(str(plain))
        ours = mnist.labels[60000:] if kind == "labels-idx1" else (mnist.images[60000:, 0] * 255).round().byte()
        assert torch.equal(ours, theirs)


def test_every_prepared_file_has_the_registered_checksum(mnist, capsys):
    assert main(["verify"]) == 0
    assert "damaged" not in capsys.readouterr().out


def test_fetched_set_equals_the_prepared_one(mnist, tmp_path, monkeypatch):
    paths, prepared = store.locate("mnist")
    bodies = {path.name: path.read_bytes() for path in paths.values()}
    (tmp_path / "data").mkdir()
    shutil.copy(CHECKOUT / "data/registry.yaml", tmp_path / "data")
    shutil.copytree(CHECKOUT / "data/splits", tmp_path / "data/splits")
    monkeypatch.setenv("XAI_ROOT", str(tmp_path))
    monkeypatch.delenv("XAI_DATA", raising=False)
    with pytest.raises(FileNotFoundError, match="fetch mnist"):
        load("mnist")
    with DataServer(bodies, ["truncate 5000000"]) as server:
        assert main(["fetch", "mnist", "--mirror", server.url + "/mnist/"]) == 0
        assert server.log[:2] == ["train-images-idx3-ubyte.gz"] * 2
    few = load("mnist", limit=50)
    assert few.provenance == {**prepared, "variant": "origin"}
    assert torch.equal(few.subset("val").images, mnist.subset("val").images[:50])


@pytest.mark.parametrize(
    ("name", "coded_again"),
    [
        ("cifar10", ""),
        ("crackforest", ""),
        ("magnetic_tiles", ""),
        ("rdd2022_sample", r".*/Norway_.*\.jpg"),
        ("chest_xray", r".*\.jpg"),
        ("stanford_cars", r".*\.jpg"),
        ("road_cracks", r"images/.*\.jpg"),
    ],
)
def test_the_lists_of_contents_are_those_of_the_prepared_sets(name, coded_again):
    with real(name) as paths:
        (archive,) = paths.values()
        listed = store.contents_list(store.entry(name))
        found = contents.compare(archive, listed)
        assert (found.wrong, found.identical) == ({}, len(contents.read(listed)))
        with zipfile.ZipFile(archive) as source:
            sums = {member: hashlib.sha256(source.read(member)).hexdigest() for member in source.namelist()}
        lines = "".join(f"{member} {sums[member]}\n" for member in sorted(sums))
        assert store.locate(name)[1]["sha256"] == hashlib.sha256(lines.encode()).hexdigest()
        assert store.same_content(name, store.entry(name).files[0].sha256)  # what older records name
        if not contents.is_built(archive):
            assert listed.read_text() == contents.listing(archive, coded_again)
