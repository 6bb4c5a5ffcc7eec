"""The page of the first subject whose images are done: a result to look at while the rest runs.

It is the subject's page of the report, from the subject's own records alone. The report writes it
again, with reads, statistics and links; the pictures and volumes that it links to are drawn here
and stay.
"""

from __future__ import annotations

from pathlib import Path

from corelab.measurement.collect import collect_measurements
from corelab.measurement.selection import Tables
from corelab.pharmacodynamics.exclusion_sensitivity import SENSITIVITY
from corelab.provenance.exhibits import Exhibit
from corelab.provenance.products import write_json
from corelab.records.measured import Measured
from corelab.records.subjects import Normalised
from corelab.reporting import viewer
from corelab.reporting.results import Results, blind, empty_table, read_visits, subject_page
from corelab.reporting.subject import write_subject
from corelab.study.columns import FINDINGS, FLOW
from corelab.study.model import Study
from corelab.study.naming import subject_entity

WORDS = (
    "The study is still being computed. This page has what was measured on the images of this "
    "subject; the report will replace it, with reads, statistics and links to the other pages."
)


def subject_results(study: Study, measured: Measured) -> Results:
    """What is known of one subject before the tables of the study are made."""
    name = measured.participant_id
    tables = collect_measurements(
        [measured],
        reads=None,
        supplied=None,
        listed=[],
        visit_order=study.visit_order,
        baseline=study.baseline,
        settings=study.settings.measurement,
    )
    place = study.folder / "derivatives" / subject_entity(name)
    known = Results(
        folder=study.folder,
        settings=study.settings,
        tables=Tables(
            measurements=tables["measurements"],
            participants=study.sheets["participants"],
            visit_order=study.visit_order,
            baseline=study.baseline,
            grades=study.settings.grades,
        ),
        acquisition=tables["acquisition"],
        flow=empty_table(FLOW),
        overlap=tables["overlap"],
        statistics={},
        findings=empty_table(FINDINGS),
        certificate=None,
        visits=read_visits(study.folder, study.visit_order, subject_entity(name)),
        normalised={name: Normalised.read(place / "normalise.json")},
        maps=(),
        sensitivity=empty_table(SENSITIVITY),
        exhibits=(Exhibit(section="images", title="", banner=WORDS),),
    )
    return blind(known) if known.study.blinded else known


def write_first_page(study: Study, measured: Measured, record: str | Path) -> Path:
    """Write the page of a subject into the report's folder; its path.

    Parameters
    ----------
    study
        The whole config, and the participants.
    measured
        What was measured on the subject's images.
    record
        JSON that names the subject and the page.
    """
    results, report = subject_results(study, measured), Path(record).parent
    viewer.write_program(report)
    write_subject(results, measured.participant_id, report)
    name = subject_page(measured.participant_id)
    write_json({"participant_id": measured.participant_id, "page": name}, record)
    return report / name
