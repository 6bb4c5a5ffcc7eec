"""What the target recovery plants into which kind of scan; light, since the Snakefile asks too."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class Target:
    """One kind of lesion on one kind of scan.

    Attributes
    ----------
    kind
        Scan that is planted into.
    label
        Mask label that is to be found.
    planted
        Name in :data:`corelab.imaging.planting.LESIONS`.
    beside
        Kinds of scan on the same grid that change with it.
    source
        Source of the mask when these scans alone are segmented.
    disease
        Studies that it is for.
    """

    kind: str
    label: str
    planted: str
    beside: tuple[str, ...] = ()
    source: str = "pipeline"
    disease: str = "stroke"


#: What is planted, in the order of the table; a visit without the kind has no rows of it.
TARGETS = (
    Target("dwi", "infarct", "infarct_diffusion", ("adc", "b0")),
    Target("FLAIR", "infarct", "infarct_flair"),
    Target("ncct", "haematoma", "haematoma"),
    Target("ncct", "infarct", "infarct_ct", source="pipeline:ncct"),
    Target("FLAIR", "oedema", "infarct_flair", disease="glioma"),
)


def targets_of(disease: str, kinds: Iterable[str]) -> list[Target]:
    """What can be planted into scans of some kinds.

    Examples
    --------
    >>> [target.label for target in targets_of("stroke", ["ncct", "T1w"])]
    ['haematoma', 'infarct']
    """
    there = set(kinds)
    return [t for t in TARGETS if t.kind in there and t.disease == disease]
