"""One subject to MNI152: one fit to the template, the visits joined to it rigidly."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import nibabel as nib
import numpy as np

from corelab.imaging import ImageFault, load_image, mask_volume_ml, save_image
from corelab.imaging.brain_quality import mask_fault
from corelab.imaging.template import TEMPLATE_FILE, template_image
from corelab.provenance.products import file_sha256, write_json
from corelab.records.images import Prepared, Transform
from corelab.records.subjects import Anchor, Chain, Joined, Normalised, NormalisedMask, Template
from corelab.records.visits import VisitMask, VisitRecords
from corelab.registration.backends import registrar
from corelab.registration.heads import Head, load_head
from corelab.registration.pairs import TemplateFit, fit_rigid, fit_to_template
from corelab.registration.preparation import best_scan
from corelab.registration.presets import described
from corelab.registration.quality import expected_volume_ml, local_scale
from corelab.registration.registrar import Registrar, RegistrationFault
from corelab.registration.registrar import Transform as FitTransform
from corelab.registration.transforms import (
    Affine,
    Sampler,
    Step,
    apply_transforms,
    grid_box,
    grid_points,
    read_steps,
    transform_points,
)
from corelab.registration.visit import save_rigid
from corelab.settings.registration import RegistrationSettings
from corelab.study.naming import TEMPLATE_SPACE, derivative
from corelab.terms.kinds import DATATYPES

#: Masks that are no damaged tissue: they do not distort the image that is fitted.
NO_LESION = ("brain", "hypoperfused", "penumbra")
_ANCHOR_KINDS = ("T1w", "T1c")


@dataclass
class _Subject:
    """State of the normalisation of one subject."""

    participant_id: str
    folder: Path
    settings: RegistrationSettings
    prepares: dict[str, Prepared]
    order: list[str]
    anchor_visit: str
    anchor_grid: str
    #: Visit -> file that maps points of the anchor scan to the visit's reference scan.
    joined: dict[str, str] = field(default_factory=dict)
    #: Visit -> status, reason and quality of that join.
    visits: dict[str, Joined] = field(default_factory=dict)

    def chain(self, visit: str, grid: str) -> tuple[list[str], list[bool]]:
        """Files that map points of the anchor scan to points of a grid, and which to invert.

        Raises
        ------
        RegistrationFault
            If one of the fits on the way has failed.
        """
        paths: list[str] = []
        flags: list[bool] = []
        transforms = self.prepares[visit].transforms
        if visit == self.anchor_visit:
            if grid == self.anchor_grid:
                return paths, flags
            self._add(transforms, self.anchor_grid, True, paths, flags)
        else:
            state = self.visits[visit]
            if state.status != "ok":
                raise RegistrationFault(f"visit {visit} to the anchor: {state.reason}")
            paths.append(self.joined[visit])
            flags.append(False)
        self._add(transforms, grid, False, paths, flags)
        return paths, flags

    @staticmethod
    def _add(
        transforms: Mapping[str, Transform],
        grid: str,
        invert: bool,
        paths: list[str],
        flags: list[bool],
    ) -> None:
        entry = transforms.get(grid)
        if entry is None:
            raise RegistrationFault(f"grid {grid} has no transform within its visit")
        if entry.status != "ok":
            raise RegistrationFault(f"grid {grid} within its visit: {entry.reason}")
        if entry.path is not None:
            paths.append(entry.path)
            flags.append(invert)

    def steps(self, visit: str, grid: str) -> list[Step]:
        """The chain, read: points of the anchor scan to points of a grid."""
        paths, flags = self.chain(visit, grid)
        return read_steps([self.folder / path for path in paths], flags)


def normalise_subject(
    visits: Sequence[VisitRecords],
    folder: str | os.PathLike[str],
    *,
    settings: RegistrationSettings,
    visit_order: Sequence[str],
) -> Normalised:
    """Bring all masks of a subject to MNI152.

    The anchor is the first visit (in order) with a T1w, else with a T1c, else the reference scan
    of the first visit with an image; a T1 whose brain mask failed is passed over. It is fitted
    to the template: deformably only if it is a
    T1 with voxels of at most 1.6 mm, else by an affine. The reference scans of the other
    visits are fitted rigidly to the anchor, and all transforms are composed, so that each mask is
    interpolated once.

    Parameters
    ----------
    visits
        Records of the visits, aligned (:func:`corelab.registration.align_visit`).
    folder
        Results folder of the study; all paths in records are relative to it.
    settings
        Block ``registration`` of the config.
    visit_order
        Visits of the study in time; visits that are not in it come last.

    Returns
    -------
    Normalised
        ``masks`` has one entry per native mask; one that could not be brought over has a status
        and a reason. ``status`` is ``ok``, ``failed`` (a limit was broken; no mask was written)
        or ``not_computable`` (no image).

    Raises
    ------
    BackendMissing
        If the program behind ``settings.backend`` is not installed.
    ValueError
        If a setting is not known or there is no visit.

    Examples
    --------
    >>> visit = VisitRecords("day5", Prepared("01", "day5"))
    >>> settings = RegistrationSettings()
    >>> record = normalise_subject([visit], ".", settings=settings, visit_order=["day5"])
    >>> record.status, record.reason
    ('not_computable', 'no visit has an image that could be registered')
    """
    if not visits:
        raise ValueError("normalise_subject got no visit")
    by_name = {visit.visit: visit for visit in visits}
    order = [name for name in visit_order if name in by_name]
    order += sorted(set(by_name) - set(order))
    prepares = {name: by_name[name].prepare for name in order}
    participant_id = prepares[order[0]].participant_id
    masks = [mask for name in order for mask in by_name[name].masks(space="native")]
    anchor = choose_anchor(prepares)
    record = Normalised(
        participant_id,
        preset=settings.preset,
        settings=described(settings),
        status="not_computable",
        reason="no visit has an image that could be registered",
        template=Template(TEMPLATE_SPACE, TEMPLATE_FILE),
    )
    if anchor is None:
        return _without_masks(record, masks)
    subject = _Subject(
        *(participant_id, Path(folder), settings, prepares, order, anchor.visit, anchor.grid)
    )
    return _fitted(replace(record, anchor=anchor), anchor, subject, masks)


def _fitted(
    record: Normalised, anchor: Anchor, subject: _Subject, masks: Sequence[VisitMask]
) -> Normalised:
    """The record with the fit of the anchor and the masks that it brought over."""
    tool = registrar(subject.settings)
    prepared = subject.prepares[anchor.visit]
    try:
        fault = mask_fault(prepared, anchor.grid)
        if fault is not None:
            raise RegistrationFault(fault)
        head = load_head(prepared, subject.folder, anchor.grid)
        _join_visits(subject, tool, head)
        lesion = _lesion_on(subject, head, masks)
        fit = fit_to_template(tool, head, lesion, subject.settings)
    except RegistrationFault as fault:
        reason = f"the anchor ({anchor.kind} of {anchor.visit}) to the template: {fault}"
        record = replace(record, status="failed", reason=reason, visits=subject.visits)
        return _without_masks(record, masks)
    record = replace(
        record,
        method="syn" if fit.transform.kind == "deformable" else "affine",
        lesion=fit.lesion,
        visits=subject.visits,
        quality=fit.quality,
        status="ok" if fit.reason is None else "failed",
        reason=fit.reason,
        warning=fit.warning,
    )
    if fit.reason is not None:
        return _without_masks(record, masks)
    files = _save_fit(subject, fit, head)
    return replace(
        record,
        transforms=_all_transforms(subject, files),
        masks=tuple(_bring_masks(subject, fit, masks)),
    ).settled()


def choose_anchor(prepares: Mapping[str, Prepared]) -> Anchor | None:
    """The scan that is fitted to the template; None without an image.

    Parameters
    ----------
    prepares
        Visit -> record of the stage ``prepare``, in the order of time.

    Examples
    --------
    >>> from corelab.records.images import Scan
    >>> def record(kind):
    ...     scans = (Scan(kind, kind, grid="g1", path="x"),)
    ...     return Prepared("1", "v", scans=scans, reference="g1")
    >>> choose_anchor({"baseline": record("dwi"), "day5": record("T1w")})
    Anchor(visit='day5', grid='g1', kind='T1w')
    """
    usable = {
        visit: record
        for visit, record in prepares.items()
        if record.status == "ok" and record.reference is not None
    }
    for kind in _ANCHOR_KINDS:
        for visit, record in usable.items():
            for scan in record.scans:
                chosen = best_scan(record.scans, scan.grid) if scan.grid else None
                if chosen is None or mask_fault(record, chosen.grid) is not None:
                    continue
                if chosen.kind == kind:
                    return Anchor(visit, str(chosen.grid), kind)
    for visit, record in usable.items():
        chosen = best_scan(record.scans, str(record.reference))
        if chosen is not None:
            return Anchor(visit, str(chosen.grid), chosen.kind)
    return None


def template_mask_path(native_path: str) -> str:
    """Name of a mask in template space from its native name (so that it is as unique).

    Examples
    --------
    >>> template_mask_path("a/sub-01_ses-day5_label-infarct_desc-r1_mask.nii.gz")
    'a/sub-01_ses-day5_space-MNI152NLin2009aSym_label-infarct_desc-r1_mask.nii.gz'
    """
    folder, _, name = native_path.rpartition("/")
    before = "_label-" if "_label-" in name else "_mask."
    place = name.index(before)
    moved = f"{name[:place]}_space-{TEMPLATE_SPACE}{name[place:]}"
    return f"{folder}/{moved}" if folder else moved


def _join_visits(subject: _Subject, tool: Registrar, head: Head) -> None:
    """Fit the reference scan of every other visit rigidly to the anchor scan."""
    for visit in subject.order:
        record = subject.prepares[visit]
        if visit == subject.anchor_visit:
            subject.visits[visit] = Joined("identity")
            continue
        if record.status != "ok" or record.reference is None:
            subject.visits[visit] = Joined(
                status="not_computable", reason="the visit has no usable image"
            )
            continue
        halfway = subject.settings.longitudinal == "halfway"
        state = Joined("rigid, half-way" if halfway else "rigid")
        try:
            moving = load_head(record, subject.folder, record.reference)
            fit = fit_rigid(tool, head, moving, subject.settings, halfway=halfway)
        except RegistrationFault as fault:
            subject.visits[visit] = replace(state, status="failed", reason=str(fault))
            continue
        state = replace(state, quality=fit.quality)
        if fit.reason is not None:
            subject.visits[visit] = replace(state, status="failed", reason=fit.reason)
            continue
        path = derivative(
            subject.participant_id,
            visit,
            DATATYPES.get(moving.kind, "anat"),
            "xfm",
            extension=".mat",
            from_=moving.kind,
            to=head.kind,
            mode="image",
            desc=f"to-{subject.anchor_visit}",
        )
        inputs = [head.path, moving.path]
        save_rigid(fit, path, subject.folder, inputs=inputs, settings=subject.settings)
        subject.joined[visit] = path
        subject.visits[visit] = replace(state, path=path)


def _lesion_on(subject: _Subject, head: Head, masks: Sequence[VisitMask]) -> np.ndarray:
    """Union of the lesion masks on the anchor scan: those of its visit and of earlier ones.

    Later lesions are not in the image yet; excluding them would only take data from the fit.
    """
    until = subject.order.index(subject.anchor_visit)
    union = np.zeros(head.image.shape, bool)
    for mask in masks:
        if (
            mask.status != "ok"
            or mask.path is None
            or mask.grid is None
            or mask.label in NO_LESION
            or subject.order.index(mask.visit) > until
        ):
            continue
        try:
            steps = subject.steps(mask.visit, mask.grid)
            image = load_image(subject.folder / mask.path, kind=f"mask-{mask.label}")
        except (RegistrationFault, ImageFault):
            continue  # Its own entry in `masks` has the reason.
        brought = apply_transforms(image, head.image, steps, "label")
        union |= np.asarray(brought.dataobj) != 0
    return union


def _save_fit(subject: _Subject, fit: TemplateFit, head: Head) -> dict[str, list[str]]:
    """Write the fit to the template; the files of the two directions in ANTs order."""

    def path(extension: str, source: str, target: str) -> str:
        return derivative(
            subject.participant_id,
            subject.anchor_visit,
            DATATYPES.get(head.kind, "anat"),
            "xfm",
            extension=extension,
            from_=source,
            to=target,
            mode="image",
        )

    matrix = path(".mat", head.kind, TEMPLATE_SPACE)
    warp = path(".nii.gz", head.kind, TEMPLATE_SPACE)
    inverse = path(".nii.gz", TEMPLATE_SPACE, head.kind)
    root = subject.folder
    fit.transform.save(root / matrix, root / warp, root / inverse)
    files = {"to_mni": [matrix], "from_mni": [matrix]}
    if fit.transform.warp is not None:
        files = {"to_mni": [warp, matrix], "from_mni": [matrix, inverse]}
    written = sorted({*files["to_mni"], *files["from_mni"]})
    write_json(
        {
            "inputs": [
                {"name": head.path, "sha256": file_sha256(root / head.path)},
                {"name": TEMPLATE_FILE, "space": TEMPLATE_SPACE},
            ],
            "parameters": {**described(subject.settings), "fit": fit.transform.kind},
            "lesion": fit.lesion,
            "quality": fit.quality,
            "warning": fit.warning,
            "convention": "ANTs order; the list to_mni maps points of MNI to points of the scan",
            "files": {name: file_sha256(root / name) for name in written},
        },
        root / path(".json", head.kind, TEMPLATE_SPACE),
    )
    return files


def _all_transforms(
    subject: _Subject, files: Mapping[str, list[str]]
) -> dict[str, dict[str, Chain]]:
    """Chains between MNI and every grid of every visit that has one."""
    found: dict[str, dict[str, Chain]] = {}
    for visit in subject.order:
        found[visit] = {}
        for grid in subject.prepares[visit].transforms:
            try:
                paths, flags = subject.chain(visit, grid)
            except RegistrationFault:
                continue
            found[visit][grid] = Chain(
                to_mni=(*files["to_mni"], *paths),
                whichtoinvert=(*[False] * len(files["to_mni"]), *flags),
                from_mni=(*paths[::-1], *files["from_mni"]),
                from_mni_whichtoinvert=(
                    *(not flag for flag in flags[::-1]),
                    True,
                    *([False] * (len(files["from_mni"]) - 1)),
                ),
            )
    return found


def _bring_masks(
    subject: _Subject, fit: TemplateFit, masks: Sequence[VisitMask]
) -> list[NormalisedMask]:
    """Write every mask on the 1 mm grid of the template."""
    # The map of the fit is the same for all masks and the dear part.
    on_anchor = _OnAnchor(fit.transform)
    jacobian = local_scale(fit.transform.warp)
    entries = []
    for mask in masks:
        if mask.status != "ok" or mask.path is None or mask.grid is None:
            entries.append(_entry(mask, mask.status, mask.reason or "there is no native mask"))
            continue
        try:
            steps = subject.steps(mask.visit, mask.grid)
            image = load_image(subject.folder / mask.path, kind=f"mask-{mask.label}")
        except (RegistrationFault, ImageFault) as fault:
            entries.append(_entry(mask, "failed", str(fault)))
            continue
        entries.append(_bring(subject, fit, mask, image, steps, on_anchor, jacobian))
    return entries


def _bring(
    subject: _Subject,
    fit: TemplateFit,
    mask: VisitMask,
    image: nib.Nifti1Image,
    steps: Sequence[Step],
    on_anchor: _OnAnchor,
    jacobian: nib.Nifti1Image | None,
) -> NormalisedMask:
    """Bring one mask to the template, check its volume, write it."""
    assert mask.path is not None and mask.grid is not None
    binary = (np.asarray(image.dataobj) != 0).astype(np.uint8)
    native = nib.Nifti1Image(binary, image.affine)
    paths, flags = subject.chain(mask.visit, mask.grid)
    back = read_steps(
        [subject.folder / path for path in paths[::-1]], [not flag for flag in flags[::-1]]
    )
    moved = _on_template(native, steps, back, on_anchor)
    native_ml, mni_ml = mask_volume_ml(native), mask_volume_ml(moved)
    scale = float(np.linalg.det(fit.transform.matrix[:3, :3]))
    expected_ml = expected_volume_ml(native, [*back, *fit.transform.to_moving], jacobian, scale)
    discrepancy = 100.0 * (mni_ml / expected_ml - 1.0) if expected_ml > 0 else 0.0
    figures = {
        "native_ml": round(native_ml, 6),
        "mni_ml": round(mni_ml, 6),
        "expected_ml": round(expected_ml, 6),
        "volume_discrepancy_percent": round(discrepancy, 4),
    }
    limits = subject.settings.limits
    most = limits.volume_discrepancy_percent_max
    if native_ml >= limits.volume_checked_from_ml and abs(discrepancy) > most:
        reason = (
            f"its volume in MNI ({mni_ml:.2f} mL) is {discrepancy:+.1f} % off what the fit's "
            f"Jacobian gives for {native_ml:.2f} mL; the limit is {most:g} %"
        )
        return replace(_entry(mask, "failed", reason), quality=figures)
    path = template_mask_path(mask.path)
    save_image(
        moved,
        subject.folder / path,
        sidecar={
            "unit": "label",
            "inputs": [{"name": mask.path, "sha256": file_sha256(subject.folder / mask.path)}],
            "parameters": {**described(subject.settings), "interpolation": "label"},
            "space": TEMPLATE_SPACE,
            **figures,
        },
        dtype=np.uint8,
    )
    return replace(_entry(mask, "ok", fit.warning), path=path, quality=figures)


def _on_template(
    mask: nib.Nifti1Image, steps: Sequence[Step], back: Sequence[Step], on_anchor: _OnAnchor
) -> nib.Nifti1Image:
    """Mask on the template's grid, whose points lie at ``on_anchor`` in the anchor scan."""
    template = template_image()
    data = np.zeros(template.shape, np.uint8)
    sampler = Sampler(np.asarray(mask.dataobj), mask.affine, "label")
    if not sampler.empty:
        # From anchor to mask there are matrices only: the box around the mask, brought to the
        # anchor, limits which of the template's points can lie in it.
        corners = transform_points(sampler.corners_mm, back)
        box, places = on_anchor.around(corners)
        near = np.all((places >= corners.min(axis=0)) & (places <= corners.max(axis=0)), axis=-1)
        points = places[near]
        for step in steps:
            points = step(points)
        data[box][near] = sampler(points)
    return nib.Nifti1Image(data, template.affine)


class _OnAnchor:
    """Places of the template's voxels in the anchor scan, computed where masks ask for them."""

    #: Edge of the blocks that are computed at a time, in voxels.
    _BLOCK = 32

    def __init__(self, fit: FitTransform) -> None:
        template = template_image()
        self._affine, self._steps = template.affine, fit.to_fixed
        self._places = np.empty((*template.shape, 3))
        self._known = np.zeros([-(-size // self._BLOCK) for size in template.shape], bool)
        self._back = Affine(np.linalg.inv(fit.matrix @ template.affine))
        # How far, in voxels, the field may take a point on its way.
        warp = fit.warp
        reach = np.zeros(3) if warp is None else np.abs(warp.displacement_mm).max(axis=(1, 2, 3))
        self._reach = np.abs(np.linalg.inv(template.affine)[:3, :3]) @ reach

    def around(self, corners_mm: np.ndarray) -> tuple[tuple[slice, ...], np.ndarray]:
        """Part of the template that holds all that lies between points of the anchor scan.

        Its places (RAS mm) have the shape of the part, and three.
        """
        voxel = self._back(corners_mm)
        ends = np.concatenate([voxel - self._reach, voxel + self._reach])
        box = grid_box(ends, self._places.shape[:3])
        blocks = tuple(slice(s.start // self._BLOCK, -(-s.stop // self._BLOCK)) for s in box)
        for block in np.argwhere(~self._known[blocks]) + [s.start for s in blocks]:
            self._known[tuple(block)] = True
            part = tuple(slice(n * self._BLOCK, (n + 1) * self._BLOCK) for n in block)
            places = self._places[part]
            origin = self._affine.copy()
            origin[:3, 3] += self._affine[:3, :3] @ [s.start for s in part]
            for _, points in grid_points(places.shape[:3], origin):
                for step in self._steps:
                    points = step(points)
                places[:] = points.reshape(places.shape)
        return box, self._places[box]


def _entry(mask: VisitMask, status: str, reason: str | None) -> NormalisedMask:
    return NormalisedMask(
        *(mask.visit, mask.label, mask.source, mask.desc, mask.repeat),
        native_path=mask.path,
        grid=mask.grid,
        scan_ids=mask.scan_ids,
        status=status,
        reason=reason,
        native_reason=mask.reason,
    )


def _without_masks(record: Normalised, masks: Sequence[VisitMask]) -> Normalised:
    """The record of a subject without a fit: no mask was brought over."""
    reason = f"no registration to MNI: {record.reason}"
    unwritten = tuple(
        _entry(mask, record.status, reason)
        if mask.status == "ok"
        else _entry(mask, mask.status, mask.reason)
        for mask in masks
    )
    return replace(record, masks=unwritten).settled()
