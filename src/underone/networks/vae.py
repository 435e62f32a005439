"""A class-conditional variational autoencoder: an encoder, a decoder, and the bound they share.

Kingma and Welling 2014, arXiv 1312.6114, conditioned as by Sohn, Lee and Yan 2015.
"""

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from underone.errors import UserError
from underone.networks.contraction import Contraction, ContractionConfig
from underone.networks.expansion import expansion, to_cells
from underone.networks.layers import normalisation, zero


@dataclass(frozen=True, kw_only=True)
class VAEConfig(ContractionConfig):
    """The shape of a VAE: that of its encoder, a contraction, which the decoder mirrors.

    `latent`: the size of z. `deviation`: the sigma of p(x | z, c) before training, which learns it.
    """

    classes: int
    latent: int = 64
    deviation: float = 0.5
    name: Literal["vae"] = "vae"

    def __post_init__(self) -> None:
        super().__post_init__()
        if min(self.classes, self.latent) < 1:
            raise UserError(
                f"a VAE's classes and latent must be >= 1, got {self.classes} and {self.latent}"
            )
        if not 0 < self.deviation < float("inf"):
            raise UserError(f"deviation must be finite and above 0, got {self.deviation}")


@dataclass(frozen=True)
class EvidenceBound:
    """The two parts of -ELBO >= -log p(x | c), each (B,) in nats."""

    reconstruction: Tensor
    """-log p(x | z, c) at one z drawn from q(z | x, c): the distortion."""
    kl: Tensor
    """KL(q(z | x, c) || p(z)): the rate."""


class VAE(Contraction):
    """x (B, C, H, W), label (B,) int64, noise (B, latent) -> the parts of -ELBO.

        log p(x | c) >= E log p(x | z, c) - KL(q(z | x, c) || p(z)),   z ~ q(z | x, c)

    (Kingma and Welling 2014, eq. 3; with a condition Sohn et al. 2015), where

        p(z) = N(0, I),   q(z | x, c) = N(m(x, c), diag s(x, c)^2),   z = m + s noise,
        p(x | z, c) = N(mu(z, c), sigma^2 I).

    One sigma is shared by all pixels and learned with the weights (Rybkin, Daniilidis and Levine
    2021, arXiv 2006.13202): its optimum is the root of the mean squared error, so that the
    likelihood itself balances the two terms, with no weight to choose.

    The class enters encoder and decoder by adaptive normalisation, and the decoder also beside z,
    as a one-hot vector would. Without the latter the decoder learns to read the class from z before
    it learns to use the label, and an image decoded from the prior, where z holds no class, has
    none. At first mu = 0 and q = p.
    """

    config: VAEConfig

    def __init__(self, config: VAEConfig) -> None:
        super().__init__(config, time=False, labels=config.classes)
        if self.label is not None:
            nn.init.normal_(self.label.weight)  # nothing else modulates here
        widths, side = config.widths, config.resolutions[-1]
        self.latent_norm = normalisation(widths[-1])
        self.latent_out = nn.Linear(widths[-1] * side**2, 2 * config.latent)
        zero(self.latent_out)

        self.latent_in = nn.Linear(config.latent, widths[-1] * side**2)
        self.label_in = nn.Embedding(config.classes, widths[-1] * side**2)
        nothing = [0] * len(widths) * config.blocks
        self.decoder, self.upsample = expansion(config, nothing)
        self.out_norm = normalisation(widths[0])
        self.out = to_cells(config)
        self.log_deviation = nn.Parameter(torch.tensor(math.log(config.deviation)))

    def encode(self, x: Tensor, label: Tensor) -> tuple[Tensor, Tensor]:
        """The mean m and the logarithm of the variance s^2 of q(z | x, c), each (B, latent)."""
        hidden, _ = self.contract(x, self.embed(x, None, label))
        hidden = functional.silu(self.latent_norm(hidden)).flatten(1)
        mean, log_variance = self.latent_out(hidden).float().chunk(2, dim=1)
        return mean, log_variance

    def decode(self, z: Tensor, label: Tensor) -> Tensor:
        """The mean mu (B, C, H, W) of p(x | z, c); z is (B, latent)."""
        embedding, sizes = self.embed(z, None, label), self.config.resolutions
        hidden = self.latent_in(z) + self.label_in(label)
        hidden = hidden.unflatten(1, (-1, sizes[-1], sizes[-1]))
        for index, stages in enumerate(self.decoder):
            for stage in stages:  # type: ignore[attr-defined]
                hidden = stage(hidden, embedding)
            if index < len(self.upsample):
                size = sizes[-2 - index]
                hidden = self.upsample[index](hidden, (size, size))
        hidden = self.out(functional.silu(self.out_norm(hidden)))
        return functional.pixel_shuffle(hidden, self.config.patch).float()

    def forward(self, x: Tensor, label: Tensor, noise: Tensor) -> EvidenceBound:
        mean, log_variance = self.encode(x, label)
        decoded = self.decode(mean + (log_variance / 2).exp() * noise, label)
        return EvidenceBound(
            reconstruction=gaussian_surprisal(x, decoded, self.log_deviation),
            kl=kl_from_prior(mean, log_variance),
        )


def gaussian_surprisal(x: Tensor, mean: Tensor, log_deviation: Tensor) -> Tensor:
    """-log N(x; mean, sigma^2 I) in nats, (B,), of x (B, ...); log sigma is of shape ()."""
    squared = ((x - mean) * (-log_deviation).exp()).square()
    return (squared / 2 + log_deviation + math.log(2 * math.pi) / 2).flatten(1).sum(dim=1)


def kl_from_prior(mean: Tensor, log_variance: Tensor) -> Tensor:
    """KL(N(m, diag s^2) || N(0, I)) = sum(m^2 + s^2 - 1 - log s^2) / 2, (B,), of (B, latent).

    Kingma and Welling 2014, appendix B.
    """
    return (mean.square() + log_variance.exp() - 1 - log_variance).sum(dim=1) / 2
