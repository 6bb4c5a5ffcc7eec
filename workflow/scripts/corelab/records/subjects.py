"""Records of all visits of a subject: ``normalise`` and ``quality``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

from corelab.records.base import Record, by_key, many, omitted, one


@dataclass(frozen=True, slots=True)
class Anchor(Record):
    """The scan of a subject that is fitted to the template."""

    visit: str
    grid: str
    kind: str


@dataclass(frozen=True, slots=True)
class Joined(Record):
    """Rigid fit of a visit's reference scan to the anchor; ``path`` is its ITK matrix."""

    method: str | None = None
    status: str = "ok"
    reason: str | None = None
    quality: Mapping[str, Any] = field(default_factory=dict)
    path: str | None = omitted()


@dataclass(frozen=True, slots=True)
class Chain(Record):
    """Transforms between MNI and a grid in ANTs order.

    ``to_mni`` with ``whichtoinvert`` maps points of MNI to points of the grid, ``from_mni`` with
    ``from_mni_whichtoinvert`` the other way.
    """

    to_mni: tuple[str, ...]
    whichtoinvert: tuple[bool, ...]
    from_mni: tuple[str, ...]
    from_mni_whichtoinvert: tuple[bool, ...]


@dataclass(frozen=True, slots=True)
class Template(Record):
    """The template that a subject was fitted to."""

    name: str
    file: str


@dataclass(frozen=True, slots=True)
class NormalisedMask(Record):
    """A native mask in template space.

    Attributes
    ----------
    path, native_path
        In template and in native space; None where it could not be brought over.
    status, reason
        Of the mask in template space.
    native_reason
        What is doubtful about the native mask.
    quality
        ``native_ml``, ``mni_ml``, ``expected_ml`` and ``volume_discrepancy_percent``.
    """

    visit: str
    label: str
    source: str
    desc: str | None = None
    repeat: int = 1
    path: str | None = None
    native_path: str | None = None
    grid: str | None = None
    scan_ids: tuple[str, ...] = ()
    status: str = "ok"
    reason: str | None = None
    native_reason: str | None = None
    quality: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Normalised(Record):
    """Record of the stage ``normalise`` of a subject.

    Attributes
    ----------
    anchor
        None where no visit has an image.
    method
        ``syn`` or ``affine``; None without a fit.
    preset, settings
        Of the registration.
    template
        Name and file.
    lesion
        How the lesion was treated (``requested``, ``used``, ``excluded_ml`` ...).
    visits
        Visit -> its rigid fit to the anchor.
    transforms
        Visit -> grid -> chain.
    quality
        Metrics of the fit.
    """

    stage: ClassVar[str] = "normalise"
    participant_id: str
    anchor: Anchor | None = field(default=None, metadata=one(Anchor))
    method: str | None = None
    preset: str | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    status: str = "ok"
    reason: str | None = None
    warning: str | None = None
    template: Template | None = field(default=None, metadata=one(Template))
    lesion: Mapping[str, Any] | None = None
    visits: Mapping[str, Joined] = by_key(Joined)
    transforms: Mapping[str, Mapping[str, Chain]] = field(
        default_factory=dict,
        metadata={
            "read": lambda visits: {
                visit: {grid: Chain.from_json(chain) for grid, chain in grids.items()}
                for visit, grids in visits.items()
            }
        },
    )
    masks: tuple[NormalisedMask, ...] = many(NormalisedMask)
    quality: Mapping[str, Any] = field(default_factory=dict)
    products: Mapping[str, str] | None = omitted()


@dataclass(frozen=True, slots=True)
class Checked(Record):
    """Record of the stage ``quality``: figures of a subject's fit and masks.

    Attributes
    ----------
    fit, tile, layer
        Figure of the fit, the picture of the contact sheet, and the fitted scan alone in the planes
        of the template; None without an anchor.
    masks
        Visit -> figure of its masks.
    """

    stage: ClassVar[str] = "quality"
    participant_id: str
    status: str
    reason: str | None = None
    anchor: Anchor | None = field(default=None, metadata=one(Anchor))
    method: str | None = None
    warning: str | None = None
    lesion: str | None = None
    quality: Mapping[str, Any] = field(default_factory=dict)
    fit: str | None = None
    tile: str | None = None
    layer: str | None = None
    masks: Mapping[str, str] = field(default_factory=dict)
    products: Mapping[str, str] | None = omitted()
