"""Gallery of good and bad images: python docs/make_gallery.py, after make demo.

Good pictures are the quality figures of the demo. For the bad ones the demo's own inputs are
disturbed in a known way and go through the same stage again: its figure is shown, and the page
quotes what the stage reports. Writes docs/gallery.md and docs/images/gallery/*.webp.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from string import Template

import nibabel as nib
import numpy as np
from PIL import Image
from scipy import ndimage

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent / "workflow" / "scripts"))

from corelab.imaging import load_image  # noqa: E402
from corelab.imaging.brain_quality import judged_mask, mask_warnings  # noqa: E402
from corelab.imaging.template import template_brain_mask  # noqa: E402
from corelab.perfusion import perfuse_visit  # noqa: E402
from corelab.records.images import Prepared  # noqa: E402
from corelab.records.perfusion import Perfused  # noqa: E402
from corelab.records.subjects import Chain, Normalised  # noqa: E402
from corelab.records.visits import VisitRecords, visit_masks  # noqa: E402
from corelab.registration.figures import quality_figures  # noqa: E402
from corelab.registration.quality import overlap, verdict  # noqa: E402
from corelab.registration.transforms import Affine, write_affine  # noqa: E402
from corelab.reporting.attention import gate_limit_words  # noqa: E402
from corelab.reporting.numbers import observed  # noqa: E402
from corelab.reporting.vocabulary import criterion_words  # noqa: E402
from corelab.settings.perfusion import PerfusionSettings  # noqa: E402
from corelab.settings.registration import RegistrationLimits  # noqa: E402

IMAGES = HERE / "images" / "gallery"
SUBJECT, VISIT = "002", "baseline"
MAX_WIDTH = 1000


def picture(source: Path, name: str) -> None:
    """Save a figure as a small WebP file."""
    with Image.open(source) as opened:
        image = opened.convert("RGB")
    if image.width > MAX_WIDTH:
        image = image.resize((MAX_WIDTH, round(image.height * MAX_WIDTH / image.width)))
    IMAGES.mkdir(parents=True, exist_ok=True)
    image.save(IMAGES / f"{name}.webp", "WEBP", quality=62, method=6)


def volumes(found: Perfused, folder: Path) -> str:
    """Volumes of the primary masks of a perfusion visit, in words."""
    texts = []
    for mask in visit_masks(None, None, found, space="native", usable=True):
        if mask.source == "pipeline" and mask.label in ("core", "hypoperfused"):
            image = load_image(folder / mask.file, kind="mask")
            ml = float(np.asarray(image.dataobj).sum() * abs(np.linalg.det(image.affine[:3, :3])))
            texts.append(f"{mask.label} {ml / 1000:.1f} mL")
    return ", ".join(texts)


def said(found: Perfused) -> str:
    """What a perfusion visit reports: its status, and each gate that was not passed."""
    lines = [f"`{found.status}`: {found.reason}"] if found.status != "ok" else []
    for gate in found.gates:
        if gate.verdict in ("warn", "fail"):
            name, unit, _ = criterion_words(gate.criterion)
            value = f"{observed(gate.value, 3)} {unit}".strip()
            lines.append(f"**{gate.verdict}** {name} {value} ({gate_limit_words(gate.limit)})")
    return "\n".join(f"- {line}" for line in lines) or "- every gate passed"


def disturbed(
    study: Path,
    folder: Path,
    change: Callable[[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]],
) -> Perfused:
    """The perfusion stage on the demo's series after a change of its frames and their times."""
    place = Path("derivatives", f"sub-{SUBJECT}", f"ses-{VISIT}")
    shutil.copytree(study / place, folder / place, copy_function=os.link)
    record = Prepared.read(folder / place / "prepare.json")
    scan = next(scan for scan in record.scans if scan.kind == "ctp")
    image = load_image(folder / scan.file, ndim=4, kind="ctp")
    given = scan.metadata.get("frame_times_s")
    times = np.asarray(given or image.header.get_zooms()[3] * np.arange(image.shape[3]), float)
    frames, times = change(np.asarray(image.dataobj, np.float32), times)
    (folder / scan.file).unlink()
    nib.save(nib.Nifti1Image(frames, image.affine), folder / scan.file)
    changed = replace(scan, metadata={**scan.metadata, "frame_times_s": times.tolist()})
    scans = tuple(changed if one is scan else one for one in record.scans)
    return perfuse_visit(
        replace(record, scans=scans), folder, settings=PerfusionSettings(), threads=1
    )


def truncated(frames: np.ndarray, times: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The scanner stops while the bolus is still in the tissue."""
    keep = times <= times[0] + 19.0
    return frames[..., keep], times[keep]


def moved(frames: np.ndarray, times: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The head turns by 6 degrees within its slices as the bolus arrives, and stays there."""
    late = frames.copy()
    for number in np.flatnonzero(times > times[0] + 16.0):
        late[..., number] = ndimage.rotate(
            frames[..., number], 6.0, axes=(0, 1), reshape=False, order=1, mode="nearest"
        )
    return late, times


def weak(frames: np.ndarray, times: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A tenth of the contrast agent arrives: the injection failed."""
    base = frames[..., :4].mean(axis=3, keepdims=True)
    noise = frames - ndimage.uniform_filter1d(frames, 5, axis=3)
    return base + 0.1 * (frames - base - noise) + noise, times


def perfusion(study: Path, facts: dict[str, str]) -> None:
    """Perfusion figures: as acquired, cut short, moved, and with a failed injection."""
    place = study / "derivatives" / f"sub-{SUBJECT}" / f"ses-{VISIT}"
    good = Perfused.read(place / "perfuse.json")
    for name in ("arterial", "lesions", "displacement"):
        picture(study / good.figures[f"figure_{name}"], f"{name}_good")
    facts |= {"good_said": said(good), "good_ml": volumes(good, study)}
    for name, change, shown in (
        ("truncated", truncated, ("arterial", "lesions")),
        ("moved", moved, ("displacement", "lesions")),
        ("weak", weak, ("arterial", "lesions")),
    ):
        with tempfile.TemporaryDirectory(dir=study) as folder:
            found = disturbed(study, Path(folder), change)
            for figure in shown:
                if f"figure_{figure}" in found.figures:
                    picture(Path(folder) / found.figures[f"figure_{figure}"], f"{figure}_{name}")
            facts[f"{name}_said"] = said(found)
            facts[f"{name}_ml"] = volumes(found, Path(folder)) or "no volume"


def registration(study: Path, facts: dict[str, str]) -> None:
    """A fit to the template, and the same scan 15 degrees and 20 mm away from it."""
    subject = study / "derivatives" / f"sub-{SUBJECT}"
    record = Normalised.read(subject / "normalise.json")
    prepare = Prepared.read(subject / f"ses-{VISIT}" / "prepare.json")
    picture(next(subject.glob("ses-*/figures/*desc-registration_qc.png")), "registration_good")
    anchor = record.anchor
    assert anchor is not None
    turn = np.deg2rad(15.0)
    wrong = np.eye(4)
    wrong[:2, :2] = [[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]]
    wrong[:3, 3] = 0.0, 20.0, 0.0
    with tempfile.TemporaryDirectory(dir=study) as name:
        folder = Path(name)
        write_affine(wrong, folder / "wrong.mat")
        brain = load_image(study / prepare.brain_masks[anchor.grid], kind="mask")
        steps = [Affine(wrong)], [Affine(np.linalg.inv(wrong))]
        dice, _ = overlap(template_brain_mask(), brain, *steps)
        reason = verdict({"dice": dice}, RegistrationLimits(), {"dice_min": "dice"})
        bad = replace(
            record,
            status="failed" if reason else "ok",
            reason=reason,
            method="affine",
            quality={"dice": dice},
            transforms={
                anchor.visit: {
                    anchor.grid: Chain(("wrong.mat",), (False,), ("wrong.mat",), (True,))
                }
            },
        )
        # Figures go beside a copy of the records, never into the demo.
        copy = folder / "derivatives" / subject.name
        shutil.copytree(subject, copy, copy_function=os.link)
        for old in copy.rglob("*_qc.png"):
            old.unlink()
        checked = quality_figures([VisitRecords(VISIT, prepare)], bad, folder)
        assert checked.fit is not None
        picture(folder / checked.fit, "registration_bad")
    good = {key: value for key, value in record.quality.items() if key == "dice"}
    facts |= {"fit_good": f"Dice {good['dice']:.3f}", "fit_bad": str(reason)}


def brain(study: Path, facts: dict[str, str]) -> None:
    """A brain mask, and the same with the upper third lost and a part of the scalp in it."""
    place = study / "derivatives" / f"sub-{SUBJECT}" / f"ses-{VISIT}"
    prepare = Prepared.read(place / "prepare.json")
    scan = next(one for one in prepare.scans if one.kind == "T1w")
    image = load_image(study / scan.file)
    mask = load_image(study / prepare.brain_masks[str(scan.grid)], kind="mask")
    good = np.asarray(mask.dataobj) > 0
    bad = good.copy()
    levels = np.flatnonzero(good.any(axis=(0, 1)))
    bad[:, :, levels[len(levels) * 2 // 3] :] = False
    scalp = ndimage.binary_dilation(good, iterations=14) & (np.asarray(image.dataobj) > 0)
    scalp[:, : good.shape[1] * 3 // 5] = False
    bad |= scalp & (np.indices(good.shape, np.int16)[2] < levels[len(levels) // 2])
    nobody = Normalised(SUBJECT, status="not_computable")
    for name, voxels in (("good", good), ("bad", bad)):
        made = nib.Nifti1Image(voxels.astype(np.uint8), image.affine)
        with tempfile.TemporaryDirectory() as where:
            folder = Path(where)
            nib.save(image, folder / "t1.nii.gz")
            nib.save(made, folder / "brain.nii.gz")
            judged = judged_mask(made, image, "T1w", "T1w")
            record = Prepared(
                SUBJECT, VISIT, scans=(replace(scan, path="t1.nii.gz"),), reference=scan.grid,
                brain_masks={str(scan.grid): "brain.nii.gz"},
                brain_mask_quality={str(scan.grid): judged},
            )  # fmt: skip
            checked = quality_figures([VisitRecords(VISIT, record)], nobody, folder)
            picture(folder / checked.masks[VISIT], f"brain_{name}")
            texts = mask_warnings(record, scan.grid).values()
            facts[f"brain_{name}"] = "\n".join(f"- {text}" for text in texts) or "- no flag"


def main(study: Path) -> None:
    """Draw every picture and write the page."""
    facts: dict[str, str] = {}
    brain(study, facts)
    registration(study, facts)
    perfusion(study, facts)
    page = Template((HERE / "gallery.md.tmpl").read_text(encoding="utf-8"))
    (HERE / "gallery.md").write_text(page.substitute(facts), encoding="utf-8")
    for name, text in facts.items():
        print(f"{name}: {text}")
    size = sum(path.stat().st_size for path in IMAGES.glob("*.webp"))
    print(f"{size / 1e6:.2f} MB in {IMAGES}")


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "results/demo").resolve())
