"""Cohort flow: ordered exclusion criteria, counted so that the numbers add up (CONSORT)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import pandas as pd

from corelab.measurement.selection import with_status_flags
from corelab.pharmacodynamics.analysis_figures import new_figure
from corelab.provenance.exhibits import write_exhibit
from corelab.provenance.figure_style import save_figure
from corelab.provenance.products import write_table
from corelab.settings.trial import CohortFlow, Exclusion
from corelab.study.columns import FLOW
from corelab.study.expression import select

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.text import Text


#: Stage of an exclusion that names none.
STAGE = "eligibility"


class FlowError(ValueError):
    """A declared flow whose counts do not add up."""


class Step(NamedTuple):
    """An exclusion: stage, reason and number of those who leave."""

    stage: str
    reason: str
    n_excluded: int


def _cascade(n_in: int, steps: Sequence[Step], *, expected: int | None = None) -> pd.DataFrame:
    """Flow from declared counts, as a published flow chart prints them: columns of flow.tsv.

    One row per reason. :class:`FlowError` if more leave than remain, or the end is not
    ``expected``.
    """
    rows = []
    remaining = int(n_in)
    for stage, reason, leaving in steps:
        if leaving < 0 or leaving > remaining:
            raise FlowError(f"{stage}: {leaving} excluded for '{reason}', of {remaining} remaining")
        rows.append((stage, remaining, remaining - leaving, reason, leaving))
        remaining -= leaving
    if expected is not None and remaining != expected:
        raise FlowError(f"the flow ends with {remaining}, not with the declared {expected}")
    return pd.DataFrame(rows, columns=list(FLOW))


def _apply_criteria(
    table: pd.DataFrame, criteria: Sequence[Exclusion]
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Remaining participants and their flow; who meets several criteria leaves by the first.

    A value that is missing meets no criterion: exclude missing values by an expression of their own
    (``not has_ncct``).
    """
    remaining = table
    steps = []
    for criterion in criteria:
        leaving = select(criterion.exclude, remaining)
        steps.append(Step(criterion.stage or STAGE, criterion.reason, int(leaving.sum())))
        remaining = remaining[~leaving]
    return remaining.reset_index(drop=True), _cascade(len(table), steps, expected=len(remaining))


def _merge(flows: Mapping[str, pd.DataFrame], *, expected: int | None = None) -> int:
    """Participants at the end of several flows together (data sets that are pooled)."""
    total = sum(int(flow["n_out"].iloc[-1]) for flow in flows.values())
    if expected is not None and total != expected:
        ends = ", ".join(f"{name} {int(flow['n_out'].iloc[-1])}" for name, flow in flows.items())
        raise FlowError(f"the flows ({ends}) add up to {total}, not to {expected}")
    return total


def _overlap_counts(first: int, second: int, union: int) -> tuple[int, int, int]:
    """Only-first, both, only-second of two subsets with a known union."""
    both = first + second - union
    if both < 0 or both > min(first, second):
        raise FlowError(f"{first} and {second} cannot make a union of {union}")
    return first - both, both, second - both


# ------------------------------------------------------------------------------------- the config

FLOW_COLUMNS = {"flow": "Name of the flow in cohort_flows", **FLOW}


def _run_flows(
    flows: Sequence[CohortFlow],
    participants: pd.DataFrame,
    measurements: pd.DataFrame,
) -> dict[str, pd.DataFrame]:
    """Every flow of the config block ``cohort_flows``, by name: columns of flow.tsv.

    ``participants`` and ``measurements`` are the sheet and measurements.tsv. The parts of the end
    follow as rows of stage ``parts`` with the part in ``reason`` and nobody excluded.
    """
    made: dict[str, pd.DataFrame] = {}
    for flow in flows:
        try:
            made[flow.name] = _one_flow(flow, participants, measurements, made)
        except FlowError as error:
            raise FlowError(f"cohort flow {flow.name}: {error}") from None
    return made


def _one_flow(
    flow: CohortFlow,
    participants: pd.DataFrame,
    measurements: pd.DataFrame,
    made: Mapping[str, pd.DataFrame],
) -> pd.DataFrame:
    expected = flow.expected
    if flow.criteria is not None:
        criteria = flow.criteria
        table = with_status_flags(participants, measurements, [one.exclude for one in criteria])
        remaining, frame = _apply_criteria(table, criteria)
        if expected is not None and len(remaining) != expected:
            raise FlowError(f"it ends with {len(remaining)}, not with the declared {expected}")
        by = flow.by
        if by and by in remaining:
            counts = remaining[by].fillna("n/a").map(str).value_counts().sort_index()
            frame = _with_parts(frame, {str(level): int(n) for level, n in counts.items()})
        return frame
    if flow.declared is not None:
        declared = flow.declared.steps
        steps = [Step(one.stage or STAGE, one.reason, one.n_excluded) for one in declared]
        frame = _cascade(flow.declared.n_in, steps, expected=expected)
        split = flow.declared.split
        if split and sum(split.values()) != _end(frame):
            raise FlowError(f"the parts {split} do not add up to {_end(frame)}")
        return _with_parts(frame, split or {})
    if flow.pooled is not None:
        parts = {name: _end(made[name]) for name in flow.pooled}
        total = _merge({name: made[name] for name in flow.pooled}, expected=expected)
        return _with_parts(_cascade(total, []), parts, total)
    subsets = flow.subsets
    assert subsets is not None
    union = _end(made[subsets.flow])
    ((first, a),) = subsets.first.items()
    ((second, b),) = subsets.second.items()
    only_a, both, only_b = _overlap_counts(a, b, union)
    names = (f"{first} only", f"{first} and {second}", f"{second} only")
    parts = dict(zip(names, (only_a, both, only_b), strict=True))
    return _with_parts(_cascade(union, []), parts, union)


def _end(frame: pd.DataFrame) -> int:
    return int(frame["n_out"].iloc[-1])


def _with_parts(
    frame: pd.DataFrame, parts: Mapping[str, int], total: int | None = None
) -> pd.DataFrame:
    """The flow with the parts of its end as rows of their own."""
    whole = _end(frame) if total is None else total
    rows = [("parts", whole, int(count), str(name), 0) for name, count in parts.items()]
    more = pd.DataFrame(rows, columns=list(FLOW))
    return more if frame.empty else pd.concat([frame, more], ignore_index=True)


def _consort(axes: Axes, frame: pd.DataFrame, *, start: str, end: str) -> Axes:
    """CONSORT figure of one flow: boxes downwards, exclusions to the right, parts at the foot.

    ``start`` and ``end`` are the words of the first and the last box.
    """
    parts, steps = frame[frame["stage"] == "parts"], frame[frame["stage"] != "parts"]
    stages = list(dict.fromkeys(steps["stage"]))
    axes.set_axis_off()
    axes.set(xlim=(0, 10), ylim=(0, 1))
    frame_of: dict[str, Any] = {"boxstyle": "round,pad=0.45", "fc": "white", "ec": "0.25", "lw": 1}

    def box(x: float, y: float, words: str, *, bold: bool = False, **how: Any) -> Text:
        drawn = frame_of | {"lw": 1.8 if bold else 1}
        return axes.text(x, y, words, **{"ha": "center", "va": "center", "bbox": drawn} | how)

    def arrow(
        start: tuple[float, float], end: tuple[float, float], out_of: Text | None, into: Text
    ) -> None:
        # From edge to edge of the boxes, whose sizes follow the font and not the axes.
        how = {"arrowstyle": "-|>", "color": "0.25", "lw": 1, "shrinkA": 0, "shrinkB": 0}
        edges = {"patchA": out_of and out_of.get_bbox_patch(), "patchB": into.get_bbox_patch()}
        axes.annotate("", end, start, arrowprops=how | edges)

    lines = [int((steps["stage"] == stage).sum()) + 1 for stage in stages]
    unit = 1 / (sum(lines) + 1.9 * (len(stages) + 1) + (2.2 if len(parts) else 0))
    entering = int(steps["n_in"].iloc[0]) if len(steps) else int(parts["n_in"].iloc[0])
    # Without exclusions at the side the figure is centred.
    place, x = 1 - unit, 2.6 if len(steps) else 5.0
    above = box(x, place, f"{start}\nn = {entering}")
    for stage, height in zip(stages, lines, strict=True):
        inside = steps[steps["stage"] == stage]
        middle = place - unit * (1.0 + height / 2)
        below = place - unit * (1.9 + height)
        gone = f"Excluded ({stage}): n = {int(inside['n_excluded'].sum())}\n" + "\n".join(
            f"  {int(n)}  {reason}"
            for n, reason in zip(inside["n_excluded"], inside["reason"], strict=True)
        )
        aside = box(5.2, middle, gone, ha="left", fontsize="small")
        last = stage == stages[-1]
        left = int(inside["n_out"].iloc[-1])
        under = box(x, below, f"{end if last else 'Remaining'}\nn = {left}", bold=last)
        arrow((x, place), (x, below), above, under)
        arrow((x, middle), (5.3, middle), None, aside)
        place, above = below, under
    spread = 5.2 if len(steps) else 8.0
    for k, row in enumerate(parts.itertuples()):
        at = x + spread * ((k + 0.5) / len(parts) - 0.5)
        words = f"{row.reason}\nn = {int(str(row.n_out))}"
        part = box(at, place - 2.1 * unit, words, fontsize="small")
        arrow((x, place), (at, place - 2.1 * unit), above, part)
    return axes


def write_cohort_flows(
    flows: Sequence[CohortFlow],
    people: pd.DataFrame,
    measurements: pd.DataFrame,
    table: str | Path,
    exhibits: Sequence[str | Path],
) -> None:
    """Write the flows of participants: one table, and a CONSORT figure with exhibit for each.

    Parameters
    ----------
    flows
        ``cohort_flows`` of the config.
    people, measurements
        Participants, and ``endpoints/measurements.tsv``.
    table
        ``statistics/cohort_flow.tsv``.
    exhibits
        JSON of each flow, in the order of the config; the figure lies beside it.
    """
    made = _run_flows(flows, people, measurements)
    frames = [frame.assign(flow=name) for name, frame in made.items()]
    every = pd.concat(frames) if frames else pd.DataFrame(columns=list(FLOW_COLUMNS))
    write_table(every[list(FLOW_COLUMNS)], table, FLOW_COLUMNS, sort=False)
    for flow, path in zip(flows, exhibits, strict=True):
        frame = made[flow.name]
        boxes = frame["stage"].nunique()
        figure = new_figure(7.6, 1.2 + 0.9 * boxes + 0.3 * len(frame))
        _consort(
            figure.add_axes((0.02, 0.02, 0.96, 0.96)),
            frame,
            start=flow.start or ("Screened" if flow.criteria or flow.declared else "All"),
            end=flow.end or "Analysed",
        )
        drawn = Path(path).with_suffix(".svg")
        save_figure(figure, drawn, tight=True)
        title = flow.title or f"Flow of participants: {flow.name}"
        citation = flow.citation
        end = int(frame["n_out"].iloc[-1]) if (frame["stage"] != "parts").any() else None
        text = f"{int(frame['n_in'].iloc[0])} enter" + (f", {end} remain" if end else "")
        write_exhibit(
            path,
            section="participants",
            title=title,
            caption=f"Declared counts: {citation}."
            if citation
            else "Each participant leaves by "
            "the first criterion that he meets." * (flow.criteria is not None),
            figure=drawn.name,
            alt=f"{title}: {text}",
            source="statistics/cohort_flow.tsv",
        )
