"""Drawn chest radiographs with and without an opacity: paper 4's kind of data for the quick profile."""

import numpy as np

from xai_utils.data.drawing import between, blurred, grid, image_set, turned
from xai_utils.data.imageset import CYCLE, ImageSet
from xai_utils.seeds import numpy_rng

CLASSES = ("normal", "opacity")
_BATCH = len(CLASSES) * len(CYCLE)  # every class in every place of the cycle, once


def load_radiographs(*, n: int = 1000, size: int = 64, seed: int = 0) -> ImageSet:
    """Draw n pictures of one composition, like frontal chest radiographs: dense is bright, air is dark.

    Every picture has two lung fields with domed diaphragms below them, ribs that cross in front and behind, spine,
    collarbones, a heart that reaches further to the right of the picture (the patient's left), vessels that leave the
    lungs' roots, and neck, shoulders and flanks with air beside them. Shift, turn, size, proportions, breath, heart,
    exposure and noise differ from picture to picture, and are drawn alike for both classes.

    - normal: that alone. Vessels and crossing ribs make bright spots, too.
    - opacity: a soft, mottled blotch of irregular outline somewhere inside one lung field, partly behind ribs or
      beside the heart; from dense to so faint that it is lost among the vessels. A ResNet-18 of width 8, trained on
      350 images of 64 pixels for 16 epochs, is right on 0.88 of others (0.86 to 0.90, four seeds).

    The mask is where the opacity has at least half of its density; it is never empty for "opacity" and always for
    "normal". No anatomy was measured for this: it is a stand-in whose composition is known, for ideas and code, and
    says nothing about patients.

    Class and split follow from the number i of an image: class i mod 2, and 70 / 10 / 20 % train / val / test within
    both classes, in the fixed order of `imageset.CYCLE`. Image i follows from `seed` and i alone, not from n. Lengths
    are shares of the side, but the noise is drawn pixel by pixel: another size is another picture, not a scaled one.

    Args:
        n: number of images, at least 10: fewer leave a class without validation images.
        size: height and width in pixels, at least 32.
        seed: of all that is drawn.

    Returns:
        images (n, 1, size, size) of 256 grey levels, masks; ids "radiographs/00000" ….

    Raises:
        ValueError: n or size is too small or no int.
    """
    return image_set("radiographs", CLASSES, _draw, _BATCH, n=n, size=size, seed=seed, least=(10, 32))


def _draw(seed: int, batch: int, masks: np.ndarray) -> np.ndarray:
    """One batch (B, size, size) in 0 … 255; the opacities are entered in `masks`."""
    rng, size = numpy_rng(seed, "radiographs", batch), masks.shape[1]
    pose, body, film, shape = (rng.random((_BATCH, 16)) for _ in range(4))
    vessels, mottle, grain = rng.standard_normal((3, _BATCH, size, size), dtype=np.float32)
    across, down = _posed(pose, size)
    lungs = _lungs(across, down, body)
    density = _anatomy(across, down, lungs, body, vessels)
    sick = slice(1, None, len(CLASSES))
    cover, masks[sick] = _opacity(across[sick], down[sick], lungs[sick], body[sick], shape[sick])
    density[sick] += between(0.16, 0.42, shape[sick, 9]) * cover * (1 + 0.25 * blurred(mottle[sick], 0.025))
    return _exposed(density, film, grain)


def _soft(inside: np.ndarray, edge: float | np.ndarray) -> np.ndarray:
    """0 where `inside` is below -3 `edge`, 1 above 3 `edge`, and smooth between them."""
    share = (0.5 + inside / (6 * edge)).clip(0, 1)
    return share * share * (3 - 2 * share)


def _bump(distance: np.ndarray, width: float | np.ndarray) -> np.ndarray:
    """A Gaussian of height 1."""
    return np.exp(-0.5 * (distance / width) ** 2)


def _posed(drawn: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Places (B, size, size) of the pixels in the body: from the midline, and down from the middle of the picture."""
    down, across = grid(size)
    across, down = across - 0.5 - between(-0.04, 0.04, drawn[:, 0]), down - 0.5 - between(-0.04, 0.04, drawn[:, 1])
    turn, scale = between(-0.08, 0.08, drawn[:, 2]), between(0.9, 1.08, drawn[:, 3])
    wide = between(0.93, 1.07, drawn[:, 4])
    u, v = turned(down, across, turn)
    return u / (scale * wide), v * wide / scale


def _cage(down: np.ndarray) -> np.ndarray:
    """Half width of the rib cage at a height: none above the tips of the lungs, widest near the diaphragm."""
    return 0.37 * np.sqrt((1 - ((down - 0.22) / 0.6) ** 2).clip(0))


def _floor(across: np.ndarray, drawn: np.ndarray) -> np.ndarray:
    """Height of the diaphragm: a dome on either side, the liver's (left in the picture) higher."""
    breath, left = between(0.22, 0.32, drawn[:, 0]), between(0.0, 0.05, drawn[:, 1])
    return breath + 2.2 * (np.abs(across) - 0.17) ** 2 - left * _soft(-across, 0.02)


def _lungs(across: np.ndarray, down: np.ndarray, drawn: np.ndarray) -> np.ndarray:
    """Share of air (B, size, size), 0 … 1: 1 inside the lung fields."""
    beside = np.abs(across)
    inner = between(0.05, 0.075, drawn[:, 2]) + 0.03 * _soft(down - 0.05, 0.05)
    return (
        _soft(beside - inner, 0.008) * _soft(_cage(down) - beside, 0.008) * _soft(_floor(across, drawn) - down, 0.006)
    )


def _ribs(across: np.ndarray, down: np.ndarray, drawn: np.ndarray) -> np.ndarray:
    """Density of the ribs (B, size, size): bands that fall outwards behind, fainter ones that fall inwards in front."""
    beside, gap, cage = np.abs(across), between(0.085, 0.105, drawn[:, 3]), _cage(down)
    first, total = between(0, 1, drawn[:, 4]), np.zeros_like(across)
    for height, slope, bend, strength in ((0, 0.05, 1.1, 1.0), (0.5, 0.65, 0.5, 0.5)):
        along = (down + slope * beside - bend * (beside - 0.12) ** 2) / gap + first + height
        total += strength * _bump((along + 0.5) % 1 - 0.5, 0.16)
    edge = 0.8 * _bump(beside - cage, 0.012) * _soft(down + 0.34, 0.02)  # the border, where ribs run along the view
    return (total * _soft(cage + 0.01 - beside, 0.008) + edge) * _soft(beside - 0.03, 0.01)


def _anatomy(
    across: np.ndarray, down: np.ndarray, lungs: np.ndarray, drawn: np.ndarray, noise: np.ndarray
) -> np.ndarray:
    """Density (B, size, size) that the rays meet; 0 is air, soft tissue is about 0.6."""
    beside = np.abs(across)
    shoulder = 0.11 + 0.42 * _soft(down + 0.37 - 0.25 * (beside - 0.2), 0.025) - 0.09 * _soft(down + 0.02, 0.06)
    body = _soft(shoulder + between(-0.03, 0.05, drawn[:, 5]) - beside, 0.012)
    density = body * (0.5 + 0.18 * np.sqrt((1 - (across / 0.6) ** 2).clip(0)))
    density -= lungs * between(0.34, 0.42, drawn[:, 6])
    density += 0.1 * _soft(down - _floor(across, drawn), 0.006) * body
    wide, tilt = between(0.125, 0.17, drawn[:, 7]), between(0.3, 0.6, drawn[:, 8])
    x, y = across - between(0.045, 0.075, drawn[:, 9]), down - 0.13
    long, broad = turned(y, x, tilt)
    heart = np.hypot(long / wide, broad / 0.13)
    middle = _soft(0.062 - np.abs(across - 0.01), 0.008) * _soft(down + 0.3, 0.03)
    knob = 0.5 * _soft(0.035 - np.hypot(across - 0.06, down + 0.13), 0.008)
    density += 0.3 * np.maximum(np.maximum(_soft(1 - heart, 0.05), middle), knob) * body
    discs = 1 + 0.35 * np.cos(2 * np.pi * (down / 0.058 + drawn[:, 10, None, None]))
    density += 0.09 * _soft(0.032 - beside, 0.006) * discs * body
    density -= 0.12 * _bump(across, 0.016) * _soft(-0.16 - down, 0.03) * body  # the windpipe
    density += between(0.06, 0.11, drawn[:, 11]) * _ribs(across, down, drawn) * body
    collar = down + 0.29 + 0.3 * (beside - 0.05) - 0.45 * (beside - 0.2).clip(0) ** 2
    density += 0.12 * _bump(collar, 0.014) * _soft(beside - 0.035, 0.01) * _soft(0.36 - beside, 0.015) * body
    root = _bump(np.hypot(beside - 0.1, 0.6 * (down - 0.02)), 0.09)
    branches = between(0.011, 0.032, drawn[:, 12]) * (blurred(noise, 0.018) + blurred(noise[:, ::-1], 0.04))
    return density + lungs * (0.1 * root + (0.5 + 0.4 * root) * branches)


def _opacity(
    across: np.ndarray, down: np.ndarray, lungs: np.ndarray, body: np.ndarray, drawn: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Cover (B, size, size) in 0 … 1 by one blotch inside a lung field, and its pixels."""
    side = np.where(drawn[:, 0] < 0.5, -1.0, 1.0)[:, None, None]
    v = between(-0.22, 0.2, drawn[:, 1])
    inner, outer = 0.13 + 0.05 * (side > 0) * (v > 0), _cage(v) - 0.05
    u = inner + (outer - inner) * drawn[:, 2, None, None]
    v = np.minimum(v, _floor(side * u, body) - 0.05)
    x, y = across - side * u, down - v
    turn, stretch = between(0, np.pi, drawn[:, 3]), between(1, 1.6, drawn[:, 4])
    along, beside = turned(y, x, turn)
    distance, angle = np.hypot(along / stretch, beside), np.arctan2(y, x)
    waves = sum(np.cos(k * angle + between(0, 2 * np.pi, drawn[:, 3 + k])) / k for k in (2, 3, 4))
    radius = between(0.055, 0.11, drawn[:, 8])
    cover = _soft(radius * (1 + 0.3 * waves) - distance, 0.2 * radius) * lungs
    return cover, cover > 0.5


def _exposed(density: np.ndarray, drawn: np.ndarray, noise: np.ndarray) -> np.ndarray:
    """The film (B, size, size) in 0 … 255: brighter the denser, with its own exposure, contrast, fog and grain."""
    grey = 1 - np.exp(-between(1.3, 1.9, drawn[:, 0]) * density.clip(0) ** between(0.95, 1.25, drawn[:, 1]))
    grey = between(0.03, 0.12, drawn[:, 2]) + between(0.95, 1.1, drawn[:, 3]) * grey
    grain = between(0.008, 0.03, drawn[:, 4]) * (0.6 * noise + 0.4 * blurred(noise[:, ::-1], 0.012))
    return np.rint((grey + grain).clip(0, 1) * 255).astype(np.uint8)
