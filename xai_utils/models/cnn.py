"""A small plain CNN: the classifier whose decisions heat maps explain (paper 1, fig. 1)."""

import torch
from torch import Tensor, nn


class SmallCNN(nn.Module):
    """Three blocks of convolution 3×3, BatchNorm, ReLU; max-pooling after two of them; GAP; one linear layer.

    Made for single characters of 28×28 pixels; any image of 16×16 pixels or more fits.

    Attributes:
        last_conv: the last block, up to and including its ReLU: the layer for Grad-CAM. Nothing is pooled
            after it, so its grid is a quarter of the image's side (7×7 for 28×28).
    """

    def __init__(self, n_classes: int = 10, in_channels: int = 1, width: int = 32) -> None:
        """Build the network of `width` channels in its middle block, half of that before and twice after."""
        super().__init__()
        if n_classes < 1 or in_channels < 1 or width < 2:
            got = f"n_classes={n_classes}, in_channels={in_channels}, width={width}"
            raise ValueError(f"got {got}; expected at least one class, one channel and width 2")
        self.in_channels = in_channels
        self.trunk = nn.Sequential(
            _block(in_channels, width // 2), nn.MaxPool2d(2), _block(width // 2, width), nn.MaxPool2d(2)
        )
        self.last_conv = _block(width, 2 * width)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.head = nn.Linear(2 * width, n_classes)

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits (N, n_classes) of images (N, in_channels, H, W).

        Raises:
            ValueError: images of another shape.
        """
        if images.ndim != 4 or images.shape[1] != self.in_channels or min(images.shape[2:]) < 16:
            expected = f"(N, {self.in_channels}, H, W) with H and W at least 16"
            raise ValueError(f"images: got shape {tuple(images.shape)}; expected {expected}")
        return self.head(self.features(images))

    def features(self, images: Tensor) -> Tensor:
        """Return what the linear layer sees (N, 2·width): the last feature maps, averaged over their grid."""
        return torch.flatten(self.pool(self.last_conv(self.trunk(images))), 1)


def _block(channels_in: int, channels_out: int) -> nn.Sequential:
    # the convolution's bias would be taken out again by the normalisation
    convolution = nn.Conv2d(channels_in, channels_out, 3, padding=1, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(channels_out), nn.ReLU())
