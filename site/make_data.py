"""What the explorables show: pages, numbers and networks, made from committed weights by the package itself.

`python site/make_data.py FOLDER` writes a folder for each explorable (pages in both languages, script, style, data.js)
and takes seconds: it trains nothing and downloads nothing. `python site/make_data.py --prepare [NAME …]` makes the
committed files that it starts from, where the image sets are ($XAI_DATA):

    results/weights/p2_rectangles.safetensors   paper 2's network as notebook 02 trains it at the quick profile
    results/weights/p5_road_abn.safetensors     an Attention Branch Network for 64×64 crops of Brazilian roads
    site/explorables/player/crops.npz           the crops that the player shows, with their masks (MIT licence)
    results/weights/p1_id_cvae_examples.npz     ten MNIST digits, prototypes and codes for p1_id_cvae.safetensors

Weights are rounded to half precision before anything is computed, so that page and package run the same network.
"""

import argparse
import base64
import contextlib
import hashlib
import io
import json
import re
import shutil
import sys
import warnings
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import torch
import yaml
from scipy.ndimage import gaussian_filter
from torch import Tensor, nn

from xai_utils import data, explain, models, plot, seeds, training
from xai_utils.metrics import insertion_deletion
from xai_utils.papers import p5_lrp_bn as paper5
from xai_utils.suite import answer, weights

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


def fragment(name: str, language: str = "en", level: int = 2) -> str:
    """One explorable as a piece of HTML, without the scripts and styles that it needs: its section.

    Args:
        name: "digits", "signlab" or "player".
        language: "en" or "ja", of text.yaml.
        level: of its heading.

    Raises:
        KeyError: a placeholder of the template that this language has no text for.
    """
    text = yaml.safe_load((SOURCE / name / "text.yaml").read_text(encoding="utf-8"))[language]
    still = base64.b64encode((STANDARD / STILLS[name]).read_bytes()).decode()
    known = {
        "language": language,
        "level": level,
        "sublevel": level + 1,
        "still": f"data:image/png;base64,{still}",
        "strings": json.dumps(text["script"], ensure_ascii=False).replace("</", "<\\/"),
    }
    if twice := known.keys() & text["page"]:
        raise ValueError(f"{name}/text.yaml: {twice} are set by make_data.py; name them otherwise")
    known |= text["page"]
    template = (SOURCE / name / "template.html").read_text(encoding="utf-8")
    return re.sub(r"\{\{(\w+)\}\}", lambda found: str(known[found[1]]), template)


def page(name: str, language: str = "en") -> str:
    """The explorable alone, as a page that any static server serves, or that is opened as a file."""
    section = fragment(name, language, level=1)
    title = re.search(r"<h1[^>]*>(.*)</h1>", section)[1]
    files = ["../shared.js", "data.js", "explorable.js"]
    return "\n".join(
        [
            f'<!doctype html>\n<html lang="{language}">\n<head>\n<meta charset="utf-8">\n<title>{title}</title>',
            '<meta name="viewport" content="width=device-width, initial-scale=1">\n<link rel="icon" href="data:,">',
            *(f'<link rel="stylesheet" href="{file}">' for file in ("../shared.css", "style.css")),
            "<style>body { margin: 0; font-family: system-ui, sans-serif; }</style>",
            *(f'<script defer src="{file}"></script>' for file in files),
            f"</head>\n<body>\n{section}</body>\n</html>\n",
        ]
    )


def build(out: Path, networks: Path = WEIGHTS, names: Sequence[str] = NAMES) -> list[str]:
    """Write shared.js, shared.css and a folder for each explorable below `out`.

    Each folder has data.js, explorable.js, style.css, a page and a fragment for each language, and its networks.
    Returns one sentence for each explorable that has no live model, because its weights are not there.
    """
    out.mkdir(parents=True, exist_ok=True)
    missing = []
    for file in SOURCE.glob("shared.*"):
        shutil.copy(file, out)
    for name in names:
        folder, made = out / name, {"signlab": signlab_data, "player": player_data, "digits": digits_data}[name]
        folder.mkdir(exist_ok=True)
        for file in ("explorable.js", "style.css"):
            shutil.copy(SOURCE / name / file, folder)
        try:
            content = made(folder, networks)
        except FileNotFoundError as error:
            content = None
            missing.append(f"{name}: no live model, {error}")
        colours = {"signed": _palette(plot.DIVERGING), "positive": _palette(plot.SEQUENTIAL)}
        script = _script("XAI_PALETTE", colours) + _script(f"XAI_{name.upper()}", content)
        (folder / "data.js").write_text(script, encoding="utf-8")
        for language in LANGUAGES:
            index = "index.html" if language == "en" else f"index.{language}.html"
            (folder / index).write_text(page(name, language), encoding="utf-8")
            (folder / f"fragment.{language}.html").write_text(fragment(name, language), encoding="utf-8")
    return missing


def _script(name: str, content: Any) -> str:
    """A script that sets window.<name>: it loads from file://, too, where a page may fetch nothing."""
    return f"window.{name} = {json.dumps(content, separators=(',', ':'), allow_nan=False)};\n"


def _palette(name: str) -> list[int]:
    """A colour map as 129 colours, three numbers 0 … 255 each."""
    return (matplotlib.colormaps[name](np.linspace(0, 1, 129))[:, :3] * 255).round().astype(int).ravel().tolist()


def _base64(values: np.ndarray) -> str:
    return base64.b64encode(np.ascontiguousarray(values).tobytes()).decode()


# weights --------------------------------------------------------------------------------------------------------


def save_half(model: nn.Module, build: answer.Build, path: Path, about: Mapping[str, Any]) -> None:
    """Write a network in half precision, as `models.load_trained` reads it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    told = {"made by": "python site/make_data.py --prepare", "torch": torch.__version__}
    path.write_bytes(weights.with_provenance(answer.save_network(model, build, about, "half"), told))


def trained(name: str, folder: Path) -> nn.Module:
    """A network of results/weights that asks for no gradients; FileNotFoundError names it."""
    return models.load_trained(name, folder).requires_grad_(False)


# MoRAM sign lab (paper 2) ---------------------------------------------------------------------------------------

RECTANGLES = {"n": 2000, "size": 32, "seed": 0}  # notebook 02 at the quick profile
AREA = (0.02, 0.5)  # of `data.sets.rectangles`


def signlab_network(folder: Path = WEIGHTS) -> nn.Module:
    """Paper 2's network of the sign lab, with what is known of it in `about`."""
    return trained("p2_rectangles", folder)


def prepare_signlab() -> None:
    """Train the network as notebook 02 does: about a minute on one core."""
    seeds.seed_everything(0)
    pictures = data.load("rectangles", **RECTANGLES)
    train, val, test = (pictures.subset(part) for part in ("train", "val", "test"))
    build = partial(models.vgg16_gap, 8, 2)
    model = build().to(memory_format=torch.channels_last)

    def squared_error(network: nn.Module, batch: tuple[Tensor, Tensor], _: torch.Generator) -> Tensor:
        return nn.functional.mse_loss(network(batch[0])[:, 0], batch[1])

    rate = partial(training.one_cycle, peak=1e-3)
    settings = {"epochs": 12, "batch_size": 16, "seed": 0, "schedule": rate}
    adam = partial(torch.optim.Adam, lr=1e-3)
    training.fit(model, squared_error, train.batches(), validation=val.batches(), optimizer=adam, **settings)
    model.load_state_dict({name: value.half() for name, value in model.state_dict().items()})
    apart = (models.predict(model, test.images)[:, 0] - test.labels).abs().mean().item()
    about = {"classes": [], "image": [3, 32, 32], "note": "", "poolings": 2, "mae": apart, "epochs": 12} | RECTANGLES
    save_half(model, build, WEIGHTS / "p2_rectangles.safetensors", about)


def signlab_data(_out: Path, folder: Path) -> dict[str, Any]:
    """Weights, layers and the enlargement as the page takes them."""
    model = signlab_network(folder)
    about = model.about
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


# insertion and deletion player (paper 5) ------------------------------------------------------------------------

ROADS = {"size": 64, "width": 8, "epochs": 12, "rate": 4e-3}
STEPS, SEED = 28, 0
BLANKS = ("zero", "black", "blur")


def player_network(folder: Path = WEIGHTS) -> nn.Module:
    """The player's Attention Branch Network, with what is known of it in `about`: scale and accuracy."""
    return trained("p5_road_abn", folder)


def prepare_player() -> None:
    """Train the network and choose the crops: a few minutes on one core; needs the road_cracks set.

    Of each of the road segments of the test part the first crop with a crack of which the network is sure (probability
    of at least 0.9), two at most.
    """
    roads = data.load("road_cracks", size=ROADS["size"])
    train, val, test = (roads.subset(part) for part in ("train", "val", "test"))
    scale, rate = paper5.scale_of(train), ROADS["rate"]
    build = partial(paper5.network, "abn", 18, 2, ROADS["width"], 1, SEED, theta=0.0)
    abn = build()
    parts = [part.batches(partial(paper5.scaled, scale=scale)) for part in (train, val)]
    decay = partial(torch.optim.AdamW, lr=rate, weight_decay=5e-2)
    settings = {"epochs": ROADS["epochs"], "batch_size": 32, "seed": SEED, "augment": paper5.augment}
    training.fit(
        abn, partial(models.branch_loss, weight=0.1), parts[0], validation=parts[1],
        optimizer=lambda _: decay(abn.parameter_groups(rate, 10 * rate)),
        schedule=partial(training.one_cycle, peak=[rate, 10 * rate]), **settings,
    )  # fmt: skip
    abn.load_state_dict({k: v.half().to(v.dtype) if v.is_floating_point() else v for k, v in abn.state_dict().items()})
    right = {
        name: (models.predict(abn, paper5.scaled(part.images, scale)).argmax(1) == part.labels).float().mean().item()
        for name, part in {"validation": val, "test": test}.items()
    }
    side = ROADS["size"]
    about = {"classes": list(roads.class_names), "image": [1, side, side], "note": str(scale), "seed": SEED} | ROADS
    about |= {"mean": scale.mean, "std": scale.std, "accuracy": right}
    save_half(abn, build, WEIGHTS / "p5_road_abn.safetensors", about)
    cracks = paper5.crack_crops(test, len(test))
    crack = roads.class_names.index("crack")
    sure = models.predict(abn, paper5.scaled(cracks.images, scale)).softmax(1)[:, crack] >= 0.9
    rows = [
        int(np.flatnonzero(sure.numpy() & (cracks.groups == segment))[0]) for segment in _in_order(cracks.groups[sure])
    ]
    chosen = cracks.take(np.array(rows[:2]))
    about = {"ids": chosen.ids, "groups": chosen.groups, "crack": crack}
    np.savez_compressed(SOURCE / "player" / "crops.npz", pixels=chosen.pixels, masks=chosen.masks, **about)


def _in_order(names: np.ndarray) -> list[str]:
    return list(dict.fromkeys(names.tolist()))


def player_maps(abn: nn.Module, x: Tensor, target: int, masks: Tensor) -> dict[str, Tensor]:
    """The maps (N, H, W) of the five methods, all of one network, the true mask, and the map that says nothing."""
    explainers = {
        "RISE": explain.RISE(abn, n_masks=300, seed=SEED),
        "Grad-CAM": explain.GradCAM(abn, paper5.last_block(abn)),
        "LRP": explain.LRPBN(abn, skip="none", branches="perception", multiply=False, c1c=False),
        "ABN": explain.AttentionMap(abn),
        "LRP-BN": explain.LRPBN(abn, skip=0.5),
    }
    maps = {name: explainer.attribute(x, target).float() for name, explainer in explainers.items()}
    return maps | {"true mask": masks.float(), "blank map": torch.zeros_like(masks, dtype=torch.float32)}


def _untied(maps: Tensor, mixed: Tensor) -> Tensor:
    """Maps (N, H, W) with the same order of pixels, and equal ones in the order `mixed` (H W,): no two are equal."""
    order = maps.flatten(1)[:, mixed].argsort(dim=1, descending=True, stable=True)
    falling = -torch.arange(len(mixed), dtype=torch.float32).expand(len(maps), -1)
    return torch.empty_like(falling).scatter_(1, mixed[order], falling).view_as(maps)


def player_data(_out: Path, folder: Path) -> dict[str, Any]:
    """Pictures, maps and curves of every crop under every blank image and every order of equal pixels."""
    abn = player_network(folder)
    about = abn.about
    with np.load(SOURCE / "player" / "crops.npz") as crops:
        pixels, masks, ids = torch.from_numpy(crops["pixels"]), torch.from_numpy(crops["masks"]), crops["ids"].tolist()
        target = int(crops["crack"])
    scale = paper5.Scale(tuple(about["mean"]), tuple(about["std"]))
    x = paper5.scaled(pixels.float() / 255, scale)
    maps = player_maps(abn, x, target, masks)
    blurred = gaussian_filter(pixels.double().numpy() / 255, 5.0, radius=5, mode="mirror", axes=(2, 3))
    generator = seeds.generator(SEED, "ties")
    mixed = torch.rand(1, pixels[0].numel(), generator=generator, dtype=torch.float64).argsort(1)[0]
    images = [
        {
            "id": name, "picture": _base64(pixels[i].numpy()), "blur": _base64(blurred[i].astype("<f4")),
            "maps": {key: _base64(values[i].numpy().astype("<f4")) for key, values in maps.items()},
            "curves": {}, "tied": {},
        }
        for i, name in enumerate(ids)
    ]  # fmt: skip
    stacked, rows = torch.cat(list(maps.values())), [(key, i) for key in maps for i in range(len(ids))]
    several = x.repeat(len(maps), 1, 1, 1)
    scored = partial(insertion_deletion, abn, target=target, steps=STEPS, normalization=scale)
    for blank in BLANKS:
        found = {"reading": scored(several, stacked, baseline=blank)}
        tied = found["reading"].tied > 0  # without equal pixels the three orders are one
        some, own = several[tied], stacked[tied]
        found["random"] = scored(some, _untied(own, mixed), baseline=blank)  # none are equal any more
        found["together"] = scored(some, own, baseline=blank, ties="together")
        place = tied.cumsum(0) - 1
        for n, (key, i) in enumerate(rows):
            images[i]["tied"][key] = found["reading"].tied[n].item()
            for ties, curves in found.items():
                row = place[n] if ties != "reading" and tied[n] else n
                curves = curves if ties == "reading" or tied[n] else found["reading"]
                both = [curves.insertion[row].tolist(), curves.deletion[row].tolist()]
                images[i]["curves"][f"{blank} {ties} {key}"] = both
    return {
        "size": about["size"],
        "steps": STEPS,
        "first": np.rint(np.arange(STEPS + 1) * pixels[0].numel() / STEPS).astype(int).tolist(),
        "grey": about["mean"][0],
        "mixed": _base64(mixed.numpy().astype("<u2")),
        "images": images,
    }


# draw a digit (paper 1) -----------------------------------------------------------------------------------------

MORPH = 18  # n of eq. (2): the film has 19 images
EXAMPLES = "p1_id_cvae_examples.npz"  # beside the weights
CODES, NEIGHBOURS = 250, 10  # training codes of each class that the path along the data walks on, and its edges


class _Encoder(nn.Module):
    """E(x), the mean."""

    def __init__(self, model: models.IDCVAE) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        """(N, 1, 28, 28) -> (N, latent_dim)."""
        return self.model.encode(x)[0]


class _Decoder(nn.Module):
    """D(z, l) before its sigmoid, the label one-hot."""

    def __init__(self, model: models.IDCVAE) -> None:
        super().__init__()
        self.model = model

    def forward(self, z: Tensor, label: Tensor) -> Tensor:
        """Latents (N, latent_dim) and labels (N, n_classes) -> (N, 1, 28, 28)."""
        return self.model.decoder(self.model.latent_input(z) + label @ self.model.label_input.weight)


def digits_network(folder: Path = WEIGHTS) -> models.IDCVAE:
    """The trained ID-CVAE."""
    return trained("p1_id_cvae", folder)


def export_digits(model: models.IDCVAE, folder: Path) -> None:
    """Write encoder.onnx (x -> z) and decoder.onnx (z, label one-hot -> logits), the number of images left open."""
    n = torch.export.Dim("n", min=1, max=256)
    code = {"z": torch.zeros(2, model.latent_dim), "label": torch.zeros(2, model.n_classes)}
    for name, network, given, output in (
        ("encoder", _Encoder(model), {"x": torch.zeros(2, *model.image_shape)}, "z"),
        ("decoder", _Decoder(model), code, "logits"),
    ):
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")  # of the exporter, about itself
            torch.onnx.export(
                network.eval(), tuple(given.values()), folder / f"{name}.onnx", dynamo=True, external_data=False,
                input_names=list(given), output_names=[output], dynamic_shapes=tuple({0: n} for _ in given),
                verbose=False,
            )  # fmt: skip


def prepare_digits() -> None:
    """Choose the digits that stand in the page, and compute prototypes and codes; needs MNIST and the weights."""
    digits_examples(digits_network(), data.load("mnist"), WEIGHTS / EXAMPLES)


def digits_examples(model: models.IDCVAE, digits: data.ImageSet, path: Path) -> None:
    """Write prototypes (10, f), codes (10, 250, f), and up to ten test digits: four that are read right, six wrong.

    Right: the first test image of the labels 0, 3, 5 and 8. Wrong: those whose predicted label redraws them best,
    compared with the true one, a pair of labels once.
    """
    train, test = digits.subset("train"), digits.subset("test")
    loader = [(train.images[rows], train.labels[rows]) for rows in torch.arange(len(train)).split(1000)]
    prototypes = explain.class_prototypes(model, loader)
    some = min(CODES, int(train.labels.bincount().min()))
    codes = torch.stack([model.encode(train.images[train.labels == label][:some])[0] for label in range(10)])
    losses = torch.cat([model.label_losses(part) for part in test.images.split(1000)])
    predicted, true = losses.argmin(1), test.labels
    right = [int(row) for label in (0, 3, 5, 8) for row in ((predicted == true) & (true == label)).nonzero()[:1, 0]]
    margin = losses.gather(1, true[:, None])[:, 0] - losses.amin(1)
    pairs = {(true[row].item(), predicted[row].item()): row for row in margin.argsort().tolist()}
    by_margin = sorted((row for (a, b), row in pairs.items() if a != b), key=lambda row: -margin[row])
    rows = right + by_margin[:6]
    found = {"prototypes": prototypes.half(), "codes": codes.half(), "labels": true[rows], "ids": test.ids[rows]}
    pixels = (test.images[rows, 0] * 255).round().to(torch.uint8)
    np.savez_compressed(path, pixels=pixels, weights=fingerprint(model), **found)


def fingerprint(model: nn.Module) -> str:
    """SHA-256 of the network's weights, by which the examples say whose they are."""
    values = (value.numpy().tobytes() for value in model.state_dict().values())
    return hashlib.sha256(b"".join(values)).hexdigest()


@torch.no_grad()
def digits_data(out: Path, folder: Path) -> dict[str, Any]:
    """Prototypes, codes and the examples' redrawings, losses and films; the networks are written into `out`."""
    model, examples = digits_network(folder), folder / EXAMPLES
    if not examples.is_file():
        raise FileNotFoundError(f"{examples.name} is missing: python site/make_data.py --prepare digits")
    with np.load(examples) as stored:
        if str(stored["weights"]) != fingerprint(model):
            raise FileNotFoundError(f"{examples.name} is of other weights: python site/make_data.py --prepare digits")
        arrays = {name: stored[name] for name in stored.files}
    export_digits(model, out)
    prototypes, codes = (torch.from_numpy(arrays[name]).float() for name in ("prototypes", "codes"))
    images = torch.from_numpy(arrays["pixels"])[:, None].float() / 255
    losses, start = model.label_losses(images), model.encode(images)[0]
    shown = []
    for i, label in enumerate(losses.argmin(1).tolist()):
        paths = {
            "straight": explain.straight_path(start[i : i + 1], prototypes[label][None], MORPH),
            "along": explain.path_along_data(start[i : i + 1], prototypes[label], codes[label], MORPH, NEIGHBOURS),
        }
        films = {name: explain.decode_path(model, path, label)[0] for name, path in paths.items()}
        drawn = model.decode(start[i].expand(10, -1), torch.arange(10))
        shown.append(
            {
                "id": str(arrays["ids"][i]),
                "label": int(arrays["labels"][i]),
                "pixels": _base64(arrays["pixels"][i]),
                "losses": losses[i].tolist(),
                "drawn": _base64(_levels(drawn)),
                "films": {name: _base64(_levels(film)) for name, film in films.items()},
            }
        )
    return {
        "steps": MORPH,
        "neighbours": NEIGHBOURS,
        "latent": model.latent_dim,
        "prototypes": prototypes.tolist(),
        "codes": _base64(arrays["codes"].astype("<f2")),
        "examples": shown,
        "bytes": sum((out / f"{name}.onnx").stat().st_size for name in ("encoder", "decoder")),
    }


def _levels(images: Tensor) -> np.ndarray:
    """Images in [0, 1] as grey levels 0 … 255."""
    return (images * 255).round().to(torch.uint8).numpy()


def main(arguments: list[str] | None = None) -> None:
    """The command line: see the module."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", nargs="?", type=Path, default=SITE.parent / "build" / "explorables")
    parser.add_argument("--prepare", nargs="*", choices=NAMES, metavar="NAME", help="make the committed files instead")
    options = parser.parse_args(arguments)
    if options.prepare is not None:
        steps = {"signlab": prepare_signlab, "player": prepare_player, "digits": prepare_digits}
        for name in options.prepare or NAMES:
            steps[name]()
        return
    for sentence in build(options.out):
        print(sentence, file=sys.stderr)


if __name__ == "__main__":
    main()
