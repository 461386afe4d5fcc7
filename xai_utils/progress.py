"""What a command shows: a bar for whatever takes longer than ten seconds, and text on any terminal."""

import os
import sys

from tqdm import tqdm

AFTER = 10.0  # seconds before a bar that nobody asked for shows
SHOWN = "XAI_SHOWN"  # a file for bars and words, which `notebooks/run` shows: a kernel's own end up in its notebook


def bar(total: int, unit: str, wanted: bool | None = None) -> tqdm:
    """A progress bar over `total` units; use it in a `with` statement.

    wanted: True = at once, False = never, None = after 10 s in terminals and notebooks. XAI_PROGRESS=0 in the
    environment switches all of them off. With $XAI_SHOWN it goes to that file, each state a line.
    """
    if (path := os.environ.get(SHOWN)) and wanted is not False:
        lines = _Lines(path)
        return tqdm(total=total, unit=unit, file=lines, delay=AFTER, mininterval=AFTER, maxinterval=2 * AFTER, ncols=80)
    shell = sys.modules["IPython"].get_ipython() if "IPython" in sys.modules else None
    watched = sys.stderr.isatty() or hasattr(shell, "kernel")
    on = (watched if wanted is None else wanted) and os.environ.get("XAI_PROGRESS") != "0"
    return tqdm(total=total, unit=unit, delay=0 if wanted else AFTER, disable=not on)


class _Lines:
    """A file that gets what a bar writes as lines."""

    def __init__(self, path: str) -> None:
        self.path = path

    def write(self, text: str) -> None:
        if told := text.strip():
            with open(self.path, "a", encoding="utf-8") as file:
                file.write(f"{told}\n")

    def flush(self) -> None:
        """Nothing is held back."""


def say(text: str) -> None:
    """A line for who waits: into $XAI_SHOWN if that is set, else to the standard error."""
    if path := os.environ.get(SHOWN):
        _Lines(path).write(text)
    else:
        print(text, file=sys.stderr, flush=True)


def print_anywhere() -> None:
    """From here on, what the terminal's encoding lacks (α′ under cp932, 重心 under cp1252) is shown as "?"."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")
