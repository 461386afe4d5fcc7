"""Trained networks read back from files: the architecture by its builder's name, the weights, and where they come from.

The reproduction suite writes these files (`xai_utils.suite.answer.save_network`, `xai_utils.suite.weights`).
"""

import importlib
import json
import os
import random
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

WEIGHTS = Path("results", "weights")  # of a checkout
PRECISIONS = ("half", "steps", "single")  # of what a file holds; each needs at least the bytes of the one before
STEP = ":step"  # behind the name of a tensor in steps, of the tensor that holds their sizes


def load_trained(name: str, folder: str | os.PathLike[str] | None = None) -> nn.Module:
    """A network that the suite trained and keeps in ``results/weights``, in eval mode on the CPU, in single precision.

    Where the file holds 16 bits a number, no output on its stored images is further than 1e-3 from the run's own.

    ``network.provenance`` is a mapping that says where it comes from: the record (paper, profile, arm, seed, file), the
    network's name there, commit, data, the SHA-256 of the record's numbers; of a network of the site the command that
    made it. ``network.about`` says what goes in and comes out: `classes` in the order of the outputs, `image`
    (channels, height, width) with values in [0, 1], and what is done to images first: `note`, and where each channel is
    scaled, its `mean` (taken off) and `std` (divided by).

    Args:
        name: such as "p1_id_cvae": paper and network.
        folder: where the files lie. Default: results/weights of $XAI_ROOT, else of the checkout that holds the package.

    Raises:
        FileNotFoundError: there is no such folder, as of an installed package, or no network of that name; the message
            lists the names that there are.
        ValueError: the file is no network of this package, or of another version of it.
    """
    root = os.environ.get("XAI_ROOT") or Path(__file__).parents[2]
    place = Path(folder) if folder is not None else Path(root) / WEIGHTS
    if not place.is_dir():
        raise FileNotFoundError(
            f"no trained networks: {place} is no folder. They are in {WEIGHTS.as_posix()} of the repository, not in an "
            "installed package: clone it, and name that folder (folder=…) or the clone ($XAI_ROOT)."
        )
    names = sorted(path.stem for path in place.glob("*.safetensors"))
    if name not in names:
        raise FileNotFoundError(f"no trained network {name!r} in {place}; there are: {', '.join(names) or 'none'}")
    return read_network(place / f"{name}.safetensors")


def read_network(path: Path) -> nn.Module:
    """The network in a safetensors file, in eval mode on the CPU, with its `about` and `provenance` ({}: it has none).

    ValueError: it is no network of this package.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "pt") as file:
            told, weights = file.metadata() or {}, {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        build = json.loads(told["build"])
        module, _, name = build["name"].partition(":")
        if not module.startswith("xai_utils."):
            raise ValueError(f"it is built by {module}")
        with _undisturbed():
            network = getattr(importlib.import_module(module), name)(*build["args"], **build["kwargs"])
        network.load_state_dict(restored(weights))
    except (SafetensorError, KeyError, ValueError, ImportError, AttributeError, TypeError, RuntimeError) as error:
        raise ValueError(f"{path} is no network of this package, or of another version of it: {error}") from error
    network.about, network.provenance = json.loads(told["about"]), json.loads(told.get("provenance", "{}"))
    return network.eval()


def stored(weights: Mapping[str, Tensor], precision: str) -> dict[str, Tensor]:
    """A network's weights as a file holds them; whole numbers stay.

    Args:
        weights: a state dict.
        precision: "single" as they are; "half"; "steps": of a kernel the nearest of 65,535 evenly spaced values in 16
            bits, with the size of a step for each output channel, 1/32,767 of its largest weight. That is at most
            a sixteenth of the distance between the largest numbers in half precision, at the same size of the file.
    """
    found = {}
    for key, value in weights.items():
        value = value.detach().cpu().contiguous()
        if precision == "steps" and value.is_floating_point() and value.ndim > 1:
            step = value.abs().flatten(1).amax(1).reshape(-1, *[1] * (value.ndim - 1)) / 32767
            found[key + STEP] = step.where(step > 0, 1)
            value = (value / found[key + STEP]).round().to(torch.int16)
        found[key] = value.half() if precision == "half" and value.is_floating_point() else value
    return found


def restored(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The state dict of what `stored` gave."""
    steps = {key.removesuffix(STEP): value for key, value in weights.items() if key.endswith(STEP)}
    return {key: value * steps.get(key, 1) for key, value in weights.items() if not key.endswith(STEP)}


@contextmanager
def _undisturbed() -> Iterator[None]:
    """Leave the global random states on the CPU as they are: builders of the papers seed them."""
    python, arrays = random.getstate(), np.random.get_state()
    with torch.random.fork_rng(devices=[]):
        yield
    random.setstate(python)
    np.random.set_state(arrays)
