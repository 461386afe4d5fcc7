"""Kept networks read by name: what is refused, and the committed ones against their records."""

import random
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from xai_utils import data, models
from xai_utils.models import trained
from xai_utils.papers import p1_id_cvae, p5_lrp_bn
from xai_utils.suite import answer, weights
from xai_utils.suite.record import load_record

ROOT = Path(__file__).parents[3]
WEIGHTS = ROOT / "results" / "weights"
NAMES = sorted(path.stem for path in WEIGHTS.glob("*.safetensors"))
RECORDED = sorted(weights.KEPT.keys() & NAMES)
ANSWERS = {"p1_id_cvae", "p2_vgg_rectangles", "p2_vgg_digits", "p5_abn"}  # that images.csv holds


def states():
    python, arrays = random.getstate(), np.random.get_state()
    return python, arrays[1].tolist(), torch.get_rng_state().tolist()


def test_unknown_names_and_places_are_refused_with_what_there_is(tmp_path, monkeypatch):
    with pytest.raises(
        FileNotFoundError, match=r"no trained network 'p9' in .*; there are: .*p2_rectangles, p2_vgg_digits, .*p5_"
    ):
        models.load_trained("p9")
    with pytest.raises(FileNotFoundError, match="there are: none"):
        models.load_trained("../weights/p2_rectangles", tmp_path)
    monkeypatch.setenv("XAI_ROOT", str(tmp_path))
    with pytest.raises(FileNotFoundError, match=r"results/weights is no folder.* not in an installed package"):
        models.load_trained("p2_rectangles")
    assert models.load_trained("p2_rectangles", WEIGHTS).about["mae"] < 0.05


def test_loading_leaves_the_random_states(tmp_path):
    build = partial(p5_lrp_bn.network, "resnet", 18, 2, 2, 1, 0)  # seeds all of them
    (tmp_path / "net.safetensors").write_bytes(answer.save_network(build(), build, {}))
    before = states()
    assert models.load_trained("net", tmp_path).provenance == {}
    assert states() == before


def test_weights_in_steps_are_closer_than_in_half_precision():
    kernel = torch.randn(4, 3, 5, 5) * torch.tensor([1e-4, 0, 1.0, 300])[:, None, None, None]
    weights_ = {"conv.weight": kernel, "conv.bias": torch.randn(4), "bn.num_batches_tracked": torch.tensor(7)}
    files = {name: trained.stored(weights_, name) for name in trained.PRECISIONS}
    assert {key: value.dtype for key, value in files["steps"].items()} == {
        "conv.weight": torch.int16, "conv.weight:step": torch.float32, "conv.bias": torch.float32,
        "bn.num_batches_tracked": torch.int64,
    }  # fmt: skip
    back = {name: trained.restored(file) for name, file in files.items()}
    assert [key for key in back["steps"] if back["steps"][key].dtype != weights_[key].dtype] == []
    apart = (back["steps"]["conv.weight"] - kernel).abs().flatten(1).amax(1)
    assert (apart <= 0.501 / 32767 * kernel.abs().flatten(1).amax(1)).all()  # half a step of each channel
    assert torch.equal(back["steps"]["conv.bias"], weights_["conv.bias"])
    assert back["steps"]["bn.num_batches_tracked"] == 7
    assert all(torch.equal(back["single"][key], value) for key, value in weights_.items())
    torch.testing.assert_close(back["half"]["conv.weight"].float(), kernel, rtol=2**-11, atol=2**-25)


@pytest.mark.parametrize("name", NAMES)
def test_every_committed_network_loads_and_says_where_it_comes_from(name):
    network = models.load_trained(name)
    assert not network.training
    assert all(value.dtype in (torch.float32, torch.int64) for value in network.state_dict().values())
    assert network.about.keys() >= {"classes", "image", "note"}
    assert network.provenance.keys() >= ({"record", "commit"} if name in weights.KEPT else {"made by", "torch"})


def test_the_committed_files_stay_below_the_limit():
    assert sum(path.stat().st_size for path in WEIGHTS.iterdir()) <= weights.LIMIT


def examples(name):
    with np.load(WEIGHTS / f"{name}.npz") as file:
        return {key: file[key] for key in file.files}


@pytest.mark.parametrize("name", RECORDED)
def test_a_committed_network_belongs_to_its_record(name):
    told = models.load_trained(name).provenance
    record = load_record(ROOT / told["record"])
    assert (record.paper, record.arm, record.seed) == (told["paper"], told["arm"], told["seed"])
    assert weights.checksum(record) == told["metrics_sha256"], "the record has other numbers now: take its network anew"


@pytest.mark.parametrize("name", [name for name in RECORDED if weights.KEPT[name].pictures])
def test_its_outputs_on_the_stored_images_are_those_of_the_run(name):
    network, kept = models.load_trained(name), examples(name)
    pixels, labels = torch.from_numpy(kept["pixels"]), torch.from_numpy(kept["labels"])
    images = data.imageset.as_float(pixels)
    found = weights.run_on(network, images, labels, network.about)
    np.testing.assert_allclose(found, kept["outputs"], atol=weights.CLOSE, rtol=0)


@pytest.mark.parametrize("name", [name for name in RECORDED if name == "p1_id_cvae"])
def test_the_id_cvae_reads_the_stored_digits_as_its_record_says(name):
    network, kept = models.load_trained(name), examples(name)
    predicted, runner_up = p1_id_cvae.label_ranking(
        network.label_losses(torch.from_numpy(kept["pixels"]).float() / 255)
    )
    told = network.provenance
    with np.load(ROOT / Path(told["record"]).with_name("misclassified.npz")) as file:
        wrong = {name: row for row, name in enumerate(file["image"].tolist())}
        answers = np.stack([file["predicted"], file["runner_up"]])
    rows = [row for row, name in enumerate(kept["ids"].tolist()) if name in wrong]
    assert 2 <= len(rows) < len(kept["ids"])
    expected = answers[:, [wrong[name] for name in kept["ids"][rows].tolist()]]
    np.testing.assert_array_equal(torch.stack([predicted, runner_up])[:, rows], expected)
    others = np.setdiff1d(np.arange(len(kept["ids"])), rows)
    np.testing.assert_array_equal(predicted[others], kept["labels"][others])  # the record holds the wrong ones only


def lines(name):
    """The file with a line an image of the record that a network belongs to."""
    one = weights.KEPT[name]
    return ROOT / "results/standard" / one.paper / one.arm / "seed_0/images.csv"


@pytest.mark.parametrize("name", [name for name in RECORDED if name in ANSWERS and lines(name).is_file()])
def test_its_answers_are_those_of_the_records_lines(name):
    network, kept = models.load_trained(name), examples(name)
    images, labels = data.imageset.as_float(torch.from_numpy(kept["pixels"])), torch.from_numpy(kept["labels"])
    if name == "p1_id_cvae":
        outputs = -network.label_losses(images)
    else:
        outputs = weights.run_on(network, images, labels, network.about)
    told = pd.read_csv(lines(name), dtype=str).set_index("file").loc[kept["ids"].tolist(), "prediction"]
    if words := network.about["classes"]:
        assert np.array(words)[outputs.argmax(1)].tolist() == told.tolist()
    else:
        np.testing.assert_allclose(outputs[:, 0], told.astype(float), atol=weights.CLOSE + 1e-5, rtol=0)


@pytest.mark.real_data
@pytest.mark.parametrize("name", [name for name in RECORDED if not weights.KEPT[name].pictures])
def test_without_stored_pictures_the_outputs_on_the_sets_own_are_those_of_the_run(name):
    network, kept = models.load_trained(name), examples(name)
    radiographs = data.load("chest_xrays", size=network.about["image"][-1])
    row = {id_: row for row, id_ in enumerate(radiographs.ids.tolist())}
    some = radiographs.take(np.array([row[id_] for id_ in kept["ids"].tolist()]))
    found = weights.run_on(network, some.images, some.labels, network.about)
    np.testing.assert_allclose(found, kept["outputs"], atol=weights.CLOSE, rtol=0)
