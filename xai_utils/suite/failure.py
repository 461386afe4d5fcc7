"""``python -m xai_utils.suite.failure NOTEBOOK``: why an executed notebook failed, in the words of its error.

It exits with 0 if the suite itself refused something (a folder, a file, a parameter): then the words are enough. Else,
and where no cell failed, it exits with 1 and prints nothing: ``notebooks/run`` shows the end of the traceback then.
"""

import json
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

_PACKAGE = Path(__file__).resolve().parents[1]
_COLOURS = re.compile(r"\x1b\[[0-9;]*m")
_FRAME = re.compile(r"^(?:(?:File )?(\S.*\.py):\d+, in |Cell In\[)", re.MULTILINE)  # "": a cell
_HERE = re.compile(r"^-+> *\d+ +(.*)", re.MULTILINE)  # the line of a frame that raised, or called


def refusal(notebook: Path) -> str | None:
    """The error of a failed cell, if a line of the suite raised it as a refusal; None otherwise.

    Args:
        notebook: as papermill leaves it.
    """
    try:
        cells: list[dict[str, Any]] = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    except (OSError, ValueError, KeyError):
        return None
    for cell in cells:
        for output in cell.get("outputs", []):
            if output.get("output_type") == "error" and output.get("ename") in ("ValueError", "FileNotFoundError"):
                text = _COLOURS.sub("", "\n".join(output.get("traceback", [])))
                frames, lines = _FRAME.findall(text), _HERE.findall(text)
                ours = bool(frames and frames[-1]) and Path(frames[-1]).expanduser().resolve().is_relative_to(_PACKAGE)
                if ours and lines and lines[-1].startswith("raise "):
                    said = f"{output['ename']}: {output['evalue']}"
                    return f"cell [{cell.get('execution_count')}] refused what it was given:\n{said}"
    return None


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the refusal of the notebook named, on stderr; 0 if there is one, else 1."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    said = refusal(Path(words[0])) if words else None
    if said:
        print(said, file=sys.stderr)
    return int(said is None)


if __name__ == "__main__":
    sys.exit(main())
