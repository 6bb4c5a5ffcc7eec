"""What all types of analysis share: keys, facts, and the words for a key that is not read."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import (
    TYPE_CHECKING,
    Annotated,
    Any,
    ClassVar,
    Literal,
    Self,
    TypeAlias,
    TypeVar,
    get_args,
    get_origin,
)

from annotated_types import MinLen
from pydantic import ConfigDict, Field, ModelWrapValidatorHandler, PrivateAttr, model_validator

from corelab.settings.base import Absent, Fraction, Number, Positive, Settings, Share, Text
from corelab.terms.results import StatisticRow

T = TypeVar("T")
OneOrMany: TypeAlias = T | Annotated[list[T], MinLen(1)]
Texts: TypeAlias = OneOrMany[Text]
#: Share of a whole, neither nothing nor all.
OpenShare = Annotated[Number, Field(gt=0, lt=1)]
Level: TypeAlias = str | Number
Derivation = Literal["value", "change", "percent_change", "log_ratio", "responder"]
Scale = Literal["identity", "log", "cube_root"]
#: Seed of resampling where the plan gives none.
SEED = 20240229
#: Bootstrap samples where the plan gives no number.
RESAMPLES = 2000


@dataclass(frozen=True)
class AnalysisType:
    """What every part of the program has to know of a type of analysis.

    Attributes
    ----------
    name, title
        ``type`` in the plan, and in print.
    table
        ``statistics/<table>.tsv``, which its rows go to.
    part
        Section of the report.
    number
        Number of its table in the PDF.
    figure
        ``panels``: one figure; ``drawings``: several; empty: by its endpoints, or none.
    headline
        Statistics that a reader looks for first, in order.
    main
        Statistics of its main table, where that is not all of them.
    sheets
        Sheets that it reads in any case.
    by_participant
        Whether it uses one value per participant and visit.
    datasets
        ADaM data sets that it rests on.
    """

    name: str
    title: str
    table: str = "pharmacodynamics"
    part: str = "pharmacodynamics"
    number: str = "14.2.13"
    figure: str = "panels"
    headline: tuple[str, ...] = ()
    main: tuple[str, ...] = ()
    sheets: tuple[str, ...] = ()
    by_participant: bool = False
    datasets: tuple[str, ...] = ("ADIMG", "ADPD")

    @property
    def reliability(self) -> bool:
        """Whether it says how well something was measured, and nothing of a treatment."""
        return self.table in {"agreement", "overlap", "phantom"}


#: An entry whose type is unknown, or rows without an analysis.
NO_TYPE = AnalysisType("", "Analysis", "", "", figure="")


@dataclass(frozen=True)
class Need:
    """What else an analysis must have for a key to be read: a test, and its words.

    The test has the analysis and the endpoints that are graded in words.
    """

    holds: Callable[[Any, Collection[str]], bool]
    words: str

    def __and__(self, other: Need) -> Need:
        return Need(
            lambda a, g: self.holds(a, g) and other.holds(a, g),
            " and ".join(filter(None, (self.words, other.words))),
        )

    def __or__(self, other: Need) -> Need:
        return Need(
            lambda a, g: self.holds(a, g) or other.holds(a, g), f"{self.words} or {other.words}"
        )


def listed(value: Any) -> list[Any]:
    """A value as a list; None is empty.

    Examples
    --------
    >>> listed("a"), listed(["a", "b"]), listed(None)
    (['a'], ['a', 'b'], [])
    """
    return [] if value is None else list(value) if isinstance(value, (list, tuple)) else [value]


def texts(value: Any) -> list[str]:
    """A value as a list of texts."""
    return [str(one) for one in listed(value)]


def _has(analysis: Any, key: str) -> bool:
    return getattr(analysis, key, None) not in (None, [], {}, False)


def given(*keys: str) -> Need:
    """One of the keys is given."""
    return Need(lambda a, _: any(_has(a, key) for key in keys), " or ".join(keys))


def without(key: str) -> Need:
    """A key is not given."""
    return Need(lambda a, _: not _has(a, key), f"no {key}")


def one_of(key: str, *values: str, unset: bool = False) -> Need:
    """A key has one of the values, given or by default; ``unset``: or it is not given."""

    def holds(analysis: Any, _: Collection[str]) -> bool:
        found = texts(getattr(analysis, key, None))
        return bool(set(values) & set(found)) or (unset and not found)

    return Need(holds, f"{key} {' or '.join(values)}")


def several(key: str, least: int, words: str) -> Need:
    """A list has that many entries."""
    return Need(
        lambda a, _: len(texts(getattr(a, key))) >= least or texts(getattr(a, key)) == ["all"],
        words,
    )


ALWAYS = Need(lambda a, g: True, "")
DERIVED = Need(lambda a, _: a.derivation != "value", "a derivation")
RESPONDER = one_of("derivation", "responder")
RATIO = one_of("derivation", "percent_change", "log_ratio")
RATIO_OR_LOG = RATIO | one_of("scale", "log")
WITH_ENDPOINT = given("endpoint")
GRAPHICAL = one_of("adjustment", "graphical")
IN_FAMILY = given("family")
WITH_BY = given("by")
WITH_COVARIATES = given("covariates")

# Keys that several types have, each with its form and its words.
Alternative = Annotated[
    Literal["two-sided", "greater", "less"], Field(description="Alternative hypothesis")
]
Assessor = Annotated[str, Field(description="Assessor of the events sheet")]
Baseline = Annotated[str, Field(description="Baseline visit of the derivation")]
Better = Literal["low", "high"]
By = Annotated[str, Field(description="Participants column that groups")]
ByVisit = Annotated[bool, Field(description="Agreement and overlap by visit instead of pooled")]
Categorical = Annotated[list[str], Field(description="Covariates to treat as factors")]
Cluster = Annotated[
    str,
    Field(
        description="Column whose levels are clusters. Agreement and overlap: targets of one "
        "participant belong together by default (participant_id); a participants column where "
        "rows of that sheet are lesions or hemispheres; none for independent targets"
    ),
]
ComparePairs = Annotated[bool, Field(description="Compare the ICCs of all pairs of sources")]
Covariates = Annotated[list[str], Field(description="Participants columns")]
Criterion = Annotated[str, Field(description="Criterion of the events sheet")]
Dose = Annotated[str, Field(description="Participants column of the dose")]
Endpoint = Annotated[Texts, Field(description="Imaging endpoint, or a list of them")]
EventEndpoint = Annotated[str, Field(description="Endpoint of the events sheet")]
Exceeds = Annotated[
    Number,
    Field(
        gt=-1,
        lt=1,
        description="Threshold that the planned coefficient (icc_form, or kappa of weights) "
        "shall exceed: adds a one-sided test",
    ),
]
Exposure = Annotated[str, Field(description="Exposure of the exposures sheet")]
ExposureVisit = Annotated[str, Field(description="Visit of the exposure where it differs")]
LimitsCoverage = Annotated[
    OpenShare,
    Field(description="Share of differences within the limits of agreement; default 0.95"),
]
Outcome = Annotated[
    str, Field(description="Outcome of the outcomes sheet, or a participants column")
]
OutcomeVisit = Annotated[str, Field(description="Visit of the outcome where it differs")]
Reference = Annotated[Level, Field(description="Reference level of by")]
ReferenceLevels = Annotated[
    dict[str, Level],
    Field(
        description="Reference level of covariates that are factors: column -> level; default "
        "the first in order"
    ),
]
Region = Annotated[str, Field(description="Atlas region <index>_<name>; default the whole lesion")]
Reliability = Annotated[
    Share,
    Field(description="Reliability (ICC) of one value of the endpoint, 0 to 1"),
]
Resamples = Annotated[int, Field(ge=1, description="Number of bootstrap or permutation samples")]
ScaleOfValues = Annotated[Scale, Field(description="Scale on which values are compared")]
Seed = Annotated[int, Field(ge=0, description="Seed of resampling")]
Source = Annotated[str, Field(description="Source of the values; default pipeline, else supplied")]
Sources = Annotated[Texts, Field(description="Sources to compare; all for every one")]
Strata = Annotated[
    list[str],
    Field(
        description="Survival and comparison: participants columns of the stratified log-rank "
        "test and Cox model, risk difference (binary) and Wilcoxon test (mann_whitney). Ordinal: "
        "of the generalised odds ratio pooled over them. "
        "Agreement also within these: participants columns, visit, size, third (of the reading "
        "sequence)"
    ),
]
Visit = Annotated[Texts, Field(description="Visit or visits; default each visit apart")]


class IntercurrentEvent(Settings):
    """An event after the start of treatment, with its strategy (ICH E9(R1))."""

    event: Text
    """The event"""
    strategy: Literal[
        "treatment policy",
        "hypothetical",
        "composite",
        "while on treatment",
        "principal stratum",
    ]
    """How it enters"""


class Estimand(Settings):
    """Attributes of an estimand after ICH E9(R1)."""

    model_config = ConfigDict(json_schema_extra={"minProperties": 1})

    treatments: Text | Absent = None
    """Treatments compared"""
    population: Text | Absent = None
    """Patients whom the question is about"""
    variable: Text | Absent = None
    """Variable of each patient"""
    intercurrent_events: list[IntercurrentEvent] | Absent = None
    """Events after the start of treatment, each with its strategy"""
    summary: Text | Absent = None
    """Summary over the population"""


Assumption = Literal["missing completely at random", "missing at random", "missing not at random"]


class MissingData(Settings):
    """How missing values enter, by part."""

    model_config = ConfigDict(json_schema_extra={"minProperties": 1})

    assumption: Assumption | Absent = None
    """Mechanism assumed by the main analysis"""
    handling: Text | Absent = None
    """What the main analysis does"""
    sensitivity: list[Text] | Absent = None
    """Analyses under other assumptions"""


Names = Annotated[list[str], MinLen(1)]
Cuts = Annotated[list[Number], MinLen(1)]


class Grid(Settings):
    """Alternatives to the planned values of keys."""

    design: Literal["factorial", "one_at_a_time"] = "factorial"
    """Every combination, or one change at a time; default factorial"""
    source: Names | Absent = None
    """Sources (thresholds and engines are sources pipeline:<id>, readers are sources too); all for
    every one that has the endpoint
    """
    population: Names | Absent = None
    """Population expressions"""
    endpoint: Names | Absent = None
    """Other endpoints"""
    visit: Names | Absent = None
    """Other visits"""
    method: Names | Absent = None
    """Other methods"""
    derivation: Names | Absent = None
    """Other derivations"""
    responder: Names | Absent = None
    """Other responder rules"""
    scale: Names | Absent = None
    """Other scales"""
    covariates: Annotated[list[list[str]], MinLen(1)] | Absent = None
    """Other sets of covariates"""
    cut: Cuts | Absent = None
    """Other cut points of the outcome"""
    positive_from: Cuts | Absent = None
    """Other cut points of the test"""
    outcome: Names | Absent = None
    """Other outcomes"""


class Offset(Settings):
    """What is added to values of which some are 0."""

    offset: Positive
    """Added to every value, unit of the endpoint"""


Zeros = Annotated[
    Annotated[str, Field(pattern=r"^(refuse|rank|offset: ?[0-9.]+)$")] | Offset,
    Field(
        description="Values of 0 on a ratio or log scale: refuse (no estimate; default of a "
        "primary analysis), rank (compared by ranks; default elsewhere) or {offset: number} "
        "added to every value"
    ),
]


class Shared:
    """Keys that shared code reads of every type, and their value where a type does not have them.

    A key that some types have once and others as a list is free here.
    """

    alternative: str = "two-sided"
    assessor: str | None = None
    auxiliary: Sequence[str] = ()
    baseline: str | None = None
    by: str | None = None
    categorical: Sequence[str] = ()
    cluster: str | None = None
    covariates: Sequence[str] = ()
    criterion: str | None = None
    derivation: str = "value"
    dose: str | None = None
    endpoint: Any = None
    endpoint_y: Any = None
    event_endpoint: str | None = None
    exposure: str | None = None
    exposure_visit: str | None = None
    method: Any = None
    models: Any = None
    nonresponder_imputation: bool = False
    outcome: str | None = None
    outcome_visit: str | None = None
    reference: Any = None
    reference_levels: Mapping[str, Level] | None = None
    region: str = "all"
    repeats: Any = None
    responder: str | None = None
    scale: str = "identity"
    source: str | None = None
    source_y: str | None = None
    sources: Any = None
    strata: Sequence[str] = ()
    subgroups: Sequence[str] = ()
    visit: Any = None
    visit_y: Any = None
    zeros: Any = None


#: For the type checker a type has the shared keys; pydantic knows those that are its own.
if TYPE_CHECKING:
    _Keys = Shared
else:
    _Keys = object


def _literals(form: Any) -> tuple[str, ...]:
    if get_origin(form) is Literal:
        return tuple(get_args(form))
    return tuple(dict.fromkeys(one for part in get_args(form) for one in _literals(part)))


class AnalysisSpec(Settings, _Keys):
    """One entry of the plan: what all types have.

    A type is a class below this one, in a module of its own. A field's default is the default of
    the key. A field with a :class:`Need` among its annotations is read under that condition only.
    """

    model_config = ConfigDict(regex_engine="python-re", defer_build=True)

    #: Facts of the type.
    kind: ClassVar[AnalysisType] = NO_TYPE
    #: Required keys, and keys of which one is required: unless the key ``instead`` is given.
    require: ClassVar[tuple[str, ...]] = ()
    require_one: ClassVar[tuple[str, ...]] = ()
    instead: ClassVar[str] = ""

    id: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}\Z")
    """Identifier; stands in every row it gives"""
    type: str
    """Kind of analysis"""
    label: str | Absent = None
    """Mask label of an overlap analysis; elsewhere a title"""
    title: str | Absent = None
    """What people read as its title"""
    population: str | Absent = None
    """Expression over participants columns"""
    objective: Literal["primary", "secondary", "exploratory"] | Absent = None
    """Standing in the plan"""
    family: str | Absent = None
    """Multiplicity family"""
    primary_visit: Annotated[str | Absent, IN_FAMILY] = None
    """Visit of the hypothesis; default the last visit of the analysis"""
    primary_contrast: Annotated[Level | Absent, IN_FAMILY] = None
    """Level of by (or group of a row) of the hypothesis; default every contrast"""
    primary_statistic: Annotated[str | Absent, IN_FAMILY] = None
    """Statistic of the hypothesis; default the first that concludes"""
    weight: Annotated[Fraction | Absent, GRAPHICAL] = None
    """Share of the level of this analysis in a graphical family, 0 to 1"""
    passes_to: Annotated[dict[str, Fraction] | Absent, GRAPHICAL] = None
    """Shares of the weight that go to other analyses of a graphical family once this one is
    rejected, 0 to 1
    """
    adjustment: Annotated[
        Literal[
            "holm",
            "hochberg",
            "bh",
            "benjamini_hochberg",
            "benjamini_yekutieli",
            "bonferroni",
            "fixed_sequence",
            "dunnett",
            "graphical",
        ]
        | Absent,
        IN_FAMILY,
    ] = None
    """Multiplicity procedure of the family; fixed_sequence tests in the order of the plan"""
    estimand: Text | Estimand | Absent = None
    """Estimand after ICH E9(R1), by attribute or in words; shown in the methods, the charter, the
    SOP and the ARS
    """
    missing_data: Text | MissingData | Absent = None
    """Missing values, by part or in words; the method key decides what is done (complete cases,
    mmrm, multiple_imputation)
    """
    alpha: OpenShare = 0.05
    """1 - confidence level"""
    note: str | Absent = None
    """Free text shown with the results"""
    sensitivity: Grid | Absent = None
    """Alternatives to the planned values of keys; every combination is run and stands in
    statistics/specifications.tsv
    """

    _entry: Mapping[str, Any] = PrivateAttr(default_factory=dict)

    if not TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any:
            """Value of a key that this type does not have: as if it were not given."""
            shared = name in Shared.__annotations__
            return getattr(Shared, name) if shared else super().__getattr__(name)

    @staticmethod
    def analyse(analysis: Any, tables: Any) -> Iterable[StatisticRow]:
        """Statistics rows of a type of another package; see :mod:`corelab.plan.run` for ours.

        A row may be a plain mapping of the columns.
        """
        raise NotImplementedError

    @model_validator(mode="wrap")
    @classmethod
    def _keep_entry(cls, entry: Any, validate: ModelWrapValidatorHandler[Self]) -> Self:
        made = validate(entry)
        made._entry = dict(entry)
        return made

    @classmethod
    def unchecked(cls, **entry: Any) -> Self:
        """An analysis that is in no plan, for rows that belong to none."""
        made = cls.model_construct(**entry)
        made._entry = entry
        return made

    @property
    def arms(self) -> str:
        """Participants column whose levels are compared."""
        return str(self.by or "arm")

    @property
    def sheets(self) -> list[str]:
        """Sheets that it reads."""
        named = ["outcomes"] * bool(self.outcome) + ["exposures"] * bool(self.exposure)
        return ["participants", "covariates", *named, *self.kind.sheets]

    @classmethod
    def need(cls, key: str) -> Need:
        """Condition under which a key is read."""
        found = [m for m in cls.model_fields[key].metadata if isinstance(m, Need)]
        return found[0] if found else ALWAYS

    @classmethod
    def choices(cls, key: str) -> tuple[str, ...]:
        """Values that a key may have; empty where it is free."""
        return _literals(cls.model_fields[key].annotation)

    @classmethod
    def unknown_values(cls, entry: Mapping[str, Any]) -> Iterator[tuple[str, str, tuple[str, ...]]]:
        """Values of an entry that a key does not know: key, value, values that it knows."""
        for key in set(cls.model_fields) & set(entry) - {"type"}:
            values = cls.choices(key)
            for one in texts(entry[key]) if values else ():
                if one not in values:
                    yield key, one, values

    def changed(self, **values: Any) -> Self:
        """The same analysis with other values of some keys."""
        if unknown := set(values) - set(type(self).model_fields):
            raise TypeError(f"an analysis of type {self.type} has no {', '.join(sorted(unknown))}")
        return self.model_copy(update=values)

    def as_given(self) -> dict[str, Any]:
        """The entry as the plan has it: without defaults, its keys in their order."""
        return dict(self._entry)


class Placed(AnalysisSpec):
    """Values of an endpoint at a visit, of the whole or of a region."""

    endpoint: Endpoint
    visit: Visit | Absent = None
    region: Region = "all"


class OneValue(Placed):
    """One value per participant and visit: of one source, derived."""

    derivation: Derivation = "value"
    """How a value is derived from two visits"""
    source: Source | Absent = None
    baseline: Annotated[Baseline | Absent, DERIVED | one_of("covariates", "baseline")] = None
    zeros: Annotated[Zeros | Absent, RATIO_OR_LOG] = None
    responder: Annotated[str | Absent, RESPONDER] = None
    """Rule of derivation responder over value, baseline, change, percent_change (%) and log_ratio,
    for example percent_change <= -30
    """
    nonresponder_imputation: Annotated[bool, RESPONDER] = False
    """Participants of the population without a value at the visit count as non-responders; of a
    graded outcome by arm: take the worst grade that anybody has; default false
    """


class MaybeOneValue(OneValue):
    """The same for a type that may do without an imaging endpoint."""

    endpoint: Endpoint | Absent = None  # type: ignore[assignment]

    @classmethod
    def need(cls, key: str) -> Need:
        """Condition under which a key is read."""
        own = super().need(key)
        placed = key in OneValue.model_fields and key not in {
            "endpoint",
            *AnalysisSpec.model_fields,
        }
        return WITH_ENDPOINT & own if placed else own


class Clustered(AnalysisSpec):
    """Targets that may belong together: those of a participant, or of a column of the sheet."""

    cluster: Cluster = "participant_id"
    _labels: Mapping[str, str] | None = PrivateAttr(default_factory=dict)

    @property
    def labels(self) -> Mapping[str, str] | None:
        """Cluster of each participant; None where targets are independent."""
        return self._labels

    def with_labels(self, labels: Mapping[str, str] | None) -> Self:
        """The same analysis with the cluster of each participant."""
        found = self.model_copy()
        found._labels = labels
        return found


class Modelled(AnalysisSpec):
    """Arms and covariates of a model."""

    covariates: Covariates = []
    categorical: Categorical = []
    by: By | Absent = None
    reference: Reference | Absent = None
    alternative: Alternative = "two-sided"
