"""Contours of the simulated readers: the true outline, redrawn with each reader's hand.

A reader's outline wavers smoothly about the true border and is then moved as a whole so that its
volume is the one that the reads sheet holds for the same reader, visit and repeat.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from corelab.imaging.geometry import linear_at
from corelab.phantom.design import enrol, volume_readings
from corelab.phantom.head import ORIGIN_MM, bisect
from corelab.phantom.lesion import BORDER_MM
from corelab.phantom.scene import Scene, View, infarct_region, mean_of_samples, view_scan
from corelab.phantom.seeds import generator

#: SD (mm) of a contour about the true border, and the length (mm) over which it wavers.
WAVER_MM = 0.8
_WAVE_LENGTH_MM = 7.0
#: How far a contour may be moved as a whole.
_REACH_MM = 6.0


def reader_contour(
    scene: Scene, visit: str, kind: str, reader: str | None, repeat: int = 1
) -> tuple[NDArray[np.bool_], View]:
    """One reader's infarct mask on the grid of the diffusion images, and the grid.

    ``visit``, ``kind`` (``mask-infarct``), ``reader`` and ``repeat`` are of the row in the scans
    sheet; KeyError if the trial has no such reading.

    Examples
    --------
    >>> from corelab.phantom.design import TrialSpec
    >>> from corelab.phantom.scene import build_scene
    >>> scene = build_scene(TrialSpec.testing(), "001")
    >>> mask, view = reader_contour(scene, "day5", "mask-infarct", "reader-1")
    >>> wanted = volume_readings(scene.spec)["001", "day5", "reader-1", 1]
    >>> bool(abs(mask.sum() * view.voxel_ml - wanted) < 0.1)
    True
    """
    if kind != "mask-infarct":
        raise KeyError(f"{kind!r}: simulated readers draw mask-infarct only")
    spec, participant_id = scene.spec, scene.participant.participant_id
    readings = volume_readings(spec)
    key = (participant_id, visit, reader or "", repeat)
    if key not in readings:
        known = [rater.name for rater in spec.readers]
        raise KeyError(
            f"no reading of participant {participant_id} at {visit} by reader {reader!r}, repeat "
            f"{repeat}; the trial has {len(enrol(spec))} participants and the readers {known}"
        )
    view = view_scan(scene, visit, "dwi")
    level = scene.lesion.levels_mm[infarct_region(visit)]
    tissue = view.sample(scene.head.tissue)
    rng = generator(spec.seed, participant_id, visit, key[2], str(repeat), "contour")
    waver = ndimage.gaussian_filter(rng.standard_normal((50, 60, 48)), _WAVE_LENGTH_MM / 4)
    where = [((view.template_mm[a] - ORIGIN_MM[a]) / 4).astype(np.float64) for a in range(3)]
    shift = linear_at(waver / waver.std(), where, mode="nearest")
    potential = scene.lesion.potential_at(view.template_mm) + WAVER_MM * shift

    # Voxels that no offset can reach cost nothing.
    reached = (potential < level + _REACH_MM + BORDER_MM) & (tissue > 0)
    voxels = np.flatnonzero(reached.reshape(-1, view.samples).any(axis=1))
    potential = potential.reshape(-1, view.samples)[voxels]
    tissue = tissue.reshape(-1, view.samples)[voxels]

    def drawn(offset_mm: float) -> NDArray[np.bool_]:
        inside = np.clip((level + offset_mm - potential) / BORDER_MM + 0.5, 0, 1)
        return np.asarray(mean_of_samples((inside * tissue).astype(np.float32)) >= 0.5)

    def volume_ml(offset_mm: float) -> float:
        return float(drawn(offset_mm).sum() * view.voxel_ml)

    mask = np.zeros(view.shape, bool)
    between = bisect(volume_ml, readings[key], -_REACH_MM, _REACH_MM, 14)
    mask.reshape(-1)[voxels] = drawn(sum(between) / 2)
    return mask, view
