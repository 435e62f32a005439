"""The run's log: log.jsonl, one line every few updates, and its picture."""

import json
from pathlib import Path

import altair as alt

from underone.files import write_atomically, write_text

# Half of the loss curve's smoothing weight lies in about this share of the run.
_SMOOTHING = 0.01


def truncate_log(path: Path, step: int) -> None:
    """Drop lines past `step`: a run that was killed logged updates that it then lost."""
    if path.exists():
        write_text(path, "".join(_line(r) for r in read_log(path) if r["step"] <= step))


def append_log(path: Path, record: dict[str, float]) -> None:
    """Add one line."""
    with path.open("a", encoding="utf-8") as file:
        file.write(_line(record))


def read_log(path: Path) -> list[dict[str, float]]:
    """Every whole line; a last line cut off by a kill is left out."""
    records = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            records.append(json.loads(line))
        except json.JSONDecodeError:
            break
    return records


def draw_loss(log: Path, picture: Path, title: str) -> None:
    """The loss against the step, raw and smoothed, as PNG."""
    records = read_log(log)
    weight = 1 / max(2.0, _SMOOTHING * len(records))
    smooth = records[0]["loss"]
    rows = []
    for record in records:
        smooth += weight * (record["loss"] - smooth)
        rows.append({"step": record["step"], "loss": record["loss"], "smoothed": smooth})
    base = alt.Chart(alt.Data(values=rows)).encode(x=alt.X("step:Q", title="step"))
    # Bits and distances may fall to 0 and below, where there is no logarithm.
    positive = all(row[key] > 0 for row in rows for key in ("loss", "smoothed"))
    scale = alt.Scale(type="log" if positive else "symlog", nice=False)
    raw = base.mark_line(color="#b8c4d6", strokeWidth=1).encode(
        y=alt.Y("loss:Q", scale=scale, title="loss")
    )
    line = base.mark_line(color="#1f4e9c", strokeWidth=2).encode(y=alt.Y("smoothed:Q", scale=scale))
    chart = alt.layer(raw, line).properties(width=560, height=280, title=title)
    write_atomically(picture, lambda path: chart.save(str(path), format="png", scale_factor=2))


def _line(record: dict[str, float]) -> str:
    return json.dumps(record) + "\n"
