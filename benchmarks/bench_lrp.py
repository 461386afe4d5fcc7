"""z⁺-LRP on ResNet-50, batch 8 at 224, in units of the model's plain forward of the same images, beside zennit's.

All run alternately in one process. Zennit has z⁺ everywhere and its Norm at the sums: once with a context for each call
(canonizers and hooks are set up and removed), once with the rules registered beforehand. The bars are medians of
ratios: at most 3.5 plain forwards, at least 2.5 times faster than the first and 2 times faster than the second.
"""

import copy
import platform
import statistics
import time

import torch

import xai_utils  # noqa: F401  torchvision needs it first
from xai_utils.explain.lrp import LRP
from xai_utils.models.resnet import from_torchvision

from torchvision.models import resnet50  # isort: skip
from zennit.attribution import Gradient  # isort: skip
from zennit.composites import LayerMapComposite  # isort: skip
from zennit.layer import Sum  # isort: skip
from zennit.rules import Norm, Pass, ZPlus  # isort: skip
from zennit.torchvision import ResNetCanonizer  # isort: skip
from zennit.types import Activation, AvgPool, Convolution, Linear  # isort: skip

BATCH, SIZE, ROUNDS, TARGET = 8, 224, 5, 3


def composite():
    rules = [(Activation, Pass()), (Sum, Norm()), (AvgPool, Norm()), (Convolution, ZPlus()), (Linear, ZPlus())]
    return LayerMapComposite(rules, canonizers=[ResNetCanonizer()])


def start(output):
    return output * torch.nn.functional.one_hot(torch.tensor(TARGET), output.shape[1])


@torch.no_grad()
def forward():
    model(x)


def zennit_context():
    with Gradient(model, composite()) as attributor:
        attributor(x.clone(), start)


def zennit_registered():
    registered(x.clone(), start)


def lrp():
    explainer.attribute(x, TARGET)


def seconds(function):
    begin = time.perf_counter()
    function()
    return time.perf_counter() - begin


torch.manual_seed(0)
model = resnet50().eval()
for module in model.modules():
    if isinstance(module, torch.nn.BatchNorm2d):
        module.running_mean.normal_(0, 0.1)
        module.running_var.uniform_(0.5, 2)
x = torch.randn(BATCH, 3, SIZE, SIZE)
explainer = LRP(from_torchvision(model))
hooked_model = copy.deepcopy(model)  # hooks would slow the plain forward
composite().register(hooked_model)
registered = Gradient(hooked_model)

functions = (forward, lrp, zennit_context, zennit_registered)
for function in functions:
    function()
rounds = [[seconds(function) for function in functions] for _ in range(ROUNDS)]
plain, ours, context, hooked = (statistics.median(column) for column in zip(*rounds))
ratios = {
    "z+ LRP, in plain forwards (bar 3.5)": [r[1] / r[0] for r in rounds],
    "zennit with a context per call, in z+ LRPs (bar 2.5)": [r[2] / r[1] for r in rounds],
    "zennit with rules registered once, in z+ LRPs (bar 2)": [r[3] / r[1] for r in rounds],
}
print(f"ResNet-50, {BATCH} images of {SIZE}, {torch.get_num_threads()} threads, {platform.machine()}:")
print(f"plain forward {plain:.2f} s, z+ LRP {ours:.2f} s, zennit {context:.2f} s and {hooked:.2f} s (registered)")
for text, values in ratios.items():
    print(f"{text}: {statistics.median(values):.2f}")
