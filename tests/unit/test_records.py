"""Records of stages: read and written without a change, and refused where a key is not theirs."""

import json
from dataclasses import FrozenInstanceError

import pytest

from corelab.records.base import RecordError, write_record
from corelab.records.images import (
    AcquisitionRow,
    BrainQuality,
    Cut,
    Mask,
    Prepared,
    Scan,
    Segmented,
    Transform,
)
from corelab.records.measured import Measured, MeasurementRow
from corelab.records.perfusion import Gate, Perfused
from corelab.records.subjects import Chain, Normalised, NormalisedMask
from corelab.records.visits import read_visits, visit_masks

SCAN = Scan("s1", "dwi", grid="g1", path="derivatives/a.nii.gz", shape=(4, 4, 2), notes=("x",))
DRAWN = Scan("s2", "mask-infarct", "infarct", "r1", grid="g1", path="m.nii.gz", volume_ml=3.5)
PREPARED = Prepared(
    *("1", "day5"),
    scans=(SCAN, DRAWN),
    brain_masks={"g1": "b.nii.gz"},
    brain_mask_quality={"g1": BrainQuality("dwi", "dwi", cut=(Cut("left", 70.0, 9.0),))},
    acquisition=(
        AcquisitionRow("dwi", "readable", "yes", "yes", "pass", scan_id="s1"),
        AcquisitionRow("dwi", "slices_min", 2.0, 10.0, "fail", scan_id="s1"),
    ),
    transforms={"g1": Transform("g1")},
)
ROW = MeasurementRow(*("1", "day5", "infarct_volume", "r1", 1, "all", 3.5, "mL", "ok", None, "s2"))
RECORDS = [
    PREPARED,
    Segmented("1", "day5", (Mask("infarct", "pipeline", scan_ids=("s1",)),)),
    Perfused("1", "day5", gates=(Gate("frames", 40.0, ">= 30", "pass", "M"),)),
    Normalised(
        "1",
        transforms={"day5": {"g1": Chain(("a",), (False,), ("a",), (True,))}},
        masks=(NormalisedMask("day5", "infarct", "r1"),),
    ),
    Measured("1", (ROW,)),
]


@pytest.mark.parametrize("record", RECORDS, ids=lambda record: record.stage)
def test_a_record_is_read_as_it_was_written(record, tmp_path):
    path = tmp_path / "record.json"
    record.write(path)
    first = path.read_bytes()
    assert type(record).read(path) == record
    type(record).read(path).write(path)
    assert path.read_bytes() == first


@pytest.mark.parametrize("record", RECORDS, ids=lambda record: record.stage)
def test_a_key_that_no_record_has_is_refused_with_the_file(record, tmp_path):
    path = tmp_path / "record.json"
    path.write_text(json.dumps({**record.to_json(), "reasons": None}))
    with pytest.raises(RecordError, match=r"record\.json: .*unknown key 'reasons'"):
        type(record).read(path)


def test_keys_of_parts_missing_keys_and_other_stages_are_refused():
    content = PREPARED.to_json()
    content["scans"][0]["kinds"] = "dwi"
    with pytest.raises(RecordError, match="no record Scan: unknown key 'kinds'"):
        Prepared.from_json(content)
    with pytest.raises(RecordError, match="it has no visit"):
        Prepared.from_json({"stage": "prepare", "participant_id": "1"})
    with pytest.raises(RecordError, match="stage 'prepare'"):
        Segmented.from_json(PREPARED.to_json())


def test_what_is_omitted_is_not_written_and_what_is_none_is():
    image, mask = (scan.to_json() for scan in PREPARED.scans)
    assert "volume_ml" not in image and mask["volume_ml"] == 3.5
    assert image["label"] is None
    readable, slices = (row.to_json() for row in PREPARED.acquisition)
    assert readable["reason"] is None and "reason" not in slices
    assert "products" not in PREPARED.to_json()


def test_a_record_cannot_be_changed():
    with pytest.raises(FrozenInstanceError):
        PREPARED.status = "failed"
    with pytest.raises((AttributeError, TypeError)):
        PREPARED.scans.append(SCAN)


def test_a_written_record_has_the_hashes_of_its_files(tmp_path):
    (tmp_path / "derivatives").mkdir()
    (tmp_path / "derivatives" / "a.nii.gz").write_bytes(b"voxels")
    write_record(PREPARED, tmp_path, tmp_path / "prepare.json")
    assert list(Prepared.read(tmp_path / "prepare.json").products) == ["derivatives/a.nii.gz"]


def test_masks_of_a_visit_by_label_reading_space_and_use():
    scans = (
        *PREPARED.scans,
        Scan("s3", "mask-infarct", "infarct", "r1", 2, grid="g1", path="again.nii.gz"),
        Scan("s4", "mask-infarct", "infarct", space="MNI152", path="mni.nii.gz"),
        Scan("s5", "mask-brain", "brain", path="brain.nii.gz"),
        Scan("s6", "mask-infarct", "infarct", "r2", status="failed", reason="empty"),
    )
    prepared = Prepared("1", "day5", scans=scans)
    segmented = Segmented("1", "day5", (Mask("infarct", "pipeline", path="p.nii.gz"),))
    perfused = Perfused("1", "day5", masks=(Mask("core", "pipeline", path="c.nii.gz"),))

    def names(**rule):
        return [(m.source, m.path) for m in visit_masks(prepared, segmented, perfused, **rule)]

    whole = names()
    assert [path for _, path in whole] == [
        *("m.nii.gz", "again.nii.gz", "mni.nii.gz", None, "p.nii.gz", "c.nii.gz")
    ]
    first = names(labels=["infarct"], repeat=1, space="native", usable=True)
    assert first == [("r1", "m.nii.gz"), ("pipeline", "p.nii.gz")]
    assert names(labels=["brain"]) == [("supplied", "brain.nii.gz")]
    assert names(space="MNI152") == [("supplied", "mni.nii.gz")]
    origins = [mask.origin for mask in visit_masks(prepared, segmented, perfused, usable=True)]
    assert origins[-2:] == ["segment", "perfuse"]


def test_files_of_a_visit_are_told_apart_by_their_stage(tmp_path):
    paths = []
    for record in RECORDS[2::-1]:
        paths.append(tmp_path / f"{record.stage}.json")
        record.write(paths[-1])
    (visit,) = read_visits(paths)
    assert (visit.prepare, visit.segment, visit.perfuse) == tuple(RECORDS[:3])
    RECORDS[4].write(tmp_path / "measure.json")
    assert Measured.read(tmp_path / "measure.json") == RECORDS[4]


def test_settings_of_many_masks_are_held_once():
    first, second = (
        Mask.from_json({"label": "infarct", "source": "pipeline", "parameters": {"z": 2.0}})
        for _ in range(2)
    )
    assert first.parameters == {"z": 2.0} and first.parameters is second.parameters
