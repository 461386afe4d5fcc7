"""Patches of the magnetic tiles at the photographs' own resolution, around every defect and on tiles without one."""

import zipfile
from itertools import cycle, islice, zip_longest
from typing import Any

import numpy as np
import torch

from xai_utils.data import store
from xai_utils.data.archive import check_same_size, check_size, check_undivided, in_turns, read_image, read_index
from xai_utils.data.imageset import ImageSet, read_split
from xai_utils.data.patches import Corner, anywhere, around
from xai_utils.data.sets.magnetic_tiles import ARCHIVE, CLASSES
from xai_utils.seeds import numpy_rng

REGISTERED = "magnetic_tiles"  # in data/registry.yaml
WITHOUT = "MT_Free"


def load_magnetic_patches(*, size: int = 96, seed: int = 0) -> ImageSet:
    """Patches of `magnetic_tiles`, cut and not scaled; a tile's split and group are its patches' own.

    **The patches are placed with the masks.** Around each connected piece of a defect's mask there is one, as
    `patches.around` says: the defect lies in the middle, unless the tile's edge is near. Whoever inspects a tile has
    no mask; so a network that is right about these patches has not found the defects, but only told them apart.

    Tiles without a defect (MT_Free) have as many patches, in all, as there are around defects, at places drawn evenly.
    Their tile groups take turns until there are enough, and within a group its tiles, so that every group is shown
    before one is shown twice. No patch comes from a tile of a defect class whose mask is empty, or holds only specks.

    Args:
        size: height and width in pixels, from 32 to 103 (the narrowest tile).
        seed: of the places on tiles without a defect.

    Returns:
        images (n, 1, size, size) of 256 grey levels, masks, groups (the tile's); ids are the tile's, and the patch's
        first row and column: "MT_Crack/exp1_num_1234@20,7"; the classes take turns.

    Raises:
        FileNotFoundError: the archive is in none of the places.
        ValueError: size is no int, too small, or larger than a tile; an archive or a split file as `magnetic_tiles`
            refuses it.
    """
    check_size(size)
    paths, provenance = store.locate(REGISTERED)
    with zipfile.ZipFile(paths[ARCHIVE]) as archive:
        tiles = in_turns(archive, read_index(archive, "class", "id", "group"), "class", CLASSES)
        names = [f"{tile['class']}/{tile['id']}" for tile in tiles]
        splits = read_split(REGISTERED, names)
        check_undivided(REGISTERED, splits, np.array([tile["group"] for tile in tiles]), "tile group")
        for tile, name, split in zip(tiles, names, splits, strict=True):
            tile |= {"name": name, "split": split}
        cuts = []
        for tile in tiles:
            if tile["class"] != WITHOUT:
                image, mask = _read(archive, tile["name"])
                cuts += [_cut(tile, image, mask, corner, size) for corner in around(mask, size)]
        rng = numpy_rng(seed, "magnetic_patches")
        for tile in _in_turns_of_groups([tile for tile in tiles if tile["class"] == WITHOUT], len(cuts)):
            image, mask = _read(archive, tile["name"])
            cuts.append(_cut(tile, image, mask, anywhere(mask.shape, size, rng), size))
        cuts = in_turns(archive, cuts, "class", CLASSES)
    return ImageSet(
        name="magnetic_patches",
        pixels=torch.from_numpy(np.stack([cut["pixels"] for cut in cuts])[:, None]),
        labels=torch.tensor([CLASSES.index(cut["class"]) for cut in cuts]),
        split=np.array([cut["split"] for cut in cuts]),
        ids=np.array([cut["id"] for cut in cuts]),
        class_names=CLASSES,
        provenance=provenance,
        masks=torch.from_numpy(np.stack([cut["mask"] for cut in cuts])),
        groups=np.array([cut["group"] for cut in cuts]),
    )


def _read(archive: zipfile.ZipFile, name: str) -> tuple[np.ndarray, np.ndarray]:
    """Photograph (H, W) uint8 and mask (H, W) bool of a tile."""
    image, mask = read_image(archive, f"images/{name}.jpg", "L"), read_image(archive, f"masks/{name}.png", "L")
    check_same_size(archive, name, image, mask)
    return np.asarray(image), np.asarray(mask) > 127


def _cut(tile: dict[str, Any], image: np.ndarray, mask: np.ndarray, corner: Corner, size: int) -> dict[str, Any]:
    """What is kept of one patch."""
    place = tuple(slice(start, start + size) for start in corner)
    return tile | {"id": f"{tile['name']}@{corner[0]},{corner[1]}", "pixels": image[place], "mask": mask[place]}


def _in_turns_of_groups(tiles: list[dict[str, Any]], count: int) -> list[dict[str, Any]]:
    """`count` tiles: the first of every group, then the second of every group …, and again from the beginning."""
    groups: dict[str, list[dict[str, Any]]] = {}
    for tile in tiles:
        groups.setdefault(tile["group"], []).append(tile)
    turns = [tile for row in zip_longest(*groups.values()) for tile in row if tile]
    return list(islice(cycle(turns), count))
