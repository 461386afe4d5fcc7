"""Attention Branch Network (Fukui et al. 2019; paper 5, §4.1) on a ResNet, built of modules that LRP can walk."""

import math
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .layers import Gate
from .resnet import BasicBlock, Bottleneck, resnet18, resnet34, resnet50

RESNETS = {18: resnet18, 34: resnet34, 50: resnet50}
BLOCKS = 2  # residual blocks of the attention branch, and
CHANNELS = 10  # channels after them: as in the authors' later code; the paper names no numbers


class Branches(NamedTuple):
    """What the two branches make of a batch of images."""

    logits: Tensor  # of the perception branch (N, n_classes): the prediction, eq. (1)
    attention_logits: Tensor  # of the attention branch (N, n_classes), eq. (2)
    attention: Tensor  # α̃ (N, 1, h, w), from 0 to 1; α′ is `threshold` of it


class AttentionBranchNetwork(nn.Module):
    """Feature extractor → h; attention branch of h → α̃ and logits; perception branch of α′ ⊙ h → the prediction.

    Attributes:
        extractor: FE, stem and first B residual blocks of the ResNet, images -> h (N, c1, h1, w1).
        attention: AB, an `AttentionBranch`: h -> α̃ (N, 1, h1, w1) and logits.
        threshold: α̃ -> α′; `threshold.theta` is θ_α.
        gate: α′ ⊙ h.
        perception: PB, the ResNet's remaining blocks, GAP and the linear layer -> logits.
    """

    def __init__(
        self,
        depth: int = 50,
        n_classes: int = 2,
        width: int = 64,
        in_channels: int = 3,
        *,
        blocks: int | None = None,
        theta: float = 0.0,
        residual: bool = False,
        max_pool: bool = True,
    ) -> None:
        """Build the network with random weights.

        Args:
            depth: of the ResNet: 18, 34 (basic blocks) or 50 (bottlenecks).
            n_classes: logits of either branch.
            width: channels of the ResNet's stem.
            in_channels: of the images.
            blocks: B, residual blocks before the branch; None = the first two stages. The paper does not say; with
                depth 50 that is B = 7 and 32.72 M parameters (two classes), where it states 32 M.
            theta: θ_α; values of α̃ below it become 0 in α′. The paper gives no value; 0 keeps all.
            residual: the perception branch gets (1 + α′) ⊙ h, as in Fukui et al. 2019, not the paper's α′ ⊙ h.
            max_pool: whether the attention branch has the paper's max-pool (the authors' later code has none).

        Raises:
            ValueError: a number out of range.
        """
        super().__init__()
        if depth not in RESNETS:
            raise ValueError(f"depth: got {depth!r}; expected one of {', '.join(map(str, RESNETS))}")
        resnet = RESNETS[depth](n_classes, width, in_channels)
        stages = [resnet.get_submodule(f"layer{i}") for i in range(1, 5)]
        everything = [block for stage in stages for block in stage]
        blocks = len(stages[0]) + len(stages[1]) if blocks is None else blocks
        if not 1 <= blocks < len(everything):
            raise ValueError(f"blocks: got {blocks!r}; ResNet-{depth} has {len(everything)}, so expected 1 of them or "
                             "more before the branch, and 1 or more behind it")  # fmt: skip
        self.extractor, self.perception = nn.Sequential(), nn.Sequential()
        for name in ("conv1", "bn1", "relu", "maxpool"):
            self.extractor.add_module(name, resnet.get_submodule(name))
        for number, block in enumerate(everything, 1):
            (self.extractor if number <= blocks else self.perception).add_module(f"block{number}", block)
        for name in ("avgpool", "flatten", "fc"):
            self.perception.add_module(name, resnet.get_submodule(name))
        last = everything[blocks - 1]
        channels = (last.conv2 if isinstance(last, BasicBlock) else last.conv3).out_channels
        self.attention = AttentionBranch(type(last), channels, n_classes, max_pool)
        self.threshold, self.gate = Threshold(theta), Gate(residual)

    def forward(self, images: Tensor) -> Tensor:
        """Return the prediction, the perception branch's logits (N, n_classes), of images (N, in_channels, H, W)."""
        return self.branches(images).logits

    def branches(self, images: Tensor) -> Branches:
        """Return the logits of both branches, and the attention map α̃; one pass."""
        features = self.extractor(images)  # h
        attention, attention_logits = self.attention(features)
        return Branches(self.perception(self.gate(features, self.threshold(attention))), attention_logits, attention)

    def parameter_groups(self, lr: float, lr_attention: float) -> list[dict[str, Any]]:
        """Return the parameters that need gradients for an optimizer, with the two learning rates of table 1.

        `lr` is that of the feature extractor and the linear layer (1e-4), `lr_attention` that of the attention branch
        (1e-3). The table leaves out the perception branch's blocks: here they have `lr`, like the rest of the ResNet.
        """
        of_branch = set(self.attention.parameters())
        rest = [parameter for parameter in self.parameters() if parameter not in of_branch]
        groups = ((rest, lr), (self.attention.parameters(), lr_attention))
        return [{"params": [p for p in parameters if p.requires_grad], "lr": rate} for parameters, rate in groups]


class AttentionBranch(nn.Module):
    """f_AB of §4.1: residual blocks, convolution, BatchNorm, max-pool; then the map f⁽¹⁾, and the classes f⁽²⁾.

    In the order of the text, which is also one that LRP can walk: every BatchNorm follows a convolution. No layer
    changes the size of the grid, so that α′ and h are of one size; the max-pool is over 3×3 cells with stride 1.
    The map's own layers are those of the authors' later code.
    """

    def __init__(
        self, block: type[BasicBlock] | type[Bottleneck], channels: int, n_classes: int, max_pool: bool
    ) -> None:
        super().__init__()
        self.blocks, out = nn.Sequential(), channels * block.expansion
        for i in range(BLOCKS):
            self.blocks.append(block(out if i else channels, channels))
        self.reduce = nn.Sequential(nn.Conv2d(out, CHANNELS, 1, bias=False), nn.BatchNorm2d(CHANNELS), nn.ReLU())
        if max_pool:
            self.reduce.append(nn.MaxPool2d(3, 1, 1))
        self.map = nn.Sequential(nn.Conv2d(CHANNELS, CHANNELS, 1, bias=False), nn.BatchNorm2d(CHANNELS), nn.ReLU())
        self.map.extend([nn.Conv2d(CHANNELS, 1, 1, bias=False), nn.BatchNorm2d(1), nn.Sigmoid()])
        self.classes = nn.Sequential(nn.Conv2d(CHANNELS, n_classes, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten())
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Return α̃ (N, 1, h, w) and the logits (N, n_classes) of the features h (N, channels, h, w)."""
        reduced = self.reduce(self.blocks(features))
        return self.map(reduced), self.classes(reduced)


class Threshold(nn.Module):
    """α′ of α̃ (§4.1): values smaller than θ_α become 0."""

    def __init__(self, theta: float = 0.0) -> None:
        super().__init__()
        if not 0 <= theta <= 1:
            raise ValueError(f"theta: got {theta!r}; expected a number from 0 to 1, as the attention map has")
        self.theta = theta

    def forward(self, attention: Tensor) -> Tensor:
        """Return α′, of the shape of α̃; the values that stay pass their gradient on."""
        return attention.where(attention >= self.theta, 0)

    def extra_repr(self) -> str:
        """Return θ_α, for the printed model."""
        return f"theta={self.theta}"


def branch_loss(
    model: AttentionBranchNetwork,
    batch: tuple[Tensor, Tensor],
    _generator: torch.Generator | None = None,
    weight: float = 0.1,
) -> dict[str, Tensor]:
    """Eq. (6): CE(ŷ_PB, y) + λ CE(ŷ_AB, y), as `training.fit` takes it; `functools.partial` sets `weight`.

    Args:
        model: both of its branches are trained.
        batch: images (N, C, H, W) and labels (N,), int64.
        weight: λ. The paper gives no value: 0.1 is that of the authors' later code, Fukui et al. 2019 have 1.

    Returns:
        "loss", its two cross-entropies "perception" and "attention", and the prediction's "accuracy"; batch means.

    Raises:
        ValueError: a weight that is negative or not finite.
    """
    if not 0 <= weight < math.inf:
        raise ValueError(f"weight: got {weight!r}; expected a finite λ of at least 0")
    images, labels = batch
    logits, attention_logits, _ = model.branches(images)
    perception, attention = F.cross_entropy(logits, labels), F.cross_entropy(attention_logits, labels)
    accuracy = (logits.argmax(1) == labels).float().mean()
    loss = perception + weight * attention
    return {"loss": loss, "perception": perception, "attention": attention, "accuracy": accuracy}
