"""A participant's head and lesion, and the grid of a scan laid through them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import cast

import numpy as np
from numpy.typing import NDArray

from corelab.phantom.anatomy import Anatomy, make_anatomy
from corelab.phantom.conditions import (
    NEUTRAL,
    Conditions,
    Extras,
    aged_head,
    draw_conditions,
    extras_of,
)
from corelab.phantom.design import Participant, TrialSpec, find
from corelab.phantom.head import ORIGIN_MM, TEMPLATE_SHAPE, Head, beside, cells, linear
from corelab.phantom.lesion import Lesion, make_lesion
from corelab.phantom.protocol import grid_affine, placement, protocol

Array = NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Scene:
    """A participant's head and lesion, ready to be scanned."""

    spec: TrialSpec
    participant: Participant
    anatomy: Anatomy
    head: Head
    lesion: Lesion
    conditions: Conditions = NEUTRAL

    @property
    def extras(self) -> Extras:
        """Old cavity, white-matter disease and susceptibility."""
        name = self.participant.participant_id
        return extras_of(self.conditions, self.spec.seed, name, self.lesion.plan.side)


@lru_cache(maxsize=8)
def build_scene(spec: TrialSpec, participant_id: str) -> Scene:
    """Build what is scanned of one participant."""
    participant = find(spec, participant_id)
    hard = spec.flavour == "hard"
    conditions = draw_conditions(spec.seed, participant_id) if hard else NEUTRAL
    anatomy = make_anatomy(spec.seed, participant_id)
    head = aged_head(conditions.ventricles, conditions.atrophy_mm)
    return Scene(
        spec=spec,
        participant=participant,
        anatomy=anatomy,
        head=head,
        lesion=make_lesion(spec.seed, anatomy, head, participant.lesion),
        conditions=conditions,
    )


@dataclass(frozen=True, eq=False)
class View:
    """The grid of one scan (voxel to scanner mm) and where its sample points lie in template space.

    ``samples`` points per voxel along the slice thickness; ``template_mm`` is (3, nx, ny, nz *
    samples).
    """

    affine: NDArray[np.float64]
    shape: tuple[int, int, int]
    samples: int
    template_mm: Array

    @cached_property
    def _voxel(self) -> Array:
        """Sample points in voxels of the 1 mm template grid, (3, n)."""
        origin = np.asarray(ORIGIN_MM, np.float32)
        return cast(Array, self.template_mm.reshape(3, -1) - origin[:, None])

    @cached_property
    def half_grid(self) -> list[Array]:
        """Sample points in voxels of every second voxel of the template grid."""
        return [(self.template_mm[a] - ORIGIN_MM[a]) / 2.0 for a in range(3)]

    @cached_property
    def _cell(self) -> NDArray[np.int32]:
        """Flat index of the template's voxel below each sample point."""
        return cells(self._voxel, TEMPLATE_SHAPE)

    def sample(self, field: Array, within: Array | None = None) -> Array:
        """A 1 mm template field at the sample points; air around it costs nothing.

        With ``within`` the value is 0 where that is 0.
        """
        near = beside(field != 0).ravel()[self._cell]
        if within is not None:
            near &= within.ravel() != 0
        places = np.flatnonzero(near)
        values = np.zeros(self.template_mm.shape[1:], np.float32)
        values.ravel()[places] = linear(field, self._voxel[:, places])
        return values

    def average(self, values: Array) -> Array:
        """Mean over the slice thickness: sample points -> voxels."""
        if self.samples == 1:
            return values
        return values.reshape(*self.shape, self.samples).mean(axis=-1)

    @property
    def voxel_ml(self) -> float:
        """Volume of one voxel, mL."""
        return float(abs(np.linalg.det(self.affine[:3, :3])) / 1000)


def view_scan(scene: Scene, visit: str, kind: str) -> View:
    """Lay a scan's grid through the participant's head.

    Examples
    --------
    >>> view_scan(build_scene(TrialSpec.testing(), "001"), "baseline", "dwi").shape
    (77, 93, 27)
    """
    spec, participant_id = scene.spec, scene.participant.participant_id
    plan = protocol(spec, participant_id, visit, kind)
    affine, shape = grid_affine(spec, scene.anatomy, visit, kind)
    fine = np.eye(4)
    fine[2, 2] = 1 / plan.samples
    fine[2, 3] = (1 / plan.samples - 1) / 2
    to_subject = np.linalg.inv(placement(spec, participant_id, visit, kind))
    points = scene.anatomy.grid_to_template(
        to_subject @ affine @ fine, (shape[0], shape[1], shape[2] * plan.samples)
    )
    return View(affine, shape, plan.samples, points)


def infarct_region(visit: str) -> str:
    """Region of the lesion that is infarcted at a visit."""
    return "core" if visit == "baseline" else "infarct"
