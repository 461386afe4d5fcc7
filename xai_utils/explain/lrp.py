"""Layer-wise relevance propagation (Bach et al. 2015; paper 5, § 4.2), with an account of where relevance goes.

`trace` sees one forward pass, module by module; `propagate` goes back over it; `Rules` says how each module passes its
relevance on. Whatever happens outside a module with a rule is refused: no sum of relevance could tell that it did.
"""

import difflib
import math
from collections.abc import Callable, Generator, Mapping, Sequence
from functools import partial
from types import MappingProxyType
from typing import Any, NamedTuple

import pandas as pd
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves
from torch.utils.weak import WeakIdKeyDictionary

from ..models.forward import (
    Output,
    Target,
    check_batch_size,
    check_images,
    check_rows,
    choose_output,
    in_parts,
    preserve_state,
    run_model,
    target_indices,
    target_scores,
)
from ..models.gradients import refuse_compiled
from ..models.layers import Add, Concat, Gate

PASSES = {nn.ReLU, nn.Identity, nn.Dropout, nn.Dropout2d, nn.Flatten}  # relevance passes as it is
PASSES |= {nn.ReLU6, nn.LeakyReLU, nn.ELU, nn.GELU, nn.SiLU, nn.Hardswish}  # activations that leave zero at zero
WINNERS = {nn.MaxPool2d, nn.AdaptiveMaxPool2d}  # the largest value of a window gets all of its relevance
POOLS = {nn.AvgPool2d, nn.AdaptiveAvgPool2d}  # linear, with equal weights
LAYERS = {nn.Conv2d, nn.Linear}
JOINTS = {Add, Gate, Concat}
FOLDED = {nn.BatchNorm2d: nn.Conv2d, nn.BatchNorm1d: nn.Linear}  # BatchNorm -> the layer that it becomes a part of
TOLERANCE = 100  # of a sum of magnitudes, in units of the dtype's eps; measured on ResNet-18 and -50: below 2.5

_READS = {Tensor.size, Tensor.dim, Tensor.numel, Tensor.__len__, Tensor.is_floating_point} | {
    getattr(Tensor, name).__get__
    for name in ("shape", "ndim", "dtype", "device", "is_cuda", "requires_grad", "_version")
}
_OR = ", or let xai_utils.models.from_torch do it"
_HINTS = {
    "add": "use xai_utils.models.Add",
    "mul": "use xai_utils.models.Gate",
    "relu": "use nn.ReLU()",
    "flatten": "use nn.Flatten()",
    "view": "use nn.Flatten()",
    "mean": "use nn.AdaptiveAvgPool2d(1)",
    "softmax": "explain the logits; start='probability' is the place for a softmax",
}


class Step(NamedTuple):
    """One call of a module. Tensors go by numbers: 0 is the batch of images, step i makes number i + 1."""

    name: str
    module: nn.Module
    sources: tuple[int, ...]
    result: int
    shape: torch.Size  # of its (first) input
    inputs: tuple[Tensor, ...]  # empty where no rule looks at them
    norm: nn.Module | None = None  # the BatchNorm that became a part of it
    contributions: "Contributions | None" = None  # those of its rule, where they serve several relevances


class Contributions(NamedTuple):
    """What a layer's inputs add to its outputs, by its rule: R_i = Σ_j c_ij / z_j R_j is x_i times a gradient of z."""

    inputs: list[Tensor]  # leaves of the graph of z
    z: Tensor  # Σ_k c_kj, without the bias
    bias: Tensor | None  # that stands in the denominator, too


class Trace(NamedTuple):
    """One forward pass: its steps in order, what the model returned, and the numbers of the tensors still alive."""

    steps: list[Step]
    outputs: Any
    numbers: Mapping[Tensor, int]


def trace(model: nn.Module, images: Tensor, keep: Callable[[nn.Module], bool] = lambda module: True) -> Trace:
    """Run `model`, in evaluation mode, on `images` and record every call of a module without children.

    `keep` says whether the rule of a module looks at its inputs.

    Raises:
        TypeError: a model that is compiled or traced.
        ValueError: an operation on these tensors outside such a module, or one in place; a module called twice, or
            with a tensor of unknown origin; a BatchNorm that does not follow a layer it can be folded into.
    """
    refuse_compiled(model)
    watch = _Watch(model, keep)
    watch.number(images, 0)
    handles = []
    try:
        for module in model.modules():
            handles.append(module.register_forward_pre_hook(watch.enter))
            handles.append(module.register_forward_hook(watch.leave, prepend=True))
        with torch.no_grad(), watch:
            outputs = run_model(model, images)
    finally:
        for handle in handles:
            handle.remove()
    return Trace(watch.steps, outputs, watch.numbers)


class _Watch(TorchFunctionMode):
    def __init__(self, model: nn.Module, keep: Callable[[nn.Module], bool]) -> None:
        super().__init__()
        self.names = {module: name for name, module in model.named_modules()}
        self.leaves = {module for module in self.names if not any(True for _ in module.children())}
        self.keep, self.open = keep, [model]
        self.steps: list[Step] = []
        self.numbers = WeakIdKeyDictionary()  # of tensors: equal numbers never mean two tensors
        self.versions: dict[int, int] = {}
        self.called: set[nn.Module] = set()
        self.used: set[int] = set()

    def number(self, tensor: Tensor, number: int) -> None:
        self.numbers[tensor], self.versions[number] = number, tensor._version

    def where(self, module: nn.Module) -> str:
        name = self.names.get(module)
        return f"{f'module {name!r}' if name else 'the model itself'} ({type(module).__name__})"

    def __torch_function__(self, func: Callable, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        kwargs = kwargs or {}
        if self.open[-1] not in self.leaves and func not in _READS:
            seen = [t for t in tree_leaves((args, kwargs)) if isinstance(t, Tensor) and t in self.numbers]
            if seen:
                operation = getattr(func, "__name__", str(func)).strip("_")
                hint = _HINTS.get(operation, "put it into a module that LRP has a rule for")
                raise ValueError(
                    f"{self.where(self.open[-1])} calls {operation!r} in its forward, outside any module with a rule; "
                    f"{hint}{_OR}"
                )
        return func(*args, **kwargs)

    def enter(self, module: nn.Module, args: tuple) -> None:
        self.open.append(module)
        if module in self.leaves:
            if module in self.called:
                raise ValueError(f"{self.where(module)} is called twice; use one instance for each call{_OR}")
            if getattr(module, "inplace", False):
                raise ValueError(f"{self.where(module)} works in place; build it with inplace=False{_OR}")
            self.called.add(module)

    def leave(self, module: nn.Module, args: tuple, output: Any) -> None:
        self.open.pop()
        if module not in self.leaves:
            return
        known = [tensor for tensor in args if isinstance(tensor, Tensor) and tensor in self.numbers]
        sources = tuple(self.numbers[tensor] for tensor in known)
        if any(tensor._version != self.versions[number] for tensor, number in zip(known, sources)):
            raise ValueError(f"an input of {self.where(module)} was changed in place; make a new tensor of it")
        expected = len(args) if type(module) is Concat else 1 + (type(module) in JOINTS)
        if (has_rule(module) or type(module) in FOLDED) and not len(known) == len(args) == expected:
            raise ValueError(
                f"{self.where(module)} got {len(known)} of its {expected} tensors from modules with a rule; "
                "expected all of them, by position"
            )
        if not isinstance(output, Tensor):
            raise ValueError(f"{self.where(module)} returns a {type(output).__name__}; expected one tensor")
        if output in self.numbers:
            return  # Identity, or Dropout in evaluation mode: the very same tensor
        if type(module) in FOLDED:
            self.fold(module, args[0], output)
        else:
            inputs = args if self.keep(module) else ()
            shape = known[0].shape if known else torch.Size()
            self.steps.append(Step(self.names[module], module, sources, len(self.steps) + 1, shape, inputs))
            self.number(output, len(self.steps))
        self.used.update(sources)

    def fold(self, norm: nn.Module, before: Tensor, after: Tensor) -> None:
        number = self.numbers.pop(before)
        step = self.steps[number - 1] if number else None
        alone = step is not None and type(step.module) is FOLDED[type(norm)] and step.norm is None
        if not alone or number in self.used or norm.running_mean is None:
            raise ValueError(
                f"{self.where(norm)} cannot be folded: it must have running statistics and follow a "
                f"{FOLDED[type(norm)].__name__} whose output nothing else uses"
            )
        self.steps[number - 1] = step._replace(norm=norm)
        self.number(after, number)


def has_rule(module: nn.Module) -> bool:
    """Return whether LRP knows this very type of module (a subclass may do anything)."""
    return type(module) in PASSES | WINNERS | POOLS | LAYERS | JOINTS and "forward" not in vars(module)


Shares = tuple[Sequence[Tensor | None], Tensor | None]  # relevance of each input; absorbed (N,), None for nothing


def propagate(
    steps: Sequence[Step], seeds: Mapping[int, Tensor], rules: Callable[[Step, Tensor], Shares]
) -> tuple[Tensor, pd.DataFrame]:
    """Pass relevance back over the steps of a recording, from the tensors whose numbers `seeds` has to the images.

    Returns:
        relevance of the images (N, C, H, W), and the ledger: one row per step, from the output back, and a last one
        for the whole net, with relevance_in + absorbed = relevance_out, summed over the batch.

    Raises:
        ValueError: relevance would reach a module without a rule.
        ArithmeticError: in + absorbed differs from out for an image at some step.
    """
    return propagate_each(steps, [seeds], rules)[0]


def propagate_each(
    steps: Sequence[Step], starts: Sequence[Mapping[int, Tensor]], rules: Callable[[Step, Tensor], Shares]
) -> list[tuple[Tensor, pd.DataFrame]]:
    """`propagate` from each of several starts, on one walk, to the same numbers.

    The contributions of a layer are computed once for all starts, and its shares once where the relevance is the same.
    """
    walks = [_walk(steps, seeds) for seeds in starts]
    asked, results = {}, {}

    def go(number: int, shares: Shares | None) -> None:
        try:
            asked[number] = walks[number].send(shares)
        except StopIteration as end:
            results[number] = end.value

    for number in range(len(walks)):
        go(number, None)
    while asked:
        step = max((step for step, _ in asked.values()), key=lambda step: step.result)
        here = {number: relevance for number, (at, relevance) in asked.items() if at is step}
        if len(here) > 1 and isinstance(rules, Rules):
            step = rules.prepared(step)
        known: list[tuple[Tensor, Shares]] = []
        for number, relevance in here.items():
            del asked[number]
            shares = next((shares for other, shares in known if torch.equal(other, relevance)), None)
            known.append((relevance, shares or rules(step, relevance)))
            go(number, known[-1][1])
    return [results[number] for number in range(len(walks))]


def _walk(
    steps: Sequence[Step], seeds: Mapping[int, Tensor]
) -> Generator[tuple[Step, Tensor], Shares, tuple[Tensor, pd.DataFrame]]:
    """`propagate`, that asks for the shares at each step: yields it and the relevance of what it made."""
    reached, rows = set(seeds), []
    relevance = {number: (seed, _total(seed)) for number, seed in seeds.items()}
    start = sum(total for _, total in relevance.values())
    lost = lost_size = torch.zeros_like(start)
    for step in reversed(steps):
        if step.result not in reached:
            continue
        kind = type(step.module).__name__
        if not has_rule(step.module):
            hint = f"; {_HINTS['softmax']}" if "softmax" in kind.lower() else ""
            raise ValueError(f"module {step.name!r} ({kind}) has no rule for LRP{hint}")
        reached.update(step.sources[:1] if type(step.module) is Gate else step.sources)
        if step.result not in relevance:
            continue
        out, out_total = relevance.pop(step.result)
        parts, absorbed = yield step, out
        totals = [out_total if part is out else _total(part) for part in parts if part is not None]
        absorbed = torch.zeros_like(start) if absorbed is None else absorbed
        _check(f"module {step.name!r} ({kind})", sum(totals), out_total, absorbed, [out, *parts])
        lost, lost_size = lost + absorbed, lost_size + absorbed.abs()
        rows.append((step.name, kind, sum(totals), out_total, absorbed))
        for source, part in zip(step.sources, parts, strict=True):
            if part is not None:
                total = totals.pop(0)
                before, before_total = relevance.get(source, (None, 0))
                relevance[source] = (part if before is None else before + part, before_total + total)
    if 0 not in relevance:
        raise ValueError("the score does not depend on the images: no module leads from them to the output")
    images = relevance[0][0]
    rows.append(("", "the whole net", _total(images), start, lost))
    _check("the images", _total(images), start, lost, [images, lost_size[:, None], *seeds.values()])
    sums = torch.stack([torch.stack(row[2:]).sum(1) for row in rows]).tolist()
    columns = ["layer", "module", "relevance_in", "relevance_out", "absorbed"]
    return images, pd.DataFrame([(*row[:2], *three) for row, three in zip(rows, sums)], columns=columns)


def _total(relevance: Tensor) -> Tensor:
    return relevance.sum(tuple(range(1, relevance.ndim)))


def _check(where: str, total_in: Tensor, out: Tensor, absorbed: Tensor, tensors: Sequence[Tensor | None]) -> None:
    """Refuse what is not conserved, image by image, up to rounding on the scale of all that was summed."""
    error, tolerance = (total_in + absorbed - out).abs(), TOLERANCE * torch.finfo(out.dtype).eps
    if (error <= tolerance * out.abs()).all():
        return  # mostly so, and cheaper than magnitudes
    scale = sum(_total(tensor.abs()) for tensor in tensors if tensor is not None)
    if not (error <= tolerance * scale).all():
        raise ArithmeticError(
            f"relevance is not conserved at {where}: in + absorbed differs from out by {error.max():.3g}, where "
            f"magnitudes sum to {scale.max():.3g}; weights or features overflow, or a rule is wrong"
        )


# rules: the weight that an input of this sign meets (a bias is the weight of an input that is one)


def zplus_weight(weight: Tensor, sign: int) -> Tensor:
    """z⁺ (paper 5, eq. (3)): the contributions ReLU(w_ij z_i) alone."""
    return weight.clamp(min=0) if sign > 0 else weight.clamp(max=0)


def epsilon_weight(weight: Tensor, sign: int) -> Tensor:
    """ε (Bach et al. 2015, eq. (58)): the contributions w_ij z_i as they are."""
    return weight


def gamma_weight(weight: Tensor, sign: int, gamma: float) -> Tensor:
    """γ (Montavon et al. 2019): w_ij z_i + γ ReLU(w_ij z_i), between ε (γ = 0) and z⁺ (γ = ∞)."""
    return weight + gamma * zplus_weight(weight, sign)


def zbox(x: Tensor, weight: Tensor, low: Tensor, high: Tensor) -> list[tuple[Tensor, Tensor]]:
    """z^B (Montavon et al. 2017), inputs in [l, h]: the terms of w_ij z_i − ReLU(w_ij) l_i + ReLU(−w_ij) h_i."""
    return [(x, weight), (low.expand_as(x), -weight.clamp(min=0)), (high.expand_as(x), -weight.clamp(max=0))]


NAMES = ("zplus", "epsilon", "gamma")
COMPOSITES = {  # by kind of layer, as zennit has them
    "epsilon_plus": {nn.Conv2d: "zplus", nn.Linear: "epsilon"},
    "epsilon_gamma_box": {nn.Conv2d: "gamma", nn.Linear: "epsilon"},
}


class Rules(NamedTuple):
    """How each module passes its relevance on: R_i = Σ_j c_ij / (Σ_k c_kj + b_j ± ε) R_j."""

    weights: Callable[[Tensor, int], Tensor]
    epsilon: float
    biases: bool  # whether b_j is there, and absorbs
    skip: float | str
    box: tuple[Tensor, Tensor] | None = None  # (C, 1, 1) or one number each
    layers: Mapping[nn.Module, Mapping[str, Any]] = MappingProxyType({})  # which of these are a layer's own

    def keeps(self, module: nn.Module) -> bool:
        """Return whether the rule of a module looks at its inputs."""
        by_values = {Add} if self.skip in ("magnitude", "signed") else set()
        return type(module) in LAYERS | POOLS | WINNERS | by_values | {Concat}

    def __call__(self, step: Step, relevance: Tensor) -> Shares:
        """Return the relevance of each of a step's inputs, and what the step absorbed."""
        kind = type(step.module)
        if kind is Gate:  # α is a constant here: none for the attention, all of it for the features
            return (relevance, None), None
        if kind is Add:
            return self.add(step, relevance)
        if kind is Concat:
            return relevance.split([x.shape[1] for x in step.inputs], 1), None
        if kind in PASSES:
            return (relevance if relevance.shape == step.shape else relevance.reshape(step.shape),), None
        if kind in WINNERS:
            with torch.enable_grad():
                x = step.inputs[0].detach().requires_grad_()
                return torch.autograd.grad(step.module.forward(x), x, relevance), None
        return self._replace(**self.layers.get(step.module, {})).linear(step, relevance)

    def add(self, step: Step, relevance: Tensor) -> Shares:
        """Share between main and skip: γ and 1 − γ (paper 5, eq. (5)), or by the values that were added."""
        if self.skip == "none":
            return (relevance, None), None
        if self.skip not in ("magnitude", "signed"):
            return (self.skip * relevance, (1 - self.skip) * relevance), None
        main, skip = step.inputs if self.skip == "signed" else (x.abs() for x in step.inputs)
        ratio, absorbed = _divide(relevance, main + skip, None, self.epsilon if self.skip == "signed" else 0.0)
        return (main * ratio, skip * ratio), absorbed

    def linear(self, step: Step, relevance: Tensor) -> Shares:
        """Share by contributions, in a convolution, a linear layer, or an average."""
        shared = step.contributions is not None
        inputs, z, bias = step.contributions or self.contributions(step)
        denominator = z.detach().clone() if shared else z.detach()  # is overwritten
        ratio, absorbed = _divide(relevance, denominator, bias, self.epsilon)
        gradients = torch.autograd.grad(z, inputs, ratio, retain_graph=shared)
        products = [gradient.mul_(x.detach()) for x, gradient in zip(inputs, gradients)]
        return (sum(products[1:], products[0]),), absorbed

    def prepared(self, step: Step) -> Step:
        """Return the step with its contributions, for several relevances; one that has none as it is."""
        if type(step.module) not in LAYERS | POOLS:
            return step
        return step._replace(contributions=self._replace(**self.layers.get(step.module, {})).contributions(step))

    def contributions(self, step: Step) -> Contributions:
        """Return what the inputs of a convolution, a linear layer or an average contribute, with the graph of it."""
        x = step.inputs[0]
        apply, weight, bias = _as_linear(step)
        if self.box is not None and step.sources[0] == 0:
            terms, bias = zbox(x, weight, *self.box), None
        else:
            positive = self.weights(weight, 1)
            if positive is weight or x.amin() >= 0:
                terms = [(x, positive)]
            else:
                terms = [(x.clamp(min=0), positive), (x.clamp(max=0), self.weights(weight, -1))]
            bias = self.weights(bias, 1) if self.biases and bias is not None else None
        with torch.enable_grad():
            inputs = [x.detach().requires_grad_() for x, _ in terms]
            z = sum((apply(x, w) for x, (_, w) in zip(inputs[1:], terms[1:])), apply(inputs[0], terms[0][1]))
        return Contributions(inputs, z, bias)


class OnesFirst(Rules):
    """The same, but that the first layer sees an image of ones."""

    def check(self, steps: Sequence[Step]) -> None:
        """ValueError: there is no first layer."""
        if not any(step.sources == (0,) and type(step.module) in LAYERS for step in steps):
            raise ValueError("box: no convolution or linear layer takes the images themselves; leave it out")

    def contributions(self, step: Step) -> Contributions:
        """Return what the inputs contribute; of pixels the weights alone."""
        pixels = step.sources[0] == 0
        return super().contributions(step._replace(inputs=[torch.ones_like(step.inputs[0])]) if pixels else step)


def _rule_by_layer(model: nn.Module, rule: Any) -> dict[nn.Module, str]:
    """Modules with a rule of their own, and its name; ValueError for a rule or a module that is unknown."""
    modules = dict(model.named_modules())
    if isinstance(rule, str):
        kinds = COMPOSITES[rule]
        return {module: kinds[type(module)] for module in modules.values() if type(module) in kinds}
    if isinstance(rule, Mapping):
        if unknown := [name for name in rule if name not in modules]:
            close = ", ".join(difflib.get_close_matches(unknown[0], modules)) or "see model.named_modules()"
            raise ValueError(f"rule: the model has no module {unknown[0]!r}; the closest: {close}")
        named = {modules[name]: chosen for name, chosen in rule.items()}
    elif callable(rule):
        found = {module: rule(name, module) for name, module in modules.items()}
        named = {module: chosen for module, chosen in found.items() if chosen is not None}
    else:
        named = {model: rule}
    if wrong := [chosen for chosen in named.values() if chosen not in NAMES]:
        raise ValueError(_unknown_rule(wrong[0]))
    return named


def _unknown_rule(got: Any) -> str:
    return f"rule: got {got!r}; expected one of {', '.join(NAMES)}; by kind: {', '.join(COMPOSITES)}"


def _divide(relevance: Tensor, z: Tensor, bias: Tensor | None, epsilon: float) -> tuple[Tensor, Tensor]:
    """Return R / (z + b ± ε), zero where that is zero, and the relevance (N,) that z gets no share of; overwrites z."""
    dimensions = tuple(range(1, z.ndim))
    absorbed = relevance.new_zeros(len(z))
    if bias is not None:
        z += bias
    if epsilon:
        stabiliser = torch.full_like(z, epsilon).copysign_(z)
        z += stabiliser
    tiny = math.sqrt(torch.finfo(z.dtype).tiny)  # R / z would overflow
    zero = z.abs() <= tiny if z.amin() <= tiny else None
    ratio = torch.div(relevance, z, out=z)
    if zero is not None:
        ratio.masked_fill_(zero, 0)
        absorbed += (relevance * zero).sum(dimensions)
    if bias is not None:
        absorbed += (ratio * bias).sum(dimensions)
    if epsilon:
        absorbed += (ratio * stabiliser).sum(dimensions)
    return ratio, absorbed


def _as_linear(step: Step) -> tuple[Callable[[Tensor, Tensor], Tensor], Tensor, Tensor | None]:
    """Return (x, w) -> the step's output without bias, its weight, and its bias; BatchNorm folded into both."""
    module, norm = step.module, step.norm
    if type(module) in POOLS:
        return lambda x, w: module.forward(x) * w, step.inputs[0].new_ones(()), None
    weight, bias = module.weight.detach(), None if module.bias is None else module.bias.detach()
    if norm is not None:
        scale = (norm.running_var + norm.eps).rsqrt()
        scale = scale if norm.weight is None else scale * norm.weight.detach()
        weight = weight * scale.view(-1, *[1] * (weight.ndim - 1))
        bias = scale * ((0 if bias is None else bias) - norm.running_mean)
        bias = bias if norm.bias is None else bias + norm.bias.detach()
    if type(module) is nn.Linear:
        return F.linear, weight, bias
    return lambda x, w: module._conv_forward(x, w, None), weight, None if bias is None else bias[:, None, None]


def _linear_seed(outputs: Tensor, target: Target) -> Tensor:
    """Gradient × output of a callable target, whose sum over an image's outputs has to be the score."""
    with torch.enable_grad():
        leaf = outputs.detach().requires_grad_()
        scores = target_scores(leaf, target, len(leaf))
        gradients = torch.autograd.grad(scores.sum(), leaf)[0] if scores.requires_grad else torch.zeros_like(leaf)
    seed = gradients * outputs
    error, scale = (_total(seed) - scores.detach()).abs(), _total(seed.abs()) + scores.detach().abs()
    if not (error <= TOLERANCE * torch.finfo(outputs.dtype).eps * scale).all():
        raise ValueError(
            f"target: the callable's score {scores[error.argmax()].item():.3g} is not the sum of gradient × output; "
            "LRP starts from a linear function of the logits, such as lambda outputs: outputs[:, 1] - outputs[:, 0]"
        )
    return seed


class LRP:
    """Relevance at the images' pixels of the target's score (paper 5, § 4.2), by modules with rules alone.

    BatchNorm is folded into the layer before it. A model in train mode is run in evaluation mode and put back.

    Attributes:
        ledger: relevance in, out and absorbed of every layer in the last `attribute` (None before); see `propagate`.
    """

    def __init__(
        self,
        model: nn.Module,
        rule: str | Mapping[str, str] | Callable[[str, nn.Module], str | None] = "zplus",
        skip: float | str = 0.5,
        start: str = "logit",
        *,
        epsilon: float | None = None,
        gamma: float = 0.25,
        biases: bool | None = None,
        box: tuple[float | Tensor, float | Tensor] | str | None = None,
        output: Output = None,
        batch_size: int | None = None,
    ) -> None:
        """Explain `model`, built of modules: every sum an `Add`, every gate a `Gate`, no module used twice.

        Args:
            model: its outputs are logits (N, classes), or (N, 1) for a single one.
            rule: "zplus" (paper 5, eq. (3)), "epsilon", or "gamma", for convolutions, linear layers and averages. By
                layer: {name of a module: rule}, the others z⁺; or a function (name, module) -> rule, None for z⁺. By
                kind, as zennit's composites have it: "epsilon_plus" (z⁺ in convolutions, ε in linear layers) and
                "epsilon_gamma_box" (γ and ε; give `box` for the first layer).
            skip: how an `Add` shares: γ for the residual block, 1 − γ for the shortcut (eq. (5)); "magnitude"
                |main| : |skip|; "signed" main : skip over their sum; "none" all to the residual block. With ε or γ a
                fixed number can make relevance of both signs grow from block to block: look at the ledger.
            start: relevance that the target starts with: its "logit", its softmax "probability", or "one".
            epsilon: added to the denominators, with their sign, at a "signed" skip too; None = 0 for z⁺, else 1e-6.
            gamma: of the γ rule.
            biases: whether biases stand in the denominators, and so absorb; None = not for z⁺ (eq. (3) has none).
            box: lowest and highest possible pixel (numbers, or (C,)): z^B in the first layer; "ones": there the rule
                sees an image of ones, so that a pixel's share depends on the weights alone (an older routine of paper
                5's authors has it); None = as elsewhere.
            output: which part of what the model returns, a key, field, index or callable; None = all of it.
            batch_size: images that are walked through at once, all in memory; None = all of a call.

        Raises:
            ValueError: an unknown name, or a number out of range.
        """
        check_batch_size(batch_size)
        layers: dict[nn.Module, Mapping[str, Any]] = {}
        if not isinstance(rule, str) or rule in COMPOSITES:
            options = {"epsilon": epsilon, "gamma": gamma, "biases": biases}
            own = {name: LRP(model, name, **options).rules for name in NAMES}
            parts = {name: dict(zip(Rules._fields[:3], rules[:3], strict=True)) for name, rules in own.items()}
            layers, rule = {module: parts[name] for module, name in _rule_by_layer(model, rule).items()}, "zplus"
        rules = {"zplus": zplus_weight, "epsilon": epsilon_weight, "gamma": partial(gamma_weight, gamma=gamma)}
        skips, starts = ("magnitude", "signed", "none"), ("logit", "probability", "one")
        if rule not in rules:
            raise ValueError(_unknown_rule(rule))
        if start not in starts:
            raise ValueError(f"start: got {start!r}; expected one of {', '.join(starts)}")
        if not (skip in skips if isinstance(skip, (str, bool)) else 0 <= skip <= 1):
            raise ValueError(f"skip: got {skip!r}; expected a number from 0 to 1, or one of {', '.join(skips)}")
        if isinstance(box, str) and box != "ones":
            raise ValueError(f'box: got {box!r}; expected (lowest, highest) pixel, "ones", or None')
        epsilon = (0.0 if rule == "zplus" else 1e-6) if epsilon is None else epsilon
        if not (0 <= epsilon < math.inf and 0 <= gamma < math.inf):
            raise ValueError(f"got epsilon={epsilon!r}, gamma={gamma!r}; expected finite numbers of at least 0")
        self.model, self.start, self.box, self.output, self.batch_size = model, start, box, output, batch_size
        self.rules = Rules(rules[rule], epsilon, rule != "zplus" if biases is None else biases, skip, layers=layers)
        if isinstance(box, str):
            self.rules = OnesFirst(*self.rules)
        self.ledger: pd.DataFrame | None = None

    def attribute(self, inputs: Tensor, target: Target = None) -> Tensor:
        """Return the relevance (N, H, W) of the images' pixels, summed over channels; see `Explainer`.

        A callable target starts from gradient × output: it has to be linear in the outputs. Autocast is off within.

        Raises:
            ValueError: a model that `trace` or `propagate` refuses; inputs or a target that do not fit.
            ArithmeticError: relevance is lost or made somewhere; see `propagate`.
        """
        return torch.cat(self._batched(self._maps, inputs, target))

    def _maps(self, inputs: Tensor, target: Target) -> Tensor:
        images = check_images(inputs)
        with preserve_state(self.model), torch.no_grad(), torch.autocast(images.device.type, enabled=False):
            if images.device.type == "cpu":  # a third faster there
                images = images.contiguous(memory_format=torch.channels_last)
            rules = self.rules._replace(box=self._box(images))
            steps, outputs, numbers = trace(self.model, images, rules.keeps)
            outputs = check_rows(choose_output(outputs, self.output), len(images))
            seed = self._seed(outputs, target)
            if outputs not in numbers:
                raise ValueError("no module with a rule made what the model returns; see the end of its forward")
            relevance, self.ledger = propagate(steps, {numbers[outputs]: seed}, rules)
            if rules.box and not any(step.sources == (0,) and type(step.module) in LAYERS for step in steps):
                raise ValueError("box: no convolution or linear layer takes the images themselves; leave it out")
            if isinstance(rules, OnesFirst):
                rules.check(steps)
        return relevance.sum(1)

    def _batched(self, method: Callable[[Tensor, Target], Any], inputs: Tensor, target: Target) -> list[Any]:
        """What a method returns for each batch of images; the ledger is that of all."""
        if self.batch_size is not None:
            found, ledgers = [], []
            for part in in_parts(check_images(inputs), target, self.batch_size):
                found.append(method(*part))
                ledgers.append(self.ledger.set_index(["layer", "module"]))
            self.ledger = sum(ledgers[1:], ledgers[0]).reset_index()
            return found
        return [method(inputs, target)]

    def _seed(self, outputs: Tensor, target: Target) -> Tensor:
        if not callable(target):
            chosen = target_indices(outputs, target)[:, None]
        if not torch.isfinite(outputs).all():
            raise ValueError("the model's outputs hold NaN or infinite values; LRP starts from finite logits")
        if callable(target):
            if self.start != "logit":
                raise ValueError(f'start: got {self.start!r} with a callable target; expected "logit"')
            return _linear_seed(outputs, target)
        scores = outputs.reshape(len(outputs), -1)
        if self.start == "probability" and scores.shape[1] == 1:
            raise ValueError("start='probability' needs several classes; the model has a single output: use 'logit'")
        values = {"logit": lambda: scores, "probability": lambda: scores.softmax(1), "one": lambda: scores.new_ones(1)}
        values = values[self.start]().expand_as(scores)
        return torch.zeros_like(scores).scatter(1, chosen, values.gather(1, chosen)).reshape(outputs.shape)

    def _box(self, images: Tensor) -> tuple[Tensor, Tensor] | None:
        if self.box is None:
            return None
        if isinstance(self.box, str):
            return None
        low, high = (torch.as_tensor(bound).to(images).reshape(-1, 1, 1) for bound in self.box)
        if len(low) not in (1, images.shape[1]) or len(high) not in (1, images.shape[1]):
            raise ValueError(f"box: got {self.box}; expected two numbers, or two tensors of {images.shape[1]} channels")
        if not ((low <= images) & (images <= high)).all():
            raise ValueError(f"box: pixels from {images.min():.3g} to {images.max():.3g} lie outside of {self.box}")
        return low, high
