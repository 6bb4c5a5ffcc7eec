"""Presentation orders, blinded packages, and the search that proves them blinded."""

import gzip
import itertools
import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
import yaml
from workflow_runs import write_study

from corelab.provenance.products import read_table
from corelab.reading.blinding import (
    CLOSED,
    BlindingFault,
    blinded_nifti,
    check_package,
    forbidden_tokens,
)
from corelab.reading.forms import _reads_from_form, returned_forms
from corelab.reading.packages import DICTIONARIES, TABLES, _pseudonym, write_packages
from corelab.reading.presentation import KINDS, Case, presentation_order, repeated_cases
from corelab.reading.reference_cases import ReferenceRead, judged_reads, performance
from corelab.reading.sampling import _allocation, stratified_sample
from corelab.records.images import Prepared, Scan
from corelab.study.loading import load_study

VISITS = ("baseline", "day5", "day90")
CASES = [Case(f"{n:02d}", visit) for n in range(1, 11) for visit in VISITS]


def order(kind, reader="r1", seed=5, cases=CASES):
    return presentation_order(cases, kind=kind, reader=reader, seed=seed, visit_order=VISITS)


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_is_a_permutation_of_its_own_for_each_reader(kind):
    shown = order(kind)
    parts = {item.part for item in shown}
    assert parts == ({1, 2} if kind == "hybrid_random" else {1})
    for part in parts:
        assert sorted(item.case for item in shown if item.part == part) == sorted(CASES)
    assert [item.position for item in shown] == list(range(1, len(shown) + 1))
    assert shown == order(kind, cases=CASES[::-1])
    assert [s.case for s in shown] != [s.case for s in order(kind, reader="r2")]
    assert [s.case for s in shown] != [s.case for s in order(kind, seed=6)]


def blocks(shown):
    screens = {}
    for item in shown:
        screens.setdefault(item.screen, []).append(item)
    return list(screens.values())


def test_time_sequential_shows_visits_in_time_one_after_the_other():
    shown = order("time_sequential")
    for start in range(0, 30, 3):
        three = shown[start : start + 3]
        assert len({item.case.participant_id for item in three}) == 1
        assert [item.case.visit for item in three] == list(VISITS)
        assert [item.time_point for item in three] == [1, 2, 3]
    assert all(len(block) == 1 for block in blocks(shown))


def test_simultaneous_shows_a_subject_on_one_screen_with_time():
    for block in blocks(order("simultaneous")):
        assert [item.case.visit for item in block] == list(VISITS)
        assert len({item.case.participant_id for item in block}) == 1


def test_simultaneous_random_time_withholds_and_shuffles_time():
    found = blocks(order("simultaneous_random_time"))
    assert all(item.time_point is None and item.linked for block in found for item in block)
    assert len({tuple(item.case.visit for item in block) for block in found}) > 2
    assert all(len({item.case.participant_id for item in block}) == 1 for block in found)


def test_single_time_point_links_nothing():
    shown = order("single_time_point")
    assert all(item.time_point is None and not item.linked for item in shown)
    assert all(len(block) == 1 for block in blocks(shown))
    neighbours = sum(
        a.case.participant_id == b.case.participant_id for a, b in itertools.pairwise(shown)
    )
    assert neighbours < 10


def test_hybrid_shows_alone_first_and_together_after():
    shown = order("hybrid_random")
    first, second = shown[:30], shown[30:]
    assert all(not item.linked and item.time_point is None for item in first)
    assert all(len(block) == 3 for block in blocks(second))
    assert {item.part for item in second} == {2}


def test_repeats_come_after_all_first_readings():
    again = repeated_cases(CASES, share=0.2, seed=1)
    assert len(again) == 6 and {case.repeat for case in again} == {2}
    shown = order("single_time_point", cases=[*CASES, *again])
    assert [item.case.repeat for item in shown] == [1] * 30 + [2] * 6


def test_bad_orders_are_refused():
    with pytest.raises(ValueError, match="unknown presentation"):
        order("random")
    with pytest.raises(ValueError, match="listed twice"):
        order("simultaneous", cases=[CASES[0], CASES[0]])


def test_pseudonym_is_hmac_sha256():
    """RFC 4231, test case 2: key 'Jefe', data 'what do ya want for nothing?'."""
    assert _pseudonym(b"Jefe".hex(), "what do ya want for nothing?") == "5bdcc146bf60754e"


@pytest.fixture
def study(tmp_path):
    """Two subjects with two scans each; names, headers and sheets say what must not be told."""
    rng = np.random.default_rng(3)
    folder = tmp_path / "results" / "s"
    scans, records = ["participant_id|visit|kind|path|acquired_at"], []
    for person, arm in (("KR-01", "placebo"), ("KR-02", "highdose")):
        for visit in ("baseline", "day5"):
            name = f"derivatives/{person}_{visit}_dwi.nii.gz"
            image = nib.Nifti1Image(
                rng.normal(size=(6, 5, 4)).astype(np.float32), np.diag([2.0, 2, 5, 1])
            )
            image.header["descrip"] = f"{person} {arm} SeoulSite"
            image.header["db_name"] = b"KR-01"
            image.header.extensions.append(
                nib.nifti1.Nifti1Extension("comment", b"SeoulSite 2024-03-01")
            )
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            nib.save(image, folder / name)
            scans.append(f"{person}|{visit}|dwi|{folder / name}|2024-03-01T10:00:00")
            shown = (Scan("a", "dwi", path=name), Scan("b", "mask-infarct", "infarct", path=name))
            record = folder / f"{person}_{visit}.json"
            Prepared(person, visit, scans=shown).write(record)
            records.append(record)
    config = write_study(
        tmp_path,
        {"reading": {"presentation": "time_sequential", "readers": ["r1", "r2"]}},
        participants="participant_id|arm|site\nKR-01|placebo|SeoulSite\nKR-02|highdose|SeoulSite",
        scans="\n".join(scans),
        reads="participant_id|visit|endpoint|reader|value|role\n"
        "KR-01|day5|infarct_volume|DrKim|31.25|investigator",
    )
    return load_study(yaml.safe_load(config.read_text())), records, folder


def test_packages_hold_cases_images_and_form_but_nothing_else(study):
    model, records, folder = study
    summary = write_packages(model, records, folder)
    assert set(summary.readers) == {"r1", "r2"}
    package = folder / "reading" / "packages" / "r1"
    cases = read_table(package / "cases.tsv")
    assert len(cases) == 4 and cases["time_point"].tolist() == ["1", "2", "1", "2"]
    key = read_table(folder / "reading" / "key.tsv").set_index("case")
    for row in cases.to_dict("records"):
        source = key.loc[row["case"]]
        before = nib.load(folder / f"derivatives/{source.participant_id}_{source.visit}_dwi.nii.gz")
        after = nib.load(package / row["image"])
        assert np.array_equal(np.asanyarray(before.dataobj), np.asanyarray(after.dataobj))
        assert np.array_equal(before.affine, after.affine)
        assert not after.header.extensions and after.header["descrip"].item() == b""
    everything = (
        b"".join(
            gzip.decompress(p.read_bytes()) if p.suffix == ".gz" else p.read_bytes()
            for p in package.rglob("*")
            if p.is_file()
        )
        + " ".join(p.name for p in package.rglob("*")).encode()
    )
    for token in (
        "KR-01",
        "KR-02",
        "placebo",
        "highdose",
        "Seoul",
        "2024",
        "DrKim",
        "31.25",
        "day5",
    ):
        assert token.encode() not in everything
    assert key["secret"].iloc[0].encode() not in everything
    assert (folder / "reading" / "key.tsv").stat().st_mode & 0o077 == 0


def test_the_same_key_gives_the_same_packages(study):
    model, records, folder = study
    first = write_packages(model, records, folder)
    assert write_packages(model, records, folder) == first
    (folder / "reading" / "key.tsv").unlink()
    assert write_packages(model, records, folder) != first


def planted(package, what):
    """Plant what must not be there; returns what the fault must name."""
    cases = package / "cases.tsv"
    form = package / "form.tsv"
    image = next((package / "images").iterdir())
    if what == "arm":
        form.write_text(form.read_text().replace("mL", "mL placebo", 1))
        return "'placebo' .arm"
    if what == "site":
        form.write_text(form.read_text().replace("mL", "SEOULSITE", 1))
        return "'seoulsite' .site"
    if what == "date":
        form.write_text(form.read_text().replace("mL", "mL 20231224", 1))
        return "a date"
    if what == "investigator":
        form.write_text(form.read_text().replace("\tmL\tn/a", "\tmL\t31.25", 1))
        return "result of an investigator"
    if what == "column":
        lines = cases.read_text().splitlines()
        cases.write_text("\n".join([lines[0] + "\tarm", *(line + "\tB" for line in lines[1:])]))
        return "column 'arm' does not belong"
    if what == "disguise":
        text = cases.read_text()
        cases.write_text(text.replace("case-", "case-KR01", 1))
        return "has not the form"
    if what == "file":
        (package / "KR-01.txt").write_text("x")
        return "KR-01.txt: the file does not belong there"
    if what == "dictionary":
        (package / "cases.json").write_text("{}")
        return "differs from the data dictionary"
    content = bytearray(gzip.decompress(image.read_bytes()))
    if what == "header":
        content[148:153] = b"arm B"
        expected = "header field descrip"
    elif what == "voxels":
        content[400:409] = b"seoulsite"
        expected = "seoulsite"
    else:
        content = bytearray(content[:348] + b"\x01\0\0\0" + content[352:])
        expected = "extensions"
    image.write_bytes(gzip.compress(bytes(content), mtime=0))
    return expected


@pytest.mark.parametrize(
    "what",
    ["arm", "site", "date", "investigator", "column", "disguise", "file", "dictionary"]
    + ["header", "voxels", "extension"],
)
def test_what_is_planted_is_found(study, what):
    model, records, folder = study
    write_packages(model, records, folder)
    package = folder / "reading" / "packages" / "r2"
    tokens = forbidden_tokens(model)
    closed = {**CLOSED, "presentation": "time_sequential"}
    check_package(package, TABLES, DICTIONARIES, tokens, closed)
    expected = planted(package, what)
    with pytest.raises(BlindingFault, match=expected):
        check_package(package, TABLES, DICTIONARIES, tokens, closed)


def test_gzip_file_name_is_found(study):
    model, records, folder = study
    write_packages(model, records, folder)
    package = folder / "reading" / "packages" / "r1"
    image = next((package / "images").iterdir())
    content = gzip.decompress(image.read_bytes())
    with open(image, "wb") as raw, gzip.GzipFile("KR-01.nii", "wb", fileobj=raw) as handle:
        handle.write(content)
    with pytest.raises(BlindingFault, match="carries a name"):
        check_package(package, TABLES, DICTIONARIES, {})


def test_an_endpoint_named_after_an_arm_stops_the_package(study):
    model, records, folder = study
    model.config["reading"]["endpoints"] = ["volume_placebo"]
    with pytest.raises(BlindingFault, match="placebo"):
        write_packages(model, records, folder)


def test_forms_come_back_as_reads(study):
    model, records, folder = study
    model.config["reading"]["presentation"] = "hybrid_random"
    write_packages(model, records, folder)
    form = read_table(folder / "reading" / "packages" / "r1" / "form.tsv")
    form["value"] = [str(n) for n in range(len(form))]
    key = read_table(folder / "reading" / "key.tsv")
    reads = _reads_from_form(form, key, "r1")
    assert len(reads) == 8 and set(reads["repeat"]) == {"1", "2"}
    assert set(reads["participant_id"]) == {"KR-01", "KR-02"}
    form.loc[0, "case"] = "case-0000000000000000"
    with pytest.raises(ValueError, match="does not know"):
        _reads_from_form(form, key, "r1")


def test_only_nifti_1_is_packed():
    image = nib.Nifti2Image(np.zeros((2, 2, 2), np.float32), np.eye(4))
    with pytest.raises((ValueError, nib.spatialimages.HeaderDataError)):
        blinded_nifti(image.to_bytes())


def test_dictionaries_are_what_is_written(study):
    model, records, folder = study
    write_packages(model, records, folder)
    package = Path(folder) / "reading" / "packages" / "r1"
    assert json.loads((package / "form.json").read_text()) == json.loads(DICTIONARIES["form.json"])


@pytest.fixture
def with_references(study, tmp_path):
    """The same study with four reference cases, one of them with an image."""
    _, records, folder = study
    image = nib.Nifti1Image(np.ones((4, 4, 3), np.float32), np.diag([2.0, 2, 5, 1]))
    image.header["descrip"] = b"SeoulSite reference"
    nib.save(image, tmp_path / "truth_of_seoul.nii.gz")
    lines = ["reference_id\tendpoint\tvalue\ttolerance\tunit\tkind\tpath"]
    lines += [
        f"ref-{n}\tinfarct_volume\t{10 * n}\t2\tmL\t"
        + ("dwi\ttruth_of_seoul.nii.gz" if n == 1 else "n/a\tn/a")
        for n in range(1, 5)
    ]
    sheet = tmp_path / "references.tsv"
    sheet.write_text("\n".join(lines) + "\n")
    config = yaml.safe_load((tmp_path / "config.yaml").read_text())
    config["inputs"]["reference_cases"] = str(sheet)
    config["reading"] |= {
        "limits": {"reference_pass_rate_min": 0.75},
        "not_evaluable_reasons": ["motion", "no contrast"],
        "endpoints": ["infarct_volume"],
    }
    return load_study(config), records, folder


def test_reference_cases_are_mixed_in_and_look_like_the_others(with_references):
    model, records, folder = with_references
    summary = write_packages(model, records, folder)
    assert {r.cases for r in summary.readers.values()} == {8}
    key = read_table(folder / "reading" / "key.tsv")
    assert sorted(key["reference"]) == ["no"] * 4 + ["yes"] * 4
    cases = read_table(folder / "reading" / "packages" / "r1" / "cases.tsv")
    references = set(key.loc[key["reference"] == "yes", "case"])
    assert references < set(cases["case"])
    places = cases.drop_duplicates("case")["case"].isin(references).tolist()
    assert places != sorted(places) and places != sorted(places, reverse=True)
    with_image = cases[cases["case"].isin(references) & cases["image"].notna()]
    assert len(with_image) == 1
    image = nib.load(folder / "reading" / "packages" / "r1" / with_image.iloc[0]["image"])
    assert image.header["descrip"].item() == b"" and float(image.get_fdata().sum()) == 48.0
    text = "".join(
        p.read_text() for p in (folder / "reading" / "packages").rglob("*.tsv") if p.is_file()
    )
    assert "ref-" not in text and "truth_of_seoul" not in text


class Paths:
    """Outputs of the rule read_forms."""

    def __init__(self, folder):
        self.reads = folder / "returned_reads.tsv"
        self.references = folder / "reference_reads.tsv"
        self.performance = folder / "reference_performance.tsv"


def filled(folder, reader, value_of):
    key = read_table(folder / "reading" / "key.tsv").set_index("case")
    form = read_table(folder / "reading" / "packages" / reader / "form.tsv")
    form["value"] = [str(value_of(key.loc[case])) for case in form["case"]]
    form["read_at"] = "2025-01-01T10:00:00Z"
    path = folder / f"{reader}_form.tsv"
    form.to_csv(path, sep="\t", index=False, na_rep="n/a")
    return path


def test_forms_are_taken_over_and_readers_judged_on_references(with_references):
    model, records, folder = with_references
    write_packages(model, records, folder)

    def good(case):
        return 10 * int(case.participant_id[-1]) + 1 if case.reference == "yes" else 5

    def poor(case):
        return 10 * int(case.participant_id[-1]) + 3 if case.reference == "yes" else 5

    forms = {"r1": filled(folder, "r1", good), "r2": filled(folder, "r2", poor)}
    output = returned_forms(model, forms, folder / "reading" / "key.tsv", Paths(folder))
    reads = read_table(folder / "returned_reads.tsv")
    assert len(reads) == 8 and set(reads["participant_id"]) == {"KR-01", "KR-02"}
    passed = read_table(folder / "reference_performance.tsv").set_index("group")
    assert passed.loc["reader=r1", ["count", "n", "action"]].tolist() == ["4", "4", "none"]
    assert passed.loc["reader=r2", ["count", "n", "action"]].tolist() == ["0", "4", "retrain"]
    assert any("reader=r2" in line and "retrain" in line for line in output)
    assert not any("reader=r1" in line for line in output)


def test_a_form_without_value_and_without_a_listed_reason_is_refused(with_references):
    model, records, folder = with_references
    write_packages(model, records, folder)
    path = filled(folder, "r1", lambda _: 5)
    key = read_table(folder / "reading" / "key.tsv").set_index("case")
    lines = path.read_text().splitlines()
    place = next(
        i
        for i, line in enumerate(lines[1:], 1)
        if key.loc[line.split("\t")[1], "reference"] == "no"
    )
    kept = lines[place]
    for reason, message in (("n/a", "neither a value"), ("tired", "not on the charter's list")):
        cells = kept.split("\t")
        cells[4], cells[5] = "n/a", reason
        lines[place] = "\t".join(cells)
        path.write_text("\n".join(lines) + "\n")
        with pytest.raises(ValueError, match=message):
            returned_forms(model, {"r1": path}, folder / "reading" / "key.tsv", Paths(folder))


def test_performance_by_part():
    truth = pd.DataFrame({"reference_id": ["a", "b"], "endpoint": "volume", "value": ["1", "2"]})
    lines = [
        ReferenceRead(case, "volume", "r1", value, None, "1", position, 30)
        for case, value, position in (("a", "1", 2), ("b", "3", 29))
    ]
    judged = judged_reads(lines, truth, 3)
    assert judged[["part", "passed"]].values.tolist() == [[1, "yes"], [3, "no"]]
    table = performance(judged, {"reference_pass_rate_min": 0.5}).set_index("group")
    assert table.loc["reader=r1|part=3", "action"] == "retrain"
    assert table.loc["reader=r1", "action"] == "none"


def test_stratified_sample_is_proportional_seeded_and_leaves_no_stratum_out():
    people = pd.DataFrame(
        {
            "participant_id": [f"{n:03d}" for n in range(100)],
            "arm": ["a", "b"] * 50,
            "site": ["S1"] * 90 + ["S2"] * 9 + [None],
        }
    )
    table = stratified_sample(people, share=0.2, strata=["arm", "site"], seed=4)
    drawn = table[table["drawn"] == "yes"]
    assert len(drawn) == 20
    sizes = drawn.groupby("stratum").size()
    assert set(sizes.index) == {"a/S1", "a/S2", "b/S1", "b/S2", "b/n/a"}
    assert sizes[["a/S1", "b/S1"]].sum() in (16, 17) and sizes.min() == 1
    again = stratified_sample(people.sample(frac=1, random_state=1), share=0.2,
                              strata=["arm", "site"], seed=4)  # fmt: skip
    assert again.equals(table)
    other = stratified_sample(people, share=0.2, strata=["arm", "site"], seed=5)
    assert not other.equals(table)
    assert stratified_sample(people, share=1.0, strata=[], seed=1)["drawn"].eq("yes").all()


@pytest.mark.parametrize("total", [1, 3, 7, 20, 99, 100])
def test_allocation_adds_up(total):
    sizes = {"a": 60, "b": 30, "c": 9, "d": 1}
    drawn = _allocation(sizes, total)
    assert sum(drawn.values()) == max(total, len(sizes))
    assert all(1 <= drawn[name] <= sizes[name] for name in sizes)
    if total >= 20:
        assert all(abs(drawn[n] - total * sizes[n] / 100) < 2 for n in sizes)


def test_each_subject_is_equally_likely_within_its_stratum():
    people = pd.DataFrame({"participant_id": [str(n) for n in range(10)], "arm": ["a"] * 10})
    hits = pd.Series(0, index=people["participant_id"])
    for seed in range(600):
        table = stratified_sample(people, share=0.3, strata=["arm"], seed=seed)
        hits[table.loc[table["drawn"] == "yes", "participant_id"]] += 1
    assert hits.sum() == 1800
    # 5 standard errors of Binomial(600, 0.3)
    assert ((hits - 180).abs() < 5 * (600 * 0.3 * 0.7) ** 0.5).all()


def test_the_sample_decides_who_is_read(study):
    model, records, folder = study
    model.config["reading"]["sample"] = {"share": 0.5, "strata": []}
    summary = write_packages(model, records, folder)
    assert {r.cases for r in summary.readers.values()} == {2}
    drawn = read_table(folder / "reading" / "sample.tsv").set_index("participant_id")["drawn"]
    key = read_table(folder / "reading" / "key.tsv")
    assert set(key["participant_id"]) == set(drawn.index[drawn == "yes"])


def test_allocation_by_largest_remainders():
    assert _allocation({"a": 60, "b": 30, "c": 10}, 20) == {"a": 12, "b": 6, "c": 2}
    assert _allocation({"a": 99, "b": 1}, 10) == {"a": 9, "b": 1}
