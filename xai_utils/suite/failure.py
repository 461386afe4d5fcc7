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

_REFUSALS = ("ValueError", "FileNotFoundError")
_COLOURS = re.compile(r"\x1b\[[0-9;]*m")
_FRAME = re.compile(r"^(?:File )?(\S+\.py):\d+, in ", re.MULTILINE)


def refusal(notebook: Path) -> str | None:
    """The error of a failed cell, if the suite's own code raised it as a refusal; None otherwise.

    Args:
        notebook: as papermill leaves it.
    """
    try:
        cells: list[dict[str, Any]] = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    except (OSError, ValueError, KeyError):
        return None
    for cell in cells:
        for output in cell.get("outputs", []):
            if output.get("output_type") != "error" or output.get("ename") not in _REFUSALS:
                continue
            frames = _FRAME.findall(_COLOURS.sub("", "\n".join(output.get("traceback", []))))
            if frames and "xai_utils" in Path(frames[-1]).parts:
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
