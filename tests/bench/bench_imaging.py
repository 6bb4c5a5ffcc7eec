"""Cost of each imaging stage, and the table of where each method breaks: `make bench`.

Both tables are written to docs/limits.md. Run alone: `.venv/bin/python tests/bench/bench_imaging.py`
(about 12 CPU minutes). The scans are those of the demo's simulated trial and the registration's
simulated subjects; each is made worse in one way at a time, the rest stays as it is.
"""

from __future__ import annotations

import json
import os
import platform
import resource
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from scipy import ndimage

HERE = Path(__file__).resolve()
REPOSITORY = HERE.parents[2]
sys.path[:0] = [str(HERE.parents[1]), str(REPOSITORY / "workflow" / "scripts")]
DOCUMENT = REPOSITORY / "docs" / "limits.md"

#: What one visit may cost (issue on images, point 8).
CPU_LIMIT_S, MEMORY_LIMIT_MB = 120.0, 3072.0
#: The visit whose stages are timed: a T1, DWI with ADC, and CT.
TIMED = ("002", "day5", ("T1w", "dwi", "adc", "ncct"))


# --- cost --------------------------------------------------------------------------------------

_STAGES = """
import json, sys
from pathlib import Path
folder, stage, rows = Path(sys.argv[1]), sys.argv[2], json.loads(sys.argv[3])
from corelab.settings.registration import RegistrationSettings
SETTINGS = RegistrationSettings(preset="fast")
from corelab.records.images import Prepared, Segmented
from corelab.records.subjects import Normalised
from corelab.records.visits import VisitRecords
KINDS = {"prepare": Prepared, "segment": Segmented, "normalise": Normalised}
def record(name): return KINDS[name].read(folder / f"{name}.json")
def write(name, content): content.write(folder / f"{name}.json")
if stage == "conform and brain masks":
    from corelab.imaging import prepare_visit
    from corelab.records.images import ScanRow
    write("prepare", prepare_visit([ScanRow.from_row(row) for row in rows], folder))
elif stage == "rigid within the visit":
    from corelab.registration import align_visit, share_brain_masks
    write("prepare", share_brain_masks(align_visit(record("prepare"), folder, settings=SETTINGS), folder))
elif stage == "segment":
    from corelab.segmentation.visit import segment_visit
    write("segment", segment_visit(record("prepare"), folder, disease="stroke"))
elif stage == "to MNI152 (fast)":
    from corelab.registration import normalise_subject
    visit = VisitRecords(rows[0]["visit"], record("prepare"), record("segment"))
    write("normalise", normalise_subject([visit], folder, settings=SETTINGS, visit_order=[visit.visit]))
elif stage == "measure":
    from corelab.measurement.visit import measure_visit
    from corelab.settings.measurement import MeasurementSettings
    write("measure", measure_visit(record("prepare"), record("segment"), None, record("normalise"),
                                   folder, atlases=[], settings=MeasurementSettings.model_validate_json(sys.argv[4])))
elif stage == "figures":
    from corelab.registration.figures import quality_figures
    visit = VisitRecords(rows[0]["visit"], record("prepare"), record("segment"))
    quality_figures([visit], record("normalise"), folder)
# Its own figure: what the parent gets of a child counts the parent's memory at the fork.
print(next(line for line in open("/proc/self/status") if line.startswith("VmHWM")).split()[1])
"""
STAGES = (
    "conform and brain masks", "rigid within the visit", "segment", "to MNI152 (fast)", "measure",
    "figures",
)  # fmt: skip


@dataclass(frozen=True)
class Cost:
    """Of one process, its imports included."""

    stage: str
    cpu_s: float
    memory_mb: float


def costs() -> list[Cost]:
    """CPU time and peak memory of each stage of one visit, each in a process of its own."""
    from corelab.phantom.design import TrialSpec
    from corelab.phantom.scans import simulate_scan
    from corelab.settings.measurement import MeasurementSettings

    participant, visit, kinds = TIMED
    measurement = MeasurementSettings().model_dump_json()
    found = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        rows = [
            {
                "participant_id": participant, "visit": visit, "kind": kind, "scan_id": kind,
                "path": str(simulate_scan(TrialSpec(), participant, visit, kind, folder / f"{kind}.nii.gz")),
            }
            for kind in kinds
        ]  # fmt: skip
        for stage in STAGES:
            command = [
                sys.executable,
                "-c",
                _STAGES,
                str(folder),
                stage,
                json.dumps(rows),
                measurement,
            ]
            environment = {**os.environ, "PYTHONPATH": str(REPOSITORY / "workflow" / "scripts")}
            before = resource.getrusage(resource.RUSAGE_CHILDREN)
            done = subprocess.run(
                command, env=environment, stdout=subprocess.PIPE, text=True, check=True
            )
            after = resource.getrusage(resource.RUSAGE_CHILDREN)
            cpu_s = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
            memory_mb = int(done.stdout.split()[-1]) / 1024
            found.append(Cost(stage, cpu_s, memory_mb))
            print(f"{stage:<28} {cpu_s:7.1f} CPU s {memory_mb:7.0f} MiB", flush=True)
    return found


# --- where methods break -----------------------------------------------------------------------


def noisier(image: nib.Nifti1Image, times: float) -> nib.Nifti1Image:
    """Image whose noise is ``times`` as large (Gaussian noise is added to what is there)."""
    from skimage.filters import threshold_otsu

    from corelab.measurement.noise_floor import _image_noise_sd

    data = np.asarray(image.dataobj, np.float32)
    # The head only: the noise of an empty background is Rayleigh's, a third less.
    seen = data > threshold_otsu(data)
    sd = _image_noise_sd(data, seen) * np.sqrt(times**2 - 1)
    noise = np.random.default_rng(1).normal(0, sd, data.shape)
    return nib.Nifti1Image((data + noise).astype(np.float32), image.affine)


def thicker(image: nib.Nifti1Image, times: int) -> nib.Nifti1Image:
    """Image whose slices are means of ``times`` neighbouring ones."""
    data = np.asarray(image.dataobj, np.float32)
    kept = data.shape[2] // times * times
    merged = data[:, :, :kept].reshape(*data.shape[:2], -1, times).mean(axis=3)
    affine = image.affine @ np.diag([1, 1, times, 1.0])
    affine[:3, 3] += image.affine[:3, 2] * (times - 1) / 2
    return nib.Nifti1Image(merged, affine)


def biased(image: nib.Nifti1Image, largest_log: float) -> nib.Nifti1Image:
    """Image under a smooth multiplicative field of up to exp(+-``largest_log``)."""
    data = np.asarray(image.dataobj, np.float32)
    sizes = np.linalg.norm(image.affine[:3, :3], axis=0)
    coarse = np.random.default_rng(2).standard_normal(tuple(n // 4 + 1 for n in data.shape))
    waves = ndimage.gaussian_filter(coarse, 50 / sizes / 4, mode="nearest")
    waves = ndimage.zoom(
        waves, [n / m for n, m in zip(data.shape, waves.shape, strict=True)], order=1
    )
    return nib.Nifti1Image(data * np.exp(largest_log * waves / np.abs(waves).max()), image.affine)


def shifted(image: nib.Nifti1Image, by_mm: float) -> nib.Nifti1Image:
    """Image whose content lies ``by_mm`` off along the first axis, with an unchanged header."""
    size_mm = np.linalg.norm(image.affine[:3, 0])
    data = np.asarray(image.dataobj, np.float32)
    return nib.Nifti1Image(ndimage.shift(data, [by_mm / size_mm, 0, 0], order=1), image.affine)


Change = Callable[[nib.Nifti1Image], nib.Nifti1Image]
CONDITIONS: tuple[tuple[str, Change], ...] = (
    ("as simulated", lambda image: image),
    ("noise x 2", lambda image: noisier(image, 2.0)),
    ("noise x 4", lambda image: noisier(image, 4.0)),
    ("slices x 2 as thick", lambda image: thicker(image, 2)),
    ("bias field 0.4", lambda image: biased(image, 0.4)),
    ("bias field 0.8", lambda image: biased(image, 0.8)),
)
#: label, kinds, the kind whose image is degraded, source, whether bias applies (CT has none).
SEGMENTED = (
    ("infarct, DWI and ADC", "infarct", ("dwi", "adc"), "dwi", True),
    ("infarct, FLAIR", "infarct", ("FLAIR",), "FLAIR", True),
    ("haematoma, CT", "haematoma", ("ncct",), "ncct", False),
)


def dice(one: np.ndarray, other: np.ndarray) -> float:
    total = one.sum() + other.sum()
    return float(2 * (one & other).sum() / total) if total else 1.0


def segmentation_rows() -> Iterator[tuple[str, str, str]]:
    """Method, condition, and Dice with the error of the volume."""
    from phantom_truth import write_truth_images

    from corelab.imaging import brain_mask, load_image
    from corelab.phantom.design import TrialSpec
    from corelab.phantom.scans import simulate_scan

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for title, label, kinds, main_kind, has_bias in SEGMENTED:
            images = {
                kind: load_image(
                    simulate_scan(TrialSpec(), "002", "day5", kind, folder / f"{kind}.nii.gz"),
                    kind=kind,
                )
                for kind in kinds
            }
            truths = write_truth_images(TrialSpec(), "002", "day5", main_kind, folder / main_kind)
            truth = {key: load_image(truths[key], kind=f"mask-{key}") for key in (label, "brain")}
            conditions = list(CONDITIONS if has_bias else CONDITIONS[:4])
            if "adc" in kinds:
                conditions += [
                    (f"ADC {mm} mm off the DWI", lambda image, mm=mm: shifted(image, mm))
                    for mm in (1.5, 3.0)
                ]
            for condition, change in conditions:
                off = condition.startswith("ADC")
                given = {
                    kind: image if off and kind != "adc" else change(image)
                    for kind, image in images.items()
                }
                thick = "thick" in condition
                masks = {
                    key: np.asarray((thicker(mask, 2) if thick else mask).dataobj) >= 0.5
                    for key, mask in truth.items()
                }
                found = _segmented(given, label, folder / "run")
                error = 100 * (found.sum() / masks[label].sum() - 1) if masks[label].any() else 0.0
                yield title, condition, f"{dice(found, masks[label]):.3f} ({error:+.0f} %)"
                if not off:
                    brain = brain_mask(given[main_kind], main_kind)
                    yield (
                        f"brain mask, {main_kind}",
                        condition,
                        f"{dice(brain, masks['brain']):.3f}",
                    )


def _segmented(images: dict[str, nib.Nifti1Image], label: str, folder: Path) -> np.ndarray:
    """The pipeline's mask of a label from images in memory, as the workflow would make it."""
    from helpers import prepare_rows

    from corelab.imaging import load_image
    from corelab.segmentation.visit import segment_visit

    folder.mkdir(exist_ok=True)
    rows = []
    for kind, image in images.items():
        path = folder / f"{kind}.nii.gz"
        nib.save(image, path)
        rows.append(
            {"participant_id": "1", "visit": "v", "kind": kind, "path": str(path), "scan_id": kind}
        )
    record = prepare_rows(rows, folder)
    for mask in segment_visit(record, folder, disease="stroke").masks:
        if mask.label == label and mask.status == "ok":
            return np.asarray(load_image(folder / mask.file, kind="mask").dataobj) > 0
    return np.zeros(images[next(iter(images))].shape, bool)


def registration_rows() -> Iterator[tuple[str, str, str]]:
    """The same for the fit of a T1 to MNI152 by the preset `fast`."""
    from registration_truth import accuracy, subject

    who = (11, 4.2, -1)
    thick: dict[str, Any] = {"spacing": (1.0, 1.0, 5.0)}
    for condition, change in (
        ("as simulated", {}),
        ("noise x 4", {"noise": 0.16}),
        ("slices of 5 mm", thick),
        ("bias field 0.8", {"bias": 0.8}),
        ("head tilted by 25 degrees", {"tilt_deg": 25.0}),
    ):
        found = accuracy(subject(*who, **change), {"preset": "fast"})
        verdict = "ok" if found.fit.reason is None else f"told: {found.fit.reason}"
        words = f"{found.error_mm:.2f} mm, lesion {found.lesion_percent:+.1f} %, {verdict}"
        yield "T1 to MNI152 (fast)", condition, words


# --- the document ------------------------------------------------------------------------------


def document(found: list[Cost], rows: list[tuple[str, str, str]]) -> str:
    """Markdown of both tables."""
    cpu_s, memory_mb = sum(c.cpu_s for c in found), max(c.memory_mb for c in found)
    kinds = ", ".join(TIMED[2])
    lines = [
        "# Cost of a visit, and where each method breaks",
        "",
        "Written by `make bench` (tests/bench/bench_imaging.py); do not edit. Simulated heads are",
        "kinder than real ones: read the tables for where a method gives way, not for how good it is.",
        "",
        "## Cost",
        "",
        f"One visit ({kinds}), every stage in a process of its own with its imports, one core of a",
        f"shared {platform.machine()} machine. Limits: {CPU_LIMIT_S:.0f} CPU s and"
        f" {MEMORY_LIMIT_MB / 1024:.0f} GiB.",
        "",
        "| stage | CPU s | peak memory, MiB |",
        "| --- | ---: | ---: |",
        *[f"| {c.stage} | {c.cpu_s:.0f} | {c.memory_mb:.0f} |" for c in found],
        f"| **visit** | **{cpu_s:.0f}** | **{memory_mb:.0f}** |",
        "",
        "## Where each method breaks",
        "",
        "Segmentation: Dice and the error of the volume; brain masks: Dice; registration: mean error",
        "and the error of the lesion's volume in MNI152. One thing is made worse at a time.",
        "",
        "| method | condition | result |",
        "| --- | --- | --- |",
        *[f"| {method} | {condition} | {words} |" for method, condition, words in rows],
        "",
    ]
    return "\n".join(lines)


def main() -> None:
    """Measure, print and write both tables."""
    rows = []
    for row in [*segmentation_rows(), *registration_rows()]:
        rows.append(row)
        print(" | ".join(row), flush=True)
    DOCUMENT.write_text(document(costs(), rows), encoding="utf-8")
    print(f"written: {DOCUMENT.relative_to(REPOSITORY)}")


if __name__ == "__main__":
    main()
