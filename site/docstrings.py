"""Sphinx extension: docstrings, which are plain text with `code` in backticks, become reStructuredText."""

from __future__ import annotations

import re
from typing import Any

from sphinx.application import Sphinx

_CODE = re.compile(r"``[^`]+``|`[^`]+`")
_MARKUP = re.compile(r"([*|\\])|(?<=\w)(_)(?!\w)")  # emphasis, substitutions, and names that end in "_"
_SECTION = re.compile(r"\s*(Args|Attributes|Raises|Returns|Yields|Note|Notes|Example|Examples):\s*")
_ENTRY = re.compile(r"(\s+)(\*{0,2}[\w, *]+)(:.*)")


def plain(line: str) -> str:
    """One line of a docstring, with everything escaped that reStructuredText would read as markup."""
    out, end = [], 0
    for code in _CODE.finditer(line):
        out += [_MARKUP.sub(r"\\\g<0>", line[end : code.start()]), f"``{code[0].strip('`')}``"]
        end = code.end()
    return "".join([*out, _MARKUP.sub(r"\\\g<0>", line[end:])])


def _process(app: Sphinx, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    lines[:] = [plain(line) for line in lines]
    for place in range(len(lines) - 1, 0, -1):  # an indented block below a line of text is shown as it is written
        indent = len(lines[place]) - len(lines[place].lstrip())
        above = lines[place - 1]
        if indent >= 4 and above and not above.startswith(" ") and not _SECTION.fullmatch(above):
            lines.insert(place, "")


def setup(app: Sphinx) -> dict[str, bool]:
    """Connect before napoleon, which reads the sections."""
    app.connect("autodoc-process-docstring", _process, priority=300)
    return {"parallel_read_safe": True}
