"""LRP-BN and its parts on an Attention Branch Network of ResNet-50, batch 8 at 224, in units of its plain forward.

Beside them plain z⁺-LRP of the same network (the perception branch alone), and C1C alone.
"""

import torch
from harness import alternate, ratio, report

from xai_utils.explain import LRP, LRPBN, AttentionMap, c1c
from xai_utils.models import AttentionBranchNetwork

BATCH, SIZE, ROUNDS, TARGET = 8, 224, 5, 1


@torch.no_grad()
def forward():
    model(x)


torch.manual_seed(0)
model = AttentionBranchNetwork(50).eval()
for module in model.modules():
    if isinstance(module, torch.nn.BatchNorm2d):
        module.running_mean.normal_(0, 0.1)
        module.running_var.uniform_(0.5, 2)
x = torch.randn(BATCH, 3, SIZE, SIZE)
lrp_bn, lrp, attention = LRPBN(model), LRP(model, start="probability"), AttentionMap(model)
product = lrp_bn.parts(x, TARGET).product
times = alternate({
    "forward": forward,
    "LRP-BN": lambda: lrp_bn.attribute(x, TARGET),
    "parts": lambda: lrp_bn.parts(x, TARGET),
    "LRP": lambda: lrp.attribute(x, TARGET),
    "map": lambda: attention.attribute(x, TARGET),
    "C1C": lambda: c1c(product),
}, rounds=ROUNDS)  # fmt: skip
wanted = [
    ("LRP-BN / forward", "LRP-BN", "≤ 4"),
    ("all parts of LRP-BN (one walk) / forward", "parts", "≤ 3"),
    ("LRP of the perception branch / forward", "LRP", ""),
    ("attention map / forward", "map", "≤ 1.05"),
    ("C1C / forward", "C1C", "≤ 0.05"),
]
rows = [{"what": what, "measured": round(ratio(times, name, "forward"), 3), "bar": bar} for what, name, bar in wanted]
report(__file__, f"Attention Branch Network on ResNet-50, {BATCH} images at {SIZE}, float32", rows)
