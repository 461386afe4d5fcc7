"""What a command shows: a bar for whatever takes longer than ten seconds, and text on any terminal."""

import os
import sys

from tqdm import tqdm

AFTER = 10.0  # seconds before a bar that nobody asked for shows


def bar(total: int, unit: str, wanted: bool | None = None) -> tqdm:
    """A progress bar over `total` units; use it in a `with` statement.

    wanted: True = at once, False = never, None = after 10 s in terminals and notebooks. XAI_PROGRESS=0 in the
    environment switches all of them off.
    """
    shell = sys.modules["IPython"].get_ipython() if "IPython" in sys.modules else None
    watched = sys.stderr.isatty() or hasattr(shell, "kernel")
    on = (watched if wanted is None else wanted) and os.environ.get("XAI_PROGRESS") != "0"
    return tqdm(total=total, unit=unit, delay=0 if wanted else AFTER, disable=not on)


def print_anywhere() -> None:
    """From here on, what the terminal's encoding lacks (α′ under cp932, 重心 under cp1252) is shown as "?"."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")
