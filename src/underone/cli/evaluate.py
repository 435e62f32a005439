"""`underone evaluate`."""

import time
from dataclasses import dataclass
from pathlib import Path

import click
import torch
from click.core import ParameterSource

from underone.adapters import extractor_of, find_extractor
from underone.cli.console import counted, note, print_json
from underone.cli.figures import cautions, show
from underone.cli.options import SAMPLING_HELP, SAMPLING_OPTIONS, sampling_options, usual_for
from underone.cli.output import check_output
from underone.cli.preflight import announce, announce_revision, learn_variance, sped_up
from underone.data import Dataset, SampleSet, read_samples
from underone.errors import UserError
from underone.evaluation import (
    PANEL_NEIGHBOURS,
    LiveSamples,
    among_training_images,
    evaluate_model,
    evaluate_samples,
    training_images,
    write_panel,
)
from underone.generation import Draw, Precision, Setting, check, generate
from underone.metrics import (
    METRICS,
    Extractor,
    Judge,
    Measurement,
    Reference,
    Yardstick,
    metric_names,
)
from underone.metrics.copies import below_floor, like_copies
from underone.metrics.cost import comparing_seconds
from underone.study.costs import seconds_per_evaluation
from underone.zoo import (
    find_judge,
    find_reference,
    is_model,
    load_generative_model,
    load_judge,
    reference_names,
)

_TIMED_IMAGES = 100
_MODEL_BLOCKS = 3


@click.command(
    epilog=f"Shipped references: {', '.join(reference_names())}. Metrics: {', '.join(METRICS)}, "
    f"all. {SAMPLING_HELP}"
)
@click.argument("samples")
@click.option("--reference", required=True, help="A shipped reference's name, or an .npz file.")
@click.option("--extractor", help="What extracts the features. [default: the reference's]")
@click.option("--metrics", default="fid", help="Names, separated by commas, or all.")
@click.option("--judge", help="The reference of the classifier that judges consistency.")
@click.option(
    "--flips",
    is_flag=True,
    help="Memorisation: mirror images were trained on as well. [default: what is recorded]",
)
@click.option("--root", type=click.Path(path_type=Path), help="Where the training images are.")
@click.option(
    "--blocks", type=int, help="Disjoint seed blocks. [default: 3 of a model, 1 of samples]"
)
@click.option(
    "--panel",
    type=click.Path(path_type=Path, dir_okay=False),
    help="A PNG of the samples nearest to training images, with these beside them.",
)
@sampling_options(count=1000)
@click.option("--json", "as_json", is_flag=True, help="Print the measurement as JSON.")
def evaluate(
    samples: str,
    reference: str,
    extractor: str | None,
    metrics: str,
    judge: str | None,
    flips: bool,
    root: Path | None,
    blocks: int | None,
    panel: Path | None,
    setting: Setting,
    draw: Draw,
    precision: Precision,
    device: torch.device,
    as_json: bool,
) -> None:
    """Measure SAMPLES: an .npz of this program or of ADM, a folder of PNGs, or a model.

    A model's samples, --count a block, are measured as they are drawn; the sampling options are for
    a model only. Memory grows with their number by the features only, four bytes a dimension, and
    with several blocks not at all for fid and fid-held-out.
    """
    request = _Request(tuple(metrics.split(",")), judge, flips, root, blocks, panel)
    request.check()
    against = find_reference(reference)
    features = _extractor(extractor, against)
    source = (
        _model(samples, device, setting, draw, precision, blocks or _MODEL_BLOCKS)
        if is_model(samples)
        else _files(samples, features, blocks or 1)
    )
    by = _yardstick(request, features, against, source)
    measurement = (
        _of_model(source, by, request.wanted)
        if isinstance(source, LiveSamples)
        else _of_files(source, by, request.wanted, blocks or 1)
    )
    _print(measurement, against, request.wanted, as_json)
    if panel is not None:
        _draw_panel(source, by, root, panel)


@dataclass(frozen=True)
class _Request:
    """What to measure, by the options of the command; metrics as they were `named`."""

    named: tuple[str, ...]
    judge: str | None
    flips: bool
    root: Path | None
    blocks: int | None
    panel: Path | None

    @property
    def wanted(self) -> tuple[str, ...]:
        return metric_names(self.named)

    @property
    def about_copies(self) -> bool:
        return "memorisation" in self.wanted or self.panel is not None

    def check(self) -> None:
        """A `UserError` where options are impossible, or would change nothing."""
        wanted = self.wanted
        if self.panel is not None:
            check_output(self.panel, (".png",), "--panel")
        if self.blocks is not None and self.blocks < 1:
            raise UserError(f"--blocks must be at least 1, got {self.blocks}")
        if self.judge is not None and "consistency" not in wanted:
            raise UserError(
                "--judge is for consistency alone: add it to --metrics, or leave it out"
            )
        if self.root is not None and not self.about_copies:
            raise UserError("--root is for memorisation and --panel alone: leave it out")
        if self.flips and not self.about_copies:
            raise UserError("--flips is for memorisation and --panel alone: leave it out")


def _model(
    name: str,
    device: torch.device,
    setting: Setting,
    draw: Draw,
    precision: Precision,
    blocks: int,
) -> LiveSamples:
    """What the model will draw, by its usual setting where none was chosen."""
    model = load_generative_model(name, device)
    setting = usual_for(model, setting)
    check(model, setting, draw)
    announce_revision(model)
    faster = sped_up(model, setting, blocks * draw.count, precision)
    return LiveSamples(faster, setting, draw, precision, blocks)


def _files(name: str, features: Extractor, blocks: int) -> SampleSet:
    """Samples from files, enough of them and of a shape that the extractor takes."""
    if not name:
        raise UserError("SAMPLES is empty: name a file, a folder of PNGs or a model")
    _refuse_sampling_options()
    found = read_samples(Path(name))
    if len(found) < 2 * blocks:
        raise UserError(
            f"a measurement needs at least 2 samples a block, got {len(found)} samples in {blocks}"
        )
    features(found.images[:1])  # images of another shape are refused before any work is done
    return found


def _yardstick(
    request: _Request, features: Extractor, against: Reference, source: SampleSet | LiveSamples
) -> Yardstick:
    """What to measure by, with the judge and the training images that metrics need."""
    judging = "consistency" in request.wanted
    by = Yardstick(features, against, _judge(request.judge, against) if judging else None)
    if not request.about_copies:
        return by
    required = "memorisation" in request.named or request.panel is not None
    images = _training_images(against, request.root, required)
    return by if images is None else _among(by, images, request.flips or _trained_on_flips(source))


def _print(
    measurement: Measurement, against: Reference, metrics: tuple[str, ...], as_json: bool
) -> None:
    _note_left_out(measurement)
    if not measurement.figures:
        raise UserError("nothing could be measured of these samples")
    if as_json:
        print_json(measurement.model_dump(mode="json"))
    else:
        show(measurement)
    _note_no_floor(measurement, against, metrics)
    for caution in cautions(measurement):
        note(caution)
    _note_copies(measurement)


def _extractor(name: str | None, against: Reference) -> Extractor:
    """The extractor `name`, or else the one that the reference was made with."""
    found = extractor_of(against) if name is None else find_extractor(name)
    announce(found)
    return found


def _refuse_sampling_options() -> None:
    """Options that would change nothing are a mistake: samples are measured as they are."""
    context = click.get_current_context()
    for name in SAMPLING_OPTIONS:
        if context.get_parameter_source(name) is ParameterSource.COMMANDLINE:
            raise UserError(
                f"--{name} is for samples of a model, and these are drawn already: leave it out"
            )


def _note_left_out(measurement: Measurement) -> None:
    for name in measurement.left_out:
        note(f"{name} is left out: it needs {METRICS[name].needs}")


def _note_no_floor(measurement: Measurement, against: Reference, metrics: tuple[str, ...]) -> None:
    """Say so where real images are missing, unless no metric has a floor anyway."""
    name = against.name
    if measurement.floor is not None:
        return
    if against.held_out is None:
        note(f"reference {name} holds no other real images: no floor is known")
    elif any(METRICS[metric].floor for metric in metrics):
        note(
            f"reference {name} holds fewer than 2 other images of these classes: no floor is known"
        )


def _note_copies(measurement: Measurement) -> None:
    if like_copies(measurement):
        why = "memorisation is nearer to what training images score than to what held-out ones do"
    elif below_floor(measurement):
        why = "FID is further below that of real images than chance would take it"
    else:
        return
    note(
        f"{why}: the samples may be copies of training images, which --metrics memorisation and "
        "--panel FILE.png show"
    )


def _judge(name: str | None, against: Reference) -> Judge | None:
    return load_judge(name) if name is not None else find_judge(against)


def _training_images(against: Reference, root: Path | None, required: bool) -> Dataset | None:
    """The training images; without them None or, if required, an error."""
    try:
        return training_images(against, root)
    except UserError:
        if required:
            raise
        return None


def _among(by: Yardstick, images: Dataset, flipped: bool) -> Yardstick:
    mirrored = " and of their mirror images" if flipped else ""
    note(f"features of {len(images):,} training images{mirrored}, unless they are cached")
    with counted("features of the training images", (1 + flipped) * len(images)) as on_images:
        return among_training_images(by, images, flipped=flipped, on_images=on_images)


def _trained_on_flips(source: SampleSet | LiveSamples) -> bool:
    if isinstance(source, LiveSamples):
        return source.model.trained_on_flips
    return source.protocol.get("trained_on_flips") is True


def _of_files(
    samples: SampleSet, by: Yardstick, metrics: tuple[str, ...], blocks: int
) -> Measurement:
    started = time.perf_counter()
    by.extractor(samples.images[:_TIMED_IMAGES])
    each = (time.perf_counter() - started) / min(_TIMED_IMAGES, len(samples))
    seconds = each * len(samples)
    then = _comparing(by, len(samples) // blocks, metrics, blocks)
    note(f"features of {len(samples):,} images: about {seconds:.0f} s{then}")
    return evaluate_samples(samples, by, metrics, blocks)


def _of_model(live: LiveSamples, by: Yardstick, metrics: tuple[str, ...]) -> Measurement:
    model, setting = live.model, live.setting
    learn_variance(model, setting)
    total = live.draw.count * live.blocks
    seconds = total * setting.evaluations(model) * seconds_per_evaluation(model, live.precision)
    then = _comparing(by, live.draw.count, metrics, live.blocks)
    note(f"{live.blocks} x {live.draw.count:,} samples: about {seconds:.0f} s to draw them{then}")
    with counted(f"{setting.sampler}, {setting.steps} steps", total) as on_images:
        return evaluate_model(live, by, metrics, on_images)


def _comparing(by: Yardstick, count: int, metrics: tuple[str, ...], blocks: int) -> str:
    seconds = blocks * comparing_seconds(by, count, metrics)
    return f", then about {seconds:.0f} s to compare them" if seconds > 1 else ""


def _draw_panel(
    source: SampleSet | LiveSamples, by: Yardstick, root: Path | None, path: Path
) -> None:
    if isinstance(source, LiveSamples):
        with counted("the first block again, for the panel", source.draw.count) as on_images:
            drawn = generate(
                source.model,
                source.setting,
                source.draw,
                precision=source.precision,
                on_images=on_images,
            ).images
    else:
        drawn = source.images
    write_panel(path, drawn, by, training_images(by.reference, root))
    note(f"{path}: the samples nearest to training images, each beside its {PANEL_NEIGHBOURS}")
