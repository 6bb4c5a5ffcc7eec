"""The records of one visit together, and its masks."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable
from dataclasses import dataclass, fields

from corelab.provenance.products import read_json
from corelab.records.base import RecordError
from corelab.records.images import Mask, Prepared, Segmented
from corelab.records.perfusion import Perfused


@dataclass(frozen=True, slots=True)
class VisitMask(Mask):
    """A mask of a visit, supplied or of a stage.

    Attributes
    ----------
    visit
        Of the records.
    origin
        Stage that wrote its file: ``prepare`` for supplied masks, ``segment`` or ``perfuse``.
    repeat, space
        As in :class:`corelab.records.images.Scan`.
    sha256
        Of a supplied file.
    on_kind
        Kind of the image on whose grid a supplied mask lies.
    """

    visit: str = ""
    origin: str = "prepare"
    repeat: int = 1
    space: str = "native"
    sha256: str | None = None
    on_kind: str | None = None


def visit_masks(
    prepared: Prepared | None,
    segmented: Segmented | None = None,
    perfused: Perfused | None = None,
    *,
    labels: Collection[str] | None = None,
    repeat: int | None = None,
    space: str | None = None,
    usable: bool = False,
) -> tuple[VisitMask, ...]:
    """Masks of a visit: supplied ones, then segmented ones, then those of perfusion.

    Parameters
    ----------
    prepared, segmented, perfused
        Records of the visit; None where a stage does not apply.
    labels
        Labels that are wanted; None: all lesions. Brain masks are given only where named.
    repeat, space
        Only masks of this reading, and in this space (``native`` or ``MNI152``); None: all. Masks
        of stages are of the first reading and native.
    usable
        Only masks that have a file.

    Examples
    --------
    >>> from corelab.records.images import Scan
    >>> scan = Scan("s1", "mask-infarct", label="infarct", reader="r1", path="a.nii.gz", grid="g1")
    >>> failed = Mask("infarct", "pipeline", status="failed", reason="no brain mask")
    >>> prepared, segmented = Prepared("1", "v", scans=(scan,)), Segmented("1", "v", (failed,))
    >>> [mask.source for mask in visit_masks(prepared, segmented, usable=True)]
    ['r1']
    """
    found = [
        VisitMask(
            *(scan.label, scan.mask_source, scan.mask_source, scan.path, scan.kind, scan.grid),
            *((scan.scan_id,), scan.status, scan.reason),
            visit=prepared.visit if prepared else "",
            repeat=scan.repeat,
            space=scan.space,
            sha256=scan.sha256,
            on_kind=scan.on_kind,
        )
        for scan in (prepared.scans if prepared else ())
        if scan.label is not None
    ]
    for record in (segmented, perfused):
        if record is None:
            continue
        for mask in record.masks:
            own = {one.name: getattr(mask, one.name) for one in fields(Mask)}
            found.append(VisitMask(**own, visit=record.visit, origin=record.stage))
    return tuple(
        mask
        for mask in found
        if (mask.label in labels if labels is not None else mask.label != "brain")
        and repeat in (None, mask.repeat)
        and space in (None, mask.space)
        and (mask.usable or not usable)
    )


@dataclass(frozen=True, slots=True)
class VisitRecords:
    """Records of the image stages of one visit; None where a stage does not apply."""

    visit: str
    prepare: Prepared
    segment: Segmented | None = None
    perfuse: Perfused | None = None

    def masks(
        self,
        *,
        labels: Collection[str] | None = None,
        repeat: int | None = None,
        space: str | None = None,
        usable: bool = False,
    ) -> tuple[VisitMask, ...]:
        """Masks of the visit, see :func:`visit_masks`."""
        return visit_masks(
            *(self.prepare, self.segment, self.perfuse),
            labels=labels, repeat=repeat, space=space, usable=usable,
        )  # fmt: skip


def read_visits(paths: Iterable[str | os.PathLike[str]]) -> list[VisitRecords]:
    """Records of a subject's visits, grouped by visit in the order given.

    Parameters
    ----------
    paths
        ``prepare.json``, ``segment.json`` and ``perfuse.json`` of the visits.

    Raises
    ------
    RecordError
        If a file is no record of these stages, or a visit has no ``prepare.json``.
    """
    prepared: dict[str, Prepared] = {}
    segmented: dict[str, Segmented] = {}
    perfused: dict[str, Perfused] = {}
    for path in paths:
        content = read_json(path)
        try:
            match content.get("stage"):
                case Segmented.stage:
                    segmented[content["visit"]] = Segmented.from_json(content)
                case Perfused.stage:
                    perfused[content["visit"]] = Perfused.from_json(content)
                case _:
                    prepared[content["visit"]] = Prepared.from_json(content)
        except RecordError as fault:
            raise RecordError(f"{os.fspath(path)}: {fault}") from None
    return [
        VisitRecords(visit, record, segmented.get(visit), perfused.get(visit))
        for visit, record in prepared.items()
    ]
