"""z⁺-LRP on ResNet-50, batch 8 at 224, in units of the model's plain forward of the same images, beside zennit's.

Zennit has z⁺ everywhere and its Norm at the sums: once with a context for each call (canonizers and hooks are set up
and removed), once with the rules registered beforehand.
"""

import copy

import torch
from harness import alternate, ratio, report

from xai_utils.explain import LRP
from xai_utils.models import from_torch, make_torchvision_importable

make_torchvision_importable()
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


torch.manual_seed(0)
model = resnet50().eval()
for module in model.modules():
    if isinstance(module, torch.nn.BatchNorm2d):
        module.running_mean.normal_(0, 0.1)
        module.running_var.uniform_(0.5, 2)
x = torch.randn(BATCH, 3, SIZE, SIZE)
explainer = LRP(from_torch(model))
hooked_model = copy.deepcopy(model)  # hooks would slow the plain forward
composite().register(hooked_model)
registered = Gradient(hooked_model)
times = alternate({
    "forward": forward,
    "LRP": lambda: explainer.attribute(x, TARGET),
    "context": zennit_context,
    "registered": lambda: registered(x.clone(), start),
}, rounds=ROUNDS)  # fmt: skip
wanted = [
    ("z⁺-LRP / forward", "LRP", "forward", "≤ 3.5"),
    ("zennit with a context per call / z⁺-LRP", "context", "LRP", "≥ 2.5"),
    ("zennit with rules registered once / z⁺-LRP", "registered", "LRP", "≥ 2"),
]
rows = [{"what": what, "measured": round(ratio(times, a, b), 2), "bar": bar} for what, a, b, bar in wanted]
report(__file__, f"ResNet-50, {BATCH} images at {SIZE}, float32", rows)
