"""A folder of your own images against what a paper's notebook asks for."""

from pathlib import Path

import numpy as np

from xai_utils.data.checks import Check, Finding, check
from xai_utils.data.fitting import Fit, check_fit
from xai_utils.data.listing import NORMAL, short
from xai_utils.data.pictures import SUFFIXES
from xai_utils.data.store import root_of
from xai_utils.data.surveys import Survey, split_of, survey_classes, survey_targets, two_classes

PAPERS = range(1, 6)
SIZES = {1: 28, 2: 32, 3: 64, 4: 64, 5: 64}  # px, of the notebooks' own defaults
SIDES = {1: (28, 28), 2: (8, 1024), 3: (32, 1024), 4: (16, 1024), 5: (32, 1024)}  # px that the notebooks take
LIST = "targets.csv"  # of a regression, as notebook 02 reads it
IN_NO_FOLDER = (
    f"Papers 1, 3, 4 and 5 take one folder for each class; paper 2 images and {LIST}, lines of file,target: --for 2"
)
PER_CLASS = 30  # training images of each class that notebook 04 takes at quick


def check_folder(
    folder: str,
    *,
    masks: str | None = None,
    targets: str | None = None,
    paper: str | None = None,
    groups: str = "",
    fit: Fit = "letterbox",
    size: int | None = None,
) -> Check:
    """Look at a folder as a notebook would before it trains: what is refused is among the findings, not raised.

    Args:
        folder: a relative path counts from the working directory.
        masks: the masks' folder below it.
        targets: the CSV file of a regression below it; None = targets.csv, for paper 2, or where it lies beside images
            that are in no folder.
        paper: "5" or "05_lrp_bn": what it asks for is checked, too.
        groups: a rule of `grouping.groups_of`.
        fit: how images become squares.
        size: side of the images of a run; None = the paper's at the quick profile.

    Raises:
        FileNotFoundError: no such folder.
        ValueError: no such paper or fit.
    """
    root, number = root_of(Path(folder).absolute() if folder else ""), paper_number(paper)
    check_fit(fit)
    refused = _not_asked(number, masks, targets, size)
    loose, there = any(path.suffix.lower() in SUFFIXES for path in root.iterdir()), (root / LIST).is_file()
    listed = targets or (LIST if number == 2 or (number is None and loose and there) else None)

    def surveyed(masks: str | None) -> Survey:
        return survey_targets(root, listed, masks) if listed else survey_classes(root, masks)

    survey = None
    for each in dict.fromkeys((masks, None)):
        try:
            survey = surveyed(each)
            break
        except (ValueError, FileNotFoundError) as error:
            refused.append(Finding("refused", str(error)))
    if survey is None:
        refused += [Finding("refused", IN_NO_FOLDER)] * (number is None and (loose or there))
        return Check(None, list(dict.fromkeys(refused)))
    if refused and masks and not survey.masks_root:  # they were asked for: no advice to use them
        survey.aside = [text for text in survey.aside if not text.endswith(f"-p masks {masks}")]
    try:
        split, owners = split_of(survey, groups, 0)
    except ValueError as error:
        refused.append(Finding("refused", str(error)))
        split, owners = np.array([part or "train" for part in survey.given]), None
    found = check(survey, split.tolist(), owners, size=size or SIZES.get(number, 64), fit=fit)
    if owners is None and groups:  # what the splits lack says nothing then
        found.findings = [
            finding for finding in found.findings if not finding.what.startswith("classes without images")
        ]
    if not groups and (root / "groups.csv").is_file():
        found.findings.append(Finding("look", "groups.csv is there and is not used", "-p group_by groups.csv"))
    found.findings = refused + found.findings + asked_by(number, survey, split)
    return found


def _not_asked(number: int | None, masks: str | None, targets: str | None, size: int | None) -> list[Finding]:
    """What was named and the paper's notebook has no parameter for, or not this value."""
    found = []
    if number == 1 and masks:
        found.append(Finding("refused", "paper 1 takes no masks", "leave --masks out"))
    if number == 2 and targets not in (None, LIST):
        found.append(Finding("refused", f"notebook 02 reads its targets from {LIST}, not {targets}", "rename the file"))
    if number not in (None, 2) and targets:
        text = f"paper {number} takes one folder for each class, and no list of targets ({targets})"
        found.append(Finding("refused", text, "leave --targets out, or --for 2"))
    least, most = SIDES.get(number, (1, 1024))
    if size is not None and not least <= size <= most:
        who = f"paper {number} takes" if number else "the notebooks take"
        what = f"{least}" if least == most else f"{least} to {most}"
        found.append(
            Finding("refused", f"size is {size} pixels; {who} images of {what} pixels a side", "change --size")
        )
    return found


def paper_number(paper: str | None) -> int | None:
    """1 … 5 of "5", "05" or "05_lrp_bn"; None for none. ValueError for another."""
    if paper is None:
        return None
    digits = paper.partition("_")[0]
    if not digits.isdecimal() or int(digits) not in PAPERS:
        raise ValueError(f"paper is {paper!r}, expected 1 to 5, or a notebook's name such as 05_lrp_bn")
    return int(digits)


def asked_by(number: int | None, survey: Survey, split: np.ndarray) -> list[Finding]:
    """What a paper asks for besides images in classes."""
    names = survey.class_names
    if number == 3:
        fine = [name for name in names if name.lower() in NORMAL]
        text = f"classes without a defect, by their names: {', '.join(fine) or 'none'}"
        if names and len(fine) == len(names):
            remedy = 'a folder of images with defects, or -p normal "name, name"'
            return [Finding("refused", f"all classes ({', '.join(fine)}) are without a defect by their names", remedy)]
        return [Finding("note" if fine else "look", text, 'other ones: -p normal "name, name"; none: -p normal ""')]
    if number == 4:
        few = [name for label, name in enumerate(names) if _trained(survey, split, label) < PER_CLASS]
        text = f"fewer than {PER_CLASS} training images, which the quick profile takes of each class: {short(few)}"
        return [Finding("look", text, "-p per_class 0 takes all")] if few else []
    if number == 5:
        try:
            two_classes(survey, "crack")
        except ValueError as error:
            return [Finding("refused", str(error))]
    return []


def _trained(survey: Survey, split: np.ndarray, label: int) -> int:
    return sum(part == "train" and each == label for part, each in zip(split, survey.labels, strict=True))
