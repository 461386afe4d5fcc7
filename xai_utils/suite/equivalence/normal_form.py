"""The normal form of a definition: one token for each statement, equal where two commits say the same.

Left out are imports, docstrings, type hints, the messages of exceptions, the note of a value that is not defined, and
calls that only draw, print or describe. A name that leads into the package stands as "§", and what it leads to is noted
beside the text; a constant stands as its value; other imported names stand in full. So neither renaming nor moving a
definition changes a token that names it.
"""

import ast
from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import dataclass, field

from xai_utils.suite.equivalence.choices import is_choice
from xai_utils.suite.equivalence.definitions import (
    Definition,
    Functions,
    Import,
    Target,
    Tree,
    assigned,
    chain_of,
    checks_types,
    imports_of,
    optional,
)
from xai_utils.suite.equivalence.looking_back import looking_back
from xai_utils.suite.equivalence.replay import Mark, is_text, mark_of

PRINTS = frozenset({"print", "display"})
WARNS = frozenset({"warnings.warn"})
HARMLESS = {"len", "range", "zip", "dict", "list", "tuple", "set", "str", "float", "int", "bool", "round", "sorted"}
HARMLESS |= {"min", "max", "sum", "abs", "enumerate", "repr", "format", "reversed", "any", "all", "isinstance", "join"}
HARMLESS |= {
    "items",
    "keys",
    "values",
    "replace",
    "title",
    "lower",
    "upper",
    "split",
    "numpy",
    "cpu",
    "detach",
    "tolist",
}


_LEAVING = ast.Return | ast.Raise | ast.Continue | ast.Break


@dataclass(frozen=True)
class Token:
    """A statement, or the head of one that holds others, at its depth in the definition."""

    depth: int
    text: str
    refs: tuple[Definition, ...]
    node: ast.AST = field(compare=False, repr=False)
    role: str  # statement, head (of the definition), else, except, finally
    owner: Definition
    error: bool = False  # after it, every way out is an exception
    guard: Mark | None = None  # in an exception's handler: what it guards
    tested: frozenset[Definition] = frozenset()  # classes that it only compares types with
    lost: tuple[str, ...] = ()  # names in the package that cannot be followed
    choices: tuple[Mark, ...] = ()  # the ways of choices (`source == "folder"`) that lead here

    @property
    def key(self) -> tuple[int, str]:
        """What has to be equal."""
        return self.depth, self.text


class Writer:
    """Writes the tokens of one definition.

    Args:
        tree: the checkout.
        owner: the definition.
        outside: whether a file makes no numbers (it writes them down, or draws): names in it stand as themselves.
        renamed: local variables stand as numbers, so that their names do not count; parameters' names do.
    """

    def __init__(self, tree: Tree, owner: Definition, outside: Callable[[str], bool], renamed: bool = False) -> None:
        self.tree, self.owner, self.outside, self.renamed = tree, owner, outside, renamed
        nodes = [node for statement in owner.statements for node in ast.walk(statement)]
        inner = [node for node in nodes if isinstance(node, ast.Import | ast.ImportFrom)]
        module = tree.modules.get(owner.path)
        dotted, package = (module.dotted, module.is_package) if module else ("", False)
        self.local: Mapping[str, Import] = {} if owner.kind == "constant" else imports_of(inner, dotted, package)
        free = {name for node in nodes if isinstance(node, ast.Global) for name in node.names}
        taken = {node.arg for node in nodes if isinstance(node, ast.arg)}
        stored = {node.id for node in nodes if isinstance(node, ast.Name) and not isinstance(node.ctx, ast.Load)}
        stored |= {node.name for node in nodes if isinstance(node, ast.ExceptHandler) and node.name}
        self.optional = {name for node in nodes if isinstance(node, Functions) for name in optional(node)} - stored
        self.hidden = set() if owner.kind in ("class", "constant") else (stored | taken) - free
        self.places = dict.fromkeys(stored - taken - free, "") if renamed and owner.kind == "function" else {}
        self.refs: list[Definition] = []
        self.used: set[Definition] = set()  # of these, what is not only compared with
        self.lost: list[str] = []
        self.testing = False
        self.inlined: tuple[Definition, ...] = ()
        self.choices: tuple[Mark, ...] = ()
        self.decided: set[str] | None = None  # names that hold a choice
        self.back: Set[int] | None = None  # `id` of statements that only show committed records

    def tokens(self) -> list[Token]:
        """All of the definition's tokens; a class's own methods have theirs apart."""
        found: list[Token] = []
        for statement in self.owner.statements:
            if self.owner.kind == "page":
                continue
            if self.owner.kind == "constant" or not isinstance(statement, Functions | ast.ClassDef):
                found.append(self._token(0, self.text(statement), statement, "statement"))
                continue
            body = statement.body
            if self.owner.kind == "class":
                body = [inner for inner in body if not isinstance(inner, Functions)]
            failing = self.owner.kind == "function" and self.fails(body)
            found.append(self._token(0, self._head(statement), statement, "head", failing))
            found += self._block(body, 1, failing, None)
        return self._block(self.owner.statements, 0, False, None) if self.owner.kind == "page" else found

    def fails(self, block: Sequence[ast.stmt], depth: int = 3) -> bool:
        """Whether every way out of a block is an exception."""
        block = [statement for statement in block if not isinstance(statement, ast.Pass)]
        if not block or any(_leaves(statement) for statement in block):
            return False
        last = block[-1]
        if isinstance(last, ast.If):
            return bool(last.orelse) and self.fails(last.body, depth) and self.fails(last.orelse, depth)
        if isinstance(last, ast.With):
            return self.fails(last.body, depth)
        if isinstance(last, ast.Expr) and isinstance(last.value, ast.Call) and depth:
            found = self._target(last.value.func)
            if found and found.definition and found.definition.kind == "function" and not found.rest:
                bodies = [made.body for made in found.definition.statements if isinstance(made, Functions)]
                return Writer(self.tree, found.definition, self.outside).fails(bodies[-1], depth - 1)
        return isinstance(last, ast.Raise)

    def _token(
        self, depth: int, text: str, node: ast.AST, role: str, error: bool = False, guard: Mark | None = None
    ) -> Token:
        tested = frozenset(self.refs) - self.used
        made = Token(
            depth, text, tuple(self.refs), node, role, self.owner, error, guard, tested, tuple(self.lost), self.choices
        )
        self.refs, self.used, self.lost = [], set(), []
        return made

    def _block(self, block: Sequence[ast.stmt], depth: int, error: bool, guard: Mark | None) -> list[Token]:
        found, before = [], self.choices
        for place, statement in enumerate(block):
            failing = error or self.fails(block[place:])
            found += self._statement(statement, depth, failing, guard)
            alone = isinstance(statement, ast.If) and not statement.orelse and isinstance(statement.body[-1], _LEAVING)
            if alone and self.is_choice(statement.test):  # what follows is its other way
                self.choices = (*self.choices, mark_of("f", statement.test))
        self.choices = before
        return found

    def _branch(
        self, node: ast.stmt, way: str, block: Sequence[ast.stmt], depth: int, error: bool, guard: Mark | None
    ) -> list[Token]:
        """A block inside a statement; `way`: true or false, if it is an `if`."""
        before = self.choices
        if isinstance(node, ast.If) and self.is_choice(node.test):
            self.choices = (*before, mark_of(way, node.test))
        found = self._block(block, depth, error, guard)
        self.choices = before
        return found

    def _statement(self, node: ast.stmt, depth: int, error: bool, guard: Mark | None) -> list[Token]:
        if self._silent(node):
            return []
        head = self._token(depth, self._head(node), node, "statement", error, guard)
        if isinstance(node, ast.Match):
            found = [head]
            for case in node.cases:
                text = f"case {self.text(case.pattern)} if {self.text(case.guard)}"
                found.append(self._token(depth, text, case.body[0], "else", error, guard))
                found += self._block(case.body, depth + 1, error, guard)
            return found
        if not hasattr(node, "body"):
            return [head]
        found = [head, *self._branch(node, "t", node.body, depth + 1, error, guard)]
        for handler in getattr(node, "handlers", []):
            watched = guard or mark_of("s", node.body[0])
            text = f"except {self.text(handler.type)} as {self.text_of_name(handler.name or '')}"
            found.append(self._token(depth, text, handler, "except", error, watched))
            found += self._block(handler.body, depth + 1, error, watched)
        for name, role in (("orelse", "else"), ("finalbody", "finally")):
            if inner := getattr(node, name, []):
                found.append(self._token(depth, role, node, role, error, guard))
                found += self._branch(node, "f", inner, depth + 1, error, guard)
        return found

    def _silent(self, node: ast.stmt) -> bool:
        """What computes nothing: imports, docstrings, bare annotations, and what only draws, prints or describes."""
        if isinstance(node, ast.Import | ast.ImportFrom | ast.Pass) or is_text(node):
            return True
        if self.owner.kind == "page":
            self.back = looking_back(self.owner.statements) if self.back is None else self.back
            if id(node) in self.back:
                return True
        if isinstance(node, ast.Expr) and getattr(node.value, "value", None) is Ellipsis:
            return True
        if isinstance(node, ast.AnnAssign) and node.value is None and self.owner.kind != "class":
            return True
        if isinstance(node, ast.If) and checks_types(node):
            return True
        value = node.value if isinstance(node, ast.Expr | ast.Assign) else None
        return value is not None and self.draws(value) and self._told(value) == [] and self._names_alone(node)

    @staticmethod
    def _names_alone(node: ast.stmt) -> bool:
        targets = node.targets if isinstance(node, ast.Assign) else []
        return all(isinstance(target, ast.Name) for target in targets)

    def _head(self, node: ast.stmt) -> str:
        if isinstance(node, Functions):
            made = [self.text(decorator) for decorator in node.decorator_list]
            kind = "async def" if isinstance(node, ast.AsyncFunctionDef) else "def"
            name = "" if node in self.owner.statements else self.text_of_name(node.name)
            return f"{kind} {name}({self.text(node.args)}) {made}"
        if isinstance(node, ast.ClassDef):
            inner = [self.text(part) for part in (*node.bases, *node.keywords, *node.decorator_list)]
            return f"class {'' if node in self.owner.statements else node.name}({', '.join(inner)})"
        if isinstance(node, ast.If | ast.While):
            return f"{type(node).__name__} {self.text(node.test)}"
        if isinstance(node, ast.For | ast.AsyncFor):
            return f"{type(node).__name__} {self.text(node.target)} in {self.text(node.iter)}"
        if isinstance(node, ast.With | ast.AsyncWith):
            return f"{type(node).__name__} {[self.text(item) for item in node.items]}"
        if isinstance(node, ast.Match):
            return f"match {self.text(node.subject)}"
        return "try" if isinstance(node, ast.Try) else self.text(node)

    def text_of_name(self, name: str) -> str:
        """A local name, or its number."""
        if name not in self.places:
            return name
        self.places[name] = self.places[name] or f"·{sum(map(bool, self.places.values()))}"
        return self.places[name]

    def text(self, node: ast.AST | None) -> str:
        """Normal form of a node; what it names in the package is added to `refs`."""
        if node is None:
            return ""
        if isinstance(node, ast.Name | ast.Attribute) and (named := self._named(node)) is not None:
            return named
        if isinstance(node, ast.Name):
            return self.text_of_name(node.id)
        if isinstance(node, ast.arg):
            return node.arg
        if isinstance(node, ast.Constant):
            return ascii(node.value)
        if isinstance(node, ast.Raise):
            return f"raise {self.text(node.exc.func if isinstance(node.exc, ast.Call) else node.exc)}"
        if isinstance(node, ast.Assert):
            return f"assert {self.text(node.test)}"
        if isinstance(node, ast.Call) and self.draws(node):
            return f"draw({', '.join(self._told(node))})"
        if (count := undefined(node)) and (isinstance(node, ast.Dict) or self._makes(node)):
            return f"undefined({self.text(count[0])})"  # the note describes
        if isinstance(node, ast.AnnAssign) and node.value is not None and self.owner.kind != "class":
            return f"Assign(targets=[{self.text(node.target)}],value={self.text(node.value)})"
        parts, before = [], self.testing
        for name, value in ast.iter_fields(node):
            called = isinstance(node, ast.Call) and name == "func"
            self.testing = not called and (before or _tests_types(node, name))
            if name in ("ctx", "kind", "type_comment", "type_params", "returns") or value is None or value == []:
                continue
            if isinstance(value, list):
                shown = f"[{','.join(self.text(v) if isinstance(v, ast.AST) else ascii(v) for v in value)}]"
            else:
                shown = self.text(value) if isinstance(value, ast.AST) else ascii(value)
            parts.append(f"{name}={shown}")
        self.testing = before
        return f"{type(node).__name__}({','.join(parts)})"

    def _target(self, node: ast.AST) -> Target | None:
        chain = chain_of(node)
        if not chain or (chain[0] in self.hidden and chain[0] not in self.local):
            return None
        return self.tree.target(self.owner.path, chain, self.local)

    def _named(self, node: ast.Name | ast.Attribute) -> str | None:
        """The text of a name that leads somewhere; None for variables and for attributes of what is computed."""
        if not isinstance(node.ctx, ast.Load) or (found := self._target(node)) is None:
            return None
        rest = "".join(f".{part}" for part in found.rest)
        if found.definition is None:
            self.lost += [found.text] * self._is_lost(found.text)
            return found.text + rest
        if self.outside(found.definition.path):
            return f"¤{found.definition.last}{rest}"
        if found.definition.kind == "constant":
            return f"{self._value(found.definition)}{rest}"
        self.refs.append(found.definition)
        if found.definition.kind != "class" or not self.testing:
            self.used.add(found.definition)
        return f"§{rest}"

    def is_choice(self, test: ast.AST) -> bool:
        """Whether a condition is the same at every size of a run; see `choices`."""
        known = self.optional, self.tree.options(self.owner)
        if self.decided is None:
            pairs = assigned(self.owner.statements)
            self.decided = {name for name, value in pairs if is_choice(value, *known, set(), self._target)}
        return is_choice(test, *known, self.decided, self._target)

    def _is_lost(self, name: str) -> bool:
        """Whether a dotted name is in the package, but neither a definition nor a module of it."""
        base, _, last = name.rpartition(".")
        if name in self.tree.by_name or last.startswith("__") or base not in self.tree.by_name:
            return False
        return not self.outside(self.tree.by_name[base].path)

    def _value(self, constant: Definition) -> str:
        """A constant's value as text: that of its assignment, or all statements that make it."""
        if constant in self.inlined:
            return f"={constant.name}"
        inner = Writer(self.tree, constant, self.outside)
        inner.inlined, inner.testing = (*self.inlined, constant), self.testing
        single = constant.statements[0]
        alone = len(constant.statements) == 1 and isinstance(single, ast.Assign | ast.AnnAssign)
        targets = (single.targets if isinstance(single, ast.Assign) else [single.target]) if alone else []
        if alone and all(isinstance(target, ast.Name) for target in targets):
            text = inner.text(single.value)
        else:
            text = f"{constant.name} of {[inner.text(statement) for statement in constant.statements]}"
        self.refs += inner.refs
        self.used |= inner.used
        self.lost += inner.lost
        return text

    def _makes(self, node: ast.Call) -> bool:
        """Whether a call makes an object of a class of the package."""
        found = self._target(node.func)
        return found is not None and found.definition is not None and found.definition.kind == "class"

    def draws(self, node: ast.AST) -> bool:
        """Whether it is a call that only draws, prints or warns."""
        if not isinstance(node, ast.Call):
            return False
        found = self._target(node.func)
        if found and found.definition:
            return found.definition.path.removeprefix("xai_utils/").startswith("plot")
        if found:
            return ".".join((found.text, *found.rest)) in WARNS
        chain = chain_of(node.func)
        return (chain[-1:] == chain and bool(chain) and chain[0] in PRINTS) or chain == ["run", "figure"]

    def _told(self, call: ast.Call) -> list[str]:
        """What a call that draws computes on the way: its arguments that call something else."""
        found = []
        for argument in [*call.args, *(keyword.value for keyword in call.keywords)]:
            inner = [node for node in ast.walk(argument) if isinstance(node, ast.Call | ast.NamedExpr | ast.Await)]
            if all(isinstance(node, ast.Call) and (_harmless(node) or self.draws(node)) for node in inner):
                continue
            found.append(self.text(argument))
        return found


def _tests_types(node: ast.AST, part: str) -> bool:
    """Whether classes in that part of an expression are there to be compared with, not to be made or called."""
    if isinstance(node, ast.Compare):
        return True
    if isinstance(node, ast.Call):
        return part == "args" and chain_of(node.func) in (["isinstance"], ["issubclass"])
    return isinstance(node, ast.Set | ast.MatchClass) or (isinstance(node, ast.Dict) and part == "keys")


def undefined(node: ast.AST) -> list[ast.AST | None]:
    """The count of a value that is not defined, `{"value": None, "n": n, "note": …}`; nothing for anything else."""
    if isinstance(node, ast.Dict):
        parts = {key.value: v for key, v in zip(node.keys, node.values, strict=True) if isinstance(key, ast.Constant)}
        value, whole = parts.pop("value", False), len(parts) + 1 == len(node.keys)
    elif isinstance(node, ast.Call) and node.args:
        parts = {keyword.arg: keyword.value for keyword in node.keywords}
        parts |= dict(zip(("value", "n"), node.args, strict=False))
        value, whole = parts.pop("value"), len(node.args) < 3
    else:
        return []
    told = isinstance(value, ast.Constant) and value.value is None and "note" in parts
    return [parts.get("n")] if told and whole and set(parts) <= {"n", "note"} else []


def _harmless(call: ast.Call) -> bool:
    name = call.func.id if isinstance(call.func, ast.Name) else getattr(call.func, "attr", "")
    return name in HARMLESS


def _leaves(statement: ast.stmt) -> bool:
    """Whether a statement may leave its block by anything but an exception."""
    queue: list[ast.AST] = [statement]
    while queue:
        node = queue.pop()
        if isinstance(node, ast.Return | ast.Break | ast.Continue | ast.Yield | ast.YieldFrom):
            return True
        if not isinstance(node, Functions | ast.Lambda | ast.ClassDef):
            queue += ast.iter_child_nodes(node)
    return False
