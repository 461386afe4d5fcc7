"""Where a run will lie, and what its caller passed.

``python -m xai_utils.suite.passed PAPER PROFILE ARM SEED [papermill's own arguments]`` prints three lines: the
run's folder, the names that were passed (``-p epochs 3``, ``-f mine.yaml``), separated by blanks, and the environment
that the kernel should run in. ``notebooks/run`` reads them.
"""

import base64
import os
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from xai_utils.data.store import root_of
from xai_utils.suite import parameters
from xai_utils.suite.record import run_folder

_OPTIONS = {  # in papermill's order: of several values of one name, it takes that of the last option here
    "-b": ("--parameters_base64", "ZXBvY2hzOiAz"),
    "-f": ("--parameters_file", "mine.yaml"),
    "-y": ("--parameters_yaml", "'epochs: 3'"),
    "-p": ("--parameters", "epochs 3"),
    "-r": ("--parameters_raw", "epochs 3"),
}
_PLACES = {"profile": "2nd", "arm": "3rd", "seed": "4th"}  # arguments of notebooks/run; they also name the folder


class _WithoutDates(yaml.SafeLoader):
    """As papermill reads YAML: a date stays text."""

    yaml_implicit_resolvers = {  # noqa: RUF012
        first: [resolver for resolver in resolvers if resolver[0] != "tag:yaml.org,2002:timestamp"]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }


def passed(words: Sequence[str]) -> dict[str, Any]:
    """The parameters among papermill's arguments, with the values and types that papermill gives them.

    Raises:
        ValueError: an option without its value, a file that is none, or text that is no mapping in YAML.
    """
    found: dict[str, dict[str, Any]] = {option: {} for option in _OPTIONS}
    rest = list(words)
    while rest:
        word = rest.pop(0)
        name, equals, attached = word.partition("=")
        option = next((short for short, (long, _) in _OPTIONS.items() if name == long or word.startswith(short)), None)
        if option is None:
            continue
        if word.startswith(option):  # -fmine.yaml
            name, equals, attached = option, word[2:], word[2:]
        needs = ["a name", "a value"] if option in ("-p", "-r") else ["a value"]
        given = [attached] * bool(equals) + rest[: len(needs) - bool(equals)]
        del rest[: len(needs) - bool(equals)]
        if len(given) < len(needs):
            raise ValueError(f"{name} needs {' and '.join(needs)}, such as {name} {_OPTIONS[option][1]}")
        if len(needs) == 2:
            found[option][given[0]] = _typed(given[1]) if option == "-p" else given[1]
        else:
            found[option] |= _mapping(option, name, given[0])
    return {key: value for part in found.values() for key, value in part.items()}


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


def _mapping(option: str, name: str, text: str) -> dict[str, Any]:
    if option == "-f":
        if not Path(text).is_file():
            raise ValueError(f"{name} {text}: there is no such file")
        text = Path(text).read_text(encoding="utf-8")
    try:
        if option == "-b":
            text = base64.b64decode(text).decode()
        values = yaml.load(text, _WithoutDates) or {}
    except (ValueError, yaml.YAMLError) as error:
        raise ValueError(f"{name}: not valid YAML{' in base64' * (option == '-b')}: {error}") from None
    if not isinstance(values, dict):
        raise ValueError(f"{name} holds {type(values).__name__}; expected lines such as epochs: 3")
    return values


def main(arguments: Sequence[str] | None = None) -> int:
    """Print a run's folder, the names that were passed and the environment; 2 if the arguments are wrong."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    if len(words) < 4:
        print(__doc__, file=sys.stderr)
        return 2
    paper, profile, arm, seed, *rest = words
    try:
        mine = passed(rest)
        if place := next((name for name in mine if name in _PLACES), None):
            raise ValueError(f"{place} is the {_PLACES[place]} argument: notebooks/run PAPER PROFILE ARM SEED")
        if re.fullmatch(r"[-+]?[\d_]+", seed.strip()) and str(int(seed)) != seed:
            raise ValueError(f"seed = {seed!r}: write {int(seed)}, as the run's folder is named")
        known, arm = parameters.schema(paper), arm or parameters.arms(paper)[0]
        standing = parameters.planned(paper, profile, arm)
        names = {name: standing[name] for name in known.parameters} | mine | {"seed": _typed(seed)}
        found = parameters.resolve(paper, names, mine)
        if "folder" in mine:
            root_of(mine["folder"])
        if (name := os.environ.get("XAI_NAME")) and not found.overrides:
            raise ValueError(
                f"XAI_NAME is {name!r} and names runs with values of your own, but every value is the arm's: unset "
                "XAI_NAME, or pass one, such as -p folder /path/to/images"
            )
        print(run_folder(profile, paper, arm, found.values["seed"], bool(found.overrides)))
        print(*mine)
        print(sys.prefix)
    except (ValueError, FileNotFoundError) as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
