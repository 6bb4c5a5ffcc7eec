"""The noise floor: what the same scans give when nothing but chance is changed.

A subject is registered, segmented and measured again with other seeds of the optimiser and with
another realisation of image noise. How far the endpoints scatter is the least difference that
any comparison of two runs, scanners or visits could mean something by.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
from scipy import stats

from corelab.imaging import load_image, save_image
from corelab.measurement.longitudinal import change_rows, mismatch_rows, without_known
from corelab.measurement.rows import rows_frame
from corelab.measurement.visit import measure_visit
from corelab.perfusion import perfuse_visit
from corelab.provenance.products import read_json
from corelab.records.images import Prepared, Scan
from corelab.records.measured import Repeated
from corelab.records.visits import VisitRecords
from corelab.registration import align_visit, normalise_subject
from corelab.segmentation.readers import consensus_masks
from corelab.segmentation.visit import segment_visit
from corelab.settings.base import Settings, Texts
from corelab.settings.measurement import AtlasSettings, MeasurementSettings
from corelab.settings.perfusion import PerfusionSettings
from corelab.settings.registration import RegistrationSettings
from corelab.settings.segmentation import SegmentationSettings
from corelab.study.columns import MEASUREMENTS, NOISE_FLOOR
from corelab.terms.kinds import PERFUSION_KINDS

#: From the median absolute deviation to the standard deviation of a normal distribution.
_MAD_TO_SD = 1.4826
#: 95 % of the differences of two single values lie within 1.96 sqrt(2) within-subject SD.
DETECTABLE = 1.96 * np.sqrt(2.0)


class Stages(Settings):
    """Blocks of the config that a repeat uses, with what it needs to know of the subject."""

    disease: str
    registration: RegistrationSettings
    segmentation: SegmentationSettings
    perfusion: PerfusionSettings
    measurement: MeasurementSettings
    atlases: tuple[AtlasSettings, ...]
    visit_order: Texts
    baseline: str | None
    onset_to_ct_min: float | None


def _image_noise_sd(data: np.ndarray, brain: np.ndarray) -> float:
    """Standard deviation of the noise of an image (3D, or the first frame of 4D) within the brain.

    The second difference along the first axis takes out all that is smooth; its robust spread
    (1.4826 x median absolute deviation) over sqrt(6) is the noise of one voxel (Donoho DL,
    Johnstone IM. Biometrika 1994;81:425-455).
    """
    frame = np.asarray(data, dtype=np.float64)
    frame = frame[..., 0] if frame.ndim == 4 else frame
    values = (frame[2:] - 2.0 * frame[1:-1] + frame[:-2])[brain[1:-1]] / np.sqrt(6.0)
    if not len(values):
        return 0.0
    return float(_MAD_TO_SD * np.median(np.abs(values - np.median(values))))


def repeat_subject(
    prepares: Sequence[Prepared],
    folder: Path,
    stages: Stages,
    *,
    seed: int,
    added_noise: float,
) -> Repeated:
    """Register, segment and measure a subject once more, with another seed.

    ``seed`` is that of the registration's optimiser and of the added noise, whose SD is
    ``added_noise`` times the noise that an image has: with 1 the scatter of a repeat is about that
    of another acquisition. Nothing in ``folder``, the study's results folder, is changed.
    """
    segmentation = stages.segmentation
    registration = stages.registration.model_copy(update={"seed": seed})
    with tempfile.TemporaryDirectory(prefix="corelab-noise-") as scratch:
        workspace = Path(scratch)
        visits = []
        for record in prepares:
            prepared = _copied(record, folder, workspace, seed=seed, added_noise=added_noise)
            prepared = align_visit(prepared, workspace, settings=registration)
            segmented = segment_visit(
                prepared, workspace, disease=stages.disease, settings=segmentation
            )
            voted = consensus_masks(prepared, workspace, settings=segmentation.consensus)
            segmented = replace(segmented, masks=(*segmented.masks, *voted))
            perfused = None
            if any(scan.kind in PERFUSION_KINDS for scan in prepared.scans):
                perfused = perfuse_visit(
                    prepared,
                    workspace,
                    settings=stages.perfusion.model_copy(update={"figures": False}),
                    minutes_onset_to_ct=stages.onset_to_ct_min,
                )
            visits.append(VisitRecords(prepared.visit, prepared, segmented, perfused))
        normalised = normalise_subject(
            visits, workspace, settings=registration, visit_order=stages.visit_order
        )
        rows = [
            row
            for visit in visits
            for row in measure_visit(
                *(visit.prepare, visit.segment, visit.perfuse, normalised, workspace),
                atlases=stages.atlases,
                settings=stages.measurement,
            ).rows
        ]
    frame = rows_frame(rows, [name for name in MEASUREMENTS if name != "row_id"])
    frame["value"] = frame["value"].astype(float)
    for made in (mismatch_rows(frame), change_rows(frame, stages.baseline)):
        rows += without_known(made, frame)
    # What readers and other software gave does not pass through what is repeated here.
    rows = [row for row in rows if row.source.split(":")[0] in ("pipeline", "consensus")]
    return Repeated(prepares[0].participant_id, seed, tuple(rows)).settled()


def noise_floor_table(records: Iterable[Repeated]) -> pd.DataFrame:
    """Scatter of every endpoint over the repeats: one row per endpoint, source and region.

    ``within_sd`` = sqrt(sum of squares within subjects and visits / degrees of freedom), its 95 %
    interval by the chi-square distribution, ``minimal_detectable_change`` = 1.96 sqrt(2) within_sd
    (unit of the endpoint; Bland JM, Altman DG. BMJ 1996;313:744). Fewer than two values of one
    subject and visit: n/a.

    Examples
    --------
    >>> from corelab.measurement.rows import measurement_row
    >>> row = measurement_row("1", "a", "infarct_volume", "pipeline", 10.0, "mL")
    >>> records = [Repeated("1", n, (replace(row, value=10.0 + n),)) for n in (0, 2)]
    >>> table = noise_floor_table(records)
    >>> table.loc[0, ["within_sd", "minimal_detectable_change"]].astype(float).round(3).tolist()
    [1.414, 3.92]
    """
    read = list(records)
    frame = rows_frame([row for record in read for row in record.rows], MEASUREMENTS)
    frame["seed"] = [record.seed for record in read for _ in record.rows]
    found = []
    for (endpoint, source, region), group in frame.groupby(["endpoint", "source", "region"]):
        values = group[group["status"] == "ok"].assign(
            value=lambda part: part["value"].astype(float)
        )
        targets = values.groupby(["participant_id", "visit", "repeat"])["value"]
        freedom = int((targets.count() - 1).clip(lower=0).sum())
        squares = float((values["value"] - targets.transform("mean")).pow(2).sum())
        sd = float(np.sqrt(squares / freedom)) if freedom else np.nan
        mean = float(targets.mean().mean()) if len(values) else np.nan
        low, high = (
            np.sqrt(squares / stats.chi2.ppf(share, freedom)) if freedom else np.nan
            for share in (0.975, 0.025)
        )
        found.append(
            (
                *(endpoint, source, region, group["unit"].iloc[0], int(targets.ngroups)),
                *(int(group["seed"].nunique()), int((group["status"] != "ok").sum()), mean),
                *(sd, low, high, DETECTABLE * sd, 100.0 * sd / mean if mean else np.nan),
            )
        )
    return pd.DataFrame(found, columns=list(NOISE_FLOOR))


def _copied(
    record: Prepared, folder: Path, workspace: Path, *, seed: int, added_noise: float
) -> Prepared:
    """A visit's prepared files in another folder, the images with added noise."""
    for name in {*(record.products or {}), *_files_of(record)}:
        for path in (name, name.removesuffix(".gz").removesuffix(".nii") + ".json"):
            if (folder / path).is_file() and not (workspace / path).exists():
                (workspace / path).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(folder / path, workspace / path)
    for scan in record.scans:
        image_like = scan.status == "ok" and scan.label is None and scan.grid is not None
        if image_like and added_noise > 0 and scan.space == "native":
            _add_noise(scan, record, workspace, seed=seed, share=added_noise)
    return replace(record, transforms={}, products=None)


def _files_of(record: Prepared) -> list[str]:
    paths = [scan.path for scan in record.scans if scan.path]
    return [*paths, *record.brain_masks.values()]


def _add_noise(scan: Scan, record: Prepared, workspace: Path, *, seed: int, share: float) -> None:
    """Replace a scan by itself with noise, the same for a seed in every run."""
    path = workspace / scan.file
    series = scan.kind in ("ctp", "dsc")
    image = load_image(path, ndim=4 if series else 3, kind=scan.kind)
    data = np.asarray(image.dataobj, dtype=np.float32)
    mask_file = record.brain_masks.get(str(scan.grid))
    brain = (
        np.asarray(load_image(workspace / mask_file, kind="mask-brain").dataobj) > 0
        if mask_file is not None
        else data[..., 0] != 0
        if series
        else data != 0
    )
    sd = share * _image_noise_sd(data, brain)
    # Each scan has noise of its own; independent of the rest of the study.
    random = np.random.default_rng([seed, *scan.scan_id.encode()])
    # Zeroed background is no measurement and stays zero.
    noisy = np.where(data != 0, data + random.normal(0.0, sd, data.shape).astype(np.float32), data)
    written = nib.Nifti1Image(noisy.astype(np.float32), image.affine, image.header)
    sidecar = path.with_name(path.name.removesuffix(".gz").removesuffix(".nii") + ".json")
    save_image(
        written,
        path,
        sidecar=read_json(sidecar) if sidecar.is_file() else None,
        dtype=np.float32,
    )
