"""The one interface of every segmentation, and the uncertainty that each one carries.

A segmenter turns images on one grid, a brain mask and parameters into a
:class:`Segmentation`. It works in two steps so that its uncertainty is cheap: ``measure`` derives
what is expensive (smoothed maps, z scores, mirror images) once, ``decide`` applies thresholds. The
thresholds' limits are parameters like any other (``limits``), and the volumes at these limits,
widened by what a surface on voxels leaves open, stand beside the volume itself.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Generic, Protocol, TypeVar, runtime_checkable

import numpy as np

from corelab.imaging.geometry import smoothed
from corelab.records.images import Scan
from corelab.segmentation.scans import Image, Inputs, Mask, NotSegmentable, Target, VisitScans
from corelab.settings.base import Settings
from corelab.settings.segmentation import Thresholds
from corelab.study.mask_flags import FLAGS

#: Part of a voxel by which the drawn surface may lie off as a whole: with it the limits covered
#: the truth in 11 of 12 simulated infarcts (seeds 51, 52; without it in 10), and in 6 of 7 others.
SURFACE_ERROR_VOXELS = 0.2

P = TypeVar("P", bound=Thresholds)
_P_contra = TypeVar("_P_contra", bound=Settings, contravariant=True)


@dataclass(frozen=True)
class Segmentation:
    """One lesion mask with its volume, the volume's limits and what to know about it.

    Parameters
    ----------
    label
        ``infarct``, ``haematoma``, ``enhancing``, ``oedema`` or ``whole-tumour``.
    source
        ``pipeline`` or ``pipeline:<variant>``.
    mask
        Boolean array on the images' grid. All False is a result: a true zero volume.
    volume_ml, volume_low_ml, volume_high_ml
        Volume at the thresholds, and its limits: the least and greatest volume at the thresholds'
        limits, widened by the error of a surface drawn on voxels.
    parameters
        Thresholds used, with units in their names.
    quality
        Figures behind the flags (reference signal, calibration, clusters removed).
    flags
        Names of :data:`corelab.study.mask_flags.FLAGS`; empty if nothing is to be known.
    reason
        The flags in a sentence, None without flags.
    """

    label: str
    source: str
    mask: Mask
    volume_ml: float
    volume_low_ml: float
    volume_high_ml: float
    parameters: Mapping[str, Any]
    quality: Mapping[str, Any] = field(default_factory=dict)
    flags: tuple[str, ...] = ()
    reason: str | None = None

    def __post_init__(self) -> None:
        """Refuse a flag without severity and title: it would not be shown."""
        unknown = sorted(set(self.flags) - set(FLAGS))
        if unknown:
            raise ValueError(f"flags missing in study.mask_flags.FLAGS: {', '.join(unknown)}")


@runtime_checkable
class Segmenter(Protocol[_P_contra]):
    """Interface of every segmentation, classical or by an external program."""

    label: str
    source: str

    def __call__(
        self,
        images: Mapping[str, Image],
        brain: Mask,
        voxel_size_mm: Sequence[float],
        parameters: _P_contra,
    ) -> Segmentation:
        """Segment images of one grid (axes right, anterior, superior) inside a brain mask."""
        ...


@dataclass(frozen=True)
class GridImages:
    """Images by kind and the brain mask, on one grid with voxels of this size."""

    images: Mapping[str, Image]
    brain: Mask
    voxel_size_mm: tuple[float, float, float]


@dataclass(frozen=True)
class Evidence:
    """Result of ``measure`` for ``decide``: maps on the grid, figures, flags (word -> sentence)."""

    maps: Mapping[str, Image]
    voxel_size_mm: tuple[float, float, float]
    quality: Mapping[str, Any] = field(default_factory=dict)
    flags: Mapping[str, str] = field(default_factory=dict)
    _kept: dict[Any, Any] = field(default_factory=dict, repr=False)

    def kept(self, key: Any, compute: Callable[[], Any]) -> Any:
        """Intermediate result shared by decisions at several limits, computed once per ``key``."""
        if key not in self._kept:
            self._kept[key] = compute()
        return self._kept[key]

    @property
    def voxel_ml(self) -> float:
        """Volume of one voxel in mL."""
        return float(np.prod(self.voxel_size_mm)) / 1000.0


@dataclass(frozen=True)
class Decision:
    """Result of ``decide``: the mask, further figures and further flags (word -> sentence)."""

    mask: Mask
    quality: Mapping[str, Any] = field(default_factory=dict)
    flags: Mapping[str, str] = field(default_factory=dict)


def joined_reasons(reasons: Iterable[str | None]) -> str | None:
    """Reasons of several parts as one, each statement once.

    Examples
    --------
    >>> joined_reasons(["no T1; cut off", None, "cut off"])
    'no T1; cut off'
    """
    said = (statement for reason in reasons if reason for statement in reason.split("; "))
    return "; ".join(dict.fromkeys(said)) or None


class ThresholdSegmenter(ABC, Generic[P]):
    """A segmenter of two steps; subclasses give ``measure`` and ``decide``.

    ``parameters.limits`` maps the name of a threshold to its lower and upper limit. All
    thresholds go to that limit together which makes the mask smaller, and then to the other, so
    that the two volumes enclose what a reader could defend.

    A method of the pipeline stands in :data:`corelab.segmentation.methods.METHODS` and says when it
    runs: for a ``disease``, on the grid of the first usable scan of ``kinds``, with those of
    ``beside`` where the visit has them, with the thresholds of ``segmentation.<block>``, after the
    methods of the labels in ``after``, whose masks are among its images.
    """

    label = ""
    source = "pipeline"
    disease: ClassVar[str] = ""
    block: ClassVar[str] = ""
    kinds: ClassVar[tuple[str, ...]] = ()
    beside: ClassVar[tuple[str, ...]] = ()
    after: ClassVar[tuple[str, ...]] = ()
    #: False for an intermediate result, which is not written.
    written: ClassVar[bool] = True
    #: In-plane edge (mm) that is fine enough: voxels of half of it and less are averaged first.
    in_plane_mm = 0.0

    def target(self, visit: VisitScans) -> Scan | None:
        """The scan that it runs on; None if the visit has none for it."""
        return visit.first(*self.kinds)

    def named(self, visit: VisitScans) -> str:
        """Source of its mask in a visit."""
        return self.source

    def gather(self, visit: VisitScans, target: Target, parameters: P) -> Inputs:
        """Images of a visit on the grid of its scan.

        Raises
        ------
        NotSegmentable
            If they cannot carry it.
        """
        return visit.together(target, self.beside)

    def ready(self, given: GridImages, parameters: P) -> GridImages:
        """Add to the images, or change the brain mask, before anything is measured."""
        return given

    def checked(self, found: Segmentation, parameters: P) -> Segmentation:
        """The result, or NotSegmentable where the whole of it proves nothing."""
        return found

    @abstractmethod
    def measure(self, given: GridImages, parameters: P) -> Evidence:
        """Derive the maps that the decision needs."""

    @abstractmethod
    def decide(self, evidence: Evidence, parameters: P) -> Decision:
        """Apply thresholds."""

    def __call__(
        self,
        images: Mapping[str, Image],
        brain: Mask,
        voxel_size_mm: Sequence[float],
        parameters: P,
    ) -> Segmentation:
        """Segment; see :class:`Segmenter`.

        Raises
        ------
        NotSegmentable
            If the images or the brain mask cannot carry it.
        """
        voxel = check_grid(images, brain, voxel_size_mm)
        ready = self.ready(GridImages(images, brain, voxel), parameters)
        images, brain = ready.images, ready.brain
        # Nothing outside the brain counts: a whole-head grid costs three times the box around it.
        box = bounding_box(brain, margin=3)
        # Two fine voxels fit into one that is fine enough; 0.6 is near enough to a half.
        n = 2 if max(voxel[:2]) <= 0.6 * self.in_plane_mm else 1
        given = GridImages(
            {kind: block_means(image[box], n) for kind, image in images.items()},
            block_means(brain[box], n) >= 0.5,
            (n * voxel[0], n * voxel[1], voxel[2]),
        )
        evidence = self.measure(given, parameters)
        decision = self.decide(evidence, parameters)
        mask = decision.mask
        whole = np.zeros(brain.shape, bool)
        whole[box] = from_blocks(mask, n, brain[box].shape)
        volumes = [float(whole.sum()) * float(np.prod(voxel)) / 1000.0]
        # An edge interpolated to the fine grid moves the volume: the limits move with it.
        scale = volumes[0] / (float(mask.sum()) * evidence.voxel_ml) if mask.any() else 1.0
        for side in (0, 1):
            shifted = parameters.at_limit(side)
            if shifted is not None:
                found = float(self.decide(evidence, shifted).mask.sum()) * evidence.voxel_ml
                volumes.append(scale * found)
        low, high = widened_limits(volumes, surface_error_ml(mask, evidence.voxel_size_mm))
        flags = {**evidence.flags, **decision.flags}
        result = Segmentation(
            label=self.label,
            source=self.source,
            mask=whole,
            volume_ml=volumes[0],
            volume_low_ml=low,
            volume_high_ml=high,
            parameters=parameters.plain(),
            quality={**evidence.quality, **decision.quality},
            flags=tuple(sorted(flags)),
            reason="; ".join(flags[word] for word in sorted(flags)) or None,
        )
        return self.checked(result, parameters)


def surface_error_ml(mask: Mask, voxel_size_mm: Sequence[float]) -> float:
    """Volume in mL by which a mask is off if its whole surface lies off by a fifth of a voxel.

    The surface is the number of voxel faces times 2/3, which is right for a surface of random
    orientation (the mean over directions of ``|x| + |y| + |z|`` of a unit normal is 3/2).

    Examples
    --------
    >>> ball = np.linalg.norm(np.mgrid[-9:10, -9:10, -9:10], axis=0) < 8   # 2.1 mL
    >>> round(surface_error_ml(ball, (1, 1, 1)), 2), round(0.2 * 4 * np.pi * 8**2 / 1000, 2)
    (0.15, 0.16)
    """
    padded = np.pad(mask, 1)
    faces = sum(int((np.diff(padded, axis=axis) != 0).sum()) for axis in range(3))
    return SURFACE_ERROR_VOXELS * faces * 2 / 3 * float(np.prod(voxel_size_mm)) / 1000.0


def widened_limits(volumes_ml: Sequence[float], error_ml: float) -> tuple[float, float]:
    """Limits of a volume (the first of ``volumes_ml``) from those of its thresholds and an error.

    The two are independent, so their distances from the volume add in squares.

    Examples
    --------
    >>> widened_limits([10.0, 7.0, 13.0], 4.0)
    (5.0, 15.0)
    """
    volume = volumes_ml[0]
    low = volume - float(np.hypot(volume - min(volumes_ml), error_ml))
    high = volume + float(np.hypot(max(volumes_ml) - volume, error_ml))
    return max(0.0, low), high


def bounding_box(mask: Mask, *, margin: int = 0) -> tuple[slice, ...]:
    """Slices of the smallest box around a mask, widened by ``margin`` voxels.

    Examples
    --------
    >>> bounding_box(np.array([False, False, True, True, False, False]), margin=1)
    (slice(1, 5, None),)
    """
    edges = [(int(where.min()), int(where.max())) for where in np.nonzero(mask)]
    return tuple(slice(max(0, low - margin), high + margin + 1) for low, high in edges)


def block_means(image: Image, n: int) -> Image:
    """Means of n x n voxels in plane; the last block is filled with the edge's values.

    Examples
    --------
    >>> block_means(np.arange(6.0).reshape(3, 2, 1), 2).ravel().tolist()
    [1.5, 4.5]
    """
    if n == 1:
        return image
    padded = np.pad(image, [(0, -image.shape[0] % n), (0, -image.shape[1] % n), (0, 0)], "edge")
    x, y, z = padded.shape
    return padded.reshape(x // n, n, y // n, n, z).mean(axis=(1, 3))


def from_blocks(mask: Mask, n: int, shape: tuple[int, ...]) -> Mask:
    """A mask of n x n blocks on the fine grid, its staircase rounded off.

    Examples
    --------
    >>> from_blocks(np.ones((2, 2, 1), bool), 2, (3, 4, 1)).shape
    (3, 4, 1)
    """
    if n == 1:
        return mask
    fine = mask.repeat(n, 0).repeat(n, 1)[: shape[0], : shape[1]]
    if not fine.any():
        return fine
    box = bounding_box(fine, margin=2 * n)
    rounded = np.zeros(shape, bool)
    rounded[box] = smoothed(fine[box].astype(np.float32), [n / 2, n / 2, 0]) > 0.5
    return rounded


def check_grid(
    images: Mapping[str, Image], brain: Mask, voxel_size_mm: Sequence[float]
) -> tuple[float, float, float]:
    """Refuse images of different shapes and an empty brain mask; give the voxel size as floats.

    Raises
    ------
    NotSegmentable
        With the fault and how to fix it.

    Examples
    --------
    >>> check_grid({"dwi": np.zeros((2, 2, 2))}, np.ones((2, 2, 2), bool), (1, 1, 5))
    (1.0, 1.0, 5.0)
    """
    for kind, image in images.items():
        if image.shape != brain.shape:
            raise NotSegmentable(
                f"the {kind} image has the shape {image.shape}, the brain mask {brain.shape}: "
                "both must lie on one grid; resample one to the other first"
            )
        if not np.isfinite(image).all():
            raise NotSegmentable(
                f"the {kind} image holds values that are not finite; conform it first"
            )
    if not brain.any():
        raise NotSegmentable(
            "the brain mask is empty, so there is nothing to segment; check the scan's contrast "
            "and field of view, or supply a mask-brain"
        )
    x, y, z = (float(size) for size in voxel_size_mm)
    if min(x, y, z) <= 0:
        raise NotSegmentable(f"the voxel size {(x, y, z)} mm is not positive; fix the header")
    return x, y, z
