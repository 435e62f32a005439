"""Beginning on the way: an image noised in part, and sampled down from there (SDEdit)."""

from collections.abc import Sequence

from underone.diffusion.node import Node
from underone.errors import UserError


def path_from(path: Sequence[Node], strength: float) -> Sequence[Node]:
    """The part of `path` from its node nearest to t = `strength` on, strength in (0, 1].

    Meng et al. 2022, arXiv 2108.01073, whose t_0 it is: 1 leaves nothing of an image but its noise,
    a half keeps what is large, a tenth all but the texture. Where two nodes are as near it is the
    noisier; the clean end alone is no path, so one step is always left.
    """
    if not 0 < strength <= 1:
        raise UserError(f"the strength of a variation must lie in (0, 1], got {strength:g}")
    distances = [abs(node.t.item() - strength) for node in path[:-1]]
    return path[distances.index(min(distances)) :]
