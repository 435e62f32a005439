"""What a panel of the page asks for."""

from underone.config import Config
from underone.errors import UserError
from underone.generation import DEFAULT_BATCH_SIZE, Draw, Setting
from underone.modules import own_parts
from underone.named import interval_named


class Request(Config):
    """A model by its name, a setting and a draw, as JSON has them; see `Setting` and `Draw`.

    `interval` is LOW:HIGH, or nothing.
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
        """The setting; a `UserError` where it is none.

        A page must not make this program import a module or read a folder: of samplers and grids
        that are called module:Name, only those of `own` may be asked for.
        """
        _check_offered("sampler", self.sampler, own, self.sampler)
        _check_offered("grid", self.grid, own, self.grid.partition(",")[0])
        if "by=" in self.form:
            raise UserError(f"{self.form}: the page guides by what lies beside the model alone")
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
        """The draw; a `UserError` where it is none, or of more than a batch.

        Within one batch the images are bit for bit those of `underone sample`.
        """
        if self.count > DEFAULT_BATCH_SIZE:
            raise UserError(
                f"the page draws at most {DEFAULT_BATCH_SIZE} samples at once, got {self.count}: "
                "draw more with underone sample"
            )
        return Draw(self.count, seed=self.seed, labels=self.labels)


def _check_offered(kind: str, text: str, own: frozenset[str], names: str) -> None:
    """A `UserError` where the `names` in a text are of modules, and not all offered."""
    asked = own_parts(text)
    if ":" in names and not (asked and own.issuperset(asked)):
        raise UserError(f"{text}: a {kind} of your own must be named at the start, by --{kind}")
