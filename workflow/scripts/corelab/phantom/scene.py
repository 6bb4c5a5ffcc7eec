"""A participant's head and lesion, and the grid of a scan laid through them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, lru_cache

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
from corelab.phantom.head import Head, linear_placed
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

    ``to_subject`` leads from scanner to subject space; there are ``samples`` points per voxel
    along the slice thickness.
    """

    affine: NDArray[np.float64]
    shape: tuple[int, int, int]
    samples: int
    anatomy: Anatomy
    to_subject: NDArray[np.floating]

    @cached_property
    def template_mm(self) -> Array:
        """Where the sample points lie in template space, (3, nx, ny, nz * samples)."""
        fine = np.eye(4)
        fine[2, 2] = 1 / self.samples
        fine[2, 3] = (1 / self.samples - 1) / 2
        shape = (*self.shape[:2], self.shape[2] * self.samples)
        return self.anatomy.grid_to_template(self.to_subject @ self.affine @ fine, shape)

    def sample(self, field: Array) -> Array:
        """A 1 mm template field at the sample points."""
        return linear_placed(field, self.template_mm)

    def average(self, values: Array) -> Array:
        """Mean over the slice thickness: sample points -> voxels."""
        if self.samples == 1:
            return values
        return mean_of_samples(values.reshape(*self.shape, self.samples))

    @property
    def voxel_ml(self) -> float:
        """Volume of one voxel, mL."""
        return float(abs(np.linalg.det(self.affine[:3, :3])) / 1000)


def mean_of_samples(values: Array) -> Array:
    """Mean over a short last axis, as numpy's but not line by line.

    Examples
    --------
    >>> mean_of_samples(np.array([[1.0, 2.0, 6.0]], np.float32)).tolist()
    [3.0]
    """
    total = values[..., 0].copy()
    for sample in range(1, values.shape[-1]):
        total += values[..., sample]
    total /= values.shape[-1]
    return total


@lru_cache(maxsize=2)  # readers draw on the grid of the diffusion images
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
    to_subject = np.linalg.inv(placement(spec, participant_id, visit, kind))
    return View(affine, shape, plan.samples, scene.anatomy, to_subject)


def infarct_region(visit: str) -> str:
    """Region of the lesion that is infarcted at a visit."""
    return "core" if visit == "baseline" else "infarct"
