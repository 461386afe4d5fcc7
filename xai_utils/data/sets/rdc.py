"""RDC, the data of paper 5, built from your download of RDD2022 as the paper builds it (§5.1); or from your own boxes.

RDD2022 itself (Arya et al. 2024, about 9 GB) was never here: what is written below is tested on 22 sample images and on
generated folders only.
"""

import hashlib
import os
import warnings
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any, Literal

import numpy as np
import psutil
import torch
from PIL import Image

from xai_utils.data import pictures, store
from xai_utils.data.archive import as_jpeg, index_of, opened_image, read_table
from xai_utils.data.imageset import SPLITS, ImageSet
from xai_utils.data.listing import short
from xai_utils.data.voc import Photograph, annotated_files, read_photograph
from xai_utils.seeds import numpy_rng

CLASSES = ("no_crack", "crack")
COUNTRIES = ("Japan", "India", "Czech", "Norway", "United_States")  # China left out: another camera angle
CRACKS = ("D00", "D10", "D20")  # longitudinal, transverse, alligator
SHARES = (66641, 7405, 3897)  # crops of train, val and test in the paper
NO_CRACKS = 30430 / 47513  # no-crack crops for each crack crop
SIDE = 16  # of the shrunk images that are compared
_TRIES = 200  # random places for each no-crack crop
_BLOCK = 1024  # images compared with all others at once


def load_rdc(
    *,
    folder: str | os.PathLike[str],
    size: int = 224,
    grey: bool = False,
    seed: int = 0,
    countries: Sequence[str] | None = COUNTRIES,
    categories: Sequence[str] = CRACKS,
    shares: Sequence[float] = SHARES,
    alike: float = 0.1,
    bad_boxes: Literal["error", "skip"] = "error",
    n: int | None = None,
) -> ImageSet:
    """Crops of the annotated images below `folder`, made in the three steps of paper 5 (§5.1).

    1. Images: the training parts of five countries, <folder>/<country>/train/images/*.jpg with their boxes in
       train/annotations/xmls/*.xml, as RDD2022 is unpacked (also all countries in one train folder). The country is the
       file name up to its last "_".
    2. Crops: one along each box of `categories`; and crops at random places that touch no box of any category, 0.64 for
       each crack crop as in the paper. Their height and their width are drawn, each by itself, from those of the
       country's crack boxes (sizes of images differ ten times between countries). As in the paper nothing keeps these
       crops on the road: some show sky or verge. A crop is resized to a square, whatever its shape.
    3. Test set: images with no near-duplicate (`nearest`) are drawn until their crops are the test set's share. The
       paper compares "images"; here these are the photographs and not the crops, so that no photograph is in two
       splits. The others are divided between train and val, by photograph.

    The paper counts 47,513 crack and 30,430 no-crack crops, and does not say which categories are cracks.

    Your own boxes: with countries=None every image below an `images` folder counts, with its box file in the folder
    annotations/xmls (or annotations) beside it: my_roads/images/a.jpg, my_roads/annotations/xmls/a.xml, and
    categories=("crack",) or whatever your classes are called.

    The whole of RDC at 224 px in colour needs 47 GB as float32, 12 GB while it is read: take a smaller `size`, `grey`,
    or `n` where that is too much. Reading it should take some 20 minutes on one core, most of it for the Norwegian
    images of 7 million pixels, and comparing the images 3 minutes and 0.3 GB: estimates from single images and blocks.

    Args:
        folder: a relative path counts from the repository's root.
        size: height and width of the images.
        grey: one channel; otherwise three.
        seed: of the places of the no-crack crops and of the split.
        countries: all must be there; others are left out. None = every image, whatever its name.
        categories: classes of boxes that are cracks.
        shares: of train, val and test, in any unit.
        alike: images are near-duplicates if at most this share of their bits differ.
        bad_boxes: what to do with a box without area or outside of its image: an error, or leave it out and warn. One
            of a class that is not in `categories` is left out in any case.
        n: number of crops, half of them cracks as far as there are, drawn with `seed`; None = all.

    Returns:
        images (N, 1 or 3, size, size), groups = photographs, no masks; ids are
        "<photograph>/<left>_<top>_<right>_<bottom>"; rows in random order.

    Raises:
        FileNotFoundError: no such folder.
        ValueError: no annotated images, a country without any, no cracks, an image without its box file or the other
            way round, a damaged file, a bad box, too few images without near-duplicate, a split without cracks.
        MemoryError: the images would not fit into the memory that is free.
    """
    if isinstance(size, bool) or not isinstance(size, int) or size < 1:
        raise ValueError(f"size is {size!r}, expected an int of at least 1")
    if n is not None and (isinstance(n, bool) or not isinstance(n, int) or n < 2):
        raise ValueError(f"n is {n!r}, expected an int of at least 2, or None")
    if len(shares) != len(SPLITS) or not all(0 < share < float("inf") for share in shares):
        raise ValueError(f"shares are {tuple(shares)}, expected one number above 0 for each of {', '.join(SPLITS)}")
    if not 0 <= alike < 1:
        raise ValueError(f"alike is {alike!r}, expected a share of at least 0 and below 1")
    if bad_boxes not in ("error", "skip"):
        raise ValueError(f"bad_boxes is {bad_boxes!r}, expected 'error' or 'skip'")
    root = store.resolve(folder)
    if not root.is_dir():
        raise FileNotFoundError(f"folder {root} does not exist, or is not a folder")
    files = _chosen(root, annotated_files(root), countries)
    photographs = [read_photograph(image, xml, bad_boxes, categories) for image, xml in files.values()]
    if left_out := [text for photograph in photographs for text in photograph.left_out]:
        warnings.warn(f"{len(left_out)} boxes are left out: {short(left_out)}", stacklevel=2)
    crops = _crops(list(files), photographs, tuple(categories), seed, root)
    used = sorted({crop[1] for crop in crops})
    split = dict(zip(used, _split([files[i][0] for i in used], used, crops, shares, alike, seed)))
    if n is not None:
        crops = _some(crops, n, seed)
    parts = np.array([split[name] for _, name, *_ in crops])
    labels = np.array([label for label, *_ in crops])
    if lacking := [part for part in SPLITS if not (labels[parts == part] == 1).any()]:
        raise ValueError(
            f"{root}: no crack crop in {' and '.join(lacking)} ({(labels == 1).sum()} crack crops in all, of "
            f"{len(used)} images). Give more images, or larger shares of val and test."
        )
    pixels = _pixels({name: files[name][0] for name in used}, crops, size, grey)
    sources = [path for name in used for path in files[name]]
    checksums = {path.relative_to(root).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in sources}
    return ImageSet(
        name="rdc",
        pixels=torch.from_numpy(pixels),
        labels=torch.from_numpy(labels),
        split=parts,
        ids=np.array([f"{name}/{'_'.join(map(str, box))}" for _, name, *box in crops]),
        class_names=CLASSES,
        provenance={"name": root.name, "sha256": store.sha256_of_lines(checksums), "variant": "own"},
        groups=np.array([name for _, name, *_ in crops]),
    )


def nearest(images: Sequence[Path]) -> np.ndarray:
    """How near each image's nearest other image is: the smallest share of bits that differ.

    The paper (§5.1) shrinks, standardises and binarises the images and takes the XOR between them, without figures.
    Here an image is shrunk to 16 × 16 grey values, these are brought to mean 0 and deviation 1, and a bit says whether
    a value is above 0. All pairs are compared as products of matrices of ±1, 1,024 images with all others at a time:
    47,000 images take about 10¹² operations (half a minute on one core) and 0.25 GB.

    Args:
        images: paths of the files.

    Returns:
        (N,) float64 in 0 … 1; 1 for a single image. ValueError names an image that cannot be read.
    """
    signs = np.empty((len(images), SIDE * SIDE), np.float32)
    for row, path in enumerate(images):
        signs[row] = _signs(path)
    return _nearest(signs)


def _nearest(signs: np.ndarray) -> np.ndarray:
    """The same for rows (N, B) of ±1."""
    out = np.ones(len(signs))
    for start in range(0, len(signs), _BLOCK):
        agree = signs[start : start + _BLOCK] @ signs.T
        rows = np.arange(len(agree))
        agree[rows, start + rows] = -signs.shape[1]  # not with itself
        out[start : start + _BLOCK] = (1 - agree.max(1) / signs.shape[1]) / 2
    return out


def _signs(path: Path) -> np.ndarray:
    image = pictures.as_8_bit(pictures.read_picture(path, 8 * SIDE), "L")
    grey = np.asarray(image.resize((SIDE, SIDE)), dtype=np.float64)
    standard = (grey - grey.mean()) / max(grey.std(), 1e-9)
    return np.where(standard > 0, 1, -1).ravel()


# --- step 1: images


def _chosen(
    root: Path, pairs: Mapping[str, tuple[Path, Path]], countries: Sequence[str] | None
) -> dict[str, tuple[Path, Path]]:
    if countries is None:
        return dict(pairs)
    there = {_country(name) for name in pairs}
    if isinstance(countries, str) or not countries:
        raise ValueError(f"countries is {countries!r}, expected a sequence of names, or None")
    if missing := [country for country in countries if country not in there]:
        raise ValueError(
            f"{root} has no annotated image of {', '.join(missing)} (it has {', '.join(sorted(there)) or 'none'}). "
            "Unpack the training part of these countries there, or name the countries you want: countries=(…), None "
            "for all images"
        )
    return {name: pair for name, pair in pairs.items() if _country(name) in countries}


def _country(name: str) -> str:
    return name.rpartition("_")[0]


# --- step 2: crops (label, photograph, left, top, right, bottom)

_Crop = tuple[int, str, int, int, int, int]


def _crops(
    names: Sequence[str], photographs: Sequence[Photograph], categories: Sequence[str], seed: int, root: Path
) -> list[_Crop]:
    """Both classes in random order."""
    cracks, sides = [], defaultdict(list)
    for name, photograph in zip(names, photographs):
        for kind, *box in dict.fromkeys(photograph.boxes):
            if kind in categories:
                cracks.append((1, name, *box))
                sides[_country(name)].append((box[2] - box[0], box[3] - box[1]))
    cracks = list(dict.fromkeys(cracks))  # one place may have two categories
    if not cracks:
        found = sorted({box[0] for photograph in photographs for box in photograph.boxes})
        raise ValueError(f"{root}: no box of {', '.join(categories)} (there are {', '.join(found) or 'none'})")
    rng = numpy_rng(seed, "rdc", "crops")
    others = set()
    usable = [i for i, name in enumerate(names) if _country(name) in sides]
    wanted = max(1, round(NO_CRACKS * len(cracks)))
    for _ in range(_TRIES * wanted):
        if len(others) == wanted:
            break
        i = usable[rng.integers(len(usable))]
        if box := _free_box(photographs[i], np.array(sides[_country(names[i])]), rng):
            others.add((0, names[i], *box))
    if len(others) < wanted:
        raise ValueError(
            f"{root}: only {len(others)} of {wanted} no-crack crops found in {_TRIES * wanted} tries; the boxes leave "
            "too little room. Add images without cracks."
        )
    crops = cracks + sorted(others)
    return [crops[i] for i in rng.permutation(len(crops))]


def _free_box(photograph: Photograph, sides: np.ndarray, rng: np.random.Generator) -> tuple[int, ...] | None:
    """A random box of drawn width and height that touches no other; None if this one does not fit."""
    width, height = (int(sides[rng.integers(len(sides)), k]) for k in (0, 1))
    if width > photograph.width or height > photograph.height:
        return None
    left, top = (int(rng.integers(n + 1)) for n in (photograph.width - width, photograph.height - height))
    for _, x, y, right, bottom in photograph.boxes:
        if left < right and x < left + width and top < bottom and y < top + height:
            return None
    return left, top, left + width, top + height


def _some(crops: Sequence[_Crop], n: int, seed: int) -> list[_Crop]:
    """Draw n crops, half of them cracks as far as there are, in random order."""
    of = {label: [crop for crop in crops if crop[0] == label] for label in (0, 1)}
    cracks = min(len(of[1]), max(n // 2, n - len(of[0])))
    some = of[1][:cracks] + of[0][: n - cracks]
    return [some[i] for i in numpy_rng(seed, "rdc", "some").permutation(len(some))]


# --- step 3: split


def _split(
    images: Sequence[Path],
    names: Sequence[str],
    crops: Sequence[_Crop],
    shares: Sequence[float],
    alike: float,
    seed: int,
) -> list[str]:
    """Split of each photograph: test from those without near-duplicate, then val, the rest is train."""
    number = Counter(name for _, name, *_ in crops)
    goal = {part: round(len(crops) * share / sum(shares)) for part, share in zip(SPLITS, shares)}
    alone = nearest(images) > alike
    split = dict.fromkeys(names, "train")
    order = numpy_rng(seed, "rdc", "split").permutation(len(names))
    for part, candidates in (("test", [names[i] for i in order if alone[i]]), ("val", [names[i] for i in order])):
        count = 0
        for name in candidates:
            if count >= goal[part]:
                break
            if split[name] == "train":
                split[name] = part
                count += number[name]
        if part == "test" and count < goal["test"]:
            raise ValueError(
                f"only {alone.sum()} of {len(names)} images have no near-duplicate, with {count} crops; test needs "
                f"{goal['test']}. Lower alike = {alike} or the share of test."
            )
    return [split[name] for name in names]


# --- pixels


def _pixels(files: Mapping[str, Path], crops: Sequence[_Crop], size: int, grey: bool) -> np.ndarray:
    """All crops as (N, C, size, size) uint8. MemoryError if they and a copy, their splits, have no room."""
    shape = (len(crops), 1 if grey else 3, size, size)
    needed, free = 2 * int(np.prod(shape, dtype=np.int64)), psutil.virtual_memory().available
    if needed > free:
        raise MemoryError(
            f"{shape[0]} crops of {shape[1]}×{size}×{size} need {needed / 1e9:.1f} GB, {free / 1e9:.1f} GB are free: "
            "choose a smaller size, grey=True, or n"
        )
    pixels, rows = np.empty(shape, np.uint8), defaultdict(list)
    for row, (_, name, *_) in enumerate(crops):
        rows[name].append(row)
    for name, mine in rows.items():
        for row, cut in zip(mine, _cuts(files[name], [crops[row][2:] for row in mine], size, grey)):
            pixels[row] = cut
    return pixels


def _cuts(path: Path, boxes: Sequence[Any], size: int, grey: bool) -> Iterator[np.ndarray]:
    """Crops of one image, resized (bilinear with antialiasing)."""
    image = pictures.as_8_bit(pictures.read_picture(path), "L" if grey else "RGB")
    for box in boxes:
        cut = np.asarray(image.resize((size, size), Image.Resampling.BILINEAR, box=box))
        yield cut.reshape(size, size, -1).transpose(2, 0, 1)


# --- recipe


def build_rdd2022_sample(files: Mapping[str, bytes]) -> Iterator[tuple[str, bytes]]:
    """Ten annotated and twelve plain images of RDD2022 from a public project's samples, laid out as RDD2022 is.

    Images wider than 1280 pixels (Norway's) are scaled to that width and coded again, others are byte copies. The boxes
    come from the project's text labels: class 0 … 3 = D00, D10, D20, D40; centre, width and height as shares.
    """
    for row in read_table("rdd2022_sample"):
        name, annotated = PurePosixPath(row["file"]).stem, row["annotated"] == "1"
        start, end = (f"{_SAMPLES}/raw/", name) if annotated else (_PLAIN, f"_{name}")
        photograph = files[next(path for path in files if path.startswith(start) and path.endswith(f"{end}.jpg"))]
        if int(row["orig_width"]) > 1280:
            size = int(row["width"]), int(row["height"])
            photograph = as_jpeg(opened_image(photograph).resize(size, Image.Resampling.LANCZOS), 90)
        yield row["file"], photograph
        if annotated:
            labels = files[f"{_SAMPLES}/labels/{name}.txt"].decode().split()
            objects = "".join(_object(labels[i : i + 5], row) for i in range(0, len(labels), 5))
            text = _ANNOTATION.format_map(row | {"name": name, "objects": objects})
            yield f"train/annotations/xmls/{name}.xml", text.encode()
    yield "index.csv", index_of("rdd2022_sample")


def _object(label: Sequence[str], row: Mapping[str, str]) -> str:
    """One box of a text label (class, centre x, centre y, width, height) in pixels."""
    width, height = int(row["width"]), int(row["height"])
    x, y, wide, high = (float(share) * side for share, side in zip(label[1:], (width, height) * 2))
    edges = [round(x - wide / 2), round(y - high / 2), round(x + wide / 2), round(y + high / 2)]
    return _OBJECT.format(("D00", "D10", "D20", "D40")[int(label[0])], *edges)


_SAMPLES = "road_damage_pipeline/02_detection/samples/images"
_PLAIN = "road_damage_pipeline/01_segmentation/assets/pidnet_fastsam_comparison/raw/"
_ANNOTATION = (
    "<annotation>\n  <folder>images</folder>\n  <filename>{name}.jpg</filename>\n"
    "  <size><width>{width}</width><height>{height}</height><depth>3</depth></size>\n{objects}</annotation>\n"
)
_OBJECT = (
    "  <object>\n    <name>{}</name>\n"
    "    <bndbox><xmin>{}</xmin><ymin>{}</ymin><xmax>{}</xmax><ymax>{}</ymax></bndbox>\n  </object>\n"
)
