"""Rigid fits of two scans of one subject where a brain mask is not to be trusted.

A mask that lost half a brain puts the centre of mass in the wrong place, hides tissue from the fit
and spoils the Dice by which the fit would be judged. The better mask of the two (the donor's) is
moved to the other scan instead, and the fit is judged by mutual information over the donor's brain,
for which the other scan needs no mask.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import nibabel as nib
import numpy as np
from scipy import ndimage

from corelab.registration.heads import Head
from corelab.registration.preparation import centred, dilated
from corelab.registration.presets import load_preset
from corelab.registration.quality import (
    best_start,
    normalised_mutual_information,
    sample_points,
    values_at,
)
from corelab.registration.registrar import Registrar, RegistrationFault
from corelab.registration.transforms import Affine, apply_transforms
from corelab.settings.registration import RegistrationSettings

_RANK = {"pass": 0, "warn": 1, "fail": 2}
#: The moved mask is grown by this, since the first fit may be off by as much.
_MARGIN_MM = 4.0
#: A fit whose information does not fall over this distance is not at a maximum.
_DISPLACED_MM = 10.0
#: Share of the donor's brain that both scans must see.
_SEEN_MIN = 0.25


@dataclass(frozen=True)
class DonorFigures:
    """Figures of a fit by the donor's brain.

    Attributes
    ----------
    donor_information, donor_information_start, donor_information_displaced
        Normalised mutual information of its brain with the other scan: at the fit, at the start,
        and the largest of six places 10 mm away.
    donor_in_head
        Share of its brain on tissue of the other scan.
    """

    donor: str
    donor_information: float
    donor_information_start: float
    donor_information_displaced: float
    donor_in_head: float


def doubtful(fixed: Head, moving: Head) -> bool:
    """Whether the brain mask of either scan has a verdict other than ``pass``."""
    return fixed.verdict != "pass" or moving.verdict != "pass"


def with_better_mask(
    registrar: Registrar, fixed: Head, moving: Head, settings: RegistrationSettings
) -> tuple[Head, Head, np.ndarray]:
    """Give the scan with the worse mask that of the other, through a first fit.

    The first fit is tried with the scan's own mask and with none; the one with more information
    over the donor's brain is used.

    Returns
    -------
    tuple
        Fixed and moving scan, one with another mask, and the matrix of the first fit.

    Raises
    ------
    RegistrationFault
        If the backend could not fit them, or the donor's brain lies outside of the other scan.
    """
    donor, other, donor_fixed = _roles(fixed, moving)
    fixed_mm, moving_mm = load_preset(settings.preset).grid_mm("rigid")
    whole = nib.Nifti1Image(np.ones(other.image.shape, np.uint8), other.image.affine)
    found: list[np.ndarray] = []
    for candidate in (other, replace(other, brain=whole)):
        pair = (donor, candidate) if donor_fixed else (candidate, donor)
        still = pair[0].stripped(settings, fixed_mm)
        moved = pair[1].stripped(settings, moving_mm)
        start, _ = best_start(still, moved, centred(still, moved))
        found += [start, registrar.rigid(still, moved, start=start).matrix]

    def score(matrix: np.ndarray) -> float:
        information = _information(donor, other, _to_other(matrix, donor_fixed))
        return information if np.isfinite(information) else 0.0

    best = max(found, key=score)
    back = Affine(np.linalg.inv(_to_other(best, donor_fixed)))
    lent = np.asarray(apply_transforms(donor.brain, other.image, [back], "label").dataobj) != 0
    if not lent.any():
        raise RegistrationFault(
            f"the brain of {donor.kind} lies outside the field of view of {other.kind}"
        )
    grown = dilated(lent, other.image.affine, _MARGIN_MM).astype(np.uint8)
    other = replace(other, brain=nib.Nifti1Image(grown, other.image.affine))
    return (donor, other, best) if donor_fixed else (other, donor, best)


def judged_by_donor(
    fixed: Head,
    moving: Head,
    matrix: np.ndarray,
    start: np.ndarray,
    settings: RegistrationSettings,
) -> tuple[DonorFigures, str | None]:
    """Figures of a fit by the donor's brain alone, and the reason if they fail it.

    Parameters
    ----------
    fixed, moving
        The scans with their own masks.
    matrix, start
        The fit, and where it began (headers or centres of mass).
    settings
        With the limits.

    Returns
    -------
    figures, reason
        The reason is None where they pass.
    """
    donor, other, donor_fixed = _roles(fixed, moving)
    to_other = _to_other(matrix, donor_fixed)
    here = _information(donor, other, to_other)
    begun = _information(donor, other, _to_other(start, donor_fixed))
    away = []
    for axis in range(3):
        for step in (-_DISPLACED_MM, _DISPLACED_MM):
            shift = np.eye(4)
            shift[axis, 3] = step
            away.append(_information(donor, other, to_other @ shift))
    displaced = float(np.nanmax([*away, 0.0]))
    covered = _in_head(donor, other, to_other)
    figures = DonorFigures(donor.kind, here, begun, displaced, covered)
    loss, allowed = begun - here, settings.limits.rigid_information_loss_max
    share = settings.limits.rigid_dice_min
    reason = None
    if not np.isfinite(here):
        reason = f"less than {_SEEN_MIN:.0%} of the brain of {donor.kind} lies in {other.kind}"
    elif loss > allowed:
        reason = f"mutual information fell by {loss:.4g} in the fit, more than {allowed:g}"
    elif here <= displaced:
        reason = f"mutual information is not lower {_DISPLACED_MM:g} mm away: no fit was found"
    elif covered < share:
        reason = (
            f"{covered:.2f} of the brain of {donor.kind} lies on tissue of "
            f"{other.kind}, less than {share:g}"
        )
    return figures, reason


def _roles(fixed: Head, moving: Head) -> tuple[Head, Head, bool]:
    """The scan with the better mask, the other, and whether the first is the fixed one."""
    donor_fixed = _RANK[fixed.verdict] <= _RANK[moving.verdict]
    return (fixed, moving, True) if donor_fixed else (moving, fixed, False)


def _to_other(matrix: np.ndarray, donor_fixed: bool) -> np.ndarray:
    """Points of the donor to points of the other scan; ``matrix`` takes fixed to moving."""
    return matrix if donor_fixed else np.linalg.inv(matrix)


def _information(donor: Head, other: Head, to_other: np.ndarray) -> float:
    """Normalised mutual information over the donor's brain; NaN where too little is seen."""
    points = sample_points(np.asarray(donor.brain.dataobj) != 0, donor.brain.affine)
    here, _ = values_at(donor.image, points)
    there, inside = values_at(other.image, Affine(to_other)(points))
    if inside.mean() < _SEEN_MIN:
        return float("nan")
    return normalised_mutual_information(here[inside], there[inside])


def _in_head(donor: Head, other: Head, to_other: np.ndarray) -> float:
    """Share of the donor's brain, where both look, that lies on tissue of the other scan."""
    from skimage.filters import threshold_otsu

    data = np.asarray(other.image.dataobj, np.float32)
    # Half of Otsu's threshold: brain on CT lies between air and bone.
    tissue = data > 0.5 * threshold_otsu(data)
    filled = np.stack(
        [ndimage.binary_fill_holes(tissue[..., k]) for k in range(tissue.shape[2])], axis=2
    )
    points = sample_points(np.asarray(donor.brain.dataobj) != 0, donor.brain.affine)
    head = nib.Nifti1Image(filled.astype(np.float32), other.image.affine)
    values, inside = values_at(head, Affine(to_other)(points))
    return float((values[inside] >= 0.5).mean()) if inside.any() else 0.0
