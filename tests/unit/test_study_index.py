"""The index of a folder: BIDS, ISLES'24, UPENN-GBM, SOOP; fast for large data sets."""

from __future__ import annotations

import json
import time

import pytest
import yaml

from corelab.provenance.job import UserError
from corelab.provenance.products import read_table
from corelab.study.bids import _index_bids, _layout_of, write_index
from corelab.study.loading import load_study


def _touch(folder, *names):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()


def _kinds(frame):
    return sorted(zip(frame["participant_id"], frame["visit"], frame["kind"], strict=True))


def test_isles24_by_its_published_names(tmp_path):
    # Layout of the ISLES'24 release: raw_data and derivatives, ses-01 acute CT, ses-02 follow-up MR.
    _touch(
        tmp_path,
        "raw_data/sub-stroke0001/ses-01/sub-stroke0001_ses-01_ncct.nii.gz",
        "raw_data/sub-stroke0001/ses-01/sub-stroke0001_ses-01_ctp.nii.gz",
        "derivatives/sub-stroke0001/ses-01/perfusion-maps/"
        "sub-stroke0001_ses-01_space-ncct_tmax.nii.gz",
        "derivatives/sub-stroke0001/ses-02/sub-stroke0001_ses-02_space-ncct_adc.nii.gz",
        "derivatives/sub-stroke0001/ses-02/sub-stroke0001_ses-02_lesion-msk.nii.gz",
        "derivatives/sub-stroke0001/ses-01/sub-stroke0001_ses-01_lvo-msk.nii.gz",
    )
    (tmp_path / "dataset_description.json").write_text(json.dumps({"Name": "ISLES'24"}))
    frame, unknown = _index_bids(tmp_path)
    assert _layout_of(tmp_path) == "isles24"
    assert _kinds(frame) == [
        ("sub-stroke0001", "01", "ctp"),
        ("sub-stroke0001", "01", "ncct"),
        ("sub-stroke0001", "01", "tmax"),
        ("sub-stroke0001", "02", "adc"),
        ("sub-stroke0001", "02", "mask-infarct"),
    ]
    assert [path.rsplit("/", 1)[1] for path in unknown] == ["sub-stroke0001_ses-01_lvo-msk.nii.gz"]


def test_upenn_gbm_by_its_published_names(tmp_path):
    name = "UPENN-GBM-00001_11"
    _touch(
        tmp_path,
        *(f"images_structural/{name}/{name}_{s}.nii.gz" for s in ("T1", "T1GD", "T2", "FLAIR")),
        f"images_structural_unstripped/{name}/{name}_T1_unstripped.nii.gz",
        f"images_segm/{name}_segm.nii.gz",
        "images_structural/UPENN-GBM-00001_21/UPENN-GBM-00001_21_T1GD.nii.gz",
    )
    frame, unknown = _index_bids(tmp_path)
    assert _layout_of(tmp_path) == "upenn-gbm" and len(unknown) == 1
    masks = frame[frame["kind"].str.startswith("mask-")].set_index("kind")["label_values"]
    assert masks.to_dict() == {
        "mask-enhancing": "4",
        "mask-oedema": "2",
        "mask-tumourcore": "1,4",
        "mask-whole-tumour": "1,2,4",
    }
    images = frame[~frame["kind"].str.startswith("mask-")]
    assert _kinds(images) == [
        ("UPENN-GBM-00001", "follow-up", "T1c"),
        *(("UPENN-GBM-00001", "preoperative", k) for k in ("FLAIR", "T1c", "T1w", "T2w")),
    ]


def test_soop_by_its_published_names(tmp_path):
    _touch(
        tmp_path,
        "sub-1/dwi/sub-1_rec-TRACE_dwi.nii.gz",
        "sub-1/dwi/sub-1_rec-ADC_dwi.nii.gz",
        "sub-1/anat/sub-1_FLAIR.nii.gz",
        "derivatives/lesion_masks/sub-1/dwi/sub-1_space-TRACE_desc-lesion_mask.nii.gz",
    )
    (tmp_path / "participants.tsv").write_text("participant_id\tsex\nsub-1\tF\n")
    described = {"Name": "Stroke Outcome Optimization Project (SOOP)", "DatasetDOI": "ds004889"}
    (tmp_path / "dataset_description.json").write_text(json.dumps(described))
    frame, _ = _index_bids(tmp_path)
    assert _layout_of(tmp_path) == "soop"
    assert _kinds(frame) == [("sub-1", "1", k) for k in ("FLAIR", "adc", "dwi", "mask-infarct")]
    lines = write_index(tmp_path, tmp_path / "out")
    assert "4 scans of 1 participants (soop layout)" in lines[0]
    # The config to start from is one that the workflow takes.
    study = load_study(yaml.safe_load((tmp_path / "out/index/config.yaml").read_text()))
    assert study.config["study"]["disease"] == "stroke" and study.sound, study.findings
    assert [row.exists for row in study.scans] == [True] * 4
    assert read_table(tmp_path / "out/index/participants.tsv")["sex"].tolist() == ["F"]


def test_three_thousand_scans_in_seconds(tmp_path):
    # The issue asks for 3 000 scans in under 60 s.
    for number in range(1000):
        names = [
            f"sub-{number:04d}/ses-1/dwi/sub-{number:04d}_ses-1_{s}.nii.gz" for s in ("dwi", "adc")
        ]
        _touch(tmp_path, *names, f"sub-{number:04d}/ses-1/anat/sub-{number:04d}_ses-1_FLAIR.nii.gz")
    start = time.perf_counter()
    write_index(tmp_path, tmp_path / "out")
    assert time.perf_counter() - start < 20
    assert len(read_table(tmp_path / "out/index/scans.tsv")) == 3000


def test_what_cannot_be_indexed_is_told(tmp_path):
    with pytest.raises(UserError, match="is not a folder"):
        write_index(tmp_path / "absent", tmp_path)
    with pytest.raises(UserError, match="holds no scan"):
        write_index(tmp_path, tmp_path)


def test_odd_names_and_folders_of_bids(tmp_path):
    folder = tmp_path / "My data, 2024 (뇌)"
    _touch(
        folder,
        "sub-01/anat/sub-01_T1w.nii.gz",
        "sub-01/anat/._sub-01_T1w.nii.gz",
        "sub-01/anat/sub-01_part-phase_T2starw.nii.gz",
        "sub-01/anat/sub-01_FLAIR.NII.GZ",
        "sub-01/.git/sub-01_dwi.nii.gz",
        "sub-02/anat/sub-03_T1w.nii.gz",
    )
    (folder / "sub-01" / "again").symlink_to(folder)
    (folder / "participants.tsv").write_text("\ufeffparticipant_id\tage\n01\t61\n01\t62\n")
    output = write_index(folder, tmp_path / "r")
    sheet = read_table(tmp_path / "r" / "index" / "scans.tsv")
    assert _kinds(sheet) == [
        ("sub-01", "1", "FLAIR"),
        ("sub-01", "1", "T1w"),
        ("sub-03", "1", "T1w"),
    ]
    people = read_table(tmp_path / "r" / "index" / "participants.tsv")
    assert people["age"].tolist()[0] == "61"
    text = "\n".join(output)
    assert "1 image files are of no known kind" in text
    assert "1 files lie in the folder of another participant" in text
    assert "1 participants have no row in participants.tsv, the first sub-03" in text
    assert "1 participants are listed again" in text
    study = load_study(yaml.safe_load((tmp_path / "r" / "index" / "config.yaml").read_text()))
    assert study.sound and len(study.scans) == 3 and all(row.exists for row in study.scans)


def test_a_participants_sheet_that_cannot_be_read_is_named(tmp_path):
    _touch(tmp_path, "d/sub-01/anat/sub-01_T1w.nii.gz")
    (tmp_path / "d" / "participants.tsv").write_bytes("participant_id\tage\n".encode("utf-16"))
    output = "\n".join(write_index(tmp_path / "d", tmp_path / "r"))
    assert "UTF-16" in output and "was not used" in output
