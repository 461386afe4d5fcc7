"""Where a run will lie, and what its caller passed.

``python -m xai_utils.suite.passed PAPER PROFILE ARM SEED [papermill's own arguments]`` prints two lines: the run's
folder, and the names that were passed (``-p epochs 3``, ``-f mine.yaml``), separated by blanks. ``notebooks/run`` reads
them.
"""

import base64
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from xai_utils.suite import parameters
from xai_utils.suite.record import run_folder

_PAIRS = ("-p", "--parameters", "-r", "--parameters_raw")
_TEXTS = ("-f", "--parameters_file", "-y", "--parameters_yaml", "-b", "--parameters_base64")
_PLACES = {"profile": "2nd", "arm": "3rd", "seed": "4th"}  # arguments of notebooks/run; they also name the folder


def passed(words: Sequence[str]) -> dict[str, Any]:
    """The parameters among papermill's arguments, with the types that papermill gives them.

    Raises:
        ValueError: an option without its value, a file that is none, or text that is no mapping in YAML.
    """
    found: dict[str, Any] = {}
    rest = list(words)
    while rest:
        option, equals, value = rest.pop(0).partition("=")
        if option in _PAIRS:
            if len(rest) + bool(equals) < 2:
                raise ValueError(f"{option} needs a name and a value, such as {option} epochs 3")
            name = value if equals else rest.pop(0)
            found[name] = _typed(rest.pop(0)) if option in _PAIRS[:2] else rest.pop(0)
        elif option in _TEXTS:
            if not equals and not rest:
                raise ValueError(f"{option} needs a value")
            found |= _mapping(option, value if equals else rest.pop(0))
    return found


def _typed(text: str) -> Any:
    """As papermill reads the value of -p."""
    if text in (words := {"True": True, "False": False, "None": None}):
        return words[text]
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


def _mapping(option: str, text: str) -> dict[str, Any]:
    if option in _TEXTS[:2]:
        if not Path(text).is_file():
            raise ValueError(f"{option} {text}: there is no such file")
        text = Path(text).read_text(encoding="utf-8")
    if option in _TEXTS[4:]:
        text = base64.b64decode(text).decode()
    try:
        values = yaml.safe_load(text) or {}
    except yaml.YAMLError as error:
        raise ValueError(f"{option}: not valid YAML: {error}") from None
    if not isinstance(values, dict):
        raise ValueError(f"{option} holds {type(values).__name__}; expected lines such as epochs: 3")
    return values


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the folder of a run and the names that were passed; 2 if the arguments are wrong."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    if len(words) < 4:
        print(__doc__, file=sys.stderr)
        return 2
    paper, profile, arm, seed, *rest = words
    try:
        mine = passed(rest)
        if place := next((name for name in mine if name in _PLACES), None):
            raise ValueError(f"{place} is the {_PLACES[place]} argument: notebooks/run PAPER PROFILE ARM SEED")
        known = parameters.schema(paper)
        standing = parameters.planned(paper, profile, arm or parameters.arms(paper)[0])
        names = {name: standing[name] for name in known.parameters} | mine
        own = parameters.resolve(paper, names | {"seed": int(seed)}, mine).overrides
        print(run_folder(profile, paper, names["arm"], int(seed), bool(own)))
        print(*mine)
    except (ValueError, FileNotFoundError) as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
