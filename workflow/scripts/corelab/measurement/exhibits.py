"""Exhibits of the report about how sure the numbers are: fits of all subjects, noise floor."""

from __future__ import annotations

import io
from pathlib import Path

from corelab.provenance.exhibits import write_exhibit
from corelab.provenance.products import atomic_path

#: Width of the contact sheet in the report, pixels.
SHEET_WIDTH = 1300
#: Grey levels and the two colours of outlines need no more.
SHEET_COLOURS = 96


def small_png(path: str | Path, width: int = SHEET_WIDTH, colours: int = SHEET_COLOURS) -> bytes:
    """A picture as a small PNG: at most so wide, with so many colours.

    Examples
    --------
    >>> import tempfile, numpy as np
    >>> from PIL import Image
    >>> file = Path(tempfile.mkdtemp()) / "a.png"
    >>> Image.fromarray(np.zeros((200, 400, 3), np.uint8)).save(file)
    >>> Image.open(io.BytesIO(small_png(file, 100))).size
    (100, 50)
    """
    from PIL import Image

    with Image.open(path) as opened:
        picture = opened.convert("RGB")
    if picture.width > width:
        height = max(1, round(picture.height * width / picture.width))
        picture = picture.resize((width, height), Image.Resampling.LANCZOS)
    picture = picture.quantize(colours, method=Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE)
    buffer = io.BytesIO()
    picture.save(buffer, format="PNG", optimize=True)
    return buffer.getvalue()


def registration_exhibit(table: str | Path, sheet: str | Path, path: str | Path) -> Path:
    """Write the exhibit of all fits to the template, worst first.

    Parameters
    ----------
    table, sheet
        ``quality/registration.tsv`` and ``quality/contact_sheet.png``.
    path
        ``exhibits/registration.json``; the picture goes beside it.
    """
    path = Path(path)
    figure = path.with_suffix(".png")
    with atomic_path(figure) as temporary:
        temporary.write_bytes(small_png(sheet))
    return write_exhibit(
        path,
        section="quality",
        title="Registration of each subject to the template, worst first",
        caption=(
            "One slice of each subject in template space; the coloured lines are the edges of the "
            "template. The whole sheet is quality/contact_sheet.png."
        ),
        figure=figure.name,
        alt="Slices of all subjects in template space with the template's edges, worst fit first",
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
            "jacobian_min": "Jacobian, least",
            "jacobian_max": "Jacobian, largest",
        },
        sort="rank",
        order=10,
    )


def noise_floor_exhibit(table: str | Path, path: str | Path) -> Path:
    """Write the exhibit of the noise floor, the noisiest endpoints first.

    Parameters
    ----------
    table
        ``endpoints/noise_floor.tsv``.
    path
        ``exhibits/noise_floor.json``.
    """
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
