"""Square crops along cracks, each with a partner of the same place and light in an image without a crack there."""

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

CLASSES = ("no_crack", "crack")


@dataclass(frozen=True)
class Crop:
    """A square of a source image; lengths in pixels of that image."""

    image: str
    x: int  # left
    y: int  # top
    side: int
    split: str
    label: int  # of CLASSES
    height: int  # of the image: two formats occur
    brightness: float  # mean grey, 0 … 255
    contrast: float  # standard deviation of the grey

    @property
    def id(self) -> str:
        """Image, left, top and side."""
        return f"{self.image}/{self.x}_{self.y}_{self.side}"


@dataclass(frozen=True)
class Source:
    """A source image, read when it is needed."""

    name: str
    split: str
    group: str
    height: int
    boxes: Callable[[], Sequence[tuple[int, int, int, int]]]  # around cracks: left, top, right, bottom
    mask: Callable[[str], np.ndarray]  # (H, W) bool: "crack", "other" damage, "road"
    grey: Callable[[], np.ndarray]  # (H, W) 0 … 255


def draw_pairs(sources: Sequence[Source], rule: Mapping[str, Any]) -> list[Crop]:
    """Crack crops of some images, each with its partner from an image of the same height, in an order drawn by hash.

    Args:
        sources: images of one split.
        rule: as in sets/road_cracks.yaml, which says what the entries mean.

    Returns:
        crack crop, partner, crack crop, partner …
    """
    heights = sorted({source.height for source in sources})
    pairs = [pair for height in heights for pair in _pairs([s for s in sources if s.height == height], rule)]
    return [crop for pair in sorted(pairs, key=lambda pair: _lot(rule, pair[0].id)) for crop in pair]


def _pairs(sources: Sequence[Source], rule: Mapping[str, Any]) -> Iterator[tuple[Crop, Crop]]:
    found = [(column, box) for column, source in enumerate(sources) for box in _crack_boxes(source, rule)]
    if not found:
        return
    owner, boxes = np.array([column for column, _ in found]), np.array([box for _, box in found])
    grey, deviation = np.empty((2, len(boxes), len(sources)))
    free = np.empty(grey.shape, bool)
    for column, source in enumerate(sources):
        tables = _tables(source)
        free[:, column] = _usable(tables, boxes, rule) & (_damage(tables, boxes, rule["guard"]) == 0)
        grey[:, column], deviation[:, column] = _grey(source.grey().astype(np.int64), boxes)
    apart = np.abs(grey - grey[np.arange(len(boxes)), owner][:, None])
    groups = np.array([source.group for source in sources])
    cost = np.where(free & (apart <= rule["brightness"]), apart, np.inf)
    cost += 256 * (groups[None] != groups[owner][:, None])  # any image of the group before all others
    taken = [[] for _ in sources]
    for i in np.argsort(np.isfinite(cost).sum(1), kind="stable"):  # those with the least choice first
        for column in np.argsort(cost[i], kind="stable")[: np.isfinite(cost[i]).sum()]:
            if len(taken[column]) < rule["per_image"] and _overlap(boxes[i], taken[column]) <= rule["overlap"]:
                taken[column].append(boxes[i])
                both = ((sources[owner[i]], 1, owner[i]), (sources[column], 0, column))
                crack, other = (
                    Crop(
                        source.name,
                        *boxes[i].tolist(),
                        split=source.split,
                        label=label,
                        height=source.height,
                        brightness=float(grey[i, at]),
                        contrast=float(deviation[i, at]),
                    )
                    for source, label, at in both
                )
                yield crack, other
                break


def _crack_boxes(source: Source, rule: Mapping[str, Any]) -> list[tuple[int, int, int]]:
    """Crack crops of one image as (left, top, side)."""
    tables = _tables(source)
    height, width = (length - 1 for length in tables["crack"].shape)
    shortest, longest = rule["side"]
    squares = set()
    for left, top, right, bottom in source.boxes():
        across = min(right - left, bottom - top) * (1 + 2 * rule["margin"])
        side = round(min(max(across, shortest), longest))
        rows, columns = _starts(top, bottom, side, height), _starts(left, right, side, width)
        squares |= {(x, y, side) for y in rows for x in columns}
    if not squares:
        return []
    boxes = np.array(sorted(squares, key=lambda box: _lot(rule, f"{source.name}/{box}")))
    enough = _sum(tables["crack"], boxes) >= rule["crack_share"] * boxes[:, 2] ** 2
    kept = []
    for box in boxes[enough & _usable(tables, boxes, rule) & (_sum(tables["other"], boxes) == 0)]:
        if len(kept) < rule["per_image"] and _overlap(box, kept) <= rule["overlap"]:
            kept.append(box)
    return [tuple(box.tolist()) for box in kept]


def _starts(first: float, last: float, side: int, length: int) -> list[int]:
    """Where squares begin that cover first … last, evenly spread, inside the image: a single one in the middle."""
    n = max(1, int(np.ceil((last - first) / side)))
    middles = np.linspace(first + side / 2, last - side / 2, n) if n > 1 else [(first + last) / 2]
    return [min(max(round(middle - side / 2), 0), length - side) for middle in middles]


def _usable(tables: Mapping[str, np.ndarray], boxes: np.ndarray, rule: Mapping[str, Any]) -> np.ndarray:
    """Which squares (K, 3) lie on the road and do not touch the watermark."""
    left, top, right, bottom = rule["watermark"]
    x, y, side = boxes.T
    clear = (x >= right) | (x + side <= left) | (y >= bottom) | (y + side <= top)
    return clear & (_sum(tables["road"], boxes) >= rule["road_share"] * side**2)


def _damage(tables: Mapping[str, np.ndarray], boxes: np.ndarray, guard: int) -> np.ndarray:
    """Pixels of cracks and other damage in each square (K, 3) widened by `guard` on all sides."""
    wider = boxes + np.array([-guard, -guard, 2 * guard])
    return _sum(tables["crack"], wider) + _sum(tables["other"], wider)


def _sum(table: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """Sums over squares (K, 3), cut at the image's border, from a table of sums."""
    x, y, side = boxes.T
    top, bottom = (at.clip(0, len(table) - 1) for at in (y, y + side))
    left, right = (at.clip(0, table.shape[1] - 1) for at in (x, x + side))
    return table[bottom, right] - table[top, right] - table[bottom, left] + table[top, left]


def _table_of_sums(values: np.ndarray) -> np.ndarray:
    """(H + 1, W + 1): entry (i, j) is the sum over the first i rows and j columns."""
    table = np.zeros((values.shape[0] + 1, values.shape[1] + 1), np.int64)
    values.cumsum(1, dtype=np.int64).cumsum(0, out=table[1:, 1:])
    return table


def _tables(source: Source) -> dict[str, np.ndarray]:
    return {kind: _table_of_sums(source.mask(kind)) for kind in ("crack", "other", "road")}


def _grey(pixels: np.ndarray, boxes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation of int64 greys in each square."""
    mean = _sum(_table_of_sums(pixels), boxes) / boxes[:, 2] ** 2
    variance = _sum(_table_of_sums(pixels**2), boxes) / boxes[:, 2] ** 2 - mean**2
    return mean, np.sqrt(variance.clip(0))


def _overlap(box: np.ndarray, others: Sequence[np.ndarray]) -> float:
    """Largest intersection over union of a square (left, top, side) with others; 0 without others."""
    if not others:
        return 0.0
    (x, y, side), (left, top, width) = box, np.array(others).T
    wide = np.minimum(x + side, left + width) - np.maximum(x, left)
    high = np.minimum(y + side, top + width) - np.maximum(y, top)
    both = wide.clip(0) * high.clip(0)
    return float((both / (side**2 + width**2 - both)).max())


def _lot(rule: Mapping[str, Any], name: str) -> bytes:
    return hashlib.sha256(f"{rule['seed']}/{name}".encode()).digest()


def cut(image: Image.Image, crop: Crop, size: int) -> np.ndarray:
    """A crop of an image or mask, resized to size × size (bilinear with antialiasing)."""
    box = (crop.x, crop.y, crop.x + crop.side, crop.y + crop.side)
    return np.asarray(image.resize((size, size), Image.Resampling.BILINEAR, box=box))
