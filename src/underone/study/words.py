"""Settings in words."""

from collections.abc import Iterator, Sequence

from underone.generation import OWN_GRIDS, Setting

_USUAL = Setting()


def setting_title(setting: Setting) -> str:
    """A setting in words, leaving out what is as by default."""
    return ", ".join((setting.sampler, steps_title(setting.steps), *_rest(setting)))


def sampler_title(setting: Setting) -> str:
    """The same without the number of steps."""
    return ", ".join((setting.sampler, *_rest(setting)))


def steps_title(steps: int) -> str:
    """A number of steps in words."""
    return "1 step" if steps == 1 else f"{steps} steps"


def cost_title(setting: Setting) -> str:
    """The evaluations per image without guidance, in words."""
    count = setting.declared_evaluations
    if count is None:
        return "evaluations as it needs them"
    return "1 evaluation" if count == 1 else f"{count} evaluations"


def weight_title(setting: Setting) -> str:
    """The guidance weight, with its form and interval where they are not the default."""
    weight = f"{setting.guidance:g}".replace("-", "−")
    return ", ".join((f"w = {weight}", *form_titles(setting)))


def form_titles(setting: Setting) -> Iterator[str]:
    """The form and the interval of guidance where they are not the default."""
    if setting.guidance == 0:
        return
    if setting.form != _USUAL.form:
        yield f"{setting.form} guidance"
    if setting.interval is not None:
        low, high = setting.interval
        yield f"within ({low:g}, {high:g}]"


def listed(parts: Sequence[str]) -> str:
    """The parts as in "one, two and three"."""
    return " and ".join((", ".join(parts[:-1]), parts[-1])) if len(parts) > 1 else "".join(parts)


def _rest(setting: Setting) -> Iterator[str]:
    if setting.grid not in (_USUAL.grid, *OWN_GRIDS):
        yield f"{setting.grid} grid"
    if setting.guidance != 0:
        yield weight_title(setting)
    if setting.threshold != _USUAL.threshold:
        yield f"{setting.threshold} threshold"
