"""Networks that a standard run leaves, and how they come into results/weights and back."""

import io
import shutil
from functools import partial

import numpy as np
import pytest
import tiny_paper
import torch
from safetensors import safe_open
from safetensors.torch import load
from tiny_paper import PAPER, measured, rewrite

from xai_utils.data.imageset import ImageSet
from xai_utils.data.store import unpublished
from xai_utils.models import IDCVAE, SmallCNN, load_trained
from xai_utils.papers import p5_lrp_bn as paper5
from xai_utils.suite import weights
from xai_utils.suite.record import load_record

STANDARD = {"profile": "standard", "seed": 0}


@pytest.fixture
def checkout(repository):
    """A checkout whose runs know the parameters of own images, and keep networks."""
    path = repository / f"notebooks/parameters/{PAPER}.yaml"
    rewrite(path, path.read_text() + 'overlays: {type: int, default: 0, minimum: -1, help: "overlays"}\n')
    return repository


def images(n=30, name="mnist", side=16):
    """n grey images of `side` pixels in three classes, every other one a test image."""
    pixels = torch.arange(n * side * side).reshape(n, 1, side, side).mul(7).remainder(256).to(torch.uint8)
    return ImageSet(
        name=name,
        pixels=pixels,
        labels=torch.arange(n) % 3,
        split=np.array(["train", "test"])[np.arange(n) % 2],
        ids=np.array([f"{name}/{i}" for i in range(n)]),
        class_names=("a", "b", "c"),
        provenance={"name": name, "sha256": "ab", "variant": "prepared"},
    )


def networks():
    """An untrained network for each name; the last is none that is kept."""
    torch.manual_seed(4)
    build, build_cnn = partial(IDCVAE, 2, 3, 16, 1, [4, 4, 4]), partial(SmallCNN, 3, 1)
    return {"id_cvae": (build(), build), "cnn": (build_cnn(), build_cnn), "other": (build_cnn(), build_cnn)}


def ran(nets=None, accuracy=97.5, **changes):
    """A recorded run of `tiny_paper`; its folder."""
    everything = images()
    run = measured(tiny_paper.start(**(STANDARD | {"overlays": 0} | changes)), accuracy)
    run.uses(everything.provenance)
    judged = everything.subset("test")
    suspicion = {"odd": np.linspace(0, 1, len(judged))}
    run.images(everything, judged, judged.labels, suspicion=suspicion, networks=nets or networks())
    run.record()
    return run.folder


# what a run leaves ------------------------------------------------------------------------------------------------


def test_a_standard_run_of_the_first_seed_leaves_the_networks_that_are_kept(checkout):
    nets = networks()
    before = {name: {k: v.clone() for k, v in net.state_dict().items()} for name, (net, _) in nets.items()}
    folder = ran(nets)
    files = sorted(path.name for path in (folder / "networks").iterdir())
    assert files == ["cnn.npz", "cnn.safetensors", "id_cvae.npz", "id_cvae.safetensors"]
    assert "xai_utils/models/trained.py" not in load_record(folder).provenance.modules  # it makes no number
    for name, (net, _) in nets.items():
        assert net.training
        assert all(torch.equal(value, before[name][key]) for key, value in net.state_dict().items())


@pytest.mark.parametrize("changes", [{"profile": "quick"}, {"seed": 1}, {"learning_rate": 0.5}, {"arm": "improved"}])
def test_other_runs_leave_none(checkout, changes):
    assert not (ran(**changes) / "networks").exists()


def left(model, build, judged=None, which=weights.KEPT["p1_cnn"], note="", suspicion=None):
    """The arrays stored with a network as a run leaves them, and the precision of its weights."""
    judged = images() if judged is None else judged
    about = {"classes": ["a", "b", "c"], "image": [1, 16, 16], "note": note}
    suspicion = np.zeros(len(judged)) if suspicion is None else suspicion
    files = weights.left(which, model, build, about, judged, suspicion)
    with np.load(io.BytesIO(files[f"{which.network}.npz"])) as stored:
        arrays = {name: stored[name] for name in stored.files}
    dtypes = {value.dtype for value in load(files[f"{which.network}.safetensors"]).values()}
    return arrays, "half" if torch.float16 in dtypes else "steps" if torch.int16 in dtypes else "single"


def test_the_random_state_is_left_as_it_was(checkout):
    model, build = networks()["cnn"]
    state = torch.get_rng_state()
    left(model, build)
    assert torch.equal(torch.get_rng_state(), state)


def test_stored_are_the_most_suspicious_and_some_others_in_order():
    judged, suspicion = images(), np.zeros(30)
    suspicion[[28, 4, 9, 17, 20]] = [5, 4, 3, 2, 1]
    model, build = networks()["cnn"]
    arrays, _ = left(model, build, judged, suspicion=suspicion)
    rows = [int(name.partition("/")[2]) for name in arrays["ids"]]
    assert rows == [0, 4, 7, 9, 14, 17, 20, 22, 28, 29]  # of the 25 others the 1st, 7th, 13th, 19th and 25th
    np.testing.assert_array_equal(arrays["pixels"], judged.pixels[rows])
    np.testing.assert_array_equal(arrays["labels"], judged.labels[rows])
    with torch.no_grad():
        expected = model.eval()(judged.images[rows])
    np.testing.assert_allclose(arrays["outputs"], expected, atol=1e-6)


def test_large_images_are_stored_in_a_smaller_number():
    model, build = networks()["cnn"]
    assert len(left(model, build, images(12, side=200))[0]["ids"]) == 5  # 40 kB each
    assert len(left(model, build, images(3))[0]["ids"]) == 3


def test_the_file_holds_the_first_precision_of_which_no_output_moves_too_far():
    model, build = networks()["cnn"]
    assert left(model, build)[1] == "half"
    with torch.no_grad():
        model.head.weight.mul_(300)  # outputs of about seven
    assert left(model, build)[1] == "steps"
    with torch.no_grad():
        model.head.weight.mul_(100)
    assert left(model, build)[1] == "single"


def test_an_id_cvae_is_kept_with_its_drawings():
    model, build = networks()["id_cvae"]
    arrays, precision = left(model, build, which=weights.KEPT["p1_id_cvae"])
    assert precision == "half"
    images_, labels = torch.from_numpy(arrays["pixels"]).float() / 255, torch.from_numpy(arrays["labels"])
    with torch.no_grad():
        np.testing.assert_allclose(arrays["outputs"], model(images_, labels), atol=1e-6)


def test_images_are_scaled_as_the_note_says():
    model, build = networks()["cnn"]
    scale = paper5.scale_of(images())
    arrays, _ = left(model, build, note=str(scale))
    scaled = paper5.scaled(torch.from_numpy(arrays["pixels"]).float() / 255, scale)
    with torch.no_grad():
        np.testing.assert_allclose(arrays["outputs"], model.eval()(scaled), atol=1e-5)


@pytest.mark.parametrize(
    ("which", "name"),
    [("p4_with_the_loss", "chest_xray"), ("p1_cnn", min(unpublished()))],
    ids=["pictures of patients", "a set for research only"],
)
def test_pictures_that_are_not_shown_are_not_stored(which, name):
    model, build = networks()["cnn"]
    arrays, _ = left(model, build, images(name=name), which=weights.KEPT[which])
    assert sorted(arrays) == ["ids", "labels", "outputs"]


# into results/weights, and back ----------------------------------------------------------------------------------


@pytest.fixture
def taken(checkout, capsys):
    """A checkout with a committed standard record, and the networks of its run in results/weights."""
    nets = networks()
    ran(nets)
    assert weights.main([]) == 0
    assert capsys.readouterr().out == "results/weights: p1_id_cvae, p1_cnn\n"
    return checkout, nets


def test_a_kept_network_comes_back_and_says_where_it_comes_from(taken):
    root, nets = taken
    assert sorted(path.name for path in (root / "results/weights").iterdir()) == [
        "p1_cnn.npz", "p1_cnn.safetensors", "p1_id_cvae.npz", "p1_id_cvae.safetensors",
    ]  # fmt: skip
    network = load_trained("p1_cnn")
    assert not network.training
    x = torch.rand(4, 1, 16, 16)
    torch.testing.assert_close(network(x), nets["cnn"][0].eval()(x), atol=1e-3, rtol=0)
    assert network.about == {"classes": ["a", "b", "c"], "image": [1, 16, 16], "note": ""}
    place = f"results/standard/{PAPER}/main/seed_0"
    record = load_record(root / place)
    assert network.provenance == {
        "paper": PAPER, "profile": "standard", "arm": "main", "seed": 0, "network": "cnn",
        "record": f"{place}/record.json", "metrics_sha256": weights.checksum(record), "commit": "unknown",
        "data": [{"name": "mnist", "sha256": "ab", "variant": "prepared"}],
    }  # fmt: skip
    with safe_open(root / "results/weights/p1_cnn.safetensors", "pt") as file:
        assert file.get_tensor("head.weight").dtype == torch.float16


def test_only_the_committed_records_networks_are_taken(taken, tmp_path, monkeypatch, capsys):
    root, _ = taken
    before = tiny_paper.content(root / "results/weights")
    monkeypatch.setenv("XAI_RESULTS", str(tmp_path / "others"))
    ran(accuracy=96.0)
    assert weights.main([]) == 1
    assert "p1_id_cvae: the run in" in (said := capsys.readouterr().err)
    assert "has other numbers than the committed record in" in said
    ran()
    assert weights.main(["--results", str(tmp_path / "others")]) == 0
    assert tiny_paper.content(root / "results/weights") == before
    shutil.rmtree(root / "results/standard")
    assert weights.main([]) == 1
    assert "no record at" in capsys.readouterr().err


def test_where_no_run_left_networks_the_command_says_so(checkout, capsys):
    assert weights.main([]) == 1
    assert "no networks to keep below" in capsys.readouterr().err
    assert not (checkout / "results/weights").exists()


def test_all_files_together_stay_below_the_limit(taken, monkeypatch, capsys):
    root, _ = taken
    files = tiny_paper.content(root / "results/weights")
    total = sum(map(len, files.values()))
    monkeypatch.setattr(weights, "LIMIT", total)
    assert weights.main([]) == 0
    (root / "results/weights/other.npz").write_bytes(b"1")
    assert weights.main([]) == 1
    assert "results/weights would hold 0.1 MB, more than" in (said := capsys.readouterr().err)
    assert "Nothing was written." in said


def test_every_kept_network_has_a_name_of_its_own_and_a_standard_arm():
    assert len({one[:3] for one in weights.KEPT.values()}) == len(weights.KEPT)
    for name, one in weights.KEPT.items():
        assert name.startswith(f"p{int(one.paper[:2])}_")
        assert weights.kept(one.paper, "standard", one.arm, 0)[one.network] == one
