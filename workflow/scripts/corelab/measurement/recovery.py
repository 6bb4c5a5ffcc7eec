"""Recovery: lesions of known shape planted into a trial's own scans, and what is found of them.

A visit's prepared scans get one lesion at a time, of known place, size and contrast, and go through
the study's own segmentation. How often and how exactly the lesions are found, by site and size,
says what the pipeline can see on these scanners, in these people, with these settings.
"""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import ndimage, stats

from corelab.imaging import ImageFault, load_image, load_mask, resample_to, same_grid, save_image
from corelab.imaging.geometry import voxel_sizes_mm, voxel_volume_ml
from corelab.imaging.planting import (
    Background,
    NoSpace,
    Placed,
    Planting,
    background,
    healthy_side,
    plant,
)
from corelab.imaging.shapes import Shape, draw_shape, mask_shape
from corelab.measurement.recovery_targets import Target, targets_of
from corelab.records.images import Prepared
from corelab.records.measured import Recovered
from corelab.records.visits import visit_masks
from corelab.segmentation import NotSegmentable
from corelab.segmentation.scans import VisitScans
from corelab.segmentation.visit import segment_visit
from corelab.settings.measurement import RecoverySettings
from corelab.settings.segmentation import SegmentationSettings
from corelab.study.columns import RECOVERY, RECOVERY_SUMMARY
from corelab.terms.labels import VOLUME_ENDPOINTS

Mask = NDArray[np.bool_]
#: An existing lesion makes the other side the healthy one from this volume.
_ONE_SIDED_ML = 1.0
#: 95 % limits of agreement.
_LIMITS = 1.96


@dataclass(frozen=True)
class _Found:
    """Segmentation of a planted lesion; volumes in mL."""

    found_ml: float
    elsewhere_ml: float
    covered: float
    dice: float


def _compared(lesion: Placed, mask: Mask, before: Mask, voxel_ml: float) -> _Found:
    """Compare a planted lesion with the mask of a segmentation, with and without (``before``) it.

    ``found_ml`` is the volume of the components that touch the lesion, without what was found
    before it was planted; ``elsewhere_ml`` that of new components that do not; ``covered`` the
    share of the lesion that is found.
    """
    share = np.zeros(mask.shape, np.float32)
    share[lesion.box] = lesion.fraction
    truth = share >= min(0.5, 0.5 * float(share.max()))
    labels, _ = ndimage.label(mask & ~(before & (share == 0)), np.ones((3, 3, 3)))
    touching = np.unique(labels[(share > 0) & (labels > 0)])
    found = np.isin(labels, touching[touching > 0])
    both = float(truth.sum() + found.sum())
    return _Found(
        found_ml=float(found.sum()) * voxel_ml,
        elsewhere_ml=float(((labels > 0) & ~found).sum()) * voxel_ml,
        covered=float(share[found].sum(dtype=np.float64) / share.sum(dtype=np.float64)),
        dice=2.0 * float((truth & found).sum()) / both if both else 0.0,
    )


def recover_visit(
    prepared: Prepared,
    folder: Path,
    *,
    disease: str,
    segmentation: SegmentationSettings,
    settings: RecoverySettings,
) -> Recovered:
    """Plant lesions into the scans of one visit, one at a time, and segment each.

    Nothing in ``folder``, the study's results folder, is changed. Rows as in
    ``quality/recovery.tsv``: a scan that cannot be planted into, and a site that it does not show,
    is a row with a status and a reason.
    """
    kinds = {scan.kind for scan in prepared.scans}
    stages = {"disease": disease, "settings": segmentation}
    rows: list[dict[str, Any]] = []
    targets = targets_of(disease, kinds, settings)
    if not targets:
        reason = f"no lesion is planted into {', '.join(sorted(kinds))} in a study of {disease}"
        row = dict.fromkeys(RECOVERY) | {"status": "not_computable", "reason": reason}
        place = {"participant_id": prepared.participant_id, "visit": prepared.visit}
        rows.append(row | place)
    for target in targets:
        row = _row(prepared, target, kinds)
        try:
            with tempfile.TemporaryDirectory(prefix="corelab-recovery-") as scratch:
                trial = _Trial(prepared, folder, Path(scratch), target, stages)
                rows += [{**row, **found} for found in trial.plantings(settings)]
        except (ImageFault, NotSegmentable, NoSpace) as fault:
            status = "failed" if isinstance(fault, ImageFault) else "not_computable"
            rows.append({**row, "status": status, "reason": str(fault)})
    return Recovered(prepared.participant_id, prepared.visit, tuple(rows)).settled()


def _row(prepared: Prepared, target: Target, kinds: Iterable[str]) -> dict[str, Any]:
    # Without diffusion, the infarct on FLAIR is the study's only one, and has no further name.
    alone = target.kind == "FLAIR" and not {"dwi", "adc"} & set(kinds)
    return {
        **dict.fromkeys(RECOVERY),
        "participant_id": prepared.participant_id,
        "visit": prepared.visit,
        "kind": target.kind,
        "endpoint": VOLUME_ENDPOINTS[target.label],
        "source": "pipeline" if alone else target.source,
    }


class _Trial:
    """One kind of scan of one visit in a scratch folder, ready to be planted into."""

    def __init__(
        self,
        prepared: Prepared,
        folder: Path,
        scratch: Path,
        target: Target,
        stages: Mapping[str, Any],
    ) -> None:
        self.target, self.stages, self.scratch = target, stages, scratch
        visit = VisitScans(prepared, folder)
        scan = visit.scan(target.kind)
        assert scan is not None
        reference = visit.load(scan)
        brain = visit.brain(scan.grid, reference)
        self.affine, self.voxel_ml = reference.affine, voxel_volume_ml(reference)
        images: dict[str, NDArray[Any]] = {}
        scans = []
        for kind in (target.kind, *target.beside):
            other = visit.scan(kind)
            if other is None or other.status != "ok":
                continue
            image = visit.load(other)
            # A scan on another grid would keep its healthy tissue, and contradict the planted one.
            if same_grid(image, reference):
                images[kind] = np.asarray(image.dataobj, np.float64)
                scans.append(replace(other, path=f"{kind}.nii"))
        _linked(prepared, folder, scratch)
        self._write(images)
        self.record = replace(prepared, scans=tuple(scans))
        self.visit = VisitScans(self.record, scratch)
        self.before = self._segmented()
        lesions = self.before | _supplied(prepared, folder, reference)
        side = healthy_side(brain, lesions, from_ml=_ONE_SIDED_ML, voxel_ml=self.voxel_ml)
        b_value = float(scan.metadata.get("b_value") or 1000.0)
        self.scan: Background = background(
            images, self.affine, brain, lesions | (brain & ~side), b_value=b_value
        )

    def plantings(self, settings: RecoverySettings) -> Iterable[dict[str, Any]]:
        """Rows of all plantings, in the order sizes, plantings of a size (sites take turns)."""
        target, sites = self.target, list(settings.sites)
        name = f"{self.record.participant_id}|{self.record.visit}|{target.planted}"
        self.detected_share = settings.detected_share
        for size in settings.sizes_ml:
            for number in range(settings.per_size):
                site = sites[number % len(sites)]
                random = _generator(settings.seed, name, f"{size:g}", str(number))
                yield {
                    "site": site,
                    "size_ml": float(size),
                    "planting": number + 1,
                    **self._planted(_shape(random, size, target, settings), size, site, random),
                }

    def _planted(
        self, shape: Shape, size: float, site: str, random: np.random.Generator
    ) -> dict[str, Any]:
        try:
            planted = plant(self.scan, self.target.planted, shape, size, site, random)
        except NoSpace as fault:
            return {"status": "not_computable", "reason": str(fault)}
        self._write(planted.images)
        try:
            mask = self._segmented()
        except NotSegmentable as fault:
            return {"status": "not_computable", "reason": str(fault), **_of(planted)}
        found = _compared(planted.lesion, mask, self.before, self.voxel_ml)
        return {
            "status": "ok",
            **_of(planted),
            "found_ml": found.found_ml,
            "elsewhere_ml": found.elsewhere_ml,
            "covered": found.covered,
            "detected": int(found.covered >= self.detected_share),
            "dice": found.dice,
        }

    def _write(self, images: Mapping[str, NDArray[Any]]) -> None:
        for kind, values in images.items():
            image = nib.Nifti1Image(values.astype(np.float32), self.affine)
            save_image(image, self.scratch / f"{kind}.nii", sidecar=None, dtype=np.float32)

    def _segmented(self) -> Mask:
        """Mask of the target's label from the study's own segmentation."""
        only = (self.target.label, self.target.source) if self.target.disease == "stroke" else None
        masks = segment_visit(
            self.record, self.scratch, only=only, scans=self.visit, **self.stages
        ).masks
        for entry in masks:
            if (entry.label, entry.kind) == (self.target.label, self.target.kind):
                if entry.status != "ok":
                    raise NotSegmentable(str(entry.reason))
                path = self.scratch / entry.file
                return np.asarray(load_mask(path, kind=f"mask-{self.target.label}").dataobj) > 0
        raise NotSegmentable(
            f"the segmentation gives no {self.target.label} from {self.target.kind}"
        )


def _linked(prepared: Prepared, folder: Path, scratch: Path) -> None:
    """Links to a visit's prepared files, so that the segmentation finds all that it reads."""
    fits = [fit.path for fit in prepared.transforms.values()]
    names = {*(prepared.products or {}), *prepared.brain_masks.values(), *fits}
    for name in sorted(filter(None, names)):
        (scratch / name).parent.mkdir(parents=True, exist_ok=True)
        (scratch / name).symlink_to((folder / name).absolute())


def _of(planted: Planting) -> dict[str, Any]:
    x, y, z = planted.centre_mm
    contrast = "; ".join(f"{key} {value:.3g}" for key, value in planted.drawn.items())
    return {"planted_ml": planted.lesion.volume_ml, "x_mm": x, "y_mm": y, "z_mm": z,
            "contrast": contrast}  # fmt: skip


def _generator(seed: int, *names: str) -> np.random.Generator:
    """Random numbers that depend on the seed and on names, never on the order of jobs."""
    digest = hashlib.sha256("/".join([str(seed), *names]).encode()).digest()
    return np.random.default_rng(int.from_bytes(digest[:16], "big"))


def _shape(
    random: np.random.Generator, size: float, target: Target, settings: RecoverySettings
) -> Shape:
    files = settings.shapes
    if not files:
        return draw_shape(random, size, compact=target.label == "haematoma")
    path = files[int(random.integers(len(files)))]
    image = load_image(path, kind="mask-lesion")
    mask = np.asarray(image.dataobj) > 0.5
    return mask_shape(mask, voxel_sizes_mm(image.affine), size)


def _supplied(prepared: Prepared, folder: Path, reference: nib.Nifti1Image) -> Mask:
    """Lesions that readers or other software drew on the scan's grid or beside it."""
    found = np.zeros(reference.shape, bool)
    for drawn in visit_masks(prepared, space="native", usable=True):
        mask = load_image(folder / drawn.file, kind=f"mask-{drawn.label}")
        if not same_grid(mask, reference):
            mask = resample_to(mask, reference, order=0)
        found |= np.asarray(mask.dataobj) > 0.5
    return found


# --- summary -----------------------------------------------------------------------------------


def recovery_table(records: Iterable[Recovered]) -> pd.DataFrame:
    """All plantings of a study, from the records of :func:`recover_visit`."""
    rows = [row for record in records for row in record.rows]
    return pd.DataFrame(rows, columns=list(RECOVERY))


def recovery_summary(table: pd.DataFrame) -> pd.DataFrame:
    """Detection, bias and limits of agreement by endpoint, site and size.

    One row per kind, endpoint, source, site and size, then rows of all sites, and of all sizes. The
    interval of the detection rate (Clopper and Pearson, Biometrika 1934;26:404) takes plantings as
    independent, also those into one scan. Limits of agreement: Bland and Altman, Lancet
    1986;327:307.

    Examples
    --------
    >>> row = {"participant_id": "1", "visit": "a", "kind": "dwi", "site": "deep",
    ...        "endpoint": "infarct_volume", "source": "pipeline", "size_ml": 2.0, "status": "ok",
    ...        "planted_ml": 2.0, "dice": 0.8, "elsewhere_ml": 0.0}
    >>> found = ({"found_ml": 2.2, "detected": 1}, {"found_ml": 0.0, "detected": 0})
    >>> table = recovery_table([Recovered("1", "a", tuple(row | one for one in found))])
    >>> round(float(recovery_summary(table).loc[0, "bias_ml"]), 3)
    -0.9
    """
    rows = []
    known = table[table["kind"].notna()]
    for keys, group in known.groupby(["kind", "endpoint", "source"], sort=False):
        named = group[group["site"].notna()]
        sites = [*dict.fromkeys(named["site"]), "all"]
        sizes = [*sorted(dict.fromkeys(named["size_ml"])), None]
        for site in sites:
            for size in sizes:
                part = group if site == "all" else group[group["site"] == site]
                part = part if size is None else part[part["size_ml"] == size]
                if len(part):
                    place = dict(zip(("kind", "endpoint", "source"), keys, strict=True))
                    rows.append({**place, "site": site, "size_ml": size, **_summary(part)})
    return pd.DataFrame(rows, columns=list(RECOVERY_SUMMARY))


def _summary(part: pd.DataFrame) -> dict[str, Any]:
    done = part[part["status"] == "ok"]
    hits = done[done["detected"].astype(float) > 0]
    n, n_hits = len(done), len(hits)
    found: dict[str, Any] = {
        "n_visits": len(part[["participant_id", "visit"]].drop_duplicates()),
        "n": n,
        "n_failed": len(part) - n,
        "n_detected": n_hits,
    }
    if not n:
        return found
    interval = stats.binomtest(n_hits, n).proportion_ci(0.95, method="exact")
    planted, dice = done["planted_ml"].astype(float), hits["dice"].astype(float)
    gap = done["found_ml"].astype(float) - planted
    bias, sd = float(gap.mean()), float(gap.std(ddof=1)) if n > 1 else np.nan
    return {
        **found,
        "detection_rate": n_hits / n,
        "detection_ci_low": float(interval.low),
        "detection_ci_high": float(interval.high),
        "planted_ml": float(planted.mean()),
        "bias_ml": bias,
        "bias_percent": 100.0 * bias / float(planted.mean()),
        "sd_ml": sd,
        "limits_low_ml": bias - _LIMITS * sd,
        "limits_high_ml": bias + _LIMITS * sd,
        "dice_median": float(dice.median()) if n_hits else np.nan,
        "dice_p10": float(dice.quantile(0.1)) if n_hits else np.nan,
        "elsewhere_ml": float(done["elsewhere_ml"].astype(float).mean()),
    }
