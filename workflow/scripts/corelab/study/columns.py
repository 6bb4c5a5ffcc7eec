"""Columns of the tables that leave the workflow, with the words of their data dictionaries.

The order here is the order in the files. Columns may be added; none is renamed or dropped
without a line in CHANGELOG.md, because other people's programs read these tables.
"""

from __future__ import annotations

from corelab.settings.measurement import SerialImagingSettings
from corelab.terms.results import COLUMNS, NUMBERS

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

#: Columns of :class:`corelab.terms.results.StatisticRow`, and those that are numbers.
STATISTICS = COLUMNS
STATISTICS_NUMBERS = NUMBERS

ACQUISITION = {
    "participant_id": "Subject identifier",
    "visit": "Visit name",
    "kind": "Kind of scan",
    "criterion": "Criterion of the imaging charter",
    "value": "Observed value",
    "limit": "Limit of the charter",
    "verdict": "pass, fail or not_assessable",
    "scan_id": "Scan that was judged; n/a where a visit or a missing scan was",
    "site": "Site, from the participants sheet",
    "scanner": "Model of the scanner, from sheet or sidecar",
    "acquired_at": "Time of acquisition, ISO 8601",
    "reason": "What failed, or why it could not be assessed",
}

IMAGE_FINDINGS = {
    "participant_id": "Subject identifier",
    "visit": "Visit name",
    "kind": "Kind of scan",
    "scan_id": "Scan",
    "severity": "fault (the scan is not used), warning (look at it) or note (fixed, or odd)",
    "message": "What was found in the file",
    "remedy": "How to fix a fault",
}

ACQUISITION_SUMMARY = {
    "site": "Site",
    "scanner": "Model of the scanner",
    "kind": "Kind of scan",
    "criterion": "Criterion of the imaging charter",
    "n": "Number of scans judged or not assessable",
    "n_pass": "Scans that passed",
    "n_fail": "Scans that failed",
    "n_not_assessable": "Scans that could not be assessed",
    "fail_percent": "Failed of those assessed, percent",
    "ci_low": "Lower limit of the 95 % Wilson interval of that share, percent",
    "ci_high": "Upper limit of it, percent",
}

COMPLETENESS = {
    "participant_id": "Subject identifier",
    "visit": "Visit name",
    "site": "Site",
    "n_due": "Scans that the charter asks for at the visit",
    "n_there": "Of these, present and readable",
    "missing": "Kinds that are missing or unreadable",
}

CONTROL_CHARTS = {
    "site": "Site",
    "scanner": "Model of the scanner",
    "kind": "Kind of scan",
    "quantity": "What is charted",
    "order": "Place in time, from 1",
    "acquired_at": "Time of acquisition",
    "participant_id": "Subject identifier",
    "visit": "Visit name",
    "scan_id": "Scan",
    "value": "Observed value",
    "centre": "Mean of the chart",
    "lower": "Lower control limit, centre - 3 mean moving range / 1.128",
    "upper": "Upper control limit",
    "signal": "beyond limits (one point outside), run (8th or later on one side) or none",
}

REPEAT_REQUESTS = {
    "participant_id": "Subject identifier",
    "visit": "Visit name",
    "kind": "Kind of scan",
    "scan_id": "Scan that is to be repeated; n/a where there is none",
    "criteria": "Criteria that it failed, separated by commas",
    "reasons": "What was found",
    "status": "open, or answered where a later scan of the visit passes them all",
    "answered_by": "That scan",
}

PHANTOMS = {
    "site": "Site",
    "scanner": "Scanner",
    "acquired_at": "Time of the phantom scan",
    "kind": "Kind of scan",
    "insert": "Insert",
    "role": "What the insert stands for: infarct, haemorrhage or other",
    "quantity": "value (of the voxels) or volume",
    "unit": "Unit of certified and measured value",
    "certified_value": "Certified value",
    "measured_value": "Mean of the insert, or its volume",
    "measured_sd": "SD of its voxels",
    "n_voxels": "Voxels that were used",
    "snr": "Mean over SD",
    "uniformity_percent": "Integral uniformity of means over 1 cm2, percent; n/a for HU",
    "uniformity_range": "Half the range of these means, in the unit",
    "status": "ok or failed",
    "reason": "Why it could not be measured",
}

PHANTOM_VERDICTS = {
    "site": "Site",
    "scanner": "Scanner",
    "endpoint": "Kind of scan, with :volume for volumes",
    "acquired_at": "Time of the phantom scan, 'all' for what takes several",
    "criterion": "Statistic that is limited",
    "value": "Its value",
    "limit": "Its limits",
    "verdict": "pass, fail or not_assessable",
    "citation": "Where the limit comes from",
}

PHANTOM_SITES = {
    "site": "Site that scanned subjects or phantoms",
    "scanner": "Scanner of the last phantom scan that passed",
    "last_valid": "Time of that scan",
    "interval_days": "Days for which a phantom scan is valid",
    "n_scans": "Scans of subjects at the site",
    "n_outside": "Of these, scans with no valid phantom scan in the interval before them",
    "verdict": "pass, fail or not_assessable",
    "reason": "What is missing",
}

FINDINGS = {
    "severity": "error (the run stops), warning (reported, the run goes on) or note",
    "sheet": "Sheet or config file",
    "row": "Line number in the file, header = line 1; n/a for the whole sheet",
    "column": "Column or config key",
    "value": "The value as found",
    "message": "What is wrong and why it matters",
    "remedy": "How to fix it",
}

FLOW = {
    "stage": "Stage of the flow from scans listed to values analysed",
    "n_in": "Number entering",
    "n_out": "Number leaving",
    "reason": "Why those that leave the flow here do so",
    "n_excluded": "Number leaving for that reason",
}

NOISE_FLOOR = {
    "endpoint": "Name of the imaging endpoint",
    "source": "pipeline, pipeline:<variant> or consensus:<method>",
    "region": "Atlas region, or 'all' for the whole lesion",
    "unit": "Unit of the endpoint, of its mean, SD and minimal detectable change",
    "n_targets": "Subjects and visits with a value",
    "n_repeats": "Repeats with a seed of their own",
    "n_failed": "Repeats of a target that gave no value",
    "mean": "Mean over targets",
    "within_sd": "SD of repeats of one subject and visit, pooled over them",
    "within_sd_ci_low": "Lower 95 % confidence limit of within_sd (chi-square)",
    "within_sd_ci_high": "Upper 95 % confidence limit of within_sd (chi-square)",
    "minimal_detectable_change": "1.96 sqrt(2) within_sd: a smaller difference may be chance alone",
    "within_cv_percent": "within_sd over the mean, percent",
}

RECOVERY = {
    "participant_id": "Subject",
    "visit": "Visit",
    "kind": "Kind of scan that the lesion was planted into",
    "endpoint": "Endpoint that is to find it",
    "source": "pipeline or pipeline:<variant>",
    "site": "deep, cortical, bone (its border touches the edge of the brain) or posterior_fossa",
    "size_ml": "Requested volume, mL",
    "planting": "Number of the planting of this size",
    "status": "ok, not_computable (no place for it, or not segmentable) or failed (damaged file)",
    "reason": "Why not ok",
    "planted_ml": "Planted volume, mL; a voxel counts by the share of it that is lesion",
    "found_ml": "Volume of the segmented components that touch the lesion, mL",
    "elsewhere_ml": "Volume of further components that appear only with the planting, mL",
    "covered": "Share of the planted lesion that was segmented",
    "detected": "1 if covered reaches recovery.detected_share, else 0",
    "dice": "Dice of the planted lesion (voxels that are half lesion or more) and the found one",
    "x_mm": "Centre, x of the scan's world coordinates, mm",
    "y_mm": "Centre, y, mm",
    "z_mm": "Centre, z, mm",
    "contrast": "What was drawn of the lesion's contrast",
}

RECOVERY_SUMMARY = {
    "kind": "Kind of scan that lesions were planted into",
    "endpoint": "Endpoint that is to find them",
    "source": "pipeline or pipeline:<variant>",
    "site": "Site, or all",
    "size_ml": "Requested volume, mL; n/a for all sizes together",
    "n_visits": "Visits",
    "n": "Plantings that were segmented",
    "n_failed": "Plantings without a result",
    "n_detected": "Detected ones",
    "detection_rate": "n_detected / n",
    "detection_ci_low": "Lower 95 % confidence limit of detection_rate (Clopper-Pearson)",
    "detection_ci_high": "Upper 95 % confidence limit of detection_rate (Clopper-Pearson)",
    "planted_ml": "Mean planted volume, mL",
    "bias_ml": "Mean of found - planted, mL; an undetected lesion counts as found 0",
    "bias_percent": "bias_ml over the mean planted volume, percent",
    "sd_ml": "SD of found - planted, mL",
    "limits_low_ml": "bias_ml - 1.96 sd_ml: lower limit of agreement",
    "limits_high_ml": "bias_ml + 1.96 sd_ml: upper limit of agreement",
    "dice_median": "Median Dice of the detected ones",
    "dice_p10": "10th percentile of the Dice of the detected ones",
    "elsewhere_ml": "Mean volume that appears elsewhere, mL",
}

#: No lesion is larger than the brain of a large head, mL.
LARGEST_LESION_ML = 1500.0
#: Names of the windows of serial imaging that a config may call by the name of the set.
WINDOW_SETS = {
    "early_delayed": ("early", "delayed"),
    "immediate_delayed": ("immediate", "delayed"),
}


def window_names(serial: SerialImagingSettings | None) -> tuple[str, ...]:
    """Windows of the config block ``serial_imaging``; they are visits of the measurements.

    Examples
    --------
    >>> window_names(SerialImagingSettings(windows="early_delayed")), window_names(None)
    (('early', 'delayed'), ())
    """
    windows = serial.windows if serial else ()
    return WINDOW_SETS[windows] if isinstance(windows, str) else tuple(windows)


#: Beginning of the endpoint of a radiomics feature in a measurements sheet:
#: ``radiomics:<series>:<label>:<feature>``. Such rows go to features.tsv, not to measurements.tsv.
RADIOMICS_PREFIX = "radiomics:"

FEATURES = {
    "participant_id": "Subject identifier",
    "visit": "Visit name",
    "series": "Image that the feature is of; mask for shape, which is the same for every image",
    "label": "Volume of interest",
    "source": "Whose mask, and what was varied: pipeline, a reader, <source>:perturbed-<n>",
    "repeat": "Number of the repeated scan, from 1",
    "feature": "Feature, named as in the IBSI reference manual",
    "value": "The value, n/a where the feature has none",
}
