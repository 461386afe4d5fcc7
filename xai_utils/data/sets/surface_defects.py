"""Drawn pictures of ground metal with and without defects: paper 3's kind of data for the quick profile."""

import numpy as np

from xai_utils.data.drawing import between, distance_to_line, grid, image_set, streaks, turned
from xai_utils.data.imageset import CYCLE, ImageSet
from xai_utils.seeds import numpy_rng

CLASSES = ("normal", "normal_scratch", "normal_dirt", "blowhole", "crack")
_BATCH = len(CLASSES) * len(CYCLE)  # every class in every place of the cycle, once
_STEPS = 12  # straight pieces of a line


def load_surface_defects(*, n: int = 2000, size: int = 64, seed: int = 0) -> ImageSet:
    """Draw n grey pictures of ground metal under uneven light, in five classes.

    The set of paper 3 is a company's and not public. What the text tells of it is copied: two defects, and normal
    classes that look like them, "normal (scratch)" (正常(キズ)) and "normal (dirt)" (正常(汚れ)), which the report's
    model takes defects for (fig. 3b, 3d).

    - normal: the ground metal alone.
    - normal_scratch: a straight or slightly bent line of even width; most are bright, four in ten dark like a crack.
    - normal_dirt: a flat, mottled stain with a soft edge.
    - blowhole (defect): a dark pit, one side of its rim shaded and the other lit; a shallow one looks like dirt.
    - crack (defect): a dark, jagged line that thins out towards its ends; a faint or nearly straight one
      looks like a scratch.

    The mask is the defect; it is never empty for the two defects and always for the three normal classes, since the
    report calls scratch and dirt normal: where no defect is, no map can lie on it, and P3.1 is undefined.

    Class and split follow from the number i of an image: class i mod 5, and 70 / 10 / 20 % train / val / test within
    every class, in the fixed order of `imageset.CYCLE`. Image i follows from `seed` and i alone, not from n. Lengths
    are shares of the side, but the grain is drawn pixel by pixel: another size is another picture, not a scaled one.

    Args:
        n: number of images, at least 25: fewer leave a class without validation images.
        size: height and width in pixels, at least 16.
        seed: of all that is drawn.

    Returns:
        images (n, 1, size, size) of 256 grey levels, masks; ids "surface_defects/00000" ….

    Raises:
        ValueError: n or size is too small or no int.
    """
    return image_set("surface_defects", CLASSES, _draw, _BATCH, n=n, size=size, seed=seed, least=(25, 16))


def _draw(seed: int, batch: int, masks: np.ndarray) -> np.ndarray:
    """One batch (B, size, size) in 0 … 255; the defects are entered in `masks`."""
    rng, size = numpy_rng(seed, "surface_defects", batch), masks.shape[1]
    drawn = rng.random((_BATCH, 8 + _STEPS))
    noise = rng.standard_normal((_BATCH, size, size), dtype=np.float32)
    metal = _metal(drawn[:, :8], noise)
    kinds = {name: slice(label, None, len(CLASSES)) for label, name in enumerate(CLASSES)}
    shapes = rng.random((_BATCH, 8 + _STEPS))
    for name, rows in kinds.items():
        if name in ("normal_scratch", "crack"):
            change, inside = _line(shapes[rows], size, jagged=name == "crack")
        elif name in ("normal_dirt", "blowhole"):
            change, inside = _spot(shapes[rows], noise[rows], pit=name == "blowhole")
        else:
            continue
        metal[rows] += change
        if name in ("blowhole", "crack"):
            masks[rows] = inside
    return np.rint(metal.clip(0, 1) * 255).astype(np.uint8)


def _metal(drawn: np.ndarray, noise: np.ndarray) -> np.ndarray:
    """Grey values of the ground: grinding marks of one direction, grain, and light that falls off to one side."""
    angle = between(-0.35, 0.35, drawn[:, 0])
    marks = between(0.015, 0.045, drawn[:, 1]) * streaks(noise, angle, 0.25, 0.006)
    marks += between(0.01, 0.03, drawn[:, 2]) * streaks(noise[:, ::-1], angle, 0.5, 0.03)
    down, across = grid(noise.shape[1])
    towards = between(0, 2 * np.pi, drawn[:, 3])
    slope = np.cos(towards) * (across - 0.5) + np.sin(towards) * (down - 0.5)
    light = between(0.45, 0.65, drawn[:, 4]) + between(0, 0.2, drawn[:, 5]) * slope
    shine = (np.cos(angle) * (down - 0.5) - np.sin(angle) * (across - 0.5) - between(-0.5, 0.5, drawn[:, 6])) / 0.15
    return light + between(0, 0.15, drawn[:, 7]) * np.exp(-0.5 * shine**2) + marks + 0.012 * noise


def _line(drawn: np.ndarray, size: int, *, jagged: bool) -> tuple[np.ndarray, np.ndarray]:
    """Change of the grey values (B, size, size) by a crack (jagged) or a scratch, and its pixels."""
    heading, length, row, column, bend, shade, width, dark = drawn[:, :8].T
    along = np.linspace(-0.5, 0.5, _STEPS)
    turn = (0.2 + 1.6 * bend[:, None]) * (2 * drawn[:, 8:] - 1) if jagged else (bend[:, None] - 0.5) * along
    angle = 2 * np.pi * heading[:, None] + turn
    steps = (0.35 + 0.4 * length[:, None, None]) / _STEPS * np.stack([np.sin(angle), np.cos(angle)], 2)
    path = np.concatenate([np.zeros((len(drawn), 1, 2)), steps.cumsum(1)], 1)
    centre = 0.3 + 0.4 * np.stack([row, column], 1)
    path = (path - path.mean(1, keepdims=True) + centre[:, None]).clip(0.04, 0.96)
    thin = 1 - 1.4 * np.abs(along) if jagged else np.ones(_STEPS)
    half = np.maximum((0.008 + 0.01 * width[:, None]) * thin, 0.75 / size)  # never narrower than the pixels' spacing
    near = distance_to_line(path, half, size)
    cover = (0.5 - near * size).clip(0, 1)
    if jagged:
        return -between(0.03, 0.28, shade) * cover, near < 0
    sign = np.where(dark < 0.4, -1.0, 0.8)[:, None, None]
    edge = (0.5 - (near - 1 / size) * size).clip(0, 1) - cover  # the burr beside the groove, of the other sign
    return sign * between(0.06, 0.3, shade) * (cover - 0.25 * edge), near < 0


def _spot(drawn: np.ndarray, noise: np.ndarray, *, pit: bool) -> tuple[np.ndarray, np.ndarray]:
    """Change of the grey values (B, size, size) by a blowhole (pit) or by dirt, and its pixels."""
    size, (down, across) = noise.shape[1], grid(noise.shape[1])
    down = down - between(0.15, 0.85, drawn[:, 0])
    across = across - between(0.15, 0.85, drawn[:, 1])
    stretch, turn = between(1, 1.6, drawn[:, 8]), between(0, np.pi, drawn[:, 9])
    along, beside = turned(down, across, turn)
    distance, angle = np.hypot(along / stretch, beside), np.arctan2(down, across)
    radius = between(0.035, 0.08, drawn[:, 2]) if pit else between(0.045, 0.11, drawn[:, 2])
    radius = np.maximum(radius, 1.1 / size)
    waves = [np.cos(k * angle + between(0, 2 * np.pi, drawn[:, k])) / k for k in (3, 4, 5)]
    outline = radius * (1 + (0.25 if pit else 0.4) * sum(waves))
    if not pit:
        soft = between(0.006, 0.035, drawn[:, 6])
        mottled = 1 + 0.4 * streaks(noise, turn, 0.04, 0.02)
        cover = 1 / (1 + np.exp(np.clip((distance - outline) / soft, -30, 30)))
        return -between(0.08, 0.28, drawn[:, 7]) * mottled * cover, distance < outline
    cover = (0.5 + (outline - distance) * size / between(1, 3, drawn[:, 10])).clip(0, 1)
    rim = np.exp(-(((distance - outline) / (0.3 * radius)) ** 2)) * np.cos(angle - between(0, 2 * np.pi, drawn[:, 6]))
    return between(0.04, 0.35, drawn[:, 7]) * (0.4 * rim - cover), distance < outline
