"""ID-CVAE: a conditional VAE whose label enters the decoder only, used as classifier and explainer (paper 1)."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

KERNEL = 4  # §4.1: every convolution is 4×4 with SAME padding
SLOPE = 0.01  # §4.1: LeakyReLU


class SameConv2d(nn.Conv2d):
    """4×4 convolution of stride 2 with SAME padding: ⌈size / 2⌉ outputs, the odd padding pixel at the far edge."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__(in_channels, out_channels, KERNEL, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, out_channels, ⌈H/2⌉, ⌈W/2⌉)."""
        pads = [max((-(-size // 2) - 1) * 2 + KERNEL - size, 0) for size in x.shape[-2:]]
        (top, left), (bottom, right) = [p // 2 for p in pads], [p - p // 2 for p in pads]
        return super().forward(F.pad(x, (left, right, top, bottom)))


class SameConvTranspose2d(nn.ConvTranspose2d):
    """4×4 transposed convolution of stride 2, SAME: doubles the grid, then keeps the `size` × `size` corner."""

    def __init__(self, in_channels: int, out_channels: int, size: int) -> None:
        super().__init__(in_channels, out_channels, KERNEL, stride=2, padding=1)
        self.size = size

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, h, w) -> (N, out_channels, size, size)."""
        return super().forward(x)[..., : self.size, : self.size]


class IDCVAE(nn.Module):
    """Intrusion-Detection CVAE (paper 1, §2; Lopez-Martin et al. 2017): encoder E(x), decoder D(z, l).

    Three stride-2 convolutions down, three transposed ones back. The paper's layer table (fig. 5) is not in
    the text: `widths` is our choice, kernel, padding, LeakyReLU and the 16 latent dimensions are the paper's.

    Args:
        latent_dim: f, the number of latent dimensions.
        n_classes: number of labels |L|.
        image_size: height and width of the images, at least 8 pixels.
        in_channels: 1 for grey, 3 for colour.
        widths: channels of the three convolutions.
    """

    def __init__(
        self,
        latent_dim: int = 16,
        n_classes: int = 10,
        image_size: int = 28,
        in_channels: int = 1,
        widths: tuple[int, int, int] = (32, 64, 128),
    ) -> None:
        super().__init__()
        if image_size < 8 or latent_dim < 1 or n_classes < 2:
            raise ValueError(
                f"IDCVAE(latent_dim={latent_dim}, n_classes={n_classes}, image_size={image_size}): expected "
                "latent_dim ≥ 1, n_classes ≥ 2 and images of at least 8 pixels a side"
            )
        self.latent_dim, self.n_classes = latent_dim, n_classes
        self.image_shape = (in_channels, image_size, image_size)
        sizes = [image_size, -(-image_size // 2), -(-image_size // 4), -(-image_size // 8)]
        first, second, third = widths
        self.encoder = nn.Sequential(
            SameConv2d(in_channels, first),
            nn.LeakyReLU(SLOPE),
            SameConv2d(first, second),
            nn.LeakyReLU(SLOPE),
            SameConv2d(second, third),
            nn.LeakyReLU(SLOPE),
            nn.Flatten(),
            nn.Linear(third * sizes[3] ** 2, 2 * latent_dim),  # posterior mean and log variance
        )
        self.latent_input = nn.Linear(latent_dim, third * sizes[3] ** 2)
        self.label_input = nn.Embedding(n_classes, third * sizes[3] ** 2)  # the one-hot label's columns
        self.decoder = nn.Sequential(
            nn.LeakyReLU(SLOPE),
            nn.Unflatten(1, (third, sizes[3], sizes[3])),
            SameConvTranspose2d(third, second, sizes[2]),
            nn.LeakyReLU(SLOPE),
            SameConvTranspose2d(second, first, sizes[1]),
            nn.LeakyReLU(SLOPE),
            SameConvTranspose2d(first, in_channels, sizes[0]),
        )
        # [z, one-hot l] → Linear, written as a sum; initialised as that one layer would be
        bound = (latent_dim + n_classes) ** -0.5
        for weight in (self.latent_input.weight, self.latent_input.bias, self.label_input.weight):
            nn.init.uniform_(weight, -bound, bound)

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """E(x): mean and log variance of q(z | x), each (N, latent_dim), for images x (N, C, H, W) in [0, 1].

        E(x) of eqs. (1) and (2) is the mean.
        """
        if x.ndim != 4 or tuple(x.shape[1:]) != self.image_shape:
            raise ValueError(
                f"images have shape {tuple(x.shape)}; this model expects (N, {', '.join(map(str, self.image_shape))}): "
                "resize them, or build IDCVAE with their image_size and in_channels"
            )
        mean, log_var = self.encoder(x).chunk(2, dim=1)
        return mean, log_var

    def decode_logits(self, z: Tensor, label: Tensor | int) -> Tensor:
        """D(z, l) before its sigmoid: (N, C, H, W), for latents z (N, latent_dim), labels (N,) or one label."""
        return self.decoder(self.latent_input(z) + self.label_input(self._labels(label, len(z), z.device)))

    def decode(self, z: Tensor, label: Tensor | int) -> Tensor:
        """D(z, l): images (N, C, H, W) in [0, 1], for latents z (N, latent_dim) and labels (N,) or one label."""
        return self.decode_logits(z, label).sigmoid()

    def forward(self, x: Tensor, label: Tensor | int) -> Tensor:
        """D(E(x), l): the reconstruction (N, C, H, W) of x as an image of class `label`."""
        return self.decode(self.encode(x)[0], label)

    def loss(
        self, x: Tensor, label: Tensor, generator: torch.Generator | None = None, contrast: float = 0.0
    ) -> dict[str, Tensor]:
        """Loss_KL + Loss_Rec (§2), in nats, summed over pixels and latents, averaged over the batch.

        The noise of z = mean + σ·ε comes from `generator`. `contrast` > 0 is not in the paper (the suite's arm
        `improved`): it adds contrast × cross-entropy of eq. (1) read as a classifier, p(l | x) ∝ exp(−Loss_Rec(x,
        D(E(x), l))), on the first eighth of the batch, so that wrong labels reconstruct worse.

        Returns:
            "loss" and its parts "kl", "reconstruction" and, with contrast, "contrast"; scalars.
        """
        mean, log_var = self.encode(x)
        noise = torch.randn(mean.shape, generator=generator, dtype=mean.dtype, device="cpu").to(mean.device)
        logits = self.decode_logits(mean + (0.5 * log_var).exp() * noise, label)
        parts = {
            "kl": kl_divergence(mean, log_var).mean(),
            "reconstruction": reconstruction_loss(logits, x).mean(),
        }
        if contrast:
            some = slice(0, max(len(x) // 8, 1))
            losses = self._losses_of_all_labels(mean[some], x[some])
            parts["contrast"] = contrast * F.cross_entropy(-losses, label[some])
        return {"loss": sum(parts.values()), **parts}

    @torch.no_grad()
    def label_losses(self, x: Tensor, batch_size: int = 250) -> Tensor:
        """Loss_Rec(x, D(E(x), l)) for every label l: (N, n_classes), in nats; `batch_size` images at a time."""
        if not torch.isfinite(x).all():
            raise ValueError("images hold NaN or infinite values; expected finite numbers in [0, 1]")
        chunks = [self._losses_of_all_labels(self.encode(part)[0], part) for part in x.split(batch_size)]
        return torch.cat(chunks)

    def predict(self, x: Tensor, batch_size: int = 250) -> Tensor:
        """Eq. (1): l* = argmin_l Loss_Rec(x, D(E(x), l)), (N,) int64, for images x (N, C, H, W)."""
        return self.label_losses(x, batch_size).argmin(dim=1)

    def _losses_of_all_labels(self, mean: Tensor, x: Tensor) -> Tensor:
        hidden = self.latent_input(mean)  # the latent's share is the same for every label
        columns = [
            reconstruction_loss(self.decoder(hidden + self.label_input.weight[label]), x)
            for label in range(self.n_classes)
        ]
        return torch.stack(columns, dim=1)

    def _labels(self, label: Tensor | int, n: int, device: torch.device) -> Tensor:
        label = torch.as_tensor(label, device=device).long().expand(n)
        if n and (label.min() < 0 or label.max() >= self.n_classes):
            wrong = label[(label < 0) | (label >= self.n_classes)][0].item()
            raise ValueError(f"label {wrong} is not one of this model's {self.n_classes} (0 … {self.n_classes - 1})")
        return label


def kl_divergence(mean: Tensor, log_var: Tensor) -> Tensor:
    """KL(q(z | x) ‖ N(0, 1)) of diagonal Gaussians in nats: (N,), for mean and log variance (N, f)."""
    return 0.5 * (mean.square() + log_var.exp() - 1 - log_var).sum(dim=1)


def reconstruction_loss(logits: Tensor, x: Tensor) -> Tensor:
    """Loss_Rec: binary cross-entropy of x in [0, 1] under the decoder's logits, summed over pixels: (N,), nats."""
    return (F.softplus(logits) - x * logits).flatten(1).sum(dim=1)
