"""Whether the compared runs looked where the code has changed.

Old and new code are walked together, from the notebook's page on: two definitions whose normal forms are equal name, in
the same places, definitions that are walked next. Where they differ, the statements that are not in both are *changed*,
on the old side as on the new, and each has to have been executed in a run whose numbers were equal.
"""

import ast
import difflib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial

from xai_utils.suite.definitions import Definition, Functions, Tree, chain_of
from xai_utils.suite.normal_form import Token, Writer
from xai_utils.suite.replay import Mark, conditions, mark_of, optional_parts

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
        return [d for d in functions if any(mark_of("d", s) in self.own.get(d.path, ()) for s in _bodies(d))]

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


def _bodies(definition: Definition) -> list[ast.stmt]:
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


@dataclass
class Hunk:
    """Statements of one definition that are not in the other; either may be missing."""

    old: list[Token]
    new: list[Token]
    sides: frozenset[str]

    def tokens(self, name: str) -> list[Token]:
        """The statements of one side."""
        return self.old if name == "old" else self.new


class Walk:
    """Old and new code, compared from the page on; `findings` is what it leaves unshown."""

    def __init__(self, old: Side, new: Side) -> None:
        self.old, self.new = old, new
        self.queue: list[tuple[Definition | None, Definition | None, frozenset[str]]] = []
        self.done: dict[tuple[Definition | None, Definition | None], set[str]] = {}
        self.met: dict[str, set[Definition]] = {"old": set(), "new": set()}
        self.words = {"old": set(old.words), "new": set(new.words)}
        self.classes: list[tuple[Definition | None, Definition | None, frozenset[str]]] = []
        self.hunks: list[Hunk] = []
        self.lost: set[Finding] = set()

    def findings(self) -> list[Finding]:
        """Every changed statement that was not shown, by file and line."""
        self._add(self.old.page, self.new.page, {"old", "new"})
        while self.queue:
            while self.queue:
                self._compare(*self.queue.pop())
            self._methods()
            if not self.queue:
                self._entered()
        self._moved()
        found = {finding for hunk in self.hunks for finding in self._judged(hunk)}
        return sorted(found | self.lost, key=lambda f: (f.path, f.line, f.side, f.why))

    def _sides(self) -> tuple[tuple[str, Side, Side], ...]:
        return ("old", self.old, self.new), ("new", self.new, self.old)

    def _add(self, old: Definition | None, new: Definition | None, sides: Iterable[str]) -> None:
        known = self.done.setdefault((old, new), set())
        if wanted := frozenset(sides) - known:
            known |= wanted
            self.queue.append((old, new, wanted))

    def _compare(self, old: Definition | None, new: Definition | None, sides: frozenset[str]) -> None:
        for name, definition in (("old", old), ("new", new)):
            if definition and name in sides:
                self.met[name].add(definition)
        kinds = {definition.kind for definition in (old, new) if definition}
        if "class" in kinds:
            self.classes.append((old, new, sides))
        a = self.old.tokens(old) if old else []
        b = self.new.tokens(new) if new else []
        for name, tokens in (("old", a), ("new", b)):
            if name in sides:
                self.words[name] |= {word for token in tokens for word in mentioned(token.node)}
                side = self.old if name == "old" else self.new
                told = [(token, f"names {word}, which cannot be followed") for token in tokens for word in token.lost]
                self.lost |= {replace(_told(side, token, token.node, why), lost=True) for token, why in told}
        if old and new and self.old.shape(old) == self.new.shape(new):
            for one, other in zip(a, b, strict=True):
                self._same(one, other, sides)
            return
        matcher = difflib.SequenceMatcher(None, [t.key for t in a], [t.key for t in b], autojunk=False)
        for kind, i, i_end, j, j_end in matcher.get_opcodes():
            if kind == "equal":
                for one, other in zip(a[i:i_end], b[j:j_end], strict=True):
                    self._same(one, other, sides)
            else:
                self._differ(a[i:i_end], b[j:j_end], sides)

    def _same(self, one: Token, other: Token, sides: frozenset[str]) -> None:
        if not (self.old.spared(one) or self.new.spared(other)):
            for old, new in zip(one.refs, other.refs, strict=True):
                compared = old in one.tested and new in other.tested and old.last == new.last
                if not compared:
                    self._add(old, new, sides)

    def _differ(self, a: Sequence[Token], b: Sequence[Token], sides: frozenset[str]) -> None:
        old = [token for token in a if not self.old.spared(token)]
        new = [token for token in b if not self.new.spared(token)]
        self.hunks.append(Hunk(old, new, sides))
        was, now = (
            list(dict.fromkeys(ref for token in tokens for ref in token.refs if ref not in token.tested))
            for tokens in (old if "old" in sides else (), new if "new" in sides else ())
        )
        for ref, twin in self._pairs(was, now):
            self._add(ref, twin, sides & {"old", "new"})
            was.remove(ref)
            now.remove(twin)
        for ref in now:
            self._add(self._twin(ref, self.new, self.old), ref, {"new"})
        for ref in was:
            self._add(ref, self._twin(ref, self.old, self.new), {"old"})

    def _pairs(self, was: list[Definition], now: list[Definition]) -> list[tuple[Definition, Definition]]:
        """What two changed statements name, each with what it has become: of the same name, or else the most like."""
        named = [(a, b) for a in was for b in now if a.last == b.last and a.kind == b.kind]
        shapes = {a: self.old.shape(a) for a in was} | {b: self.new.shape(b) for b in now}
        alike = [
            (difflib.SequenceMatcher(None, shapes[a], shapes[b], autojunk=False).ratio(), place, a, b)
            for place, (a, b) in enumerate((a, b) for a in was for b in now if a.kind == b.kind)
        ]
        ranked = [(a, b) for ratio, _, a, b in sorted(alike, key=lambda one: (-one[0], one[1])) if ratio >= 0.2]
        found: list[tuple[Definition, Definition]] = []
        for a, b in [*named, *ranked]:
            if not any(a == one or b == other for one, other in found):
                found.append((a, b))
        return found

    def _twin(self, definition: Definition, of: Side, among: Side) -> Definition | None:
        """What a definition was, or has become: the most like it, if it is like it at all."""
        shape = of.shape(definition)
        best, found = 0.5, None
        for other in among.inside:
            if other.kind != definition.kind:
                continue
            theirs = among.shape(other)
            if other.last != definition.last and theirs != shape:
                continue
            alike = 1.0 if theirs == shape else difflib.SequenceMatcher(None, shape, theirs, autojunk=False).ratio()
            alike += 0.5 * (other.name == definition.name) + 0.25 * (other.path == definition.path)
            if alike > best:
                best, found = alike, other
        return found

    def _methods(self) -> None:
        """The methods of classes that were met, where anything mentions them."""
        for old, new, sides in self.classes:
            names: dict[str, None] = {}
            for definition, side in ((old, self.old), (new, self.new)):
                if definition:
                    module = side.tree.modules[definition.path]
                    own = [n for n in module.definitions if n.rpartition(".")[0] == definition.name]
                    names |= dict.fromkeys(n.rpartition(".")[2] for n in own)
            foreign = any(_is_foreign(d, s) for d, s in ((old, self.old), (new, self.new)) if d)
            for name in names:
                word = name in self.words["old"] or name in self.words["new"]
                if foreign or word or name.startswith("__"):
                    one = self.old.tree.member(old, name) if old else None
                    other = self.new.tree.member(new, name) if new else None
                    if one and not other:
                        other = self._twin(one, self.old, self.new)
                        self._add(one, other, sides & {"old"})
                    elif other and not one:
                        one = self._twin(other, self.new, self.old)
                        self._add(one, other, sides & {"new"})
                    else:
                        self._add(one, other, sides)

    def _entered(self) -> None:
        """What ran although no name led to it: what is looked up by its name while the program runs."""
        for name, side, other in self._sides():
            for definition in side.entered:
                owner = side.tree.modules[definition.path].definitions.get(definition.name.rpartition(".")[0])
                for found in (definition, owner):
                    if found and found not in self.met[name]:
                        twin = self._twin(found, side, other)
                        self._add(*((found, twin) if name == "old" else (twin, found)), {name})

    def _moved(self) -> None:
        """Statements that went into a new function, or came out of one that is gone: there they are not changed."""
        for name, other in (("new", "old"), ("old", "new")):
            for alone in [h for h in self.hunks if h.tokens(name) and not h.tokens(other)]:
                owner = alone.tokens(name)[0].owner
                if owner.kind != "function":
                    continue
                for hunk in self.hunks:
                    if hunk.tokens(other) and any(_calls(token, owner) for token in hunk.tokens(name)):
                        _cancel(hunk.tokens(other), alone.tokens(name))

    def _judged(self, hunk: Hunk) -> Iterable[Finding]:
        for name, side, other in self._sides():
            tokens, others = (hunk.old, hunk.new) if name == "old" else (hunk.new, hunk.old)
            if name not in hunk.sides:
                continue
            known = frozenset(text for token in others for text in _skippable(other, token))
            for place, token in enumerate(tokens):
                twin = others[place] if len(tokens) == len(others) else None
                changed = differing(token.node, twin.node) if twin and twin.role == token.role else None
                yield from unshown(side, token, changed or None, known)  # none: a constant named here has changed


def _skippable(side: Side, token: Token) -> dict[str, ast.AST]:
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


def _is_foreign(definition: Definition, side: Side) -> bool:
    """A class whose bases are not all of the package: what they call is not known."""
    plain = ("", "typing.Protocol", "typing.NamedTuple", "abc.ABC", "typing.Generic")
    return any(isinstance(base, str) and base not in plain for base in side.tree.bases(definition))


def _calls(token: Token, owner: Definition) -> bool:
    return owner in token.refs or owner.last in mentioned(token.node)


def _cancel(these: list[Token], those: list[Token]) -> None:
    """Take out of both lists the statements that they share, in their order."""
    keys = []
    for tokens in (these, those):
        inner = [t for t in tokens if t.role != "head"]
        least = min((t.depth for t in inner), default=0)
        keys.append([(t.depth - least, t.text) if t.role != "head" else None for t in tokens])
    matcher = difflib.SequenceMatcher(None, [k or (-1, "") for k in keys[0]], [k or (-2, "") for k in keys[1]], False)
    for block in reversed(matcher.get_matching_blocks()):
        del these[block.a : block.a + block.size]
        del those[block.b : block.b + block.size]


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


def _told(side: Side, token: Token, part: ast.AST, why: str) -> Finding:
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
    node, path, finding = token.node, token.owner.path, partial(_told, side, token)
    if token.role in ("else", "except", "finally"):
        return
    if token.role == "head" and token.owner.kind == "class":
        module = side.tree.modules[path]
        methods = [d for d in module.definitions.values() if d.name.rpartition(".")[0] == token.owner.name]
        bodies = [statement for method in methods for statement in _bodies(method)]
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
    same = {id(part) for text, part in _skippable(side, token).items() if text in known}
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
            wanted = not chosen and not _is_nothing(owner, part) and (whole or touched(part)) and id(part) not in same
            if wanted and not side.was(path, mark_of("e", part)):
                yield part, "is changed, and this part of it was not evaluated on real data by any compared run"
        for test in conditions(owner):
            if _decides(test, whole, changed):
                for way, what in (("t", "true"), ("f", "false")):
                    if not side.was(path, mark_of(way, test)) and not _fails(writer, owner, way):
                        yield test, f"decides anew what is done, and was never {what} on real data in a compared run"
        for child in ast.iter_child_nodes(owner):
            if not isinstance(child, _NESTED):
                queue.append((child, whole or (changed is not None and id(child) in changed)))


def _is_nothing(owner: ast.AST, part: ast.AST) -> bool:
    """The end of `x or []`, or None and NaN where `x is None`: they only stand for an x that is as empty."""
    if isinstance(owner, ast.IfExp):
        test = owner.test
        absent = isinstance(test, ast.Compare) and isinstance(test.ops[0], ast.Is) and _is_plain(test.comparators[0])
        return absent and part is owner.body and ast.unparse(part) in ("None", "math.nan", "np.nan")
    while isinstance(part, ast.List | ast.Tuple) and len(part.elts) == 1:
        part = part.elts[0]
    empty = isinstance(part, ast.List | ast.Tuple | ast.Dict) and not list(ast.iter_child_nodes(part))[:-1]
    nothing = empty or (isinstance(part, ast.Constant) and not part.value)
    return isinstance(owner, ast.BoolOp) and isinstance(owner.op, ast.Or) and nothing


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
