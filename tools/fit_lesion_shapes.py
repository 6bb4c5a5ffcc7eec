"""Fit the lesion shape model to public masks, and compare it with masks that it has not seen.

    python tools/fit_lesion_shapes.py FOLDER [--trials 24]

FOLDER holds SOOP lesion masks in MNI space (``lesions/*sub-<number>_lesion.nii.gz``) and
``ArterialAtlas136.nii.gz``/``.txt`` on their grid: 120 masks of SOOP (Absher J et al., Sci Data
2024;11:839, OpenNeuro ds004889), redistributed under BSD-2 by C. Rorden. Sorted by number, every
fourth is for judging only. The numbers go to ``resources/shapes/soop.json``; no mask does.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pandas as pd
from scipy import ndimage
from skimage.measure import marching_cubes, mesh_surface_area

from corelab.imaging.shapes import MODEL_FILE, ShapeModel, Territory, draw_shape, place
from corelab.registration.template import template_brain_mask

DESCRIPTORS = (
    "sphericity", "surface_per_volume", "elongation", "flatness", "solidity", "extent",
    "components", "main_share",
)  # fmt: skip
QUANTILES = (0.1, 0.25, 0.5, 0.75, 0.9)
#: Masks below this volume (mL) are a few voxels: their shape is that of the voxels.
SMALLEST_ML = 0.05
#: Components of at least so many voxels (mm3) count.
COUNTED = 8


def descriptors(mask: np.ndarray) -> dict[str, float]:
    """Shape of a mask on a 1 mm grid."""
    mask = np.pad(mask[ndimage.find_objects(mask.astype(np.uint8))[0]], 4)
    labels, _ = ndimage.label(mask, np.ones((3, 3, 3)))
    sizes = np.bincount(labels.ravel())[1:]
    main = labels == 1 + int(sizes.argmax())
    where = np.argwhere(main)
    spread = np.sort(np.linalg.eigvalsh(np.cov(where.T) + np.eye(3) / 12))[::-1]
    volume, whole = float(main.sum()), float(mask.sum())
    diagonal = np.linalg.norm(np.ptp(np.argwhere(mask), axis=0) + 1)
    return {
        "volume_ml": whole / 1000,
        "sphericity": np.pi ** (1 / 3) * (6 * volume) ** (2 / 3) / _surface(main),
        "surface_per_volume": _surface(mask) / whole,
        "elongation": np.sqrt(spread[0] / spread[1]),
        "flatness": np.sqrt(spread[1] / spread[2]),
        "solidity": volume / (4 / 3 * np.pi * np.prod(np.sqrt(5 * spread))),
        "extent": diagonal / (6 * whole / np.pi) ** (1 / 3),
        "components": float((sizes >= COUNTED).sum()),
        "main_share": volume / whole,
    }


def _surface(mask: np.ndarray) -> float:
    """Area (mm2) of the slightly smoothed surface, so that voxel steps do not count."""
    smooth = ndimage.gaussian_filter(mask.astype(np.float32), 0.8)
    corners, faces, _, _ = marching_cubes(smooth, min(0.4, 0.5 * float(smooth.max())))
    return float(mesh_surface_area(corners, faces))


def simulated(
    model: ShapeModel, volumes: np.ndarray, brain: nib.Nifti1Image, seed: int
) -> pd.DataFrame:
    """Descriptors of lesions drawn from a model, of given volumes, within the template's brain."""
    weight = np.asarray(brain.dataobj, np.float32)
    found = []
    for number, volume in enumerate(volumes):
        random = np.random.default_rng([seed, number])
        for _ in range(20):
            chosen = random.choice(
                len(model.territories), p=[t.probability for t in model.territories]
            )
            territory = model.territories[chosen]
            centre = random.normal(territory.centre_mm, territory.sd_mm)
            try:
                [lesion] = place(
                    draw_shape(random, volume, model=model), [volume], centre, brain.affine, weight
                )
            except ValueError:
                continue
            found.append(descriptors(lesion.fraction >= 0.5))
            break
    return pd.DataFrame(found)


def distance(one: pd.DataFrame, other: pd.DataFrame) -> float:
    """Mean distance of quantiles in units of the reference's SD, small and large ones apart."""
    total = []
    for low, high in ((0.0, 8.0), (8.0, 1e9)):
        a, b = (f[f["volume_ml"].between(low, high)] for f in (one, other))
        for name in DESCRIPTORS:
            x, y = (np.log(f[name].clip(1e-3)) for f in (a, b))
            gaps = np.abs(x.quantile(QUANTILES) - y.quantile(QUANTILES))
            total.append(float(gaps.mean()) / max(float(x.std()), 0.05))
    return float(np.mean(total))


def territories(folder: Path, masks: list[Path]) -> tuple[Territory, ...]:
    """Share and place of lesions per arterial territory; both sides are pooled and mirrored."""
    atlas = np.rint(np.asarray(nib.load(folder / "ArterialAtlas136.nii.gz").dataobj)).astype(int)
    lines = (folder / "ArterialAtlas136.txt").read_text().splitlines()
    names = {int(line.split("|")[0]): line.split("|")[2] for line in lines if "|" in line}
    sides = re.compile(r" (left|right)$")
    points: dict[str, list[np.ndarray]] = {}
    for path in masks:
        image = nib.load(path)
        where = np.argwhere(np.asarray(image.dataobj) > 0.5)
        counts = np.bincount(atlas[tuple(where.T)], minlength=33)
        counts[0] = 0
        counts[[i for i, name in names.items() if "ventricle" in name]] = 0
        label = int(counts.argmax()) if counts.any() else 0
        centre = nib.affines.apply_affine(image.affine, where.mean(axis=0))
        name = sides.sub("", names.get(label, "elsewhere"))
        points.setdefault(name, []).append(np.abs(centre * [1, 0, 0]) + centre * [0, 1, 1])
    known = {sides.sub("", name) for name in names.values() if "ventricle" not in name}
    total = len(masks) + len(known)
    found = []
    for name in sorted(points):
        here = np.array(points[name])
        # Two further lesions scattered by 12 mm keep the spread of rare territories wide.
        spread = np.sqrt((2 * 12.0**2 + ((here - here.mean(0)) ** 2).sum(0)) / (2 + len(here)))
        for side, sign in (("left", -1), ("right", 1)):
            centre = tuple(round(float(v), 1) for v in here.mean(0) * [sign, 1, 1])
            share = (len(here) + 1) / 2 / total
            found.append(Territory(f"{name} {side}", share, centre, tuple(spread.round(1))))
    whole = sum(t.probability for t in found)
    shares = [round(t.probability / whole, 5) for t in found]
    shares[0] += 1 - sum(shares)
    return tuple(replace(t, probability=s) for t, s in zip(found, shares, strict=True))


def search(
    start: ShapeModel, real: pd.DataFrame, brain: nib.Nifti1Image, trials: int
) -> tuple[ShapeModel, float]:
    """Random search around the best model so far; each trial draws lesions of the real volumes."""
    random = np.random.default_rng(20260101)
    # All volumes: on a third of them, the search fitted the chance of the draw.
    volumes = np.sort(real["volume_ml"].to_numpy())
    best, least = start, distance(real, simulated(start, volumes, brain, 1))
    print(f"start {least:.3f}", flush=True)
    for trial in range(trials):
        width = 0.25 if trial < trials // 2 else 0.12

        def moved(value: float, width: float = width) -> float:
            return float(value * np.exp(random.normal(0, width)))

        tried = replace(
            best,
            log_elongation=(moved(best.log_elongation[0]), best.log_elongation[1]),
            log_flatness=(moved(best.log_flatness[0]), best.log_flatness[1]),
            roughness_mm=moved(best.roughness_mm),
            roughness_power=moved(best.roughness_power),
            roughness_log_sd=moved(best.roughness_log_sd),
            correlation_mm=moved(best.correlation_mm),
            fine_share=min(0.8, moved(best.fine_share)),
            single_probability=min(0.95, moved(best.single_probability)),
            satellites_mean=max(1.0, moved(best.satellites_mean)),
            minor_share=moved(best.minor_share),
            scatter_mm=moved(best.scatter_mm),
        )
        found = distance(real, simulated(tried, volumes, brain, 1))
        if found < least:
            best, least = tried, found
            print(f"trial {trial}: {least:.3f}", flush=True)
    return best, least


def comparison(real: pd.DataFrame, drawn: pd.DataFrame) -> pd.DataFrame:
    """Quantiles of every descriptor in masks and in drawn lesions."""
    rows = []
    for name in DESCRIPTORS:
        row: dict[str, Any] = {"descriptor": name}
        for q in QUANTILES:
            row[f"real q{q:g}"] = real[name].quantile(q)
            row[f"drawn q{q:g}"] = drawn[name].quantile(q)
        rows.append(row)
    return pd.DataFrame(rows).round(2)


def main() -> None:
    """Fit, write the numbers, print the comparison with the masks that were left out."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--trials", type=int, default=24)
    given = parser.parse_args()
    files = sorted(
        (given.folder / "lesions").glob("*.nii.gz"),
        key=lambda path: int(re.findall(r"sub-(\d+)", path.name)[0]),
    )
    if not files:
        sys.exit(f"{given.folder}/lesions holds no masks")
    judged = files[3::4]
    fitted = [path for path in files if path not in judged]
    tables = []
    for group in (fitted, judged):
        table = pd.DataFrame([descriptors(np.asarray(nib.load(p).dataobj) > 0.5) for p in group])
        tables.append(table[table["volume_ml"] >= SMALLEST_ML])
    real, unseen = tables
    logs = np.log(real[["volume_ml", "elongation", "flatness"]])
    start = ShapeModel(
        log_volume_ml=(float(logs["volume_ml"].mean()), float(logs["volume_ml"].std())),
        log_elongation=(0.9 * float(logs["elongation"].mean()), float(logs["elongation"].std())),
        log_flatness=(0.9 * float(logs["flatness"].mean()), float(logs["flatness"].std())),
        roughness_mm=3.2,
        roughness_power=0.6,
        roughness_log_sd=0.3,
        correlation_mm=9.0,
        fine_share=0.3,
        single_probability=float((real["components"] <= 1).mean()),
        satellites_mean=float(real["components"][real["components"] > 1].mean()) - 1.0,
        minor_share=float(1 - real["main_share"][real["components"] > 1].mean()),
        scatter_mm=30.0,
        territories=territories(given.folder, fitted),
    )
    brain = template_brain_mask()
    best, least = search(start, real, brain, given.trials)
    parameters = asdict(best)
    for key, value in parameters.items():
        if isinstance(value, float):
            parameters[key] = round(value, 4)
        elif key.startswith("log_"):
            parameters[key] = [round(part, 4) for part in value]
    text = {
        "source": "120 lesion masks of SOOP (Absher J et al., Sci Data 2024;11:839, OpenNeuro "
        "ds004889), registered to MNI space and redistributed by C. Rorden",
        "licence": "BSD-2-Clause (the masks); these numbers were fitted to them and hold no mask",
        "method": "tools/fit_lesion_shapes.py: random search on quantiles of shape descriptors",
        "fitted_masks": len(real),
        "distance_of_quantiles": round(least, 3),
        "parameters": parameters,
    }
    MODEL_FILE.parent.mkdir(parents=True, exist_ok=True)
    # One line for each list.
    lines = re.sub(r"\[\s+([^\[\]{}]*?)\s+\]", r"[\1]", json.dumps(text, indent=1))
    MODEL_FILE.write_text(re.sub(r",\n +(?=[-\d.]+[,\]])", ", ", lines) + "\n", encoding="utf-8")
    print(f"\nunseen masks: {len(unseen)}")
    drawn = simulated(best, np.tile(unseen["volume_ml"], 2), brain, 7)
    print(comparison(unseen, drawn).to_string(index=False))
    print(f"distance to unseen masks {distance(unseen, drawn):.3f}")
    print(f"distance of fitted to unseen masks {distance(unseen, real):.3f}")


if __name__ == "__main__":
    main()
