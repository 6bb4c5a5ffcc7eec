"""Who a patient is stays where it was: in the DICOM files and in columns that nothing asks for."""

import gzip
import json

import pytest
from dicom_series import made_series
from helpers import REPOSITORY
from workflow_runs import snakemake, write_study

from corelab.study.naming import subject_entity

pytestmark = pytest.mark.integration

#: Tag -> value; none of them is asked for by anything that is computed.
TAGS = {
    "PatientName": "Geheim^Zenobia",
    "PatientID": "MRN00998877",
    "PatientBirthDate": "19370214",
    "PatientAddress": "Verborgenstrasse 17",
    "PatientTelephoneNumbers": "+49 555 0199",
    "OtherPatientNames": "Heimlich^Zenobia",
    "AccessionNumber": "ACC5550123",
    "ReferringPhysicianName": "Quacksalber^Ottokar",
    "PerformingPhysicianName": "Pillendreher^Hulda",
    "OperatorsName": "Knipser^Egon",
    "InstitutionName": "Spital am Nebelberg",
    "InstitutionAddress": "Nebelberg 3",
    "StationName": "NEBELCT7",
    "DeviceSerialNumber": "SN7654321X",
    "PatientComments": "cousin of the mayor",
    "AdditionalPatientHistory": "fell off the parish roof",
    "StudyID": "STUDYKEY8812",
    "ImageComments": "asked for by Baron Nebel",
}
#: Columns of the participants sheet that no analysis names.
COLUMNS = {"initials": "ZGXQ", "birth_date": "1937-02-14", "remark": "neighbour of Dr Nebel"}
SECRETS = sorted({*TAGS.values(), *COLUMNS.values(), "Zenobia", "Geheim", "Nebelberg"})
PERSON, VISIT = "trial-0042", "baseline"


@pytest.fixture(scope="module")
def ran(tmp_path_factory):
    """A CT of one patient as DICOM, through all stages to the report."""
    folder = tmp_path_factory.mktemp("privacy")

    def fill(dataset):
        for tag, value in TAGS.items():
            setattr(dataset, tag, value)
        dataset.add_new(0x00091010, "LO", "Geheim private tag")

    made_series(folder / "dicom", 8, edit=fill)
    header = "participant_id|" + "|".join(COLUMNS)
    config = write_study(
        folder,
        {"study": {"id": "private"}, "results_dir": "results", "registration": {"preset": "testing"}},
        participants=f"{header}\n{PERSON}|" + "|".join(COLUMNS.values()),
        scans=f"participant_id|visit|kind|path\n{PERSON}|{VISIT}|dicom|{folder / 'dicom'}",
    )  # fmt: skip
    done = snakemake(
        *("--snakefile", str(REPOSITORY / "Snakefile")),
        *("--workflow-profile", str(REPOSITORY / "profiles" / "default")),
        *("--configfile", str(config), "--", "report"),
        cwd=folder,
    )
    assert done.returncode == 0, done.stdout[-6000:]
    return folder, done.stdout


def text_of(path):
    content = path.read_bytes()
    if path.suffix == ".gz":
        content = gzip.decompress(content)
    return content.decode("utf-8", "replace")


def test_the_scan_was_read(ran):
    """Otherwise there would be nothing to keep quiet about."""
    prepared = json.loads(
        next((ran[0] / "results/private/derivatives").rglob("prepare.json")).read_text()
    )
    assert prepared["scans"] and prepared["scans"][0]["status"] == "ok", prepared["scans"]


def test_no_log_report_or_product_repeats_it(ran):
    folder, output = ran
    seen = {"the terminal": output}
    for root in (folder / "results", folder / ".snakemake" / "log"):
        for path in sorted(p for p in root.rglob("*") if p.is_file()):
            seen[path.relative_to(folder).as_posix()] = text_of(path)
    assert len(seen) > 40
    found = [(name, word) for name, text in seen.items() for word in SECRETS if word in text]
    assert not found, found


def test_names_of_jobs_and_files_hold_the_given_ids_only(ran):
    results = ran[0] / "results" / "private"
    wildcards = [
        json.loads(path.read_text())["wildcards"] for path in (results / "jobs").rglob("*.json")
    ]
    people = {w["subject"] for w in wildcards if "subject" in w}
    assert people == {subject_entity(PERSON)}
    assert {w["session"] for w in wildcards if "session" in w} == {"ses-baseline"}
    names = " ".join(path.as_posix() for path in results.rglob("*"))
    assert not [word for word in SECRETS if word in names]
