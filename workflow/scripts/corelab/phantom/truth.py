"""The truth of the simulated trial: masks and maps on each scan's grid, and one table.

``truth.tsv`` holds the planned volumes (continuous, kind ``n/a``), the volumes of the true masks
on the grid of every scan that shows them, and the sizes of the built-in effects. A mask's voxel
is inside when at least half of it is parenchyma within the lesion; voxel counts therefore differ
from the continuous volume by partial volume at the border, a few percent on 5 mm slices.
"""

from __future__ import annotations

import os
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import ndimage

from corelab.imaging import save_image
from corelab.phantom.design import DIFFUSION_KINDS, TrialSpec, enrol
from corelab.phantom.head import ORIGIN_MM
from corelab.phantom.scans import (
    Scene,
    View,
    build_scene,
    infarct_region,
    perfusion_truth,
    view_scan,
)
from corelab.provenance.products import write_table
from corelab.study.naming import session_entity, subject_entity

TRUTH = {
    "participant_id": "Subject identifier, 'all' for the trial",
    "visit": "Visit name, 'all' for the trial",
    "endpoint": "Endpoint, or name of a built-in effect",
    "region": "'all': the whole lesion",
    "value": "The true value",
    "unit": "Unit of the value",
    "kind": "Kind of scan on whose grid the mask was counted; n/a for the continuous value",
    "note": "Definition",
}
PERFUSION_KINDS = ("ctp", "dsc")
_MAPS = {
    "cbf": "cbf_ml_100g_min",
    "cbv": "cbv_ml_100g",
    "mtt": "mtt_s",
    "tmax": "delay_s",
}
_MAP_UNITS = {"cbf": "mL/100g/min", "cbv": "mL/100g", "mtt": "s", "tmax": "s"}
#: Parenchyma that still gets less than this share of its flow after day 5 is not simulated:
#: the follow-up has no perfusion scan.
_HALF = 0.5


def true_masks(scene: Scene, visit: str, kind: str) -> tuple[dict[str, NDArray[np.bool_]], View]:
    """True masks that a kind of scan shows, on its own grid.

    Parameters
    ----------
    scene
        Of the participant.
    visit, kind
        Of the scan.

    Returns
    -------
    masks
        ``infarct`` for diffusion, T1w and FLAIR; ``haematoma`` for ncct; ``core``,
        ``hypoperfused`` and ``penumbra`` for ctp and dsc; ``brain`` for all.
    view
        The grid.

    Examples
    --------
    >>> scene = build_scene(TrialSpec.testing(), "001")
    >>> sorted(true_masks(scene, "baseline", "dwi")[0])
    ['brain', 'infarct']
    """
    view = view_scan(scene, visit, kind)
    masks = {"brain": view.average(view.sample(scene.head.brain)) >= _HALF}
    if kind in PERFUSION_KINDS:
        truth = perfusion_truth(scene, view)
        masks["core"] = truth.core
        masks["hypoperfused"] = truth.hypoperfused
        masks["penumbra"] = truth.hypoperfused & ~truth.core
    elif kind == "ncct":
        blood = np.zeros(view.template_mm.shape[1:], np.float32)
        if visit != "baseline":
            blood = scene.lesion.fractions(view.template_mm, "haematoma")[0]
        masks["haematoma"] = view.average(blood) >= _HALF
    else:
        masks["infarct"] = view.average(infarct_fraction(scene, view, visit)) >= _HALF
    return masks, view


def infarct_fraction(scene: Scene, view: View, visit: str) -> NDArray[np.float32]:
    """Fraction of infarcted parenchyma at the sample points of a view."""
    inside = scene.lesion.fractions(view.template_mm, infarct_region(visit))[0]
    tissue = view.sample(scene.head.grey + scene.head.white)
    return np.asarray(inside * tissue)


def template_mask(spec: TrialSpec, participant_id: str, region: str) -> nib.Nifti1Image:
    """True lesion in template space, on the 1 mm MNI grid.

    Parameters
    ----------
    spec, participant_id
        Whose.
    region
        ``core``, ``infarct`` (final), ``hypoperfused`` or ``haematoma``.

    Examples
    --------
    >>> template_mask(TrialSpec.testing(), "001", "core").shape
    (197, 233, 189)
    """
    scene = build_scene(spec, participant_id)
    tissue = scene.head.grey + scene.head.white
    grid = np.meshgrid(*(ORIGIN_MM[a] + np.arange(n) for a, n in enumerate(tissue.shape)), indexing="ij")
    inside = scene.lesion.fractions(np.asarray(grid, dtype=np.float32), region)[0]
    if region != "haematoma":
        inside = inside * tissue
    affine = np.eye(4)
    affine[:3, 3] = ORIGIN_MM
    return nib.Nifti1Image((inside >= _HALF).astype(np.uint8), affine)


def write_truth_images(
    spec: TrialSpec, participant_id: str, visit: str, kind: str, folder: str | os.PathLike[str]
) -> dict[str, Path]:
    """Write the true masks and, for perfusion, the true maps on the grid of one scan.

    Parameters
    ----------
    spec, participant_id, visit, kind
        Of the scan.
    folder
        Where the files go.

    Returns
    -------
    dict
        Label or map -> path: ``infarct``, ``brain``, ``core``, ..., ``cbf``, ``cbv``, ``mtt``,
        ``tmax`` (the arterial delay, which is where the true residue function has its maximum).

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     sorted(write_truth_images(TrialSpec.testing(), "001", "baseline", "dwi", folder))
    ['brain', 'infarct']
    """
    scene = build_scene(spec, participant_id)
    masks, view = true_masks(scene, visit, kind)
    stem = f"{subject_entity(participant_id)}_{session_entity(visit)}_acq-{kind}"
    paths = {}
    for label, mask in masks.items():
        image = nib.Nifti1Image(mask.astype(np.uint8), view.affine)
        target = Path(folder) / f"{stem}_label-{label}_desc-truth_mask.nii.gz"
        paths[label] = save_image(image, target, sidecar={"unit": "label", "simulated": True})
    if kind in PERFUSION_KINDS:
        truth = perfusion_truth(scene, view)
        for name, attribute in _MAPS.items():
            image = nib.Nifti1Image(np.round(getattr(truth, attribute), 3), view.affine)
            target = Path(folder) / f"{stem}_desc-truth+{name}_map.nii.gz"
            paths[name] = save_image(
                image, target, sidecar={"unit": _MAP_UNITS[name], "simulated": True}
            )
    return paths
