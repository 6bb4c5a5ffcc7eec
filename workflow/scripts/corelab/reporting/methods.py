"""Methods text written from the resolved config, deviations, dictionary and software versions."""

from __future__ import annotations

import platform
import re
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from corelab import __version__
from corelab.measurement.selection import as_list
from corelab.reporting.attention import is_not_computable
from corelab.reporting.numbers import observed, plural
from corelab.reporting.references import as_text, references_of
from corelab.reporting.results import NOT_COMPUTABLE, Results
from corelab.reporting.vocabulary import criterion_words
from corelab.settings.analyses.base import AnalysisSpec
from corelab.study.columns import (
    ACQUISITION,
    FINDINGS,
    FLOW,
    MEASUREMENTS,
    OVERLAP,
    STATISTICS,
)
from corelab.terms.kinds import kind_words
from corelab.terms.plugins import packages
from corelab.terms.statistics import statistic
from corelab.terms.words import endpoint_words, group_words, in_sentence

SOFTWARE = (
    "corelab",
    "snakemake",
    "numpy",
    "scipy",
    "pandas",
    "nibabel",
    "nilearn",
    "antspyx",
    "SimpleITK",
    "scikit-image",
    "numba",
    "statsmodels",
    "lifelines",
    "pingouin",
    "mirp",
    "nipype",
    "typst",
    "pyreadstat",
)

DICTIONARY = {
    "endpoints/measurements.tsv": MEASUREMENTS,
    "endpoints/overlap.tsv": OVERLAP,
    "endpoints/acquisition.tsv": ACQUISITION,
    "endpoints/flow.tsv": FLOW,
    "statistics/*.tsv": STATISTICS,
    "preflight/findings.tsv": FINDINGS,
}


@dataclass(frozen=True)
class Passage:
    """A heading with its paragraphs and, where it helps, a table of settings."""

    heading: str
    paragraphs: tuple[str, ...]
    settings: tuple[tuple[str, str], ...] = ()


def flatten(block: object, prefix: str = "") -> list[tuple[str, str]]:
    """Settings of a block by their dotted keys, as texts.

    Examples
    --------
    >>> flatten({"core": {"below": 0.3}, "names": ["a", "b"], "steps": [{"n": 1}], "x": None})
    [('core.below', '0.3'), ('names', 'a, b'), ('steps[1].n', '1'), ('x', 'not set')]
    """
    if isinstance(block, Mapping):
        parts = [(f"{prefix}.{key}" if prefix else str(key), item) for key, item in block.items()]
        return [row for key, item in parts for row in flatten(item, key)]
    if isinstance(block, (list, tuple)):
        if any(isinstance(item, (Mapping, list)) for item in block):
            numbered = enumerate(block, start=1)
            return [row for k, item in numbered for row in flatten(item, f"{prefix}[{k}]")]
        return [(prefix, ", ".join(map(str, block)) or "none")]
    return [(prefix, "not set" if block is None else str(block))]


def _images(results: Results) -> Passage:
    kinds = sorted({scan.kind for visit in results.visits for scan in visit.scans})
    drawn = [kind for kind in kinds if not kind.startswith("mask-")]
    text = (
        "Images were read completely, checked for finite values and unit, and brought to the "
        "closest orientation with x to the right, y to the front and z up. Voxels were not "
        "resampled for measuring: volumes are those of the grid on which a lesion was drawn."
    )
    if not results.visits:
        return Passage("Images", ("No image was processed: the study has tables only.",))
    named = ", ".join(kind_words(kind) for kind in drawn) or "none"
    return Passage("Images", (f"Kinds of scan: {named}.", text))


def _registration(results: Results) -> Passage | None:
    block = results.settings.registration
    if not results.normalised:
        return None
    methods: dict[str, int] = {}
    for record in results.normalised.values():
        key = str(record.method or "none")
        methods[key] = methods.get(key, 0) + 1
    words = {"syn": "a deformable fit (SyN)", "affine": "an affine fit", "none": "no fit"}
    used = "; ".join(
        f"{words.get(name, name)} in {plural(number, 'subject')}"
        for name, number in sorted(methods.items())
    )
    template = next((r.template for r in results.normalised.values() if r.template), None)
    space = template.name if template else "MNI152"
    treated: dict[str, int] = {}
    for record in results.normalised.values():
        how = str((record.lesion or {}).get("used") or "none")
        treated[how] = treated.get(how, 0) + 1
    lesion = {
        "mask": "left out of the metric",
        "fill": "filled before fitting",
        "none": "not treated specially",
    }
    message = "; ".join(
        f"{lesion.get(how, how)} in {plural(number, 'subject')}"
        for how, number in sorted(treated.items())
    )
    text = (
        f"Scans of a visit were aligned rigidly to its reference scan, visits to the anchor visit, "
        f"and the anchor to {space} with backend {block.backend} and preset "
        f"{block.preset}: {used}. The lesion was {message}. Template space serves "
        "location only."
    )
    return Passage("Registration", (text,), tuple(flatten(block.plain())))


def _segmentation(results: Results) -> Passage | None:
    parameters: dict[str, str] = {}
    labels: dict[str, int] = {}
    for visit in results.visits:
        for mask in visit.segment.masks if visit.segment else ():
            labels[mask.label] = labels.get(mask.label, 0) + 1
            for key, value in flatten(mask.parameters):
                parameters.setdefault(f"{mask.label}.{key}", value)
    if not labels:
        return None
    message = ", ".join(f"{label} ({plural(n, 'mask')})" for label, n in sorted(labels.items()))
    consensus = results.settings.segmentation.consensus.method
    text = f"The pipeline outlined: {message}. An empty mask: lesion not detected (0 mL)."
    if consensus != "none":
        text += f" Masks of several readers were combined by {consensus}."
    return Passage("Segmentation", (text,), tuple(sorted(parameters.items())))


def _perfusion(results: Results) -> Passage | None:
    if not any(visit.perfuse for visit in results.visits):
        return None
    block = results.settings.perfusion
    core, low = block.core, block.hypoperfusion
    text = (
        f"Core: relative flow below {core.below} of normal tissue, engine {core.engine} (below "
        f"{core.early_below} where onset to CT is at most {core.early_minutes} min). "
        f"Hypoperfused: Tmax above {low.tmax_s_above} s, engine {low.engine}. Other published "
        f"cut-offs were applied to maps of engine {block.registry_engine} and stand as sources "
        "pipeline:<cut-off>."
    )
    return Passage("Perfusion", (text,), tuple(flatten(block.plain())))


#: Keys of an analysis that its sentence names, with the word before each.
_PARTS = {
    "sources": "between ",
    "outcome": "with ",
    "exposure": "with exposure ",
    "endpoint_y": "with ",
    "event_endpoint": "of ",
    "dose": "on ",
    "by": "by ",
}
_DETAILS = {
    "reference": "reference ",
    "method": "method ",
    "models": "model ",
    "covariates": "adjusted for ",
    "quantiles": "quantiles ",
    "population": "population ",
    "repeats": "repeated readings ",
    "family": "multiplicity family ",
    "adjustment": "adjustment ",
}
#: Keys whose values are names of columns, endpoints or outcomes, and of people who gave a method.
_NAMED = ("outcome", "exposure", "endpoint_y", "event_endpoint", "dose", "by", "covariates")
_METHODS = {
    **{name: name.capitalize() for name in ("pearson", "spearman", "kendall", "holm", "hochberg")},
    "bonferroni": "Bonferroni",
    "ancova": "ANCOVA",
    "within": "of the same reader",
}


def _choice(key: str, value: object) -> str:
    if key in _NAMED:
        return in_sentence(endpoint_words(value))
    return _METHODS.get(str(value), str(value))


def analysis_sentence(analysis: AnalysisSpec) -> str:
    """One entry of the plan in words.

    Examples
    --------
    >>> from corelab.settings.analyses import spec_of
    >>> analysis_sentence(spec_of({"id": "a", "type": "correlation", "visit": "day5",
    ...     "endpoint": "infarct_volume", "outcome": "mrs", "method": "spearman"}))
    'Correlation of infarct volume at day5 with mRS; method Spearman.'
    """
    kind, given = analysis.type, analysis.as_given()
    what = in_sentence(endpoint_words(",".join(as_list(analysis.endpoint))))
    text = analysis.kind.title
    if what:
        text += f": {what}" if " of " in text else f" of {what}"
    if analysis.derivation != "value":
        text += f" ({analysis.derivation.replace('_', ' ')} from baseline)"
    if kind == "overlap":
        text += f": {analysis.label}"
    if analysis.visit:
        text += " at " + ", ".join(as_list(analysis.visit))
    for key, word in _PARTS.items():
        if given.get(key):
            before = "of " if key == "outcome" and kind != "correlation" else word
            text += f" {before}" + ", ".join(_choice(key, one) for one in as_list(given[key]))
    for key, word in _DETAILS.items():
        if given.get(key):
            text += f"; {word}" + ", ".join(_choice(key, one) for one in as_list(given[key]))
    return text + "."


#: Attributes of an estimand (ICH E9(R1)) and what is said about missing data, in their order.
ESTIMAND = {
    "treatments": "Treatments",
    "population": "Population",
    "variable": "Variable",
    "intercurrent_events": "Intercurrent events",
    "summary": "Population-level summary",
}
MISSING_DATA = {
    "assumption": "Assumption",
    "handling": "Handling",
    "sensitivity": "Sensitivity analyses",
}


def estimand_rows(analysis: AnalysisSpec) -> list[tuple[str, str]]:
    """The estimand of an analysis and its missing data, attribute by attribute.

    Examples
    --------
    >>> estimand_rows(AnalysisSpec(id="a", type="", missing_data="MMRM", estimand={"variable":
    ...     "change", "intercurrent_events": [{"event": "death", "strategy": "composite"}]}))
    [('Variable', 'change'), ('Intercurrent events', 'death: composite'), ('Missing data', 'MMRM')]
    """
    rows: list[tuple[str, str]] = []
    for key, heading, names in (
        ("estimand", "Estimand", ESTIMAND),
        ("missing_data", "Missing data", MISSING_DATA),
    ):
        given = analysis.as_given().get(key)
        if isinstance(given, Mapping):
            prefix = "" if key == "estimand" else f"{heading}: "
            rows += [
                (prefix + (word.lower() if prefix else word), _attribute(given[name]))
                for name, word in names.items()
                if given.get(name)
            ]
        elif given:
            rows.append((heading, str(given)))
    return rows


def _attribute(value: Any) -> str:
    parts = [
        f"{part['event']}: {part['strategy']}" if isinstance(part, Mapping) else str(part)
        for part in as_list(value)
    ]
    return "; ".join(parts)


def _estimands(results: Results) -> Passage | None:
    texts = [(entry.id, estimand_rows(entry)) for entry in results.analyses]
    texts = [(name, rows) for name, rows in texts if rows]
    if not texts:
        return None
    paragraphs = tuple(
        f"{name}. " + " ".join(f"{word}: {text.rstrip('.')}." for word, text in rows)
        for name, rows in texts
    )
    return Passage("Estimands and missing data", paragraphs)


def definitions(results: Results) -> list[tuple[str, str]]:
    """Every statistic with the definitions under which it was computed, as its rows state them."""
    rows = results.all_statistics
    found: dict[str, dict[str, str]] = {}
    for name, method in zip(rows["statistic"], rows["method"], strict=True):
        if isinstance(method, str) and method:
            # Definitions that differ in their numbers alone (degrees of freedom) are one.
            found.setdefault(name, {}).setdefault(re.sub(r"\d[\d.e+-]*", "#", method), method)
    return [
        (statistic(name).words, " | ".join(texts.values())) for name, texts in sorted(found.items())
    ]


def methods_text(results: Results) -> list[Passage]:
    """Methods of the study, written from its resolved config and its records."""
    passages: list[Passage | None] = [
        _images(results),
        _registration(results),
        _segmentation(results),
        _perfusion(results),
    ]
    measurement = results.settings.measurement
    text = (
        "Every number is one row of endpoints/measurements.tsv with its subject, visit, source, "
        "repeat, region, unit, status and scans. Missing or non-evaluable values stay in the table "
        "with a reason; duplicates are never averaged."
    )
    passages.append(Passage("Measurement", (text,), tuple(flatten(measurement.plain()))))
    if results.analyses:
        plan = tuple(
            (
                f"{entry.id} ({entry.objective or 'objective not stated'})",
                analysis_sentence(entry),
            )
            for entry in results.analyses
        )
        text = (
            f"The plan has {plural(len(plan), 'analysis', 'analyses')}; its fingerprint is "
            f"{results.fingerprint}. Intervals are 95 % unless their row says otherwise; p values "
            "are two-sided. Statistics with a conclusion were computed twice, by independent "
            "programs; both values are in the tables. Missing values were not imputed unless an "
            "analysis says so."
        )
    else:
        plan, text = (), "No analysis was planned; the results are measurements only."
    passages.append(Passage("Analysis plan", (text,), plan))
    passages.append(_estimands(results))
    return [passage for passage in passages if passage is not None]


def _criterion_text(criterion: str, value: object, limit: object) -> str:
    name, unit, direction = criterion_words(criterion)
    text = f"{name} {observed(value)} {unit}".strip()
    return f"{text}, charter {direction} {observed(limit)}".replace("  ", " ")


def deviations(results: Results) -> list[tuple[str, str, str]]:
    """(kind, what, detail) of everything that was planned and did not happen as planned."""
    found: list[tuple[str, str, str]] = []
    rows = results.all_statistics
    done = set(rows["analysis_id"])
    planned = {entry.id for entry in results.analyses}
    for entry in results.analyses:
        if entry.id not in done:
            found.append(("analysis", entry.id, "planned, no results"))
    if len(rows):
        failed: dict[tuple[str, str], list[str]] = {}
        for row in rows[is_not_computable(rows)].itertuples():
            reason = str(row.note).removeprefix(NOT_COMPUTABLE).lstrip(": ")
            part = f" ({group_words(row.group)})" if row.group != "all" else ""
            names = failed.setdefault((str(row.analysis_id), reason), [])
            names.append(statistic(row.statistic).words + part)
        for (name, reason), names in failed.items():
            what = "; ".join(dict.fromkeys(names))
            found.append(("statistic", f"{name}: {what}", f"not computable: {reason}"))
        for extra in sorted(map(str, done - planned)):
            found.append(("analysis", extra, "not in the plan: exploratory"))
    outside = results.acquisition[results.acquisition["verdict"] == "fail"]
    for row in outside.itertuples():
        found.append(
            (
                "acquisition",
                f"{row.participant_id}, {row.visit}, {kind_words(row.kind)}",
                _criterion_text(str(row.criterion), row.value, row.limit),
            )
        )
    values = results.measurements
    gone = values[values["status"].isin(["missing", "failed", "excluded"])]
    for (subject, visit, status, why), group in gone.fillna({"reason": ""}).groupby(
        ["participant_id", "visit", "status", "reason"], sort=True
    ):
        endpoints = endpoint_words(",".join(sorted(set(group["endpoint"]))))
        detail = f"{status} ({why})" if why else str(status)
        found.append(("value", f"{subject}, {visit}", f"{endpoints}: {detail}"))
    return found


def methods_as_text(results: Results) -> str:
    """Methods and references as plain text, to copy into a manuscript or a study report."""
    parts = [results.title, ""]
    for passage in methods_text(results):
        parts += [passage.heading, *passage.paragraphs, ""]
    parts.append("References")
    parts += [f"{k}. {as_text(one)}" for k, one in enumerate(references_of(results), start=1)]
    versions = ", ".join(f"{name} {number}" for name, number in software_versions())
    return "\n".join([*parts, "", f"Software: {versions}.", ""])


def software_versions() -> list[tuple[str, str]]:
    """Versions of the programs that computed the results (as installed)."""
    found = [("Python", platform.python_version())]
    for name in SOFTWARE:
        try:
            found.append((name, version(name)))
        except PackageNotFoundError:
            if name == "corelab":
                found.append((name, str(__version__)))
    return found + list(packages().items())
