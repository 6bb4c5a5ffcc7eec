"""The truth of the simulated trial: masks and maps on each scan's grid, and one table.

``truth.tsv`` holds the planned volumes (continuous, kind ``n/a``), the volumes of the true masks
on the grid of every scan that shows them, and the sizes of the built-in effects. A mask's voxel
is inside when at least half of it is parenchyma within the lesion; voxel counts therefore differ
from the continuous volume by partial volume at the border, a few percent on 5 mm slices.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from corelab.phantom.design import TrialSpec, enrol, seen_at
from corelab.phantom.head import linear_placed
from corelab.phantom.scans import perfusion_truth
from corelab.phantom.scene import Scene, View, build_scene, infarct_region, view_scan
from corelab.phantom.trial import true_aspects
from corelab.provenance.products import write_table
from corelab.terms.labels import VOLUME_ENDPOINTS

if TYPE_CHECKING:
    import pandas as pd

TRUTH = {
    "participant_id": "Subject identifier, 'all' for the trial",
    "visit": "Visit name, 'all' for the trial",
    "endpoint": "Endpoint, or name of a built-in effect",
    "region": "'all': the whole lesion",
    "value": "The true value",
    "unit": "Unit of the value",
    "kind": "Kind of scan on whose grid a mask was counted; n/a for the continuous value",
    "note": "Definition",
}
PERFUSION_KINDS = ("ctp", "dsc")
#: Share of a voxel from which on it is inside.
_HALF = 0.5


def true_masks(scene: Scene, visit: str, kind: str) -> tuple[dict[str, NDArray[np.bool_]], View]:
    """True masks that a kind of scan shows, on its own grid, and the grid.

    ``infarct`` for diffusion, T1w and FLAIR; ``haematoma`` for ncct; ``core``, ``hypoperfused`` and
    ``penumbra`` for ctp and dsc; ``brain`` for all.

    Examples
    --------
    >>> scene = build_scene(TrialSpec.testing(), "001")
    >>> sorted(true_masks(scene, "baseline", "dwi")[0])
    ['brain', 'infarct']
    """
    view = view_scan(scene, visit, kind)
    brain = view.average(view.sample(scene.head.brain)) >= _HALF
    return {"brain": brain, **_lesion_masks(scene, view, visit, kind)}, view


def _lesion_masks(scene: Scene, view: View, visit: str, kind: str) -> dict[str, NDArray[np.bool_]]:
    """The masks of :func:`true_masks` but for the brain, which the table does not count."""
    masks = {}
    if kind in PERFUSION_KINDS:
        truth = perfusion_truth(scene, view)
        masks["core"] = truth.core
        masks["hypoperfused"] = truth.hypoperfused
        masks["penumbra"] = truth.hypoperfused & ~truth.core
    elif kind == "ncct":
        masks["haematoma"] = np.zeros(view.shape, bool)
        if visit != "baseline" and scene.participant.lesion.haematoma_ml > 0:
            masks["haematoma"] = view.average(scene.lesion.blood(view.template_mm)) >= _HALF
    else:
        masks["infarct"] = view.average(_infarct_fraction(scene, view, visit)) >= _HALF
    return masks


def _infarct_fraction(scene: Scene, view: View, visit: str) -> NDArray[np.float32]:
    """Fraction of infarcted parenchyma at the sample points of a view."""
    inside = scene.lesion.fractions(view.template_mm, infarct_region(visit))[0]
    near = np.flatnonzero(inside)
    points = view.template_mm.reshape(3, -1)[:, near]
    inside.reshape(-1)[near] *= linear_placed(scene.head.tissue, points)
    return np.asarray(inside)


def trial_truth(spec: TrialSpec) -> pd.DataFrame:
    """Every true value of the trial in the columns of :data:`TRUTH`."""
    import pandas as pd

    rows = [*_planned_rows(spec), *_effect_rows(spec)]
    for participant_id in spec.imaged:
        rows += _scan_rows(spec, participant_id)
    table = pd.DataFrame(rows, columns=list(TRUTH))
    return table.assign(value=[round(float(value), 4) for value in table["value"]])


def write_truth(spec: TrialSpec, path: str | os.PathLike[str]) -> Path:
    """Write :func:`trial_truth` as TSV with its data dictionary."""
    return write_table(trial_truth(spec), path, TRUTH)


def truth_row(
    participant_id: str, visit: str, endpoint: str, value: float, unit: str, note: str, **more: str
) -> dict[str, object]:
    """A row of the truth table; ``more`` are other columns than the whole lesion's."""
    head = {"participant_id": participant_id, "visit": visit, "endpoint": endpoint}
    return {
        **head,
        "region": "all",
        "value": value,
        "unit": unit,
        "kind": None,
        "note": note,
        **more,
    }


def _planned_rows(spec: TrialSpec) -> list[dict[str, object]]:
    """Continuous volumes of brain tissue in each participant's own space."""
    rows = []
    tissue = "grey and white matter within the lesion, own space"
    hypo = "core and penumbra: parenchyma with Tmax (delay + MTT / 2) above 6 s"
    for person in enrol(spec):
        lesion = person.lesion
        unseen = "" if seen_at(person, "day5") else "; the visit did not take place"
        core, whole, growth = lesion.core_ml, lesion.hypoperfused_ml, person.growth_ml
        planned = [
            ("baseline", "infarct_volume", core, "mL", tissue),
            ("baseline", "core_volume", core, "mL", tissue),
            ("baseline", "hypoperfused_volume", whole, "mL", hypo),
            ("baseline", "penumbra_volume", whole - core, "mL", "hypoperfused less core"),
            ("baseline", "mismatch_ratio", whole / core, "ratio", "hypoperfused / core"),
            ("day5", "infarct_volume", lesion.infarct_ml, "mL", tissue + unseen),
            ("day5", "infarct_growth", growth, "mL", "day 5 less baseline" + unseen),
            ("day5", "haematoma_volume", lesion.haematoma_ml, "mL", "blood"),
            ("baseline", "aspects", true_aspects(person), "score", "latent, not rounded"),
        ]
        rows += [
            truth_row(person.participant_id, *row)
            for row in planned
            if row[1] != "haematoma_volume" or lesion.haematoma_ml > 0
        ]
    return rows


def _effect_rows(spec: TrialSpec) -> list[dict[str, object]]:
    """Sizes of the effects and errors that are built in."""
    first, second = spec.readers
    readers = first.bias_ml - second.bias_ml
    slope = "effect of dose on infarct growth from baseline to day 5"
    effects = [
        ("dose_slope:infarct_growth", spec.growth_slope_ml_per_mg_kg, "mL per mg/kg", slope),
        ("placebo_mean:infarct_growth", spec.growth_placebo_ml, "mL", "without drug"),
        ("between_sd:infarct_growth", spec.growth_sd_ml, "mL", "within one arm"),
        (
            f"bias:{first.name}|{second.name}",
            readers,
            "mL",
            "mean difference of the readers' volumes",
        ),
    ]
    for rater in (*spec.readers, spec.software, spec.earlier):
        note = "reading less truth, lesion volumes"
        effects.append((f"bias:{rater.name}", rater.bias_ml, "mL", note))
        note = "SD of one reading of an infarct or core volume"
        effects.append((f"within_sd:{rater.name}", rater.sd_ml, "mL", note))
    return [truth_row("all", "all", *effect) for effect in effects]


def _scan_rows(spec: TrialSpec, participant_id: str) -> list[dict[str, object]]:
    """Volumes of the true masks on the grids of the scans."""
    scene = build_scene(spec, participant_id)
    rows: list[dict[str, object]] = []
    infarct: dict[str, float] = {}
    note = "voxels of which at least half is the region, on the scan's grid"
    for visit, kinds in spec.schedule[participant_id].items():
        for kind in kinds:
            if kind in ("b0", "adc", "T1w"):
                continue
            view = view_scan(scene, visit, kind)
            masks = _lesion_masks(scene, view, visit, kind)
            volumes = {label: float(mask.sum()) * view.voxel_ml for label, mask in masks.items()}
            for label, volume_ml in volumes.items():
                if label in VOLUME_ENDPOINTS:
                    endpoint = VOLUME_ENDPOINTS[label]
                    row = (participant_id, visit, endpoint, volume_ml, "mL", note)
                    rows.append(truth_row(*row, kind=kind))
            if kind in PERFUSION_KINDS:
                ratio = volumes["hypoperfused"] / volumes["core"]
                ratio_row = (participant_id, visit, "mismatch_ratio", ratio, "ratio", note)
                rows.append(truth_row(*ratio_row, kind=kind))
            if kind == "dwi":
                infarct[visit] = volumes["infarct"]
    if {"baseline", "day5"} <= set(infarct):
        growth = infarct["day5"] - infarct["baseline"]
        row = (participant_id, "day5", "infarct_growth", growth, "mL", note)
        rows.append(truth_row(*row, kind="dwi"))
    return rows
