"""What the Snakefile computes about a study: its visits, targets, limits and messages."""

from types import SimpleNamespace

import pandas as pd
import pytest
import yaml
from snakemake.settings.types import MaxJobsPerTimespan, SchedulingSettings
from workflow_runs import write_study

from corelab.provenance import ledger
from corelab.provenance.ledger import Failure
from corelab.study.loading import load_study
from corelab.study.model import read_study
from corelab.workflow import session as session_module
from corelab.workflow.cohort import cohort_of, without_failed
from corelab.workflow.costs import COSTS, Limits
from corelab.workflow.inputs import sheet_files
from corelab.workflow.session import Session
from corelab.workflow.targets import Targets


@pytest.fixture
def study(tmp_path):
    for name in ("a_ctp", "a_dwi", "b_dwi"):
        (tmp_path / f"{name}.nii.gz").write_bytes(b"0" * 1000)
    return load_study(
        yaml.safe_load(
            write_study(
                tmp_path,
                {"visits": {"order": ["v1", "v2"], "baseline": "v1"}},
                participants="participant_id|site\n1|a\n2|b",
                scans="""participant_id|visit|kind|path
                         1|v1|ctp|a_ctp.nii.gz
                         1|v1|dwi|a_dwi.nii.gz
                         1|v2|dwi|b_dwi.nii.gz
                         2|v1|dwi|gone.nii.gz""",
            ).read_text()
        )
    )


@pytest.fixture
def targets(study):
    return Targets(study, cohort_of(study))


def test_records_follow_visits_and_perfusion(targets):
    folder = targets.folder
    assert targets.records("perfuse") == [f"{folder}/derivatives/sub-1/ses-v1/perfuse.json"]
    assert len(targets.records("prepare")) == 3
    assert targets.records("normalise") == [
        f"{folder}/derivatives/{subject}/normalise.json" for subject in ("sub-1", "sub-2")
    ]
    assert [path.split("sub-1/")[1] for path in targets.subject_records("sub-1")] == [
        *("ses-v1/prepare.json", "ses-v1/segment.json", "ses-v1/perfuse.json"),
        *("ses-v2/prepare.json", "ses-v2/segment.json"),
    ]


def test_targets_begin_with_the_preflight_and_end_there_for_a_study_with_errors(targets, tmp_path):
    assert targets.targets("report")[0].endswith("preflight/passed.json")
    assert len(targets.targets("endpoints", "statistics")) > 20
    assert targets.preflight == []
    config = write_study(tmp_path / "wrong", {}, participants="participant_id|arm\n1|a\n1|b")
    wrong = load_study(yaml.safe_load(config.read_text()))
    stopped = Targets(wrong, cohort_of(wrong))
    assert (
        stopped.targets("report") == stopped.preflight == [stopped.under("preflight/passed.json")]
    )


def test_quarantined_files_upstream_are_requested_again(targets, study):
    record = targets.stage("segment", "sub-1", "ses-v1")
    assert record not in targets.requested("report", "endpoints")
    ledger.quarantine([record], study.folder)
    assert record in targets.requested("endpoints")
    assert record not in targets.targets("endpoints")


def test_a_failed_job_of_a_participant_excludes_all_visits(targets):
    job = Failure("sub-1", "", "normalise", "no memory", "x.log", "x.json")
    cohort = without_failed(targets.cohort.visits, targets.cohort.subjects, [job])
    assert list(cohort.visits) == [("sub-2", "ses-v1")] and list(cohort.subjects) == ["sub-2"]
    assert cohort.excluded_ids["1|v2"] == "the job normalise failed: no memory"
    assert cohort.failed_jobs[0]["subject"] == "1" and cohort.failed_jobs[0]["visit"] == ""


def test_limits_grow_with_scans_and_attempts(study, targets):
    limits = Limits(study, targets.cohort)
    visit = SimpleNamespace(subject="sub-1", session="ses-v1")
    person = SimpleNamespace(subject="sub-1")
    assert limits.scans_mb(visit) == pytest.approx(0.002)
    assert limits.scans_mb(person) == pytest.approx(0.003)
    first = limits.memory_of("prepare")(visit, attempt=1)
    assert first == int(COSTS["prepare"].mb + COSTS["prepare"].mb_per_mb * 0.002)
    assert limits.memory_of("prepare")(visit, attempt=2) == 2 * first
    assert limits.runtime_of("normalise")(person, attempt=1) == 60


def test_a_job_reads_the_part_of_the_study_that_its_rule_names(study):
    read = read_study(study.part("acquisition", sheets=("scans",)))
    assert read.config["acquisition"] == study.config["acquisition"]
    assert "perfusion" not in read.config, "an edit of another block reruns nothing"
    assert set(read.sheets) == {"scans"} and read.scans == study.scans
    assert read.visit_order == study.visit_order and read.baseline == study.baseline
    assert read.folder == study.folder


def test_a_job_converts_units_as_the_whole_study_does(tmp_path):
    study = load_study(
        yaml.safe_load(
            write_study(
                tmp_path,
                {"recode": {"nihss": {"dead": 42}}},
                participants="participant_id|nihss\n1|3\n2|dead",
                reads="""participant_id|visit|endpoint|reader|value|unit
                         1|v1|midline_shift|r1|0.3|cm""",
                measurements="""participant_id|visit|endpoint|source|value|unit
                                1|v1|midline_shift|other|2|mm
                                2|v1|midline_shift|other|3|mm""",
            ).read_text()
        )
    )
    read = read_study(study.part(sheets=("participants", "reads")))
    assert read.sheets["reads"][["value", "unit"]].to_numpy().tolist() == [["3", "mm"]]
    for name in ("participants", "reads"):
        pd.testing.assert_frame_equal(read.sheets[name], study.sheets[name])


def test_parameters_hold_existing_sheets(study):
    assert [path.rsplit("/", 1)[1] for path in sheet_files(study, "participants", "reads")] == [
        "participants.tsv"
    ]


class Log:
    def __init__(self):
        self.lines, self.handlers = [], []

    def info(self, text):
        self.lines += text.splitlines()

    error = warning = info

    def addHandler(self, handler):
        self.handlers.append(handler)

    removeHandler = addHandler


def _session(targets, monkeypatch, *rules):
    log = Log()
    monkeypatch.setattr(session_module, "logger", log)
    jobs = [
        SimpleNamespace(rule=SimpleNamespace(name=name), is_norun=False, output=[])
        for name in rules
    ]
    workflow = SimpleNamespace(
        is_main_process=True,
        rules=[],
        dag=SimpleNamespace(needrun_jobs=lambda: jobs, jobs=jobs),
        resource_settings=SimpleNamespace(nodes=None, cores=2),
        config_settings=SimpleNamespace(config={"a": 1, "b": {}}, configfiles=["c.yaml"]),
        executor_settings=None,
    )
    return Session(targets, workflow, lambda script: "0", []), log


def test_a_run_says_what_it_will_do_and_how_to_continue(targets, monkeypatch):
    session, log = _session(targets, monkeypatch, "prepare", "prepare", "segment")
    session.on_start()
    assert log.lines[0].startswith("Study s: 2 participants, 4 scans of 2 participants at 3 visits")
    assert log.lines[1].startswith("Jobs: 3 to do, 0 done")
    log.lines.clear()
    session.on_error()
    assert log.lines[-1].endswith("finished jobs are not repeated.")
    assert session.command() == (["c.yaml"], {"a": "1"})


@pytest.mark.parametrize("local", [True, False])
def test_only_on_a_cluster_the_scheduler_limits_submissions(targets, monkeypatch, local):
    session, _ = _session(targets, monkeypatch, "prepare")
    session.workflow.dag.forcefiles = set()
    session.workflow.local_exec = local
    settings = session.workflow.scheduling_settings = SchedulingSettings(
        max_jobs_per_timespan=MaxJobsPerTimespan(100)
    )
    assert session.given(["scan.nii.gz"]) == ["scan.nii.gz"]
    assert (settings.max_jobs_per_timespan is None) == local


def test_a_query_prints_nothing_of_its_own(targets, monkeypatch):
    session, log = _session(targets, monkeypatch, "status")
    session.on_start()
    session.on_success()
    session.on_error()
    assert log.lines == []


def test_two_runs_do_not_share_a_folder(targets, monkeypatch):
    session, _ = _session(targets, monkeypatch, "prepare")
    session.on_start()
    other, _ = _session(targets, monkeypatch, "prepare")
    with pytest.raises(Exception, match="two runs never write into one folder"):
        other.on_start()
