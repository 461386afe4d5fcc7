"""Your own regression data: a folder of images and a CSV file with the target of each."""

import os

from xai_utils.data.fitting import Fit
from xai_utils.data.folder import check_options, image_set
from xai_utils.data.imageset import ImageSet
from xai_utils.data.store import root_of
from xai_utils.data.surveys import survey_targets


def load_target_folder(
    *,
    folder: str | os.PathLike[str],
    size: int = 64,
    grey: bool = False,
    targets: str = "targets.csv",
    masks: str | None = None,
    seed: int = 0,
    groups: str = "",
    fit: Fit = "letterbox",
) -> ImageSet:
    """Read the images below `folder`, and their targets from the lines file,target or file,target,split of a CSV file.

    Images and masks are read, fitted and checked as `folder.load_folder` does it. Every image below `folder` (masks and
    hidden files apart) must have one line, and every line an image. Rows are in the file's order.

    Args:
        folder: a relative path counts from the repository's root.
        size: height and width of the images.
        grey: one channel; otherwise three.
        targets: the CSV file, below `folder`; UTF-8, commas, or semicolons and decimal commas; files as paths below
            `folder`, with "/". Blank lines are left out.
        masks: the masks' folder, below `folder`, with a mask for each image; None = no masks. In a folder that has none
            among them, such as one of parts without defects, they are empty.
        seed: of the split 70 / 10 / 20, used if the file has no column split (train, val or test).
        groups: what images share, a rule of `grouping.groups_of`; "" = unknown.
        fit: how an image becomes a square.

    Returns:
        images (N, 1 or 3, size, size), labels = targets (N,) float32, as they stand in the file; masks or None; groups
        or None; ids are the paths below `folder`.

    Raises:
        FileNotFoundError: no such folder, CSV file or masks' folder.
        ValueError: no folder named; a header, line, target or split that is wrong; an image or line without its
            partner, or two of them; a split without images; targets that are all the same; a group in two splits of
            yours; a mask that is missing, of another size or of more than two values; an unreadable image. Each names
            the file, and the line where there is one.
    """
    check_options(size, fit)
    survey = survey_targets(root_of(folder), targets, masks)
    return image_set("target_folder", survey, size, grey, seed, groups, fit)
