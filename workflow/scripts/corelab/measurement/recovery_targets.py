"""Lesions that the target recovery plants, by kind of scan; light: the Snakefile imports it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from corelab.settings.measurement import RecoverySettings


@dataclass(frozen=True)
class Target:
    """One kind of lesion on one kind of scan.

    ``kind`` is planted into and ``beside``, kinds on the same grid, change with it; ``label`` is to
    be found by ``source``; ``planted`` is a name in :data:`corelab.imaging.planting.LESIONS`.
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
    Target("FLAIR", "infarct", "infarct_flair", source="pipeline:flair"),
    Target("ncct", "haematoma", "haematoma"),
    Target("ncct", "infarct", "infarct_ct", source="pipeline:ncct"),
    Target("FLAIR", "oedema", "infarct_flair", disease="glioma"),
)


def targets_of(
    disease: str, kinds: Iterable[str], settings: RecoverySettings | None = None
) -> list[Target]:
    """Lesions that can be planted into the kinds of scan of a visit, as far as the settings say so.

    Examples
    --------
    >>> [target.label for target in targets_of("stroke", ["ncct", "T1w"])]
    ['haematoma', 'infarct']
    """
    there = [t for t in TARGETS if t.kind in set(kinds) and t.disease == disease]
    if settings is None:
        return there
    return [t for t in there if t.kind in settings.kinds and t.label in settings.labels]
