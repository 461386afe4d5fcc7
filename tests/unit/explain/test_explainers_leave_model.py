"""Every explainer leaves model, images and random numbers as it found them, also when something fails.

A new explainer joins all of these tests by one line in EXPLAINERS.
"""

import random

import numpy as np
import pytest
import torch
from torch import nn

import xai_utils.explain
from xai_utils.explain import (
    LRP,
    LRPBN,
    RAM,
    RISE,
    AttentionMap,
    Explainer,
    GradCAM,
    GradCAMPlusPlus,
    GradRAM,
    IntegratedGradients,
    KernelShap,
    Lime,
    MoRAM,
    ShapPartition,
)
from xai_utils.models import AttentionBranchNetwork, check_images, preserve_state, target_indices, target_scores

# name: model -> explainer, for the model `Net` below (6 classes, images 1×16×16); cheap settings
EXPLAINERS = {
    "GradCAM": lambda model: GradCAM(model, "features"),
    "GradCAMPlusPlus": lambda model: GradCAMPlusPlus(model, "relu"),
    "RAM": lambda model: RAM(model, "relu", "head"),
    "GradRAM": lambda model: GradRAM(model, "features"),
    "MoRAM": lambda model: MoRAM(model, "features"),
    "LRP": lambda model: LRP(model),
    "LRPBN": lambda model: LRPBN(model, start="one", c1c={"size": 4}),
    "AttentionMap": lambda model: AttentionMap(model),
    "RISE": lambda model: RISE(model, n_masks=60, cells=4, batch_size=25, score="logit"),
    "Lime": lambda model: Lime(model, n_samples=40, segments=2, batch_size=16),
    "KernelShap": lambda model: KernelShap(model, n_samples=14, segments=2, batch_size=5),
    "ShapPartition": lambda model: ShapPartition(model, max_evals=20, batch_size=4),
    "IntegratedGradients": lambda model: IntegratedGradients(model, steps=6, batch_size=3),
}
PLAIN = {"RAM", "LRP"}  # these need a model of modules only, which ends with GAP and one linear layer
BRANCHED = {"LRPBN", "AttentionMap"}  # these need an Attention Branch Network
ONE_MAP = {"AttentionMap"}  # the same for all classes


def test_every_explainer_of_the_package_is_here():
    public = xai_utils.explain
    offered = {name for name in public.__all__ if hasattr(getattr(public, name), "attribute")} - {"Explainer"}
    assert offered == EXPLAINERS.keys()


class Net(nn.Module):
    """Everything that can be left changed: BatchNorm, dropout, an in-place ReLU, frozen parameters, hooks, grads."""

    def __init__(self, n_outputs=6, fail_at_call=None, plain=False):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(inplace=not plain))
        self.features = nn.Sequential(nn.Conv2d(4, 6, 3, stride=2, padding=1), nn.BatchNorm2d(6))
        self.relu = nn.ReLU(inplace=not plain)
        self.dropout = nn.Dropout(0.5)
        self.pool = nn.Sequential(nn.AdaptiveAvgPool2d(1 if plain else 8), nn.Flatten())
        self.head = nn.Linear(6 if plain else 6 * 64, n_outputs)
        self.register_buffer("calls_seen", torch.zeros(1))
        self.calls, self.fail_at_call, self.plain = 0, fail_at_call, plain

    def forward(self, x):
        self.calls += 1
        if not self.plain:
            self.calls_seen += 1  # a model that writes into a buffer of its own
        features = self.relu(self.features(self.stem(x)))
        if self.calls == self.fail_at_call:
            raise RuntimeError("the forward pass failed")
        return self.head(self.pool(self.dropout(features)))


class BranchNet(AttentionBranchNetwork):
    """The same for a network with branches, by the names that `make` uses."""

    def __init__(self, n_outputs=6, fail_at_call=None):
        super().__init__(18, n_outputs, width=4, in_channels=1, blocks=2)
        self.calls, self.fail_at_call = 0, fail_at_call

    stem = property(lambda self: self.extractor)
    head = property(lambda self: self.perception.fc)

    def branches(self, images):
        self.calls += 1
        found = super().branches(images)
        if self.calls == self.fail_at_call:
            raise RuntimeError("the forward pass failed")
        return found


def make(training, dtype=torch.float32, name="", **options):
    torch.manual_seed(1)
    model = BranchNet(**options) if name in BRANCHED else Net(plain=name in PLAIN, **options)
    model = model.to(dtype).train(training)
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.running_mean.normal_()
                module.running_var.uniform_(0.5, 2)
    model.stem[1].train(not training)  # modes are mixed in real models
    model.stem[0].weight.requires_grad_(False)
    for parameter in model.head.parameters():
        parameter.grad = torch.randn_like(parameter)
    model.head.register_forward_hook(lambda *_: None)
    model.stem.register_full_backward_hook(lambda *_: None)
    return model


def images(dtype=torch.float32):
    return torch.rand(2, 1, 16, 16, dtype=dtype, generator=torch.Generator().manual_seed(2))


def state(model, inputs):
    """All that must not change, by identity and by value."""
    found = {"inputs": (inputs.numpy().tobytes(), inputs.requires_grad, inputs.grad), "grad": torch.is_grad_enabled()}
    for name, module in model.named_modules():
        hooks = {key: list(value) for key, value in vars(module).items() if key.endswith("hooks")}
        found["module", name] = (module.training, hooks, sorted(vars(module)))
    for name, parameter in model.named_parameters():
        gradient = None if parameter.grad is None else (id(parameter.grad), parameter.grad.numpy().tobytes())
        found["parameter", name] = (
            id(parameter),
            parameter.requires_grad,
            gradient,
            parameter.detach().numpy().tobytes(),
        )
    for name, buffer in model.named_buffers():
        found["buffer", name] = (id(buffer), buffer.numpy().tobytes())
    everywhere = vars(torch.nn.modules.module)
    found["global hooks"] = {key: list(value) for key, value in everywhere.items() if key.endswith("_hooks")}
    found["random"] = (random.getstate(), str(np.random.get_state()), torch.get_rng_state().numpy().tobytes())
    return found


def explain(name, model, inputs, target):
    return EXPLAINERS[name](model).attribute(inputs, target)


WRONG_TARGETS = [
    (6, ValueError, "got 6, but the model has 6 classes, 0 … 5"),
    (-1, ValueError, "got -1, but the model has 6 classes"),
    (torch.tensor([0, 99]), ValueError, "got 99"),
    (torch.tensor([0, 1, 2]), ValueError, r"got shape \(3,\)"),
    (None, ValueError, "got None, but the model has 6 classes"),
    (True, TypeError, "got True"),
    (1.0, TypeError, r"got 1\.0"),
    (torch.tensor([0.0, 1.0]), TypeError, "float32"),
]


@pytest.mark.parametrize("training", [False, True], ids=["eval", "train"])
@pytest.mark.parametrize("name", EXPLAINERS)
class TestLeavesModelAsFound:
    def test_normal(self, name, training):
        model, inputs = make(training, name=name), images()
        before = state(model, inputs)
        maps = explain(name, model, inputs, torch.tensor([0, 5]))
        assert state(model, inputs) == before
        # the same explanation as in evaluation mode, image by image, and each about its own class
        expected = [explain(name, make(False, name=name).eval(), inputs[i : i + 1], c)[0] for i, c in enumerate((0, 5))]
        torch.testing.assert_close(maps, torch.stack(expected), rtol=1e-4, atol=1e-6)
        assert torch.allclose(maps, explain(name, model, inputs, 2)) == (name in ONE_MAP)

    def test_wrong_target(self, name, training):
        model, inputs = make(training, name=name), images()
        before = state(model, inputs)
        for target, error, message in WRONG_TARGETS:
            with pytest.raises(error, match=message):
                explain(name, model, inputs, target)
            assert state(model, inputs) == before

    def test_failing_forward(self, name, training):
        counter, inputs = make(training, name=name), images()
        explain(name, counter, inputs, 1)
        for call in {1, 2, counter.calls} & set(range(counter.calls + 1)):
            model = make(training, fail_at_call=call, name=name)
            before = state(model, inputs)
            with pytest.raises(RuntimeError, match="the forward pass failed"):
                explain(name, model, inputs, 1)
            assert state(model, inputs) == before


@pytest.mark.parametrize("name", EXPLAINERS)
class TestContract:
    @pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
    def test_shape_dtype_and_finite_signed_values(self, name, dtype):
        explainer = EXPLAINERS[name](make(False, dtype, name=name))
        assert isinstance(explainer, Explainer)
        maps = explainer.attribute(images(dtype), 3)
        assert (maps.shape, maps.dtype, maps.requires_grad) == ((2, 16, 16), dtype, False)
        assert maps.isfinite().all()
        assert len(maps.unique()) > 2

    def test_same_map_without_gradients_with_inputs_that_require_them_and_frozen(self, name):
        model, inputs = make(False, name=name), images()
        expected = explain(name, model, inputs, 3)
        with torch.no_grad():
            assert torch.equal(explain(name, model, inputs, 3), expected)
        with torch.inference_mode():
            assert torch.equal(explain(name, model, images(), 3), expected)
        assert torch.equal(explain(name, model, inputs.clone().requires_grad_(), 3), expected)
        assert torch.equal(explain(name, model.requires_grad_(False), inputs, 3), expected)

    def test_repeats_whatever_the_global_generators_do(self, name):
        model = make(False, name=name)
        first = explain(name, model, images(), 3)
        np.random.rand(5)
        torch.rand(5)
        assert torch.equal(explain(name, model, images(), 3), first)

    def test_a_single_output_needs_no_target(self, name):
        model = make(False, n_outputs=1, name=name)
        assert torch.equal(explain(name, model, images(), None), explain(name, model, images(), 0))

    @pytest.mark.parametrize(
        ("wrong", "error", "message"),
        [
            (torch.rand(1, 16, 16), ValueError, r"got shape \(1, 16, 16\).*inputs\[None\]"),
            (torch.rand(0, 1, 16, 16), ValueError, r"got shape \(0, 1, 16, 16\)"),
            (torch.full((1, 1, 16, 16), torch.nan), ValueError, r"images \[0\] hold NaN"),
            (torch.zeros(1, 1, 16, 16, dtype=torch.uint8), TypeError, "got torch.uint8"),
            (np.zeros((1, 1, 16, 16)), TypeError, "got ndarray"),
        ],
    )
    def test_wrong_images(self, name, wrong, error, message):
        with pytest.raises(error, match=message):
            explain(name, make(False, name=name), wrong, 0)

    def test_weights_that_are_not_finite(self, name):
        model = make(False, name=name)
        with torch.no_grad():
            model.head.weight[:] = torch.inf
        with pytest.raises(ValueError, match=r"finite|infinity|NaN"):
            explain(name, model, images(), 0)


def test_as_found_refuses_what_is_no_module():
    with pytest.raises(TypeError, match="function"), preserve_state(lambda x: x):
        pass


def test_as_found_restores_a_replaced_buffer_and_gradients_made_within():
    model = make(True)
    before = state(model, images())
    with preserve_state(model):
        assert not any(module.training for module in model.modules())
        model.calls_seen = torch.full((1,), 7.0)
        model.head.weight.requires_grad_(False)
        model.features[0].weight.sum().backward()
        model.train()
    assert state(model, images()) == before


def test_check_images_detaches():
    assert not check_images(images().requires_grad_() * 2).requires_grad


def test_check_images_names_the_image_with_one_infinite_pixel():
    inputs = torch.zeros(3, 1, 4, 4)
    inputs[1, 0, 2, 2] = torch.inf
    with pytest.raises(ValueError, match=r"images \[1\] hold NaN or infinite"):
        check_images(inputs)


def test_target_scores_pick_the_column():
    outputs = torch.arange(12.0).reshape(3, 4)
    assert target_scores(outputs, torch.tensor([3, 0, 1])).tolist() == [3, 4, 9]
    assert target_scores(outputs, np.int64(2)).tolist() == [2, 6, 10]
    assert target_scores(outputs[:, 0], None).tolist() == [0, 4, 8]
    assert target_indices(outputs, torch.tensor(1)).tolist() == [1, 1, 1]
    with pytest.raises(ValueError, match=r"the model returned \(3, 4, 1\)"):
        target_scores(outputs[..., None], 0)
    with pytest.raises(ValueError, match="the model returned tuple"):
        target_scores((outputs, outputs), 0)
