"""A fault of oneDNN that a training on the CPU has to go around: gradients of 1 × 1 convolutions with a stride."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

from torch import Tensor, nn

BLOCK = 16  # channels that oneDNN takes at once with AVX-512; 8 with AVX2


@contextmanager
def trainable(model: nn.Module) -> Iterator[None]:
    """While it lasts, 1 × 1 convolutions with a stride and fewer channels than a block see only the pixels they use.

    oneDNN writes the gradient of their weights past the end of its workspace where the images lie channel by channel
    (https://github.com/uxlfoundation/oneDNN/issues/6035): with two threads and an odd number of images Python crashes.
    Pixels first, then a convolution without a stride, is the same function, and does not come by there. A ResNet whose
    stem has 8 channels has such a shortcut. Nothing is changed on other devices; afterwards the model is as it was.

    Args:
        model: on its device.
    """
    short = [module for module in model.modules() if isinstance(module, nn.Conv2d) and _is_short(module)]
    for module in short:
        module._conv_forward = partial(_of_pixels_first, module)
    try:
        yield
    finally:
        for module in short:
            del module._conv_forward


def _is_short(module: nn.Conv2d) -> bool:
    pointwise = module.kernel_size == (1, 1) and module.padding in ((0, 0), "valid") and module.groups == 1
    return pointwise and max(module.stride) > 1 and module.in_channels < BLOCK and module.weight.device.type == "cpu"


def _of_pixels_first(module: nn.Conv2d, images: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    rows, columns = module.stride
    return nn.functional.conv2d(images[..., ::rows, ::columns], weight, bias)
