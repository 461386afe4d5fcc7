"""VGG16 with global average pooling and one linear output: the regression model of paper 2 (§4)."""

import torch
from torch import Tensor, nn

BLOCKS = ((1, 2), (2, 2), (4, 3), (8, 3), (8, 3))  # channels in widths, convolutions: VGG16


class VGG16GAP(nn.Module):
    """The 13 convolutions of VGG16 → global average pooling → linear output with identity activation.

    Attributes:
        features: the trunk, module for module as torchvision's `vgg16().features` (so its weights fit by name); a
            pooling that is left out is an `nn.Identity`. It ends with the last ReLU: the layer for RAM and CAM.
        head: the linear output, RAM's weights.
    """

    def __init__(self, width: int = 64, poolings: int = 4, in_channels: int = 3, n_outputs: int = 1) -> None:
        """Build the network; see `vgg16_gap`."""
        super().__init__()
        if not (width >= 1 and 0 <= poolings <= 5 and in_channels >= 1 and n_outputs >= 1):
            got = f"width={width}, poolings={poolings}, in_channels={in_channels}, n_outputs={n_outputs}"
            raise ValueError(f"got {got}; expected 0 to 5 poolings, and at least 1 of all else")
        self.in_channels, self.least = in_channels, 2**poolings
        layers: list[nn.Module] = []
        channels = in_channels
        for number, (factor, convolutions) in enumerate(BLOCKS):
            for _ in range(convolutions):
                layers += [nn.Conv2d(channels, factor * width, 3, padding=1), nn.ReLU()]
                channels = factor * width
            layers.append(nn.MaxPool2d(2) if number < poolings else nn.Identity())
        self.features = nn.Sequential(*layers)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.head = nn.Linear(channels, n_outputs)
        for module in self.features:
            if isinstance(module, nn.Conv2d):  # as torchvision does; without BatchNorm the default does not train
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
                nn.init.zeros_(module.bias)

    def forward(self, images: Tensor) -> Tensor:
        """Return the outputs (N, n_outputs) of images (N, in_channels, H, W).

        Raises:
            ValueError: images of another shape, or smaller than the poolings allow.
        """
        if images.ndim != 4 or images.shape[1] != self.in_channels or min(images.shape[2:]) < self.least:
            expected = f"(N, {self.in_channels}, H, W) with H and W at least {self.least}"
            raise ValueError(f"images: got shape {tuple(images.shape)}; expected {expected}")
        return self.head(torch.flatten(self.pool(self.features(images)), 1))


def vgg16_gap(width: int = 64, poolings: int = 4, in_channels: int = 3, n_outputs: int = 1) -> VGG16GAP:
    """VGG16 for regression (paper 2, §4): GAP straight after the last convolution, one identity output.

    Args:
        width: channels of the first block; 64 is VGG16's own, up to 8 · width at the end.
        poolings: how many of VGG16's five are kept, from the front. The paper has GAP directly after the last
            convolution, so the fifth is left out; small images need a finer grid, so fewer.
        in_channels: of the images.
        n_outputs: 1 for a regression.

    Raises:
        ValueError: numbers out of range.
    """
    return VGG16GAP(width, poolings, in_channels, n_outputs)
