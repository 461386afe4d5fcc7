"""Whether the compared runs looked where the code has changed.

Old and new code are walked together, from the notebook's page on: two definitions whose normal forms are equal name, in
the same places, definitions that are walked next. Where they differ, the statements that are not in both are *changed*,
on the old side as on the new, and each has to have been executed in a run whose numbers were equal.
"""

import difflib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from xai_utils.suite.equivalence.definitions import Definition
from xai_utils.suite.equivalence.executed import Finding, Side, differing, mentioned, skippable, told, unshown
from xai_utils.suite.equivalence.normal_form import Token


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
                names = [(token, f"names {word}, which cannot be followed") for token in tokens for word in token.lost]
                self.lost |= {replace(told(side, token, token.node, why), lost=True) for token, why in names}
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
            known = frozenset(text for token in others for text in skippable(other, token))
            for place, token in enumerate(tokens):
                twin = others[place] if len(tokens) == len(others) else None
                changed = differing(token.node, twin.node) if twin and twin.role == token.role else None
                yield from unshown(side, token, changed or None, known)  # none: a constant named here has changed


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
