"""The fixed words of generated pages, in the site's language, and small pieces of HTML that several pages share."""

from __future__ import annotations

import html
from collections.abc import Callable
from functools import cached_property
from pathlib import Path

from babel.messages.pofile import read_po

from xai_utils.suite import findings, pictures, wording
from xai_utils.suite.findings import Language, Source
from xai_utils.suite.shown import VERDICTS_JA

HERE = Path(__file__).resolve().parent
CATALOGUE = HERE / "locale" / "ja" / "LC_MESSAGES" / "site.po"


class Site:
    """What every generated page needs: the language, the committed records, and the words.

    Args:
        language: "en" or "ja".
        folder: where the sources of that language are written.
        source: the committed standard records.
    """

    def __init__(self, language: Language, folder: Path, source: Source) -> None:
        self.language, self.folder, self.source = language, folder, source

    @cached_property
    def findings(self) -> findings.Findings:
        """results/findings.yaml of the same checkout."""
        return findings.load(self.source.root / findings.FILE)

    @cached_property
    def _catalogue(self) -> dict[str, str]:
        if self.language == "en":
            return {}
        with CATALOGUE.open("rb") as file:
            return {message.id: message.string for message in read_po(file) if message.id and message.string}

    @property
    def say(self) -> Callable[[str], str]:
        """English words → the same in the site's language; those without translation stay as they are."""
        return lambda text: self._catalogue.get(text, text)

    def verdict(self, name: str) -> str:
        """A verdict as a coloured word."""
        told = VERDICTS_JA.get(name, self.say(name)) if self.language == "ja" else name
        return f'<span class="verdict verdict-{name.replace(" ", "-")}">{html.escape(told)}</span>'

    def write(self, name: str, text: str) -> None:
        """Write a page."""
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text.rstrip() + "\n", encoding="utf-8")

    def picture(self, path: Path, name: str, width: int) -> str:
        """Copy a PNG at most `width` pixels wide to pictures/`name`.png; its address from the source's root."""
        target = self.folder / "pictures" / f"{name}.png"
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(pictures.narrow(path, width))
        return f"/pictures/{name}.png"


def prose(text: str) -> str:
    """Text without markup as MyST Markdown."""
    escaped = html.escape(wording.minus(text), quote=False)
    return "".join(f"\\{sign}" if sign in "*_`$[]#|~" else sign for sign in escaped)


def number_of(stem: str) -> str:
    """The paper's number in the suite: "2" of 02_moram_regression."""
    return str(int(stem.partition("_")[0]))
