"""Every endpoint that Corelab measures; a study may bring others in its measurements sheet."""

from __future__ import annotations

from dataclasses import dataclass

from corelab.terms.labels import LABELS, volume_endpoint

#: Factor to mL of the units that volumes come in.
VOLUME_UNITS_ML = {"mL": 1.0, "ml": 1.0, "cm3": 1.0, "cc": 1.0, "mm3": 1e-3, "uL": 1e-3, "L": 1e3}


@dataclass(frozen=True)
class Endpoint:
    """One endpoint.

    Attributes
    ----------
    name, unit
        ``lesion_volume`` has a detail: ``lesion_volume:<label>``.
    label
        Label (or measure) that it is computed from, where it is not the volume of one.
    signed
        Whether it can be negative.
    limits
        Least and largest possible value.
    adam
        Its code of at most eight letters in ADaM (PARAMCD).
    after
        Endpoints of the same visit that it is computed from: it is excluded with them.
    """

    name: str
    unit: str
    label: str = ""
    signed: bool = False
    limits: tuple[float, float] | None = None
    adam: str = ""
    after: tuple[str, ...] = ()


# fmt: off
_TABLE = (
    Endpoint("infarct_volume", "mL", adam="INFVOL"),
    Endpoint("core_volume", "mL", adam="COREVOL"),
    Endpoint("hypoperfused_volume", "mL", adam="HYPVOL"),
    Endpoint("penumbra_volume", "mL", adam="PENVOL", after=("core_volume", "hypoperfused_volume")),
    Endpoint("mismatch_ratio", "ratio", label="penumbra", adam="MMRATIO", after=("core_volume",
             "hypoperfused_volume")),
    Endpoint("mismatch_volume", "mL", label="penumbra"),
    Endpoint("cbv_index", "ratio", label="hypoperfused"),
    Endpoint("hypoperfusion_intensity_ratio", "ratio", label="hypoperfused", adam="HIR",
             after=("hypoperfused_volume",)),
    Endpoint("haematoma_volume", "mL", adam="HAEVOL"),
    Endpoint("infarct_growth", "mL", label="infarct", signed=True, adam="INFGROW"),
    Endpoint("haematoma_growth", "mL", label="haematoma", signed=True, adam="HAEGROW"),
    Endpoint("reperfusion_percent", "percent", label="hypoperfused", signed=True, adam="REPERF"),
    Endpoint("ghost_core_volume", "mL", label="core", signed=True, adam="GHOST"),
    Endpoint("aspects", "score", limits=(0, 10), adam="ASPECTS"),
    Endpoint("net_water_uptake", "percent", label="net water uptake", signed=True, adam="NWU"),
    Endpoint("enhancing_volume", "mL", adam="ENHVOL"),
    Endpoint("oedema_volume", "mL", adam="OEDVOL"),
    Endpoint("whole_tumour_volume", "mL", adam="WTVOL"),
    Endpoint("extent_of_resection", "percent", label="enhancing", signed=True, adam="EOR"),
    Endpoint("territory_fraction", "fraction", adam="TERRFR", after=("infarct_volume",)),
    Endpoint("hemisphere_fraction", "fraction"),
    Endpoint("mca_fraction", "fraction"),
    Endpoint("mca_above_third", "indicator"),
    Endpoint("lesion_volume", "mL", adam="LESVOL"),
    Endpoint("infarct_percent_change", "percent", signed=True),
    Endpoint("infarct_reversal", "flag"),
    Endpoint("infarct_reversed_volume", "mL", after=("infarct_volume",)),
    Endpoint("infarct_persisting_volume", "mL", after=("infarct_volume",)),
    Endpoint("infarct_new_volume", "mL", after=("infarct_volume",)),
    Endpoint("infarct_reversed_percent", "percent", after=("infarct_volume",)),
    Endpoint("hours_after_index", "h"),
    Endpoint("lesion_volume:necrosis", "mL", adam="NECVOL"),
    Endpoint("lesion_volume:nonenhancing", "mL", adam="NETVOL"),
    Endpoint("lesion_volume:tumourcore", "mL", adam="TCVOL"),
)
# fmt: on
ENDPOINTS = {one.name: one for one in _TABLE}
#: Unit of every named endpoint.
ENDPOINT_UNITS = {name: one.unit for name, one in ENDPOINTS.items() if ":" not in name}
#: What an endpoint is measured on: the label it needs, where its name does not say it.
ENDPOINT_LABELS = {volume_endpoint(name): name for name, one in LABELS.items() if one.shown_by} | {
    name: one.label for name, one in ENDPOINTS.items() if one.label
}
#: Endpoints and outcomes on a graded scale: least and largest grade.
SCALES: dict[str, tuple[float, float]] = {"mrs": (0, 6), "nihss": (0, 42)} | {
    name: one.limits for name, one in ENDPOINTS.items() if one.limits
}


def unit_of(endpoint: object, unknown: str = "") -> str:
    """Unit of an endpoint, with or without its detail.

    Examples
    --------
    >>> unit_of("core_volume"), unit_of("lesion_volume:cavity"), unit_of("nihss")
    ('mL', 'mL', '')
    """
    return ENDPOINT_UNITS.get(str(endpoint).partition(":")[0], unknown)


def in_own_unit(
    value: float | None, unit: object, endpoint: object
) -> tuple[float | None, str | None]:
    """A supplied value and its unit, volumes in mL.

    Examples
    --------
    >>> in_own_unit(12000.0, "mm3", "infarct_volume"), in_own_unit(3.0, None, "nihss")
    ((12.0, 'mL'), (3.0, None))
    """
    wanted = unit_of(endpoint)
    if wanted == "mL" and value is not None and unit in VOLUME_UNITS_ML:
        return value * VOLUME_UNITS_ML[str(unit)], "mL"
    return value, wanted or (None if unit is None else str(unit))
