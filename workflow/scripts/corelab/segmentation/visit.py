"""Every segmentation of one visit: what is segmented from what, and a status where it cannot be."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

from corelab.imaging import ImageFault, load_image, resample_to, same_grid, save_image
from corelab.imaging.brain_quality import mask_fault, mask_warnings
from corelab.imaging.head_fit import HeadFit
from corelab.imaging.lesion_checks import volume_fault
from corelab.imaging.values import SHIFTED
from corelab.records import Mask, Prepared, Scan, Segmented
from corelab.registration.transforms import apply_transforms
from corelab.segmentation.diffusion import (
    DiffusionInfarct,
    StrictDiffusionInfarct,
    apparent_diffusion,
)
from corelab.segmentation.dural import template_coordinates
from corelab.segmentation.flair import FlairInfarct
from corelab.segmentation.glioma import EnhancingTumour, Oedema, necrosis, union_of
from corelab.segmentation.haematoma import CtHaematoma, GradientEchoHaematoma
from corelab.segmentation.hypodensity import CtHypodensity, refuse_thick
from corelab.segmentation.segmenter import (
    Image,
    NotSegmentable,
    Segmentation,
    Segmenter,
    joined_reasons,
)
from corelab.segmentation.segmenter import Mask as Voxels
from corelab.settings.base import Settings
from corelab.settings.segmentation import ExternalProgram, SegmentationSettings
from corelab.study.naming import mask_path

#: End of the note on images that no registration joins.
_BY_HEADERS = "by the headers alone"
#: Status of a result that was not requested.
_LEFT_OUT = "left out"
_DEFAULTS = SegmentationSettings()
_P = TypeVar("_P", bound=Settings)


@dataclass(frozen=True)
class _Result:
    """A segmentation with the scans it came from, before it is written."""

    label: str
    source: str
    desc: str | None
    kind: str
    grid: str | None
    scans: tuple[Scan, ...]
    segmentation: Segmentation | None
    reference: nib.Nifti1Image | None
    status: str
    reason: str | None
    parameters: Mapping[str, Any]


class _Visit:
    """The scans of a prepared visit, brought to one grid on request."""

    #: Label and source of the one segmenter to run; None runs all.
    only: tuple[str, str] | None = None

    def __init__(self, record: Prepared, folder: Path) -> None:
        self.record = record
        self.folder = folder
        #: Scan id -> images of MNI coordinates (:func:`_in_template`).
        self.coordinates: dict[str, dict[str, Image]] = {}

    def scan(self, kind: str) -> Scan | None:
        """The scan of a kind: whole ones first, then the lowest repeat and id."""
        of_kind = [scan for scan in self.record.scans if scan.kind == kind]
        order = sorted(
            of_kind,
            key=lambda s: (s.status != "ok", s.repeat, s.scan_id),
        )
        return order[0] if order else None

    def first(self, *kinds: str) -> Scan | None:
        """The first usable scan of several kinds, else the first present one."""
        there = [scan for scan in map(self.scan, kinds) if scan is not None]
        whole = [scan for scan in there if scan.status == "ok"]
        return next(iter(whole or there), None)

    def load(self, scan: Scan) -> nib.Nifti1Image:
        """A scan's conformed image.

        Raises
        ------
        NotSegmentable
            If its preparation failed.
        ImageFault
            If the file is damaged.
        """
        if scan.status != "ok" or scan.path is None:
            raise NotSegmentable(f"{scan.kind} scan {scan.scan_id} failed: {scan.reason}")
        kind = scan.kind
        return load_image(self.folder / scan.path, kind=kind)

    def brain(self, grid: str | None, reference: nib.Nifti1Image) -> Voxels:
        """Brain mask of a grid.

        Raises
        ------
        NotSegmentable
            If there is none, or its volume is that of no brain.
        """
        fault = mask_fault(self.record, grid)
        if fault is not None:
            raise NotSegmentable(fault)
        path = None if grid is None else self.record.brain_masks.get(grid)
        if path is None:
            raise NotSegmentable(f"grid {grid} has no brain mask; supply a mask-brain scan")
        mask = load_image(self.folder / path, kind="mask-brain")
        if not same_grid(mask, reference):
            mask = resample_to(mask, reference, order=0)
        return np.asarray(mask.dataobj) > 0.5

    def on_grid(
        self, scan: Scan, target: Scan, reference: nib.Nifti1Image
    ) -> tuple[Image, str | None]:
        """A scan on the grid of another, through the visit's rigid transforms.

        A scan that has to be moved is 0 outside its own brain mask.

        Returns
        -------
        values, note
            The note says when a transform was missing, so that headers alone were trusted.
        """
        image = self.load(scan)
        interpolation = "label" if scan.label else "linear"
        if same_grid(image, reference):
            return np.asarray(image.dataobj, np.float64), None
        masked = scan.grid in self.record.brain_masks
        if not scan.label and masked and mask_fault(self.record, scan.grid) is None:
            # Two brain masks err in different places: scalp that one lets in, the other keeps out.
            inside = self.brain(scan.grid, image)
            image = nib.Nifti1Image(
                np.where(inside, np.asarray(image.dataobj), np.float32(0)), image.affine
            )
        steps: list[str | Path] = []
        inverted: list[bool] = []
        note = None
        for grid, inverse in ((target.grid, True), (scan.grid, False)):
            found = None if grid is None else self.record.transforms.get(grid)
            if found is None or found.status != "ok":
                if grid != self.record.reference:
                    note = f"{scan.kind} was brought to {target.kind} {_BY_HEADERS}"
                continue
            if found.path:
                steps.append(self.folder / found.path)
                inverted.append(inverse)
        if note:
            steps, inverted = [], []
        moved = apply_transforms(image, reference, steps, interpolation, inverted=inverted)
        return np.asarray(moved.dataobj, np.float64), note


def visit_scans(record: Prepared, folder: str | Path) -> _Visit:
    """The scans of a prepared visit; ``scan``, ``load``, ``brain`` and ``on_grid`` bring them.

    Examples
    --------
    >>> visit_scans(Prepared("1", "v"), ".").scan("T1c") is None
    True
    """
    return _Visit(record, Path(folder))


def segment_visit(
    record: Prepared,
    folder: str | Path,
    *,
    disease: str,
    settings: SegmentationSettings = _DEFAULTS,
    only: tuple[str, str] | None = None,
    scans: _Visit | None = None,
) -> Segmented:
    """Segment every lesion that a prepared visit's scans can show.

    ``stroke``: dwi/adc -> infarct (``pipeline``, and ``pipeline:adc620``); FLAIR -> infarct
    (``pipeline`` where the visit has no dwi, else ``pipeline:flair``); ncct -> haematoma
    (``pipeline``) and infarct (``pipeline:ncct``); gre -> haematoma (``pipeline:gre``).
    ``glioma``: T1c (with T1w) -> enhancing, FLAIR or T2w -> oedema; both -> necrosis (enclosed by
    enhancing tumour), tumourcore (enhancing and necrosis) and whole-tumour (core and oedema);
    nonenhancing is ``not_computable``, because FLAIR and T1c show it as oedema.
    An image that shows the lesion but has no method (T2w in ``stroke``) gives an entry with the
    status ``not_computable`` and the reason.
    Programs and networks of ``settings.external`` add their masks as ``pipeline:<id>``.
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
        Of :func:`visit_scans`, from a caller who segments one head again and again: what it
        keeps is computed once.

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
    visit = scans or _Visit(record, Path(folder))
    visit.only = only
    plans: dict[str, Callable[[_Visit, SegmentationSettings], list[_Result]]] = {
        "stroke": _stroke,
        "glioma": _glioma,
    }
    if disease not in plans:
        raise ValueError(f"disease is '{disease}'; known are {', '.join(sorted(plans))}")
    results = plans[disease](visit, settings)
    results += [
        _external(visit, backend) for backend in settings.external if _has_any(visit, backend)
    ]
    results += _without_segmenter(visit, disease, results)
    masks = [_written(result, visit) for result in results if result.status != _LEFT_OUT]
    return Segmented(record.participant_id, record.visit, tuple(masks)).settled()


# --- stroke ------------------------------------------------------------------------------------


def _stroke(visit: _Visit, settings: SegmentationSettings) -> list[_Result]:
    results = []
    diffusion = visit.first("dwi", "adc")
    if diffusion is not None:
        results += [
            _run(visit, DiffusionInfarct(), diffusion, settings.infarct, None, _diffusion),
            _run(
                visit,
                StrictDiffusionInfarct(),
                diffusion,
                settings.infarct_strict,
                "adc620",
                _diffusion,
            ),
        ]
    flair = visit.scan("FLAIR")
    if flair is not None:
        result = _run(visit, FlairInfarct(), flair, settings.infarct_flair, "flair", _with_chronic)
        if diffusion is None:
            result = replace(result, source="pipeline", desc=None)
        results.append(result)
    ncct = visit.scan("ncct")
    if ncct is not None:
        results += [
            _run(visit, CtHaematoma(), ncct, settings.haematoma, None, _in_template),
            _run(visit, CtHypodensity(), ncct, settings.infarct_ncct, "ncct", _thin_slices),
        ]
    gre = visit.scan("gre")
    if gre is not None:
        results.append(
            _run(visit, GradientEchoHaematoma(), gre, settings.haematoma_gre, "gre", _alone)
        )
    return results


@dataclass(frozen=True)
class _Inputs:
    """Images on one grid, the scans they came from, and notes on how they got there."""

    images: dict[str, Image]
    scans: tuple[Scan, ...]
    notes: tuple[str, ...] = ()


_Gather = Callable[[_Visit, Scan, nib.Nifti1Image, Any], _Inputs]


def _alone(
    visit: _Visit,
    scan: Scan,
    reference: nib.Nifti1Image,
    parameters: Any,
) -> _Inputs:
    return _Inputs({scan.kind: np.asarray(reference.dataobj, np.float64)}, (scan,))


def _in_template(
    visit: _Visit,
    scan: Scan,
    reference: nib.Nifti1Image,
    parameters: Any,
) -> _Inputs:
    """A CT with the MNI coordinates of its voxels, by the fit of its brain mask if there is one."""
    found = _alone(visit, scan, reference, parameters)
    if scan.scan_id not in visit.coordinates:
        judged = visit.record.brain_mask_quality.get(scan.grid or "")
        head = judged.head if judged is not None else None
        known = head is not None and head.scan_id == scan.scan_id
        fit = HeadFit(np.reshape(head.matrix, (4, 4)), head.score) if head and known else None
        visit.coordinates[scan.scan_id] = template_coordinates(
            found.images[scan.kind], np.asarray(reference.affine), fit
        )[0]
    return replace(found, images={**found.images, **visit.coordinates[scan.scan_id]})


def _thin_slices(
    visit: _Visit,
    scan: Scan,
    reference: nib.Nifti1Image,
    parameters: Any,
) -> _Inputs:
    """As :func:`_in_template`, of slices that were acquired thin: resampling makes none thin."""
    acquired = [
        scan.metadata.get(name) for name in ("slice_thickness_mm", "largest_slice_distance_mm")
    ]
    for size_mm in acquired:
        if isinstance(size_mm, (int, float)):
            refuse_thick(float(size_mm), parameters.slice_above_mm)
    return _in_template(visit, scan, reference, parameters)


def _together(
    visit: _Visit,
    scan: Scan,
    reference: nib.Nifti1Image,
    kinds: Sequence[str],
) -> _Inputs:
    """The scan and those of other kinds on its grid; a failed one is noted and left out."""
    images: dict[str, Image] = {scan.kind: np.asarray(reference.dataobj, np.float64)}
    scans, notes = [scan], []
    for kind in kinds:
        other = visit.scan(kind)
        if other is None or kind == scan.kind:
            continue
        try:
            images[kind], note = visit.on_grid(other, scan, reference)
        except (ImageFault, NotSegmentable) as fault:
            notes.append(f"without the {kind} scan: {fault}")
            continue
        scans.append(other)
        if note:
            notes.append(note)
    return _Inputs(images, tuple(scans), tuple(notes))


def _diffusion(
    visit: _Visit,
    scan: Scan,
    reference: nib.Nifti1Image,
    parameters: Any,
) -> _Inputs:
    """DWI and ADC; where there is no ADC, it is computed from b0 and DWI."""
    found = _together(visit, scan, reference, ("adc",))
    if "adc" in found.images or "dwi" not in found.images:
        return found
    with_b0 = _together(visit, scan, reference, ("b0",))
    if "b0" not in with_b0.images:
        return replace(found, notes=(*found.notes, *with_b0.notes))
    b_value = scan.metadata.get("b_value") or parameters.b_value_s_mm2
    images = dict(with_b0.images)
    images["adc"] = apparent_diffusion(images.pop("b0"), images["dwi"], float(b_value))
    note = f"ADC computed from b0 and DWI with b = {float(b_value):g} s/mm2"
    return _Inputs(images, with_b0.scans, (*found.notes, *with_b0.notes, note))


def _with_chronic(
    visit: _Visit,
    scan: Scan,
    reference: nib.Nifti1Image,
    parameters: Any,
) -> _Inputs:
    found = _together(visit, scan, reference, ("mask-chronic",))
    images = {kind.removeprefix("mask-"): image for kind, image in found.images.items()}
    return replace(found, images=images)


def _run(
    visit: _Visit,
    segmenter: Segmenter[_P],
    scan: Scan,
    parameters: _P,
    desc: str | None,
    gather: _Gather,
) -> _Result:
    """Run one segmenter on a scan's grid; a fault of a file becomes a status."""
    result = _Result(
        segmenter.label,
        segmenter.source,
        desc,
        scan.kind,
        scan.grid,
        (scan,),
        None,
        None,
        "failed",
        None,
        parameters.plain(),
    )
    if visit.only not in (None, (segmenter.label, segmenter.source)):
        return replace(result, status=_LEFT_OUT)
    try:
        reference = visit.load(scan)
        inputs = gather(visit, scan, reference, parameters)
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
    by_headers = [note for note in inputs.notes if note.endswith(_BY_HEADERS)]
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


# --- images that nothing segments ---------------------------------------------------------------

#: Disease -> label, kinds that show it but have no segmenter (each gets a row), and kinds of which
#: a visit that has no others gets one row. T1w, T1c and b0 serve registration and the ADC.
_NO_SEGMENTER = {
    "stroke": ("infarct", ("T2w",), ("T1w", "T1c", "b0")),
    "glioma": ("whole-tumour", (), ("T1w", "dwi", "adc", "b0", "ncct", "gre")),
}


def _without_segmenter(visit: _Visit, disease: str, results: Sequence[_Result]) -> list[_Result]:
    """Rows that say that nothing segments an image, unless a mask or a program does."""
    label, always, alone = _NO_SEGMENTER[disease]
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
        source = f"pipeline:{kind.lower()}"
        found.append(
            _Result(
                label, source, kind.lower(), kind, scan.grid, (scan,), None, None,
                "not_computable", reason, {},
            )
        )  # fmt: skip
    return found


# --- programs of others -------------------------------------------------------------------------


def _has_any(visit: _Visit, backend: ExternalProgram) -> bool:
    return any(visit.scan(kind) is not None for kind in backend.inputs)


def _external(visit: _Visit, backend: ExternalProgram) -> _Result:
    """A configured program or network on the grid of the first of its kinds of scan."""
    from corelab.segmentation.external import SEGMENTERS

    kinds = list(backend.inputs)
    scan = visit.first(kinds[0]) or visit.first(*kinds)
    assert scan is not None
    try:
        affine = np.asarray(visit.load(scan).affine)
    except (ImageFault, NotSegmentable):
        affine = np.eye(4)  # _run meets the same fault, and makes it a status

    def gather(visit: _Visit, scan: Any, reference: Any, parameters: Any) -> _Inputs:
        found = _together(visit, scan, reference, kinds)
        absent = [kind for kind in kinds if kind not in found.images]
        if absent:
            raise NotSegmentable(
                f"{backend.id} needs {', '.join(kinds)}; the visit has no usable "
                f"{', '.join(absent)}"
            )
        return found

    segmenter = SEGMENTERS[backend.kind](backend, affine)
    return _run(visit, segmenter, scan, backend, backend.id, gather)


# --- glioma ------------------------------------------------------------------------------------


def _glioma(visit: _Visit, settings: SegmentationSettings) -> list[_Result]:
    """Everything on the grid of the T1c (where there is one), so that volumes add exactly."""
    post, fluid = visit.scan("T1c"), visit.first("FLAIR", "T2w")
    if post is None and fluid is None:
        return []
    base = post if post is not None and post.status == "ok" else (fluid or post)
    assert base is not None

    def oedema(extra: dict[str, Image]) -> _Result:
        def gather(visit: _Visit, scan: Any, reference: Any, parameters: Any) -> _Inputs:
            assert fluid is not None
            found = _together(visit, scan, reference, (fluid.kind,))
            if fluid.kind not in found.images:
                raise NotSegmentable("; ".join(found.notes))
            images = {fluid.kind: found.images[fluid.kind], **extra}
            return replace(found, images=images)

        return _run(visit, Oedema(), base, settings.oedema, None, gather)

    bright: dict[str, Image] = {}
    if fluid is not None:
        first = oedema({}).segmentation
        if first is not None and first.mask.any():
            bright = {"bright": first.mask.astype(np.float64)}
    results = []
    enhancing: _Result | None = None
    if post is not None:

        def gather_post(visit: _Visit, scan: Any, reference: Any, parameters: Any) -> _Inputs:
            found = _together(visit, scan, reference, ("T1w",))
            return replace(found, images={**found.images, **bright})

        enhancing = _run(visit, EnhancingTumour(), post, settings.enhancing, None, gather_post)
        results.append(enhancing)
    if fluid is not None:
        taken = enhancing.segmentation if enhancing is not None else None
        extra: dict[str, Image] = (
            {} if taken is None else {"enhancing": taken.mask.astype(np.float64)}
        )
        results.append(oedema(extra))
    if post is not None and fluid is not None:
        results += _core_and_whole(results[0], results[1])
    return results


#: Why the pipeline has no mask of non-enhancing tumour.
_NONENHANCING = (
    "on FLAIR and T1c non-enhancing tumour looks like oedema and is counted as oedema; supply a "
    "mask-nonenhancing to measure it"
)


def _core_and_whole(enhancing: _Result, oedema: _Result) -> list[_Result]:
    """Necrosis, tumour core and whole tumour from enhancing tumour and oedema."""
    blank = replace(enhancing, segmentation=None, parameters={})
    not_separable = replace(
        blank, label="nonenhancing", status="not_computable", reason=_NONENHANCING
    )
    size_mm = (
        (1.0, 1.0, 1.0)
        if enhancing.reference is None
        else enhancing.reference.header.get_zooms()[:3]
    )
    dead = _derived(blank, "necrosis", (enhancing,), partial(necrosis, voxel_size_mm=size_mm))
    core = _derived(blank, "tumourcore", (enhancing, dead), partial(union_of, "tumourcore"))
    parts = (enhancing, dead, oedema)
    whole = _derived(blank, "whole-tumour", parts, partial(union_of, "whole-tumour"))
    return [dead, not_separable, core, whole]


def _derived(
    blank: _Result,
    label: str,
    parts: Sequence[_Result],
    derive: Callable[..., Segmentation],
) -> _Result:
    """Result derived from other segmentations, or the reason why there is none."""
    scans = {scan.scan_id: scan for part in parts for scan in part.scans}
    result = replace(blank, label=label, scans=tuple(scans.values()))
    found = [part.segmentation for part in parts if part.segmentation is not None]
    if len(found) < len(parts):
        failed = next(part for part in parts if part.segmentation is None)
        reason = f"{failed.label} could not be segmented: {failed.reason}"
        return replace(result, status="not_computable", reason=reason)
    made = derive(*found)
    return replace(
        result,
        segmentation=made,
        status="ok",
        reason=joined_reasons([*(part.reason for part in parts), made.reason]),
        parameters=made.parameters,
    )


# --- writing -----------------------------------------------------------------------------------


def _written(result: _Result, visit: _Visit) -> Mask:
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
