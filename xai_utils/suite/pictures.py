"""Smaller pictures in executed notebooks: PNG outputs get a palette of 256 colours, which takes a third of the bytes.

    python -m xai_utils.suite.pictures NOTEBOOK …

notebooks/clean calls it. A second time changes nothing. It leaves the figures beside a
record as they were drawn.
"""

from __future__ import annotations

import base64
import io
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from xai_utils.suite.alt_text import rewrite

COLOURS = 256


def small(png: bytes) -> bytes:
    """The picture with `COLOURS` colours, on white where it is transparent; as it is where that would save nothing."""
    with Image.open(io.BytesIO(png)) as image:
        if image.mode == "P":
            return png
        picture = image.convert("RGBA")
    ground = Image.new("RGBA", picture.size, "white")
    flat = Image.alpha_composite(ground, picture).convert("RGB")
    buffer = io.BytesIO()
    flat.quantize(COLOURS, dither=Image.Dither.NONE).save(buffer, format="png", optimize=True)
    return min(buffer.getvalue(), png, key=len)


def narrow(path: Path, widest: int, heaviest: int | None = None) -> bytes:
    """A picture file as PNG, at most `widest` pixels wide, in `COLOURS` colours, or fewer if over `heaviest` bytes."""
    with Image.open(path) as image:
        picture = image.convert("RGB")
    if picture.width > widest:
        picture = picture.resize((widest, round(picture.height * widest / picture.width)), Image.Resampling.LANCZOS)
    for colours in (COLOURS, COLOURS // 2, COLOURS // 4):
        buffer = io.BytesIO()
        picture.quantize(colours, dither=Image.Dither.NONE).save(buffer, format="png", optimize=True)
        if heaviest is None or buffer.tell() <= heaviest:
            break
    return buffer.getvalue()


def shrunk(notebook: dict[str, Any]) -> bool:
    """Make the PNG outputs of a notebook (as JSON) small; whether anything changed."""
    changed = False
    for cell in notebook["cells"]:
        for output in cell.get("outputs", []):
            if (content := output.get("data", {}).get("image/png")) is None:
                continue
            png = base64.b64decode("".join(content))
            if (less := small(png)) != png:
                output["data"]["image/png"] = base64.b64encode(less).decode()
                changed = True
    return changed


def main(paths: Sequence[str] | None = None) -> int:
    """Command line; see the module's docstring."""
    for path in map(Path, sys.argv[1:] if paths is None else paths):
        rewrite(path, shrunk)
    return 0


if __name__ == "__main__":
    sys.exit(main())
