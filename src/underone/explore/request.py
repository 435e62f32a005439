"""The requests of a panel of the page."""

from underone.config import Config
from underone.errors import UserError
from underone.generation import DEFAULT_BATCH_SIZE, Draw, Setting
from underone.modules import own_parts
from underone.named import interval_named


class Request(Config):
    """A model by its name, a setting and a draw, as read from JSON; see `Setting` and `Draw`.

    `interval` is LOW:HIGH, or empty.
    """

    model: str
    sampler: str
    steps: int
    grid: str
    guidance: float
    form: str
    interval: str
    threshold: str
    seed: int
    labels: str
    count: int

    def setting(self, own: frozenset[str] = frozenset()) -> Setting:
        """The setting; a `UserError` where it is not valid.

        A page must not make this program import a module or read a folder: a sampler or grid given
        as module:Name must be one of `own`.
        """
        _check_offered("sampler", self.sampler, own, self.sampler)
        _check_offered("grid", self.grid, own, self.grid.partition(",")[0])
        if "by=" in self.form:
            raise UserError(
                f"{self.form}: the page guides only by checkpoints beside the model: leave out by="
            )
        return Setting(
            sampler=self.sampler,
            steps=self.steps,
            grid=self.grid,
            guidance=self.guidance,
            form=self.form,
            interval=interval_named(self.interval) if self.interval.strip() else None,
            threshold=self.threshold,
        )

    def draw(self) -> Draw:
        """The draw; a `UserError` where it is not valid, or of more than a batch.

        Within one batch the images are bit for bit those of `underone sample`.
        """
        if self.count > DEFAULT_BATCH_SIZE:
            raise UserError(
                f"the page draws at most {DEFAULT_BATCH_SIZE} samples at once, got {self.count}: "
                "draw more with underone sample"
            )
        return Draw(self.count, seed=self.seed, labels=self.labels)


def _check_offered(kind: str, text: str, own: frozenset[str], names: str) -> None:
    """A `UserError` where `names`, in a text, has a module:Name that is not one of `own`."""
    asked = own_parts(text)
    if ":" in names and not (asked and own.issuperset(asked)):
        raise UserError(f"{text}: for a {kind} of your own, start underone explore with --{kind}")
