"""Every segmentation of one visit: what is segmented from what, and a status where it cannot be."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

from corelab.imaging import ImageFault, save_image
from corelab.imaging.brain_quality import mask_warnings
from corelab.imaging.lesion_checks import volume_fault
from corelab.imaging.values import SHIFTED
from corelab.records.images import Mask, Prepared, Scan, Segmented
from corelab.segmentation.methods import DERIVED, METHODS, NO_METHOD, Derived
from corelab.segmentation.scans import BY_HEADERS, Inputs, NotSegmentable, Target, VisitScans
from corelab.segmentation.segmenter import (
    Segmentation,
    Segmenter,
    ThresholdSegmenter,
    joined_reasons,
)
from corelab.settings.base import Settings
from corelab.settings.segmentation import ExternalProgram, SegmentationSettings
from corelab.study.naming import mask_path

#: Status of a result that was not requested, or is not written.
_LEFT_OUT = "left out"
_DEFAULTS = SegmentationSettings()
_P = TypeVar("_P", bound=Settings)


@dataclass(frozen=True)
class _Result:
    """A segmentation with the scans it came from, before it is written."""

    label: str
    source: str
    kind: str
    grid: str | None
    scans: tuple[Scan, ...]
    segmentation: Segmentation | None = None
    reference: nib.Nifti1Image | None = None
    status: str = "failed"
    reason: str | None = None
    parameters: Mapping[str, Any] = field(default_factory=dict)

    @property
    def desc(self) -> str | None:
        """Entity of the file's name: the variant of the source."""
        return self.source.partition(":")[2] or None


def segment_visit(
    record: Prepared,
    folder: str | Path,
    *,
    disease: str,
    settings: SegmentationSettings = _DEFAULTS,
    only: tuple[str, str] | None = None,
    scans: VisitScans | None = None,
) -> Segmented:
    """Segment every lesion that a prepared visit's scans can show.

    The methods of a disease stand in :data:`corelab.segmentation.methods.METHODS`. ``stroke``:
    dwi/adc -> infarct (``pipeline``, and ``pipeline:adc620``); FLAIR -> infarct (``pipeline`` where
    the visit has no dwi, else ``pipeline:flair``); ncct -> haematoma (``pipeline``) and infarct
    (``pipeline:ncct``); gre -> haematoma (``pipeline:gre``). ``glioma``: T1c (with T1w) ->
    enhancing, FLAIR or T2w -> oedema; both -> necrosis (enclosed by enhancing tumour), tumourcore
    (enhancing and necrosis) and whole-tumour (core and oedema); nonenhancing is
    ``not_computable``, because FLAIR and T1c show it as oedema.
    An image that shows the lesion but has no method (T2w in ``stroke``) gives an entry with the
    status ``not_computable`` and the reason.
    Programs and networks of ``settings.external`` add their masks as ``pipeline:<id>``, with their
    agreement with the pipeline's own mask on the same grid (``pipeline_dice``).
    A supplied ``mask-chronic`` is taken out of the infarct on FLAIR.

    Parameters
    ----------
    record
        Of the prepare stage.
    folder
        Root of the study's results; every path in the record is relative to it.
    disease
        ``stroke`` or ``glioma``.
    settings
        Block ``segmentation`` of the config.
    only
        Label and source of the one segmenter to run (of stroke, where none needs another's
        result); the others have no entry.
    scans
        From a caller who segments one head again and again: what it keeps is computed once.

    Returns
    -------
    Segmented
        One mask per lesion and source, also where it failed (``status``, ``reason``). An empty
        mask is a result.

    Raises
    ------
    ValueError
        With an unknown disease or setting.
    BackendError
        If a program or network of ``segmentation.external`` cannot be used.

    Examples
    --------
    >>> segment_visit(Prepared("01", "day5"), ".", disease="stroke").masks
    ()
    """
    known = {method.disease for method in METHODS}
    if disease not in known:
        raise ValueError(f"disease is '{disease}'; known are {', '.join(sorted(known))}")
    visit = scans or VisitScans(record, folder)
    done: dict[str, _Result] = {}
    results = []
    for method in METHODS:
        scan = method.target(visit) if method.disease == disease else None
        if scan is None:
            continue
        gather = partial(_after, method, done)
        result = _run(visit, method, scan, getattr(settings, method.block), gather, only)
        done[method.label] = result = replace(result, source=method.named(visit))
        results += [result] * method.written
    for derived in DERIVED:
        if all(label in done for label in derived.needs):
            done[derived.label] = _derived(derived, done)
            results.append(done[derived.label])
    own = {(result.label, result.grid): result for result in reversed(results)}
    for backend in settings.external:
        if visit.first(*backend.inputs) is not None:
            found = _external(visit, backend, only)
            results.append(_with_agreement(found, own.get((found.label, found.grid))))
    results += _without_method(visit, disease, results)
    masks = [_written(result, visit) for result in results if result.status != _LEFT_OUT]
    return Segmented(record.participant_id, record.visit, tuple(masks)).settled()


def _after(
    method: ThresholdSegmenter[Any],
    done: Mapping[str, _Result],
    visit: VisitScans,
    target: Target,
    parameters: Any,
) -> Inputs:
    """Images of a method, with the masks of those that it runs after."""
    found = method.gather(visit, target, parameters)
    earlier = {label: done[label].segmentation for label in method.after if label in done}
    masks = {label: one.mask.astype(np.float64) for label, one in earlier.items() if one}
    return replace(found, images={**found.images, **masks})


def _run(
    visit: VisitScans,
    segmenter: Segmenter[_P],
    scan: Scan,
    parameters: _P,
    gather: Callable[[VisitScans, Target, _P], Inputs],
    only: tuple[str, str] | None,
) -> _Result:
    """Run one segmenter on a scan's grid; a fault of a file becomes a status."""
    result = _Result(
        *(segmenter.label, segmenter.source, scan.kind, scan.grid, (scan,)),
        parameters=parameters.plain(),
    )
    if only not in (None, (segmenter.label, segmenter.source)):
        return replace(result, status=_LEFT_OUT)
    try:
        reference = visit.load(scan)
        inputs = gather(visit, Target(scan, reference), parameters)
        result = replace(result, scans=inputs.scans, reference=reference)
        brain = visit.brain(scan.grid, reference)
        segmentation = segmenter(inputs.images, brain, reference.header.get_zooms()[:3], parameters)
    except ImageFault as fault:
        return replace(result, reason=str(fault))
    except NotSegmentable as fault:
        whole = all(used.status == "ok" for used in result.scans)
        return replace(result, status="not_computable" if whole else "failed", reason=str(fault))
    flags = mask_warnings(visit.record, scan.grid)
    shifted = [
        f"{used.kind}: {note}"
        for used in inputs.scans
        for note in used.notes
        if note.startswith(SHIFTED)
    ]
    if shifted:
        flags["intensities_shifted"] = "; ".join(shifted)
    by_headers = [note for note in inputs.notes if note.endswith(BY_HEADERS)]
    if by_headers:
        flags["not_registered"] = "; ".join(by_headers)
    notes = [note for note in inputs.notes if note not in by_headers]
    own = [segmentation.reason] if segmentation.reason else []
    segmentation = replace(segmentation, flags=tuple(sorted({*segmentation.flags, *flags})))
    return replace(
        result,
        segmentation=segmentation,
        status="ok",
        reason=joined_reasons([*notes, *own, *flags.values()]),
    )


def _derived(derived: Derived, done: Mapping[str, _Result]) -> _Result:
    """Result derived from other segmentations, or the reason why there is none."""
    parts = [done[label] for label in derived.parts]
    scans = {scan.scan_id: scan for part in parts for scan in part.scans}
    result = replace(
        parts[0],
        label=derived.label,
        scans=tuple(scans.values()),
        segmentation=None,
        status="not_computable",
        reason=derived.reason,
        parameters={},
    )
    if derived.derive is None:
        return result
    failed = next((part for part in parts if part.segmentation is None), None)
    if failed is not None:
        reason = f"{failed.label} could not be segmented: {failed.reason}"
        return replace(result, reason=reason)
    assert parts[0].reference is not None
    made = derived.derive(
        [part.segmentation for part in parts if part.segmentation is not None],
        parts[0].reference.header.get_zooms()[:3],
    )
    return replace(
        result,
        segmentation=made,
        status="ok",
        reason=joined_reasons([*(part.reason for part in parts), made.reason]),
        parameters=made.parameters,
    )


def _external(visit: VisitScans, backend: ExternalProgram, only: tuple[str, str] | None) -> _Result:
    """A configured program or network on the grid of the first of its kinds of scan."""
    from corelab.segmentation.external import SEGMENTERS

    kinds = list(backend.inputs)
    scan = visit.first(kinds[0]) or visit.first(*kinds)
    assert scan is not None
    try:
        affine = np.asarray(visit.load(scan).affine)
    except (ImageFault, NotSegmentable):
        affine = np.eye(4)  # _run meets the same fault, and makes it a status

    def gather(visit: VisitScans, target: Target, parameters: ExternalProgram) -> Inputs:
        found = visit.together(target, kinds)
        absent = [kind for kind in kinds if kind not in found.images]
        if absent:
            raise NotSegmentable(
                f"{backend.id} needs {', '.join(kinds)}; the visit has no usable "
                f"{', '.join(absent)}"
            )
        return found

    return _run(visit, SEGMENTERS[backend.kind](backend, affine), scan, backend, gather, only)


def _with_agreement(result: _Result, own: _Result | None) -> _Result:
    """A supplied program's or network's result with its agreement with the pipeline's own."""
    theirs, ours = result.segmentation, own.segmentation if own else None
    if theirs is None or ours is None or own is None:
        return result
    both = float(theirs.mask.sum() + ours.mask.sum())
    shared = 2.0 * float((theirs.mask & ours.mask).sum())
    agreement = {
        "pipeline_source": own.source,
        # Two empty masks agree; an overlap is not defined.
        "pipeline_dice": round(shared / both, 4) if both else None,
        "pipeline_difference_ml": round(theirs.volume_ml - ours.volume_ml, 4),
    }
    return replace(result, segmentation=replace(theirs, quality={**theirs.quality, **agreement}))


def _without_method(visit: VisitScans, disease: str, results: Sequence[_Result]) -> list[_Result]:
    """Rows that say that nothing segments an image, unless a mask or a program does."""
    label, always, alone = NO_METHOD[disease]
    kinds = {scan.kind for scan in visit.record.scans if not scan.label}
    if any(scan.label == label for scan in visit.record.scans):
        return []
    taken = {scan.kind for result in results for scan in result.scans}
    silent = [kind for kind in always if kind in kinds - taken]
    if not silent and not results and kinds and kinds <= {*always, *alone}:
        silent = [kind for kind in alone if kind in kinds][:1]
    found = []
    for kind in silent:
        scan = visit.scan(kind)
        assert scan is not None
        reason = (
            f"no method segments {label} on {kind}; supply a mask-{label} scan, or a program in "
            "segmentation.external"
        )
        place = (label, f"pipeline:{kind.lower()}", kind, scan.grid, (scan,))
        found.append(_Result(*place, status="not_computable", reason=reason))
    return found


def _written(result: _Result, visit: VisitScans) -> Mask:
    """The record's mask; its file and sidecar are written if there is one."""
    entry = Mask(
        *(result.label, result.source, result.desc),
        kind=result.kind,
        grid=result.grid,
        scan_ids=tuple(scan.scan_id for scan in result.scans),
        status=result.status,
        reason=result.reason,
        parameters=dict(result.parameters),
    )
    found = result.segmentation
    if found is None or result.reference is None:
        return entry
    judged = visit.record.brain_mask_quality.get(result.grid or "")
    fault = volume_fault(found.volume_ml, judged.volume_ml if judged else None)
    if fault:
        return replace(
            entry,
            status="failed",
            reason=joined_reasons([fault, result.reason]),
            quality={"volume_ml": found.volume_ml, "flags": list(found.flags)},
        )
    path = mask_path(
        visit.record.participant_id,
        visit.record.visit,
        result.label,
        kind=result.kind,
        desc=result.desc,
    )
    quality = {
        "volume_ml": found.volume_ml,
        "volume_low_ml": found.volume_low_ml,
        "volume_high_ml": found.volume_high_ml,
        "flags": list(found.flags),
        **found.quality,
    }
    sidecar = {
        "unit": "label",
        "label": result.label,
        "source": result.source,
        "inputs": [
            {"name": Path(scan.file).name, "scan_id": scan.scan_id, "sha256": scan.sha256}
            for scan in result.scans
        ],
        "parameters": entry.parameters,
        "quality": quality,
        "reason": result.reason,
    }
    voxels: NDArray[np.uint8] = found.mask.astype(np.uint8)
    image = nib.Nifti1Image(voxels, result.reference.affine)
    save_image(image, visit.folder / path, sidecar=sidecar, dtype=np.uint8)
    return replace(entry, path=path, quality=quality)
