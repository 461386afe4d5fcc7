"""Which of the changed statements the compared runs have shown.

A changed statement, on the old side as on the new, has to have been executed in a run whose numbers were equal; so have
those of its parts that may be skipped (`a or b`, `x if c else y`, a lambda), and a condition both ways where it decides
anew. What needs no run stands in results/README.md, "When a record is current".
"""

import ast
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property, partial

from xai_utils.suite.equivalence.definitions import Definition, Functions, Tree, chain_of
from xai_utils.suite.equivalence.normal_form import Token, Writer, undefined
from xai_utils.suite.equivalence.replay import Mark, conditions, mark_of, optional_parts

_NESTED = ast.stmt | ast.ExceptHandler | ast.match_case
OPERATORS = (ast.operator, ast.cmpop, ast.unaryop, ast.boolop)
ORDERS = (ast.Lt, ast.LtE, ast.Gt, ast.GtE)
Hits = Mapping[str, frozenset[Mark]]


class Side:
    """The old or the new code: its definitions, and what the compared runs executed of it.

    Args:
        name: "old" or "new".
        tree: the checkout.
        page: the paper's notebook, a path.
        hits: what was executed by the runs that count as evidence, of any paper.
        own: what was executed by the paper's own runs.
        loaded: files that the paper's own runs loaded.
        outside: whether a file makes no numbers.
        written: the normal forms written so far, for several papers of one checkout.
    """

    def __init__(
        self,
        name: str,
        tree: Tree,
        page: str,
        hits: Hits,
        own: Hits,
        loaded: Iterable[str],
        outside: Callable[[str], bool],
        written: dict[tuple[Definition, bool], list[Token]],
    ) -> None:
        self.name, self.tree, self.hits, self.own, self.outside = name, tree, hits, own, outside
        self.loaded, self.page = frozenset(loaded), tree.page(page)
        self._tokens = written

    def tokens(self, definition: Definition, renamed: bool = False) -> list[Token]:
        """The definition's normal form; see `Writer`."""
        key = definition, renamed
        if key not in self._tokens:
            self._tokens[key] = Writer(self.tree, definition, self.outside, renamed).tokens()
        return self._tokens[key]

    def shape(self, definition: Definition) -> tuple[tuple[int, str], ...]:
        """All that has to be equal, for comparing whole definitions."""
        return tuple(token.key for token in self.tokens(definition, renamed=True))

    @cached_property
    def inside(self) -> list[Definition]:
        """The definitions of the loaded files that make numbers."""
        return [d for d in self.tree.all() if d.path in self.loaded and not self.outside(d.path)]

    @cached_property
    def entered(self) -> list[Definition]:
        """The functions and methods that one of the paper's runs entered."""
        functions = [d for d in self.inside if d.kind == "function"]
        return [d for d in functions if any(mark_of("d", s) in self.own.get(d.path, ()) for s in bodies_of(d))]

    @cached_property
    def words(self) -> set[str]:
        """Attributes that code outside mentions: suite and plots call methods, too."""
        modules = [m for path, m in self.tree.modules.items() if path in self.loaded and self.outside(path)]
        return {word for module in modules for statement in module.body for word in mentioned(statement)}

    def was(self, path: str, mark: Mark) -> bool:
        """Whether a node was executed."""
        return mark in self.hits.get(path, ())

    def spared(self, token: Token) -> bool:
        """What needs no run: ways to an exception, a handler that was not needed, a choice that is no arm's."""
        path, guard = token.owner.path, token.guard
        unchosen = any(not self.was(path, way) for way in token.choices)
        handled = guard is not None and self.was(path, guard)
        return token.error or unchosen or handled or self.shows_progress(token.owner)

    def shows_progress(self, definition: Definition) -> bool:
        """Whether a function hands out a progress bar of tqdm, and so makes no numbers."""
        last = definition.statements[-1] if definition.kind == "function" else None
        made = last.body[-1] if isinstance(last, Functions) else None
        if not (isinstance(made, ast.Return) and isinstance(made.value, ast.Call)):
            return False
        found = self.tree.target(definition.path, chain_of(made.value.func) or [""], {})
        return found is not None and found.text.partition(".")[0] == "tqdm"


def bodies_of(definition: Definition) -> list[ast.stmt]:
    """The function's statements, of each place where it is defined."""
    return [statement for statement in definition.statements if isinstance(statement, Functions)]


def mentioned(node: ast.AST) -> set[str]:
    """Names of attributes, and strings that could name one."""
    found = {inner.attr for inner in ast.walk(node) if isinstance(inner, ast.Attribute)}
    texts = [inner.value for inner in ast.walk(node) if isinstance(inner, ast.Constant)]
    return found | {text for text in texts if isinstance(text, str) and text.isidentifier()}


@dataclass(frozen=True)
class Finding:
    """A changed statement that no compared run has shown."""

    side: str
    path: str
    line: int
    name: str
    source: str
    why: str
    lost: bool = False  # a name cannot be followed: no run can show what it leads to

    def __str__(self) -> str:
        place = f"{self.path}:{self.line}" + f" ({self.name})" * bool(self.name)
        return f"{place}, {self.side}: {self.source}\n      {self.why}"


def skippable(side: Side, token: Token) -> dict[str, ast.AST]:
    """The parts of a statement that hold something that may be skipped, by their normal form."""
    if isinstance(token.node, Functions | ast.ClassDef | ast.ExceptHandler):
        return {}
    writer, queue, found = Writer(side.tree, token.owner, side.outside), [token.node], {}
    while queue:
        node = queue.pop()
        if optional_parts(node):
            found[writer.text(node)] = node
        if isinstance(node, ast.IfExp):  # an alternative under the same condition is the same, whatever the other is
            test = writer.text(node.test)
            found |= {
                f"{test} {way}: {writer.text(part)}": part for way, part in (("t", node.body), ("f", node.orelse))
            }
        queue += [child for child in ast.iter_child_nodes(node) if not isinstance(child, _NESTED)]
    return found


def differing(node: ast.AST, other: ast.AST) -> set[int]:
    """`id` of the smallest parts of a node that are not in the other; nested statements do not count."""
    if type(node) is not type(other):
        return {id(node)}
    found: set[int] = set()
    for name, value in ast.iter_fields(node):
        theirs = getattr(other, name, None)
        if name in ("ctx", "kind", "annotation", "returns", "type_comment", "type_params"):
            continue
        ours, those = (v if isinstance(v, list) else [v] for v in (value, theirs))
        if any(isinstance(v, _NESTED) for v in (*ours, *those)):
            continue
        if len(ours) != len(those):
            return {id(node)}
        for one, two in zip(ours, those, strict=True):
            if isinstance(one, OPERATORS) or not (isinstance(one, ast.AST) and isinstance(two, ast.AST)):
                if type(one) is not type(two) or (not isinstance(one, ast.AST) and one != two):
                    return {id(node)}
            else:
                found |= differing(one, two)
    return found


def told(side: Side, token: Token, part: ast.AST, why: str) -> Finding:
    """A finding about a part of a statement."""
    lines = side.tree.sources[token.owner.path]
    source = lines[part.lineno - 1].strip() if part.lineno <= len(lines) else ""
    return Finding(side.name, token.owner.path, part.lineno, token.owner.name, source[:110], why)


def unshown(side: Side, token: Token, changed: set[int] | None, known: frozenset[str]) -> Iterable[Finding]:
    """What of a changed statement no run has shown.

    Args:
        side: old or new code.
        token: the statement.
        changed: `id` of its parts that differ; None: all of it.
        known: normal forms of parts that the other side has, too.
    """
    node, path, finding = token.node, token.owner.path, partial(told, side, token)
    if token.role in ("else", "except", "finally"):
        return
    if token.role == "head" and token.owner.kind == "class":
        module = side.tree.modules[path]
        methods = [d for d in module.definitions.values() if d.name.rpartition(".")[0] == token.owner.name]
        bodies = [statement for method in methods for statement in bodies_of(method)]
        if bodies and not any(side.was(path, mark_of("d", statement)) for statement in bodies):
            yield finding(node, "is changed, and no compared run used the class on real data")
        return
    if isinstance(node, Functions):
        empty = all(isinstance(s, ast.Pass) or (isinstance(s, ast.Expr) and _is_plain(s.value)) for s in node.body)
        if not empty and not side.was(path, mark_of("d", node)):
            yield finding(node, "is changed, and no compared run called it on real data")
        return
    if token.depth and token.owner.kind == "class":  # what a class does when it is made
        return
    if not side.was(path, mark_of("s", node)):
        yield finding(node, "is changed, and no compared run executed it on real data")
        return
    yield from (finding(part, why) for part, why in _parts(side, token, changed, known))


def _is_plain(node: ast.AST) -> bool:
    return isinstance(node, ast.Constant)


def _parts(side: Side, token: Token, changed: set[int] | None, known: frozenset[str]) -> Iterable[tuple[ast.AST, str]]:
    """The parts of a changed statement that were skipped, and conditions that went one way only."""
    node, path = token.node, token.owner.path
    writer = Writer(side.tree, token.owner, side.outside)
    same = {id(part) for text, part in skippable(side, token).items() if text in known}
    if isinstance(node, ast.If) and writer.fails(node.body):
        return  # it only looks for what is wrong

    def touched(part: ast.AST) -> bool:
        return changed is None or any(id(inner) in changed for inner in ast.walk(part))

    queue: list[tuple[ast.AST, bool]] = [(node, changed is None or id(node) in changed)]
    while queue:
        owner, whole = queue.pop()
        if id(owner) in same:
            continue
        chosen = isinstance(owner, ast.IfExp) and writer.is_choice(owner.test)
        for part in optional_parts(owner):
            told = isinstance(node, ast.Expr) and writer.draws(node.value) and not _calls_any(part)
            spared = chosen or told or _is_nothing(owner, part) or id(part) in same
            wanted = not spared and (whole or touched(part))
            if wanted and not side.was(path, mark_of("e", part)):
                yield part, "is changed, and this part of it was not evaluated on real data by any compared run"
        for test in conditions(owner):
            if _decides(test, whole, changed) and not writer.is_choice(test):
                for way, what in (("t", "true"), ("f", "false")):
                    if not side.was(path, mark_of(way, test)) and not _fails(writer, owner, way):
                        yield test, f"decides anew what is done, and was never {what} on real data in a compared run"
        for child in ast.iter_child_nodes(owner):
            if not isinstance(child, _NESTED):
                queue.append((child, whole or (changed is not None and id(child) in changed)))


def _is_nothing(owner: ast.AST, part: ast.AST) -> bool:
    """The end of `x or []`, or None and NaN where `x is None`: they only stand for an x that is as empty.

    So does a value that is not defined.
    """
    if isinstance(owner, ast.IfExp):
        test = owner.test
        absent = isinstance(test, ast.Compare) and isinstance(test.ops[0], ast.Is) and _is_plain(test.comparators[0])
        return absent and part is owner.body and ast.unparse(part) in ("None", "math.nan", "np.nan")
    while isinstance(part, ast.List | ast.Tuple) and len(part.elts) == 1:
        part = part.elts[0]
    empty = isinstance(part, ast.List | ast.Tuple | ast.Dict) and not list(ast.iter_child_nodes(part))[:-1]
    nothing = empty or (isinstance(part, ast.Constant) and not part.value) or bool(undefined(part))
    return isinstance(owner, ast.BoolOp) and isinstance(owner.op, ast.Or) and nothing


def _calls_any(part: ast.AST) -> bool:
    return any(isinstance(inner, ast.Call) for inner in ast.walk(part))


def _decides(test: ast.AST, whole: bool, changed: set[int] | None) -> bool:
    """Whether an order, an operator or a number in a condition has changed."""
    for node in ast.walk(test):
        new = whole or changed is None or any(id(inner) in changed for inner in ast.walk(node))
        if new and isinstance(node, ast.Compare) and any(isinstance(op, ORDERS) for op in node.ops):
            return True
        if changed is not None and not whole and id(node) in changed:
            number = isinstance(node, ast.Constant) and isinstance(node.value, int | float)
            if number or isinstance(node, ast.BinOp | ast.UnaryOp | ast.BoolOp | ast.Compare):
                return True
    return False


def _fails(writer: Writer, owner: ast.AST, way: str) -> bool:
    """Whether that way of an `if` ends in an exception."""
    return isinstance(owner, ast.If) and writer.fails(owner.body if way == "t" else owner.orelse)
