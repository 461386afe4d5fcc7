"""LRP for Branch Networks (paper 5, §4.2 and §4.3), and the plain map of an Attention Branch Network."""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..models.abn import AttentionBranchNetwork
from ..models.forward import (
    Target,
    check_batch_size,
    check_images,
    in_parts,
    preserve_state,
    run_model,
    target_scores,
)
from .components import c1c as choose_component
from .gradcam import upsample
from .lrp import LRP, propagate_each, trace


class Parts(NamedTuple):
    """What an explanation by LRP-BN is made of, each (N, H, W) at the images' size."""

    relevance: Tensor  # R
    attention: Tensor  # α′, enlarged
    product: Tensor  # R ⊙ α′
    component: Tensor  # C1C of R ⊙ α′: the paper's α
    from_attention: Tensor  # R_AB alone, from the attention branch's logits through h to the images
    from_perception: Tensor  # R_PB alone


class LRPBN(LRP):
    """LRP-BN (paper 5): C1C(R ⊙ α′), where both branches of an Attention Branch Network give relevance R.

    - Branches (§4.2.2): R_AB starts from p(ŷ_AB), R_PB from p(ŷ_PB), independently. The attention map is a gate: all of
      R_PB goes through it to h ("signal takes all"), none into the layers that made the map. R(h) = R_AB + R_PB,
      eq. (4), unweighted, and FE takes the sum on to the images. The rules are linear in the relevance (the forward
      pass alone decides on the shares), so R is also the sum of the two as they arrive at the images one at a time.
    - z⁺ at the attention branch's GAP: relevance goes to the cells that speak for the target. Where none does, which
      is usual for a class that is not predicted, all of R_AB is absorbed there (see the ledger).
    - Skip connections: γ to the residual block and 1 − γ past it, eq. (5).
    - R is summed over the images' channels. α′ comes to the images' size by `upsample`, bilinear, pixels as areas.
    - C1C (§4.3): see `c1c`, whose defaults are used. It keeps nothing where nothing is positive, so that an attention
      that is empty after θ_α, no relevance at all, or a target whose logits are negative with `start="logit"` give an
      all-zero map.

    A model in train mode is run in evaluation mode and put back.

    Attributes:
        ledger: relevance in, out and absorbed of every layer in the last call (None before). It closes against the sum
            of the two starts, not against the prediction; see `propagate`.
    """

    def __init__(
        self,
        abn: AttentionBranchNetwork,
        rule: str = "zplus",
        skip: float | str = 0.5,
        start: str = "probability",
        *,
        branches: str = "both",
        seeds: str = "own",
        multiply: bool = True,
        c1c: bool | Mapping[str, Any] = True,
        **options: Any,
    ) -> None:
        """Explain `abn`; the defaults are the paper's.

        Args:
            abn: the network.
            rule: of convolutions, linear layers and averages: "zplus", eq. (3), or another of `LRP`.
            skip: γ of eq. (5), or the name of another way to share of `LRP`.
            start: relevance that a branch starts with: the target's "probability", as §4.2.2 has it, its "logit", or
                "one".
            branches: whose relevance is R: "both", eq. (4), the "attention" branch's alone, or the "perception"
                branch's alone (LRP that sees the gate).
            seeds: where R_AB starts: from the attention branch's "own" target, as the paper says, or from the
                "perception" branch's, the same number for both, as in an older routine of the authors'.
            multiply: whether R is multiplied by α′.
            c1c: whether C1C ends it; or its options, such as {"size": 28, "threshold": "mean"}.
            options: epsilon, gamma, biases, box and batch_size of `LRP`.

        Raises:
            TypeError: not an AttentionBranchNetwork; an option that does not exist.
            ValueError: an unknown name, or a number out of range.
        """
        _check_network(abn, "LRPBN")
        known = {"branches": (branches, ("both", "attention", "perception")), "seeds": (seeds, ("own", "perception"))}
        for name, (got, names) in known.items():
            if got not in names:
                raise ValueError(f"{name}: got {got!r}; expected one of {', '.join(names)}")
        if not isinstance(c1c, (bool, Mapping)):
            raise TypeError(f"c1c: got {c1c!r}; expected True, False, or a dict of its options")
        super().__init__(abn, rule, skip, start, **options)
        self.branches, self.seeds, self.multiply, self.chooses = branches, seeds, multiply, c1c is not False
        self.choose = partial(choose_component, **(c1c if isinstance(c1c, Mapping) else {}))
        self.choose(torch.zeros(1, 1, 1, dtype=torch.float32, device="cpu"))  # refuses wrong options now

    def _maps(self, inputs: Tensor, target: Target) -> Tensor:
        (relevance,), attention = self._walked(inputs, target, [self.branches])
        maps = relevance * attention if self.multiply else relevance
        return self.choose(maps) if self.chooses else maps

    def parts(self, inputs: Tensor, target: Target = None) -> Parts:
        """Return all that the explanation is made of, whether or not `attribute` uses it, in one pass and walk."""
        return Parts(*map(torch.cat, zip(*self._batched(self._parts, inputs, target), strict=True)))

    def _parts(self, inputs: Tensor, target: Target) -> Parts:
        walked, attention = self._walked(inputs, target, [self.branches, "attention", "perception"])
        product = walked[0] * attention
        return Parts(walked[0], attention, product, self.choose(product), *walked[1:])

    def _walked(self, inputs: Tensor, target: Target, wanted: Sequence[str]) -> tuple[list[Tensor], Tensor]:
        """Return the relevance (N, H, W) that starts from each of the `wanted` branches, and α′ (N, H, W)."""
        gate, last = self.model.gate, self.model.attention.classes[-1]
        images = check_images(inputs)
        with preserve_state(self.model), torch.no_grad(), torch.autocast(images.device.type, enabled=False):
            if images.device.type == "cpu":  # a third faster there
                images = images.contiguous(memory_format=torch.channels_last)
            rules = self.rules._replace(box=self._box(images))
            steps, outputs, numbers = trace(self.model, images, lambda m: m in (gate, last) or rules.keeps(m))
            found = {step.module: step for step in steps if step.module in (gate, last)}
            seed = self._seed(outputs, target)
            of_perception = {numbers[outputs]: seed}
            if self.seeds == "own":
                seed = self._seed(found[last].inputs[0].flatten(1), target)
            of_attention = {found[last].result: seed}
            starts = {"attention": of_attention, "perception": of_perception, "both": of_attention | of_perception}
            walks = propagate_each(steps, [starts[name] for name in wanted], rules)
            self.ledger = walks[0][1]
            attention = upsample(found[gate].inputs[1][:, 0], images.shape[2:])
        return [relevance.sum(1) for relevance, _ in walks], attention


class AttentionMap:
    """The attention map α′ of an Attention Branch Network as an explanation (paper 5, §4.3; Fukui et al. 2019).

    The network has one map for all classes: `target` is checked, and otherwise ignored. Values are from 0 to 1.
    A model in train mode is run in evaluation mode and put back.
    """

    def __init__(self, abn: AttentionBranchNetwork, *, thresholded: bool = True, batch_size: int | None = None) -> None:
        """Explain `abn` by α′, or by α̃, before the threshold θ_α, where not `thresholded`, `batch_size` images at once.

        Raises:
            TypeError: not an AttentionBranchNetwork.
        """
        _check_network(abn, "AttentionMap")
        check_batch_size(batch_size)
        self.model, self.thresholded, self.batch_size = abn, thresholded, batch_size

    def attribute(self, inputs: Tensor, target: Target = None) -> Tensor:
        """Return the maps (N, H, W), brought to the images' size by `upsample`, bilinear; see `Explainer`."""
        return upsample(self.attribute_layer(inputs, target), inputs.shape[2:])

    def attribute_layer(self, inputs: Tensor, target: Target = None) -> Tensor:
        """Return the maps (N, h, w) on the grid of h."""
        if self.batch_size is not None:
            whole, parts = AttentionMap(self.model, thresholded=self.thresholded), check_images(inputs)
            return torch.cat([whole.attribute_layer(*p) for p in in_parts(parts, target, self.batch_size)])
        with preserve_state(self.model), torch.no_grad():
            found = run_model(self.model, check_images(inputs), call=self.model.branches)
            target_scores(found.logits, target)
            attention = self.model.threshold(found.attention) if self.thresholded else found.attention
        if not all(tensor.isfinite().all() for tensor in found):
            raise ValueError("the model's outputs hold NaN or infinite values; its weights are not finite")
        return attention[:, 0]


def _check_network(abn: AttentionBranchNetwork, explainer: str) -> None:
    if not isinstance(abn, AttentionBranchNetwork):
        raise TypeError(
            f"abn: got a {type(abn).__name__}; {explainer} explains an xai_utils.models.AttentionBranchNetwork "
            "(models without branches: LRP)"
        )
