"""All checks of a sampler, which compare what it claims with what it does.

All denoisers are exact (see `oracles`), so that any error is the sampler's.
"""

from collections.abc import Iterator

import torch

from underone.conformance.behaviour import batches, evaluations, finiteness, memory
from underone.conformance.distributions import (
    clean_end,
    mixture,
    mixture_under_other_schedules,
    one_image,
)
from underone.conformance.finding import Finding
from underone.conformance.orders import noise_order, order
from underone.diffusion import Sampler
from underone.errors import kind_and_line


def conformance(sampler: Sampler) -> Iterator[Finding]:
    """Every check that applies to `sampler`, in turn. Takes about a minute at most."""
    checks = [
        order,
        noise_order,
        one_image,
        clean_end,
        mixture,
        mixture_under_other_schedules,
        finiteness,
        batches,
        memory,
        evaluations,
    ]
    with torch.no_grad():
        for check in checks:
            try:
                finding = check(sampler)
            except Exception as error:  # a fault of the sampler under test, whatever it is
                name = check.__name__.replace("_", " ")
                finding = Finding(name, "", kind_and_line(error), False)
            if finding is not None:
                yield finding
