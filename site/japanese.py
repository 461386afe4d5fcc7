"""How the Japanese search index divides text into words: the glossary's terms stay whole."""

from __future__ import annotations

import re
from pathlib import Path

import yaml
from sphinx.search.ja import BaseSplitter, DefaultSplitter

TERMS = [
    term
    for entry in yaml.safe_load((Path(__file__).parent / "glossary.yaml").read_text(encoding="utf-8"))
    for term in re.split(r"[、（）・\s]+", entry["ja"])
    if len(term) > 1
]
_RUN = re.compile("[\u30a1-\u30fe\u3400-\u9fff々]{2,}|[A-Za-z][A-Za-z0-9-]+")  # kanji, katakana, Latin


class Splitter(BaseSplitter):
    """The words of Sphinx's own splitter, whole runs of kanji and katakana, and each term of the glossary."""

    def __init__(self, options: dict[str, str]) -> None:
        super().__init__(options)
        self._plain = DefaultSplitter(options)

    def split(self, input: str) -> list[str]:
        """The words of a text; a word may stand in several of them."""
        known = [term for term in TERMS if term in input]
        return [*self._plain.split(input), *_RUN.findall(input), *known]
