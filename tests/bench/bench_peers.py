"""Ours beside open peers: the same data, one thread, one run; writes docs/peers.md.

Peers that are no dependency of the workflow are left out where they are not installed (the table says
so): ``osipy`` (perfusion, Python 3.12), ``medpy`` and ``surface-distance`` (overlap). ANTsPy, nilearn,
pingouin and statsmodels are dependencies. Nothing here chose a constant of ours but the registration's first
simulated head, on which its presets were developed; the second served no choice.

    .venv/bin/python tests/bench/bench_peers.py [NAME ...]
"""

from __future__ import annotations

import importlib.util
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ.setdefault("ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS", "1")
for _variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(_variable, "1")

import numpy as np  # noqa: E402 - after the number of threads

REPOSITORY = Path(__file__).resolve().parents[2]
sys.path[:0] = [
    str(REPOSITORY / "tests"), str(REPOSITORY / "workflow" / "scripts"), str(Path(__file__).parent)
]  # fmt: skip
DOCUMENT = REPOSITORY / "docs" / "peers.md"


@dataclass(frozen=True)
class Row:
    """One program on one task: CPU time of the whole task, and how well it did."""

    program: str
    cpu_s: float | None
    result: str


@dataclass(frozen=True)
class Comparison:
    """A task, ours first, and what is to be said of it."""

    title: str
    rows: tuple[Row, ...]
    comment: str


def timed(function: Callable[[], Any], times: float = 1.0) -> tuple[float, Any]:
    """CPU seconds, multiplied where a part stands for the whole, and the result."""
    start = time.process_time()
    result = function()
    return (time.process_time() - start) * times, result


def missing(name: str) -> Row | None:
    """A row that says that a peer is not installed."""
    found = importlib.util.find_spec(name)
    return None if found else Row(name, None, "not installed")


def perfusion() -> Comparison:
    """Core and flow of the Manhart brain, 14,700 voxels, noise of 6 HU."""
    from compare_perfusion import manhart

    if not os.environ.get("CORELAB_TEST_DATA"):
        rows = (Row("corelab", None, "CORELAB_TEST_DATA is not set: no Manhart brain"),)
        return Comparison("Deconvolution of CT perfusion", rows, "")
    manhart(6.0)  # Compiles the kernels; the second call is timed.
    found = manhart(6.0, seed=2)
    names = {"bayes": "corelab bayes (default)", "bsvd": "corelab bsvd"}
    rows = [
        Row(names.get(name, name), one["cpu_s"], f"CBF r {one['cbf_r']:.3f}, MTT r {one['mtt_r']:.3f}, "
            f"core Dice {one['core_dice']:.2f} ({one['core_ml']:+.1f} mL)")
        for name, one in sorted(found.items(), key=lambda item: item[0] not in names)
        if name in names or not name.islower()
    ]  # fmt: skip
    for label in ("osipy cSVD", "PyPeT"):
        if not any(label in row.program for row in rows):
            rows.append(Row(label, None, "not installed"))
    return Comparison(
        "Deconvolution of CT perfusion (Manhart brain, 6 HU, 14,700 curves)",
        tuple(rows),
        "A circular SVD is one matrix product and wins in time; the Bayesian engine integrates over "
        "delay and transit time of every curve, which is where its accuracy comes from.",
    )


def _ants_fit(truth: Any, kind: str) -> str:
    """Error of an ANTsPy registration of a simulated head, with N4 and the true brain mask."""
    import ants
    import nibabel as nib
    import pandas as pd

    from corelab.registration import template_brain_mask, template_image

    head = truth.head
    with tempfile.TemporaryDirectory() as name:
        paths = [f"{name}/{part}.nii.gz" for part in ("image", "template", "mask", "lesion")]
        images = (head.image, template_image(), head.brain,
                  nib.Nifti1Image(truth.lesion.astype(np.uint8), head.image.affine))  # fmt: skip
        for image, path in zip(images, paths, strict=True):
            nib.save(image, path)
        moving, fixed, mask, lesion = (ants.image_read(path) for path in paths)
        moving = ants.n4_bias_field_correction(moving, mask=mask, shrink_factor=4) * mask
        fit = ants.registration(fixed, moving, type_of_transform=kind, random_seed=1)
        warped = ants.apply_transforms(
            fixed, lesion, fit["fwdtransforms"], interpolator="nearestNeighbor"
        ).numpy()
        affine = template_image().affine
        points = np.argwhere(np.asarray(template_brain_mask().dataobj))[::37] + affine[:3, 3]
        lps = pd.DataFrame(points * [-1, -1, 1], columns=["x", "y", "z"])
        moved = ants.apply_transforms_to_points(3, lps, fit["fwdtransforms"])
        there = moved[["x", "y", "z"]].to_numpy() * [-1, -1, 1]
    error_mm = np.linalg.norm(truth.phi(there) - points, axis=1).mean()
    percent = 100 * ((warped > 0).sum() / truth.lesion_mni.sum() - 1)
    return f"{error_mm:.2f} mm, lesion {percent:+.1f} %"


def registration() -> Comparison:
    """Simulated T1 heads with a lesion of 28 to 41 mL to MNI152."""
    from registration_truth import accuracy, subject

    rows = []
    for who, kinds in (
        ((11, 4.2, -1), ("antsRegistrationSyNQuick[s]",)),
        ((304, 3.2, 1), ("antsRegistrationSyNQuick[s]", "SyN")),
    ):
        truth = subject(*who)
        cpu_s, ours = timed(lambda truth=truth: accuracy(truth, {"preset": "fast"}))
        words = f"{ours.error_mm:.2f} mm, lesion {ours.lesion_percent:+.1f} %"
        rows.append(Row(f"corelab fast, head {who[0]}", cpu_s, words))
        for kind in kinds:
            cpu_s, words = timed(lambda truth=truth, kind=kind: _ants_fit(truth, kind))
            rows.append(Row(f"ANTsPy N4 and {kind}, head {who[0]}", cpu_s, words))
    return Comparison(
        "T1 with a lesion to MNI152 (mean target registration error)",
        tuple(rows),
        "The same brain mask for all. ANTsPy gets no lesion mask here, as in most pipelines; ours fills "
        "the lesion with the subject's own tissue first. Head 304 served no choice of ours.",
    )


def icc() -> Comparison:
    """ICC(A,1) of 2,000 features x 100 subjects x 5 readers."""
    import pandas as pd
    import pingouin as pg

    from corelab.agreement.icc import intraclass_correlation_many

    rng = np.random.default_rng(1)
    ratings = rng.normal(size=(2000, 100, 1)) + 0.3 * rng.normal(size=(2000, 100, 5))
    cpu_s, ours = timed(lambda: intraclass_correlation_many(ratings))
    few = 10

    def peer() -> float:
        for feature in ratings[:few]:
            wide = pd.DataFrame(feature).reset_index()
            long = wide.melt("index", var_name="rater", value_name="v")
            table = pg.intraclass_corr(long, "index", "rater", "v").set_index("Type")
        return float(table["ICC"].filter(regex=r"ICC2$|A,1").iloc[0])

    peer_s, value = timed(peer, len(ratings) / few)
    own = float(ours["icc_a_1"][0][few - 1])
    return Comparison(
        "ICC of 2,000 features x 100 subjects x 5 readers",
        (Row("corelab", cpu_s, f"ICC of feature {few}: {own:.6f}"),
         Row("pingouin, feature by feature (10 stand for all)", peer_s, f"{value:.6f}")),
        "Ours computes the mean squares of all features at once.",
    )  # fmt: skip


def overlap() -> Comparison:
    """Dice and HD95 of 1,000 pairs of masks of some mL on a grid of 1 mm."""
    from scipy import ndimage

    from corelab.measurement.overlap import _surface_distances, generalised_dice

    rng = np.random.default_rng(1)
    pairs = []
    for _ in range(20):
        field = ndimage.gaussian_filter(rng.standard_normal((60, 60, 60)), 5)
        both = []
        for level in (0.85, 0.87):
            grid = np.zeros((182, 218, 182), bool)
            grid[60:120, 80:140, 60:120] = field > np.quantile(field, level)
            both.append(grid)
        pairs.append(both)
    times, sizes = 1000 / len(pairs), (1.0, 1.0, 1.0)

    def ours() -> float:
        return float(np.mean([
            (generalised_dice([a, b]), _surface_distances(a, b, sizes).hd95_mm)[1] for a, b in pairs
        ]))  # fmt: skip

    ours()
    cpu_s, value = timed(ours, times)
    rows = [Row("corelab", cpu_s, f"mean HD95 {value:.3f} mm")]
    rows.append(missing("medpy") or Row("MedPy", *_medpy(pairs, sizes, times)))
    rows.append(
        missing("surface_distance") or Row("surface-distance", *_deepmind(pairs, sizes, times))
    )
    return Comparison(
        "Dice and HD95 of 1,000 pairs of masks (20 stand for all)",
        tuple(rows),
        "MedPy takes one 95th percentile of both directions together, surface-distance weights by the "
        "area of surface elements: other definitions, so other values.",
    )


def _medpy(pairs: list[Any], sizes: tuple[float, ...], times: float) -> tuple[float, str]:
    from medpy.metric.binary import dc, hd95

    cpu_s, value = timed(
        lambda: np.mean([(dc(a, b), hd95(a, b, sizes))[1] for a, b in pairs]), times
    )
    return cpu_s, f"{value:.3f} mm"


def _deepmind(pairs: list[Any], sizes: tuple[float, ...], times: float) -> tuple[float, str]:
    from surface_distance import (
        compute_dice_coefficient,
        compute_robust_hausdorff,
        compute_surface_distances,
    )

    def peer() -> float:
        values = []
        for a, b in pairs:
            compute_dice_coefficient(a, b)
            values.append(compute_robust_hausdorff(compute_surface_distances(a, b, sizes), 95))
        return float(np.mean(values))

    cpu_s, value = timed(peer, times)
    return cpu_s, f"{value:.3f} mm"


def frequency() -> Comparison:
    """1,449 masks of the 1 mm template brought to it again (half a voxel off) and counted."""
    import ants
    import nibabel as nib
    from nilearn.image import resample_to_img

    from corelab.imaging import resample_to
    from corelab.registration import template_image

    template, rng, few, cohort = template_image(), np.random.default_rng(1), 12, 1449
    affine = template.affine.copy()
    affine[:3, 3] += 0.4
    masks = []
    for _ in range(few):
        voxels = np.zeros(template.shape, np.uint8)
        x, y, z = (int(rng.integers(20, size - 50)) for size in template.shape)
        voxels[x : x + 25, y : y + 25, z : z + 20] = rng.random((25, 25, 20)) < 0.9
        masks.append(nib.Nifti1Image(voxels, affine))

    def counted(resampled: Callable[[Any], np.ndarray]) -> int:
        total = np.zeros(template.shape, np.uint16)
        for mask in masks:
            total += resampled(mask) > 0
        return int(total.sum())

    target = ants.from_nibabel_nifti(template)
    ways: dict[str, Callable[[Any], np.ndarray]] = {
        "corelab": lambda m: np.asarray(resample_to(m, template, order=0).dataobj),
        "nilearn": lambda m: np.asarray(
            resample_to_img(
                m, template, interpolation="nearest", force_resample=True, copy_header=True
            ).dataobj
        ),
        "ANTsPy": lambda m: ants.resample_image_to_target(
            ants.from_nibabel_nifti(m), target, interp_type="nearestNeighbor"
        ).numpy(),
    }
    rows = []
    for name, way in ways.items():
        way(masks[0])
        cpu_s, voxels = timed(lambda way=way: counted(way), cohort / few)
        rows.append(Row(name, cpu_s, f"{voxels} voxels counted in {few} masks"))
    return Comparison(
        "Resampling 1,449 masks to the template and counting them (12 stand for all)",
        tuple(rows),
        "Masks that are on the template's grid already are counted without resampling.",
    )


def quantile() -> Comparison:
    """Median regression of 200 participants with 4 terms, 1,000 bootstrap resamples."""
    import warnings

    import statsmodels.api as sm

    from corelab.pharmacodynamics.quantile import _cluster_bootstrap

    rng = np.random.default_rng(1)
    x = np.column_stack([np.ones(200), rng.normal(size=(200, 3))])
    y = x @ [1.0, 2.0, 0.0, -1.0] + rng.standard_t(3, 200)
    cpu_s, draws = timed(lambda: _cluster_bootstrap(x, y, 0.5, resamples=1000))
    few = 100

    def peer() -> np.ndarray:
        picks, found = np.random.default_rng(2), []
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            for _ in range(few):
                rows = picks.integers(0, 200, 200)
                found.append(sm.QuantReg(y[rows], x[rows]).fit(0.5, max_iter=5000).params)
        return np.array(found)

    peer_s, theirs = timed(peer, 1000 / few)
    return Comparison(
        "Median regression, n = 200, 4 terms, 1,000 bootstrap resamples",
        (Row("corelab", cpu_s, f"SE of the first slope {draws[:, 1].std(ddof=1):.3f}"),
         Row("statsmodels (100 stand for all)", peer_s, f"{theirs[:, 1].std(ddof=1):.3f}")),
        "Ours solves each resample exactly, from the whole sample's solution; statsmodels iterates "
        "reweighted least squares.",
    )  # fmt: skip


TASKS: dict[str, Callable[[], Comparison]] = {
    "perfusion": perfusion,
    "registration": registration,
    "icc": icc,
    "overlap": overlap,
    "frequency": frequency,
    "quantile": quantile,
}


def lines(found: Comparison) -> Iterator[str]:
    """Markdown of one task; ratios are CPU time over that of the first row."""
    yield from ("", f"## {found.title}", "", "| program | CPU s | times ours | result |")
    yield "| --- | ---: | ---: | --- |"
    first = None
    for row in found.rows:
        if row.program.startswith("corelab") and row.cpu_s:
            first = row.cpu_s if first is None or "head" in row.program else first
        if row.cpu_s is None:
            yield f"| {row.program} | | | {row.result} |"
        else:
            ratio = row.cpu_s / (first or row.cpu_s)
            words = f"{ratio:.1f}" if ratio >= 1 else f"{ratio:.2f}"
            yield f"| {row.program} | {row.cpu_s:.2f} | {words} | {row.result} |"
    yield from ("", found.comment)


def main(names: list[str] | None = None) -> None:
    """Run the tasks, print them, and write the document where all ran."""
    text = [
        "# Beside open peers",
        "",
        "Written by `make bench` (tests/bench/bench_peers.py); do not edit. The same data for all, one",
        "thread, one run; CPU time is of the whole task. A peer that was not installed says so.",
    ]
    for name in names or list(TASKS):
        part = list(lines(TASKS[name]()))
        print("\n".join(part), flush=True)
        text += part
    if not names:
        DOCUMENT.write_text("\n".join(text) + "\n", encoding="utf-8")
        print(f"written: {DOCUMENT.relative_to(REPOSITORY)}")


if __name__ == "__main__":
    main(sys.argv[1:])
