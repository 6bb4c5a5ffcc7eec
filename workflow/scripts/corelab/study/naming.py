"""BIDS-derivative names: the one place that turns ids into paths.

An id from a sheet never enters a path unescaped. BIDS labels allow letters, digits and ``+``;
every other byte (and ``+`` itself) becomes ``+`` and two hexadecimal digits, so that the mapping
can be undone and ``../`` is harmless.
"""

from __future__ import annotations

import functools
import re
from pathlib import PurePosixPath

from corelab.terms.kinds import DATATYPES

TEMPLATE_SPACE = "MNI152NLin2009aSym"

_ALLOWED = re.compile(r"[0-9A-Za-z]*")


def bids_label(text: str) -> str:
    """Map any text to a BIDS label, reversibly: the bytes of UTF-8 as +XX.

    Examples
    --------
    >>> bids_label("007"), bids_label("site-1/a"), bids_label("../x")
    ('007', 'site+2D1+2Fa', '+2E+2E+2Fx')
    """
    text = str(text)
    if _ALLOWED.fullmatch(text):
        return text
    return "".join(
        chr(byte) if byte < 128 and _ALLOWED.fullmatch(chr(byte)) else f"+{byte:02X}"
        for byte in text.encode("utf-8")
    )


@functools.cache  # one string for all rows of a participant
def subject_entity(participant_id: str) -> str:
    """``sub-<label>``; an id that already begins with ``sub-`` is not given a second one.

    Examples
    --------
    >>> subject_entity("01"), subject_entity("sub-01"), subject_entity("A_1")
    ('sub-01', 'sub-01', 'sub-A+5F1')
    """
    return "sub-" + bids_label(participant_id.removeprefix("sub-"))


@functools.cache
def session_entity(visit: str) -> str:
    """``ses-<label>`` of a visit."""
    return "ses-" + bids_label(visit.removeprefix("ses-"))


def visit_folder(participant_id: str, visit: str) -> PurePosixPath:
    """Folder of one visit's derivatives, relative to the study's results folder."""
    return PurePosixPath("derivatives") / subject_entity(participant_id) / session_entity(visit)


def derivative(
    participant_id: str,
    visit: str,
    datatype: str,
    suffix: str,
    *,
    extension: str = ".nii.gz",
    **entities: str | None,
) -> str:
    """Path of a derivative, relative to the study's results folder.

    Parameters
    ----------
    participant_id, visit
        As in the sheets.
    datatype
        ``anat``, ``dwi``, ``perf`` or ``ct``; see :data:`DATATYPES`.
    suffix
        ``mask``, ``map``, ``xfm`` or the kind of scan.
    extension
        With its dot.
    **entities
        ``space``, ``from_``, ``to``, ``mode``, ``label``, ``desc``, ``run``; None is left out.
        They are written in that order.

    Examples
    --------
    >>> derivative("01", "day5", "perf", "map", desc="tmax")
    'derivatives/sub-01/ses-day5/perf/sub-01_ses-day5_desc-tmax_map.nii.gz'
    """
    order = ("run", "space", "from_", "to", "mode", "label", "desc")
    unknown = set(entities) - set(order)
    if unknown:
        raise ValueError(f"unknown entities {sorted(unknown)}; known: {order}")
    parts = [subject_entity(participant_id), session_entity(visit)]
    for key in order:
        value = entities.get(key)
        if value is not None:
            # Modes, template and kind names come from this code, not from sheets: a hyphenated
            # label (whole-tumour) loses its hyphen, anything odd is escaped.
            label = value.replace("-", "") if key == "label" else value
            parts.append(f"{key.rstrip('_')}-{bids_label(label)}")
    name = "_".join([*parts, suffix]) + extension
    return str(visit_folder(participant_id, visit) / datatype / name)


def mask_path(
    participant_id: str,
    visit: str,
    label: str,
    *,
    kind: str,
    desc: str | None = None,
    space: str | None = None,
    run: str | None = None,
) -> str:
    """Path of a mask drawn on the grid of a scan of ``kind``.

    The pipeline's primary mask has no ``desc``; every other mask has one (its source).

    Examples
    --------
    >>> mask_path("01", "day90", "infarct", kind="FLAIR", desc="reader-1")
    'derivatives/sub-01/ses-day90/anat/sub-01_ses-day90_label-infarct_desc-reader+2D1_mask.nii.gz'
    """
    return derivative(
        participant_id,
        visit,
        DATATYPES.get(kind, "anat"),
        "mask",
        label=label,
        desc=desc,
        space=space,
        run=run,
    )


def region_name(index: int, name: str) -> str:
    """Name of an atlas region in the ``region`` column (names repeat in real atlases)."""
    return f"{index}_{name}"
