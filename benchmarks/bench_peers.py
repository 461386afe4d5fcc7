"""Our methods beside captum's, pytorch-grad-cam's, torchcam's, Quantus', lime's and shap's, in one process and in turn.

ResNet-50 at 224 where the network is the cost, ResNet-18 for the methods that ask it hundreds of times. `this / ours`
above 1 means that ours is faster. Zennit stands in `bench_lrp.py`; LIME and Kernel SHAP are those libraries' own behind
our signature, so that a ratio of 1 is what can be hoped for. A peer that is not installed is an error, not a gap.
"""

import os
from functools import partial

import numpy as np
import torch
from captum.attr import IntegratedGradients as CaptumIntegratedGradients
from captum.attr import LayerGradCam
from harness import alternate, ratio, report
from lime.lime_image import LimeImageExplainer
from shap import KernelExplainer

os.environ["TQDM_DISABLE"] = "1"  # lime draws a bar at every call
from xai_utils.explain import GradCAM, GradCAMPlusPlus, IntegratedGradients, KernelShap, Lime
from xai_utils.metrics.faithfulness import insertion_deletion
from xai_utils.models import make_torchvision_importable

make_torchvision_importable()
import torchvision  # isort: skip
from pytorch_grad_cam import GradCAM as LibraryGradCAM  # isort: skip
from pytorch_grad_cam import GradCAMPlusPlus as LibraryGradCAMPlusPlus  # isort: skip
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget  # isort: skip
from quantus import PixelFlipping  # isort: skip
from torchcam.methods import GradCAM as TorchcamGradCAM  # isort: skip
from torchcam.methods import GradCAMpp as TorchcamGradCAMPlusPlus  # isort: skip

IMAGES, TARGET, STEPS, SAMPLES, CELLS, POINTS = 8, 3, 25, 256, 7, 50


def network(name: str) -> torch.nn.Module:
    torch.manual_seed(0)
    return getattr(torchvision.models, name)(weights=None).eval()


@torch.no_grad()
def forward(model: torch.nn.Module, images: torch.Tensor, pictures: int, batch: int = 64) -> None:
    """`pictures` forward passes, `batch` at a time."""
    for start in range(0, pictures, batch):
        model(images[:1].expand(min(batch, pictures - start), -1, -1, -1).contiguous())


def cams() -> list[tuple[str, str, str, dict]]:
    model, images = network("resnet50"), torch.rand(IMAGES, 3, 224, 224)
    wanted, other = [ClassifierOutputTarget(TARGET)] * IMAGES, partial(network, "resnet50")  # hooks slow a network down
    library = {
        "Grad-CAM": LibraryGradCAM(hooked := other(), [hooked.layer4]),
        "Grad-CAM++": LibraryGradCAMPlusPlus(hooked := other(), [hooked.layer4]),
    }
    torchcams = {
        "Grad-CAM": TorchcamGradCAM(other(), "layer4"),
        "Grad-CAM++": TorchcamGradCAMPlusPlus(other(), "layer4"),
    }
    captum = LayerGradCam(model, model.layer4)  # sets its hooks at each call

    def torchcam(name: str) -> None:
        extractor = torchcams[name]
        extractor.model.zero_grad()
        extractor([TARGET] * IMAGES, extractor.model(images))

    times = alternate({
        "forward": lambda: forward(model, images, IMAGES, IMAGES),
        "Grad-CAM": lambda: GradCAM(model, "layer4").attribute(images, TARGET),
        "captum": lambda: captum.attribute(images, TARGET),
        "pytorch-grad-cam": lambda: library["Grad-CAM"](images, wanted),
        "torchcam": lambda: torchcam("Grad-CAM"),
        "Grad-CAM++": lambda: GradCAMPlusPlus(model, "layer4").attribute(images, TARGET),
        "pytorch-grad-cam ++": lambda: library["Grad-CAM++"](images, wanted),
        "torchcam ++": lambda: torchcam("Grad-CAM++"),
    }, rounds=5)  # fmt: skip
    peers = [("Grad-CAM", "Grad-CAM", peer) for peer in ("captum", "pytorch-grad-cam", "torchcam")]
    peers += [("Grad-CAM++", "Grad-CAM++", peer) for peer in ("pytorch-grad-cam ++", "torchcam ++")]
    return [(f"{what}, ResNet-50, {IMAGES} images", ours, peer, times) for what, ours, peer in peers]


def curves() -> list[tuple[str, str, str, dict]]:
    """Quantus flips pixels out of an image; ours puts them in, too, and so scores twice as many pictures."""
    model, images, maps = network("resnet18"), torch.rand(IMAGES, 3, 224, 224), torch.rand(IMAGES, 224, 224)
    flipping = PixelFlipping(
        features_in_step=-(-images[0].numel() // STEPS),
        perturb_baseline="black",
        normalise=False,
        disable_warnings=True,
    )
    given = {"x_batch": images.numpy(), "y_batch": np.full(IMAGES, TARGET), "a_batch": maps[:, None].numpy()}
    times = alternate({
        "forward": lambda: forward(model, images, 2 * STEPS * IMAGES),
        "insertion + deletion": lambda: insertion_deletion(model, images, maps, TARGET, steps=STEPS),
        "Quantus": lambda: flipping(model=model, channel_first=True, softmax=True, device="cpu", **given),
    }, rounds=3)  # fmt: skip
    times["Quantus"] = [2 * each for each in times["Quantus"]]  # for as many pictures
    return [(f"a curve of {STEPS} steps, ResNet-18, {IMAGES} images", "insertion + deletion", "Quantus", times)]


def perturbations() -> list[tuple[str, str, str, dict]]:
    """The same samples, segments and batches; the peer gets the cheapest wrapper of the network that it allows."""
    model, image = network("resnet18"), torch.rand(1, 3, 224, 224)
    rows = torch.arange(224) * CELLS // 224
    labels = rows[:, None] * CELLS + rows
    hidden = torch.zeros_like(image)

    @torch.no_grad()
    def probabilities(pictures: np.ndarray) -> np.ndarray:  # (B, H, W, C), as lime hands them over
        return model(torch.from_numpy(pictures).float().permute(0, 3, 1, 2)).softmax(1).numpy()

    @torch.no_grad()
    def of_shown(shown: np.ndarray) -> np.ndarray:
        kept = torch.from_numpy(shown).float()[:, labels][:, None]
        return torch.cat([model(torch.lerp(hidden, image, part))[:, TARGET] for part in kept.split(128)]).numpy()

    def lime() -> None:
        LimeImageExplainer(random_state=0).explain_instance(
            image[0].permute(1, 2, 0).double().numpy(),
            probabilities,
            labels=(TARGET,),
            top_labels=None,
            num_samples=SAMPLES,
            batch_size=128,
            segmentation_fn=lambda _: labels.numpy(),
        )

    def shap() -> None:
        explainer = KernelExplainer(of_shown, np.zeros((1, CELLS**2)))
        explainer.shap_values(np.ones((1, CELLS**2)), nsamples=SAMPLES, l1_reg=False, silent=True)

    captum = partial(CaptumIntegratedGradients(model).attribute, image, n_steps=POINTS, internal_batch_size=128)
    times = alternate({
        "forward": lambda: forward(model, image, SAMPLES),
        "LIME": lambda: Lime(model, n_samples=SAMPLES, segments=CELLS).attribute(image, TARGET),
        "lime": lime,
        "Kernel SHAP": lambda: KernelShap(model, n_samples=SAMPLES, segments=CELLS).attribute(image, TARGET),
        "shap": shap,
        "integrated gradients": lambda: IntegratedGradients(model, steps=POINTS).attribute(image, TARGET),
        "captum": lambda: captum(target=TARGET),
    }, rounds=3)  # fmt: skip
    size = f"ResNet-18, 1 image, {SAMPLES} samples"
    return [
        (f"LIME, {size}", "LIME", "lime", times),
        (f"Kernel SHAP, {size}", "Kernel SHAP", "shap", times),
        (f"integrated gradients, ResNet-18, 1 image, {POINTS} points", "integrated gradients", "captum", times),
    ]


found = [*cams(), *curves(), *perturbations()]
rows = [
    {
        "what": what,
        "peer": peer.removesuffix(" ++"),
        "ours / forward": round(ratio(times, ours, "forward"), 3),
        "this / ours": round(ratio(times, peer, ours), 3),
        "bar": "≥ 1",
    }
    for what, ours, peer, times in found
]
report(__file__, "at 224, float32", rows)
