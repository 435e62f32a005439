"""What commands announce, estimate and compile before they work with a model."""

from underone import analytic
from underone.checkpoint import Checkpoint, DiffusionModel, GenerativeModel
from underone.cli.console import counted, note
from underone.generation import ANALYTIC, Precision, Setting, compiled, repays_compiling
from underone.metrics import Extractor, NetworkExtractor


def announce_revision(checkpoint: Checkpoint) -> None:
    """Say so if a checkpoint is of the legacy architecture."""
    if checkpoint.config.network.revision == 1:
        note(
            f"{checkpoint.name} is a checkpoint of the legacy architecture revision 1 "
            "(unaligned downsampling); it works as it always did, and new models are revision 2"
        )


def announce(extractor: Extractor) -> None:
    """`announce_revision` for an extractor."""
    if isinstance(extractor, NetworkExtractor):
        announce_revision(extractor.model)


def learn_variance(model: GenerativeModel, setting: Setting) -> None:
    """Estimate the data's variance where the analytic sampler needs it, once, with progress."""
    if setting.sampler != ANALYTIC or not isinstance(model, DiffusionModel):
        return
    if not analytic.is_known(model):
        with counted("estimating the data's variance, once", analytic.EVALUATIONS) as on_images:
            analytic.data_variance(model, on_images)


def sped_up(
    model: GenerativeModel, setting: Setting, count: int, precision: Precision
) -> GenerativeModel:
    """The model, its network compiled if drawing `count` images repays that."""
    if not isinstance(model, DiffusionModel) or precision != "auto":
        return model
    evaluations = count * setting.evaluations(model)
    if not repays_compiling(model, evaluations, note):
        return model
    note(f"compiling the network of {model.name}, which pays off for this many images")
    return compiled(model)
