"""What the explorables show: pages, numbers and networks, made from committed weights by the package itself.

`python site/make_data.py` writes a folder for each explorable (its pages in both languages, script, style, data.js) and
takes seconds: it trains nothing and downloads nothing. `python site/make_data.py prepare` makes the committed files that
it starts from, where the image sets are ($XAI_DATA):

    results/weights/p2_rectangles.safetensors   paper 2's network as notebook 02 trains it at the quick profile
    results/weights/p5_road_abn.safetensors     an Attention Branch Network for 64×64 crops of Brazilian roads
    site/explorables/player/crops.npz           the crops that the player shows, with their masks (MIT licence)
    site/explorables/digits/examples.npz        MNIST digits, prototypes and codes for results/weights/p1_id_cvae

Weights are rounded to half precision before anything is computed, so that page and package run the same network.
"""

import argparse
import base64
import json
import re
import shutil
import sys
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import torch
import yaml
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from xai_utils import data, explain, models, plot, seeds, training

SITE = Path(__file__).resolve().parent
SOURCE = SITE / "explorables"
WEIGHTS = SITE.parent / "results" / "weights"
STANDARD = SITE.parent / "results" / "standard"
NAMES = ("digits", "signlab", "player")
LANGUAGES = ("en", "ja")
STILLS = {  # the committed figure that stands where the page cannot compute
    "digits": "01_id_cvae_morphing/main/seed_0/fig2_morph.png",
    "signlab": "02_moram_regression/rectangles/seed_0/table1.png",
    "player": "05_lrp_bn/main/seed_0/fig4_maps.png",
}


# pages ----------------------------------------------------------------------------------------------------------


def fragment(name: str, language: str = "en", base: str = "") -> str:
    """One explorable as a piece of HTML: its section, and the scripts and styles behind the address `base`.

    Args:
        name: "digits", "signlab" or "player".
        language: "en" or "ja", of text.yaml.
        base: what leads from the page to the explorable's folder, "" or with a slash at its end.

    Raises:
        KeyError: a placeholder of the template that this language has no text for.
    """
    text = yaml.safe_load((SOURCE / name / "text.yaml").read_text())[language]
    spoken = json.dumps(text["script"] | {"base": base}, ensure_ascii=False).replace("</", "<\\/")
    known = text["page"] | {"base": base, "language": language, "strings": spoken}
    template = (SOURCE / name / "template.html").read_text()
    return re.sub(r"\{\{(\w+)\}\}", lambda found: str(known[found[1]]), template)


def page(name: str, language: str = "en") -> str:
    """The explorable alone, as a page that any static server serves from the explorable's folder."""
    title = yaml.safe_load((SOURCE / name / "text.yaml").read_text())[language]["page"]["title"]
    return (
        f'<!doctype html>\n<html lang="{language}">\n<head>\n<meta charset="utf-8">\n<title>{title}</title>\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n<link rel="icon" href="data:,">\n'
        "<style>body { margin: 0; font-family: system-ui, sans-serif; } @media (prefers-color-scheme: dark) "
        "{ body { background: #0f161d; color: #e6ebf0; } } h1 { font-size: 1.5rem; text-align: center; }</style>\n"
        f"</head>\n<body>\n<main>\n<h1>{title}</h1>\n{fragment(name, language)}</main>\n</body>\n</html>\n"
    )


def build(out: Path, weights: Path = WEIGHTS) -> list[str]:
    """Write all explorables below `out`; what is missing is said in the answer, one sentence each."""
    missing = []
    for name, made in (("signlab", signlab_data),):
        folder = out / name
        folder.mkdir(parents=True, exist_ok=True)
        for file in (*(SOURCE / name).glob("*.js"), *(SOURCE / name).glob("*.css"), *SOURCE.glob("shared.*")):
            shutil.copy(file, folder)
        shutil.copy(STANDARD / STILLS[name], folder / "still.png")
        colours = {"signed": plot.DIVERGING, "positive": plot.SEQUENTIAL}
        _script(folder / "palette.js", "XAI_PALETTE", {key: _palette(map_) for key, map_ in colours.items()})
        try:
            content = made(folder, weights)
        except FileNotFoundError as error:
            content = None
            missing.append(f"{name}: no live model, {error}")
        _script(folder / "data.js", f"XAI_{name.upper()}", content)
        for language in LANGUAGES:
            (folder / ("index.html" if language == "en" else f"index.{language}.html")).write_text(page(name, language))
    return missing


def _script(path: Path, name: str, content: Any) -> None:
    """A script that sets window.<name>: it loads from file://, too, where a page may fetch nothing."""
    path.write_text(f"window.{name} = {json.dumps(content, separators=(',', ':'), allow_nan=False)};\n")


def _palette(name: str) -> list[int]:
    """A colour map as 129 colours, three numbers 0 … 255 each."""
    return (matplotlib.colormaps[name](np.linspace(0, 1, 129))[:, :3] * 255).round().astype(int).ravel().tolist()


def _base64(values: np.ndarray) -> str:
    return base64.b64encode(np.ascontiguousarray(values).tobytes()).decode()


# weights --------------------------------------------------------------------------------------------------------


def save_half(model: nn.Module, path: Path, about: Mapping[str, Any]) -> None:
    """Write a network's tensors as half precision, with `about` in the file's header."""
    path.parent.mkdir(parents=True, exist_ok=True)
    tensors = {name: value.half().contiguous() for name, value in model.state_dict().items() if value.is_floating_point()}
    save_file(tensors, path, {key: json.dumps(value) for key, value in about.items()})


def load_half(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors (float32, their values exactly those of the file) and what the header says; FileNotFoundError names it."""
    if not path.is_file():
        raise FileNotFoundError(f"{path.name} is missing in {path.parent}")
    with safe_open(path, "pt") as file:
        about = {key: json.loads(value) for key, value in (file.metadata() or {}).items()}
        return {name: file.get_tensor(name).float() for name in file.keys()}, about  # noqa: SIM118


def _filled(model: nn.Module, tensors: Mapping[str, Tensor]) -> nn.Module:
    """The model with these weights, in evaluation mode; every floating-point tensor must be there."""
    left = model.load_state_dict(tensors, strict=False)
    if left.unexpected_keys or any(not key.endswith("num_batches_tracked") for key in left.missing_keys):
        raise ValueError(f"weights do not fit {type(model).__name__}: {left}")
    return model.eval().requires_grad_(False)


# MoRAM sign lab (paper 2) ---------------------------------------------------------------------------------------

RECTANGLES = {"n": 2000, "size": 32, "seed": 0}  # notebook 02 at the quick profile
AREA = (0.02, 0.5)  # of `data.sets.rectangles`


def signlab_network(weights: Path = WEIGHTS) -> tuple[nn.Module, dict[str, Any]]:
    """Paper 2's network of the sign lab and what is known of it."""
    tensors, about = load_half(weights / "p2_rectangles.safetensors")
    return _filled(models.vgg16_gap(about["width"], about["poolings"]), tensors), about


def prepare_signlab() -> None:
    """Train the network as notebook 02 does: about a minute on one core."""
    seeds.seed_everything(0)
    pictures = data.load("rectangles", **RECTANGLES)
    train, val, test = (pictures.subset(part) for part in ("train", "val", "test"))
    model = models.vgg16_gap(8, 2)

    def squared_error(network: nn.Module, batch: tuple[Tensor, Tensor], _: torch.Generator) -> Tensor:
        return nn.functional.mse_loss(network(batch[0])[:, 0], batch[1])

    rate = partial(training.one_cycle, peak=1e-3)
    settings = {"epochs": 12, "batch_size": 16, "seed": 0, "schedule": rate}
    adam = partial(torch.optim.Adam, lr=1e-3)
    training.fit(model, squared_error, train.batches(), validation=val.batches(), optimizer=adam, **settings)
    half = _filled(models.vgg16_gap(8, 2), {name: value.half().float() for name, value in model.state_dict().items()})
    apart = (models.predict(half, test.images)[:, 0] - test.labels).abs().mean().item()
    about = {"width": 8, "poolings": 2, "mae": apart, "epochs": 12, "torch": torch.__version__} | RECTANGLES
    save_half(model, WEIGHTS / "p2_rectangles.safetensors", about)


def signlab_data(_folder: Path, weights: Path) -> dict[str, Any]:
    """Weights, layers and the enlargement as the page takes them."""
    model, about = signlab_network(weights)
    parts, at = [], 0

    def placed(values: Tensor) -> list[int]:
        nonlocal at
        parts.append(values.detach().flatten().numpy().astype("<f2"))
        at += values.numel()
        return [at - values.numel(), values.numel()]

    layers = []
    for layer in model.features:
        if isinstance(layer, nn.Conv2d):
            here = {"weight": placed(layer.weight), "bias": placed(layer.bias)}
            layers.append({"kind": "conv", "outputs": layer.out_channels} | here)
        elif isinstance(layer, nn.MaxPool2d):
            layers.append({"kind": "pool"})
    head = {"weight": placed(model.head.weight), "bias": placed(model.head.bias)}
    size, cells = about["size"], about["size"] // 2 ** about["poolings"]
    rows = torch.eye(cells, dtype=torch.float64)[:, :, None].expand(-1, -1, cells)
    return {
        "size": size,
        "area": AREA,
        "layers": layers,
        "head": head,
        "weights": _base64(np.concatenate(parts)),
        "lanczos": explain.upsample(rows, (size, size), "lanczos")[:, :, 0].T.tolist(),
        "first": [10, 10, 12, 11],
        "mae": about["mae"],
    }


def main(arguments: list[str] | None = None) -> None:
    """The command line: see the module."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", nargs="*", choices=["build", "prepare"], default="build")
    parser.add_argument("--out", type=Path, default=SITE / "_explorables", help="where the folders are written")
    options = parser.parse_args(arguments)
    for sentence in build(options.out):
        print(sentence, file=sys.stderr)


if __name__ == "__main__":
    main()
