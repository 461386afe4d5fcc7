"""Trained networks that are kept: which, what a run leaves of them, and how they come into results/weights.

    python -m xai_utils.suite weights [--results FOLDER]

A standard run of seed 0 writes the networks of `KEPT` into ``networks/`` of its folder, each with a few images and its
outputs of them. The command takes those that it finds there into results/weights, with the record that they belong to;
`models.load_trained` reads them. Exit code: 0; 1 there are none, or the networks are not those of the committed record.
"""

from __future__ import annotations

import argparse
import ast
import hashlib
import io
import json
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from xai_utils.data.store import repository_root, unpublished
from xai_utils.progress import print_anywhere
from xai_utils.suite import answer
from xai_utils.suite.record import Record, load_record, results_root
from xai_utils.suite.strict import in_one_line

if TYPE_CHECKING:  # torch takes two seconds
    from torch import Tensor, nn

    from xai_utils.data.imageset import ImageSet

PROFILE, SEED = "standard", 0
IMAGES, PIXELS = 10, 200_000  # images that are stored with a network, and bytes of them, at most
CLOSE = 1e-3  # a file holds fewer bits where no output on the stored images moves further
LIMIT = 20_000_000  # bytes of results/weights


class Kept(NamedTuple):
    """A network of a run: paper, arm, its name there (`Run.images`), and whether pictures of its data are stored."""

    paper: str
    arm: str
    network: str
    pictures: bool = True


KEPT = {
    "p1_id_cvae": Kept("01_id_cvae_morphing", "main", "id_cvae"),
    "p1_cnn": Kept("01_id_cvae_morphing", "main", "cnn"),
    "p2_vgg_rectangles": Kept("02_moram_regression", "rectangles", "vgg"),
    "p2_vgg_digits": Kept("02_moram_regression", "rotated_digits", "vgg"),
    "p3_resnet_fold_0": Kept("03_gradcam_defects", "patches", "resnet_0"),  # of five, each of another fold
    "p4_without_the_loss": Kept("04_cam_consistency", "grad_cam", "without_the_loss", pictures=False),
    "p4_with_the_loss": Kept("04_cam_consistency", "grad_cam", "with_the_loss", pictures=False),
    "p5_abn": Kept("05_lrp_bn", "main", "abn"),
}


def kept(paper: str, profile: str, arm: str, seed: int) -> dict[str, Kept]:
    """What a run's networks are kept as, by their names in the run; nothing of most runs."""
    if (profile, seed) != (PROFILE, SEED):
        return {}
    return {one.network: one for one in KEPT.values() if (one.paper, one.arm) == (paper, arm)}


# what a run leaves ------------------------------------------------------------------------------------------------


def left(
    which: Kept,
    model: nn.Module,
    build: answer.Build,
    about: Mapping[str, Any],
    judged: ImageSet,
    suspicion: Any,
) -> dict[str, bytes]:
    """Files of a network: its weights, and ``.npz`` with a few judged images and its outputs of them.

    The images are the most suspicious and some at even distances: ids, labels, outputs in the single precision that the
    run computed with, and pixels as the `ImageSet` holds them, where pictures of its data may be shown. Weights are
    written in the first precision of which no output moves by more than `CLOSE`. The random state is left as found.

    Args:
        which: of `kept`.
        model: on any device.
        build: what builds it (`answer.save_network`).
        about: classes, image, note: what is done to images first. A note "Scale(mean=(…), std=(…))" becomes `mean`
            and `std` of each channel, too.
        judged: ImageSet of the n images that the run judged.
        suspicion: (n,).
    """
    from xai_utils.models.trained import PRECISIONS

    about = dict(about) | _scale(about["note"])
    some = judged.take(_chosen(answer.as_array(suspicion), judged.pixels[0].numel() * judged.pixels.element_size()))
    outputs = run_on(model, some.images, some.labels, about)
    for precision in PRECISIONS:
        with _rounded(model, precision):
            if (run_on(model, some.images, some.labels, about) - outputs).abs().max() <= CLOSE:
                break
    arrays = {"ids": some.ids.astype(str), "labels": some.labels.numpy(), "outputs": outputs.numpy()}
    if which.pictures and judged.name not in unpublished():
        arrays["pixels"] = some.pixels.numpy()
    np.savez_compressed(buffer := io.BytesIO(), **arrays)
    weights = answer.save_network(model, build, about, precision)
    return {f"{which.network}.safetensors": weights, f"{which.network}.npz": buffer.getvalue()}


def run_on(network: nn.Module, images: Tensor, labels: Tensor, about: Mapping[str, Any]) -> Tensor:
    """Outputs (n, …) on the CPU of images (n, C, H, W) in [0, 1]; of an ID-CVAE its drawings as their labels (n,)."""
    import torch

    from xai_utils.models import IDCVAE, predict

    if "mean" in about:
        mean, std = (torch.tensor(about[name])[:, None, None] for name in ("mean", "std"))
        images = (images - mean) / std
    if not isinstance(network, IDCVAE):
        return predict(network, images)
    device = next(network.parameters()).device
    with torch.no_grad():
        return network(images.to(device), labels.to(device)).cpu()


@contextmanager
def _rounded(model: nn.Module, precision: str) -> Iterator[None]:
    """The network with weights as a file holds them, for a while; a copy would copy hooks, a new one draw numbers."""
    from xai_utils.models.trained import restored, stored

    before = {name: value.clone() for name, value in model.state_dict().items()}
    try:
        model.load_state_dict(restored(stored(before, precision)))
        yield
    finally:
        model.load_state_dict(before)


def _scale(note: str) -> dict[str, list[float]]:
    """`mean` and `std` of a note that shows paper 5's Scale; of another note nothing."""
    found = re.fullmatch(r"Scale\(mean=(\(.+?\)), std=(\(.+?\))\)", note)
    return {name: [*ast.literal_eval(text)] for name, text in zip(("mean", "std"), found.groups())} if found else {}


def _chosen(suspicion: np.ndarray, size: int) -> np.ndarray:
    """Rows of the images that are stored: half of them the most suspicious, the others at even distances, in order."""
    n = min(IMAGES, max(2, PIXELS // size), len(suspicion))
    first = np.argsort(-suspicion, kind="stable")[: n // 2]
    others = np.setdiff1d(np.arange(len(suspicion)), first)
    return np.sort([*first, *others[np.linspace(0, len(others) - 1, n - len(first)).astype(int)]])


# results/weights --------------------------------------------------------------------------------------------------


def checksum(record: Record) -> str:
    """SHA-256 of a record's numbers, wherever and whenever they were made again."""
    numbers = record.model_dump(mode="json", include={"metrics"})
    return hashlib.sha256(json.dumps(numbers, sort_keys=True).encode()).hexdigest()


def take(results: Path, target: Path, committed: Path) -> list[str]:
    """Copy the kept networks that are found below `results` into `target`; returns their names.

    Args:
        results: a folder of results, with runs' folders <profile>/<paper>/<arm>/seed_<k>.
        target: results/weights.
        committed: the results to whose records the networks belong.

    Raises:
        FileNotFoundError: a network has no record, in its run's folder or among the committed ones.
        ValueError: the run's numbers are not those of the committed record, or `target` would exceed `LIMIT`.
    """
    files: dict[str, bytes] = {}
    for name, one in KEPT.items():
        place = Path(PROFILE, one.paper, one.arm, f"seed_{SEED}")
        path = results / place / "networks" / f"{one.network}.safetensors"
        if not path.is_file():
            continue
        run, record = load_record(results / place), load_record(committed / place)
        if run.metrics != record.metrics:
            raise ValueError(
                f"{name}: the run in {results / place} has other numbers than the committed record in "
                f"{committed / place}, so its network is not that record's. Commit the run's record, or run it again "
                "with what the committed one was made with."
            )
        told = {"paper": one.paper, "profile": PROFILE, "arm": one.arm, "seed": SEED, "network": one.network}
        told |= {"record": f"results/{place.as_posix()}/record.json", "metrics_sha256": checksum(record)}
        told |= {"commit": run.provenance.commit, "data": [source.model_dump() for source in run.provenance.data]}
        files[f"{name}.safetensors"] = with_provenance(path.read_bytes(), told)
        files[f"{name}.npz"] = path.with_suffix(".npz").read_bytes()
    there = {path.name: path.stat().st_size for path in target.glob("*") if path.is_file()}
    sizes = there | {name: len(content) for name, content in files.items()}
    if (total := sum(sizes.values())) > LIMIT:
        largest = ", ".join(f"{name} {sizes[name] / 1e6:.1f} MB" for name in sorted(sizes, key=sizes.get)[:-4:-1])
        raise ValueError(
            f"{target} would hold {total / 1e6:.1f} MB, more than {LIMIT / 1e6:g} MB ({largest}, …). Take a network "
            "out of KEPT. Nothing was written."
        )
    for name, content in files.items():
        target.mkdir(parents=True, exist_ok=True)
        (target / name).write_bytes(content)
    return [Path(name).stem for name in files if name.endswith(".safetensors")]


def with_provenance(network: bytes, told: Mapping[str, Any]) -> bytes:
    """A network's file (`answer.save_network`) that also says where it comes from; `told` has plain values.

    The same network gives the same bytes: safetensors itself writes its metadata in any order.
    """
    start = 8 + int.from_bytes(network[:8], "little")  # the format: the header's length, the header, the tensors
    header = json.loads(network[8:start])
    told = dict(sorted((header["__metadata__"] | {"provenance": json.dumps(told)}).items()))
    text = json.dumps(header | {"__metadata__": told}).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text + network[start:]


@in_one_line
def main(argv: Sequence[str] | None = None) -> int:
    """Command line; see the module's docstring."""
    print_anywhere()
    parser = argparse.ArgumentParser(prog="python -m xai_utils.suite weights", description=__doc__.splitlines()[0])
    parser.add_argument("--results", type=Path, help="where the runs are (default: $XAI_RESULTS, else results/)")
    given = parser.parse_args(argv)
    committed, results = repository_root() / "results", given.results or results_root()
    try:
        names = take(results, committed / "weights", committed)
    except (FileNotFoundError, ValueError) as error:
        print(error, file=sys.stderr)
        return 1
    if not names:
        print(f"no networks to keep below {results / PROFILE}: a run leaves them in networks/", file=sys.stderr)
        return 1
    print(f"results/weights: {', '.join(names)}")
    return 0
