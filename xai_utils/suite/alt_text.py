"""Text for those who do not see a figure: from `run.figure(name, fig, alt=…)` to the notebook's own metadata.

    python -m xai_utils.suite.alt_text NOTEBOOK …

The alternative text goes into the metadata of the cell's output (`image/png`: `alt`), as Jupyter shows the figure. The
command, called by notebooks/clean, copies it to the cell's `mystnb.image.alt`, where MyST-NB looks for it.
"""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_FEWEST = 6  # words that the name does not hold


def checked(name: str, alt: str) -> str:
    """The alternative text of the figure `name`. ValueError: it says hardly more than the name."""
    new = {*re.findall(r"\w+", alt.lower())} - {*re.findall(r"[^\W_]+", name.lower())}
    if len(new) < _FEWEST:
        raise ValueError(
            f"figure {name!r}: alt = {alt!r} says hardly more than the name. Say in a sentence what the figure shows: "
            f"what is drawn against what, and what one sees ({_FEWEST} words at least that are not in the name)."
        )
    return alt


def attach(fig: Figure, name: str, alt: str) -> None:
    """Let Jupyter show `fig` with this alternative text, in a notebook without a run; raises what `checked` raises."""
    checked(name, alt)
    fig._repr_mimebundle_ = lambda include=None, exclude=None: ({}, {"image/png": {"alt": alt}})


def copied(notebook: dict[str, Any]) -> bool:
    """Give each cell of a notebook (as JSON) the alternative text of its figure; whether anything changed.

    A cell whose output has none loses what an earlier run left.

    Raises:
        ValueError: a cell shows two figures with different texts; the cell's metadata has room for one.
    """
    changed = False
    for place, cell in enumerate(notebook["cells"]):
        if cell["cell_type"] != "code":
            continue
        outputs = [output.get("metadata", {}).get("image/png", {}) for output in cell["outputs"]]
        found = list(dict.fromkeys(output["alt"] for output in outputs if "alt" in output))
        if len(found) > 1:
            raise ValueError(f"cell {place}: {len(found)} figures with an alternative text; show one figure a cell")
        image = cell["metadata"].get("mystnb", {}).get("image", {})
        if found and image.get("alt") != found[0]:
            cell["metadata"].setdefault("mystnb", {}).setdefault("image", {})["alt"] = found[0]
            changed = True
        elif not found and "alt" in image:
            del image["alt"]
            if not image:
                cell["metadata"]["mystnb"].pop("image")
            if not cell["metadata"]["mystnb"]:
                cell["metadata"].pop("mystnb")
            changed = True
    return changed


def rewrite(path: Path, change: Callable[[dict[str, Any]], bool]) -> None:
    """Change a notebook's file, whole or not at all; `change` takes its JSON and says whether anything changed."""
    notebook = json.loads(path.read_text(encoding="utf-8"))
    if change(notebook):
        draft = path.with_suffix(f".{os.getpid()}.tmp")
        draft.write_text(json.dumps(notebook, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
        os.replace(draft, path)


def main(paths: Sequence[str] | None = None) -> int:
    """Command line; see the module's docstring. Exit code: 0; 1 a notebook cannot take its texts."""
    for path in map(Path, sys.argv[1:] if paths is None else paths):
        try:
            rewrite(path, copied)
        except ValueError as error:
            print(f"{path}: {error}", file=sys.stderr)
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
