"""Conditions that go the same way at every size of a run, so that a short run of every arm shows which.

They compare names (`source == "folder"`), ask for types, kinds of tensors and modes (`isinstance`, `x.dtype`,
`x.dim()`, `model.training`, `torch.is_grad_enabled()`), or whether an optional argument was given. Values of data,
counts and sizes decide none of them.
"""

import ast
from collections.abc import Callable, Set

from xai_utils.suite.equivalence.definitions import Target, chain_of

TYPES = {"isinstance", "issubclass", "callable", "hasattr"}
KINDS = {"dtype", "device", "ndim", "training", "requires_grad", "is_cuda"}  # attributes
MODES = {"dim", "is_floating_point", "is_complex", "is_inference", "get_default_dtype", "get_default_device"}  # calls
MODES |= {"is_grad_enabled", "is_inference_mode_enabled", "is_autocast_enabled"}


def is_choice(test: ast.AST, optional: Set[str], options: Set[str], target: Callable[[ast.AST], Target | None]) -> bool:
    """Whether a condition is the same at every size of a run.

    Args:
        test: the condition.
        optional: names of the function's arguments that are None if not given, and are never set anew.
        options: attributes of ``self`` that hold such an argument of the class, and are never set anew.
        target: what a name leads to.
    """

    def whole(part: ast.AST) -> bool:
        return is_choice(part, optional, options, target)

    if isinstance(test, ast.BoolOp):
        return all(whole(value) for value in test.values)
    if isinstance(test, ast.UnaryOp):
        return isinstance(test.op, ast.Not) and whole(test.operand)
    if isinstance(test, ast.Call) and chain_of(test.func) in [[name] for name in TYPES]:
        return True
    if not (isinstance(test, ast.Compare) and len(test.ops) == 1):
        return _is_kind(test)
    left, op, right = test.left, test.ops[0], test.comparators[0]
    if _is_kind(left):
        named = [*right.elts] if isinstance(right, ast.Tuple | ast.Set | ast.List) else [right]
        return all(_is_kind(one) or isinstance(one, ast.Constant) or bool(chain_of(one)) for one in named)
    found = target(right)
    if isinstance(op, ast.In | ast.NotIn):
        table = found is not None and found.definition is not None and found.definition.kind == "constant"
        types = isinstance(left, ast.Call) and chain_of(left.func) == ["type"]
        return table or types or (_is_words(right) and not isinstance(right, ast.Constant))
    if isinstance(op, ast.Is | ast.IsNot):
        none = isinstance(right, ast.Constant) and right.value is None
        given = chain_of(left) in [[name] for name in optional] + [["self", name] for name in options]
        return (none and given) or found is not None
    return isinstance(op, ast.Eq | ast.NotEq) and _is_words(right)


def _is_kind(node: ast.AST) -> bool:
    """What a tensor, a model or the process is, not what it holds: `x.dtype`, `x.device.type`, `x.dim()`."""
    if isinstance(node, ast.Call):
        return isinstance(node.func, ast.Attribute) and node.func.attr in MODES
    if isinstance(node, ast.Attribute):
        return node.attr in KINDS or (node.attr in ("type", "is_floating_point") and _is_kind(node.value))
    return False


def _is_words(node: ast.AST) -> bool:
    words = node.elts if isinstance(node, ast.Tuple | ast.List | ast.Set) else [node]
    return bool(words) and all(isinstance(word, ast.Constant) and isinstance(word.value, str) for word in words)
