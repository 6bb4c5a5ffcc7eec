"""Reading a results folder, what needs attention, and blinding."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
from fabricated_study import HOSTILE, fabricated_results, fabricated_study, tables_only

from corelab.provenance.products import read_table, write_table
from corelab.records.images import Mask, Scan
from corelab.records.perfusion import Gate, Perfused
from corelab.reporting import attention as att
from corelab.reporting.methods import analysis_sentence, deviations, methods_text
from corelab.reporting.results import Visit
from corelab.settings.config import Config
from corelab.study.columns import FLOW
from corelab.study.mask_flags import FLAGS


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    return fabricated_results(*fabricated_study(tmp_path_factory.mktemp("results")))


def test_counts_are_those_of_the_fabricated_study(results):
    found = att.counts(results)
    assert (found.participants, found.with_images, found.visits) == (36, 6, 11)
    assert (found.unavailable, found.failed_scans, found.out_of_charter) == (3, 2, 1)


def test_attention_lists_every_planted_fault_most_serious_first(results):
    items = att.attention(results)
    severities = [att.SEVERITIES.index(item.severity) for item in items]
    assert severities == sorted(severities)
    text = "\n".join(item.text for item in items)
    assert "the file ends early (gzip)" in text
    assert "slice thickness 6.5 mm, charter at most 5" in text
    assert "motion 3.4 mm (limit < 3)" in text
    assert "visit day5 not done" in text
    assert "Analysis growth-by-dose: 1 statistic not computable (the data do not bend)" in text
    assert att.flagged_subjects(results) == {"S-02": "error", "S-05": "error", "S-03": "warning"}


def test_a_doubtful_brain_mask_and_a_cut_off_brain_need_attention_and_are_on_the_desk(results):
    from corelab.reporting.review import sheets

    who = results.visits[0]
    rows = [
        {"participant_id": who.participant_id, "visit": who.visit, "kind": "dwi", "verdict": "fail"}
        | {"criterion": criterion, "value": value, "limit": limit, "reason": reason}
        for criterion, value, limit, reason in (
            ("brain_mask", "739", "900 to 1800 mL", "the brain mask (from dwi, 739 mL) is odd"),
            ("brain_in_field", "cut superior", "whole", "the field of view ends within the brain"),
        )
    ]
    acquisition = pd.concat([results.acquisition, pd.DataFrame(rows)], ignore_index=True)
    found = replace(results, acquisition=acquisition)
    texts = {item.text for item in att.attention(found) if item.severity == "warning"}
    reported = [text for text in texts if rows[0]["reason"] in text or rows[1]["reason"] in text]
    assert len(reported) == 2 and not any("charter" in text for text in reported)
    (sheet,) = [
        one
        for one in sheets(found, {})
        if (one.participant_id, one.visit) == (who.participant_id, who.visit)
    ]
    assert set(reported) <= set(sheet.concerns)


def test_what_was_found_stands_on_its_own_subject_and_visit_only(results):
    from corelab.reporting.review import sheets

    def visit(name, time, value):
        gate = Gate("drift_share", value, "pass <= 1; fail outside any", "warn", "")
        return Visit(name, time, perfuse=Perfused(name, time, gates=(gate,)))

    found = replace(
        results, visits=(visit("A", "v1", 1.25), visit("A", "v2", 1.5), visit("B", "v1", 1.75))
    )
    (line,) = [one for one in att.attention(found) if "drift" in one.text]
    assert line.text == "Perfusion series: drift share 1.25, 1.5, 1.75 (warning above 1)"
    assert line.places == (("A", "v1"), ("A", "v2"), ("B", "v1"))
    desk = {
        (sheet.participant_id, sheet.visit): [text for text in sheet.concerns if "drift" in text]
        for sheet in sheets(found, {})
    }
    assert desk == {
        ("A", "v1"): ["Perfusion series: drift share 1.25 (warning above 1)"],
        ("A", "v2"): ["Perfusion series: drift share 1.5 (warning above 1)"],
        ("B", "v1"): ["Perfusion series: drift share 1.75 (warning above 1)"],
    }


def test_an_error_of_the_submission_needs_attention(results):
    row = {"severity": "error", "dataset": "ADARD", "variable": "ANALID", "records": 27}
    row |= {"rule": "one record per key", "value": "repeated key"}
    found = replace(results, conformance=pd.DataFrame([row]))
    (line,) = [one for one in att.attention(found) if one.topic == "conformance"]
    assert line.severity == "error" and "repeated key (27 records)" in line.text


def with_flags(results, number, *masks):
    """The results with these masks (label, status and quality) in one visit's segmentation."""
    visit = results.visits[number]
    made = tuple(Mask(**{"source": "pipeline", **mask}) for mask in masks)
    segment = replace(visit.segment, masks=made)
    visits = list(results.visits)
    visits[number] = replace(visit, segment=segment)
    return replace(results, visits=tuple(visits)), visit


def test_each_flag_needs_attention_once_for_its_visit_and_is_on_its_desk_sheet(results):
    from corelab.reporting.review import sheets

    number = next(
        n for n, v in enumerate(results.visits) if len(results.visits_of(v.participant_id)) > 1
    )
    quality = {"flags": ["adc_not_low", "no_t1", "intensities_shifted"], "adc_not_low_ml": 3.21}
    one = {"label": "infarct", "status": "ok", "quality": quality}
    found, visit = with_flags(results, number, one, {**one, "source": "pipeline:adc620"})
    before = att.attention(results)
    (item,) = [item for item in att.attention(found) if item not in before]
    assert item.text == "Infarct: bright on DWI without a low ADC (3.2 mL)"
    assert (item.severity, item.places) == ("warning", ((visit.participant_id, visit.visit),))
    assert att.flagged_subjects(found)[visit.participant_id] in ("warning", "error")
    assert [
        (sheet.participant_id, sheet.visit)
        for sheet in sheets(found, {})
        if item.text in sheet.concerns
    ] == [(visit.participant_id, visit.visit)]


@pytest.mark.parametrize(("left_out_ml", "lines"), [(0.4, 0), (2.0, 1)])
def test_blood_candidates_need_attention_above_one_millilitre(results, left_out_ml, lines):
    quality = {"flags": ["blood_candidates"], "candidates_unexplained_ml": left_out_ml}
    found, _ = with_flags(results, 0, {"label": "haematoma", "status": "ok", "quality": quality})
    assert sum("may be blood" in item.text for item in att.attention(found)) == lines


def test_every_warning_flag_is_a_line_and_no_note_is(results):
    quality = {"flags": sorted(FLAGS)}
    found, _ = with_flags(results, 0, {"label": "infarct", "status": "ok", "quality": quality})
    for name, flag in FLAGS.items():
        lines = [item for item in att.attention(found) if flag.title in item.text]
        assert len(lines) == (flag.severity == "warning"), name


def test_a_brain_mask_that_the_acquisition_table_reports_is_no_second_line(results):
    quality = {"flags": ["brain_cut_off", "brain_mask_doubtful"]}
    found, visit = with_flags(results, 0, {"label": "infarct", "status": "ok", "quality": quality})
    row = {"participant_id": visit.participant_id, "visit": visit.visit, "kind": "dwi"}
    row |= {"criterion": "brain_mask", "verdict": "fail", "value": "739", "reason": "739 mL"}
    acquisition = pd.concat([results.acquisition, pd.DataFrame([row])], ignore_index=True)
    more = replace(found, acquisition=acquisition)
    titles = [FLAGS[name].title for name in quality["flags"]]
    for given, number in ((found, 2), (more, 0)):
        texts = [item.text for item in att.attention(given)]
        assert sum(any(title in text for title in titles) for text in texts) == number
    assert any("739 mL" in item.text for item in att.attention(more))


def test_a_warning_of_a_scan_needs_attention(results):
    who = results.visits[0]
    words = "qform and sform are mirror images of each other"
    scan = Scan("s", "dwi", warnings=(words,))
    prepare = replace(who.prepare, scans=(*who.scans, scan))
    warned = replace(results, visits=[replace(who, prepare=prepare), *results.visits[1:]])
    (item,) = [item for item in att.attention(warned) if words in item.text]
    assert item.severity == "warning" and item.subjects == (who.participant_id,)


def test_a_warning_of_a_fit_to_the_template_needs_attention(results):
    subject = sorted(results.normalised)[0]
    words = "part of the ventricles' wall lies 5.0 mm off the template's"
    changed = replace(results.normalised[subject], warning=words)
    warned = replace(results, normalised={**results.normalised, subject: changed})
    (item,) = [item for item in att.attention(warned) if words in item.text]
    assert item.severity == "warning" and item.subjects == (subject,)


def test_numbers_of_tables_are_read_to_the_last_digit(tmp_path):
    folder, config, people = fabricated_study(tmp_path)
    path = folder / "endpoints" / "overlap.tsv"
    frame = read_table(path, numeric=["value"])
    # The fast parser of Pandas reads ...104.
    frame["value"] = 0.9368491025925105
    write_table(frame, path, list(frame))
    assert set(fabricated_results(folder, config, people).overlap["value"]) == {0.9368491025925105}


def test_flow_adds_up_and_is_chained_whatever_the_order_of_its_rows(tmp_path):
    folder, config, people = fabricated_study(tmp_path)
    steps = att.flow_steps(fabricated_results(folder, config, people))
    assert "file there" not in str(steps) and "not there" not in str(steps)
    for step in steps:
        assert step.n_in - step.n_out == sum(number for _, number in step.exclusions)
    frame = pd.read_csv(folder / "endpoints/flow.tsv", sep="\t", keep_default_na=False)
    write_table(frame.iloc[::-1], folder / "endpoints/flow.tsv", FLOW, sort=False)
    assert att.flow_steps(fabricated_results(folder, config, people)) == steps


def test_planned_analysis_without_rows_is_an_error_and_a_deviation(tmp_path):
    folder, config, people = fabricated_study(tmp_path)
    config["analyses"].append({"id": "lost", "type": "sample_size", "endpoint": "infarct_volume"})
    found = fabricated_results(folder, config, people)
    assert any(
        "Planned analysis lost" in i.text and i.severity == "error" for i in att.attention(found)
    )
    assert ("analysis", "lost", "planned, no results") in deviations(found)


def test_statistics_outside_the_plan_are_called_exploratory(tmp_path):
    folder, config, people = fabricated_study(tmp_path)
    config["analyses"] = [a for a in config["analyses"] if a["id"] != "masks"]
    found = fabricated_results(folder, config, people)
    assert ("analysis", "masks", "not in the plan: exploratory") in deviations(found)


def test_study_with_one_table_only(tmp_path):
    found = fabricated_results(*tables_only(tmp_path))
    assert found.visits == () and found.maps == () and found.certificate is None
    assert att.counts(found).participants == 2
    assert att.flow_steps(found) == []
    assert methods_text(found)[0].paragraphs == (
        "No image was processed: the study has tables only.",
    )


def test_empty_folder_is_a_study_without_anything(tmp_path: Path):
    people = pd.DataFrame({"participant_id": ["a"]})
    found = fabricated_results(
        tmp_path, {"study": {"id": "x"}, "inputs": {"participants": "p.tsv"}}, people
    )
    assert found.measurements.empty and att.attention(found) == []


def test_blinding_replaces_arms_and_withholds_doses(tmp_path):
    folder, config, people = fabricated_study(tmp_path, blinded=True)
    found = fabricated_results(folder, config, people)
    assert set(found.participants["arm"]) == {"Group A", "Group B", "Group C"}
    assert "dose" not in found.participants
    assert found.tables.exposures.empty
    kept = found.all_statistics
    assert not {"growth-by-dose", "growth-exposure"} & set(kept["analysis_id"])
    assert not kept["group"].fillna("").str.contains("placebo|high|low").any()
    assert found.fingerprint == Config.model_validate(config).plan_fingerprint


def test_hostile_id_stays_text(results):
    assert HOSTILE in results.subjects


def test_every_analysis_of_the_plan_becomes_a_sentence(results):
    for entry in results.analyses:
        text = analysis_sentence(entry)
        assert text.endswith(".") and "None" not in text
    by_id = {a.id: analysis_sentence(a) for a in results.analyses}
    assert by_id["growth-by-arm"] == (
        "Comparison of arms: infarct growth at day5 by arm; reference placebo; method ANCOVA; "
        "adjusted for age; multiplicity family primary."
    )


def test_methods_follow_the_config(results, tmp_path):
    text = "\n".join(t for p in methods_text(results) for t in p.paragraphs)
    assert "below 0.3" in text and "Tmax above 6.0 s" in text and "engine osvd" in text
    assert "an affine fit in 6 subjects" in text
    folder, config, people = fabricated_study(tmp_path)
    config["perfusion"]["core"]["below"] = 0.38
    changed = methods_text(fabricated_results(folder, config, people))
    assert "below 0.38" in "\n".join(t for p in changed for t in p.paragraphs)
