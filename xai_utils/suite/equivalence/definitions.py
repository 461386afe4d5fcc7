"""A commit's code cut into definitions (functions, methods, classes, constants, a notebook's page); what names mean.

Nothing is imported: names are followed through the text, so that a commit can be read that does not run here.
"""

import ast
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Literal

from xai_utils.suite.equivalence import replay

PACKAGE = "xai_utils"
Import = tuple[str, str | None]  # module, and the name in it; None: the module itself
Functions = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True)
class Definition:
    """Something that has a name in a file: `name` is qualified by its class; a page is a notebook's code, in order."""

    path: str
    name: str
    kind: Literal["function", "class", "constant", "page"]
    statements: tuple[ast.stmt, ...] = field(compare=False, repr=False)

    @property
    def last(self) -> str:
        """The name without its class."""
        return self.name.rpartition(".")[2]

    def __str__(self) -> str:
        return f"{self.path}, {self.name}" if self.name else self.path


@dataclass(frozen=True)
class Target:
    """What a name leads to: a definition, a module of the package or something outside (`text`); and what follows."""

    definition: Definition | None
    text: str
    rest: tuple[str, ...] = ()


class Module:
    """One file of the package."""

    def __init__(self, path: str, source: str) -> None:
        self.path, self.body = path, ast.parse(source).body
        parts = Path(path).with_suffix("").parts
        self.is_package = parts[-1] == "__init__"
        self.dotted = ".".join(parts[:-1] if self.is_package else parts)
        self.imports = imports_of(list(_flat(self.body)), self.dotted, self.is_package)

    @cached_property
    def definitions(self) -> dict[str, Definition]:
        """The file's functions, classes, methods (`Class.method`) and constants, by qualified name."""
        found: dict[str, tuple[str, list[ast.stmt]]] = {}

        def add(name: str, kind: str, statement: ast.stmt) -> None:
            found.setdefault(name, (kind, []))[1].append(statement)

        for statement in _flat(self.body):
            if isinstance(statement, Functions):
                add(statement.name, "function", statement)
            elif isinstance(statement, ast.ClassDef):
                add(statement.name, "class", statement)
                for inner in statement.body:
                    if isinstance(inner, Functions):
                        add(f"{statement.name}.{inner.name}", "function", inner)
            else:
                for name in _made_by(statement):
                    add(name, "constant", statement)
        own = {name: pair for name, pair in found.items() if name not in self.imports or pair[0] != "constant"}
        return {name: Definition(self.path, name, kind, tuple(made)) for name, (kind, made) in own.items()}


def _made_by(statement: ast.stmt) -> list[str]:
    """The constants that a module's statement makes or changes: `A = 1`, `A["b"] = 2`, `A.update(…)`."""
    if isinstance(statement, ast.Assign | ast.AugAssign | ast.AnnAssign) and statement.value is not None:
        targets = statement.targets if isinstance(statement, ast.Assign) else [statement.target]
    elif isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Call):
        targets = [statement.value.func] if isinstance(statement.value.func, ast.Attribute) else []
    else:
        return []
    found = [n.id for t in targets for n in ast.walk(t) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)]
    for target in targets:
        while isinstance(target, ast.Subscript | ast.Attribute):
            target = target.value
            found += [target.id] if isinstance(target, ast.Name) else []
    return found


def _flat(body: Sequence[ast.stmt]) -> Iterator[ast.stmt]:
    """A module's statements; those inside its own `if`, `try` and `with` too, but what only type checkers see."""
    for statement in body:
        if isinstance(statement, ast.If | ast.Try | ast.With):
            if not (isinstance(statement, ast.If) and checks_types(statement)):
                yield from _flat(statement.body)
            yield from _flat(getattr(statement, "orelse", []))
            for handler in getattr(statement, "handlers", []):
                yield from _flat(handler.body)
        else:
            yield statement


def checks_types(statement: ast.If) -> bool:
    """Whether it is `if TYPE_CHECKING`, which never runs."""
    test = statement.test
    return getattr(test, "id", getattr(test, "attr", "")) == "TYPE_CHECKING"


def imports_of(statements: Sequence[ast.stmt], dotted: str = "", is_package: bool = False) -> dict[str, Import]:
    """What import statements bind, as absolute names."""
    found: dict[str, Import] = {}
    for statement in statements:
        if isinstance(statement, ast.Import):
            for alias in statement.names:
                found[alias.asname or alias.name.partition(".")[0]] = (
                    alias.name if alias.asname else alias.name.partition(".")[0],
                    None,
                )
        elif isinstance(statement, ast.ImportFrom):
            base = statement.module or ""
            if statement.level:
                parts = dotted.split(".")
                above = parts[: len(parts) - statement.level + is_package]
                base = ".".join([*above, *([base] if base else [])])
            found |= {alias.asname or alias.name: (base, alias.name) for alias in statement.names}
    return found


class Tree:
    """The package and the notebooks of one checkout."""

    def __init__(self, files: Mapping[str, str]) -> None:
        python = {path: text for path, text in files.items() if path.startswith(f"{PACKAGE}/")}
        self.modules = {path: Module(path, text) for path, text in python.items() if path.endswith(".py")}
        self.by_name = {module.dotted: module for module in self.modules.values()}
        stubs = {path: text for path, text in python.items() if path.endswith(".pyi")}
        self.stubs = {(stub := Module(path, text)).dotted: stub for path, text in stubs.items()}
        self.notebooks = {path: text for path, text in files.items() if path.endswith(".ipynb")}
        self.sources = {path: text.splitlines() for path, text in python.items()}

    @classmethod
    def of_folder(cls, root: Path) -> "Tree":
        """The tree of a checkout on disk."""
        paths = [*(root / PACKAGE).rglob("*.py"), *(root / PACKAGE).rglob("*.pyi"), *root.glob("notebooks/*.ipynb")]
        return cls({path.relative_to(root).as_posix(): path.read_text(encoding="utf-8") for path in sorted(paths)})

    def page(self, path: str) -> Definition:
        """A notebook's code cells, the one with the parameters apart, as one definition."""
        statements: list[ast.stmt] = []
        lines: list[str] = []
        for source, before, parameters in replay.cells(self.notebooks[path]):
            lines += source.split("\n")
            statements += [] if parameters else replay.cell_tree(source, before).body
        self.sources[path] = lines
        return Definition(path, "", "page", tuple(statements))

    def all(self) -> Iterator[Definition]:
        """Every definition of the package."""
        for module in self.modules.values():
            yield from module.definitions.values()

    def target(self, path: str, chain: Sequence[str], local: Mapping[str, Import]) -> Target | None:
        """What a dotted name means in a file; None for what is no import and no definition: a variable, a built-in."""
        module, first = self.modules.get(path), chain[0]
        if first in local:
            return self._imported(local[first], chain[1:])
        if module is None or (first in module.definitions and first in module.imports):
            return None
        if first in module.definitions:
            return Target(module.definitions[first], "", tuple(chain[1:]))
        return self._imported(module.imports[first], chain[1:]) if first in module.imports else None

    def _imported(self, binding: Import, rest: Sequence[str]) -> Target:
        dotted, name = binding
        steps = [*([name] if name else []), *rest]
        while dotted.partition(".")[0] == PACKAGE and steps:
            found = self._exported(dotted, steps[0], frozenset())
            if found is None:
                return Target(None, f"{dotted}.{steps[0]}", tuple(steps[1:]))
            if isinstance(found, Definition):
                return Target(found, "", tuple(steps[1:]))
            dotted, steps = found, steps[1:]
        return Target(None, dotted, tuple(steps))

    def _exported(self, dotted: str, name: str, seen: frozenset[tuple[str, str]]) -> Definition | str | None:
        """What a module offers under a name: a definition, the dotted name of a module, or None."""
        if (dotted, name) in seen:
            return None
        module, stub, below = self.by_name.get(dotted), self.stubs.get(dotted), f"{dotted}.{name}"
        if module and name in module.definitions:
            return module.definitions[name]
        for file in (module, stub):
            if file and name in file.imports and file.imports[name] != (dotted, name):  # `from . import name`: the file
                source, inner = file.imports[name]
                if inner is None or source.partition(".")[0] != PACKAGE:
                    return source if inner is None else f"{source}.{inner}"
                return self._exported(source, inner, seen | {(dotted, name)})
        if below in self.by_name:
            inside = self.by_name[below].definitions  # an older `__getattr__` preferred the function to its file
            return inside[name] if module and "__getattr__" in module.definitions and name in inside else below
        parts = [m for m in self.modules.values() if m.dotted.startswith(f"{dotted}.") and name in m.definitions]
        return parts[0].definitions[name] if len(parts) == 1 else None

    def member(self, owner: Definition, name: str) -> Definition | None:
        """A class's method, its own or inherited from a class of the package."""
        queue, seen = [owner], set()
        while queue:
            known = queue.pop(0)
            if known in seen:
                continue
            seen.add(known)
            if found := self.modules[known.path].definitions.get(f"{known.name}.{name}"):
                return found
            queue += [base for base in self.bases(known) if isinstance(base, Definition)]
        return None

    def options(self, owner: Definition) -> set[str]:
        """Attributes of a method's ``self`` that hold an optional argument of the class, and are set there only."""
        module, name = self.modules.get(owner.path), owner.name.rpartition(".")[0]
        made = module.definitions.get(f"{name}.__init__") if module and name else None
        if module is None or made is None:
            return set()
        given = {name for function in made.statements if isinstance(function, Functions) for name in optional(function)}
        methods = [d for d in module.definitions.values() if d.name.rpartition(".")[0] == name]
        parts = [n for d in methods for statement in d.statements for n in ast.walk(statement)]
        stored = [n.attr for n in parts if isinstance(n, ast.Attribute) and not isinstance(n.ctx, ast.Load)]
        made_here = [(target, n.value) for n in parts if isinstance(n, ast.Assign) for target in n.targets]
        pairs = [pair for target, value in made_here for pair in _pairs(target, value)]
        return {name for name in given if (["self", name], [name]) in pairs and stored.count(name) == 1}

    def bases(self, owner: Definition) -> list[Definition | str]:
        """A class's bases: definitions of the package, or text."""
        found: list[Definition | str] = []
        for base in [base for made in owner.statements if isinstance(made, ast.ClassDef) for base in made.bases]:
            chain = chain_of(base.value if isinstance(base, ast.Subscript) else base)
            target = self.target(owner.path, chain, {}) if chain else None
            found.append(target.definition if target and target.definition else target.text if target else "")
        return found


def optional(function: Functions) -> set[str]:
    """Parameters that are None if they are not given."""
    given, arguments = function.args, [*function.args.posonlyargs, *function.args.args]
    pairs = [*zip(reversed(arguments), reversed(given.defaults), strict=False)]
    pairs += zip(given.kwonlyargs, given.kw_defaults, strict=True)
    return {a.arg for a, default in pairs if isinstance(default, ast.Constant) and default.value is None}


def _pairs(target: ast.AST, value: ast.AST) -> list[tuple[list[str], list[str]]]:
    """What an assignment sets, and to what, as dotted names: one pair, or several of `a, b = c, d`."""
    if isinstance(target, ast.Tuple) and isinstance(value, ast.Tuple) and len(target.elts) == len(value.elts):
        return [pair for one, other in zip(target.elts, value.elts, strict=True) for pair in _pairs(one, other)]
    return [(chain_of(target), chain_of(value))]


def chain_of(node: ast.AST) -> list[str]:
    """The parts of a dotted name; empty for anything else."""
    parts: list[str] = []
    while isinstance(node, ast.Attribute):
        parts.append(node.attr)
        node = node.value
    return [node.id, *reversed(parts)] if isinstance(node, ast.Name) else []
