"""Methods of the pipeline in the order in which they run, and masks derived from theirs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from corelab.segmentation.diffusion import DiffusionInfarct, StrictDiffusionInfarct
from corelab.segmentation.flair import FlairInfarct
from corelab.segmentation.glioma import (
    EnhancingTumour,
    FlairLesion,
    Oedema,
    necrosis,
    union_of,
)
from corelab.segmentation.haematoma import CtHaematoma, GradientEchoHaematoma
from corelab.segmentation.hypodensity import CtHypodensity
from corelab.segmentation.segmenter import Segmentation, ThresholdSegmenter

#: One entry a method; :class:`ThresholdSegmenter` says what an entry declares.
METHODS: tuple[ThresholdSegmenter[Any], ...] = (
    DiffusionInfarct(),
    StrictDiffusionInfarct(),
    FlairInfarct(),
    CtHaematoma(),
    CtHypodensity(),
    GradientEchoHaematoma(),
    FlairLesion(),
    EnhancingTumour(),
    Oedema(),
)


@dataclass(frozen=True)
class Derived:
    """A mask derived from others of the visit, where all of ``needs`` were tried.

    Attributes
    ----------
    label
        Of the mask.
    parts
        Labels that it is made of.
    derive
        Makes it of the parts and the voxel size in mm; None for one that cannot be made.
    reason
        Why it cannot be made.
    needs
        Labels of methods that must have run, whether or not they found something.
    """

    label: str
    parts: tuple[str, ...]
    derive: Callable[[Sequence[Segmentation], Sequence[float]], Segmentation] | None
    reason: str | None = None
    needs: tuple[str, ...] = ("enhancing", "oedema")


DERIVED = (
    Derived("necrosis", ("enhancing",), lambda parts, size: necrosis(parts[0], size)),
    Derived(
        "nonenhancing",
        ("enhancing",),
        None,
        "on FLAIR and T1c non-enhancing tumour looks like oedema and is counted as oedema; supply "
        "a mask-nonenhancing to measure it",
    ),
    Derived(
        "tumourcore",
        ("enhancing", "necrosis"),
        lambda parts, size: union_of("tumourcore", *parts),
    ),
    Derived(
        "whole-tumour",
        ("enhancing", "necrosis", "oedema"),
        lambda parts, size: union_of("whole-tumour", *parts),
    ),
)
#: Disease -> label, kinds that show it but have no method (each gets a row), and kinds of which a
#: visit that has no others gets one row. T1w, T1c and b0 serve registration and the ADC.
NO_METHOD = {
    "stroke": ("infarct", ("T2w",), ("T1w", "T1c", "b0")),
    "glioma": ("whole-tumour", (), ("T1w", "dwi", "adc", "b0", "ncct", "gre")),
}
