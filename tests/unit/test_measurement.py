"""Measurement: voxels to rows, and rows to rows."""

from dataclasses import replace

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
from helpers import data_folder

from corelab.measurement import visit
from corelab.measurement.collect import (
    _final_rows,
    _flow_rows,
    _read_rows,
    collect_measurements,
    collect_study,
)
from corelab.measurement.frequency import frequency_map, write_frequency_map
from corelab.measurement.longitudinal import Given, change_rows, missing_rows
from corelab.measurement.regions import _read_labels, aspects_rows, load_atlas, territory_fractions
from corelab.measurement.rows import measurement_row
from corelab.measurement.time_windows import (
    EARLY_DELAYED,
    _window_of,
    _windows_of,
    serial_pairs,
    serial_rows,
)
from corelab.measurement.visit import (
    _limit_rows,
    _location_rows,
    _maker,
    _mask_rows,
    measure_subject,
    measure_supplied,
)
from corelab.provenance.decisions import append_decision
from corelab.provenance.products import read_json
from corelab.provenance.progress import scan_failures
from corelab.records.images import Prepared, Scan, ScanRow
from corelab.records.measured import Measured, MeasurementRow, UnmeasuredVisit
from corelab.records.subjects import Normalised, NormalisedMask
from corelab.records.visits import VisitMask, VisitRecords
from corelab.registration import template_image
from corelab.settings.measurement import (
    AtlasSettings,
    MeasurementSettings,
    SerialImagingSettings,
)
from corelab.study.loading import load_study

MAKE = _maker("01", "a")
SETTINGS = MeasurementSettings()


def rows_frame(*rows):
    names = ["participant_id", "visit", "endpoint", "source", "value"]
    frame = pd.DataFrame([dict(zip(names, row, strict=True)) for row in rows])
    return frame.assign(
        repeat=1,
        region="all",
        unit="mL",
        reason=None,
        scan_ids=None,
        status=["ok" if np.isfinite(v) else "failed" for v in frame["value"]],
    )


def collect(tmp_path, rows=(), reads=None, supplied=None, **more):
    record = Measured("1", tuple(MeasurementRow.from_json(row) for row in rows))
    given = {"listed": [], "visit_order": ["a", "b"], "baseline": "a", **more}
    return collect_measurements(
        [record], reads=reads, supplied=supplied, settings=SETTINGS, **given
    )


def test_extent_of_resection_is_negative_where_the_tumour_grew():
    # 10 to 0 mL is 100 %, 10 to 12 mL is -20 % (requirements J7)
    rows = rows_frame(
        ("1", "a", "enhancing_volume", "r", 10.0),
        ("1", "b", "enhancing_volume", "r", 0.0),
        ("2", "a", "enhancing_volume", "r", 10.0),
        ("2", "b", "enhancing_volume", "r", 12.0),
    )
    assert [row.value for row in change_rows(rows, "a")] == [100.0, -20.0]


def test_growth_with_a_failed_side_is_a_row_with_the_reason():
    rows = rows_frame(
        ("1", "a", "infarct_volume", "pipeline", np.nan),
        ("1", "b", "infarct_volume", "pipeline", 3.0),
    )
    (row,) = change_rows(rows, "a")
    assert row.value is None and row.reason == "no infarct_volume at a"


def test_growth_needs_the_same_source():
    rows = rows_frame(
        ("1", "a", "infarct_volume", "r1", 1.0), ("1", "b", "infarct_volume", "r2", 3.0)
    )
    assert change_rows(rows, "a") == []


def test_a_visit_without_scan_is_a_missing_row_of_the_pipeline():
    rows = rows_frame(
        ("1", "a", "infarct_volume", "pipeline", 1.0),
        ("1", "b", "infarct_volume", "pipeline", 3.0),
        ("2", "a", "infarct_volume", "pipeline", 1.0),
    )
    (row,) = missing_rows(Given().add(rows), [("1", "a"), ("1", "b"), ("2", "a")], ["a", "b"])
    assert (row.participant_id, row.visit, row.reason) == (
        "2",
        "b",
        "no scan at this visit",
    )


def test_an_endpoint_of_a_reader_s_own_may_be_missing_too():
    rows = rows_frame(
        ("1", "a", "first_volume", "r1", 1.0),
        ("1", "b", "first_volume", "r1", 3.0),
        ("2", "a", "first_volume", "r1", 1.0),
    )
    (row,) = missing_rows(Given().add(rows), [], ["a", "b"])
    assert (row.participant_id, row.visit, row.endpoint) == ("2", "b", "first_volume")


def test_duplicated_keys_are_an_error_never_an_average(tmp_path):
    reads = pd.DataFrame(
        {
            "participant_id": ["1", "1"],
            "visit": "a",
            "endpoint": "infarct_volume",
            "reader": "r",
            "value": ["1", "2"],
        }
    )
    with pytest.raises(ValueError, match="duplicates are never averaged"):
        collect(tmp_path, reads=reads)


def test_a_contour_comes_before_the_number_of_the_same_read(tmp_path):
    key = {
        "participant_id": "1",
        "visit": "a",
        "endpoint": "infarct_volume",
        "source": "r",
        "repeat": 1,
        "region": "all",
        "unit": "mL",
        "scan_ids": "s",
    }
    reads = pd.DataFrame(
        {
            "participant_id": ["1"],
            "visit": "a",
            "endpoint": "infarct_volume",
            "reader": "r",
            "value": ["12.5"],
        }
    )
    contour = {**key, "value": 12.0, "status": "ok", "reason": None}
    row = collect(tmp_path, [contour], reads=reads)["measurements"].iloc[0]
    assert row["value"] == 12.0 and "the reads sheet says 12.5" in row["reason"]
    failed = {**key, "value": None, "status": "failed", "reason": "truncated"}
    row = collect(tmp_path, [failed], reads=reads)["measurements"].iloc[0]
    assert (row["value"], row["status"]) == (12.5, "ok")


def test_supplied_volumes_come_into_millilitres(tmp_path):
    supplied = pd.DataFrame(
        {
            "participant_id": ["1"],
            "endpoint": ["infarct_volume"],
            "source": ["s"],
            "value": ["12500"],
            "unit": ["mm3"],
            "visit": ["a"],
        }
    )
    row = collect(tmp_path, supplied=supplied)["measurements"].iloc[0]
    assert (row["value"], row["unit"]) == (12.5, "mL")


def test_row_ids_are_stable_and_unique(tmp_path):
    supplied = pd.DataFrame(
        {
            "participant_id": ["1", "2"],
            "endpoint": "infarct_volume",
            "source": "s",
            "value": ["1", "2"],
            "visit": "a",
        }
    )
    first = collect(tmp_path, supplied=supplied)["measurements"]
    second = collect(tmp_path, supplied=supplied.iloc[::-1])["measurements"]
    assert first["row_id"].is_unique
    assert set(first["row_id"]) == set(second["row_id"])


def test_flow_adds_up():
    scans = [ScanRow("dwi", "x.nii", f"s{n}", "1", "a", exists=n != 0) for n in range(5)]
    status = {"s1": ("failed", "truncated"), **{f"s{n}": ("ok", None) for n in (2, 3, 4)}}
    rows = pd.DataFrame(
        {"participant_id": ["1", "2"], "status": ["ok", "missing"], "scan_ids": ["s2,s3", None]}
    )
    flow = _flow_rows(["1", "2", "3"], scans, status, rows)
    for _, stage in flow.groupby("stage", sort=False):
        assert stage["n_in"].iloc[0] - stage["n_excluded"].sum() == stage["n_out"].iloc[0]
    chain = flow[flow["stage"].str.startswith("scans")].drop_duplicates("stage")
    assert chain["n_in"].tolist()[1:] == chain["n_out"].tolist()[:-1]
    assert flow.loc[flow["reason"] == "truncated", "n_excluded"].tolist() == [1]


def test_frequency_is_k_of_n_exactly():
    grid = np.eye(4)
    masks = []
    for n in range(7):
        voxels = np.zeros((3, 3, 3), np.uint8)
        voxels[: 1 + n % 3] = 1
        masks.append(nib.Nifti1Image(voxels, grid))
    found = frequency_map(masks, enrolled=9, denominator="mapped")
    assert np.array_equal(
        np.asanyarray(found.image.dataobj)[:, 0, 0], np.float32([7 / 7, 4 / 7, 2 / 7])
    )
    enrolled = frequency_map(masks, enrolled=9, denominator="enrolled")
    assert np.asanyarray(enrolled.image.dataobj).max() == np.float32(7 / 9)


def test_frequency_of_masks_on_other_grids_goes_to_the_template():
    template = nib.Nifti1Image(np.zeros((4, 4, 4), np.float32), np.eye(4))
    same = nib.Nifti1Image(np.ones((4, 4, 4), np.uint8), np.eye(4))
    flipped_axis = np.diag([-1.0, 1, 1, 1])
    flipped_axis[0, 3] = 3
    half = np.zeros((4, 4, 4), np.uint8)
    half[:2] = 1  # world x of 2 and 3
    found = frequency_map(
        [same, nib.Nifti1Image(half, flipped_axis)],
        enrolled=2,
        denominator="mapped",
        template=template,
    )
    assert np.asanyarray(found.image.dataobj)[:, 0, 0].tolist() == [0.5, 0.5, 1.0, 1.0]


def test_labels_of_both_forms(tmp_path):
    (tmp_path / "a.tsv").write_text("index\tname\n3\tleft\n")
    assert _read_labels(tmp_path / "a.tsv") == {3: "left"}
    (tmp_path / "b.txt").write_text("1|A|x\n1|B|y\n")
    with pytest.raises(ValueError, match="occurs twice"):
        _read_labels(tmp_path / "b.txt")


def test_supplied_mask_that_cannot_be_read_is_a_failed_row(tmp_path):
    (tmp_path / "bad.nii.gz").write_bytes(b"junk")
    good = np.zeros((5, 5, 5), np.uint8)
    good[1:3] = 2
    nib.save(nib.Nifti1Image(good, np.diag([2.0, 2, 2, 1])), tmp_path / "good.nii.gz")
    scans = [
        ScanRow(
            *("mask-infarct", str(tmp_path / f"{name}.nii.gz"), scan_id, subject, "a"), source=name
        )
        for subject, scan_id, name in (("1", "s1", "bad"), ("2", "s2", "good"))
    ]
    record = measure_supplied(scans, atlases=[], settings=SETTINGS)
    by_id = {row.participant_id: row for row in record.rows}
    assert by_id["1"].status == "failed" and by_id["1"].reason
    assert by_id["2"].value == pytest.approx(50 * 8 / 1000)


@pytest.mark.acceptance
def test_soop_volumes_and_territories_are_exact():
    """SOOP (Absher 2024): lesion volume in mm3 and the share of 31 arterial territories."""
    folder = data_folder("stroke/soop_mni_lesions")
    truth = pd.read_csv(folder / "artery.tsv", sep="\t", float_precision="round_trip").set_index(
        "participant_id"
    )
    atlas = load_atlas(
        AtlasSettings(
            name="arterial",
            path=str(folder / "ArterialAtlas136.nii.gz"),
            labels=str(folder / "ArterialAtlas136.txt"),
        )
    )
    for subject in truth.index[::12]:
        path = folder / "lesions" / f"bwsr{subject}_lesion.nii.gz"
        scan = ScanRow(
            *("mask-infarct", str(path), subject, subject, "a"),
            source=path.name,
            space="MNI152",
        )
        record = measure_supplied([scan], atlases=[], settings=SETTINGS)
        assert record.rows[0].value * 1000 == truth.loc[subject, "lesion_volume"]
        shares = territory_fractions(nib.load(path), atlas)
        for region in truth.columns[1:]:
            assert shares[region] == truth.loc[subject, region]


# --- ASPECTS, share of the MCA, limits ------------------------------------------------------------


@pytest.fixture
def regions(tmp_path):
    """Twenty regions of 8 voxels: 1 to 10 left, 11 to 20 right, in MNI152 at 2 mm."""
    labels = np.repeat(np.arange(1, 21), 8).reshape(20, 4, 2).astype(np.float32)
    affine = np.diag([2.0, 2.0, 2.0, 1.0])
    affine[:3, 3] = [-19.0, 0.0, 0.0]
    nib.save(nib.Nifti1Image(labels + np.float32(1.5e-5), affine), tmp_path / "a.nii.gz")
    rows = [f"{k}\tM{(k - 1) % 10 + 1}" for k in range(1, 21)]
    (tmp_path / "a.tsv").write_text("index\tname\n" + "\n".join(rows) + "\n")
    return {
        "name": "aspects",
        "path": str(tmp_path / "a.nii.gz"),
        "labels": str(tmp_path / "a.tsv"),
        "aspects": {"left": list(range(1, 11)), "right": list(range(11, 21))},
        "mca": {"left": [4, 5, 6, 7], "right": [14, 15, 16, 17]},
    }


@pytest.mark.parametrize(
    ("hit", "score", "left", "above"),
    [([], 10, 0.0, 0.0), ([4], 9, 0.25, 0.0), ([4, 5, 9], 7, 0.5, 1.0), ([14, 15], 8, 0.0, 1.0)],
)
def test_aspects_and_share_of_the_mca_follow_from_the_regions(regions, hit, score, left, above):
    atlas = load_atlas(AtlasSettings.model_validate(regions))
    inside = np.isin(np.asanyarray(atlas.image.dataobj), hit).astype(np.uint8)
    # One voxel of eight (12.5 %) of another region is below the share that counts as hit.
    inside[1, 0, 0] = 1
    mask = nib.Nifti1Image(inside, atlas.image.affine)
    found = {(e, r): v for e, r, v, _, _ in aspects_rows(mask, atlas, min_share=0.2)}
    assert found["aspects", "all"] == score
    assert found["mca_fraction", "left"] == pytest.approx(left)
    assert found["mca_above_third", "all"] == above


def test_an_atlas_without_the_named_labels_is_refused(regions):
    regions["mca"]["left"] = [99]
    with pytest.raises(ValueError, match=r"mca names the labels \[99\]"):
        load_atlas(AtlasSettings.model_validate(regions))


def test_pipeline_masks_in_mni_have_aspects_and_readers_masks_have_not(regions):
    atlas = load_atlas(AtlasSettings.model_validate(regions))
    inside = np.isin(np.asanyarray(atlas.image.dataobj), [1, 2]).astype(np.uint8)
    image = nib.Nifti1Image(inside, atlas.image.affine)
    for source, expected in (("pipeline:ncct", 8.0), ("reader-1", None)):
        entry = NormalisedMask("a", "infarct", source, scan_ids=("s",))
        rows = _location_rows(MAKE, entry, image, [atlas])
        values = [r.value for r in rows if r.endpoint == "aspects"]
        # What is known of the native mask stands with every number from it.
        entry = replace(entry, native_reason="no ADC", reason="the fit is doubtful")
        reasons = {row.endpoint: row.reason for row in _location_rows(MAKE, entry, image, [atlas])}
        assert reasons.keys() == {row.endpoint for row in rows}
        assert all(text.endswith("no ADC; the fit is doubtful") for text in reasons.values())
        assert values == ([] if expected is None else [expected])


def test_water_uptake_shares_the_fate_of_the_hypodensity():
    """No hypodensity from thick slices: its water uptake has the same status and reason."""
    mask = VisitMask(
        *("infarct", "pipeline:ncct"), status="not_computable", reason="slices of 8.0 mm"
    )
    rows = _mask_rows(MAKE, mask, None, [])
    assert [(r.endpoint, r.status, r.reason, r.unit) for r in rows] == [
        ("infarct_volume", "not_computable", "slices of 8.0 mm", "mL"),
        ("net_water_uptake", "not_computable", "slices of 8.0 mm", "percent"),
    ]
    assert len(_mask_rows(MAKE, replace(mask, source="pipeline:flair"), None, [])) == 1


def test_volume_at_the_thresholds_limits_stands_beside_the_volume():
    mask = VisitMask(
        *("infarct", "pipeline:adc620", "adc620"),
        parameters={"limits": {"adc_below_mm2_s": [600e-6, 640e-6]}},
        quality={"volume_ml": 10.0, "volume_low_ml": 8.0, "volume_high_ml": 13.0},
    )
    rows = _limit_rows(MAKE, "infarct_volume", mask)
    assert [(r.source, r.value, r.unit) for r in rows] == [
        ("pipeline:adc620-lower-limit", 8.0, "mL"),
        ("pipeline:adc620-upper-limit", 13.0, "mL"),
    ]
    flagged = _limit_rows(MAKE, "infarct_volume", replace(mask, reason="no ADC"))
    assert all(row.reason.endswith(" volume; no ADC") for row in flagged)
    primary = _limit_rows(MAKE, "infarct_volume", replace(mask, desc=None))
    assert primary[0].source == "pipeline:lower-limit"
    assert _limit_rows(MAKE, "core_volume", replace(mask, parameters={})) == []


def test_a_frequency_map_leaves_out_what_people_excluded(tmp_path):
    shape, affine = template_image().shape, template_image().affine
    rows = []
    for number in range(3):
        data = np.zeros(shape, np.uint8)
        data[40 + number : 45, 50:55, 40:45] = 1
        path = tmp_path / f"{number}.nii.gz"
        nib.save(nib.Nifti1Image(data, affine), path)
        rows.append(ScanRow("mask-infarct", str(path), f"s{number}", str(number), "a"))
    decisions = tmp_path / "qc_decisions.tsv"
    for subject, endpoint in (("0", "infarct_volume"), ("1", "core_volume")):
        append_decision(
            decisions, participant_id=subject, visit="a", endpoint=endpoint, decision="exclude",
            reason="motion", decided_by="A",
        )  # fmt: skip
    kept, whole = tmp_path / "infarct_frequency.nii.gz", tmp_path / "whole" / "infarct.nii.gz"
    write_frequency_map(
        kept, label="infarct", records=[], supplied=rows, folder=tmp_path, enrolled=3,
        denominator="mapped", visit_order=["a"], decisions=decisions, whole=whole,
    )  # fmt: skip
    output = read_json(tmp_path / "infarct_frequency.json")
    assert [entry["participant_id"] for entry in output["masks"]] == ["1", "2"]
    assert [(e["participant_id"], e["reason"]) for e in output["excluded"]] == [
        ("0", "decision 1: motion")
    ]
    # Subject 0 alone has the first plane: 0 of 2 with exclusions, 1 of 3 without.
    assert nib.load(kept).dataobj[40, 52, 42] == 0
    assert nib.load(whole).dataobj[40, 52, 42] == pytest.approx(1 / 3)
    assert nib.load(kept).dataobj[44, 52, 42] == nib.load(whole).dataobj[44, 52, 42] == 1


def test_frequency_over_grids_that_differ_is_the_sum_of_each_mask(tmp_path):
    """Sums are brought to the template grid by grid: the same as mask by mask, and in any order."""
    from corelab.imaging import resample_to

    rng = np.random.default_rng(3)
    template = nib.Nifti1Image(np.zeros((12, 14, 10), np.uint8), np.diag([2.0, 2, 2, 1]))
    flipped = np.diag([-1.0, 1, 1, 1])
    flipped[0, 3] = 23
    grids = [
        (np.diag([1.0, 1, 1, 1]), (24, 28, 20)),
        (flipped, (24, 28, 20)),
        (template.affine, (12, 14, 10)),
    ]
    masks = [
        nib.Nifti1Image((rng.random(shape) < 0.3).astype(np.uint8), affine)
        for affine, shape in grids
        for _ in range(3)
    ]
    expected = sum(
        np.asanyarray(resample_to(m, template, order=0).dataobj).astype(int) for m in masks
    )
    for order in (range(9), rng.permutation(9)):
        found = frequency_map(
            [masks[k] for k in order], enrolled=9, denominator="enrolled", template=template
        )
        assert (np.rint(np.asanyarray(found.image.dataobj) * 9) == expected).all()
    # A flipped copy of one grid is that grid: no template is needed, nothing is resampled.
    both = frequency_map(masks[:6], enrolled=6, denominator="mapped")
    canonical = [np.asanyarray(nib.as_closest_canonical(m).dataobj).astype(int) for m in masks[:6]]
    assert both.image.shape == (24, 28, 20)
    assert (np.rint(np.asanyarray(both.image.dataobj) * 6) == sum(canonical)).all()


def test_a_mask_is_the_same_by_both_ways_of_loading(tmp_path):
    from corelab.imaging import ImageFault, load_image, load_mask

    rng = np.random.default_rng(4)
    las = np.diag([-2.0, 2, 3, 1])
    for dtype in (np.uint8, np.int16, np.float32, np.float64):
        path = tmp_path / f"{np.dtype(dtype).name}.nii.gz"
        voxels = rng.integers(0, 3, (6, 5, 4)).astype(dtype)
        nib.save(nib.Nifti1Image(voxels, las), path)
        slow, fast = load_image(path, kind="mask-lesion"), load_mask(path, kind="mask-lesion")
        fast = nib.as_closest_canonical(fast)
        assert np.allclose(slow.affine, fast.affine)
        assert ((np.asanyarray(slow.dataobj) != 0) == np.asanyarray(fast.dataobj)).all()
    broken = tmp_path / "half.nii.gz"
    nib.save(nib.Nifti1Image(np.full((6, 5, 4), 0.5, np.float32), las), broken)
    with pytest.raises(ImageFault, match="no label"):
        load_mask(broken, kind="mask-lesion")
    (tmp_path / "cut.nii.gz").write_bytes((tmp_path / "uint8.nii.gz").read_bytes()[:60])
    with pytest.raises(ImageFault, match=r"truncated|unpacked"):
        load_mask(tmp_path / "cut.nii.gz", kind="mask-lesion")


def test_reads_and_final_reads_become_rows():
    read = {"participant_id": "1", "visit": "a", "endpoint": "infarct_volume", "reader": "r1"}
    row = _read_rows(pd.DataFrame([read | {"value": "12000", "unit": "mm3"}]))[0]
    assert (row.value, row.unit, row.source, row.repeat) == (12.0, "mL", "r1", 1)
    final = {"value": "12.5", "unit": "mL", "how": "adjudicated", "readers": "r1,r2"}
    final |= {"adjudicator": "r3", "reason": "difference 9 above 5"}
    row = _final_rows(pd.DataFrame([read | final]))[0]
    assert (row.value, row.source) == (12.5, "final")
    assert row.reason == "adjudicated by r3: difference 9 above 5"


def test_windows_hold_their_lower_bound_and_the_end_of_the_last():
    times = (0, 23.99, 24, 168, 168.01, -1)
    found = [_window_of(time, EARLY_DELAYED) for time in times]
    assert found == ["early", "early", "delayed", "delayed", None, None]
    named = SerialImagingSettings(windows="immediate_delayed")
    assert _windows_of(named)["delayed"] == (24.0, 196.0) and _windows_of(None) == {}


def test_a_window_is_a_visit_of_its_own():
    volumes = rows_frame(
        ("a", "d0", "infarct_volume", "r", 10.0), ("a", "d4", "infarct_volume", "r", 8.0)
    )
    times = (("base", "ncct", "01T10:00"), ("d0", "dwi", "01T12:30"), ("d4", "dwi", "05T10:00"))
    scans = [
        ScanRow(kind, "x.nii", visit + kind, "a", visit, acquired_at=f"2024-01-{time}")
        for visit, kind, time in times
    ]
    serial = SerialImagingSettings(windows="immediate_delayed")
    made = serial_rows(volumes, scans, serial, "base")
    values = {(row.visit, row.endpoint): row.value for row in made}
    assert values["delayed", "infarct_percent_change"] == -20.0
    assert values["delayed", "infarct_reversal"] == 1.0
    assert values["immediate", "hours_after_index"] == 2.5
    assert serial_pairs(scans, serial, "base") == {("a", "d4"): "d0"}


@pytest.fixture
def three_visits(tmp_path):
    """A study of one participant at three visits, prepared."""
    (tmp_path / "participants.tsv").write_text("participant_id\n1\n")
    lines = ["participant_id\tvisit\tkind\tpath"]
    for name in "abc":
        (tmp_path / f"{name}.nii.gz").touch()
        lines.append(f"1\t{name}\tdwi\t{name}.nii.gz")
    (tmp_path / "scans.tsv").write_text("\n".join(lines))
    given = {name: str(tmp_path / f"{name}.tsv") for name in ("participants", "scans")}
    study = load_study(
        {"study": {"id": "s"}, "results_dir": str(tmp_path / "results"), "inputs": given}
    )
    prepared = [Prepared("1", n, scans=(Scan(f"sub-1_ses-{n}_dwi", "dwi"),)) for n in "abc"]
    for one in prepared:
        one.write(study.folder / "derivatives" / "sub-1" / f"ses-{one.visit}" / "prepare.json")
    return study, prepared


def test_a_visit_that_cannot_be_measured_leaves_the_others(three_visits, monkeypatch):
    study, prepared = three_visits
    raised = KeyError("grid")

    def measure(prepare, *_, **__):
        if prepare.visit == "b":
            raise raised
        row = make(prepare.participant_id, prepare.visit, "infarct_volume", "pipeline", 3.0, "mL")
        return Measured("1", (row,))

    def measured():
        return measure_subject(
            [VisitRecords(one.visit, one) for one in prepared],
            Normalised("1"),
            study.folder,
            atlases=[],
            settings=SETTINGS,
            first_visits={},
            sources=[f"derivatives/sub-1/ses-{one.visit}/prepare.json" for one in prepared],
        )

    make = measurement_row
    monkeypatch.setattr(visit, "measure_visit", measure)
    record = measured()
    assert [row.visit for row in record.rows] == ["a", "c"]
    assert record.unmeasured == (UnmeasuredVisit("b", "KeyError: 'grid'"),)
    name = "derivatives/sub-1/measure.json"
    record.write(study.folder / name)
    (fault,) = scan_failures(study.folder, {"measure": [name]})
    assert (fault.subject, fault.visit, fault.cause) == ("1", "b", "KeyError: 'grid'")
    assert fault.log.endswith("logs/measure/sub-1.log") and fault.target.endswith(name)
    other = Measured("2", (make("2", "b", "infarct_volume", "pipeline", 2.0, "mL"),))
    other.write(study.folder / "other.json")
    records = [str(study.folder / one) for one in (name, "other.json")]
    parts = collect_study(study, records)
    table = pd.concat([part["measurements"] for part in parts if "measurements" in part])
    table = table[(table["endpoint"] == "infarct_volume") & (table["participant_id"] == "1")]
    table = table.set_index("visit")
    assert table["status"].to_dict() == {"a": "ok", "b": "failed", "c": "ok"}
    assert table.loc["b", "reason"] == "the job measure failed: KeyError: 'grid'"
    raised = MemoryError()
    with pytest.raises(MemoryError):
        measured()
