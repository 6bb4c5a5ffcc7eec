"""Exhibits of the imaging stages: fits of all subjects, noise floor, recovery, frequency maps."""

from __future__ import annotations

import io
from pathlib import Path

from corelab.provenance.exhibits import write_exhibit
from corelab.provenance.products import atomic_path
from corelab.records.maps import FrequencyMaps, LevelMap

#: Width of a picture in the report, pixels.
_WIDTH = 1300


def _small_png(path: str | Path, colours: int, *, rare_colours: bool = False) -> bytes:
    """A picture as a small PNG with so many colours.

    With ``rare_colours`` those at the ends of a colour bar stay, although few pixels have them.
    """
    from PIL import Image

    with Image.open(path) as opened:
        picture = opened.convert("RGB")
    if picture.width > _WIDTH:
        height = max(1, round(picture.height * _WIDTH / picture.width))
        picture = picture.resize((_WIDTH, height), Image.Resampling.LANCZOS)
    method = Image.Quantize.MAXCOVERAGE if rare_colours else Image.Quantize.MEDIANCUT
    picture = picture.quantize(colours, method=method, dither=Image.Dither.NONE)
    buffer = io.BytesIO()
    picture.save(buffer, format="PNG", optimize=True)
    return buffer.getvalue()


def registration_exhibit(table: str | Path, sheet: str | Path, path: str | Path) -> Path:
    """Write the exhibit of all fits to the template, worst first, and its picture beside it.

    ``table`` and ``sheet`` are ``quality/registration.tsv`` and ``quality/contact_sheet.png``.
    """
    path = Path(path)
    figure = path.with_suffix(".png")
    with atomic_path(figure) as temporary:
        # Grey levels and the two colours of outlines need no more.
        temporary.write_bytes(_small_png(sheet, colours=96))
    return write_exhibit(
        path,
        section="quality",
        title="Registration of each subject to the template, worst first",
        caption=(
            "Three planes of each subject in template space; the coloured lines are the edges of "
            "the template. The whole sheet is quality/contact_sheet.png."
        ),
        figure=figure.name,
        alt="Planes of all subjects in template space with the template's edges, worst fit first",
        table=f"quality/{Path(table).name}",
        columns={
            "rank": "Rank",
            "participant_id": "Subject",
            "status": "Status",
            "reason": "Reason",
            "anchor": "Scan",
            "method": "Method",
            "worst_z": "Worst z",
            "dice": "Dice of the brains",
            "mutual_information": "Mutual information",
            "edge_correlation": "Correlation of edges",
            "ventricle_offset_mm": "Ventricles off, mm",
            "jacobian_min": "Jacobian, least",
            "jacobian_max": "Jacobian, largest",
        },
        sort="rank",
        order=10,
    )


def noise_floor_exhibit(table: str | Path, path: str | Path) -> Path:
    """Write the exhibit of ``endpoints/noise_floor.tsv``, noisiest first."""
    return write_exhibit(
        path,
        section="quality",
        title="Noise floor: what chance alone moves",
        caption=(
            "The same scans registered, segmented and measured again with other seeds and other "
            "noise. A difference below the minimal detectable change may be chance alone."
        ),
        table=f"endpoints/{Path(table).name}",
        columns={
            "endpoint": "Endpoint",
            "source": "Source",
            "region": "Region",
            "n_targets": "Subjects and visits",
            "n_repeats": "Repeats",
            "n_failed": "Without a value",
            "mean": "Mean",
            "within_sd": "Within-subject SD",
            "within_sd_ci_low": "95 % CI, lower",
            "within_sd_ci_high": "95 % CI, upper",
            "within_cv_percent": "Within-subject CV, %",
            "minimal_detectable_change": "Minimal detectable change",
            "unit": "Unit",
        },
        sort="-within_cv_percent",
        order=20,
    )


def recovery_exhibit(summary: str | Path, figure: str | Path, path: str | Path) -> Path:
    """Write the exhibit of ``quality/recovery_summary.tsv``; the figure lies beside it."""
    return write_exhibit(
        path,
        section="quality",
        title="Recovery of planted lesions",
        caption=(
            "Lesions of known shape planted into this study's own scans, one at a time, and "
            "segmented as the study's are. Bias and limits of agreement are of found - planted; "
            "an undetected lesion counts as found 0."
        ),
        figure=Path(figure).name,
        alt="Recovered against planted volume, and detection rate by planted volume",
        table=f"quality/{Path(summary).name}",
        columns={
            "kind": "Scan",
            "endpoint": "Endpoint",
            "site": "Site",
            "size_ml": "Size, mL",
            "n": "Plantings",
            "n_failed": "Without a result",
            "n_detected": "Detected",
            "detection_ci_low": "Rate, 95 % CI, lower",
            "detection_ci_high": "Rate, 95 % CI, upper",
            "bias_ml": "Bias, mL",
            "limits_low_ml": "Limits of agreement, lower",
            "limits_high_ml": "Limits of agreement, upper",
            "dice_median": "Dice of detected, median",
            "elsewhere_ml": "Elsewhere, mL",
        },
        order=30,
    )


def frequency_maps_exhibit(record: FrequencyMaps, figure: str | Path, path: str | Path) -> Path:
    """Write the exhibit of one entry of ``measurement.frequency_maps``, a picture beside it."""
    path = Path(path)
    picture = path.with_suffix(".png")
    with atomic_path(picture) as temporary:
        temporary.write_bytes(_small_png(figure, colours=256, rare_colours=True))
    settings = record.settings
    compared = str(settings.get("compare") or "").replace("risk:", "risk of ")
    label = str(settings["label"]).replace("-", " ")
    which = f" by {compared}" if compared else f", {settings.get('visit') or 'all visits'}"
    title = f"Frequency of {label}{which}"
    return write_exhibit(
        path,
        section="maps",
        title=title,
        caption=" ".join([*map(_sides_words, record.maps), _difference_words(record)]).strip(),
        figure=picture.name,
        alt=f"{title}: three planes and axial slices of the template, one row for each map",
        order=20,
    )


def _sides_words(one: LevelMap) -> str:
    """Sentence on the number mapped and the share of lesions on the left."""
    name = one.level or one.visit or "all"
    sides = one.sides
    where = f"{str(name)[0].upper()}{str(name)[1:]}: {one.n_mapped} mapped"
    if sides.left is None or sides.ci_low is None or sides.ci_high is None:
        return f"{where}."
    interval = f"{100 * sides.ci_low:.0f} to {100 * sides.ci_high:.0f} %"
    return f"{where}, {100 * sides.left:.0f} % on the left ({interval})."


def _difference_words(record: FrequencyMaps) -> str:
    """Result of the permutation test of the difference, or why there is none."""
    found = record.difference
    if found is None:
        return str(record.reason or "")
    if found.status != "ok":
        return f"No difference map: {found.reason}."
    assert found.smallest_p_corrected is not None and found.alpha is not None
    threshold = found.threshold_abs_z
    beyond = f"; |z| from {threshold:.2f} is significant" if threshold is not None else ""
    drawn = "all" if found.exact else "by"
    return (
        f"Difference {found.first} less {found.second}, {drawn} {found.permutations} "
        f"permutations: smallest corrected p {found.smallest_p_corrected:.3g}, "
        f"{found.voxels_significant} of {found.voxels_tested} voxels at "
        f"{found.alpha:g}{beyond}."
    )
