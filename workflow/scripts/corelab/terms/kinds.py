"""Kinds of scan: what they are called, and where their derivatives go."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Kind:
    """A kind of scan.

    Attributes
    ----------
    name, words
        In the scans sheet, and in print.
    folder
        Folder of a derivative on its grid (BIDS); empty: none of its own.
    suffixes
        Suffixes of BIDS files of this kind.
    series
        Whether the image has a time axis.
    """

    name: str
    words: str
    folder: str = ""
    suffixes: tuple[str, ...] = ()
    series: bool = False


_TABLE = (
    Kind("T1w", "T1-weighted", "anat", ("T1w",)),
    Kind("T1c", "T1-weighted with contrast", "anat", ("ce-T1w",)),
    Kind("T2w", "T2-weighted", "anat", ("T2w",)),
    Kind("FLAIR", "FLAIR", "anat", ("FLAIR",)),
    Kind("b0", "b = 0", "dwi", ("sbref", "b0")),
    Kind("dwi", "DWI", "dwi", ("trace", "dwi")),
    Kind("adc", "ADC", "dwi", ("adc", "ADC")),
    Kind("gre", "gradient echo", "anat", ("T2star", "T2starw")),
    Kind("ncct", "non-contrast CT", "ct", ("ct", "ncct")),
    Kind("ctp", "CT perfusion", "perf", ("ctp",), series=True),
    Kind("dsc", "DSC perfusion", "perf", ("dsc", "perf"), series=True),
    Kind("cbf", "CBF", "perf", ("cbf",)),
    Kind("cbv", "CBV", "perf", ("cbv",)),
    Kind("mtt", "MTT", "perf", ("mtt",)),
    Kind("tmax", "Tmax", "perf", ("tmax",)),
    Kind("ttp", "TTP", "perf", ("ttp",)),
    Kind("aif", "arterial input", "perf"),
    Kind("dicom", "DICOM series"),
)
KINDS = {one.name: one for one in _TABLE}
#: Kinds from which perfusion is computed or read, the others, and both.
PERFUSION_KINDS = tuple(k for k, one in KINDS.items() if one.folder == "perf" and one.suffixes)
STRUCTURAL_KINDS = tuple(k for k, one in KINDS.items() if one.folder != "perf")
IMAGE_KINDS = STRUCTURAL_KINDS + PERFUSION_KINDS
#: Kinds that are time series.
SERIES_KINDS = tuple(k for k, one in KINDS.items() if one.series)
_MAPS = ("mtt", "tmax", "ttp")
#: Whose grid is the reference of a visit, best first.
REFERENCE_ORDER = (
    *("T1w", "T1c", "dwi", "adc", "b0", "FLAIR", "T2w", "gre", "ncct", "ctp", "dsc"),
    *("cbf", "cbv", *_MAPS),
)
#: Which image of a grid shows the brain's border best, best first.
BRAIN_ORDER = (
    *("T1w", "T1c", "dwi", "FLAIR", "T2w", "b0", "gre", "ncct", "ctp", "dsc", "adc"),
    *("cbv", "cbf", *_MAPS),
)
#: Which scan of a grid is registered to the template, best first.
TEMPLATE_ORDER = ("T1w", "T1c", "b0", "dwi", "FLAIR", "T2w", "gre", "ncct", "ctp", "dsc", "adc")
#: Which scan of a visit is shown first.
SHOWN_ORDER = ("dwi", "FLAIR", "T1c", "ncct", "ctp", "dsc", "T2w", "adc", "T1w", "gre")
#: Kind -> folder of its derivatives.
DATATYPES = {name: one.folder for name, one in KINDS.items() if one.folder}
#: Suffix of a BIDS file -> kind.
KIND_OF_SUFFIX = {suffix: name for name, one in KINDS.items() for suffix in one.suffixes}


def kind_words(name: object) -> str:
    """A kind of scan in print.

    Examples
    --------
    >>> kind_words("ncct"), kind_words("mask-infarct")
    ('non-contrast CT', 'infarct mask')
    """
    kind, _, label = str(name).partition("mask-")
    if label and not kind:
        return f"{label.replace('-', ' ')} mask"
    return KINDS[str(name)].words if name in KINDS else str(name)
