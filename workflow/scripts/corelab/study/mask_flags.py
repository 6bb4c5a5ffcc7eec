"""The flags of a segmentation: how serious each one is, and its title. The one home of both.

A segmenter emits a flag with a sentence for the row; the report takes severity and title from
here. :class:`corelab.segmentation.segmenter.Segmentation` refuses a flag that is missing here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

#: Volume in mL that a segmentation leaves out before a person has to look at it.
_LEFT_OUT_ML = 1.0


@dataclass(frozen=True)
class Flag:
    """What a flag means for the people who use the mask.

    Parameters
    ----------
    severity
        ``warning``: a person should check this mask, so that it is listed under "Needs attention"
        and on the review desk. ``note``: a limit of the input or of the method; it stands in the
        reason of the row only.
    title
        A few words; the row's reason has the whole sentence.
    figure, above
        Key in the mask's ``quality`` of the volume in mL that the flag is about, if any; up to
        ``above`` a warning is only a note.
    """

    severity: Literal["warning", "note"]
    title: str
    figure: str | None = None
    above: float = 0.0


FLAGS: Mapping[str, Flag] = {
    # diffusion
    "adc_calibration": Flag("warning", "the ADC of normal tissue is off, check the map's unit"),
    "adc_not_low": Flag("warning", "bright on DWI without a low ADC", "adc_not_low_ml"),
    "skull_base": Flag(
        "warning",
        "bright clusters at the skull base left out as distortion",
        "skull_base_dropped_ml",
    ),
    "no_adc": Flag("note", "DWI without ADC"),
    "no_dwi": Flag("note", "ADC without DWI"),
    # CT
    "calibration": Flag("warning", "the HU of brain tissue or CSF are off"),
    "no_template_fit": Flag("warning", "the head CT could not be fitted to the template"),
    "blood_candidates": Flag(
        "warning", "dense clusters left out that may be blood", "candidates_unexplained_ml",
        _LEFT_OUT_ML,
    ),
    "blood_near_50_hu": Flag("warning", "blood of low density, its edge is uncertain"),
    "old_cavity": Flag(
        "warning", "fluid on one side left out (old infarct, cyst)", "old_cavity_ml", _LEFT_OUT_ML
    ),
    "beam_hardening": Flag("note", "uneven background on CT, corrected"),
    "low_contrast": Flag("note", "hypodensity of a few HU"),
    "blooming": Flag("note", "gradient echo enlarges blood"),
    # glioma
    "no_enhancement": Flag("warning", "no enhancement beside a large FLAIR lesion"),
    "both_sides": Flag("warning", "the lesion is bright on both sides"),
    "open_ring": Flag("warning", "the enhancing ring is open, necrosis may be too small"),
    "no_t1": Flag("note", "no T1w before contrast"),
    "t2_only": Flag("note", "T2w without FLAIR"),
    "core_included": Flag("note", "oedema includes the tumour core"),
    "core_outside": Flag(
        "warning", "the core lies in part outside the whole tumour", "core_outside_ml"
    ),
    # any image
    "field_refused": Flag("warning", "a bias field that follows the lesion was not removed"),
    "not_registered": Flag("warning", "images joined by their headers, not by a registration"),
    "intensities_shifted": Flag("note", "negative intensities shifted"),
    # brain mask (imaging.brain_quality)
    "brain_mask_doubtful": Flag("warning", "the brain mask has a doubtful volume or shape"),
    "brain_masks_disagree": Flag("warning", "the brain masks of the visit disagree"),
    "brain_cut_off": Flag("warning", "the field of view ends within the brain"),
}  # fmt: skip


def needs_attention(name: str, volume_ml: float | None = None) -> bool:
    """Whether a person should act on a flag of a mask.

    Parameters
    ----------
    name
        Flag.
    volume_ml
        Volume that the flag is about, from the mask's ``quality``.

    Raises
    ------
    KeyError
        If the flag is missing in :data:`FLAGS`.

    Examples
    --------
    >>> [needs_attention("blood_candidates", volume) for volume in (0.4, 2.0)]
    [False, True]
    """
    flag = FLAGS[name]
    if flag.severity != "warning":
        return False
    return flag.figure is None or volume_ml is None or volume_ml > flag.above


def flag_title(name: str, volume_ml: float | None = None) -> str:
    """Title of a flag, with the volume that it is about."""
    title = FLAGS[name].title
    return title if volume_ml is None else f"{title} ({volume_ml:.1f} mL)"
