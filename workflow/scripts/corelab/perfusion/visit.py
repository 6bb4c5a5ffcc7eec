"""The stage ``perfuse`` of one visit: files in, maps, masks, verdicts and a record out."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np

from corelab.imaging import ImageFault, load_image, mask_volume_ml, save_image
from corelab.imaging.brain_quality import mask_fault, mask_warnings
from corelab.perfusion import figures, gates, lesions, thresholds
from corelab.perfusion.concentration import TISSUE_FACTOR, PerfusionError
from corelab.perfusion.series import (
    ENGINES,
    Series,
    SeriesOptions,
    analyse_series,
    gate_values,
    repairs,
)
from corelab.perfusion.tissue import Plane, midsagittal_plane
from corelab.provenance.products import read_table, write_json, write_rows
from corelab.records.images import Mask, Prepared, Scan
from corelab.records.perfusion import Cutoff, Gate, Perfused, PerfusionMap, Quantity, Registry
from corelab.settings.perfusion import PerfusionSettings
from corelab.study.naming import derivative, mask_path
from corelab.terms.verdicts import FAIL, WARN

#: Further limits of Tmax (s) whose masks are written.
TMAX_VARIANTS_S = (4.0, 6.0, 8.0, 10.0)
UNITS = {"cbf": "mL/100g/min", "cbv": "mL/100g", "mtt": "s", "tmax": "s", "ttp": "s", "delay": "s"}
#: Gates of the lesions' shares of the tissue: beyond their limits there are no numbers.
LARGEST_SHARES = ("core_share", "hypoperfused_share")
_QUANTITY_UNITS = {
    "mismatch_volume": "mL",
    "mismatch_ratio": "ratio",
    "hypoperfusion_intensity_ratio": "ratio",
    "cbv_index": "ratio",
}


@dataclass
class MapSet:
    """Maps of one visit by engine, and what lesions need besides.

    ``engines``: engine -> {``cbf``, ``cbv``, ``mtt``, ``tmax``} arrays with NaN for no value;
    ``primary``: the engines of ``flow``, ``timing`` and the ``registry`` of published cut-offs.
    """

    kind: str
    grid: str | None
    scans: list[Scan]
    affine: np.ndarray
    engines: dict[str, dict[str, np.ndarray]]
    primary: Mapping[str, str]
    tissue: np.ndarray
    grey: np.ndarray
    plane: Plane
    delay: np.ndarray | None = None

    @property
    def scan_ids(self) -> list[str]:
        """Ids of the scans that the maps came from."""
        return sorted(scan.scan_id for scan in self.scans)

    @property
    def inputs(self) -> list[dict[str, str | None]]:
        """The same scans for a sidecar: id, conformed file and digest of the source."""
        return [
            {"scan_id": scan.scan_id, "name": Path(str(scan.path)).name,
             "sha256": scan.sha256}
            for scan in self.scans
        ]  # fmt: skip

    @property
    def voxel_ml(self) -> float:
        """Volume of a voxel in mL."""
        return float(abs(np.linalg.det(self.affine[:3, :3]))) / 1000.0


@dataclass
class _Job:
    """A visit with its settings, and its record while it is made (:class:`Perfused`)."""

    prepared: Prepared
    folder: Path
    settings: PerfusionSettings
    minutes: float | None = None
    threads: int | None = None
    maps: list[PerfusionMap] = field(default_factory=list)
    masks: list[Mask] = field(default_factory=list)
    registry: Registry | None = None
    gates: list[Gate] = field(default_factory=list)
    quantities: list[Quantity] = field(default_factory=list)
    figures: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    parameters: dict[str, Any] = field(default_factory=dict)
    status: str = "ok"
    reason: str | None = None

    @property
    def scans(self) -> list[Scan]:
        """Usable scans in native space."""
        return [s for s in self.prepared.scans if s.status == "ok" and s.space == "native"]

    def file(self, suffix: str, extension: str, **entities: str) -> str:
        """Path of a product of the visit."""
        ids = (self.prepared.participant_id, self.prepared.visit)
        return derivative(*ids, "perf", suffix, extension=extension, **entities)

    def without_numbers(self, status: str, reason: str) -> None:
        """No volume follows: each volume is a row with the reason."""
        self.status, self.reason = status, reason
        self.quantities = [
            Quantity(name, "pipeline", None, "mL", status, reason)
            for name in ("core_volume", "hypoperfused_volume")
        ]

    def warn(self, grid: str | None) -> None:
        """Write what is doubtful about mask and series into the reason of every number."""
        warnings = [*mask_warnings(self.prepared, grid).values(), *self.notes]

        def doubtful(reason: str | None) -> str | None:
            return "; ".join(filter(None, (reason, *warnings))) or None

        self.masks = [replace(one, reason=doubtful(one.reason)) for one in self.masks]
        self.quantities = [replace(one, reason=doubtful(one.reason)) for one in self.quantities]

    def record(self) -> Perfused:
        """The record as its file would be read."""
        ids = (self.prepared.participant_id, self.prepared.visit)
        return Perfused(
            *(*ids, tuple(self.maps), tuple(self.masks)),
            *(self.registry, tuple(self.gates), tuple(self.quantities), self.figures),
            *(tuple(self.notes), self.parameters, self.status, self.reason),
        ).settled()


def perfuse_visit(
    record: Prepared,
    folder: str | os.PathLike[str],
    *,
    settings: PerfusionSettings,
    minutes_onset_to_ct: float | None = None,
    threads: int | None = None,
) -> Perfused:
    """Perfusion maps and lesions of one visit.

    A 4D ``ctp`` (else ``dsc``) series is fitted by ``osvd``, ``bayes`` and the engines that the
    settings name for core, hypoperfusion and registry; without one, ready-made maps (``cbf``,
    ``tmax``, with ``cbv`` and ``mtt`` where there are) are thresholded.
    A scan of kind ``aif`` (columns ``time_s``, ``value``: concentration) replaces the arterial
    input that is found.

    Parameters
    ----------
    record
        The record of the stage ``prepare``.
    folder
        Results folder of the study; paths in records are relative to it.
    settings
        Block ``perfusion`` of the config.
    minutes_onset_to_ct
        At ``core.early_minutes`` or less the core uses ``early_below``.
    threads
        Cores of the job; no result depends on them.

    Returns
    -------
    Perfused
        Data that cannot be analysed are a status (``failed``, ``not_computable``), never an
        exception.

    Raises
    ------
    DeviceError
        If ``device: cuda`` is requested and there is no card: no fault of the data.

    Examples
    --------
    >>> perfuse_visit(Prepared("1", "v"), ".", settings=PerfusionSettings()).status
    'not_computable'
    """
    job = _Job(record, Path(folder), settings, minutes_onset_to_ct, threads)
    scans = job.scans
    try:
        series = next((s for kind in ("ctp", "dsc") for s in scans if s.kind == kind), None)
        if series is not None:
            _from_series(series, job)
            job.warn(series.grid)
        elif {"cbf", "tmax"} <= {s.kind for s in scans}:
            job.warn(_from_maps(job))
        elif faults := _faults(record.scans):
            job.without_numbers("failed", "; ".join(faults))
        else:
            job.status = "not_computable"
            job.reason = "no usable perfusion series (ctp, dsc) and no maps (cbf with tmax)"
    except _NoNumber as fault:
        job.without_numbers("not_computable", str(fault))
    except (PerfusionError, ImageFault) as error:
        job.without_numbers("failed", str(error))
    return job.record()


def _faults(scans: Sequence[Scan]) -> list[str]:
    """Why the perfusion scans of a visit cannot be used; empty if it has none."""
    kinds = ("ctp", "dsc", "cbf", "tmax")
    return [
        f"{scan.kind}: {scan.reason or 'not usable'}"
        for scan in scans
        if scan.kind in kinds and scan.status != "ok"
    ]


# --- sources of maps ---------------------------------------------------------------------------


class _NoNumber(PerfusionError):
    """Data that can be read, and from which no number follows."""


def _brain(scan: Scan, job: _Job) -> np.ndarray:
    fault = mask_fault(job.prepared, scan.grid)
    if fault is not None:
        raise _NoNumber(fault)
    path = job.prepared.brain_masks.get(str(scan.grid))
    if path is None:
        raise PerfusionError(f"there is no brain mask on the grid of {scan.kind}")
    return np.asarray(np.asanyarray(load_image(job.folder / path).dataobj) > 0.5)


def _supplied_aif(job: _Job, times: np.ndarray) -> tuple[np.ndarray, Scan] | None:
    scan = next((s for s in job.scans if s.kind == "aif"), None)
    if scan is None:
        return None
    table = read_table(job.folder / scan.file, numeric=["time_s", "value"])
    if len(table) < 3 or table["time_s"].max() < times[-1] - 2 * np.median(np.diff(times)):
        raise PerfusionError(
            f"the supplied arterial curve ends at {table['time_s'].max():g} s, the series at "
            f"{times[-1]:g} s: give it for the whole series, in seconds from the first frame"
        )
    return np.interp(times, table["time_s"], table["value"]), scan


def _from_series(scan: Scan, job: _Job) -> None:
    settings = job.settings
    image = load_image(job.folder / scan.file, ndim=4, kind=scan.kind)
    facts = scan.metadata
    frame_times = facts.get("frame_times_s")
    if not frame_times:
        interval = float(image.header.get_zooms()[3])
        if not interval > 0:
            raise PerfusionError(
                "the time of the frames is not known, and without it there are no seconds: give "
                "FrameTimes in the JSON sidecar, or the frame interval in the NIfTI header"
            )
        frame_times = interval * np.arange(image.shape[3])
    times = np.asarray(frame_times, float)
    times = times - times[0]
    slice_times = facts.get("slice_times_s")
    aif = _supplied_aif(job, times)
    found = analyse_series(
        np.asarray(image.dataobj, dtype=np.float32),
        image.affine,
        times,
        scan.kind,
        _brain(scan, job),
        SeriesOptions(
            echo_time_s=facts.get("echo_time_s"),
            aif=None if aif is None else aif[0],
            correct_motion=settings.motion_correction,
            correct_leakage=settings.leakage_correction,
            slice_times_s=None if slice_times is None else np.asarray(slice_times),
            engines=_engines(settings),
            threads=job.threads,
            device=settings.device,
            lost=_lost(facts, image.shape),
        ),
    )
    job.notes += repairs(found)
    engines = {name: _named(maps) for name, maps in found.maps.items()}
    maps = MapSet(
        scan.kind,
        scan.grid,
        [scan, *([aif[1]] if aif else [])],
        found.affine,
        engines,
        {
            "flow": settings.core.engine,
            "timing": settings.hypoperfusion.engine,
            "registry": settings.registry_engine,
        },
        found.tissue,
        found.grey,
        found.plane,
        delay=found.maps["bayes"].delay_s,
    )
    job.parameters |= {
        "smoothing_guide_mm": found.smoothing_mm,
        "noise": found.noise,
        "noise_unsmoothed": found.raw_noise,
        "baseline_frames": [found.baseline.start, found.baseline.stop],
        "frame_interval_s": found.maps["osvd"].interval_s,
        "motion_corrected": found.motion_corrected,
        "slice_times_corrected": slice_times is not None,
        "device": settings.device,
        "tissue_factor": TISSUE_FACTOR,
        "partial_volume_scale": found.input.scale,
        "aif": "supplied" if found.input.supplied else "found",
    }
    _write_maps(found, maps, job)
    _write_curves(found, job)
    values = gate_values(found)
    header = facts.get("header_interval_s")
    if header:
        values["header_interval_ratio"] = header / float(np.median(np.diff(times)))
    drawn = _lesions(maps, job, values)
    if settings.figures:
        job.figures |= figures.draw_visit(
            found,
            drawn,
            job.folder,
            lambda name: job.file("figure", ".png", desc=name),
            flow=maps.primary["flow"],
            timing=maps.primary["timing"],
        )


def _lost(facts: Mapping[str, Any], shape: tuple[int, ...]) -> np.ndarray:
    """(z, t) slices of frames that ``prepare`` filled in: pairs [frame, slice] from 0."""
    lost = np.zeros(shape[2:4], bool)
    for frame, z in facts.get("filled_slices") or ():
        lost[z, frame] = True
    return lost


def _engines(settings: PerfusionSettings) -> tuple[str, ...]:
    """Engines to run: reference and accurate one always, and those that the settings name."""
    requested = (settings.core.engine, settings.hypoperfusion.engine, settings.registry_engine)
    return tuple(dict.fromkeys([*ENGINES, *requested]))


def _named(maps: Any) -> dict[str, np.ndarray]:
    named = {
        "cbf": maps.cbf_ml_100g_min,
        "cbv": maps.cbv_ml_100g,
        "mtt": maps.mtt_s,
        "tmax": maps.tmax_s,
        "ttp": maps.ttp_s,
    }
    if maps.delay_s is not None:
        named |= {
            "delay": maps.delay_s,
            "cbfsd": maps.cbf_sd_ml_100g_min,
            "cbvsd": maps.cbv_sd_ml_100g,
            "mttsd": maps.mtt_sd_s,
            "tmaxsd": maps.tmax_sd_s,
        }
    return named


def _from_maps(job: _Job) -> str | None:
    """Lesions of supplied maps; the grid that they lie on."""
    scans = job.scans
    tmax = next(s for s in scans if s.kind == "tmax")
    chosen = {s.kind: s for s in reversed(scans) if s.kind in UNITS and s.grid == tmax.grid}
    if "cbf" not in chosen:
        raise PerfusionError(
            "the maps of CBF and Tmax lie on different grids: a voxel of one is not a voxel of "
            "the other; supply them on one grid"
        )
    values = {}
    affine = np.eye(4)
    for kind, scan in chosen.items():
        image = load_image(job.folder / scan.file, kind=kind)
        values[kind] = np.asarray(image.dataobj, dtype=np.float32)
        affine = np.asarray(image.affine)
    brain = _brain(tmax, job)
    tissue = brain & (values["cbf"] > 0) & np.isfinite(values["tmax"])
    plane = midsagittal_plane(brain.astype(np.float32) * 100.0, affine, brain)
    maps = MapSet(
        "tmax", tmax.grid, list(chosen.values()), affine,
        {"supplied": values}, dict.fromkeys(("flow", "timing", "registry"), "supplied"),
        tissue, np.zeros_like(tissue), plane,
    )  # fmt: skip
    job.parameters |= {"engine": "supplied maps"}
    for kind, scan in sorted(chosen.items()):
        job.maps.append(PerfusionMap(kind, "supplied", scan.file, UNITS[kind]))
    _lesions(maps, job, {})
    return tmax.grid


# --- lesions -----------------------------------------------------------------------------------


def _engine(maps: MapSet, name: str) -> dict[str, np.ndarray]:
    if name not in maps.engines:
        raise ValueError(f"engine '{name}' was not run; there are {sorted(maps.engines)}")
    return maps.engines[name]


def _lesions(maps: MapSet, job: _Job, values: dict[str, float]) -> dict[str, np.ndarray]:
    """Gates, masks, quantities and the registry; returns the primary masks for the figures."""
    settings, minutes = job.settings, job.minutes
    core_rule = settings.core
    flow_engine, late_engine = maps.primary["flow"], maps.primary["timing"]
    timed_by = _engine(maps, late_engine)
    timing = timed_by["tmax"]
    limit = float(settings.hypoperfusion.tmax_s_above)
    limits = sorted({*TMAX_VARIANTS_S, limit})
    unread = lesions.untimed_tissue(maps.tissue, timed_by["cbf"], timed_by.get("tmaxsd"))
    late = {
        x: lesions.delayed_tissue(timing, maps.tissue, x, maps.voxel_ml, unread) for x in limits
    }
    sides = lesions.hemispheres(maps.plane, maps.affine, maps.tissue, late[limit], maps.voxel_ml)
    quick = np.nan_to_num(timing, nan=np.inf) < lesions.NORMAL_TMAX_S
    whole = core_rule.reference == "whole-normal"
    normal = (maps.tissue if whole else sides.healthy) & quick
    early = minutes is not None and minutes <= core_rule.early_minutes
    below = float(core_rule.early_below if early else core_rule.below)

    def reference(engine: str, quantity: str) -> lesions.Reference:
        return lesions.reference_value(
            _engine(maps, engine)[quantity], normal, rule=core_rule.reference,
            tissue=maps.tissue, grey=maps.grey, plane=maps.plane, affine=maps.affine,
        )  # fmt: skip

    variants: dict[str | None, str] = {None: flow_engine}
    if "osvd" in maps.engines:
        variants["osvd"] = "osvd"
    drawn: dict[str, np.ndarray] = {}
    for variant, engine in variants.items():
        flow = reference(engine, core_rule.parameter.removeprefix("r"))
        level = below
        if engine == "bayes":
            level = lesions.level_in_noise(below, values.get("tissue_cnr"))
        core = lesions.reduced_flow(
            _engine(maps, engine)[core_rule.parameter.removeprefix("r")],
            flow, level, late[limit], maps.tissue, maps.voxel_ml,
        )  # fmt: skip
        if variant is None:
            reach = lesions.volume_range(timing, maps.tissue, limit, maps.voxel_ml, unread)
            shares = _volume_gates(core, late[limit], maps.tissue, reach, maps.voxel_ml)
            shares |= _wrong_shares(maps, core, late[limit], limit, level * flow.values, settings)
            _judge(maps, shares, reach, values, job)
        rule = {
            "engine": engine, "parameter": core_rule.parameter, "below": below,
            "level_in_noise": round(level, 4), "early": early,
            "reference": flow.rule, "reference_value": flow.summary,
            "within": f"Tmax > {limit:g} s ({late_engine})",
            "smallest_cluster_ml": lesions.CORE_CLUSTER_ML, "affected_side": sides.affected,
        }  # fmt: skip
        _add_mask(maps, "core", core, variant, rule, job)
        _add_mask(maps, "penumbra", late[limit] & ~core, variant, rule, job)
        if variant is None:
            drawn = {"core": core, "hypoperfused": late[limit]}
        _add_quantities(maps, variant, engine, core, late, limit, normal, job)
    for x in limits:
        rule = {"engine": late_engine, "parameter": "tmax", "above": x,
                "smallest_cluster_ml": lesions.HYPOPERFUSED_CLUSTER_ML}  # fmt: skip
        variant = None if x == limit else f"tmax{x:g}"
        _add_mask(maps, "hypoperfused", late[x], variant, rule, job)
    for engine in sorted(set(ENGINES) & set(maps.engines) - {late_engine}):
        other = lesions.delayed_tissue(
            maps.engines[engine]["tmax"], maps.tissue, limit, maps.voxel_ml,
            lesions.untimed_tissue(maps.tissue, maps.engines[engine]["cbf"]),
        )  # fmt: skip
        rule = {"engine": engine, "parameter": "tmax", "above": limit}
        _add_mask(maps, "hypoperfused", other, engine, rule, job)
    _registry(maps, late[6.0], normal, reference, job)
    return drawn


def _judge(
    maps: MapSet,
    shares: Mapping[str, float],
    reach: tuple[float, float],
    values: dict[str, float],
    job: _Job,
) -> None:
    """Verdicts of the gates; no numbers where the lesion is larger than a head can hold."""
    kind = maps.kind if maps.kind in gates.GATES else "ctp"
    rows = gates.judge(kind, {**values, **shares}, job.settings.gates)
    job.gates = [row for row in rows if values or row.criterion in shares]
    for row in rows:
        if row.criterion in LARGEST_SHARES and row.verdict == FAIL:
            part = row.criterion.removesuffix("_share")
            raise _NoNumber(
                f"the {part} lesion takes {row.value:.0%} of the grey and white matter in the "
                f"slab ({row.limit}): no normal tissue is left to compare with, so this is a "
                "fault of the series and no lesion. Check the times of the frames, the arterial "
                "curve and the gates; the limit is perfusion.gates."
                f"{row.criterion}"
            )
    doubts = {
        "hypoperfused_uncertainty": "the border of the hypoperfused tissue is so gradual that an "
        f"error of Tmax of {lesions.TIMING_ERROR_S:g} s makes its volume {reach[0]:.0f} to "
        f"{reach[1]:.0f} mL",
        "hypoperfused_wrong_share": "by the uncertainty of Tmax in each voxel, "
        f"{shares.get('hypoperfused_wrong_share', 0.0):.0%} of the hypoperfused volume is likely "
        "on the wrong side of its border",
        "core_wrong_share": "by the uncertainty of the flow in each voxel, "
        f"{shares.get('core_wrong_share', 0.0):.0%} of the core is likely no core, and as much or "
        "more of the core is likely missed",
        "tissue_cnr": "the bolus in tissue is weak against the noise: the core may be lost, or "
        "half as large again",
    }
    verdicts = {row.criterion: row.verdict for row in job.gates}
    job.notes += [text for name, text in doubts.items() if verdicts.get(name) in (WARN, FAIL)]


def _wrong_shares(
    maps: MapSet,
    core: np.ndarray,
    late: np.ndarray,
    limit_s: float,
    flow_limit: Any,
    settings: PerfusionSettings,
) -> dict[str, float]:
    """Expected shares on the wrong side of the limits, where the engine gives SDs."""
    flow, timing = maps.engines[maps.primary["flow"]], maps.engines[maps.primary["timing"]]
    shares = {}
    if "tmaxsd" in timing:
        shares["hypoperfused_wrong_share"] = lesions.likely_wrong_delay(
            timing["tmax"], timing["tmaxsd"], late, maps.tissue, limit_s
        )
    if "cbfsd" in flow and settings.core.parameter == "rcbf":
        shares["core_wrong_share"] = lesions.likely_wrong_core(
            flow["cbf"], flow["cbfsd"], core, flow_limit
        )
    return shares


def _volume_gates(
    core: np.ndarray,
    hypoperfused: np.ndarray,
    tissue: np.ndarray,
    reach: tuple[float, float],
    voxel_ml: float,
) -> dict[str, float]:
    """Share of the tissue in the slab that the lesions take, and how well it is known.

    ``reach`` is what :func:`corelab.perfusion.lesions.volume_range` gives.
    """
    whole = max(int(tissue.sum()), 1)
    late_ml = float(hypoperfused.sum()) * voxel_ml
    return {
        "core_share": float((core & tissue).sum()) / whole,
        "hypoperfused_share": float((hypoperfused & tissue).sum()) / whole,
        "hypoperfused_uncertainty": (reach[1] - reach[0]) / (2 * late_ml)
        if late_ml > 0
        else float("nan"),
    }


def _add_mask(
    maps: MapSet,
    label: str,
    mask: np.ndarray,
    variant: str | None,
    rule: Mapping[str, Any],
    job: _Job,
) -> None:
    ids = (job.prepared.participant_id, job.prepared.visit)
    path = mask_path(*ids, label, kind=maps.kind, desc=variant)
    image = nib.Nifti1Image(mask.astype(np.uint8), maps.affine)
    sidecar = {"unit": "label", "inputs": maps.inputs, "parameters": dict(rule)}
    save_image(image, job.folder / path, sidecar=sidecar, dtype=np.uint8)
    job.masks.append(
        Mask(
            label,
            "pipeline" if variant is None else f"pipeline:{variant}",
            *(variant, path, maps.kind, maps.grid, tuple(maps.scan_ids)),
            parameters=dict(rule),
            quality={"volume_ml": mask_volume_ml(image)},
        )
    )


def _add_quantities(
    maps: MapSet,
    variant: str | None,
    engine: str,
    core: np.ndarray,
    late: Mapping[float, np.ndarray],
    limit: float,
    normal: np.ndarray,
    job: _Job,
) -> None:
    volume = _engine(maps, engine).get("cbv", np.full(core.shape, np.nan))
    values = lesions.lesion_quantities(core, late, volume, normal, maps.voxel_ml, limit_s=limit)
    values["mismatch_volume"] = values.pop("mismatch_volume_ml")
    why = {
        "mismatch_ratio": "there is no core to divide by",
        "hypoperfusion_intensity_ratio": "there is no hypoperfused tissue to divide by",
        "cbv_index": "there is no hypoperfused tissue or no blood volume map",
    }
    for endpoint, unit in _QUANTITY_UNITS.items():
        value = values[endpoint]
        known = bool(np.isfinite(value))
        job.quantities.append(
            Quantity(
                endpoint,
                "pipeline" if variant is None else f"pipeline:{variant}",
                value if known else None,
                unit,
                "ok" if known else "not_computable",
                None if known else why[endpoint],
                tuple(maps.scan_ids),
            )
        )


def _needs(rule: thresholds.Threshold, kind: str) -> set[str]:
    """Maps that a rule reads; ``calibrated`` stands for absolute flow or volume, of CT alone."""
    if rule.parameter in thresholds.RATIOS:
        return {rule.parameter.removeprefix("r")}
    if rule.parameter in ("tmax", "mtt"):
        return {rule.parameter}
    needs = {"cbf", "cbv"} if rule.parameter == "cbf_x_cbv" else {rule.parameter}
    return needs | ({"calibrated"} if kind == "dsc" else set())


def _registry(
    maps: MapSet, late: np.ndarray, normal: np.ndarray, reference: Any, job: _Job
) -> None:
    """Every usable published cut-off, and the sweep, in one 4D mask."""
    engine = maps.primary["registry"]
    values = _engine(maps, engine)
    regions = {"tmax>6": late, "grey": maps.grey, "white": maps.tissue & ~maps.grey}
    if maps.delay is not None:
        regions["delay>3"] = np.nan_to_num(maps.delay, nan=0.0) > 3.0
    if not maps.grey.any():
        regions.pop("grey"), regions.pop("white")
    rules: list[thresholds.Threshold] = []
    left_out: list[thresholds.Threshold] = []
    for rule in (*thresholds.usable_thresholds(), *thresholds.sweep_thresholds()):
        possible = _needs(rule, maps.kind) <= set(values) and set(rule.within) <= set(regions)
        (rules if possible else left_out).append(rule)
    references: dict[str, np.ndarray | float] = {
        name: reference(engine, name).values for name in ("cbf", "cbv", "mtt") if name in values
    }
    masks = thresholds.evaluate(rules, values, references, regions, maps.tissue, maps.voxel_ml)
    path = job.file("registry", ".nii.gz", desc="thresholds")
    rows = tuple(
        Cutoff(
            r.id,
            r.label,
            f"{r.parameter} {r.operator} {r.value:g}",
            tuple(r.within),
            engine,
            float(masks[..., k].sum()) * maps.voxel_ml,
        )
        for k, r in enumerate(rules)
    )
    sidecar = {
        "unit": "label",
        "inputs": maps.inputs,
        "frames": [row.to_json() for row in rows],
        "note": "one mask per frame; delay>3 is read from the bayes engine",
    }
    save_image(
        nib.Nifti1Image(masks, maps.affine), job.folder / path, sidecar=sidecar, dtype=np.uint8
    )
    job.registry = Registry(
        path,
        ids=tuple(r.id for r in rules),
        labels=tuple(r.label for r in rules),
        engine=engine,
        rows=rows,
        left_out=tuple(r.id for r in left_out),
        kind=maps.kind,
        grid=maps.grid,
        scan_ids=tuple(maps.scan_ids),
    )


# --- files -------------------------------------------------------------------------------------


def _write_maps(found: Series, maps: MapSet, job: _Job) -> None:
    """Maps: the chosen engines' cbf, cbv, mtt, and tmax, ttp, bear the plain names."""
    for engine, values in maps.engines.items():
        for name, array in values.items():
            timing = name in ("tmax", "ttp")
            # Delay and SDs are of the Bayesian engine alone, and need no other name.
            owner = "bayes" if name == "delay" or name.endswith("sd") else maps.primary["flow"]
            plainly = engine == (maps.primary["timing"] if timing else owner)
            path = job.file("map", ".nii.gz", desc=name if plainly else engine + name)
            unit = UNITS[name.removesuffix("sd")]
            image = nib.Nifti1Image(np.nan_to_num(array).astype(np.float32), found.affine)
            sidecar = {
                "unit": unit,
                "engine": engine,
                "inputs": maps.inputs,
                "parameters": job.parameters,
                "note": "0 outside grey and white matter",
            }
            save_image(image, job.folder / path, sidecar=sidecar)
            job.maps.append(PerfusionMap(name, engine, path, unit, plainly))


def _write_curves(found: Series, job: _Job) -> None:
    """Arterial, venous and tissue curves, the voxels they were read in, and the motion."""
    source = found.input
    vein = source.vein
    curves = (
        found.times_s,
        source.artery.curve,
        source.curve,
        np.full(len(found.times_s), np.nan) if vein is None else vein.curve,
        found.concentration[found.tissue].mean(axis=0, dtype=np.float64),
    )
    unit = "HU" if found.modality == "ctp" else "1/s"
    described = {
        "time_s": "Time from the first frame",
        "aif_unscaled": "Arterial curve as measured",
        "aif": "Arterial curve times the partial-volume scale, as used",
        "vof": "Venous curve",
        "tissue": "Mean of grey and white matter",
    }
    path = job.file("curves", ".tsv", desc="vessels")
    units = {"time_s": "s"} | dict.fromkeys(list(described)[1:], unit)
    write_rows(np.column_stack(curves), job.folder / path, described, units=units)
    job.figures["curves"] = path
    vessels = {
        "supplied": source.supplied,
        "partial_volume_scale": source.scale,
        "partial_volume_scale_unclipped": source.raw_scale,
        "unit": unit,
        **{
            name: None
            if one is None
            else {
                "voxels": one.voxels,
                "peak": one.peak,
                "time_to_peak_s": one.time_to_peak_s,
                "width_s": one.width_s,
                "centroid_s": one.centroid_s,
                "area": one.area,
            }
            for name, one in (("artery", source.artery), ("vein", vein))
        },
        "midsagittal_plane": {"normal": found.plane.normal, "offset_mm": found.plane.offset_mm,
                              "correlation": found.plane.correlation},
    }  # fmt: skip
    path = job.file("vessels", ".json", desc="vessels")
    write_json(vessels, job.folder / path)
    job.figures["vessels"] = path
    moves = np.column_stack([found.motion.translation_mm, found.motion.rotation_degrees])
    columns = [f"{kind}_{axis}" for kind in ("translation_mm", "rotation_deg") for axis in "xyz"]
    moves = np.round(np.column_stack([moves, found.motion.framewise_mm]), 4)
    path = job.file("motion", ".tsv", desc="frames")
    described = {"time_s": "Time"} | dict.fromkeys(columns, "Displacement from the baseline")
    described["framewise_mm"] = "Framewise displacement (Power 2012, 50 mm)"
    write_rows(np.column_stack([found.times_s, moves]), job.folder / path, described)
    job.figures["motion"] = path
