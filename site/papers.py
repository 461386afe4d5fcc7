"""Notebook pages: the committed notebook, with anchors for claims and the standard run's figures beside its own."""

from __future__ import annotations

import base64
import io
import re
import shutil
from pathlib import Path

import nbformat
import numpy as np
from nbformat import NotebookNode
from nbformat.v4 import new_markdown_cell
from PIL import Image
from words import Site, number_of, prose

from xai_utils.suite import parameters
from xai_utils.suite.findings import Source

WIDEST = 900  # pixels of a standard figure
EXPLORABLES = {"1": "digits", "2": "signlab", "5": "player"}  # paper → the one that belongs to it
_CLAIM = re.compile(r"""["'f]([PX]\d\.\d+)\b""")
_FIGURE = re.compile(r'run\.figure\(\s*"([^"]+)"')
_ALIKE = 4.0  # mean difference of grey levels below which two figures are the same drawing


def write(site: Site, stem: str) -> dict[str, list[str]]:
    """Write the page of a notebook, and that of its solutions.

    Returns:
        claim → the anchors on the page where it is measured, and where its finding stands.
    """
    notebooks = site.source.root / "notebooks"
    notebook = nbformat.read(notebooks / f"{stem}.ipynb", as_version=4)
    _copy_linked_figures(site, notebook, notebooks)
    title, _, text = notebook.cells[0].source.partition("\n")
    cells = [new_markdown_cell(part) for part in (title, _about(site, stem), text)]
    anchors: dict[str, list[str]] = {}
    for cell in notebook.cells[1:]:
        cells += _claim_anchors(cell, anchors)
        cells.append(cell)
        cells += _without_widget(site, cell)
        cells += _standard_figures(site, cell, stem)
    notebook.cells = cells
    _write(site, notebook, f"notebooks/{stem}.ipynb")
    if (solved := notebooks / "solutions" / f"{stem}.ipynb").is_file():
        solutions = nbformat.read(solved, as_version=4)
        for cell in solutions.cells:
            _without_widget(site, cell)
        _copy_linked_figures(site, solutions, solved.parent)
        _write(site, solutions, f"notebooks/solutions/{stem}.ipynb")
    return anchors


def untranslated(source: Source) -> list[str]:
    """The headings of notebooks that have no Japanese."""
    known = Site("ja", source.root, source)
    lines = [
        line.lstrip("#").strip()
        for stem in source.reported.papers
        if (path := source.root / "notebooks" / f"{stem}.ipynb").is_file()
        for cell in nbformat.read(path, as_version=4).cells
        if cell.cell_type == "markdown"
        for line in cell.source.splitlines()
        if line.startswith("#")
    ]
    return [line for line in dict.fromkeys(lines) if known.say(line) == line and not re.search("[\u3040-\u9fff]", line)]


def _write(site: Site, notebook: NotebookNode, name: str) -> None:
    for place, cell in enumerate(notebook.cells):
        cell.id = f"c{place:03}"  # the same in every build
    path = site.folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    nbformat.write(notebook, path)


def _about(site: Site, stem: str) -> str:
    """What the page is, and where else to look."""
    say = site.say
    links = [f"[{say('The claims of this paper')}](../claims.md#paper-{number_of(stem)})"]
    if name := EXPLORABLES.get(number_of(stem)):
        links.insert(0, f"[{say('Try it in the page')}](../explorables/{name}.md)")
    if (site.source.root / "notebooks" / "solutions" / f"{stem}.ipynb").is_file():
        links.append(f"[{say('Solutions of the exercises')}](solutions/{stem}.ipynb)")
    text = say(
        "This page is the committed notebook as the tests rerun it: at the quick profile, on small data. Below its"
        " figures stand those of the standard run, on real data."
    )
    return f":::{{note}}\n{text}\n\n{' · '.join(links)}\n:::"


def _claim_anchors(cell: NotebookNode, anchors: dict[str, list[str]]) -> list[NotebookNode]:
    """An anchor before the cell, for each claim that it measures or tells the finding of."""
    if cell.cell_type != "code":
        return []
    kind = "finding" if "run.finding(" in cell.source else "measured"
    made = []
    for claim in dict.fromkeys(_CLAIM.findall(cell.source)):
        name = f"{kind}-{claim}"
        if name not in anchors.setdefault(claim, []):
            anchors[claim].append(name)
            made.append(f'<span id="{name}" class="claim-anchor"></span>')
    return [new_markdown_cell("".join(made))] if made else []


def _without_widget(site: Site, cell: NotebookNode) -> list[NotebookNode]:
    """Take the outputs out that only a running notebook can show, and say so."""
    if cell.cell_type != "code":
        return []
    kept = [o for o in cell.outputs if "application/vnd.jupyter.widget-view+json" not in o.get("data", {})]
    lost, cell.outputs = len(cell.outputs) - len(kept), kept
    text = site.say("Here a running notebook has a slider; the figure above shows the same, still.")
    return [new_markdown_cell(f"*{text}*")] if lost else []


def _standard_figures(site: Site, cell: NotebookNode, stem: str) -> list[NotebookNode]:
    """The figures of the standard run that belong to those of a cell; none where both are the same drawing."""
    if cell.cell_type != "code":
        return []
    arm = parameters.arms(stem)[0]
    records = site.source.records(stem, arm)
    folder = site.source.root / "results" / "standard" / stem / arm
    own = [base64.b64decode(o.data["image/png"]) for o in cell.outputs if "image/png" in o.get("data", {})]
    made = []
    for name, png in zip(_FIGURE.findall(cell.source), own):
        path = folder / f"seed_{records[0].seed}" / f"{name}.png" if records else None
        if path is None or not path.is_file() or _alike(png, path):
            continue
        data = records[0].subject["dataset"].replace("_", " ")
        caption = site.say("The same in the standard run: {data}, arm {arm}, seed {seed} of {n}.").format(
            data=data, arm=arm, seed=records[0].seed, n=len(records)
        )
        address = site.picture(path, f"{number_of(stem)}_{name}", WIDEST)
        alt = _alt(site, stem, name, cell, data)
        made.append(
            f":::{{figure}} {address}\n:alt: {alt}\n:class: standard-figure\n:loading: lazy\n\n{prose(caption)}\n:::"
        )
    return [new_markdown_cell("\n\n".join(made))] if made else []


def _alt(site: Site, stem: str, name: str, cell: NotebookNode, data: str) -> str:
    """The finding's own text for a standard figure; else the text of this page's figure, said to be of other data."""
    for claim, entry in site.findings.claims.items():
        if entry.figure and entry.figure.name == name and site.source.paper_of(claim) == stem:
            return " ".join(entry.figure.alt.split())
    own = cell.metadata.get("mystnb", {}).get("image", {}).get("alt", name)
    return f"The same figure of the standard run, on {data}, not on the data of this page, of which it shows: {own}"


def _alike(png: bytes, path: Path) -> bool:
    """Whether two figures are the same drawing, as one of a network's structure is."""
    small = []
    for content in (io.BytesIO(png), path):
        with Image.open(content) as image:
            small.append((image.size, np.asarray(image.convert("L").resize((160, 100)), dtype=float)))
    (one, a), (two, b) = small
    return abs(one[0] / one[1] - two[0] / two[1]) < 0.05 and bool(np.abs(a - b).mean() < _ALIKE)


def _copy_linked_figures(site: Site, notebook: NotebookNode, here: Path) -> None:
    """Copy the pictures that a notebook's text names to the same place beside the page."""
    root = site.source.root
    for cell in notebook.cells:
        for link in re.findall(r"\]\((\.\.?/[^)]+\.png)\)", cell.source if cell.cell_type == "markdown" else ""):
            name = (here / link).resolve().relative_to(root)
            (site.folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(root / name, site.folder / name)
