"""Truth of the simulated trial as images and as the mapping to the template, for the tests."""

from __future__ import annotations

import os
from pathlib import Path

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

from corelab.imaging import save_image
from corelab.phantom.design import TrialSpec
from corelab.phantom.head import ORIGIN_MM
from corelab.phantom.protocol import placement
from corelab.phantom.scans import perfusion_truth
from corelab.phantom.scene import build_scene
from corelab.phantom.truth import PERFUSION_KINDS, true_masks
from corelab.study.naming import session_entity, subject_entity

_MAPS = {
    "cbf": "cbf_ml_100g_min",
    "cbv": "cbv_ml_100g",
    "mtt": "mtt_s",
    "tmax": "tmax_s",
    "delay": "delay_s",
}
_MAP_UNITS = {"cbf": "mL/100g/min", "cbv": "mL/100g", "mtt": "s", "tmax": "s", "delay": "s"}


def scan_to_template(
    spec: TrialSpec, participant_id: str, visit: str, kind: str, points_mm: NDArray[np.floating]
) -> NDArray[np.float64]:
    """Template coordinates of points (..., 3) in a scan's own world: the truth of its fit to MNI.

    Examples
    --------
    >>> spec = TrialSpec.testing()
    >>> points = np.array([[0.0, 0.0, 0.0]])
    >>> there = scan_to_template(spec, "001", "baseline", "T1w", points)
    >>> back = template_to_scan(spec, "001", "baseline", "T1w", there)
    >>> bool(np.abs(back - points).max() < 0.01)
    True
    """
    back = np.linalg.inv(placement(spec, participant_id, visit, kind))
    points = np.asarray(points_mm, dtype=np.float64)
    subject = points @ back[:3, :3].T + back[:3, 3]
    return build_scene(spec, participant_id).anatomy.to_template(subject)


def template_to_scan(
    spec: TrialSpec, participant_id: str, visit: str, kind: str, points_mm: NDArray[np.floating]
) -> NDArray[np.float64]:
    """Inverse of :func:`scan_to_template`."""
    moved = placement(spec, participant_id, visit, kind)
    subject = build_scene(spec, participant_id).anatomy.to_subject(points_mm)
    return np.asarray(subject @ moved[:3, :3].T + moved[:3, 3])


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
    grid = np.meshgrid(
        *(ORIGIN_MM[a] + np.arange(n) for a, n in enumerate(tissue.shape)), indexing="ij"
    )
    inside = scene.lesion.fractions(np.asarray(grid, dtype=np.float32), region)[0]
    if region != "haematoma":
        inside = inside * tissue
    affine = np.eye(4)
    affine[:3, 3] = ORIGIN_MM
    return nib.Nifti1Image((inside >= 0.5).astype(np.uint8), affine)


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
        ``tmax`` (arterial delay + MTT / 2), ``delay``.

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
