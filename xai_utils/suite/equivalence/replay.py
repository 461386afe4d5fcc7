"""Runs notebooks in plain Python processes and notes what was executed: `python -P replay.py SPEC.json`.

It stands on the standard library alone, so that one copy replays any commit's checkout: `equivalence` runs old and
new code by it. One process imports what is heavy and forks for each run. A run executes the notebook's code cells one
after another in one namespace, with its parameters put in place of papermill's, and leaves `result.json` and the run's
arrays in its folder. Every statement of the package and of the cells, and every part of an expression that may be
skipped, is marked when it is executed. Pictures are drawn and thrown away.
"""

import ast
import builtins
import contextlib
import importlib
import importlib.machinery
import json
import os
import shutil
import sys
import time
import traceback
import types
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

# loaded once for all runs: what a notebook loads anyway, and what it loads with the first optimizer and explainer
HEAVY = ("numpy", "torch", "torch._dynamo", "pandas", "scipy.stats", "scipy.ndimage", "matplotlib.pyplot", "sklearn")
HEAVY += ("pydantic", "yaml", "captum.attr", "lime.lime_image", "skimage.segmentation")
CAPACITY = 1 << 20  # marks; the package has some 15,000
Mark = tuple[str, int, int, int, int]  # kind, line, column, last line, last column: where the node stands in its file


def mark_of(kind: str, node: ast.AST) -> Mark:
    """The mark of a statement (s), a function's body (d), a part of an expression (e), a condition's way (t, f)."""
    return kind, node.lineno, node.col_offset, node.end_lineno, node.end_col_offset


def optional_parts(node: ast.AST) -> list[ast.expr]:
    """The operands of an expression that may be skipped while it is evaluated."""
    if isinstance(node, ast.IfExp):
        return [node.body, node.orelse]
    if isinstance(node, ast.BoolOp):
        return node.values[1:]
    if isinstance(node, ast.Lambda):
        return [node.body]
    if isinstance(node, ast.DictComp):
        return [node.key, node.value]
    return [node.elt] if isinstance(node, ast.ListComp | ast.SetComp | ast.GeneratorExp) else []


def conditions(node: ast.AST) -> list[ast.expr]:
    """The expressions whose truth decides what is done next."""
    if isinstance(node, ast.If | ast.While | ast.IfExp):
        return [node.test]
    return list(node.ifs) if isinstance(node, ast.comprehension) else []


class _Marking(ast.NodeTransformer):
    """Puts the marks in; `number` gives each its place in the table."""

    def __init__(self, number: Callable[[Mark], int]) -> None:
        self.number = number

    def visit(self, node: ast.AST) -> ast.AST:
        parts, tests = optional_parts(node), conditions(node)
        wrapped = {id(part): mark_of("e", part) for part in parts}
        decided = {id(test): (mark_of("t", test), mark_of("f", test)) for test in tests}
        for name, value in ast.iter_fields(node):
            if name in ("annotation", "returns", "pattern", "type_params"):
                continue
            if isinstance(value, list) and name in ("body", "orelse", "finalbody") and isinstance(node, _BLOCKS):
                setattr(node, name, self._block(node, value, name))
            elif isinstance(value, list):
                setattr(node, name, [self._one(item, wrapped, decided) for item in value])
            elif isinstance(value, ast.AST):
                setattr(node, name, self._one(value, wrapped, decided))
        return node

    def _one(self, item: Any, wrapped: Mapping[int, Mark], decided: Mapping[int, tuple[Mark, Mark]]) -> Any:
        if not isinstance(item, ast.AST):
            return item
        key, new = id(item), self.visit(item)
        if key in decided:
            yes, no = map(self.number, decided[key])
            new = _call("__went__", ast.Constant(yes), ast.Constant(no), new)
        if key in wrapped:
            pair = ast.Tuple([_call("__seen__", ast.Constant(self.number(wrapped[key]))), new], ast.Load())
            new = ast.Subscript(pair, ast.Constant(1), ast.Load())
        return new

    def _block(self, owner: ast.AST, block: list[ast.stmt], name: str) -> list[ast.stmt]:
        marked: list[ast.stmt] = []
        described = name == "body" and isinstance(
            owner, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef | ast.Module
        )
        for place, statement in enumerate(block):
            first = place == 0 and described and is_text(statement)
            future = isinstance(statement, ast.ImportFrom) and statement.module == "__future__"
            if not (first or future):
                marked.append(self._hit(mark_of("s", statement)))
            marked.append(self.visit(statement))
        if name == "body" and isinstance(owner, _FUNCTIONS):
            marked.insert(1 if is_text(block[0]) else 0, self._hit(mark_of("d", owner)))
        return marked

    def _hit(self, mark: Mark) -> ast.stmt:
        place = ast.Subscript(ast.Name("__hits__", ast.Load()), ast.Constant(self.number(mark)), ast.Store())
        return ast.Assign([place], ast.Constant(1))


_FUNCTIONS = ast.FunctionDef | ast.AsyncFunctionDef
_BLOCKS = (ast.stmt, ast.Module, ast.ExceptHandler, ast.match_case)


def is_text(statement: ast.stmt) -> bool:
    """A statement that is only a string: a docstring."""
    return isinstance(statement, ast.Expr) and isinstance(getattr(statement.value, "value", None), str)


def _call(name: str, *arguments: ast.expr) -> ast.Call:
    return ast.Call(ast.Name(name, ast.Load()), list(arguments), [])


class Marks:
    """The table of marks of one process."""

    def __init__(self, root: Path) -> None:
        self.root, self.hits, self.table = root, bytearray(CAPACITY), []
        self.codes: dict[str, types.CodeType] = {}
        builtins.__hits__, builtins.__seen__, builtins.__went__ = self.hits, self._seen, self._went

    def _seen(self, number: int) -> None:
        self.hits[number] = 1

    def _went(self, yes: int, no: int, value: Any) -> Any:
        self.hits[yes if value else no] = 1
        return value

    def compiled(self, tree: ast.Module, path: str) -> types.CodeType:
        """Code of a syntax tree with its marks put in; `path` counts from the checkout."""

        def number(mark: Mark) -> int:
            self.table.append((path, mark))
            return len(self.table) - 1

        marked = ast.fix_missing_locations(_Marking(number).visit(tree))
        return compile(marked, str(self.root / path), "exec", dont_inherit=True)

    def install(self) -> None:
        """Mark every module of the checkout's package; the package must not have been imported before."""
        plain, package = importlib.machinery.SourceFileLoader.source_to_code, self.root / "xai_utils"
        for path in sorted(package.rglob("*.py")):
            name = path.relative_to(self.root).as_posix()
            self.codes[name] = self.compiled(ast.parse(path.read_bytes()), name)

        def source_to_code(loader: Any, data: Any, path: Any, *rest: Any, **more: Any) -> types.CodeType:
            if not Path(path).is_relative_to(package):
                return plain(loader, data, path, *rest, **more)
            return self.codes[Path(path).relative_to(self.root).as_posix()]

        importlib.machinery.SourceFileLoader.source_to_code = source_to_code

    def executed(self) -> dict[str, list[Mark]]:
        """Every mark that was hit, by file."""
        found: dict[str, list[Mark]] = {}
        for (path, mark), hit in zip(self.table, self.hits, strict=False):
            if hit:
                found.setdefault(path, []).append(mark)
        return found


def cells(notebook: str) -> list[tuple[str, int, bool]]:
    """Code cells of a notebook's text: source, lines that stand before it, whether it holds the parameters.

    All are numbered as one file; lines that only IPython understands do nothing.
    """
    found, before = [], 0
    for cell in json.loads(notebook)["cells"]:
        tags = set(cell.get("metadata", {}).get("tags", ()))
        if cell["cell_type"] != "code" or "injected-parameters" in tags:
            continue
        source = "".join(cell["source"])
        try:
            ast.parse(source)
        except SyntaxError:
            lines = source.split("\n")
            source = "\n".join("pass" if line.lstrip()[:1] in ("%", "!") else line for line in lines)
        found.append((source, before, "parameters" in tags))
        before += source.count("\n") + 1
    return found


def cell_tree(source: str, before: int) -> ast.Module:
    """Syntax tree of a cell whose first line follows on `before` others."""
    return ast.increment_lineno(ast.parse(source), before)


def _execute(marks: Marks, paper: str, parameters: Mapping[str, Any]) -> None:
    path = f"notebooks/{paper}.ipynb"
    page = types.ModuleType("__main__")
    page.display = lambda *_, **__: None
    sys.modules["__main__"] = page
    for source, before, holds_parameters in cells((marks.root / path).read_text(encoding="utf-8")):
        exec(marks.compiled(cell_tree(source, before), path), page.__dict__)
        if holds_parameters:
            page.__dict__.update(parameters)


def _leave(folder: Path, marks: Marks, began: float) -> None:
    """What the run recorded, its arrays, the files that it loaded and what it executed."""
    records = sorted((folder / "results").rglob("record.json"))
    if len(records) != 1:
        raise RuntimeError(f"the notebook left {len(records)} records; expected one")
    record = json.loads(records[0].read_text(encoding="utf-8"))
    for path in records[0].parent.glob("*.npz"):
        shutil.copy(path, folder / path.name)
    loaded = {Path(file) for module in list(sys.modules.values()) if (file := getattr(module, "__file__", None))}
    names = sorted(path.relative_to(marks.root).as_posix() for path in loaded if path.is_relative_to(marks.root))
    found = {"record": record, "loaded": names, "hits": marks.executed(), "seconds": round(time.monotonic() - began, 1)}
    (folder / "result.json").write_text(json.dumps(found), encoding="utf-8")


def _draw_nothing() -> None:
    """No picture is written: that takes long, and no number comes from it."""
    if figures := sys.modules.get("matplotlib.figure"):
        figures.Figure.savefig = lambda *_, **__: None


def _child(marks: Marks, run: Mapping[str, Any]) -> int:
    """One run, in a process of its own."""
    folder, began = Path(run["folder"]), time.monotonic()
    log = os.open(folder / "log.txt", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.environ["XAI_RESULTS"] = str(folder / "results")
    try:
        _execute(marks, run["paper"], run["parameters"])
        _leave(folder, marks, began)
        return 0
    except BaseException:
        text = traceback.format_exc()
        (folder / "error.txt").write_text(text, encoding="utf-8")
        return 1
    finally:
        shutil.rmtree(folder / "results", ignore_errors=True)
        with contextlib.suppress(Exception):
            sys.stdout.flush()


def _finished(running: dict[int, int]) -> Iterator[str]:
    process, status = os.wait()
    if process in running:
        number = running.pop(process)
        yield json.dumps({"run": number, "ok": status == 0})


def main(spec: Mapping[str, Any]) -> None:
    """Do the runs of a specification (root, jobs, heavy, runs: run, paper, parameters, folder), a line for each."""
    root = Path(spec["root"]).resolve()
    sys.path.insert(0, str(root))
    sys.dont_write_bytecode = True
    for name in spec["heavy"]:
        with contextlib.suppress(ImportError):
            importlib.import_module(name)
    _draw_nothing()
    marks = Marks(root)
    marks.install()
    running: dict[int, int] = {}
    for run in spec["runs"]:
        while len(running) >= spec["jobs"]:
            for line in _finished(running):
                print(line, flush=True)
        process = os.fork()
        if process == 0:
            os._exit(_child(marks, run))
        running[process] = run["run"]
    while running:
        for line in _finished(running):
            print(line, flush=True)


if __name__ == "__main__":
    main(json.loads(Path(sys.argv[1]).read_text(encoding="utf-8")))
