"""Block ``reading`` of the config."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import Field

from corelab.settings.base import (
    DATE,
    UNIQUE,
    Absent,
    Count,
    Fraction,
    NotNegative,
    Number,
    OneOrMore,
    Positive,
    Settings,
    Share,
    Text,
    Texts,
    one_of_keys,
    pattern,
)

#: Rates of a read that the charter can put a limit on.
RATES = (
    *("double_read_agreement", "adjudication_rate", "adjudication_done", "adjudicator_agreement"),
    *("reader_disagreement_index", "intra_reader_difference", "reference_pass_rate"),
)


class AdjudicationRule(Settings):
    """When two reads of an endpoint are discordant, and what then counts."""

    model_config = one_of_keys("absolute_above", "relative_above", "grades_differ", rule="anyOf")
    endpoint: Text
    """Endpoint that is read twice"""
    method: Literal["either_of_two", "independent_third", "consensus"] | Absent = None
    """The adjudicator chooses one of the reads, or gives a value of his own, or the readers (three)
    settle it together, as a read with the role consensus; where readers agree it is the mean of
    their values
    """
    readers: Annotated[int, Field(ge=2)] | Absent = None
    """How many readers a case needs; default 3 for consensus, else 2"""
    absolute_above: NotNegative | Absent = None
    """Discordant above this difference, unit of the endpoint"""
    relative_above: NotNegative | Absent = None
    """Discordant above this difference over the mean of both reads, fraction"""
    combine: Literal["any", "all"] | Absent = None
    """Whether passing any limit or all limits is discordant; default any"""
    grades_differ: bool | Absent = None
    """Values are grades, and any difference is discordant"""
    repeat: OneOrMore | Absent = None
    """Which repeated read counts; default 1"""


class Panel(Settings):
    """Assessors of the events sheet who assess independently: unanimous calls stand, others need a
    consensus row.
    """

    assessors: Texts = ()
    """Names in the column assessor; empty: no panel"""
    consensus: str = "consensus"
    """Name of the consensus in the column assessor"""
    window_days: NotNegative = 0
    """Dates within this many days count as the same"""


class ReadingSample(Settings):
    """Random sample of subjects for central reading, stratified and seeded; default everybody."""

    share: Share
    """Share of subjects, rounded up; at least one of each stratum"""
    strata: Annotated[Texts, UNIQUE] | Absent = None
    """Participants columns whose combinations are the strata"""


class ReadingWindow(Settings):
    """Window of a visit in days from the baseline scan."""

    from_day: Number
    """First day, days"""
    to_day: Number
    """Last day, days"""


class ReviewConduct(Settings):
    """What the imaging charter says about the review; what is not said is listed in
    reading/conduct.tsv.
    """

    mode: Literal["prospective", "retrospective"] | Absent = None
    """Whether images are reviewed as they come or afterwards"""
    primary: bool | Absent = None
    """Whether the central read gives the primary endpoint"""
    timing: (
        Literal[
            "retrospective_batch", "real_time_eligibility", "real_time_collection", "real_time_read"
        ]
        | Absent
    ) = None
    """When images are collected and read"""
    criteria: str | Absent = None
    """Criteria of assessment with their version"""
    criteria_justification: str | Absent = None
    """Why criteria of one's own are used"""
    unblinding: str | Absent = None
    """Rule of unblinding in a real-time design"""
    quality_failure: str | Absent = None
    """What is done where the quality control of the review fails"""


class RereviewEvidence(Settings):
    """The four evidences (the third of two halves), each with its document or name and date."""

    before_database_lock: str | Absent = None
    """That the trial's database was not locked yet"""
    charter_condition: str | Absent = None
    """Which condition of the charter is met"""
    confirmed_by_sponsor: str | Absent = None
    """That the sponsor confirms the loss of credibility"""
    confirmed_by_core_laboratory: str | Absent = None
    """That the core laboratory confirms it too"""
    regulator_consulted: str | Absent = None
    """That the regulator was consulted"""


class Rereview(Settings):
    """Reading again after the lock (inputs.rereads); a sensitivity analysis beside the original,
    INVALID without its reason and evidences.
    """

    reason: (
        Literal["loss_of_credibility", "charter_condition", "discordance", "unfavourable"] | Absent
    ) = None
    """Why; discordance and an unfavourable result are no reasons and are refused"""
    evidence: RereviewEvidence | Absent = None


#: Presentations of images.
Presentation = Literal[
    "time_sequential", "simultaneous", "simultaneous_random_time", "single_time_point",
    "hybrid_random",
]  # fmt: skip


class ReadingSettings(Settings):
    """Central reading by blinded readers; what the imaging charter fixes."""

    readers: Annotated[
        tuple[Annotated[str, pattern(r"^[^\x00-\x1f/\\,]{1,64}$")], ...], UNIQUE
    ] = ()
    """Readers who get a package; default those of the reads sheet, else reader-1 and reader-2"""
    presentation: Presentation = "single_time_point"
    """How images are presented"""
    seed: Count = 20260101
    """Seed of the presentation orders; each reader has an order of his own"""
    repeat_share: Fraction = 0
    """Share of subjects shown to every reader a second time"""
    endpoints: tuple[Text, ...] = ()
    """Endpoints on the read form; default those of the reads sheet or of the adjudication rules,
    else the volumes of the labels
    """
    kinds: Texts = ()
    """Kinds of scan in the package; default all images"""
    hidden_columns: Texts = ()
    """Further participants columns that packages must not hold; arm, dose and site always are"""
    adjudication: tuple[AdjudicationRule, ...] = ()
    """Adjudication rules of the charter, one per endpoint; without a rule only equal reads are
    concordant
    """
    limits: Mapping[
        Annotated[str, Field(pattern=f"^({'|'.join(RATES)})_(min|max)$")],
        Annotated[Fraction, Field(description="Limit")],
    ] = {}
    """Limits of the charter on rates, <statistic>_min and <statistic>_max, fractions"""
    certified: Mapping[str, Annotated[str, pattern(DATE)]] = {}
    """Reader -> date (ISO 8601) from which he is certified; given, a read of another reader or an
    earlier one is an error
    """
    reads_per_day: OneOrMore | None = None
    """More cases of one reader on one day are reported"""
    panel: Panel = Panel.model_construct()
    change_log: str | None = None
    """Log of changes after the lock (JSON lines); default <results>/reading/change_log.jsonl"""
    locked_at: Annotated[str, pattern(DATE)] | None = None
    """Time of the lock, ISO 8601 UTC; given, the read is locked as it stands, else once every case
    is decided and confirmed
    """
    locked_by: str | None = None
    """Who locks; stands in the lock"""
    lock_sha256: Annotated[str, pattern(r"^[0-9a-f]{64}$")] | None = None
    """Hash of the lock as noted when it was made; given, another lock is INVALID"""
    signing_key: str | None = None
    """File of 32 bytes or more, kept outside the study; given, the lock is signed with it
    (HMAC-SHA256) and the signature verified
    """
    final_reads: Literal["primary", "beside"] = "primary"
    """What analyses that name no source use where reads are adjudicated: the final reads (primary),
    or as without them (beside); readers' own values are kept either way
    """
    forms: Mapping[str, Text] = {}
    """Reader -> form.tsv as he sent it back; the target read_forms makes rows of the reads sheet of
    them
    """
    not_evaluable_reasons: Annotated[tuple[Text, ...], UNIQUE] = ()
    """Closed list of reasons for which a reader may give no value; default any text"""
    sample: ReadingSample | None = None
    stability_parts: Annotated[int, Field(ge=1, le=20)] = 3
    """Consecutive parts of a reader's sequence for p-chart and reference cases"""
    turnaround_days: Positive | None = None
    """Longest time from receipt of the images to the confirmed read, days"""
    visit_windows: Mapping[str, ReadingWindow] = {}
    """Visit -> its window in days from the baseline scan (acquired_at)"""
    charter: ReviewConduct = ReviewConduct.model_construct()
    quality_readers: Annotated[Texts, UNIQUE] = ()
    """Readers for quality control"""
    rereview: Rereview | None = None
