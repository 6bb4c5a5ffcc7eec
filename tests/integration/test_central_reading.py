"""A central read of a tables study, by the commands that a user types."""

import re

import pytest
import yaml
from workflow_runs import snakemake, write_study

from corelab.provenance.products import read_json, read_table
from corelab.reading.change_log import main as append_change

pytestmark = pytest.mark.integration

GRADES = ["0", "1", "2a", "2b", "2c", "3"]
VOLUMES = {"001": (20.0, 21.0), "002": (30.0, 45.0), "003": (50.0, 52.0), "004": (10.0, 10.5)}


def sheets():
    people = "participant_id|arm|site\n" + "\n".join(
        f"{p}|{'active' if n % 2 else 'placebo'}|S{n % 2}" for n, p in enumerate(VOLUMES)
    )
    reads = ["participant_id|visit|endpoint|reader|value|unit|role|read_at|presentation_order"]
    for n, (person, values) in enumerate(VOLUMES.items(), 1):
        for reader, value in zip(("r1", "r2"), values, strict=True):
            when = f"2025-03-0{n}T09:00:00Z"
            reads.append(f"{person}|day5|infarct_volume|{reader}|{value}|mL|reader|{when}|{n}")
            reads.append(f"{person}|day5|recanalisation|{reader}|{GRADES[n]}|n/a|reader|{when}|{n}")
        doctor = f"{person}|day5|infarct_volume|DrS{n % 2}|{values[0] + n}|mL|investigator"
        reads.append(f"{doctor}|2025-02-01|n/a")
    return people, reads


ADJUDICATED = "002|day5|infarct_volume|r3|45.0|mL|adjudicator|2025-03-09T09:00:00Z|n/a"


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """The study before its discordant case is adjudicated."""
    folder = tmp_path_factory.mktemp("central")
    people, reads = sheets()
    config = {
        "study": {"id": "central", "design": "randomised"},
        "grades": {"recanalisation": GRADES},
        "reading": {
            "adjudication": [
                {"endpoint": "infarct_volume", "relative_above": 0.2, "method": "either_of_two"},
                {"endpoint": "recanalisation", "grades_differ": True},
            ],
            "certified": {"r1": "2025-01-01", "r2": "2025-01-01", "r3": "2025-01-01"},
            "limits": {"adjudication_rate_max": 0.1},
            "turnaround_days": 3,
        },
        "analyses": [
            {"id": "effect", "type": "comparison", "endpoint": "infarct_volume", "by": "arm",
             "method": "t"},
            {"id": "against", "type": "agreement", "endpoint": "infarct_volume",
             "sources": ["final", "investigator"], "by": "arm", "resamples": 50},
        ],
    }  # fmt: skip
    path = write_study(folder, config, participants=people, reads="\n".join(reads))
    return path, folder, folder / "results" / "central"


def ran(path, *targets):
    done = snakemake("--configfile", str(path), "--", *targets)
    assert done.returncode == 0, done.stdout[-4000:]
    return done.stdout


def write_reads(folder, lines):
    text = "".join("\t".join(line.split("|")) + "\n" for line in lines)
    (folder / "reads.tsv").write_text(text)


def banners(results):
    """Banner of the verification, and notes of a table of statistics."""
    notes = read_table(results / "statistics" / "agreement.tsv")["note"].fillna("")
    return read_json(results / "reading" / "validity.json")["banner"], list(notes)


def test_from_packages_to_a_broken_lock(study):
    path, folder, results = study
    _, reads = sheets()

    # Packages: nothing of arm, site, dates or investigators in them.
    ran(path, "read_packages")
    packages = results / "reading" / "packages"
    text = "".join(p.read_text() for p in packages.rglob("*") if p.is_file())
    for token in ("001", "active", "placebo", "S0", "S1", "2025", "DrS", "day5"):
        assert not re.search(rf"(?<![0-9a-f]){token}", text), token
    assert len(read_table(packages / "r1" / "form.tsv")) == 8

    # Adjudication: one case is open, so nothing is locked, and results say that.
    output = ran(path, "adjudication", "lock")
    assert "nothing is locked yet" in output and "002 day5 infarct_volume" in output
    final = read_table(results / "reading" / "final_reads.tsv").set_index(
        ["participant_id", "endpoint"]
    )
    assert final.loc[("002", "infarct_volume"), "how"] == "missing"
    assert read_json(results / "reading" / "validity.json")["state"] == "open"

    # The adjudicator decides; the read is locked; analyses rest on the final reads.
    write_reads(folder, [*reads, ADJUDICATED])
    output = ran(path, "statistics")
    assert "reads locked; note its hash" in output
    measured = read_table(results / "endpoints" / "measurements.tsv", numeric=["value"])
    mine = measured[
        (measured["participant_id"] == "002") & (measured["endpoint"] == "infarct_volume")
    ]
    values = mine.set_index("source")["value"]
    assert (values["final"], values["r1"], values["r2"]) == (45.0, 30.0, 45.0)
    graded = measured[(measured["endpoint"] == "recanalisation") & (measured["source"] == "final")]
    assert sorted(graded["value"]) == [1.0, 2.0, 3.0, 4.0]
    assert graded.set_index("value").loc[2.0, "reason"].startswith("grade 2a")
    banner, notes = banners(results)
    assert banner is None and not any("INVALID" in note for note in notes)
    lock = (results / "reading" / "lock.json").read_bytes()

    # A change without an entry is named, and the results are INVALID.
    changed = [line.replace("r1|20.0", "r1|19.0") for line in [*reads, ADJUDICATED]]
    write_reads(folder, changed)
    output = ran(path, "statistics", "report")
    key = "001|day5|infarct_volume|r1|1|reader"
    assert f"{key}: the row was changed without an entry" in output
    banner, notes = banners(results)
    page = (results / "report" / "index.html").read_text()
    assert banner.startswith("INVALID") and banner in page
    assert notes and all(note.startswith("INVALID") for note in notes)
    assert (results / "reading" / "lock.json").read_bytes() == lock
    audit = read_table(results / "reading" / "lock_audit.tsv").set_index("row")
    assert audit.loc[key, "verdict"] == "INVALID"

    # Logged, it is explained; with a line of the log edited it is INVALID again.
    log = results / "reading" / "change_log.jsonl"
    append_change(
        [str(log), "--row", key, "--field", "value", "--old", "20.0", "--new", "19.0", "--reason",
         "new_key_image", "--text", "thin slices arrived", "--who", "A. Reader", "--when",
         "2025-04-01T10:00:00Z"]
    )  # fmt: skip
    ran(path, "lock")
    validity = read_json(results / "reading" / "validity.json")
    assert (validity["state"], validity["changes_since"]) == ("valid", 1)
    kept = log.read_text()
    log.write_text(kept.replace("thin slices", "no slices"))
    assert "line 1 was edited" in ran(path, "lock")
    log.write_text(kept)

    # An edited lock is seen although nothing else changed.
    edited = (results / "reading" / "lock.json").read_text().replace('"seed": 2026', '"seed": 3026')
    assert edited.encode() != lock
    (results / "reading" / "lock.json").unlink()
    (results / "reading" / "lock.json").write_text(edited)
    assert "the lock itself was edited" in ran(path, "lock")
    (results / "reading" / "lock.json").write_bytes(lock)

    # A re-review needs its evidences; with them it stands beside the original.
    head = reads[0]
    again = [head, *(line.replace("r1|50.0", "r1|56.0").replace("r2|52.0", "r2|56.0")
                     for line in reads[1:] if line.startswith("003|day5|infarct")
                     and "investigator" not in line)]  # fmt: skip
    (folder / "rereads.tsv").write_text("".join("\t".join(x.split("|")) + "\n" for x in again))
    config = yaml.safe_load(path.read_text())
    config["inputs"]["rereads"] = str(folder / "rereads.tsv")
    path.write_text(yaml.safe_dump(config))
    assert "the evidence regulator_consulted is missing" in ran(path, "lock")
    config["reading"]["rereview"] = {
        "reason": "loss_of_credibility",
        "evidence": dict.fromkeys(
            ("before_database_lock", "charter_condition", "confirmed_by_sponsor",
             "confirmed_by_core_laboratory", "regulator_consulted"), "document 12, 2025-04-02")
    }  # fmt: skip
    path.write_text(yaml.safe_dump(config))
    ran(path, "statistics")
    assert read_json(results / "reading" / "validity.json")["state"] == "valid"
    table = read_table(results / "statistics" / "pharmacodynamics.tsv", numeric=["estimate"])
    effect = table[(table["analysis_id"] == "effect") & (table["statistic"] == "mean_difference")]
    groups = effect.set_index("group")["estimate"]
    beside = [group for group in groups.index if group.startswith("re-review: ")]
    assert len(beside) == 1 and groups[beside[0]] != groups[beside[0].removeprefix("re-review: ")]
    notes = effect.set_index("group")["note"]
    assert notes[beside[0]].startswith("sensitivity: the re-review")
    measured = read_table(results / "endpoints" / "measurements.tsv", numeric=["value"])
    own = measured[
        (measured["participant_id"] == "003") & (measured["endpoint"] == "infarct_volume")
    ]
    values = own.set_index("source")["value"]
    assert (values["final"], values["final:rereview"], values["rereview:r1"]) == (51.0, 56.0, 56.0)


def test_a_single_arm_trial_without_central_reading_is_stopped(tmp_path):
    people = "participant_id|arm\n1|only\n2|only"
    reads = "participant_id|visit|endpoint|reader|value\n1|a|infarct_volume|r1|3\n2|a|infarct_volume|r1|4"
    config = {"study": {"id": "one", "design": "single_arm"}}
    path = write_study(tmp_path, config, participants=people, reads=reads)
    done = snakemake("--configfile", str(path), "--", "endpoints")
    assert done.returncode != 0
    assert "single-arm trial needs blinded independent central review" in done.stdout


def test_forms_come_back_by_their_target(study, tmp_path):
    """read_packages -> a reader fills his form -> read_forms gives rows of the reads sheet."""
    path, folder, _ = study
    config = yaml.safe_load(path.read_text())
    config["results_dir"] = str(tmp_path / "results")
    references = folder / "references.tsv"
    references.write_text(
        "reference_id\tendpoint\tvalue\ttolerance\nx1\tinfarct_volume\t20\t1\nx2\tinfarct_volume\t40\t1\n"
    )
    config["inputs"]["reference_cases"] = str(references)
    config["inputs"].pop("rereads", None)
    config["reading"]["rereview"] = None
    config["reading"]["limits"] = {"reference_pass_rate_min": 0.9}
    other = tmp_path / "config.yaml"
    other.write_text(yaml.safe_dump(config))
    ran(other, "read_packages")
    reading = tmp_path / "results" / "central" / "reading"
    form = read_table(reading / "packages" / "r1" / "form.tsv", text_missing=True)
    form["value"] = ["20" if e == "infarct_volume" else "2b" for e in form["endpoint"]]
    form["read_at"] = "2025-03-01T09:00:00Z"
    back = tmp_path / "form_r1.tsv"
    form.to_csv(back, sep="\t", index=False)
    config["reading"]["forms"] = {"r1": str(back)}
    other.write_text(yaml.safe_dump(config))
    output = ran(other, "read_forms")
    assert "retrain" in output
    reads = read_table(reading / "returned_reads.tsv")
    assert len(reads) == 8 and set(reads["reader"]) == {"r1"}
    passed = read_table(reading / "reference_performance.tsv").set_index("group")
    assert passed.loc["reader=r1", ["count", "n"]].tolist() == ["1", "2"]
