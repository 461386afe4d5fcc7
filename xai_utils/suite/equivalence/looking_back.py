"""Statements of a notebook that show committed records: they make no number of the run."""

import ast
from collections.abc import Sequence, Set

from xai_utils.suite.equivalence.definitions import chain_of

READS = ["report", "load"]
KEEPS = {"measure", "measure_all", "arrays", "uses"}  # what a run keeps, or is judged by


def looking_back(statements: Sequence[ast.stmt]) -> Set[int]:
    """`id` of the statements that read the records, or what was made of them; and of what serves these alone.

    None, if anything of the records is measured or kept.
    """
    names: set[str] = set()
    found: set[int] = set()
    for statement in statements:
        nodes = list(ast.walk(statement))
        stored = {n.id for n in nodes if isinstance(n, ast.Name) and not isinstance(n.ctx, ast.Load)}
        if _read(statement) & names or any(chain_of(node) == READS for node in nodes):
            if any(isinstance(node, ast.Attribute) and node.attr in KEEPS for node in nodes):
                return frozenset()
            names |= stored
            found.add(id(statement))
        else:
            names -= stored
    return found | _serving(statements, found)


def _read(statement: ast.stmt) -> set[str]:
    """Names that a statement takes from before it, and not those that its own loops and functions bind."""
    nodes = list(ast.walk(statement))
    names = {n.id for n in nodes if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Load)}
    names |= {n.target.id for n in nodes if isinstance(n, ast.AugAssign) and isinstance(n.target, ast.Name)}
    loops = [n.target for n in nodes if isinstance(n, ast.For | ast.comprehension)]
    bound = {n.id for target in loops for n in ast.walk(target) if isinstance(n, ast.Name)}
    return names - bound - {n.arg for n in nodes if isinstance(n, ast.arg)}


def _serving(statements: Sequence[ast.stmt], those: Set[int]) -> set[int]:
    """Functions and tables that a statement sets and only those read."""
    more: set[int] = set()
    while those:
        rest = [statement for statement in statements if id(statement) not in {*those, *more}]
        found = set()
        for statement in rest:
            if isinstance(statement, ast.Assign) and isinstance(statement.value, ast.Lambda | ast.Constant | ast.Dict):
                names = {n.id for target in statement.targets for n in ast.walk(target) if isinstance(n, ast.Name)}
                if not any(names & _read(other) for other in rest if other is not statement):
                    found.add(id(statement))
        if not found:
            break
        more |= found
    return more
