"""Drawn close-ups of asphalt with and without cracks: paper 5's kind of data for the quick profile."""

import numpy as np

from xai_utils.data.drawing import between, distance_to_line, grid, image_set, streaks, turned
from xai_utils.data.imageset import CYCLE, ImageSet
from xai_utils.seeds import numpy_rng

CLASSES = ("no_crack", "crack")
_BATCH = 2 * len(CLASSES) * len(CYCLE)
_SHAPE = 9  # numbers that say where a crack runs, how wide and how dark it is
_STEPS = 14  # straight pieces of a crack
_TWIGS = 6  # and of a branch
_BRANCHES = 2


def load_road_patches(*, n: int = 1000, size: int = 64, seed: int = 0) -> ImageSet:
    """Draw n grey patches of asphalt, half of them with cracks.

    A crack is dark and irregular, of changing width, with up to two branches; its contrast goes from weak to
    strong. Three in ten images of the class have two separate cracks, side by side. In both classes alike there are
    things that are no cracks: joints (straight lines of even width, three in ten images), white markings (one in five),
    stains, shadows with a soft edge (one in four each), the grain of the asphalt and wheel tracks.

    The mask is the cracks, never empty for the class "crack". Class and split follow from the number i of an image:
    class i mod 2, and 70 / 10 / 20 % train / val / test within both, in the fixed order of `imageset.CYCLE`. Image i
    follows from `seed` and i alone, not from n. Lengths are shares of the side, but the grain is drawn pixel by pixel:
    another size is another picture, not a scaled one.

    Args:
        n: number of images, at least 20: fewer leave a split without one of the classes.
        size: height and width in pixels, at least 16.
        seed: of all that is drawn.

    Returns:
        images (n, 1, size, size) of 256 grey levels, masks; ids "road_patches/00000" ….

    Raises:
        ValueError: n or size is too small or no int.
    """
    return image_set("road_patches", CLASSES, _draw, _BATCH, n=n, size=size, seed=seed, least=(20, 16))


def _draw(seed: int, batch: int, masks: np.ndarray) -> np.ndarray:
    """One batch (B, size, size) in 0 … 255; the cracks are entered in `masks`."""
    rng, size = numpy_rng(seed, "road_patches", batch), masks.shape[1]
    ground, lines = rng.random((_BATCH, 32)), rng.random((_BATCH, 2, _SHAPE + _STEPS + _BRANCHES * (_TWIGS + 4)))
    noise = rng.standard_normal((_BATCH, size, size), dtype=np.float32)
    road = _asphalt(ground, noise)
    cracked = slice(CLASSES.index("crack"), None, len(CLASSES))
    cover, inside = _cracks(lines[cracked], size)
    rough = 1 + 0.35 * streaks(noise[cracked, ::-1, ::-1], np.zeros((1, 1, 1)), 0.03, 0.03)  # crumbling edges
    road[cracked] *= 1 - (cover * rough).clip(0, 1)
    masks[cracked] = inside
    return np.rint(road.clip(0, 1) * 255).astype(np.uint8)


def _asphalt(drawn: np.ndarray, noise: np.ndarray) -> np.ndarray:
    """Grey values (B, size, size) of a road without cracks."""
    size, (down, across) = noise.shape[1], grid(noise.shape[1])
    down, across, flat = down - 0.5, across - 0.5, np.zeros((1, 1, 1))
    grain = between(0.02, 0.07, drawn[:, 0]) * streaks(noise, flat, 0.55 / size, 0.45 / size)
    grain += between(0.01, 0.04, drawn[:, 1]) * streaks(noise[:, ::-1], flat, 0.03, 0.02)
    stones = (noise[:, :, ::-1] > between(2.3, 3.2, drawn[:, 2])) * between(0.05, 0.3, drawn[:, 3])
    towards = between(0, 2 * np.pi, drawn[:, 4])
    slope = turned(down, across, towards)[0]
    light = between(0.32, 0.62, drawn[:, 5]) + between(0, 0.12, drawn[:, 6]) * slope
    upright = np.pi / 2 + between(-0.5, 0.5, drawn[:, 7])
    track = (turned(down, across, upright)[1] - between(-0.5, 0.5, drawn[:, 8])) / 0.18
    light *= 1 - between(0, 0.15, drawn[:, 9]) * np.exp(-0.5 * track**2)
    road = light * (1 + 1.3 * (grain + stones))

    stain = streaks(noise[:, ::-1, ::-1], flat, 0.05, 0.04)
    away = np.hypot(down - between(-0.4, 0.4, drawn[:, 10]), across - between(-0.4, 0.4, drawn[:, 11]))
    edge = (between(0.06, 0.2, drawn[:, 12]) * (1 + 0.3 * stain) - away) / between(0.01, 0.04, drawn[:, 13])
    road *= 1 - _some(drawn[:, 14], 0.25) * between(0.15, 0.45, drawn[:, 15]) * _soft(edge)

    beside = turned(down, across, between(0, np.pi, drawn[:, 16]))[1] - between(-0.4, 0.4, drawn[:, 17])
    half = np.maximum(between(0.006, 0.016, drawn[:, 18]), 0.75 / size)
    joint = (0.5 + (half - np.abs(beside)) * size).clip(0, 1)
    depth = np.where(drawn[:, 19] < 0.75, 0.15 + 0.5 * drawn[:, 20], -0.1 - 0.2 * drawn[:, 20])[:, None, None]
    road *= 1 - _some(drawn[:, 21], 0.3) * depth * joint  # a quarter of them are lighter than the road

    beside = turned(down, across, upright + between(-0.4, 0.4, drawn[:, 22]))[1] - between(-0.5, 0.5, drawn[:, 23])
    paint = (0.5 + (between(0.05, 0.13, drawn[:, 24]) - np.abs(beside)) * size / 2).clip(0, 1)
    worn = (0.8 + 0.35 * streaks(noise[:, ::-1], flat, 0.02, 0.02)).clip(0, 1)
    paint *= worn * _some(drawn[:, 25], 0.2) * between(0.5, 0.95, drawn[:, 26])
    road += paint * (0.85 - road) * (1 + grain)

    sunless = turned(down, across, between(0, 2 * np.pi, drawn[:, 27]))[0] - between(-0.4, 0.4, drawn[:, 28])
    sunless = sunless + 0.05 * stain * (drawn[:, 31] < 0.5)[:, None, None]  # of a tree, or of something straight
    shadow = _soft(sunless / between(0.008, 0.04, drawn[:, 29]))
    return road * (1 - _some(drawn[:, 30], 0.25) * 0.4 * shadow)


def _some(drawn: np.ndarray, share: float) -> np.ndarray:
    """Whether an image has a thing, (B, 1, 1)."""
    return (drawn < share)[:, None, None]


def _soft(distance: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-np.clip(distance, -30, 30)))


def _cracks(drawn: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Share of the light that is lost (B, size, size), and the cracks' pixels; drawn is (B, 2 cracks, numbers)."""
    two = drawn[:, 0, 0] < 0.3
    heading = 2 * np.pi * drawn[:, 0, 1]
    contrast = 0.25 + 0.5 * drawn[:, :, 2]
    cover, inside = np.zeros((2, len(drawn), size, size))
    for k in (0, 1):
        rows = np.arange(len(drawn)) if k == 0 else np.flatnonzero(two)
        one, pair = drawn[rows, k], two[rows]
        # of two, each keeps to its own side of the middle
        angle = heading[rows] + np.where(pair, 0.3, 0) * (2 * one[:, 3] - 1)
        beside = np.where(pair, (0.24 + 0.08 * one[:, 4]) * (1 - 2 * k), 0.5 * (one[:, 4] - 0.5))
        along = np.where(pair, 0.2, 0.4) * (one[:, 5] - 0.5)
        direction = np.stack([np.sin(heading[rows]), np.cos(heading[rows])], 1)
        across = np.stack([direction[:, 1], -direction[:, 0]], 1)
        middle = 0.5 + along[:, None] * direction + beside[:, None] * across
        length = np.where(pair, 0.35 + 0.3 * one[:, 6], 0.6 + 0.7 * one[:, 6])
        wild = np.where(pair, 0.35, 0.3 + 0.6 * one[:, 7])
        turns = wild[:, None] * (2 * one[:, _SHAPE : _SHAPE + _STEPS] - 1)
        bends = angle[:, None] + 1.3 * turns + 0.35 * (turns.cumsum(1) - turns.cumsum(1).mean(1, keepdims=True))
        path = _walk(middle, bends, length)
        path += middle[:, None] - path.mean(1, keepdims=True)
        half = 0.009 + 0.014 * one[:, 8]
        taper = 1 - 0.9 * np.abs(np.linspace(-1, 1, _STEPS)) ** 2
        widths = half[:, None] * taper * (0.6 + 0.8 * np.roll(one[:, _SHAPE : _SHAPE + _STEPS], 3, 1))
        near = distance_to_line(path, np.maximum(widths, 0.7 / size), size)
        for branch in range(_BRANCHES):
            first = _SHAPE + _STEPS + branch * (_TWIGS + 4)
            has, at, turn, reach = one[:, first : first + 4].T
            knot = (2 + (_STEPS - 4) * at).astype(int)
            side = np.where(turn < 0.5, -1, 1) * (0.5 + 1.2 * np.abs(2 * turn - 1))
            twig = side[:, None] + 0.8 * (2 * one[:, first + 4 : first + 4 + _TWIGS] - 1)
            start, onward = path[np.arange(len(rows)), knot], bends[np.arange(len(rows)), knot]
            route = _walk(start, onward[:, None] + twig, 0.15 + 0.25 * reach)
            thin = 0.7 * half[:, None] * np.linspace(1, 0.5, _TWIGS)
            grown = (has < 0.5) & ~pair
            near[grown] = np.minimum(
                near[grown], distance_to_line(route[grown], np.maximum(thin[grown], 0.6 / size), size)
            )
        cover[rows] = np.maximum(cover[rows], contrast[rows, k, None, None] * (0.5 - near * size).clip(0, 1))
        inside[rows] = np.maximum(inside[rows], near < 0)
    return cover, inside > 0


def _walk(start: np.ndarray, angles: np.ndarray, length: np.ndarray) -> np.ndarray:
    """Corners (B, K + 1, 2) as row and column of K equal steps that begin at `start` (B, 2)."""
    steps = np.stack([np.sin(angles), np.cos(angles)], 2) * (length / angles.shape[1])[:, None, None]
    return start[:, None] + np.concatenate([np.zeros_like(steps[:, :1]), steps.cumsum(1)], 1)
