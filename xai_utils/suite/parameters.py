"""What a notebook takes: the schema of its parameters, its arms, and which of several values counts.

Precedence, here and nowhere else: the notebook's default < the profile < the arm < what the caller passed.
"""

import ast
import difflib
import functools
import operator
import os
import re
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, Self

import pydantic
import yaml
from pydantic import Field

from xai_utils.data.store import repository_root
from xai_utils.suite.strict import Strict, checked, load_yaml

Plain = str | int | float | bool | None
OWN = "+own"  # ends the name of an arm that was run with other values than its own
PASSED = "XAI_PASSED"  # names of the parameters that the caller passed; notebooks/run sets it
WHICH = ("profile", "arm", "seed", "device")  # these say which run it is, and where: they override nothing
_TYPES: dict[str, type] = {"str": str, "int": int, "float": float, "bool": bool}
_LIMITS = {"minimum": ("at least", operator.ge), "above": ("above", operator.gt)}
_LIMITS |= {"maximum": ("at most", operator.le), "below": ("below", operator.lt)}


class Parameter(Strict):
    """One entry of ``notebooks/parameters/<paper>.yaml``; `default` is the value in the notebook's own cell.

    chooses: another parameter, and its values that this one goes with, {dataset: [folder, rdc]}: where this one is
    given and the other is not, the other gets the first of them, and none of them stands without this one.
    needs: another parameter without which this one does nothing, and must not be passed.
    """

    kind: Literal["str", "int", "float", "bool"] = Field(alias="type")
    default: Plain | list[Plain]
    choices: list[Plain] | None = Field(default=None, min_length=1)
    minimum: float | None = None
    maximum: float | None = None
    above: float | None = None
    below: float | None = None
    nullable: bool = False
    many: bool = Field(default=False, alias="list")
    chooses: dict[str, list[str]] = Field(default_factory=dict)
    needs: str = ""
    help: str

    @pydantic.model_validator(mode="after")
    def _consistent(self) -> Self:
        if any(type(choice) is not _TYPES[self.kind] for choice in self.choices or ()):
            raise ValueError(f"every choice must be of type {self.kind}")
        if self.kind in ("str", "bool") and any(getattr(self, name) is not None for name in _LIMITS):
            raise ValueError(f"type {self.kind} takes no minimum, maximum, above or below")
        try:
            pydantic.TypeAdapter(self.annotation(), config={"strict": True}).validate_python(self.default)
        except pydantic.ValidationError:
            raise ValueError(f"default is {self.default!r}; expected {self.expected()}") from None
        return self

    def expected(self) -> str:
        """What values it takes, in words."""
        words = ["list of " * self.many + self.kind]
        words += [f"one of {', '.join(map(repr, self.choices))}"] if self.choices else []
        words += [f"{_LIMITS[k][0]} {getattr(self, k):.12g}" for k in _LIMITS if getattr(self, k) is not None]
        return ", ".join(words) + " (or None)" * self.nullable

    def fits(self, value: Any) -> Any:
        """`value` itself; ValueError if it is out of range or no choice."""
        limits = [(holds, getattr(self, name)) for name, (_, holds) in _LIMITS.items()]
        if not all(limit is None or holds(value, limit) for holds, limit in limits):
            raise ValueError("out of range")
        if self.choices and value not in self.choices:
            raise ValueError("not a choice")
        return value

    def annotation(self) -> Any:
        """The type as pydantic checks it."""
        one = Annotated[_TYPES[self.kind], pydantic.AfterValidator(self.fits)]
        kind = list[one] if self.many else one
        return kind | None if self.nullable else kind


class Schema(NamedTuple):
    """The parameters of a paper, and what each of its arms sets: parameters, and settings that are none."""

    parameters: dict[str, Parameter]
    arms: dict[str, dict[str, Plain | list[Plain]]]

    def settings(self, arm: str) -> dict[str, Plain | list[Plain]]:
        """What the arm sets that is no parameter."""
        return {name: value for name, value in self.arms.get(arm, {}).items() if name not in self.parameters}


class Effective(NamedTuple):
    """What a run computes with, and where that differs from what its profile and arm say.

    `values`: every parameter. `replaced`: name -> (the value that was handed in, who replaced it). `overrides`: the
    parameters that the caller passed with another value than default, profile and arm give, in alphabetical order.
    """

    values: dict[str, Any]
    replaced: dict[str, tuple[Any, str]]
    overrides: tuple[str, ...]


def schema(paper: str, root: Path | None = None) -> Schema:
    """The parameters of a paper and its arms (entry `arms`, which makes `arm` a parameter); `root` is the checkout.

    Raises:
        FileNotFoundError: there is no notebooks/parameters/<paper>.yaml; it names those there are.
        ValueError: it is not valid; the error lists every problem.
    """
    folder = (root or repository_root()) / "notebooks" / "parameters"
    path = folder / f"{paper}.yaml"
    if not path.is_file():
        known = sorted(each.stem for each in folder.glob("*.yaml"))
        raise FileNotFoundError(
            f"no parameters for paper {paper!r}: expected notebooks/parameters/<paper>.yaml. "
            f"Papers that have one: {', '.join(known) or 'none'}."
        )
    return _read(path, path.stat().st_mtime_ns)


@functools.lru_cache(maxsize=64)
def _read(path: Path, _modified_ns: int) -> Schema:
    try:
        content = load_yaml(path.read_text(encoding="utf-8"))
    except (ValueError, yaml.YAMLError) as error:
        raise ValueError(f"{path} is not valid YAML: {error}") from error
    arms = {}
    if isinstance(content, dict) and "arms" in content:
        arms = checked(dict[str, dict[str, Plain | list[Plain]]], content.pop("arms"), f"arms of {path}")
        arm = {"type": "str", "choices": list(arms), "help": "what is compared; one run is one arm"}
        content["arm"] = arm | {"default": next(iter(arms), "")}
    found = Schema(checked(dict[str, Parameter], content, path), arms)
    if missing := {"profile", "seed"} - found.parameters.keys():
        raise ValueError(f"{path} lacks {', '.join(sorted(missing))}: every paper has profile and seed.")
    for arm, sets in arms.items():
        if sets.keys() & set(WHICH):
            raise ValueError(f"{path}: arm {arm} sets {', '.join(sorted(sets.keys() & set(WHICH)))}; no arm may.")
        _validated(path.stem, found.parameters, defaults(found) | _parameters_of(found, arm))
    return found


def defaults(paper: Schema) -> dict[str, Any]:
    """The values in the notebook's own cell."""
    return {name: _plain(entry.default) for name, entry in paper.parameters.items()}


def profile_values(paper: str, profile: str, root: Path | None = None) -> dict[str, Any]:
    """What ``notebooks/profiles/<profile>/<paper>.yaml`` sets; empty if there is no such file."""
    path = (root or repository_root()) / "notebooks" / "profiles" / profile / f"{paper}.yaml"
    if not path.is_file():
        return {}
    try:
        found = load_yaml(path.read_text(encoding="utf-8")) or {}
    except (ValueError, yaml.YAMLError) as error:
        raise ValueError(f"{path} is not valid YAML: {error}") from error
    if not isinstance(found, dict):
        raise ValueError(f"{path} holds {type(found).__name__}; expected lines such as `epochs: 6`.")
    return {name: _plain(value) for name, value in found.items()}


def arms(paper: str, root: Path | None = None) -> list[str]:
    """The arms of a paper in the order of its parameter schema; the first is the one that a plain run takes."""
    return list(schema(paper, root).arms) or ["main"]


def planned(paper: str, profile: str, arm: str, root: Path | None = None) -> dict[str, Any]:
    """Every parameter of a run of that profile and arm when the caller passes nothing, and the arm's other settings."""
    known = schema(paper, root)
    values = _planned(known, paper, profile, arm, root)
    return values | {name: _plain(value) for name, value in known.settings(arm).items()}


def differing(paper: str, profile: str, arm: str, values: Mapping[str, Any], root: Path | None = None) -> list[str]:
    """Names of `values`, as a record holds them, for which default, profile and arm now give another value.

    Left out are profile, arm, seed and device, and what is no parameter any more.
    """
    now = _planned(schema(paper, root), paper, profile, arm, root)
    return [name for name, value in values.items() if name in now.keys() - set(WHICH) and now[name] != _plain(value)]


def resolve(paper: str, names: Mapping[str, Any], passed: Collection[str] | None = None) -> Effective:
    """Which value of each parameter counts.

    Args:
        paper: notebook stem.
        names: what the notebook holds when it starts, its ``globals()`` for example: see `validate`.
        passed: names of the parameters that the caller passed. None: those of $XAI_PASSED, which ``notebooks/run``
            sets; where that is not set either (plain papermill, Jupyter), whatever is neither the notebook's default
            nor the profile's value.
    """
    known = schema(paper)
    given = validate(paper, names)
    arm, profile = given.get("arm", "main"), given["profile"]
    standing = _planned(known, paper, profile, arm, None)
    own, profiled = defaults(known), profile_values(paper, profile)
    if passed is None and PASSED in os.environ:
        passed = os.environ[PASSED].split()
    if passed is None:
        passed = [n for n, value in given.items() if value != own[n] and value != profiled.get(n, own[n])]
    chosen = {name for name in passed if name in given and name not in WHICH}
    values = {name: given[name] if name in chosen or name in WHICH else standing[name] for name in given}
    sets = known.arms.get(arm, {})
    follows = _chosen_by(known, values, chosen, f"arm {arm}", sets)
    values |= {name: value for name, (value, _) in follows.items()}
    who = dict.fromkeys(profiled, f"profile {profile}") | dict.fromkeys(sets, f"arm {arm}")
    who |= {name: by for name, (_, by) in follows.items()}
    replaced = {n: (given[n], who.get(n, "default")) for n in given if values[n] != given[n]}
    return Effective(values, replaced, tuple(sorted(name for name in chosen if given[name] != standing[name])))


def _chosen_by(
    known: Schema, values: Mapping[str, Any], chosen: Collection[str], arm: str, sets: Collection[str]
) -> dict[str, tuple[str, str]]:
    """What follows from parameters that choose another one's value: name -> (value, who says so); see `Parameter`.

    Raises:
        ValueError: the two contradict each other, or one lacks what it needs. It says what to pass.
    """
    found = {}
    for name, entry in known.parameters.items():
        for other, allowed in entry.chooses.items():
            given, fits = values[name] != entry.default, values[other] in allowed
            if given and not fits:
                if other in chosen or other in sets:
                    who = f"is {values[other]!r}" if other in chosen else f"is {values[other]!r} in {arm}"
                    raise ValueError(
                        f"{name} = {values[name]!r} does not go with {other}, which {who}: leave {other} out (or "
                        f"{' or '.join(allowed)}), or leave {name} out"
                    )
                found[other] = (allowed[0], name)
            if fits and not given:
                raise ValueError(
                    f"{other} is {values[other]!r}, and {name} is not given: pass it, -p {name} /path/to/them"
                )
        idle = entry.needs and values[entry.needs] == known.parameters[entry.needs].default
        if idle and name in chosen and values[name] != entry.default:
            raise ValueError(
                f"{name} = {values[name]!r} does nothing without {entry.needs}: pass that, too, or leave {name} out"
            )
    return found


def _planned(known: Schema, paper: str, profile: str, arm: str, root: Path | None) -> dict[str, Any]:
    values = defaults(known) | profile_values(paper, profile, root) | _parameters_of(known, arm)
    try:
        values = _validated(paper, known.parameters, values)
    except ValueError as error:  # defaults and arms were checked with the schema
        raise ValueError(f"notebooks/profiles/{profile}/{paper}.yaml: {error}") from None
    return values | {"profile": profile} | ({"arm": arm} if "arm" in known.parameters else {})


def _parameters_of(known: Schema, arm: str) -> dict[str, Any]:
    return {name: _plain(value) for name, value in known.arms.get(arm, {}).items() if name in known.parameters}


def _plain(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def _is_plain(value: Any) -> bool:
    parts = value if isinstance(value, list | tuple) else [value]
    return all(part is None or isinstance(part, str | int | float | bool) for part in parts)


def validate(paper: str, names: Mapping[str, Any]) -> dict[str, Any]:
    """The notebook's parameters among `names`; one ValueError for all that is unknown, missing or wrong.

    Every public name of plain type (str, int, float, bool, None, lists and tuples of them) must be a parameter. In
    Jupyter that is asked of the names alone that the parameters cell sets, or what papermill put behind it: the start
    cell can be run again after the others have set names of theirs, and a startup file may have imported some.
    """
    known = schema(paper).parameters
    if isinstance(names.get("In"), list):  # IPython's cells so far
        mine = {*known, *_set_by_literals(names["In"])}
        names = {name: value for name, value in names.items() if name in mine}
    return _validated(paper, known, names)


def _set_by_literals(cells: Sequence[str]) -> set[str]:
    """Names that are set by cells which hold nothing but assignments of literals."""
    found: set[str] = set()
    for cell in cells:
        names = []
        try:
            for line in ast.parse(cell).body:
                if isinstance(line, ast.Expr) and isinstance(line.value, ast.Constant):
                    continue  # text
                targets = line.targets if isinstance(line, ast.Assign) else [line.target]
                ast.literal_eval(line.value)
                names += [node.id for target in targets for node in ast.walk(target) if isinstance(node, ast.Name)]
        except (SyntaxError, ValueError, TypeError, AttributeError):
            continue  # another cell
        found.update(names)
    return found


def _validated(paper: str, known: Mapping[str, Parameter], names: Mapping[str, Any]) -> dict[str, Any]:
    given = {
        name: list(value) if isinstance(value, tuple) else value
        for name, value in names.items()
        if name in known or (_is_plain(value) and name[0] != "_" and name not in ("In", "Out"))
    }
    fields = {name: (entry.annotation(), ...) for name, entry in known.items()}
    try:
        model = pydantic.create_model("Parameters", __config__=Strict.model_config, **fields).model_validate(given)
        return {name: _plain(value) for name, value in model}
    except pydantic.ValidationError as error:
        kinds = {str(e["loc"][0]): e["type"] for e in error.errors()}
    problems = []
    for name, kind in kinds.items():
        if kind == "missing":
            what = f"missing; expected {known[name].expected()}. Set it in the cell tagged parameters."
            problems.append(f"{name}: {what}")
            continue
        shown = f"{name} = {given[name]!r:.80} ({type(given[name]).__name__})"
        if kind == "extra_forbidden":
            closest = difflib.get_close_matches(name, known, 1)
            like = f"; the closest is {closest[0]!r}" if closest else ""
            own = given[name] == "folder" and "folder" in known  # dataset, source: each paper has its own word
            hint = "rename it or leave it out" if closest else "leave it out; the file named above lists all"
            hint = "your own images are read from -p folder /path/to/images alone" if own else hint
            problems.append(f"{shown}: no such parameter{like}. {hint[0].upper()}{hint[1:]}.")
            continue
        problems.append(f"{shown}: expected {known[name].expected()}. Change it.")
        if known[name].kind == "str" and not known[name].many and isinstance(given[name], int | float | bool | None):
            problems[-1] += f" (papermill reads the value of -p {name} as a number: write -r {name} to keep the text.)"
        text = re.fullmatch(r"([-+]?\d+)(\.\d*)?e([-+]?\d+)", str(given[name]), re.IGNORECASE)
        if known[name].kind == "float" and isinstance(given[name], str) and text:
            written = f"{text[1]}{text[2] or '.0'}e{int(text[3]):+d}"
            problems[-1] += f" (YAML reads {text[0]} as text: write {written}.)"
    place = f"notebooks/parameters/{paper}.yaml"
    raise ValueError("\n  ".join([f"{len(problems)} wrong parameter(s); {place} describes all:", *problems]))
