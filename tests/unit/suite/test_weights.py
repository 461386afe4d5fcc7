"""Networks that a standard run leaves, and how they come into results/weights and back."""

import json
from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest
import tiny_paper
import torch
from safetensors import safe_open
from tiny_paper import PAPER, measured, rewrite

from xai_utils import models
from xai_utils.data.imageset import ImageSet
from xai_utils.models import IDCVAE, SmallCNN
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
    state = torch.get_rng_state()
    folder = ran(nets)
    files = sorted(path.name for path in (folder / "networks").iterdir())
    assert files == ["cnn.npz", "cnn.safetensors", "id_cvae.npz", "id_cvae.safetensors"]
    for name, (net, _) in nets.items():
        assert net.training
        assert all(torch.equal(value, before[name][key]) for key, value in net.state_dict().items())
    tiny_paper.start(**STANDARD, overlays=0)
    seeded = torch.get_rng_state()
    nets["cnn"][0].eval()
    left(nets["cnn"])
    assert torch.equal(torch.get_rng_state(), seeded)
    assert not torch.equal(state, seeded)


@pytest.mark.parametrize("changes", [{"profile": "quick"}, {"seed": 1}, {"learning_rate": 0.5}, {"arm": "improved"}])
def test_other_runs_leave_none(checkout, changes):
    assert not (ran(**changes) / "networks").exists()


def left(network, which=None, note="", **changes):
    """Stored arrays and the weights' tensors of a network, as a run leaves them."""
    model, build = network
    which = which or weights.KEPT["p1_cnn"]
    judged = changes.pop("judged", images())
    about = {"classes": ["a", "b", "c"], "image": [1, 16, 16], "note": note}
    return weights.left(which, model, build, about, judged, changes.pop("suspicion", np.zeros(len(judged))))


