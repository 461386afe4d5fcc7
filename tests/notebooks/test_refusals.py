"""Bad input that a notebook meets in its first cells, without a kernel: the same calls, made here."""

import pytest
from runs import PAPERS, ROOT, files
from test_guards import defaults

from xai_utils import data, suite
from xai_utils.papers import p3_gradcam_defects, p4_cam_consistency


def test_an_unknown_arm_and_a_seed_that_is_no_number(tmp_path, monkeypatch):
    monkeypatch.setenv("XAI_RESULTS", str(tmp_path))
    with pytest.raises(ValueError, match="2 wrong parameter") as refusal:
        suite.start(PAPERS[0], defaults(PAPERS[0]) | {"arm": "best", "seed": 0.5})
    assert "arm = 'best' (str): expected str, one of 'main', 'improved'." in str(refusal.value)
    assert "seed = 0.5 (float): expected int" in str(refusal.value)
    assert files(tmp_path) == []


@pytest.fixture
def without_data(tmp_path):
    """A root that shares all but its data folder, which has been fetched nothing into, with the checkout."""
    root = tmp_path / "root"
    (root / "data").mkdir(parents=True)
    (root / "results").mkdir()
    for name in ("notebooks", "data/registry.yaml", "data/splits", "results/reported.yaml"):
        (root / name).symlink_to(ROOT / name)
    return root


def test_mnist_that_is_nowhere(tmp_path, without_data, monkeypatch):
    (tmp_path / "empty").mkdir()
    monkeypatch.setenv("XAI_ROOT", str(without_data))
    monkeypatch.setenv("XAI_DATA", str(tmp_path / "empty"))
    with pytest.raises(FileNotFoundError) as refusal:
        data.load("mnist")
    said = " ".join(str(refusal.value).split())
    for expected in (
        "data set 'mnist' (MNIST handwritten digits) was not found. Looked in:",
        f"XAI_DATA: {tmp_path}/empty lacks MNIST/raw/train-images-idx3-ubyte.gz",
        f"the repository's data folder: {without_data}/data lacks MNIST/raw/train-images-idx3-ubyte.gz",
        "To get it, run: python -m xai_utils.data fetch mnist",
    ):
        assert expected in said
    assert files(tmp_path / "empty") == []


def test_own_defects_need_the_names_of_their_normal_classes():
    assert p3_gradcam_defects.normal_classes(defaults(PAPERS[2])["normal"], ["crack", "normal"]) == [1]  # what is there
    with pytest.raises(ValueError, match="normal: 'fine' is no class of the data; expected some of crack, good"):
        p3_gradcam_defects.normal_classes("fine", ["crack", "good"])


def test_more_training_images_of_a_class_than_there_are():
    given = defaults(PAPERS[3])
    images = data.load("radiographs", n=given["images"], size=given["size"], seed=given["seed"])
    with pytest.raises(ValueError, match="per_class is 900, but radiographs has 315 training images of 'normal'"):
        p4_cam_consistency.subsample_per_class(images, 900, seed=0)
