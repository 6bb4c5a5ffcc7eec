"""Columns of the tables that leave the workflow, with the words of their data dictionaries.

The order here is the order in the files. Columns may be added; none is renamed or dropped
without a line in CHANGELOG.md, because other people's programs read these tables.
"""

from __future__ import annotations

MEASUREMENTS = {
    "participant_id": "Subject identifier, as in the participants sheet",
    "visit": "Visit name",
    "endpoint": "Name of the imaging endpoint",
    "source": "Who or what gave the value: pipeline, pipeline:<variant>, a reader or a software",
    "repeat": "Number of the repeated read or analysis, from 1",
    "region": "Atlas region as <index>_<name>, or 'all' for the whole lesion",
    "value": "The value, n/a where none could be had",
    "unit": "Unit of the value",
    "status": "ok, missing, failed, excluded or not_computable",
    "reason": "Why there is no value, or what to know about it",
    "scan_ids": "Scans that the value came from, separated by commas",
    "row_id": "Identifier of this row, stable over runs; key of trace.tsv",
}
MEASUREMENT_KEY = ("participant_id", "visit", "endpoint", "source", "repeat", "region")

OVERLAP = {
    "participant_id": "Subject identifier",
    "visit": "Visit name",
    "label": "What the masks outline",
    "source_a": "Source of the first mask",
    "source_b": "Source of the second mask",
    "repeat": "Number of the repeated read, from 1",
    "metric": "dice, jaccard, hd95_mm, assd_mm, nsd, volume_difference_ml (a - b)",
    "value": "The value, n/a where it is not defined",
    "status": "ok or not_computable",
    "reason": "Why there is no value",
    "scan_ids": "Scans that the masks came from",
}

STATISTICS = {
    "analysis_id": "Identifier of the analysis in the plan",
    "population": "Population expression, 'all' for everybody",
    "endpoint": "Imaging endpoint",
    "visit": "Visit, 'all' where visits are pooled or do not apply",
    "participant_id": "Subject for a per-subject row, else 'all'",
    "group": "Pair, level or term that the statistic is about",
    "statistic": "Name of the statistic",
    "estimate": "Estimate at full precision",
    "ci_low": "Lower confidence limit",
    "ci_high": "Upper confidence limit",
    "ci_level": "Confidence level of the interval",
    "p_value": "Two-sided p value unless the note says otherwise",
    "n": "Number of subjects (or targets) behind the estimate",
    "method": "Definition: estimator, interval method, variant",
    "second_estimate": "The same statistic by an independent library",
    "second_method": "That library and function",
    "note": "Reason where the statistic is not_computable, and warnings",
}

ACQUISITION = {
    "participant_id": "Subject identifier",
    "visit": "Visit name",
    "kind": "Kind of scan",
    "criterion": "Criterion of the imaging charter",
    "value": "Observed value",
    "limit": "Limit of the charter",
    "verdict": "pass, fail or not_assessable",
}

FINDINGS = {
    "severity": "error (the run stops), warning (told, the run goes on) or note",
    "sheet": "Sheet or config file",
    "row": "Line number in the file, header = line 1; n/a for the whole sheet",
    "column": "Column or config key",
    "value": "The value as found",
    "message": "What is wrong and why it matters",
    "remedy": "How to mend it",
}

FLOW = {
    "stage": "Stage of the flow from scans listed to values analysed",
    "n_in": "Number entering",
    "n_out": "Number leaving",
    "reason": "Why those that leave the flow here do so",
    "n_excluded": "Number leaving for that reason",
}

#: Values of ``status`` in measurements.tsv.
STATUSES = ("ok", "missing", "failed", "excluded", "not_computable")

#: Unit of every named endpoint.
ENDPOINT_UNITS = {
    "infarct_volume": "mL",
    "core_volume": "mL",
    "hypoperfused_volume": "mL",
    "penumbra_volume": "mL",
    "mismatch_ratio": "ratio",
    "mismatch_volume": "mL",
    "cbv_index": "ratio",
    "hypoperfusion_intensity_ratio": "ratio",
    "haematoma_volume": "mL",
    "infarct_growth": "mL",
    "haematoma_growth": "mL",
    "reperfusion_percent": "percent",
    "ghost_core_volume": "mL",
    "aspects": "score",
    "net_water_uptake": "percent",
    "enhancing_volume": "mL",
    "oedema_volume": "mL",
    "whole_tumour_volume": "mL",
    "extent_of_resection": "percent",
    "territory_fraction": "fraction",
    "hemisphere_fraction": "fraction",
    "lesion_volume": "mL",
}

#: Endpoint that holds the volume of a mask label; other labels become ``lesion_volume:<label>``.
VOLUME_ENDPOINTS = {
    "infarct": "infarct_volume",
    "haematoma": "haematoma_volume",
    "core": "core_volume",
    "hypoperfused": "hypoperfused_volume",
    "penumbra": "penumbra_volume",
    "enhancing": "enhancing_volume",
    "oedema": "oedema_volume",
    "whole-tumour": "whole_tumour_volume",
    "lesion": "lesion_volume",
}


def volume_endpoint(label: str) -> str:
    """Name of the endpoint that holds the volume of a mask label.

    Examples
    --------
    >>> volume_endpoint("infarct"), volume_endpoint("cavity")
    ('infarct_volume', 'lesion_volume:cavity')
    """
    return VOLUME_ENDPOINTS.get(label, f"lesion_volume:{label}")
