"""Registry of published cut-offs: data in ``resources/thresholds/perfusion.tsv``, rules here."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np

from corelab.perfusion.lesions import clusters, settled
from corelab.provenance.places import ROOT
from corelab.provenance.products import MISSING

REGISTRY = ROOT / "resources" / "thresholds" / "perfusion.tsv"
COLUMNS = {
    "id": "Identifier; the source of its rows in measurements.tsv is pipeline:<id>",
    "study": "First author and year",
    "label": "core or hypoperfused",
    "parameter": "rcbf, rcbv, rmtt (ratio to normal), cbf, cbv, mtt, tmax, cbf_x_cbv (absolute)",
    "operator": "< or >",
    "value": "Cut-off",
    "unit": "ratio, mL/100g/min, mL/100g, s, or the product",
    "reference": "What a ratio is relative to; n/a for an absolute cut-off",
    "within": "Further condition: none, tmax>6, delay>3, white, grey, or several joined by &",
    "n": "Number of patients in the source",
    "reference_imaging": "Imaging that the source took for the truth",
    "source": "Where it was published",
    "tag": "Evidence: V read in the source, Br from the review table of Demeestere 2020, "
    "M field knowledge not checked against a source",
    "usable": "true or false",
    "why_not": "Why a row is not evaluated",
}
RATIOS = ("rcbf", "rcbv", "rmtt")
PARAMETERS = (*RATIOS, "cbf", "cbv", "mtt", "tmax", "cbf_x_cbv")
CONDITIONS = ("none", "tmax>6", "delay>3", "white", "grey")
#: Relative CBF (percent) of the sweep that is compared with an infarct drawn later.
SWEEP_PERCENT = tuple(range(10, 51, 5))
SMALLEST_CLUSTER_ML = {"core": 1.0, "hypoperfused": 3.0}


@dataclass(frozen=True)
class Threshold:
    """One cut-off.

    Attributes
    ----------
    id, label, parameter, operator, value, within
        See :data:`COLUMNS`.
    """

    id: str
    label: str
    parameter: str
    operator: str
    value: float
    within: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        wrong = [c for c in self.within if c not in CONDITIONS]
        if self.parameter not in PARAMETERS or self.operator not in "<>" or wrong:
            raise ValueError(
                f"threshold {self.id}: '{self.parameter} {self.operator}' within {self.within} is "
                f"not a rule; parameters {PARAMETERS}, operators < >, conditions {CONDITIONS}"
            )


@lru_cache(maxsize=4)
def usable_thresholds(path: Path = REGISTRY) -> tuple[Threshold, ...]:
    """Every row of the registry that can be evaluated, in the order of the file.

    Examples
    --------
    >>> [t.id for t in usable_thresholds()][:2]
    ['klotz1999', 'koenig2001_rcbf']
    """
    # Without Pandas, which takes longer to load than a visit's cut-offs take.
    with path.open(encoding="utf-8", newline="") as file:
        table = list(csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE))
    return tuple(
        Threshold(
            id=row["id"],
            label=row["label"],
            parameter=row["parameter"],
            operator=row["operator"],
            value=float(row["value"]),
            within=tuple(c for c in row["within"].split("&") if c not in ("none", MISSING)),
        )
        for row in table
        if row["usable"] == "true"
    )


def sweep_thresholds() -> tuple[Threshold, ...]:
    """Core by relative CBF below 10, 15 ... 50 % inside Tmax > 6 s.

    Examples
    --------
    >>> sweep_thresholds()[0].id, len(sweep_thresholds())
    ('rcbf10', 9)
    """
    return tuple(
        Threshold(f"rcbf{p}", "core", "rcbf", "<", p / 100.0, ("tmax>6",)) for p in SWEEP_PERCENT
    )


def evaluate(
    thresholds: Sequence[Threshold],
    maps: Mapping[str, np.ndarray],
    references: Mapping[str, np.ndarray | float],
    regions: Mapping[str, np.ndarray],
    tissue: np.ndarray,
    voxel_ml: float,
) -> np.ndarray:
    """Masks of all thresholds in one pass.

    Parameters
    ----------
    thresholds
        Rules.
    maps
        ``cbf``, ``cbv``, ``mtt``, ``tmax`` in the registry's units.
    references
        Normal value (a number or a map) of ``cbf``, ``cbv``, ``mtt``.
    regions
        Mask of each condition.
    tissue
        Voxels that count.
    voxel_ml
        Volume of a voxel.

    Returns
    -------
    numpy.ndarray
        uint8 (x, y, z, n).

    Examples
    --------
    >>> rule = Threshold("x", "core", "rcbf", "<", 0.3)
    >>> cbf = np.full((6, 6, 1), 50.0); cbf[:3] = 10
    >>> masks = evaluate([rule], {"cbf": cbf}, {"cbf": 50.0}, {}, cbf > 0, 1.0)
    >>> int(masks.sum())
    18
    """
    out = np.zeros((*tissue.shape, len(thresholds)), np.uint8)
    ready: dict[str, np.ndarray] = {}
    for k, rule in enumerate(thresholds):
        name = rule.parameter
        if name not in ready:
            with np.errstate(invalid="ignore", divide="ignore"):
                if name in RATIOS:
                    ready[name] = maps[name[1:]] / references[name[1:]]
                elif name == "cbf_x_cbv":
                    ready[name] = maps["cbf"] * maps["cbv"]
                else:
                    ready[name] = maps[name]
        with np.errstate(invalid="ignore"):
            values = ready[name]
            found = values < rule.value if rule.operator == "<" else values > rule.value
        found = settled(found & tissue, tissue)
        for condition in rule.within:
            found &= regions[condition]
        out[..., k] = clusters(found, SMALLEST_CLUSTER_ML[rule.label], voxel_ml)
    return out
