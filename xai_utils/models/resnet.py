"""ResNet-18, -34 and -50 (He et al. 2016) built of modules alone: no ReLU in place, none used twice, every + an `Add`.

Parameters have torchvision's names, so that weights pass between the two.
"""

from torch import Tensor, nn

from .layers import Add


class BasicBlock(nn.Module):
    """Two convolutions 3×3 of `width` channels, and a shortcut, with a 1×1 where `stride` or channels change."""

    expansion = 1

    def __init__(self, channels_in: int, width: int, stride: int = 1) -> None:
        super().__init__()
        self.conv1, self.bn1 = _convolution(channels_in, width, 3, stride), nn.BatchNorm2d(width)
        self.relu1 = nn.ReLU()
        self.conv2, self.bn2 = _convolution(width, width, 3), nn.BatchNorm2d(width)
        self.downsample = _downsample(channels_in, width, stride)
        self.add, self.relu2 = Add(), nn.ReLU()

    def forward(self, features: Tensor) -> Tensor:
        """Return features (N, width, h / stride, w / stride) of features (N, channels_in, h, w)."""
        main = self.bn2(self.conv2(self.relu1(self.bn1(self.conv1(features)))))
        return self.relu2(self.add(main, features if self.downsample is None else self.downsample(features)))


class Bottleneck(nn.Module):
    """Convolutions 1×1, 3×3 (which has the stride) and 1×1 to 4·`width` channels, and a shortcut as above."""

    expansion = 4

    def __init__(self, channels_in: int, width: int, stride: int = 1) -> None:
        super().__init__()
        self.conv1, self.bn1 = _convolution(channels_in, width, 1), nn.BatchNorm2d(width)
        self.relu1 = nn.ReLU()
        self.conv2, self.bn2 = _convolution(width, width, 3, stride), nn.BatchNorm2d(width)
        self.relu2 = nn.ReLU()
        self.conv3, self.bn3 = _convolution(width, 4 * width, 1), nn.BatchNorm2d(4 * width)
        self.downsample = _downsample(channels_in, 4 * width, stride)
        self.add, self.relu3 = Add(), nn.ReLU()

    def forward(self, features: Tensor) -> Tensor:
        """Return features (N, 4·width, h / stride, w / stride) of features (N, channels_in, h, w)."""
        main = self.relu1(self.bn1(self.conv1(features)))
        main = self.bn3(self.conv3(self.relu2(self.bn2(self.conv2(main)))))
        return self.relu3(self.add(main, features if self.downsample is None else self.downsample(features)))


class ResNet(nn.Module):
    """A stem, four stages `layer1` … `layer4` of residual blocks, GAP, and one linear layer `fc`."""

    def __init__(
        self,
        block: type[BasicBlock] | type[Bottleneck],
        layers: tuple[int, int, int, int],
        n_classes: int = 1000,
        width: int = 64,
        in_channels: int = 3,
    ) -> None:
        """Build stages of `layers` blocks; `width` channels in the stem, and in the blocks of the first stage.

        Every stage doubles them. Images have `in_channels`, the output has `n_classes`.
        """
        super().__init__()
        if min(n_classes, width, in_channels, *layers) < 1 or len(layers) != 4:
            got = f"layers={layers}, n_classes={n_classes}, width={width}, in_channels={in_channels}"
            raise ValueError(f"got {got}; expected four stages, and at least 1 of each")
        self.conv1, self.bn1 = _convolution(in_channels, width, 7, 2), nn.BatchNorm2d(width)
        self.relu, self.maxpool = nn.ReLU(), nn.MaxPool2d(3, 2, 1)
        channels = width
        for i, count in enumerate(layers):
            stage, here = nn.Sequential(), width * 2**i
            for j in range(count):
                stage.append(block(channels, here, stride=2 if i > 0 and j == 0 else 1))
                channels = here * block.expansion
            self.add_module(f"layer{i + 1}", stage)
        self.avgpool, self.flatten = nn.AdaptiveAvgPool2d(1), nn.Flatten(1)
        self.fc = nn.Linear(channels, n_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits (N, n_classes) of images (N, in_channels, H, W)."""
        features = self.maxpool(self.relu(self.bn1(self.conv1(images))))
        features = self.layer4(self.layer3(self.layer2(self.layer1(features))))
        return self.fc(self.flatten(self.avgpool(features)))


def resnet18(n_classes: int = 1000, width: int = 64, in_channels: int = 3) -> ResNet:
    """Return ResNet-18 with random weights; see `ResNet`."""
    return ResNet(BasicBlock, (2, 2, 2, 2), n_classes, width, in_channels)


def resnet34(n_classes: int = 1000, width: int = 64, in_channels: int = 3) -> ResNet:
    """Return ResNet-34 with random weights; see `ResNet`."""
    return ResNet(BasicBlock, (3, 4, 6, 3), n_classes, width, in_channels)


def resnet50(n_classes: int = 1000, width: int = 64, in_channels: int = 3) -> ResNet:
    """Return ResNet-50 with random weights; see `ResNet`."""
    return ResNet(Bottleneck, (3, 4, 6, 3), n_classes, width, in_channels)


def _convolution(channels_in: int, channels_out: int, size: int, stride: int = 1) -> nn.Conv2d:
    # no bias: the normalisation would take it out again
    return nn.Conv2d(channels_in, channels_out, size, stride, padding=size // 2, bias=False)


def _downsample(channels_in: int, channels_out: int, stride: int) -> nn.Sequential | None:
    if stride == 1 and channels_in == channels_out:
        return None
    return nn.Sequential(_convolution(channels_in, channels_out, 1, stride), nn.BatchNorm2d(channels_out))
