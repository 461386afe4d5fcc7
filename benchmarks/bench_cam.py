"""CAM methods beside the plain forward pass of the same images, captum's LayerGradCam, pytorch-grad-cam's Grad-CAM++.

All at the last convolution: the trunk runs without gradients, only the head is differentiated.
"""

import torch
from captum.attr import LayerGradCam
from harness import alternate, ratio, report

from xai_utils.explain import GradCAM, GradCAMPlusPlus, MoRAM
from xai_utils.models import make_torchvision_importable, vgg16_gap

make_torchvision_importable()
import torchvision  # isort: skip
from pytorch_grad_cam import GradCAMPlusPlus as LibraryGradCAMPlusPlus  # isort: skip
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget  # isort: skip

torch.manual_seed(0)
regression, small = vgg16_gap().eval(), {n: torch.rand(n, 3, 64, 64) for n in (8, 16, 32)}
classifier, large = torchvision.models.resnet50(weights=None).eval(), torch.rand(8, 3, 224, 224)
targets = torch.zeros(8, dtype=torch.int64)
captum_regression = LayerGradCam(regression, regression.features)
library = LibraryGradCAMPlusPlus(classifier, [classifier.layer4])


def forward(model: torch.nn.Module, images: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        return model(images)


small_times = {
    n: alternate({
        "forward": lambda images=images: forward(regression, images),
        "MoRAM": lambda images=images: MoRAM(regression, regression.features).attribute_layer(images),
        "captum": lambda images=images: captum_regression.attribute(images),
    }, rounds=15)
    for n, images in small.items()
}  # fmt: skip
large_times = alternate({
    "forward": lambda: forward(classifier, large),
    "Grad-CAM": lambda: GradCAM(classifier, "layer4").attribute(large, 0),
    "Grad-CAM++": lambda: GradCAMPlusPlus(classifier, "layer4").attribute(large, 0),
    "pytorch-grad-cam": lambda: library(large, [ClassifierOutputTarget(0)] * 8),
}, rounds=5)  # fmt: skip
wanted = [
    *((f"MoRAM / forward, VGG16 at 64, {n} images", t, "MoRAM", "forward", "≤ 1.05") for n, t in small_times.items()),
    *((f"MoRAM / captum's LayerGradCam, {n} images", t, "MoRAM", "captum", "≤ 1") for n, t in small_times.items()),
    ("Grad-CAM / forward, ResNet-50 at 224, 8 images", large_times, "Grad-CAM", "forward", "≤ 1.05"),
    ("Grad-CAM++ / forward", large_times, "Grad-CAM++", "forward", ""),
    ("pytorch-grad-cam's Grad-CAM++ / ours", large_times, "pytorch-grad-cam", "Grad-CAM++", "≥ 2.5"),
]
rows = [{"what": what, "measured": round(ratio(times, a, b), 3), "bar": bar} for what, times, a, b, bar in wanted]
report(__file__, "CAM at the last convolution, float32", rows)
