"""Types of analysis: the keys of each, their defaults, and what the program knows of the type.

A type is written once, as a class in a module of its own here. Its function is registered in
:func:`corelab.plan.run.analysis_types`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from corelab.settings.analyses.agreement import AgreementSpec
from corelab.settings.analyses.base import AnalysisSpec, AnalysisType
from corelab.settings.analyses.comparison import ComparisonSpec
from corelab.settings.analyses.correlation import CorrelationSpec
from corelab.settings.analyses.diagnostic import DiagnosticSpec
from corelab.settings.analyses.dose_response import DoseResponseSpec
from corelab.settings.analyses.mediation import MediationSpec, SurrogacySpec
from corelab.settings.analyses.ordinal import OrdinalSpec
from corelab.settings.analyses.overlap import OverlapSpec
from corelab.settings.analyses.phantom import PhantomSpec
from corelab.settings.analyses.progression import ProgressionSpec
from corelab.settings.analyses.quantile import QuantileSpec
from corelab.settings.analyses.radiomics import RadiomicsSpec
from corelab.settings.analyses.sample_size import SampleSizeSpec
from corelab.settings.analyses.survival import SurvivalSpec
from corelab.terms.plugins import registry

if TYPE_CHECKING:
    from corelab.settings.config import Config

_ALL: tuple[type[AnalysisSpec], ...] = (
    AgreementSpec,
    OverlapSpec,
    CorrelationSpec,
    ComparisonSpec,
    DoseResponseSpec,
    OrdinalSpec,
    QuantileSpec,
    DiagnosticSpec,
    MediationSpec,
    SurrogacySpec,
    SampleSizeSpec,
    SurvivalSpec,
    ProgressionSpec,
    RadiomicsSpec,
    PhantomSpec,
)
#: Type in the plan -> its specification.
SPECS: Mapping[str, type[AnalysisSpec]] = registry(
    "analysis_types", {one.kind.name: one for one in _ALL}
)
#: Types of the library.
ANALYSIS_TYPES: dict[str, AnalysisType] = {one.kind.name: one.kind for one in _ALL}
#: Sheets that analyses can read.
SHEETS = (
    *("participants", "covariates", "outcomes", "exposures"),
    *dict.fromkeys(sheet for one in _ALL for sheet in one.kind.sheets),
)
#: Tables of ``statistics/``.
STATISTICS_TABLES = tuple(dict.fromkeys(one.kind.table for one in _ALL))


def spec_of(entry: Mapping[str, Any]) -> AnalysisSpec:
    """An entry of the plan as the specification of its type.

    ValueError if its type is unknown, or a key or value does not belong to the type.

    Examples
    --------
    >>> spec = spec_of({"id": "a", "type": "overlap", "label": "infarct"})
    >>> spec.kind.title, spec.alpha, spec.sources
    ('Overlap of masks', 0.05, 'all')
    """
    name = str(entry.get("type"))
    if name not in SPECS:
        raise ValueError(
            f"analysis {entry.get('id')}: type '{name}' is not one of " + ", ".join(sorted(SPECS))
        )
    spec = SPECS[name]
    try:
        return spec.model_validate(dict(entry))
    except ValidationError as error:
        problems = [
            f"{key} does not know '{value}', known are {', '.join(values)}"
            for key, value, values in spec.unknown_values(entry)
        ] or [f"{'.'.join(map(str, one['loc']))}: {one['msg']}" for one in error.errors()]
        raise ValueError(f"analysis {entry.get('id')}: {'; '.join(problems)}") from None


def specs_of(config: Config) -> list[AnalysisSpec]:
    """The plan of a config as specifications."""
    return [spec_of(entry) for entry in config.analyses]
