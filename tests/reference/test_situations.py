"""Anybody's model: situations that users of explanation libraries report, and what they see here.

Each test says in one line what a user would see. Models are untrained and images small. A map is compared with one that
needs none of the options: of another layer or head, or by the formula written out.
"""

import contextlib
import copy
import dataclasses
import io
import math
import re
import sys
import warnings
from collections import namedtuple
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pandas as pd
import papermill
import pytest
import torch
import torchvision
from matplotlib import pyplot
from torch import nn
from torch.utils.checkpoint import checkpoint

from xai_utils import plot, progress, suite, training
from xai_utils.data import store
from xai_utils.explain import (
    LRP,
    LRPBN,
    RAM,
    RISE,
    AttentionMap,
    GradCAM,
    GradCAMPlusPlus,
    GradRAM,
    IntegratedGradients,
    KernelShap,
    Lime,
    MoRAM,
    ShapPartition,
    in_batches,
    normalize,
)
from xai_utils.metrics import insertion_deletion, iou
from xai_utils.models import Add, AttentionBranchNetwork, SmallCNN, from_torch, predict
from xai_utils.suite import parameters

PAPERS = sorted(path.stem for path in (store.repository_root() / "notebooks").glob("0*.ipynb"))

TARGETS = torch.tensor([2, 0, 3])


class Net(nn.Module):
    """Logits (N, 4) of images (N, 3, 12, 12); `head` may put anything behind them."""

    def __init__(self, activation=nn.ReLU, outputs=4, behind=None):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 5, 3, padding=1), nn.BatchNorm2d(5), activation())
        self.last = nn.Sequential(nn.Conv2d(5, 6, 3, stride=2, padding=1), activation())
        self.pool, self.head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten()), nn.Linear(6, outputs)
        self.behind = behind

    def forward(self, x):
        logits = self.head(self.pool(self.last(self.stem(x))))
        return logits if self.behind is None else self.behind(logits)


def net(*arguments, seed=3, **options):
    torch.manual_seed(seed)
    model = Net(*arguments, **options)
    with torch.no_grad():
        model.stem[1].running_mean.normal_()
        model.stem[1].running_var.uniform_(0.5, 2)
        model.head.weight.mul_(20)
    return model.eval()


def batch(n=3, side=12, dtype=torch.float32):
    return torch.rand(n, 3, side, side, dtype=dtype, generator=torch.Generator().manual_seed(4))


# explainers of `Net` by their names, with cheap settings
EXPLAINERS = {
    "GradCAM": lambda model, **options: GradCAM(model, "last", **options),
    "GradCAMPlusPlus": lambda model, **options: GradCAMPlusPlus(model, "last", **options),
    "GradRAM": lambda model, **options: GradRAM(model, "last", **options),
    "MoRAM": lambda model, **options: MoRAM(model, "last", **options),
    "LRP": lambda model, **options: LRP(model, **options),
    "RISE": lambda model, **options: RISE(model, n_masks=40, cells=3, score="logit", **options),
    "Lime": lambda model, **options: Lime(model, n_samples=30, segments=3, **options),
    "KernelShap": lambda model, **options: KernelShap(model, n_samples=30, segments=3, **options),
    "ShapPartition": lambda model, **options: ShapPartition(model, max_evals=20, **options),
    "IntegratedGradients": lambda model, **options: IntegratedGradients(model, steps=6, **options),
}
OF_LAYERS = ("GradCAM", "GradCAMPlusPlus", "GradRAM", "MoRAM")
every_explainer = pytest.mark.parametrize("name", EXPLAINERS)


# 1. layout of the layer -----------------------------------------------------------------------------------------


def by_hand(model, layer, x, target, reshape):
    """Eq. (1) and (2) of Grad-CAM on a layer's output in any layout."""
    kept = []
    handle = model.get_submodule(layer).register_forward_hook(lambda _module, _inputs, output: kept.append(output))
    scores = model.eval()(x)[:, target].sum()
    handle.remove()
    (gradients,) = torch.autograd.grad(scores, kept[0])
    features, gradients = reshape(kept[0].detach()), reshape(gradients)
    return (gradients.mean((2, 3), keepdim=True) * features).sum(1).relu()


def channels_first(maps):
    return maps.permute(0, 3, 1, 2)


def test_swin_is_refused_by_name_and_taken_with_reshape():
    """A Swin's block gives channels last: not height × channels but an error with the way out, or with it a 2×2 map."""
    torch.manual_seed(0)
    model, x = torchvision.models.swin_t(weights=None).eval(), batch(2, 64)
    for layer in ("features.7.1", "features.7", "norm", "features.7.1.mlp.4", "features.7.1.attn", "features.6"):
        with pytest.raises(ValueError, match=rf"layer '{layer}' returns \(2, 2, 2, 768\).*channels come last.*permute"):
            GradCAM(model, layer).attribute(x, 3)
    explainer = GradCAM(model, "features.7", reshape=lambda maps: maps.permute(0, 3, 1, 2))
    found = explainer.attribute_layer(x, 3)
    assert found.shape == (2, 2, 2)
    assert found.any()
    torch.testing.assert_close(found, by_hand(model, "features.7", x, 3, channels_first))
    assert explainer.attribute(x, 3).shape == (2, 64, 64)


def test_vit_is_refused_by_name_and_taken_with_reshape():
    """A ViT's tokens are refused with the way out; behind its last block only the class token counts, which is said."""
    torch.manual_seed(0)
    model, x = torchvision.models.vit_b_16(weights=None, image_size=64).eval(), batch(1, 64)
    nn.init.normal_(model.heads.head.weight)

    def grid(tokens):
        return tokens[:, 1:].transpose(1, 2).unflatten(2, (4, 4))

    layer = "encoder.layers.encoder_layer_11.ln_1"
    with pytest.raises(ValueError, match=r"returns \(1, 17, 768\); expected .*for tokens.*reshape=lambda tokens"):
        GradCAM(model, layer).attribute(x, 3)
    found = GradCAM(model, layer, reshape=grid).attribute_layer(x, 3)
    assert found.shape == (1, 4, 4)
    assert found.any()
    torch.testing.assert_close(found, by_hand(model, layer, x, 3, grid))
    with pytest.raises(ValueError, match="score depends only on what reshape leaves out"):
        GradCAM(model, "encoder.layers.encoder_layer_11", reshape=grid).attribute(x, 3)


def test_convnext_needs_no_reshape():
    """A ConvNeXt's stages give channels first, and are taken as they are; what is channels last inside is refused."""
    torch.manual_seed(0)
    model, x = torchvision.models.convnext_tiny(weights=None).eval(), batch(2, 64)
    for layer in ("features.7", "features.7.2", "features.5"):
        found = GradCAM(model, layer).attribute_layer(x, 3)
        torch.testing.assert_close(found, by_hand(model, layer, x, 3, lambda maps: maps))
    for inside in ("features.7.2.block.2", "features.7.2.block.4", "features.7.2.block.5", "features.7.0.block.1"):
        with pytest.raises(ValueError, match="channels come last"):
            GradCAM(model, inside).attribute(x, 3)


class Last(nn.Module):
    """Channels last inside, by a Linear, a norm or an activation behind one."""

    def __init__(self, kind):
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 4, stride=4)
        kinds = {"linear": [nn.Linear(8, 8)], "norm": [nn.LayerNorm(8)], "rms": [nn.RMSNorm(8)]}
        self.mix = nn.Sequential(*kinds.get(kind, [nn.Linear(8, 8), nn.GELU(), nn.Dropout()]))
        self.head = nn.Linear(8, 4)

    def forward(self, x):
        return self.head(self.mix(self.conv(x).permute(0, 2, 3, 1)).mean((1, 2)))


@pytest.mark.parametrize("kind", ["linear", "norm", "rms", "dropout"])
def test_other_channels_last_layers(kind):
    """Any layer whose channels are made last is recognised, whatever its type, also where only shapes could tell."""
    model, x = Last(kind).eval(), batch(2)
    with pytest.raises(ValueError, match=r"layer 'mix' returns \(2, 3, 3, 8\).*pass reshape="):
        GradCAM(model, "mix").attribute(x, 0)
    found = GradCAM(model, "mix", reshape=channels_first).attribute_layer(x, 0)
    torch.testing.assert_close(found, by_hand(model, "mix", x, 0, channels_first))


def test_a_norm_over_whole_maps_is_channels_first():
    """A LayerNorm over (K, h, w), and one that moves channels last by itself, give channels first: no false alarm."""
    torch.manual_seed(0)
    norm = torchvision.models.convnext.LayerNorm2d(5)
    model = nn.Sequential(nn.Conv2d(3, 5, 3), nn.LayerNorm((5, 10, 10)), norm, nn.ReLU(), nn.Flatten())
    model.append(nn.Linear(500, 4))
    for layer in "123":
        found = GradCAM(model, layer).attribute_layer(batch(), 1)
        torch.testing.assert_close(found, by_hand(model, layer, batch(), 1, lambda maps: maps))


@pytest.mark.parametrize(
    ("reshape", "message"),
    [
        (lambda maps: maps[0], r"reshape: made \(6, 6, 6\) of \(3, 6, 6, 6\)"),
        (lambda maps: maps.flatten(0, 1)[:, None], r"reshape: made \(18, 1, 6, 6\).*for 3 images"),
        (lambda maps: maps.tolist(), "reshape: made list"),
    ],
)
def test_a_reshape_that_does_not_fit(reshape, message):
    """What a reshape makes is checked, and named with what it was made of."""
    with pytest.raises(ValueError, match=message):
        GradCAM(net(), "last", reshape=reshape).attribute(batch(), 0)


def test_windows_are_no_images():
    """A layer that runs on windows has more rows than there are images, and is refused instead of giving more maps."""

    class Windows(Net):
        def forward(self, x):
            x = self.stem(x).unflatten(2, (2, 6)).unflatten(4, (2, 6)).permute(0, 2, 4, 1, 3, 5).flatten(0, 2)
            return self.head(self.pool(self.last(x)).unflatten(0, (-1, 4)).mean(1))

    with pytest.raises(ValueError, match=r"layer 'last' returns \(12, 6, 3, 3\).*for the 3 images"):
        GradCAM(Windows().eval(), "last").attribute(batch(), 0)


@pytest.mark.parametrize("name", OF_LAYERS)
def test_a_list_of_layers_is_the_mean_of_their_maps(name):
    """Several layers in a list give the mean of their maps; on the layers' own grid only where that is one."""
    model, x, kind = net(), batch(), type(EXPLAINERS[name](net()))
    single = [kind(model, layer).attribute(x, TARGETS) for layer in ("last", "stem")]
    assert torch.equal(kind(model, ["last", model.stem]).attribute(x, TARGETS), torch.stack(single).mean(0))
    with pytest.raises(ValueError, match="the layers' grids are 6×6, 12×12"):
        kind(model, ["last", "stem"]).attribute_layer(x, TARGETS)
    assert kind(model, ["last.1", "last"]).attribute_layer(x, TARGETS).shape == (3, 6, 6)
    with pytest.raises(ValueError, match="layer: got an empty list"):
        kind(model, [])
    with pytest.raises(ValueError, match="no module 'lost'"):
        kind(model, ["last", "lost"])


def test_ram_takes_one_layer():
    """RAM reads the weights behind its layer: a list of two is refused."""
    with pytest.raises(ValueError, match="layer: got 2 layers; expected one"):
        RAM(net(), ["last", "stem"], "head")


# 2. output of the model ------------------------------------------------------------------------------------------

Pair = namedtuple("Pair", "aux logits")


@dataclasses.dataclass
class Record:
    logits: torch.Tensor
    aux: torch.Tensor


CONTAINERS = {
    "tuple": (lambda logits: (logits, logits.sum(1)), 0),
    "list": (lambda logits: [logits.sum(1), logits], -1),
    "dict": (lambda logits: {"aux": logits.sum(1), "out": logits}, "out"),
    "named tuple": (lambda logits: Pair(logits.sum(1), logits), "logits"),
    "dataclass": (lambda logits: Record(logits, logits.sum(1)), "logits"),
    "nested": (lambda logits: ({"out": [logits]},), lambda found: found[0]["out"][0]),
}


@pytest.mark.parametrize("kind", CONTAINERS)
@pytest.mark.parametrize("name", [name for name in EXPLAINERS if name != "LRP"])
def test_models_that_return_more_than_one_tensor(name, kind):
    """A tuple, dict or dataclass is refused with the way out; output=, or a callable target, gives the plain map."""
    behind, output = CONTAINERS[kind]
    explainer, model, x = EXPLAINERS[name], net(behind=behind), batch(2)
    expected = explainer(net()).attribute(x, 2)
    with pytest.raises(ValueError, match=r"the model returned \w+.*output=\"logits\", output=0, or a callable"):
        explainer(model).attribute(x, 2)
    assert torch.equal(explainer(model, output=output).attribute(x, 2), expected)
    choose = output if callable(output) else lambda found: found[output]
    if not isinstance(output, str) or kind == "dict":
        found = explainer(model).attribute(x, lambda returned: choose(returned)[:, 2])
        torch.testing.assert_close(found, expected)
    with pytest.raises(ValueError, match=r"output: got 'nothing', but the model returned \w+"):
        explainer(model, output="nothing").attribute(x, 2)


def test_metric_and_predict_take_a_part_of_the_output_too():
    """insertion_deletion and predict have the same output=, and the same refusal."""
    model, plain, x, maps = net(behind=CONTAINERS["dict"][0]), net(), batch(), torch.rand(3, 12, 12)
    assert torch.equal(predict(model, x, output="out"), predict(plain, x))
    with pytest.raises(ValueError, match="the model returned dict with keys 'aux', 'out'"):
        predict(model, x)
    found = insertion_deletion(model, x, maps, TARGETS, steps=5, output="out")
    assert torch.equal(found.insertion, insertion_deletion(plain, x, maps, TARGETS, steps=5).insertion)
    with pytest.raises(ValueError, match="output: got 0, but the model returned"):
        insertion_deletion(model, x, maps, TARGETS, steps=5, output=0)
    with pytest.raises(ValueError, match=r"output: got 0, but the model returned \(3, 4\)"):
        predict(plain, x, output=0)


def test_lrp_takes_the_part_of_a_dict():
    """LRP starts from the chosen part, which a module with a rule has made."""
    model, plain, x = net(behind=lambda logits: {"out": logits}), net(), batch()
    assert torch.equal(LRP(model, output="out").attribute(x, TARGETS), LRP(plain).attribute(x, TARGETS))
    with pytest.raises(ValueError, match="the model returned dict"):
        LRP(model).attribute(x, TARGETS)


@every_explainer
@pytest.mark.parametrize("behind", [nn.Flatten(0), lambda logits: logits[:, 0].sum()], ids=["flattened", "summed"])
def test_outputs_without_a_row_for_every_image(name, behind):
    """Logits flattened across images are refused: target 0 would be the sum of them all."""
    model, message = net(behind=behind), r"the model returned \(\d*,?\) for \d images; expected one tensor with a row"
    if name == "LRP" and not isinstance(behind, nn.Module):
        message = "outside any module with a rule"
    with pytest.raises(ValueError, match=message):
        EXPLAINERS[name](model).attribute(batch(2), 0)
    with pytest.raises(ValueError, match="the model returned"):
        predict(model, batch(2))
    with pytest.raises(ValueError, match="the model returned"):
        insertion_deletion(model, batch(2), torch.rand(2, 12, 12), 0)


class Segmenter(nn.Module):
    """Logits (N, 4, 12, 12), a class for every pixel; or, `pooled`, the mean of class 1."""

    def __init__(self, pooled=False):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 5, 3, padding=1), nn.ReLU())
        self.last = nn.Sequential(nn.Conv2d(5, 6, 3, padding=1), nn.ReLU())
        self.classify, self.pooled = nn.Conv2d(6, 4, 1), pooled

    def forward(self, x):
        maps = self.classify(self.last(self.stem(x)))
        return maps[:, 1].mean((1, 2)) if self.pooled else maps


@every_explainer
def test_segmentation_needs_a_callable_target(name):
    """A map of classes is refused with an example of a callable target, which explains the mean of one class."""
    torch.manual_seed(0)
    model, x = Segmenter().eval(), batch(2)
    with pytest.raises(ValueError, match=r"the model returned \(\d, 4, 12, 12\).*target=lambda outputs"):
        EXPLAINERS[name](model).attribute(x, 1)
    found = EXPLAINERS[name](model).attribute(x, lambda outputs: outputs[:, 1].mean((1, 2)))
    assert found.shape == (2, 12, 12)
    if name != "LRP":  # which takes a mean over positions in a module only
        model.pooled = True
        torch.testing.assert_close(found, EXPLAINERS[name](model).attribute(x), rtol=1e-4, atol=1e-6)


@every_explainer
def test_a_callable_target_explains_a_difference_of_classes(name):
    """A callable target gives the map of a head that has the same difference as its output."""
    model, x = net(), batch()
    difference = net()
    difference.head = nn.Linear(6, 1)
    with torch.no_grad():
        difference.head.weight[:] = model.head.weight[2] - model.head.weight[0]
        difference.head.bias[:] = model.head.bias[2] - model.head.bias[0]
    found = EXPLAINERS[name](model).attribute(x, lambda outputs: outputs[:, 2] - outputs[:, 0])
    if name != "LRP":
        torch.testing.assert_close(found, EXPLAINERS[name](difference).attribute(x), rtol=1e-4, atol=1e-5)
    with pytest.raises(ValueError, match=r"target: the callable returned \(\d, 4\).*one score per image"):
        EXPLAINERS[name](model).attribute(x, lambda outputs: outputs)
    with pytest.raises(TypeError, match=r"the callable returned torch\.int64"):
        EXPLAINERS[name](model).attribute(x, lambda outputs: outputs.argmax(1))


def test_lrp_of_a_callable_target():
    """LRP starts a callable target from gradient × output: one class gives its map, what is not linear is refused."""
    model, x = net(), batch()
    torch.testing.assert_close(LRP(model).attribute(x, lambda outputs: outputs[:, 2]), LRP(model).attribute(x, 2))
    both = LRP(model).attribute(x, lambda outputs: outputs[:, 2] - outputs[:, 0])
    torch.testing.assert_close(both, LRP(model).attribute(x, 2) - LRP(model).attribute(x, 0))
    with pytest.raises(ValueError, match="is not the sum of gradient × output"):
        LRP(model).attribute(x, lambda outputs: outputs.softmax(1)[:, 2])
    with pytest.raises(ValueError, match="start: got 'probability' with a callable target"):
        LRP(model, start="probability").attribute(x, lambda outputs: outputs[:, 2])
    abn = AttentionBranchNetwork(18, 4, width=4, blocks=2).eval()
    plain = LRPBN(abn, start="logit").attribute(batch(2, 16), 2)
    torch.testing.assert_close(LRPBN(abn, start="logit").attribute(batch(2, 16), lambda o: o[:, 2]), plain)
    assert AttentionMap(abn).attribute(batch(2, 16), lambda outputs: outputs[:, 2]).shape == (2, 16, 16)


@pytest.mark.parametrize("name", OF_LAYERS)
def test_grad_cam_behind_a_softmax_is_refused(name):
    """Behind a softmax gradients vanish where the model is sure: no empty map but an error with the way out."""
    model, x = net(behind=nn.Softmax(1)), batch()
    with pytest.raises(ValueError, match=r"outputs are probabilities.*returns logits, or a callable"):
        EXPLAINERS[name](model).attribute(x, 2)
    assert EXPLAINERS[name](model).attribute(x, lambda outputs: outputs[:, 2].log()).any()


@pytest.mark.parametrize(
    "behind", [nn.Sigmoid(), nn.Hardsigmoid(), lambda logits: logits.clamp(0, 1)[:, :, None].mean(2)]
)
@pytest.mark.parametrize("name", OF_LAYERS)
def test_grad_cam_behind_a_saturated_sigmoid_is_refused(name, behind):
    """Behind a sigmoid the map is that of the logit but for a factor; where the model is sure that is 0: refused."""
    model, plain, x = net(behind=behind), net(), batch()
    with torch.no_grad():
        for each in (model, plain):
            each.head.weight.div_(100)
            each.head.bias[:] = torch.tensor([0.1, 0.2, 0.3, 40.0])
    if name in ("GradCAM", "GradRAM", "MoRAM"):
        found, expected = (EXPLAINERS[name](each).attribute(x, 2).flatten(1) for each in (model, plain))
        torch.testing.assert_close(found / found.abs().amax(1)[:, None], expected / expected.abs().amax(1)[:, None])
    with pytest.raises(
        ValueError, match=r"ends in a sigmoid or the like.*for images \[0, 1, 2\]. Pass .* returns logits"
    ):
        EXPLAINERS[name](model).attribute(x, 3)


SQUASHED = {
    "softmax": (nn.Softmax(1), "softmax inside"),
    "sigmoid": (nn.Sigmoid(), "sigmoid inside"),
    "hard sigmoid": (nn.Hardsigmoid(), "sigmoid inside"),
    "sigmoids joined": (
        lambda z: torch.cat([z[:, :2].sigmoid(), z[:, 2:].sigmoid()], 1)[..., None].mean(2),
        "sigmoid inside",
    ),
    "clamped": (lambda z: z.clamp(0, 1), "sigmoid inside"),
}


@pytest.mark.parametrize("kind", SQUASHED)
@pytest.mark.parametrize("score", ["probability", "sigmoid"])
def test_probabilities_are_not_squashed_twice(kind, score):
    """Softmax over sigmoids would score an empty image 0.5 for 0.002: recognised, named, and score="logit" takes it."""
    behind, message = SQUASHED[kind]
    model, x = net(behind=behind), batch()
    for explainer in (RISE, Lime, IntegratedGradients):
        with pytest.raises(ValueError, match=message):
            explainer(model, score=score).attribute(x, 1)
    with pytest.raises(ValueError, match=message + r'.*score="logit"'):
        insertion_deletion(model, x, torch.rand(3, 12, 12), 1, score=score)
    found = insertion_deletion(model, x, torch.rand(3, 12, 12), 1, steps=4, score="logit")
    torch.testing.assert_close(found.deletion[:, 0], model(x)[:, 1].detach())


def test_probabilities_of_a_model_without_gradients_are_warned_of():
    """Where no graph tells sigmoids from small logits, a warning says what to do."""
    model = net(behind=lambda logits: logits.sigmoid().detach())
    with pytest.warns(UserWarning, match=r"outputs lie between 0 and 1.*score=\"logit\""):
        RISE(model, n_masks=3).attribute(batch(), 1)


def test_small_logits_are_no_probabilities():
    """Logits that happen to lie between 0 and 1 stay logits: no false alarm."""
    model = net()
    with torch.no_grad():
        model.head.weight.zero_()
        model.head.bias[:] = torch.tensor([0.1, 0.9, 0.4, 0.2])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = RISE(model, n_masks=3).attribute(batch(), 1)
    torch.testing.assert_close(found, torch.full_like(found, model.head.bias.softmax(0)[1].item()))


@pytest.mark.parametrize("name", ["RISE", "Lime", "KernelShap", "ShapPartition", "IntegratedGradients"])
def test_several_labels_at_once_are_scored_by_sigmoid(name):
    """score="sigmoid" of the logits gives the map that a model with a sigmoid inside has as it is."""
    x, kind = batch(2), type(EXPLAINERS[name](net()))
    options = {"RISE": {"n_masks": 40}, "Lime": {"n_samples": 30}, "KernelShap": {"segments": 3, "n_samples": 30}}
    options = {"ShapPartition": {"max_evals": 20}, "IntegratedGradients": {"steps": 6}, **options}[name]
    inside = kind(net(behind=nn.Sigmoid()), score="logit", **options).attribute(x, 2)
    torch.testing.assert_close(kind(net(), score="sigmoid", **options).attribute(x, 2), inside, rtol=1e-4, atol=1e-6)
    one = kind(net(outputs=1), score="sigmoid", **options).attribute(x)
    torch.testing.assert_close(one, kind(net(outputs=1, behind=nn.Sigmoid()), score="logit", **options).attribute(x))


def test_insertion_scores_several_labels_by_sigmoid():
    """An empty image scores what the sigmoid says, not a softmax's share."""
    model, x = net(), batch()
    found = insertion_deletion(model, x, torch.rand(3, 12, 12), 2, steps=4, score="sigmoid")
    torch.testing.assert_close(found.insertion[:, 0], model(torch.zeros_like(x))[:, 2].sigmoid().detach())
    with pytest.raises(ValueError, match=r'score: got \'softmax\'; expected "probability", "sigmoid" or "logit"'):
        insertion_deletion(model, x, torch.rand(3, 12, 12), 2, score="softmax")


@every_explainer
def test_one_output_and_both_sides_of_a_binary_classifier(name):
    """Target 0 and None are the output itself; target 1 is refused with how to get the other side, which works."""
    model, x = net(outputs=1), batch(2)
    explainer = EXPLAINERS[name](model)
    expected = explainer.attribute(x)
    assert torch.equal(explainer.attribute(x, 0), expected)
    with pytest.raises(ValueError, match=r"got 1, but the model has a single output.*score='sigmoid'.*lambda outputs"):
        explainer.attribute(x, 1)
    other = explainer.attribute(x, lambda outputs: -outputs.flatten())
    if name in ("GradRAM", "RISE", "Lime", "KernelShap", "ShapPartition", "IntegratedGradients", "LRP"):
        torch.testing.assert_close(other, -expected, rtol=1e-3, atol=1e-5)


# 3. the twin -----------------------------------------------------------------------------------------------------


def resnet(activation=nn.ReLU, **options):
    """A torchvision ResNet with another activation in its blocks, and statistics as after training."""
    torch.manual_seed(0)
    model = torchvision.models.resnet18(weights=None, num_classes=4, **options)
    for module in list(model.modules()):
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1)
        if hasattr(module, "relu"):
            module.relu = activation()
    return model.eval()


@pytest.mark.parametrize("activation", [nn.SiLU, nn.GELU, nn.Hardswish, nn.LeakyReLU, nn.ReLU6])
def test_the_twin_keeps_the_activation_of_the_blocks(activation):
    """A ResNet with SiLU in its blocks stays one: outputs equal, relevance to its end, no ReLU in its place."""
    model, x = resnet(activation), batch(2, 40)
    twin = from_torch(model, x)
    torch.testing.assert_close(twin(x), model(x))
    assert {type(module) for module in twin.modules()} >= {activation, Add}
    assert not any(type(module) is nn.ReLU for module in twin.modules())
    assert LRP(twin).attribute(x, 1).any()


def test_the_twin_follows_hooks():
    """A forward pre-hook that changes the images, and a hook that changes a layer's output, are part of the twin."""
    model, x = resnet(), batch(2, 40)
    plain = model(x)
    model.conv1.register_forward_pre_hook(lambda _module, inputs: (inputs[0] * 2 - 1,))
    model.layer2.register_forward_hook(lambda _module, _inputs, output: output + 1)
    assert (model(x) - plain).abs().max() > 0.01
    torch.testing.assert_close(from_torch(model, x)(x), model(x))


@pytest.mark.parametrize(
    ("forward", "error", "message"),
    [
        (lambda model, x: model.head(x.mean((2, 3)) + torch.rand(3)), ValueError, "gives other outputs"),
        (lambda model, x: model.head(x.mean((2, 3)) if x.sum() > 0 else x.amax((2, 3))), TypeError, "cannot follow"),
        (lambda model, x: (model.head(x.mean((2, 3))),), ValueError, "it returns a tuple; expected one tensor"),
    ],
    ids=["random", "by values", "a tuple"],
)
def test_a_twin_that_cannot_be_is_refused(forward, error, message):
    """What no twin can equal is refused with a reason: outputs are always compared before it is handed out."""

    class Own(nn.Module):
        def __init__(self):
            super().__init__()
            self.head = nn.Linear(3, 4)

        def forward(self, x):
            return forward(self, x)

    with pytest.raises(error, match=message):
        from_torch(Own(), batch())


def test_lrp_names_from_torch_and_takes_what_it_makes():
    """A plain torchvision network is refused with the way out, which works."""
    model, x = resnet(), batch(2, 40)
    with pytest.raises(ValueError, match=r"or let xai_utils\.models\.from_torch do it"):
        LRP(model).attribute(x, 1)
    explainer = LRP(from_torch(model, x))
    relevance = explainer.attribute(x, 1)
    absorbed = explainer.ledger.iloc[-1].absorbed
    assert relevance.sum().item() + absorbed == pytest.approx(model(x)[:, 1].sum().item(), rel=1e-3)


def test_lrp_rules_by_layer_by_function_and_by_kind():
    """rule={"fc": "epsilon"}, a function, and zennit's names give one map where they say the same."""
    twin, x = from_torch(resnet(), batch(2, 40)), batch(2, 40)

    def by_function(name, module):
        return "epsilon" if isinstance(module, nn.Linear) else None

    found = [LRP(twin, rule=rule).attribute(x, 1) for rule in ({"fc": "epsilon"}, by_function, "epsilon_plus")]
    assert torch.equal(found[0], found[1])
    assert torch.equal(found[0], found[2])
    assert not torch.allclose(found[0], LRP(twin).attribute(x, 1))
    with pytest.raises(ValueError, match=r"rule: the model has no module 'fcc'; the closest: fc"):
        LRP(twin, rule={"fcc": "epsilon"})
    with pytest.raises(ValueError, match=r"rule: got 'eps'; expected one of zplus, epsilon, gamma; by kind:"):
        LRP(twin, rule={"fc": "eps"})


# 4. signs --------------------------------------------------------------------------------------------------------


def test_lrp_of_a_negative_logit_is_normalised_around_zero():
    """The pixel of the largest |R| gets −1 by signed=True; without it 0, and a warning."""
    model, x = net(), batch()
    with torch.no_grad():
        model.head.weight.abs_()
        model.head.bias.fill_(-1000)
    maps = LRP(model).attribute(x, 1)
    assert (maps <= 0).all()
    strongest = maps.abs().flatten(1).argmax(1)
    found = normalize(maps, signed=True).flatten(1)
    assert torch.equal(found.gather(1, strongest[:, None]), -torch.ones(3, 1))
    assert torch.equal(found.abs().argmax(1), strongest)
    with pytest.warns(UserWarning, match=r"maps hold negative values.*signed=True"):
        assert not normalize(maps).flatten(1).gather(1, strongest[:, None]).any()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert torch.equal(normalize(-maps).amax((1, 2)), torch.ones(3))


@pytest.mark.parametrize("activation", [nn.ReLU, nn.GELU, nn.SiLU, nn.Identity])
def test_moram_says_that_features_are_negative(activation):
    """MoRAM of negative activations warns, which a ReLU has not; features="modulus" is Σ |w| |A|, never negative."""
    model, x = net(activation), batch()
    expected = pytest.warns(UserWarning, match=r"features go down to -.*features=\"modulus\"")
    if activation is nn.ReLU:
        expected = warnings.catch_warnings(action="error")
    with expected:
        signed = MoRAM(model, "last").attribute_layer(x, 2)
    features = model.last(model.stem(x)).detach()
    weights = model.head.weight[2].detach().abs() / 36
    torch.testing.assert_close(signed, torch.einsum("k,nkhw->nhw", weights, features))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        both = MoRAM(model, "last", features="modulus").attribute_layer(x, 2)
    torch.testing.assert_close(both, torch.einsum("k,nkhw->nhw", weights, features.abs()))
    with pytest.raises(ValueError, match="features: got 'abs'"):
        MoRAM(model, "last", features="abs")


def test_moram_of_a_convnext_is_not_silently_negative():
    """A ConvNeXt's features are of both signs, and MoRAM says so."""
    torch.manual_seed(0)
    model = torchvision.models.convnext_tiny(weights=None)
    with pytest.warns(UserWarning, match="MoRAM: the layer's features go down to -"):
        MoRAM(model, "features.7").attribute(batch(1, 64), 0)


# 5. threads ------------------------------------------------------------------------------------------------------


def in_threads(work, *arguments):
    with ThreadPoolExecutor(4) as pool:
        return list(pool.map(work, *arguments))


@pytest.mark.parametrize("name", EXPLAINERS)
def test_four_threads_on_one_model(name):
    """Each call gives what it gives alone; mode, BatchNorm and hooks are as before."""
    model, x = net().train(), batch(1)
    before = copy.deepcopy(model.state_dict())
    explainer = EXPLAINERS[name](model)
    alone = [explainer.attribute(x, c) for c in range(4)]
    for c, found in enumerate(in_threads(lambda c: explainer.attribute(x, c), [0, 1, 2, 3] * 3)):
        assert torch.equal(found, alone[c % 4])
    assert all(module.training and not module._forward_hooks for module in model.modules())
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_threads_on_a_network_and_on_one_built_around_it():
    """A network and a wrapper of it have one lock: neither sees the other's hooks and mode."""
    inner, x = net().train(), batch(2)
    outer = nn.Sequential(nn.Identity(), inner, nn.Linear(4, 4))
    cams = [GradCAMPlusPlus(inner, "last"), GradCAMPlusPlus(outer, "1.last")]
    alone = [cam.attribute(x, 1) for cam in cams]
    for number, found in enumerate(in_threads(lambda k: cams[k % 2].attribute(x, 1), range(24))):
        assert torch.equal(found, alone[number % 2])
    assert all(module.training for module in outer.modules())


def test_threads_with_checkpoints_and_threads_that_draw():
    """Checkpoints, which are switched off for the whole process, and NumPy's generator are one thread's at a time."""
    models, x = [Switching("behind").eval() for _ in range(4)], batch(1)
    kept, state = torch.utils.checkpoint.CheckpointFunction, np.random.get_state()[1].tolist()
    for makes in (lambda model: GradCAM(model, "last"), lambda model: KernelShap(model, n_samples=30, segments=3)):
        alone = [makes(model).attribute(x, 1) for model in models]
        found = in_threads(lambda model, makes=makes: makes(model).attribute(x, 1), models * 3)
        assert all(torch.equal(one, other) for one, other in zip(found, alone * 3, strict=True))
    assert torch.utils.checkpoint.CheckpointFunction is kept
    assert np.random.get_state()[1].tolist() == state


# 6. the first cell -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("paper", PAPERS)
def test_the_first_cell_again_after_the_others(paper):
    """Running the start cell again is no error, whatever the other cells or a startup file have set meanwhile."""
    known = parameters.schema(paper)
    values = parameters.defaults(known)
    cell = "\n".join(f"{name} = {value!r}" for name, value in values.items())
    others = {"accuracy": 0.9, "names": ["a", "b"], "rows": (1, 2), "best": None, "title": "text", "done": True}
    startup = {name: value for name, value in vars(math).items() if isinstance(value, float)}
    history = ["", "from math import *", cell, "run = suite.start(...)", "accuracy = score()\nnames = list('ab')"]
    assert parameters.validate(paper, values | others | startup | {"In": history, "Out": {}}) == values
    with pytest.raises(ValueError, match=r"epoch = 3 \(int\): no such parameter"):  # of `-p epoch 3`, all the same
        parameters.validate(
            paper, values | others | startup | {"epoch": 3, "In": [*history, "# Parameters\nepoch = 3"]}
        )


# 7. what else is set in the process ------------------------------------------------------------------------------


@contextlib.contextmanager
def default_dtype(dtype):
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


@contextlib.contextmanager
def default_device(device):
    torch.set_default_device(device)
    try:
        yield
    finally:
        torch.set_default_device(None)


@contextlib.contextmanager
def deterministic():
    torch.use_deterministic_algorithms(True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(False)


SETTINGS = {  # that change no number
    "float64 by default": lambda: default_dtype(torch.float64),
    "bfloat16 by default": lambda: default_dtype(torch.bfloat16),
    "another device by default": lambda: default_device("meta"),
    "device context": lambda: torch.device("meta"),
    "deterministic algorithms": deterministic,
    "no gradients": torch.no_grad,
    "inference mode": torch.inference_mode,
    "anomaly detection": torch.autograd.detect_anomaly,
    "NumPy raises": lambda: np.errstate(all="raise", under="ignore"),
}


@pytest.mark.filterwarnings("ignore:Anomaly Detection")
@pytest.mark.parametrize("setting", SETTINGS)
@every_explainer
def test_maps_do_not_depend_on_the_process(name, setting):
    """Whatever default dtype, default device or mode the process has, the map is the same to the bit."""
    if (name, setting) == ("IntegratedGradients", "bfloat16 by default"):
        pytest.skip("captum's own step sizes are rounded to the default dtype")
    explainer, x = EXPLAINERS[name](net()), batch(2)
    expected = explainer.attribute(x, 2)
    with SETTINGS[setting]():
        found = explainer.attribute(x, 2)
    assert found.dtype == torch.float32
    assert torch.equal(found, expected)


@pytest.mark.parametrize("setting", SETTINGS)
def test_metrics_do_not_depend_on_the_process(setting):
    """insertion_deletion, with each baseline, iou and predict give the same numbers under every setting."""
    model, x, maps = net(), batch(), torch.rand(3, 12, 12)
    mask = maps > 0.7

    def measured():
        black = {"baseline": "black", "normalization": ([0.5, 0.4, 0.3], [0.2, 0.2, 0.1])}
        for options in ({}, {"baseline": "blur"}, {"baseline": "mean"}, black):
            yield from insertion_deletion(model, x, maps, TARGETS, steps=5, **options)
        for of in ("value", "maximum", "quantile"):
            yield iou(maps, mask, [0.2, 0.5], of)
            yield iou(maps.numpy(), mask.numpy(), 0.5, of)
        yield predict(model, x)

    expected = list(measured())
    with SETTINGS[setting]():
        found = list(measured())
    assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@every_explainer
def test_autocast_is_the_callers_affair(name, dtype):
    """Under autocast the model runs in half precision, the explainer does not: the map is nearly the same, float32."""
    explainer, x = EXPLAINERS[name](net()), batch(2)
    expected = explainer.attribute(x, 2)
    with torch.autocast("cpu", dtype):
        found = explainer.attribute(x, 2)
    assert found.dtype == torch.float32
    for one, other in zip(found, expected):
        assert torch.corrcoef(torch.stack([one.flatten(), other.flatten()]))[0, 1] > 0.98


def test_masks_and_baselines_under_autocast_are_exact():
    """RISE's masks and the blurred baseline are no model: autocast does not reach them."""
    explainer, x = RISE(net(), n_masks=20), batch()
    with torch.autocast("cpu", torch.bfloat16):
        found = torch.cat(list(explainer.masks((12, 12), 7)))
    assert torch.equal(found, torch.cat(list(explainer.masks((12, 12), 7))))
    constant = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
    options = {"target": 0, "steps": 2, "baseline": "blur", "score": "logit"}
    expected = insertion_deletion(constant, x, torch.rand(3, 12, 12), **options).insertion[:, 0]
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(insertion_deletion(constant, x, torch.rand(3, 12, 12), **options).insertion[:, 0], expected)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@every_explainer
def test_half_precision_models(name, dtype):
    """A model in half precision has nearly the map of the model in float32."""
    expected = EXPLAINERS[name](net()).attribute(batch(2), 2)
    found = EXPLAINERS[name](net().to(dtype)).attribute(batch(2).to(dtype), 2)
    assert found.dtype == (torch.float32 if name == "RISE" else dtype)
    assert found.isfinite().all()
    for one, other in zip(found.float(), expected):
        assert torch.corrcoef(torch.stack([one.flatten(), other.flatten()]))[0, 1] > 0.95


def test_rise_of_a_half_precision_model_where_the_map_is_weak():
    """Sums, and the map itself, are float32: a map that varies by a thousandth of its mean is not rounded away."""
    torch.manual_seed(0)
    model, x = SmallCNN(width=8).bfloat16().eval(), torch.rand(2, 1, 28, 28).bfloat16()
    explainer = RISE(model, n_masks=300)
    found, masks = explainer.attribute(x, 1).double(), torch.cat(list(explainer.masks((28, 28), 300))).double()
    for image, one in zip(x, found):
        with torch.no_grad():
            scores = model((masks[:, None] * image).bfloat16()).double().softmax(1)[:, 1]
        expected = torch.einsum("m,mhw->hw", scores, masks) / masks.sum(0)
        assert expected.std() < 0.01 * expected.mean()
        assert torch.corrcoef(torch.stack([one.flatten(), expected.flatten()]))[0, 1] > 0.999


def test_insertion_of_a_half_precision_model():
    """Curves of a half-precision model are float32, as their fractions are."""
    found = insertion_deletion(net().bfloat16(), batch().bfloat16(), torch.rand(3, 12, 12), 1, steps=7)
    assert {part.dtype for part in found} == {torch.float32}
    assert torch.equal(found.fractions, torch.tensor([0, 21, 41, 62, 82, 103, 123, 144]) / 144)


def test_ram_looks_for_layers_in_between_in_half_precision_too():
    """RAM's check is not lost in half precision: a factor between layer and head is seen."""
    model = net(outputs=1).bfloat16()
    assert RAM(model, "last", "head").attribute(batch().bfloat16()).isfinite().all()
    model.behind = lambda logits: 1.5 * logits
    with pytest.raises(ValueError, match="something stands between layer and head"):
        RAM(model, "last", "head").attribute(batch().bfloat16())


@every_explainer
def test_models_made_in_inference_mode(name):
    """A model made within torch.inference_mode is explained like any other, and is the same object afterwards."""
    with torch.inference_mode():
        model = net()
    kept = {name: (id(tensor), tensor.clone()) for name, tensor in model.state_dict(keep_vars=True).items()}
    found = EXPLAINERS[name](model).attribute(batch(2), 2)
    assert torch.equal(found, EXPLAINERS[name](net()).attribute(batch(2), 2))
    with torch.inference_mode():
        assert torch.equal(EXPLAINERS[name](model).attribute(batch(2), 2), found)
    for name, tensor in model.state_dict(keep_vars=True).items():
        assert id(tensor) == kept[name][0]
        assert tensor.is_inference()
        assert torch.equal(tensor, kept[name][1])


def test_metrics_of_models_made_in_inference_mode():
    """So do metrics, also where weights are shared between modules."""
    with torch.inference_mode():
        model = nn.Sequential(net(), nn.Linear(4, 4), nn.Linear(4, 4)).eval()
        model[2].weight = model[1].weight
    x, maps = batch(), torch.rand(3, 12, 12)
    found = insertion_deletion(model, x, maps, 1, steps=3)
    with torch.inference_mode():
        torch.testing.assert_close(found.insertion[:, -1], model(x).softmax(1)[:, 1])
    assert model[2].weight is model[1].weight


# 8. hooks and grad modes -----------------------------------------------------------------------------------------


class Switching(Net):
    """Changes the grad mode on its way, in one of several manners."""

    def __init__(self, manner):
        super().__init__()
        self.manner = manner

    def forward(self, x):
        manner = self.manner
        if manner == "whole":
            with torch.no_grad():
                return super().forward(x)
        if manner == "set and left":
            torch.set_grad_enabled(False)
        if manner == "on and left":
            torch.set_grad_enabled(True)
        before = torch.no_grad() if manner == "trunk" else contextlib.nullcontext()
        after = torch.no_grad() if manner == "head" else contextlib.nullcontext()
        with before:
            features = self.stem(x)
            features = checkpoint(self.last, features, use_reentrant=True) if manner == "layer" else self.last(features)
        if manner == "set behind":
            torch.set_grad_enabled(self.training)
        with after:
            if manner == "behind":
                return checkpoint(lambda maps: self.head(self.pool(maps)), features, use_reentrant=True)
            if manner == "not reentrant":
                return checkpoint(lambda maps: self.head(self.pool(maps)), features, use_reentrant=False)
            return self.head(self.pool(features))


MANNERS = ("whole", "trunk", "head", "set and left", "on and left", "set behind", "layer", "behind", "not reentrant")


@pytest.mark.filterwarnings("ignore:None of the inputs have requires_grad")
@pytest.mark.parametrize("manner", MANNERS)
@pytest.mark.parametrize("name", [name for name in EXPLAINERS if name != "LRP"])
def test_forwards_that_switch_gradients(name, manner):
    """no_grad, set_grad_enabled and checkpoints in a forward do not change the map, nor the caller's grad mode."""
    model = Switching(manner)
    model.load_state_dict(net().state_dict())
    for mode in (torch.enable_grad, torch.no_grad):
        with mode():
            found = EXPLAINERS[name](model.eval()).attribute(batch(2), 2)
            assert torch.is_grad_enabled() == (mode is torch.enable_grad)
        assert torch.equal(found, EXPLAINERS[name](net()).attribute(batch(2), 2))
        assert not found.requires_grad
    assert torch.utils.checkpoint.CheckpointFunction.__name__ == "CheckpointFunction"


def test_a_forward_that_leaves_gradients_on_does_not_pile_up_graphs():
    """Curves of a model that switches gradients on hold no graph."""
    model = Switching("on and left").eval()
    found = insertion_deletion(model, batch(), torch.rand(3, 12, 12), 1, steps=3)
    assert not any(part.requires_grad for part in found)
    assert not predict(model, batch()).requires_grad


def test_gradients_that_are_cut_for_good():
    """A forward in inference mode, or one that detaches, is refused with the layer's name."""
    for behind in (lambda logits: logits.detach(), lambda logits: torch.from_numpy(logits.detach().numpy())):
        with pytest.raises(ValueError, match="does not depend on layer 'last', or not differentiably"):
            GradCAM(net(behind=behind), "last").attribute(batch(), 0)


COMPILED = {
    "compiled": lambda model: torch.compile(model, backend="eager"),
    "a part": lambda model: setattr(model, "last", torch.compile(model.last, backend="eager")) or model,
    "in place": lambda model: model.compile(backend="eager") or model,
    "its forward": lambda model: setattr(model, "forward", torch.compile(model.forward, backend="eager")) or model,
    "traced": lambda model: torch.jit.trace(model, batch()),
    "scripted part": lambda model: setattr(model, "stem", torch.jit.script(model.stem)) or model,
}


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("kind", COMPILED)
@pytest.mark.parametrize("name", [*OF_LAYERS, "LRP"])
def test_compiled_and_traced_models_are_refused_by_name(name, kind):
    """Layers of a compiled or traced model cannot be watched: the error says torch.compile and what to pass instead."""
    with pytest.raises(TypeError, match=r"torch\.compile.*expected the model as it was before"):
        EXPLAINERS[name](COMPILED[kind](net())).attribute(batch(), 0)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("kind", ["compiled", "traced"])
@pytest.mark.parametrize("name", ["RISE", "Lime", "IntegratedGradients"])
def test_compiled_and_traced_models_whose_layers_do_not_matter(name, kind):
    """What needs no layers takes a compiled or traced model as it is."""
    found = EXPLAINERS[name](COMPILED[kind](net())).attribute(batch(2), 2)
    torch.testing.assert_close(found, EXPLAINERS[name](net()).attribute(batch(2), 2), rtol=1e-4, atol=1e-6)


# 9. targets, dtypes and devices ----------------------------------------------------------------------------------

KINDS_OF_INDICES = {
    "array": np.array([2, 0, 3]),
    "small array": np.array([2, 0, 3], dtype=np.uint8),
    "list": [2, 0, 3],
    "tuple": (2, 0, 3),
    "list of scalars": [np.int64(2), 0, torch.tensor(3)],
    "series": pd.Series([2, 0, 3], index=[7, 8, 9]),
    "int32": TARGETS.int(),
}


@pytest.mark.parametrize("kind", KINDS_OF_INDICES)
@every_explainer
def test_targets_may_be_arrays_and_lists(name, kind):
    """Indices may be any array, list or series of integers."""
    explainer = EXPLAINERS[name](net())
    assert torch.equal(explainer.attribute(batch(), KINDS_OF_INDICES[kind]), explainer.attribute(batch(), TARGETS))


@pytest.mark.parametrize(
    ("target", "error", "message"),
    [
        ([0.0, 1.0, 2.0], TypeError, "target: got .*expected a class index, one for each image"),
        ([True, False, True], TypeError, "target: got"),
        (["crack", "none", "none"], TypeError, "target: got"),
        ([[0], [1, 2]], TypeError, "target: got"),
        ({"a": 1}, TypeError, "target: got"),
        ([0, 1], ValueError, r"target: got shape \(2,\); expected one index, or 3"),
        (np.array([[0, 1, 2]]), ValueError, r"target: got shape \(1, 3\)"),
        ([0, 1, 4], ValueError, "got 4, but the model has 4 classes"),
    ],
)
@every_explainer
def test_targets_that_make_no_sense(name, target, error, message):
    """Anything else is refused with what it was."""
    with pytest.raises(error, match=message):
        EXPLAINERS[name](net()).attribute(batch(), target)


@every_explainer
def test_images_of_another_dtype_or_device_than_the_model(name):
    """One error that names both, instead of torch's own from within some layer."""
    for x in (batch(2).double(), batch(2).bfloat16()):
        message = rf"inputs: got {x.dtype} on cpu, but the model's parameters are torch.float32 on cpu"
        with pytest.raises(ValueError, match=message):
            EXPLAINERS[name](net()).attribute(x, 0)
    with pytest.raises(ValueError, match=r"got torch.float32 on cpu.*torch.float64 on cpu"):
        EXPLAINERS[name](net().double()).attribute(batch(2), 0)


def test_metrics_and_attention_name_dtypes_and_devices_too():
    """So do predict, insertion_deletion and the attention map; a device differs like a dtype."""
    with pytest.raises(ValueError, match=r"got torch.float64 on cpu"):
        predict(net(), batch().double())
    with pytest.raises(ValueError, match=r"got torch.float64 on cpu"):
        insertion_deletion(net(), batch().double(), torch.rand(3, 12, 12), 0)
    abn = AttentionBranchNetwork(18, 4, width=4, blocks=2).eval()
    for explainer in (AttentionMap(abn), LRPBN(abn)):
        with pytest.raises(ValueError, match=r"got torch.float64 on cpu"):
            explainer.attribute(batch(1, 16).double(), 0)
    for name in ("IntegratedGradients", "Lime", "RISE"):
        with pytest.raises(ValueError, match=r"got torch.float32 on cpu, but the model's parameters are .* on meta"):
            EXPLAINERS[name](nn.Sequential(nn.Flatten(), nn.Linear(432, 4)).to("meta")).attribute(batch(), 0)


def test_a_forward_that_casts_by_itself_is_let_be():
    """A model that brings images to its own dtype works: only what fails is refused."""

    class Casting(Net):
        def forward(self, x):
            return super().forward(x.to(self.head.weight))

    model = Casting().double().eval()
    assert GradCAM(model, "last").attribute(batch(), 0).dtype == torch.float32


@pytest.mark.parametrize("target", [2, np.int64(2), torch.tensor(2), lambda outputs: outputs[:, 2]])
def test_in_batches_takes_one_class_for_all(target):
    """in_batches(explainer, images, 1): one index, or a callable, is for all images; lists and arrays are split."""
    explainer, x = GradCAM(net(), "last"), batch(5)
    torch.testing.assert_close(in_batches(explainer, x, target, size=2), explainer.attribute(x, 2))


def test_in_batches_splits_lists_and_takes_single_outputs():
    """A list or array is split like the images; None is the single output; a wrong number is refused."""
    explainer, x, classes = GradCAM(net(), "last"), batch(5), [0, 1, 2, 3, 0]
    for target in (classes, np.array(classes), torch.tensor(classes)):
        torch.testing.assert_close(in_batches(explainer, x, target, size=2), explainer.attribute(x, classes))
    single = GradCAM(net(outputs=1), "last")
    torch.testing.assert_close(in_batches(single, x, size=2), single.attribute(x))
    with pytest.raises(ValueError, match=r"target: got shape \(4,\); expected one index, or 5"):
        in_batches(explainer, x, classes[:4], size=2)


# 10. BatchNorm ---------------------------------------------------------------------------------------------------


@every_explainer
def test_batchnorm_without_running_statistics_is_refused(name):
    """A map must not depend on the images beside it: BatchNorm without statistics is refused by name."""
    model = net()
    model.stem[1] = nn.BatchNorm2d(5, track_running_stats=False)
    with pytest.raises(ValueError, match=r"'stem\.1' is a BatchNorm2d without running statistics"):
        EXPLAINERS[name](model.eval()).attribute(batch(), 0)
    with pytest.raises(ValueError, match="without running statistics"):
        predict(model, batch())
    with pytest.raises(ValueError, match="without running statistics"):
        insertion_deletion(model, batch(), torch.rand(3, 12, 12), 0)


@pytest.mark.parametrize(
    "norm", [lambda: nn.GroupNorm(1, 5), lambda: nn.InstanceNorm2d(5), lambda: nn.SyncBatchNorm(5)]
)
def test_norms_of_single_images_are_taken(norm):
    """GroupNorm and InstanceNorm look at one image, and are taken; SyncBatchNorm has statistics."""
    model, x = net(), batch()
    model.stem[1] = norm()
    found = GradCAM(model.eval(), "last").attribute(x, 1)
    torch.testing.assert_close(found[:1], GradCAM(model, "last").attribute(x[:1], 1))


def test_a_model_that_keeps_its_batchnorm_in_training():
    """A train() of its own that keeps BatchNorm in train mode does not make maps depend on the batch."""

    class Stubborn(Net):
        def train(self, mode=True):
            super().train(mode)
            self.stem[1].train()
            return self

    model, x = Stubborn().eval(), batch()
    before = copy.deepcopy(model.state_dict())
    found = GradCAM(model, "last").attribute(x, 1)
    torch.testing.assert_close(found[:1], GradCAM(model, "last").attribute(x[:1], 1))
    assert model.stem[1].training
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


@pytest.mark.parametrize("head", [lambda: nn.BatchNorm1d(4), lambda: nn.BatchNorm1d(4, momentum=None)])
def test_training_with_a_last_batch_of_one_image(head):
    """Nine images in batches of four train in batches of four and five, where a BatchNorm could not take the ninth."""
    sizes = []

    def loss(model, images, generator):
        sizes.append(len(images[0]))
        return model(images[0]).square().mean()

    data = torch.utils.data.TensorDataset(batch(9))
    model = net(behind=nn.Identity())
    model.behind = head()
    training.fit(model, loss, data, epochs=1, optimizer=torch.optim.Adam, seed=0, batch_size=4)
    assert sizes == [1, 4, 5]  # one image alone was tried
    with pytest.raises(ValueError, match=r"batch_size: got 1 for 9 images; .* Expected batches of 2 images or more"):
        training.fit(model, loss, data, epochs=1, optimizer=torch.optim.Adam, seed=0, batch_size=1)


# 11. words -------------------------------------------------------------------------------------------------------


def test_japanese_class_names_are_drawn():
    """重心 and ひび割れ are drawn, and nothing is said about missing glyphs."""
    plot.use_style()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        figure = plot.saliency_table(
            torch.rand(2, 1, 8, 8), {"重心": torch.rand(2, 8, 8)}, ["ひび割れ", "正常"], "判断根拠"
        )
        figure.savefig(io.BytesIO())
    pyplot.close(figure)


@pytest.mark.parametrize("encoding", ["cp932", "cp1252", "ascii"])
def test_words_on_any_terminal(encoding, monkeypatch):
    """α′ under cp932 and 重心 under cp1252 become ?, and nothing raises."""
    streams = [io.TextIOWrapper(io.BytesIO(), encoding=encoding) for _ in range(2)]
    for name, stream in zip(("stdout", "stderr"), streams, strict=True):
        monkeypatch.setattr(sys, name, stream)
    progress.print_anywhere()
    print("α′ and 重心", file=sys.stdout, flush=True)
    assert streams[0].buffer.getvalue().decode(encoding).startswith(("?", "α"))


def test_a_text_that_papermill_took_for_a_number():
    """`-p folder 2024` says that -r keeps the text."""
    values = parameters.defaults(parameters.schema(PAPERS[0]))
    with pytest.raises(ValueError, match="write -r folder to keep the text"):
        parameters.validate(PAPERS[0], values | {"folder": 2024})


@pytest.mark.parametrize("paper", PAPERS)
def test_papermill_shows_every_parameter(paper):
    """`papermill --help-notebook` lists each parameter with its default and its help."""
    shown = papermill.inspect_notebook(store.repository_root() / "notebooks" / f"{paper}.ipynb")
    known = parameters.schema(paper).parameters
    assert shown.keys() == known.keys()
    assert all(each["help"] and each["default"] for each in shown.values())


def test_a_kernel_of_another_environment_is_refused_by_name(monkeypatch, tmp_path):
    """A kernel that is not the environment's is named, with both, before anything is computed."""
    monkeypatch.setenv("XAI_PREFIX", str(tmp_path / "other"))
    monkeypatch.setenv("XAI_RESULTS", str(tmp_path))
    values = parameters.defaults(parameters.schema(PAPERS[0]))
    with pytest.raises(RuntimeError, match=rf"runs in the environment {re.escape(sys.prefix)}, .*other"):
        suite.start(PAPERS[0], parameters=values)


# also ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [1, 2, 3, 64])
@pytest.mark.parametrize("name", [*OF_LAYERS, "LRP"])
def test_batch_size_bounds_how_many_images_go_at_once(name, size):
    """batch_size= gives the maps of all at once, whatever it is; LRP's ledger is that of all images."""
    sizes, x, targets = [], batch(5), [2, 0, 3, 1, 1]
    model = net()
    model.stem[0].register_forward_hook(lambda _module, inputs, _output: sizes.append(len(inputs[0])))
    whole, parts = EXPLAINERS[name](model), EXPLAINERS[name](model, batch_size=size)
    expected = whole.attribute(x, targets)
    sizes.clear()
    torch.testing.assert_close(parts.attribute(x, targets), expected, rtol=1e-4, atol=1e-6)
    assert sizes == [min(size, 5 - start) for start in range(0, 5, size)]
    torch.testing.assert_close(parts.attribute(x, np.int64(2)), whole.attribute(x, 2), rtol=1e-4, atol=1e-6)
    if name == "LRP":
        pd.testing.assert_frame_equal(parts.ledger, whole.ledger, rtol=1e-4)
    for wrong in (0, -1, 2.0, True, "3"):
        with pytest.raises(ValueError, match=rf"batch_size: got {wrong!r}; expected a positive integer, or None"):
            EXPLAINERS[name](model, batch_size=wrong)


def test_batch_size_of_the_attention_branch_network():
    """LRPBN, its parts and ledger, and AttentionMap go in batches, too."""
    abn, x, targets = AttentionBranchNetwork(18, 4, width=4, blocks=2).eval(), batch(5, 16), [2, 0, 3, 1, 1]
    one, parts = LRPBN(abn, c1c=False), LRPBN(abn, c1c=False, batch_size=2)
    torch.testing.assert_close(parts.attribute(x, targets), one.attribute(x, targets), rtol=1e-4, atol=1e-7)
    pd.testing.assert_frame_equal(parts.ledger, one.ledger, rtol=1e-4)
    for mine, other in zip(parts.parts(x, targets), one.parts(x, targets), strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-4, atol=1e-7)
    maps = [AttentionMap(abn, batch_size=size).attribute(x, targets) for size in (None, 2)]
    torch.testing.assert_close(*maps)


@pytest.mark.parametrize("name", ["RISE", "Lime", "KernelShap", "ShapPartition"])
def test_what_takes_long_counts_its_images(name, monkeypatch):
    """RISE, LIME and SHAP show a bar, of as many changed images as they pass through the model."""
    bars = []

    class Bar(progress.tqdm):
        def __init__(self, *arguments, **options):
            super().__init__(*arguments, **options | {"disable": False, "file": io.StringIO()})
            bars.append(self)

    monkeypatch.setattr(progress, "tqdm", Bar)
    EXPLAINERS[name](net()).attribute(batch(2), 1)
    (one,) = bars
    assert one.total == {"RISE": 2 * 40, "ShapPartition": 2 * 20}.get(name, 2 * 30)
    assert one.n == pytest.approx(one.total, rel=0.1)  # shap may take a few more or less
