"""How the suite reads and says things: closed models, YAML that is only data, and problems in one line each."""

import functools
import math
import os
import sys
from collections.abc import Callable, Sequence
from typing import Any

import pydantic
import yaml

DEPTH = 100  # of nested lists and mappings in a YAML file
_Loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
Main = Callable[[Sequence[str] | None], int]


class Strict(pydantic.BaseModel):
    """A pydantic model that refuses unknown fields, conversions between types, NaN and later changes."""

    model_config = pydantic.ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)


def checked(kind: Any, data: Any, what: object) -> Any:
    """`data` as `kind`, or one ValueError that lists every problem of `what`."""
    try:
        return pydantic.TypeAdapter(kind).validate_python(data)
    except pydantic.ValidationError as error:
        lines = [f"{'.'.join(map(str, e['loc']))}: {e['msg']} (got {e['input']!r:.60})" for e in error.errors()]
        raise ValueError("\n  ".join([f"{what} is not valid; correct it:", *lines])) from None


def unique(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object from its pairs; ValueError for a key given twice, of which JSON would let the later one win."""
    found = dict(pairs)
    if len(found) < len(pairs):
        keys = [key for key, _ in pairs]
        raise ValueError(f"{next(key for key in keys if keys.count(key) > 1)!r} stands twice")
    return found


def load_yaml(text: str) -> Any:
    """The data in a YAML text, in time and memory that its length bounds.

    Raises:
        ValueError: an alias (nine lines of them can stand for a billion values), lists nested deeper than `DEPTH`, or a
            key given twice, of which YAML would let the later one win.
        yaml.YAMLError: it is not YAML.
    """
    depth = 0
    for event in yaml.parse(text, Loader=_Loader):
        line = event.start_mark.line + 1
        if isinstance(event, yaml.AliasEvent):
            raise ValueError(f"line {line}: *{event.anchor} is an alias; write out what it stands for")
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > DEPTH:
            raise ValueError(f"line {line}: nested deeper than {DEPTH}")
    root = yaml.compose(text, Loader=_Loader)
    queue = [root]
    while queue:
        node = queue.pop()
        if isinstance(node, yaml.MappingNode):
            seen: set[tuple[str, str]] = set()
            for key, value in node.value:
                if (key.tag, str(key.value)) in seen:
                    raise ValueError(f"line {key.start_mark.line + 1}: {key.value!r} stands twice")
                seen.add((key.tag, str(key.value)))
                queue += [key, value]
        elif isinstance(node, yaml.SequenceNode):
            queue += node.value
    return None if root is None else yaml.constructor.SafeConstructor().construct_document(root)


def seconds_of(variable: str) -> float:
    """Seconds that a variable of the environment says to wait; 0 where it is not set. ValueError for anything else."""
    text = os.environ.get(variable) or "0"
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not 0 <= seconds < math.inf:
        raise ValueError(f"{variable} is {text!r}; expected seconds to wait for another run, such as 60: correct it")
    return seconds


def said(problem: object) -> str:
    """A problem as one line that any terminal can show."""
    line = " ".join(str(problem).split())
    return "".join(letter if letter.isprintable() else "?" for letter in line)


def in_one_line(main: Main) -> Main:
    """A command that ends with one line and exit code 2 where a file is not what it should be, or nobody reads on."""

    @functools.wraps(main)
    def guarded(argv: Sequence[str] | None = None) -> int:
        try:
            status = main(argv)
            sys.stdout.flush()
            return status
        except BrokenPipeError:  # `… | head`; Python would complain again at its end
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        except (ValueError, OSError, RecursionError, yaml.YAMLError) as error:
            print(f"PROBLEM {said(error)}", file=sys.stderr)
        return 2

    return guarded
