"""Explaining in batches."""

import pytest
import torch

from xai_utils.explain import GradCAM, in_batches
from xai_utils.models import resnet18
from xai_utils.seeds import generator


def test_maps_are_the_explainers_in_batches():
    model = resnet18(3, 2, 1).eval()
    images = torch.rand(70, 1, 32, 32, generator=generator(8))
    classes = torch.arange(70) % 3
    explainer = GradCAM(model, "layer3")
    seen = []

    class Watched:
        def attribute(self, inputs, target):
            seen.append(len(inputs))
            return explainer.attribute(inputs, target)

    found = in_batches(Watched(), images, classes)
    assert seen == [64, 6]
    assert found.shape == (70, 32, 32)
    for i in (0, 1, 65, 69):
        expected = explainer.attribute(images[[i]], classes[[i]])[0]
        torch.testing.assert_close(found[i], expected, atol=1e-5, rtol=1e-4)
    with pytest.raises(ValueError, match=r"target: got shape \(64,\); expected one index, or 70"):
        in_batches(explainer, images, classes[:64])
