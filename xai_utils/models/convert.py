"""Any traceable network as a network of modules, so that LRP sees every sum, gate and activation of it.

`torch.fx` follows the forward pass; what it finds as functions (`+`, `relu`, `flatten`, …) becomes modules.
"""

import copy
import operator
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn
from torch.fx.passes.shape_prop import ShapeProp

from ..seeds import generator
from .forward import preserve_state
from .layers import Add, Concat, Gate

_ADDS = {operator.add, operator.iadd, torch.add, "add", "add_"}
_PRODUCTS = {operator.mul, operator.imul, torch.mul, "mul", "mul_"}
_CONCATENATIONS = {torch.cat, torch.concat, torch.concatenate}
_ACTIVATIONS: dict[Any, type[nn.Module]] = {
    F.relu: nn.ReLU, torch.relu: nn.ReLU, torch.relu_: nn.ReLU, "relu": nn.ReLU, "relu_": nn.ReLU, F.relu6: nn.ReLU6,
    F.silu: nn.SiLU, F.gelu: nn.GELU, F.hardswish: nn.Hardswish, F.hardsigmoid: nn.Hardsigmoid, F.elu: nn.ELU,
    F.leaky_relu: nn.LeakyReLU, torch.tanh: nn.Tanh, "tanh": nn.Tanh, torch.sigmoid: nn.Sigmoid,
    "sigmoid": nn.Sigmoid,
}  # fmt: skip
_POOLS: dict[Any, type[nn.Module]] = {
    F.max_pool2d: nn.MaxPool2d, F.avg_pool2d: nn.AvgPool2d, F.adaptive_avg_pool2d: nn.AdaptiveAvgPool2d,
    F.adaptive_max_pool2d: nn.AdaptiveMaxPool2d,
}  # fmt: skip
_FLATTENS = {torch.flatten, "flatten", "view", "reshape", torch.reshape}
_DROPOUTS = {F.dropout: nn.Dropout, F.dropout2d: nn.Dropout2d}
TOLERANCE = 1e-6  # of the twin's outputs, relative to the largest (1e-3 in half precision)


def from_torch(model: nn.Module, images: Tensor | None = None) -> fx.GraphModule:
    """Return the twin of a network that is built of modules alone, with copies of its layers and equal outputs.

    Sums become `Add` (the graph tells the shortcut from the block: it is what the block starts from, or the shorter
    of two ways), products with one factor per channel or per place `Gate`, concatenations `Concat`; activations,
    poolings and flattening become their modules. Nothing works in place, every call has a module of its own, dropout
    and stochastic depth stay as in evaluation mode. Names of layers stay. What is left over stays a function: LRP then
    names it.

    The outputs of both are compared before the twin is handed out. Hooks that stand in the way of the images are
    followed like everything else; a forward that remembers something is noticed. The model itself is not touched; the
    twin is in the same mode, on the same device.

    Args:
        model: any network of images that `torch.fx` can trace.
        images: some that it takes, (N, C, H, W); None = two random ones of 64×64 pixels.

    Raises:
        TypeError: the forward pass cannot be traced, or the model does not take these images.
        ValueError: the twin's outputs differ, or they are no tensor.
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"model is a {type(model).__name__}; expected a torch.nn.Module")
    parameter = next(iter(model.parameters()), torch.zeros(()))
    if images is None:
        channels = next((m.in_channels for m in model.modules() if isinstance(m, nn.Conv2d)), 3)
        images = torch.rand(2, channels, 64, 64, generator=generator(0, "from_torch"))
    images = images.detach().to(parameter.device, parameter.dtype if parameter.is_floating_point() else None)
    with preserve_state(model), torch.no_grad(), _random_numbers_kept() as again:
        try:
            expected = model(images)
        except Exception as error:
            size = f"images of shape {tuple(images.shape)}"
            raise TypeError(f"model: it does not take {size} ({error}); give some that it takes: images=…") from error
        original = copy.deepcopy(model)
        twin = _graph(original)
        ShapeProp(twin).propagate(images)
        _to_modules(twin)
        again()
        found = twin(images)
    _compare(expected, found)
    modes = {name: module.training for name, module in model.named_modules()}
    for name, module in twin.named_modules():
        module.training = modes.get(name, model.training)
    return twin


class _Tracer(fx.Tracer):
    """Goes into every module but torch's own layers and those that LRP knows."""

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return isinstance(m, Add | Gate | Concat) or super().is_leaf_module(m, module_qualified_name)


def _graph(model: nn.Module) -> fx.GraphModule:
    try:
        return fx.GraphModule(model, _Tracer().trace(model), type(model).__name__)
    except Exception as error:  # a forward can do anything
        raise TypeError(
            f"model: torch.fx cannot follow the forward of {type(model).__name__} ({error}). Build the network of "
            "modules yourself: xai_utils.models.Add and Gate where it adds and multiplies"
        ) from error


def _to_modules(twin: fx.GraphModule) -> None:
    """Replace the functions of a traced network, whose nodes know their shapes, by modules."""
    called: set[str] = set()
    for node in list(twin.graph.nodes):
        if node.op == "call_module":
            _own_module(twin, node, called)
        elif node.op in ("call_function", "call_method") and (made := _module_of(node)) is not None:
            module, arguments = made
            name = _free_name(twin, node)
            twin.add_submodule(name, module.train(False))
            with twin.graph.inserting_before(node):
                call = twin.graph.call_module(name, arguments)
            call.meta = node.meta  # with the shape
            node.replace_all_uses_with(call)
            twin.graph.erase_node(node)
    twin.graph.eliminate_dead_code()
    twin.graph.lint()
    twin.recompile()
    twin.delete_all_unused_submodules()


def _own_module(twin: fx.GraphModule, node: fx.Node, called: set[str]) -> None:
    """A module that is called again gets a copy with the same parameters; none works in place."""
    module = twin.get_submodule(node.target)
    if type(module).__name__ == "StochasticDepth":  # torchvision's; in evaluation mode the identity
        twin.set_submodule(node.target, module := nn.Identity())
    if node.target in called:
        kept = {id(tensor): tensor for tensor in (*module.parameters(), *module.buffers())}
        again = copy.deepcopy(module, kept)  # a shallow copy would share its hooks
        node.target = _free_name(twin, node)
        twin.add_submodule(node.target, again)
    if getattr(module, "inplace", False):
        module.inplace = False
    called.add(node.target)


def _free_name(twin: fx.GraphModule, node: fx.Node) -> str:
    """A name beside the layers that the node stands among, such as layer1.0.add."""
    before = next((n for n in node.all_input_nodes if n.op == "call_module"), None)
    room = str(before.target).rpartition(".")[0] if before is not None else ""
    stem = f"{room}.{node.name.rsplit('.', 1)[-1]}".strip(".")
    known = {name for name, _ in twin.named_modules()}
    return next(name for k in range(len(known) + 2) if (name := stem + f"_{k}" * bool(k)) not in known)


def _module_of(node: fx.Node) -> tuple[nn.Module, tuple[fx.Node, ...]] | None:
    """The module that does what the node does, and the nodes that it takes; None = it stays a function."""
    what, args, kwargs = node.target, node.args, dict(node.kwargs)
    tensors = tuple(arg for arg in args if isinstance(arg, fx.Node))
    shapes = [_shape(arg) for arg in tensors]
    if what in _ADDS and len(args) == len(tensors) == 2 and shapes[0] == shapes[1] and not kwargs.get("alpha"):
        return Add(), _main_and_skip(*tensors)
    if what in _PRODUCTS and len(args) == len(tensors) == 2:
        for features, attention in (tensors, tensors[::-1]):
            if _are_gated(_shape(features), _shape(attention)):
                return Gate(), (features, attention)
        return None
    if what in _CONCATENATIONS and isinstance(args[0], list | tuple) and (args[1:] or [kwargs.get("dim", 0)])[0] == 1:
        return Concat(), tuple(args[0])
    if not tensors or _shape(tensors[0]) is None:
        return None
    shape, result = _shape(tensors[0]), _shape(node)
    if what in _ACTIVATIONS and len(args) == 1:
        options = {name: value for name, value in kwargs.items() if name != "inplace"}
        return _ACTIVATIONS[what](**options), tensors
    if what in _POOLS and len(tensors) == 1:
        return _POOLS[what](*args[1:], **{k: v for k, v in kwargs.items() if v is not None}), tensors
    if what in _DROPOUTS and not (args[2:3] or [kwargs.get("training", True)])[0]:  # one that is always on stays
        return _DROPOUTS[what](*args[1:2]), tensors[:1]
    if getattr(what, "__name__", "") == "stochastic_depth":
        return nn.Identity(), tensors[:1]
    flat = len(shape) > 2 and result == (shape[0], _product(shape[1:]))
    if what in _FLATTENS and flat:
        return nn.Flatten(), tensors[:1]
    if what in ("mean", torch.mean) and len(shape) == 4 and result is not None:
        dimensions = args[1] if len(args) > 1 else kwargs.get("dim")
        kept = {(*shape[:2], 1, 1): nn.AdaptiveAvgPool2d(1), tuple(shape[:2]): _pooled_flat()}
        if _dimensions(dimensions) == {2, 3} and tuple(result) in kept:
            return kept[tuple(result)], tensors[:1]
    return None


def _are_gated(features: tuple[int, ...] | None, attention: tuple[int, ...] | None) -> bool:
    """Whether tensors of these shapes are features and a map for them, as `Gate` takes them."""
    if features is None or attention is None or len(features) != 4:
        return False
    n, k, h, w = features
    return attention in ((n, 1, h, w), (n, k, 1, 1))


def _pooled_flat() -> nn.Sequential:
    return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())


def _dimensions(given: Any) -> set[int]:
    numbers = given if isinstance(given, list | tuple) else [given]
    return {n % 4 for n in numbers if isinstance(n, int)}


def _shape(node: fx.Node) -> tuple[int, ...] | None:
    found = node.meta.get("tensor_meta")
    return tuple(found.shape) if hasattr(found, "shape") else None


def _product(numbers: tuple[int, ...]) -> int:
    product = 1
    for number in numbers:
        product *= number
    return product


def _main_and_skip(one: fx.Node, two: fx.Node) -> tuple[fx.Node, fx.Node]:
    """Which of two summands is the block, and which the shortcut: it has the shorter way from where they part."""
    first, second = _ways_back(one), _ways_back(two)
    common = [node for node in first if node in second]
    if not common:
        return one, two
    parting = min(common, key=lambda node: first[node] + second[node])
    return (one, two) if first[parting] >= second[parting] else (two, one)


def _ways_back(node: fx.Node) -> dict[fx.Node, int]:
    """Every node that this one depends on, and the longest way to it that is needed at most once: steps back."""
    ways, level = {node: 0}, [node]
    while level:
        level = list({before for each in level for before in each.all_input_nodes if before not in ways})
        ways |= {each: min(ways[user] for user in each.users if user in ways) + 1 for each in level}
    return ways


@contextmanager
def _random_numbers_kept() -> Iterator[Callable[[], None]]:
    """Leave the caller's generator as it was, also by a forward that draws; yields what sets it back meanwhile."""
    state = torch.get_rng_state()
    try:
        yield lambda: torch.set_rng_state(state)
    finally:
        torch.set_rng_state(state)


def _compare(expected: Any, found: Any) -> None:
    if not isinstance(expected, Tensor):
        raise ValueError(
            f"model: it returns a {type(expected).__name__}; expected one tensor. Wrap it in a module that picks one"
        )
    half = expected.dtype in (torch.float16, torch.bfloat16)
    scale = max(1.0, float(expected.abs().max()))
    apart = float((expected.double() - found.double()).abs().max()) / scale
    if not apart <= (1e-3 if half else TOLERANCE):
        raise ValueError(
            f"model: its twin of modules gives other outputs (by {apart:.3g} of the largest): its forward does "
            "something else at every call. Build the network of modules yourself: xai_utils.models.Add and Gate"
        )
