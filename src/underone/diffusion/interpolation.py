"""Ways between two noises."""

import torch
from torch import Tensor

# Below it sin(angle) has lost its digits, and the chord is as good as the arc.
_PARALLEL = 1e-4


def slerp(one: Tensor, other: Tensor, fractions: Tensor) -> Tensor:
    """Spherical interpolation (B, F, ...) of the rows of `one` and `other`, both (B, ...).

    (sin((1 - f) a) one + sin(f a) other) / sin a, with a the angle between the two rows, at the
    `fractions` f (F,): 0 is `one`, 1 is `other` (Shoemake 1985; Song et al. 2021, section 5.3).
    Noises are nearly orthogonal, so the variance of an element stays 1 on the way, where on the
    straight line it would fall to 1/2. Rows that are parallel, opposite or zero span no arc and
    are interpolated on the line.
    """
    a, b = (rows.flatten(1).double() for rows in (one, other))
    norms = torch.linalg.vector_norm(a, dim=1) * torch.linalg.vector_norm(b, dim=1)
    cosine = ((a * b).sum(1) / norms).clamp(-1, 1)
    angle = torch.acos(cosine)[:, None]
    arc = torch.sin(angle) > _PARALLEL  # not where the angle is 0 / 0
    f = fractions.to(a)
    sine = torch.where(arc, torch.sin(angle), 1.0)
    from_one = torch.where(arc, torch.sin((1 - f) * angle) / sine, 1 - f)
    from_other = torch.where(arc, torch.sin(f * angle) / sine, f)
    mixed = from_one[:, :, None] * a[:, None] + from_other[:, :, None] * b[:, None]
    return mixed.to(one.dtype).reshape(len(one), len(f), *one.shape[1:])
