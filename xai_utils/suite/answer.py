"""What a run says of each image, what it leaves for them, and the text that says where everything is.

    python -m xai_utils.suite answer FOLDER [--suspicious 10]

FOLDER is a run's: its images.csv has a line an image, ``networks/`` the trained networks of own images, ``overlays/``
maps on images, where the parameter `overlays` asked for them. Exit code: 0; 2 there is no usable record.
"""

from __future__ import annotations

import argparse
import functools
import io
import json
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from PIL import Image

from xai_utils.progress import print_anywhere
from xai_utils.suite import claims
from xai_utils.suite.record import Record, load_record
from xai_utils.suite.strict import in_one_line

if TYPE_CHECKING:  # torch takes two seconds
    from torch import nn

TABLE = "images.csv"
LARGEST = 1_500_000  # bytes of the table: half of what a run's folder may hold
COLUMNS = ("file", "split", "truth", "prediction", "confidence", "outcome", "suspicion")  # in this order, then scores
SIDE = 256  # pixels of an overlay, at least
Build = functools.partial  # of a function or class of this package, with plain arguments


def as_array(values: Any) -> np.ndarray:
    """A tensor or sequence as an array on the CPU, without its gradient."""
    return values.detach().cpu().numpy() if hasattr(values, "detach") else np.asarray(values)


def table(
    everything: Any,
    judged: Any,
    prediction: Any,
    confidence: Any = None,
    outcome: Any = None,
    suspicion: Any = None,
    scores: pd.DataFrame | None = None,
    whole: bool = False,
) -> pd.DataFrame:
    """A line an image: the `COLUMNS`, then a column for each score; empty where a run did not measure it.

    Args:
        everything: ImageSet of all images.
        judged: ImageSet of the n images that were judged, in the order of the other arguments.
        prediction: (n,) class numbers, or numbers of a regression.
        confidence: (n,) in [0, 1].
        outcome: (n,) words. Default: "right" or "wrong"; of a regression prediction minus target.
        suspicion: (n,); the higher, the more an image deserves a look.
        scores: one column a score, its index the ids of images.
        whole: also the images that were not judged.
    """
    said = as_array(prediction)
    words = np.array(everything.class_names)
    named = (lambda values: words[as_array(values)]) if len(words) else (lambda values: as_array(values))
    if outcome is None:
        outcome = np.where(said == as_array(judged.labels), "right", "wrong")
        outcome = outcome if len(words) else said - as_array(judged.labels)
    columns = {"prediction": named(said), "confidence": confidence, "outcome": outcome, "suspicion": suspicion}
    columns = {name: as_array(values) for name, values in columns.items() if values is not None}
    found = pd.DataFrame(columns, index=judged.ids)
    if scores is not None:
        found = found.join(scores.dropna(axis=1, how="all").rename(columns=_key))
    listed = everything if whole else judged
    first = {"file": listed.ids, "split": listed.split, "truth": named(listed.labels)}
    return pd.DataFrame(first, index=listed.ids).join(found).reset_index(drop=True)


def as_csv(rows: pd.DataFrame, largest: int = LARGEST) -> bytes:
    """The table as CSV in UTF-8, numbers to six digits; where it is too long, the judged and most suspicious lines."""

    def text(some: pd.DataFrame) -> bytes:
        return some.to_csv(index=False, float_format="%.6g", lineterminator="\n").encode()

    whole = text(rows)
    if len(whole) <= largest:
        return whole
    kept = rows[rows["prediction"].notna()]
    if "suspicion" in kept:
        kept = kept.sort_values("suspicion", ascending=False, kind="stable", na_position="last")
    return text(kept.head(int(len(kept) * min(1.0, 0.95 * largest / len(text(kept))))))


def most_suspicious(rows: pd.DataFrame, n: int) -> pd.DataFrame:
    """The n lines of highest suspicion, the highest first."""
    if "suspicion" not in rows:
        return rows.iloc[:0]
    return rows.dropna(subset=["suspicion"]).sort_values("suspicion", ascending=False, kind="stable").head(n)


# networks ---------------------------------------------------------------------------------------------------------


def save_network(model: nn.Module, build: Build, about: Mapping[str, Any], precision: str = "single") -> bytes:
    """Weights as safetensors, with what builds the network and what goes in and comes out in the metadata.

    Args:
        model: on any device.
        build: ``partial(function, …)`` of this package that gives the untrained network.
        about: plain values for whoever loads it: classes, image size …
        precision: of the file, one of `models.trained.PRECISIONS`.

    Raises:
        ValueError: `build` is no function of this package, or has arguments that JSON does not hold.
    """
    from safetensors.torch import save

    from xai_utils.models.trained import stored

    name = f"{build.func.__module__}:{build.func.__qualname__}"
    if not name.startswith("xai_utils."):
        raise ValueError(f"{name} is no function of this package")
    try:
        made = json.dumps({"name": name, "args": build.args, "kwargs": build.keywords})
    except TypeError as error:
        raise ValueError(f"{name}: {error}; expected plain arguments") from None
    told = {"build": made, "about": json.dumps(dict(about), ensure_ascii=False)}
    return save(stored(model.state_dict(), precision), told)


def load_network(path: str | Path) -> nn.Module:
    """The trained network of a run, from ``networks/<name>.safetensors`` of its folder, in eval mode on the CPU.

    ``network.about`` is a mapping: the classes in the order of the outputs, the side of the images, and what was done
    to them first.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is no network of this package.
    """
    from xai_utils.models.trained import read_network

    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no network at {path}: runs on own images leave them in networks/")
    return read_network(path)


# overlays ---------------------------------------------------------------------------------------------------------


def overlay(picture: np.ndarray, values: np.ndarray) -> Image.Image:
    """A map (H, W) laid over its picture (C, H, W) in [0, 1], at least `SIDE` pixels wide.

    Of a map without negative values high is red and low blue, of a signed one positive is red and negative blue. A film
    (k, C, H, W) becomes a strip, the picture first.
    """
    from matplotlib import colormaps

    picture = np.moveaxis(np.broadcast_to(picture, (3, *picture.shape[1:])), 0, 2)
    if values.ndim == 4:
        frames = [np.moveaxis(np.broadcast_to(frame, (3, *frame.shape[1:])), 0, 2) for frame in values]
        return _enlarged(np.concatenate([picture, *frames], axis=1))
    if values.shape != picture.shape[:2]:
        drawn = Image.fromarray(values.astype(np.float32)).resize(picture.shape[1::-1], Image.Resampling.BILINEAR)
        values = np.asarray(drawn)
    top = float(np.quantile(np.abs(values), 0.99)) or float(np.abs(values).max()) or 1.0
    signed = bool((values < 0).any())
    share = np.clip(values / top, -1, 1) / 2 + 0.5 if signed else np.clip(values / top, 0, 1)
    colours = colormaps["RdBu_r" if signed else "jet"](share)[..., :3]
    return _enlarged(picture / 2 + colours / 2)


def _enlarged(pixels: np.ndarray) -> Image.Image:
    """(H, W, 3) in [0, 1] as a picture, each pixel several wide where the side is short."""
    times = max(1, -(-SIDE // pixels.shape[0]))
    large = np.clip(pixels, 0, 1).repeat(times, axis=0).repeat(times, axis=1)
    return Image.fromarray(np.rint(255 * large).astype(np.uint8))


def overlays(explained: Any, maps: Mapping[str, Any], order: Sequence[str]) -> dict[str, bytes]:
    """Files of overlays, and ``maps.npz`` with the maps themselves: name → content.

    Args:
        explained: ImageSet of n images.
        maps: name of an explainer → (n, h, w) maps, or (n, k, C, H, W) films.
        order: ids of the images that are wanted, in the order in which their files are numbered.
    """
    place = {name: row for row, name in enumerate(explained.ids)}
    rows = [place[name] for name in order if name in place]
    files, kept = {}, {name: as_array(values)[rows] for name, values in maps.items()}
    for number, row in enumerate(rows):
        picture = as_array(explained.take(np.array([row])).images)[0]
        stem = re.sub(r"[^\w.-]+", "_", explained.ids[row].rpartition(".")[0] or explained.ids[row])
        for name, values in kept.items():
            buffer = io.BytesIO()
            overlay(picture, values[number]).save(buffer, format="png")
            files[f"{number:04d}_{stem}_{_key(name)}.png"] = buffer.getvalue()
    buffer = io.BytesIO()
    np.savez_compressed(buffer, files=explained.ids[rows].astype(str), **{_key(n): v for n, v in kept.items()})
    return files | {"maps.npz": buffer.getvalue()}


def _key(name: str) -> str:
    return re.sub("[^a-z0-9]+", "_", name.replace("+", "p").lower()).strip("_")


# the text -----------------------------------------------------------------------------------------------------------


def headlines(record: Record, rows: pd.DataFrame | None, most: int = 3) -> list[str]:
    """Three numbers that say most of a run: what its network has learned, wrong answers in `rows`, those of claims."""
    paper = claims.load().papers[record.paper]
    wanted = {gate.read(record.metrics, record.subject): gate.says for gate in paper.competence if gate.says}
    for entry in (*paper.headlines, *(claim.shown for claim in paper.claims.values() if claim.shown)):
        wanted.setdefault(entry.metric, entry.says)
    lines = [_number(record, metric, says) for metric, says in wanted.items()]
    if rows is not None and set(rows["outcome"].dropna().map(type)) == {str}:  # a classification
        judged = rows.dropna(subset=["prediction"])
        lines.insert(1, f"wrong answers: {(judged['prediction'] != judged['truth']).sum()} of {len(judged)} images")
    return [line for line in lines if line][:most]


def _number(record: Record, metric: str, says: str) -> str:
    """A metric in words, with its interval; "" where it is not defined."""
    found = record.metrics.get(metric)
    if found is None or found.value is None:
        return ""
    ends = "" if found.low is None or found.high is None else f" [{found.low:.3g}, {found.high:.3g}]"
    return f"{says}: {found.value:.3g}{ends}{f' {found.unit}' * bool(found.unit)}"


def told(folder: str | Path, suspicious: int = 5, place: str = "") -> str:
    """Where everything of a run is: three numbers, its verdicts, the most suspicious images by file, the files.

    `place` stands for the folder, which would tell of the machine.

    Raises:
        FileNotFoundError, ValueError: there is no usable record in the folder.
    """
    folder = Path(folder)
    record = load_record(folder)
    judged = claims.load().papers[record.paper]
    place = place or str(folder)
    lines = [f"record: {place}"]
    if not record.subject["own"]:
        return lines[0]
    if warning := judged.warning(record.metrics, record.subject):
        lines.append(f"  {warning} No claim about it is judged.")
    rows = None
    if (path := folder / TABLE).is_file():
        rows = pd.read_csv(path, dtype={"file": str, "truth": str, "prediction": str})
    lines += [f"  {line}" for line in headlines(record, rows)]
    counted = pd.Series([verdict.verdict for verdict in record.claims.values()]).value_counts()
    lines.append("  verdicts: " + ", ".join(f"{count} {verdict}" for verdict, count in counted.items()))
    if rows is not None:
        lines.append(f"  {TABLE}: {len(rows)} images, a line each")
        found = most_suspicious(rows, suspicious)
        lines += [f"  the most suspicious ({record.suspicion or 'suspicion'}):"] * bool(len(found))
        for row in found.itertuples():
            lines.append(f"    {row.file}: {row.truth} → {row.prediction} ({row.suspicion:.3g})")
    networks = sorted((folder / "networks").glob("*.safetensors"))
    if networks:
        lines.append(f"  trained networks: {', '.join(f'networks/{path.name}' for path in networks)}; to load one:")
        lines += [f"    {line}" for line in loading(f"{place}/networks/{networks[0].name}")]
    if (folder / "overlays").is_dir():
        lines.append(f"  overlays and maps: overlays/, {len(list((folder / 'overlays').glob('*.png')))} pictures")
    return "\n".join(lines)


def loading(path: str) -> list[str]:
    """The three lines of Python that load a network."""
    return [
        "from xai_utils import suite",
        f'network = suite.load_network("{path}")',
        "outputs = network(images)  # images (N, C, H, W) as network.about says",
    ]


@in_one_line
def main(argv: Sequence[str] | None = None) -> int:
    """Command line; see the module's docstring."""
    print_anywhere()
    parser = argparse.ArgumentParser(prog="python -m xai_utils.suite answer", description=__doc__.splitlines()[0])
    parser.add_argument("folder", help="a run's folder")
    parser.add_argument("--suspicious", type=int, default=5, help="how many images to name (default: 5)")
    given = parser.parse_args(argv)
    try:
        print(told(given.folder, given.suspicious))
    except (FileNotFoundError, ValueError) as error:
        print(error, file=sys.stderr)
        return 2
    return 0
