"""Lesion frequency before and after surgery, by arm and by risk group, and their difference.

The difference of two maps is tested at every voxel by permutation: of labels between two groups of
participants, of signs within participants seen twice. The largest |z| over all voxels of each
permutation gives the threshold that holds the familywise error.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from corelab.imaging import load_image, resample_to, same_grid, save_image
from corelab.measurement.frequency import MappedMask, choose_masks, frequency_map, mapped_masks
from corelab.measurement.frequency_figure import mosaic
from corelab.measurement.regions import hemisphere_fractions
from corelab.provenance.products import file_sha256, read_table
from corelab.records.maps import FrequencyMaps, LevelMap, MapDifference, SideShare
from corelab.registration import template_image
from corelab.settings.measurement import FrequencyMap
from corelab.terms.labels import label as mask_label

#: Voxels where fewer participants have lesion (in both groups together) are not tested.
MIN_COUNT = 2


@dataclass(frozen=True)
class _PermutationTest:
    """Voxelwise test of a difference: z (0 where it is not tested) and familywise corrected p.

    ``threshold``: z above which a voxel differs at ``alpha``; inf if no permutation reaches it.
    ``permutations`` includes the observed order; ``exact``: these are all that exist.
    """

    z: NDArray[np.float64]
    p_corrected: NDArray[np.float64]
    threshold: float
    permutations: int
    exact: bool


def _permutation_test(
    lesions: NDArray[Any],
    groups: NDArray[np.bool_] | None,
    *,
    permutations: int = 999,
    alpha: float = 0.05,
    seed: int = 1,
) -> _PermutationTest:
    """Test at every voxel whether lesions are as frequent in two groups, or before and after.

    ``lesions`` are (n, voxels), 0 or 1, with ``groups`` (n,) in the first group or not; or paired,
    first less second, -1, 0 or 1, without groups. All permutations are taken where there are no
    more than ``permutations``. z is the two-sample score of proportions, or McNemar's signed root;
    their denominators do not change under permutation. Maximum statistic: Nichols and Holmes, Hum
    Brain Mapp 2002;15:1.
    """
    x = np.asarray(lesions, np.float32)
    n = x.shape[0]
    if groups is None:
        scale = np.sqrt(np.abs(x).sum(axis=0))
        tested = np.abs(x).sum(axis=0) >= MIN_COUNT
        weights, exact = _signs(n, permutations, seed)
    else:
        inside = np.asarray(groups, bool)
        first, second = int(inside.sum()), int((~inside).sum())
        if min(first, second) < 2:
            raise ValueError(
                f"groups of {first} and {second} mapped participants: a difference needs two each"
            )
        share = x.mean(axis=0)
        scale = np.sqrt(share * (1 - share) * (1 / first + 1 / second))
        tested = (x.sum(axis=0) >= MIN_COUNT) & (scale > 0)
        weights, exact = _labels(inside, permutations, seed)
    z = np.zeros(x.shape[1])
    p_value = np.ones(x.shape[1])
    if not tested.any():
        return _PermutationTest(z, p_value, float("inf"), len(weights), exact)
    seen, scale = x[:, tested], scale[tested]
    largest = np.empty(len(weights))
    for start in range(0, len(weights), 64):
        block = np.abs(weights[start : start + 64] @ seen) / scale
        largest[start : start + 64] = block.max(axis=1)
    z[tested] = (weights[0] @ seen) / scale
    # A tiny slack: equal statistics differ in the last bit by the order of summation.
    rising = np.sort(largest)
    beyond = len(rising) - np.searchsorted(rising, np.abs(z[tested]) - 1e-6, side="left")
    p_value[tested] = beyond / len(rising)
    allowed = int(np.floor(alpha * len(rising) + 1e-9))
    threshold = float(rising[-allowed - 1]) if allowed < len(rising) else 0.0
    reachable = float(np.mean(largest > threshold + 1e-6)) > 0
    return _PermutationTest(
        z, p_value, threshold if reachable else float("inf"), len(weights), exact
    )


def _signs(n: int, permutations: int, seed: int) -> tuple[NDArray[np.float32], bool]:
    """(m, n) signs, the observed ones first."""
    if n < 31 and 2**n <= permutations + 1:
        bits = (np.arange(2**n)[:, None] >> np.arange(n)) & 1
        return (1 - 2 * bits).astype(np.float32), True
    rng = np.random.default_rng(seed)
    drawn = rng.choice(np.array([-1.0, 1.0], np.float32), (permutations, n))
    return np.vstack([np.ones((1, n), np.float32), drawn]), False


def _labels(
    inside: NDArray[np.bool_], permutations: int, seed: int
) -> tuple[NDArray[np.float32], bool]:
    """(m, n) weights 1/n1 and -1/n2 of permuted groups, the observed ones first."""
    from itertools import combinations
    from math import comb

    n, first = inside.size, int(inside.sum())
    weight = np.array([-1 / (n - first), 1 / first], np.float32)
    exact = comb(n, first) <= permutations + 1
    if exact:
        chosen = np.zeros((comb(n, first), n), int)
        for row, members in enumerate(combinations(range(n), first)):
            chosen[row, list(members)] = 1
        own = np.flatnonzero((chosen == inside).all(axis=1))[0]
        chosen[[0, own]] = chosen[[own, 0]]
    else:
        rng = np.random.default_rng(seed)
        drawn = [rng.permutation(inside) for _ in range(permutations)]
        chosen = np.vstack([inside, *drawn]).astype(int)
    return weight[chosen], exact


def _side_share(images: Sequence[nib.Nifti1Image], alpha: float = 0.05) -> SideShare:
    """Share of participants whose lesion lies mostly on the left, with Wilson's interval.

    Empty masks and those halved by the midline do not count.
    """
    from statsmodels.stats.proportion import proportion_confint

    shares = np.array([hemisphere_fractions(image)["left"] for image in images])
    known = shares[np.isfinite(shares) & (shares != 0.5)]
    if not known.size:
        return SideShare()
    left = int(np.sum(known > 0.5))
    low, high = proportion_confint(left, known.size, alpha=alpha, method="wilson")
    return SideShare(
        *(left / known.size, float(low), float(high), int(known.size), 1 - alpha),
        float(np.mean(known)),
        "participants with more than half of the lesion left of x = 0, Wilson interval",
    )


def _risk_groups(table: str | Path) -> dict[str, str]:
    """Participant -> ``high`` or ``low``, from the statistics rows of a radiomics analysis."""

    rows = read_table(table, numeric=["estimate"])
    rows = rows[rows["statistic"] == "risk_group"]
    return {
        person: "high" if value > 0.5 else "low"
        for person, value in zip(rows["participant_id"], rows["estimate"], strict=True)
    }


def _groups(
    settings: FrequencyMap,
    entries: Sequence[MappedMask],
    columns: Mapping[str, Mapping[str, str]],
    visit_order: Sequence[str],
) -> dict[str, list[MappedMask]]:
    """Level -> one mask per participant; the level '' where nothing is compared."""
    compare = settings.compare
    visits = [visit for visit in visit_order if any(e.visit == visit for e in entries)]
    if compare == "visit":
        return {
            visit: choose_masks([e for e in entries if e.visit == visit], visit_order)
            for visit in visits
        }
    if settings.visit:
        entries = [e for e in entries if e.visit == settings.visit]
    chosen = choose_masks(entries, visit_order)
    if not compare:
        return {"": chosen}
    level_of = columns[compare]
    levels = sorted(set(level_of.values()))
    return {
        level: [e for e in chosen if level_of.get(e.participant_id) == level] for level in levels
    }


def write_frequency_groups(
    record_path: str | Path,
    *,
    settings: FrequencyMap,
    records: Sequence[str | Path],
    folder: Path,
    participants: pd.DataFrame,
    risk: str | Path | None,
    denominator: str,
    visit_order: Sequence[str],
) -> None:
    """Write the maps of one entry of ``measurement.frequency_maps``, their figure and record.

    Maps and figure go beside ``record_path``, ``maps/<id>_maps.json``. ``records`` are
    ``normalise.json`` of subjects with images, their paths relative to ``folder``; ``risk`` the
    statistics rows of the radiomics analysis whose risk groups are compared, or None.
    """
    place = Path(record_path).parent
    compare = settings.compare
    columns = _levels(compare, participants, risk)
    entries = [
        mask
        for mask in mapped_masks(records, folder)
        if mask.label == settings.label and settings.source in (None, mask.source)
    ]
    groups = _groups(settings, entries, columns, visit_order)
    record = FrequencyMaps(settings.id, settings.plain())
    if not any(groups.values()):
        reason = "no such mask is in MNI152 space"
        _finish(replace(record, status="not_computable", reason=reason), record_path, [])
        return
    template = template_image()
    counted, planes, maps = {}, [], []
    level_of = columns.get(str(compare), {})
    for level, entries in groups.items():
        images = [_on_template(entry.file, template) for entry in entries]
        counted[level] = ([entry.participant_id for entry in entries], images)
        enrolled = list(level_of.values()).count(level) if level_of else len(participants)
        share, side = _level_map(settings, level, entries, images, enrolled, denominator)
        path = place / f"{'_'.join(filter(None, [settings.id, _plain(level)]))}_frequency.nii.gz"
        save_image(nib.Nifti1Image(share, template.affine), path, sidecar=side.to_json())
        maps.append(replace(side, path=f"maps/{path.name}"))
        planes.append((_title(settings, level, side), share, None))
    record = replace(record, maps=tuple(maps))
    if compare and len(groups) == 2:
        record = replace(record, difference=_difference(settings, counted, place, template, planes))
    elif compare:
        reason = f"{len(groups)} levels of {compare}: a difference map needs two"
        record = replace(record, reason=reason)
    _finish(record, record_path, planes)


def _levels(
    compare: str | None, participants: pd.DataFrame, risk: str | Path | None
) -> dict[str, Mapping[str, str]]:
    """Level of each participant in the comparison; empty for visits or no comparison."""
    if risk is not None:
        return {str(compare): _risk_groups(risk)}
    if not compare or compare == "visit":
        return {}
    known = participants.dropna(subset=[compare])
    return {compare: dict(zip(known["participant_id"], known[compare].map(str), strict=True))}


def _level_map(
    settings: FrequencyMap,
    level: str,
    entries: Sequence[MappedMask],
    images: Sequence[nib.Nifti1Image],
    enrolled: int,
    denominator: str,
) -> tuple[NDArray[np.float32], LevelMap]:
    """Share of participants with lesion at each voxel, and what the sidecar says of it."""
    blank = np.zeros(template_image().shape, np.uint8)
    nothing = nib.Nifti1Image(blank, template_image().affine)
    found = frequency_map(images or [nothing], enrolled=enrolled, denominator=denominator)
    return np.asanyarray(found.image.dataobj), LevelMap(
        label=settings.label,
        compare=settings.compare,
        level=level or None,
        visit=entries[0].visit if entries else settings.visit,
        source=settings.source,
        denominator=denominator,
        n=found.denominator,
        n_enrolled=enrolled,
        n_mapped=len(images),
        largest_fraction=found.largest,
        largest_count=found.largest_count,
        sides=_side_share(images),
        participants=tuple(entry.participant_id for entry in entries),
    )


def _plain(level: str) -> str:
    return "".join(c if c.isalnum() or c == "-" else "-" for c in level)


def _title(settings: FrequencyMap, level: str, side: LevelMap) -> str:
    words = mask_label(settings.label).words
    what = f"{words[0].upper()}{words[1:]}"
    compare = settings.compare or ""
    where = level or side.visit
    if compare.startswith("risk:"):
        where = f"{level} risk"
    return f"{what}, {where}: {side.n_mapped} mapped, divided by {side.n} {side.denominator}"


def _on_template(path: Path, template: nib.Nifti1Image) -> nib.Nifti1Image:
    image = load_image(path, kind="mask-lesion")
    return image if same_grid(image, template) else resample_to(image, template, order=0)


def _difference(
    settings: FrequencyMap,
    counted: Mapping[str, tuple[list[str], list[nib.Nifti1Image]]],
    place: Path,
    template: nib.Nifti1Image,
    planes: list[Any],
) -> MapDifference:
    """Difference of the two levels among the mapped, its test, and its map."""
    (first, (names_a, a)), (second, (names_b, b)) = counted.items()
    head = MapDifference(first, second)
    paired = settings.compare == "visit"
    if paired:
        both = [name for name in names_a if name in names_b]
        a = [a[names_a.index(name)] for name in both]
        b = [b[names_b.index(name)] for name in both]
    if min(len(a), len(b)) < 2:
        few = f"{len(a)} and {len(b)} mapped participants; a difference needs two each"
        return replace(head, status="not_computable", reason=few)
    flat_a, flat_b = (
        np.stack([(np.asanyarray(image.dataobj) > 0).ravel() for image in images])
        for images in (a, b)
    )
    anywhere = np.flatnonzero(flat_a.any(axis=0) | flat_b.any(axis=0))
    flat_a, flat_b = flat_a[:, anywhere].astype(np.int8), flat_b[:, anywhere].astype(np.int8)
    compared = partial(
        _permutation_test,
        permutations=settings.permutations,
        alpha=settings.alpha,
        seed=settings.seed,
    )
    if paired:
        test = compared(flat_a - flat_b, None)
    else:
        inside = np.arange(len(a) + len(b)) < len(a)
        test = compared(np.vstack([flat_a, flat_b]), inside)
    gap = np.zeros(template.shape, np.float32)
    gap.reshape(-1)[anywhere] = flat_a.mean(axis=0) - flat_b.mean(axis=0)
    p_value = np.ones(template.shape, np.float32)
    p_value.reshape(-1)[anywhere] = test.p_corrected
    summary = replace(
        head,
        n=(len(a), len(b)),
        paired=paired,
        largest_difference=float(np.abs(gap).max()),
        threshold_abs_z=test.threshold if np.isfinite(test.threshold) else None,
        alpha=settings.alpha,
        smallest_p_corrected=float(test.p_corrected.min()),
        voxels_tested=int(np.count_nonzero(test.z)),
        voxels_significant=int((test.p_corrected <= settings.alpha).sum()),
        permutations=test.permutations,
        exact=test.exact,
        method=("signs flipped within participants" if paired else "labels permuted")
        + ", largest |z| over voxels (familywise error)",
        difference_path=f"maps/{settings.id}_difference.nii.gz",
        p_corrected_path=f"maps/{settings.id}_p-corrected.nii.gz",
    )
    for name, image, unit, what in (
        ("difference", gap, "fraction", f"share mapped: {first} less {second}"),
        ("p-corrected", p_value, "probability", "familywise error corrected p of the difference"),
    ):
        side = {"unit": unit, "description": what, "label": settings.label, **summary.to_json()}
        path = place / f"{settings.id}_{name}.nii.gz"
        save_image(nib.Nifti1Image(image, template.affine), path, sidecar=side)
    mark = f"{summary.voxels_significant} voxels differ at {settings.alpha:g}"
    planes.append((f"Difference, {first} less {second} (of the mapped); {mark}", gap, p_value))
    return summary


def _finish(record: FrequencyMaps, path: str | Path, planes: Sequence[Any]) -> None:
    """Figure and record; the record holds the hash of every map."""
    path = Path(path)
    alpha = float(record.settings["alpha"])
    mosaic(path.with_suffix(".png"), planes, alpha=alpha, reason=record.reason or "")
    made = sorted(path.parent.glob(f"{record.id}_*.nii.gz"))
    replace(record, sha256={f"maps/{f.name}": file_sha256(f) for f in made}).write(path)
