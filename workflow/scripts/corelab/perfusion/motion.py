"""Rigid motion of a series: found for every series, corrected only where there is some.

Every frame is aligned to the baseline's mean by Gauss-Newton steps on a coarse grid (inverse
compositional, Baker and Matthews 2004, Int J Comput Vis 56:221) with a gain and an offset per
frame, since the bolus changes the brightness of the whole image. The skull, which does not
enhance, carries most of the gradient on CT.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import ndimage
from scipy.spatial.transform import Rotation

from corelab.imaging.geometry import linear_at, linear_grid
from corelab.perfusion.parallel import over_frames

#: CT values are clipped to this range (HU) for alignment.
CLIP_HU = (-100.0, 400.0)
#: Motion below both is left alone: resampling would blur more than it corrects.
CORRECT_ABOVE_MM = 0.5
CORRECT_ABOVE_DEGREES = 0.5
#: A frame displaced this much from the one before it is replaced by interpolation.
REPLACE_ABOVE_MM = 3.0
#: Radius (mm) at which a rotation counts as a displacement (Power 2012).
HEAD_RADIUS_MM = 50.0
_COARSE_MM = 4.0
_ITERATIONS = 12


@dataclass(frozen=True)
class Motion:
    """Displacement of every frame from the reference.

    Attributes
    ----------
    translation_mm, rotation_degrees
        (t, 3), about the centre of the grid, in world axes.
    framewise_mm
        (t,) sum of absolute changes of translation and of rotation x 50 mm since the frame
        before.
    """

    translation_mm: np.ndarray
    rotation_degrees: np.ndarray
    framewise_mm: np.ndarray

    @property
    def largest_mm(self) -> float:
        """Largest translation from the reference, of frames that are kept."""
        return self._largest(self.translation_mm)

    @property
    def largest_degrees(self) -> float:
        """Largest rotation from the reference, of frames that are kept."""
        return self._largest(self.rotation_degrees)

    def _largest(self, moves: np.ndarray) -> float:
        kept = np.setdiff1d(np.arange(len(moves)), self.bad_frames)
        return float(np.linalg.norm(moves[kept], axis=1).max()) if len(kept) else float("nan")

    @property
    def found(self) -> bool:
        """Whether the motion is worth correcting."""
        return bool(
            self.largest_mm > CORRECT_ABOVE_MM
            or self.largest_degrees > CORRECT_ABOVE_DEGREES
            or len(self.bad_frames)
        )

    @property
    def bad_frames(self) -> np.ndarray:
        """Frames acquired while the head moved: their slices do not belong together."""
        return np.flatnonzero(self.framewise_mm > REPLACE_ABOVE_MM)


def main_course(moved: Motion, baseline_stop: int) -> np.ndarray:
    """Course (t,) of the largest part of the motion, in mm, 0 in the mean of the baseline.

    A voxel that was moved back holds other parts of its neighbours than before: its level changes
    in proportion to the displacement. Translation and rotation x 50 mm are taken together; frames
    that are replaced lie on the line between those beside.

    Examples
    --------
    >>> away = np.zeros((6, 3)); away[3:, 1] = 2.0
    >>> still = np.zeros(6)
    >>> np.abs(main_course(Motion(away, 0 * away, still), 3)).round(6).tolist()
    [0.0, 0.0, 0.0, 2.0, 2.0, 2.0]
    """
    turned_mm = np.deg2rad(moved.rotation_degrees) * HEAD_RADIUS_MM
    moves = np.column_stack([moved.translation_mm, turned_mm]).astype(float)
    frames = np.arange(len(moves))
    kept = np.setdiff1d(frames, moved.bad_frames)
    if not len(kept):
        return np.zeros(len(moves))
    moves = np.column_stack([np.interp(frames, kept, move[kept]) for move in moves.T])
    moves -= moves[: max(baseline_stop, 1)].mean(axis=0)
    vectors, values, _ = np.linalg.svd(moves, full_matrices=False)
    return np.asarray(vectors[:, 0] * values[0])


def _framewise_displacement(translation_mm: np.ndarray, rotation_degrees: np.ndarray) -> np.ndarray:
    """Framewise displacement after Power 2012 (NeuroImage 59:2142)."""
    arc = np.deg2rad(rotation_degrees) * HEAD_RADIUS_MM
    steps = np.abs(np.diff(translation_mm, axis=0)).sum(1) + np.abs(np.diff(arc, axis=0)).sum(1)
    return np.concatenate([[0.0], steps])


def _grid_centre(shape: tuple[int, ...], affine: np.ndarray) -> np.ndarray:
    """World position of the middle of a grid, about which rotations are stated."""
    middle = (np.array(shape[:3]) - 1) / 2.0
    return np.asarray(affine[:3, :3] @ middle + affine[:3, 3])


def _gradient(image: np.ndarray) -> np.ndarray:
    """Gradient in voxel axes (x, y, z, 3); 0 along an axis of one slice."""
    parts = [
        np.gradient(image, axis=axis) if n > 1 else np.zeros_like(image)
        for axis, n in enumerate(image.shape)
    ]
    return np.stack(parts, axis=-1)


def _transform(parameters: np.ndarray) -> np.ndarray:
    matrix = np.eye(4)
    matrix[:3, :3] = Rotation.from_rotvec(parameters[3:6]).as_matrix()
    matrix[:3, 3] = parameters[:3]
    return matrix


class _Aligner:
    """Reference image, its gradient and the solved normal equations."""

    def __init__(self, reference: np.ndarray, affine: np.ndarray, clip: tuple[float, float]):
        sizes = np.sqrt((affine[:3, :3] ** 2).sum(axis=0))
        self.step = [max(1, round(_COARSE_MM / size)) for size in sizes]
        self.sigma = [
            0.5 * _COARSE_MM / size if step > 1 else 0.3
            for size, step in zip(sizes, self.step, strict=True)
        ]
        self.clip = clip
        self.centre = _grid_centre(reference.shape, affine)
        coarse_affine = affine @ np.diag([*self.step, 1.0])
        self.inverse = np.linalg.inv(coarse_affine)
        fixed = self.coarse(reference)
        inner = np.zeros(fixed.shape, bool)
        inner[tuple(slice(1, -1) if n > 4 else slice(None) for n in fixed.shape)] = True
        slope = _gradient(fixed).reshape(-1, 3) @ self.inverse[:3, :3]
        # Where there is no gradient there is nothing to align; edges carry it all.
        strength = np.linalg.norm(slope, axis=1)
        use = (strength > 0.05 * strength.max()) & inner.ravel()
        index = np.argwhere(np.ones(fixed.shape, bool))[use].astype(float)
        self.world = index @ coarse_affine[:3, :3].T + coarse_affine[:3, 3] - self.centre
        self.fixed = fixed.ravel()[use].astype(float)
        slope = slope[use]
        turn = np.cross(self.world, slope)
        self.solver = np.linalg.pinv(
            np.column_stack([slope, turn, self.fixed, np.ones(len(self.fixed))])
        )

    def coarse(self, frame: np.ndarray) -> np.ndarray:
        smooth = np.clip(frame, *self.clip).astype(np.float32)
        # Axis by axis, and only at the places of the coarse grid.
        for axis, (sigma, step) in enumerate(zip(self.sigma, self.step, strict=True)):
            smooth = ndimage.gaussian_filter1d(smooth, sigma, axis=axis)
            smooth = smooth[(slice(None),) * axis + (slice(None, None, step),)]
        return np.asarray(smooth)

    def align(self, frame: np.ndarray, start: np.ndarray) -> np.ndarray:
        """Transform (4, 4) about the centre that takes reference points to the frame's."""
        moving = self.coarse(frame)
        matrix = start.copy()
        for _ in range(_ITERATIONS):
            at = self.world @ matrix[:3, :3].T + matrix[:3, 3] + self.centre
            voxel = at @ self.inverse[:3, :3].T + self.inverse[:3, 3]
            seen = linear_at(moving, voxel.T, mode="nearest")
            solution = self.solver @ (seen - self.fixed)
            matrix = matrix @ np.linalg.inv(_transform(solution[:6]))
            if np.abs(solution[:3]).max() < 0.005 and np.abs(solution[3:6]).max() < 1e-4:
                break
        return matrix


def estimate_motion(
    series: np.ndarray, affine: np.ndarray, baseline_stop: int, modality: str
) -> Motion:
    """Displacement of every frame of a series (x, y, z, t).

    The reference is the mean of the frames before ``baseline_stop``. ``ctp`` clips to -100..400 HU;
    ``dsc`` uses the whole range.

    Examples
    --------
    >>> x, y, z = np.meshgrid(np.arange(40.0), np.arange(40), np.arange(10), indexing="ij")
    >>> ball = lambda s: 300.0 * (np.hypot(np.hypot(x - 20 - s, y - 20), 2 * (z - 5)) < 12)
    >>> series = np.stack([ball(0), ball(0), ball(1)], axis=-1)
    >>> moved = estimate_motion(series, np.diag([3.0, 3, 6, 1]), 2, "ctp")
    >>> bool(abs(moved.translation_mm[2, 0] - 3) < 0.3), moved.found
    (True, True)
    """
    reference = series[..., : max(baseline_stop, 1)].mean(axis=-1, dtype=np.float64)
    clip = CLIP_HU if modality == "ctp" else (0.0, float(np.percentile(reference, 99.5)))
    aligner = _Aligner(reference, affine, clip)
    translation, rotation = [], []
    matrix = np.eye(4)
    for frame in range(series.shape[3]):
        matrix = aligner.align(series[..., frame], matrix)
        translation.append(matrix[:3, 3].copy())
        turned = Rotation.from_matrix(matrix[:3, :3]).as_rotvec()
        rotation.append(np.rad2deg(turned))
    moves, turns = np.array(translation), np.array(rotation)
    return Motion(moves, turns, _framewise_displacement(moves, turns))


def correct_motion(
    series: np.ndarray,
    affine: np.ndarray,
    motion: Motion,
    baseline: slice,
    modality: str,
    *,
    threads: int | None = 1,
) -> np.ndarray:
    """Series (x, y, z, t) with every displaced frame moved back.

    A slice that was displaced holds a part of its neighbours, and more of them once it is moved
    back: at a border the level changes as if contrast had come. What the same two steps make of the
    baseline's mean image is known, and is taken off each frame (CT: subtracted; MR: divided).

    Bad frames are to be replaced besides (:func:`corelab.perfusion.steadiness.replaced`). Frames
    displaced by less than 0.2 mm and 0.2 degrees stay as they are. The result does not depend on
    ``threads``.

    Examples
    --------
    >>> still = np.zeros((3, 3)); moves = still.copy(); moves[2, 2] = 2.0
    >>> head = np.zeros((4, 4, 6, 3), np.float32); head[:, :, 3:] = 30.0
    >>> head[:, :, 2, 2] = 6.0; head[:, :, 3:5, 2] = 30.0  # a shift by a fifth of a slice
    >>> found = correct_motion(
    ...     head, np.diag([3.0, 3, 10, 1]), Motion(-moves, still, np.zeros(3)), slice(0, 2), "ctp")
    >>> found[1, 1, :, 2].round(1).tolist()
    [0.0, 0.0, 0.0, 30.0, 30.0, 30.0]
    """
    corrected = series.copy()
    image = series[..., baseline].mean(axis=-1)
    linear, centre = affine[:3, :3], _grid_centre(series.shape, affine)
    inverse = np.linalg.inv(linear)

    def resampled(values: np.ndarray, matrix: np.ndarray, offset: np.ndarray) -> np.ndarray:
        return linear_grid(values, matrix, offset, values.shape, mode="nearest")

    def move_back(frame: int) -> None:
        shift, turn = motion.translation_mm[frame], motion.rotation_degrees[frame]
        if np.linalg.norm(shift) < 0.2 and np.linalg.norm(turn) < 0.2:
            return
        rotation = Rotation.from_rotvec(np.deg2rad(turn)).as_matrix()
        matrix = inverse @ rotation @ linear
        offset = inverse @ (rotation @ (affine[:3, 3] - centre) + centre + shift - affine[:3, 3])
        away = np.linalg.inv(matrix)
        seen = resampled(resampled(image, away, -away @ offset), matrix, offset)
        values = resampled(series[..., frame], matrix, offset)
        if modality == "ctp":
            values -= seen - image
        else:
            values *= np.divide(image, seen, out=np.ones_like(image), where=seen > 0).clip(0.5, 2.0)
        corrected[..., frame] = values

    over_frames(move_back, series.shape[3], threads)
    return corrected
