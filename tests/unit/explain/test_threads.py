"""Several threads explain and measure one model: each gets what it would get alone, and the model is left as found."""

from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from checks import as_trained
from torch import nn

from xai_utils.explain import LRP, RISE, GradCAM, GradCAMPlusPlus, IntegratedGradients, KernelShap, Lime, MoRAM
from xai_utils.metrics import insertion_deletion


def network():
    torch.manual_seed(0)
    layers = [nn.Conv2d(3, 6, 3, padding=1), nn.BatchNorm2d(6), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(6, 8, 3)]
    layers += [nn.BatchNorm2d(8), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 4)]
    return as_trained(nn.Sequential(*layers)).train()


METHODS = {
    "Grad-CAM": lambda model, x, c: GradCAM(model, "4").attribute(x, c),
    "Grad-CAM++": lambda model, x, c: GradCAMPlusPlus(model, "4").attribute(x, c),
    "MoRAM": lambda model, x, c: MoRAM(model, "4").attribute(x, c),
    "LRP": lambda model, x, c: LRP(model).attribute(x, c),
    "RISE": lambda model, x, c: RISE(model, n_masks=20).attribute(x, c),
    "integrated gradients": lambda model, x, c: IntegratedGradients(model, steps=4).attribute(x, c),
    "LIME": lambda model, x, c: Lime(model, n_samples=30, segments=3).attribute(x, c),
    "Kernel SHAP": lambda model, x, c: KernelShap(model, n_samples=40, segments=3).attribute(x, c),
    "insertion": lambda model, x, c: insertion_deletion(model, x, x.sum(1), c, steps=5).insertion,
}


@pytest.mark.parametrize("names", [list(METHODS), ["Grad-CAM++"], ["Kernel SHAP", "LIME"]], ids=" and ".join)
def test_four_threads_give_what_one_gives(names):
    model = network()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    x = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(1))
    work = [(name, c) for name in names for c in range(4)] * (1 if len(names) > 1 else 6)
    alone = [METHODS[name](model, x, c) for name, c in work]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(lambda job: METHODS[job[0]](model, x, job[1]), work))
    for job, one, other in zip(work, alone, together, strict=True):
        assert torch.equal(one, other), job
    assert all(module.training for module in model.modules())
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


def test_an_error_in_one_thread_lets_the_others_go_on():
    model = network()
    x = torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(1))

    def attribute(k):
        try:
            return GradCAM(model, "4").attribute(x, 9 if k % 2 else 1)
        except ValueError as error:
            return str(error)

    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(attribute, range(12)))
    assert all(torch.equal(each, found[0]) for each in found[::2])
    assert all("target: got 9" in each for each in found[1::2])
