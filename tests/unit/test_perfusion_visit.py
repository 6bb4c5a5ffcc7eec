"""The stage of the workflow: files in, record and files out; faults become a status."""

from __future__ import annotations

import json
from dataclasses import replace

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
from helpers import prepare_rows
from perfusion_heads import HeadCase, simulate_head, write_head

from corelab.perfusion import perfuse_visit
from corelab.provenance.products import file_sha256, write_table
from corelab.records.images import Mask, Prepared, Scan
from corelab.records.perfusion import Quantity
from corelab.settings.perfusion import PerfusionSettings

CASE = HeadCase(
    "tiny", side="right", core_ml=40.0, hypoperfused_ml=150.0, shape=(80, 96, 8),
    voxel_mm=(2.4, 2.4, 10.0),
)  # fmt: skip


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    folder = tmp_path_factory.mktemp("scan")
    head = simulate_head(CASE)
    files = write_head(head, folder)
    return head, folder, files


def prepared(paths, out):
    rows = [
        {"participant_id": "01", "visit": "baseline", "kind": kind, "path": str(path),
         "scan_id": f"s-{kind}"}
        for kind, path in paths.items()
    ]  # fmt: skip
    return prepare_rows(rows, out)


@pytest.fixture(scope="module")
def done(written, tmp_path_factory):
    out = tmp_path_factory.mktemp("out")
    record = prepared({"ctp": written[2][0]}, out)
    return out, record, perfuse_visit(record, out, settings=PerfusionSettings())


def mask(out, result, label, source="pipeline"):
    entry = next(m for m in result.masks if (m.label, m.source) == (label, source))
    return np.asarray(nib.load(out / entry.path).dataobj) > 0


def test_record_names_files_that_are_there(done):
    out, _, result = done
    assert result.status == "ok" and json.dumps(result.to_json())
    paths = [m.path for m in (*result.masks, *result.maps)]
    paths += [result.registry.path, *result.figures.values()]
    assert len(paths) == len(set(paths))
    for path in paths:
        assert (out / path).stat().st_size > 0
    names = {m.quantity: m.engine for m in result.maps if m.primary}
    assert {names[name] for name in ("cbf", "cbv", "mtt", "tmax")} == {"bayes"}


def test_masks_hold_together(done):
    out, _, result = done
    core, late = mask(out, result, "core"), mask(out, result, "hypoperfused")
    penumbra = mask(out, result, "penumbra")
    assert not (core & ~late).any()
    np.testing.assert_array_equal(penumbra, late & ~core)
    bands = [mask(out, result, "hypoperfused", f"pipeline:tmax{s}") for s in (4, 8, 10)]
    assert bands[0].sum() > late.sum() > bands[1].sum() >= bands[2].sum()
    rule = next(m for m in result.masks if m.label == "core").parameters
    assert rule["engine"] == "bayes" and rule["below"] == 0.3 and rule["affected_side"] == "right"


def test_quantities_follow_from_the_masks(done):
    out, _, result = done
    core, late = mask(out, result, "core"), mask(out, result, "hypoperfused")
    values = {q.endpoint: q.value for q in result.quantities if q.source == "pipeline"}
    assert values["mismatch_ratio"] == pytest.approx(late.sum() / core.sum())
    later = mask(out, result, "hypoperfused", "pipeline:tmax10")
    assert values["hypoperfusion_intensity_ratio"] == pytest.approx(later.sum() / late.sum())
    assert 0 < values["cbv_index"] < 1.2


def test_registry_has_a_frame_for_every_id(done):
    out, _, result = done
    image = nib.load(out / result.registry.path)
    assert image.shape[3] == len(result.registry.ids) >= 40
    assert {"rapid", "cereda2016", "rcbf30"} <= set(result.registry.ids)


def test_same_input_same_bytes(done, tmp_path):
    out, record, result = done
    copied(out, record, tmp_path)
    again = perfuse_visit(record, tmp_path, settings=PerfusionSettings(), threads=1)
    assert again == result
    paths = [m.path for m in (*result.masks, *result.maps)]
    for path in (*paths, *result.figures.values()):
        assert file_sha256(out / path) == file_sha256(tmp_path / path), path


@pytest.mark.parametrize(("minutes", "below"), [(90, 0.2), (91, 0.3), (None, 0.3)])
def test_early_scans_use_the_stricter_core(done, minutes, below, monkeypatch):
    from corelab.perfusion import visit

    out, record, _ = done
    monkeypatch.setattr(visit, "analyse_series", _once(visit.analyse_series))
    result = perfuse_visit(
        record, out, settings=PerfusionSettings(figures=False), minutes_onset_to_ct=minutes
    )
    assert result.masks[0].parameters["below"] == below


_known: dict[str, object] = {}


def _once(function):
    def remembered(*arguments, **keywords):
        if "series" not in _known:
            _known["series"] = function(*arguments, **keywords)
        return _known["series"]

    return remembered


@pytest.mark.parametrize("engine", ["ssvd", "bsvd", "osvd", "tikhonov", "bayes"])
def test_every_engine_can_make_core_hypoperfusion_and_registry(written, done, tmp_path, engine):
    """As the one engine of everything: masks, maps and registry name it, and find the lesion."""
    out, record, _ = done
    copied(out, record, tmp_path)
    settings = {
        "core": {"engine": engine},
        "hypoperfusion": {"engine": engine},
        "registry_engine": engine,
        "figures": engine == "tikhonov",
    }
    result = perfuse_visit(record, tmp_path, settings=PerfusionSettings.model_validate(settings))
    assert result.status == "ok", result.reason
    primary = {m.quantity: m.engine for m in result.maps if m.primary}
    assert {primary[q] for q in ("cbf", "cbv", "mtt", "tmax", "ttp")} == {engine}
    paths = [m.path for m in result.maps]
    assert len(paths) == len(set(paths)) and "osvd" in {m.engine for m in result.maps}
    core = next(m for m in result.masks if (m.label, m.desc) == ("core", None))
    assert core.parameters["engine"] == engine
    assert engine in core.parameters["within"]
    assert result.registry.engine == engine and len(result.registry.ids) >= 40
    head = written[0]
    found, late = mask(tmp_path, result, "core"), mask(tmp_path, result, "hypoperfused")
    # At 30 % an SVD under-calls the core (docs/perfusion.md); it is found inside the true one.
    assert (
        found.sum() > 0.2 * head.core.sum()
        and (found & head.hypoperfused).sum() > 0.9 * found.sum()
    )
    overlap = 2 * (late & head.hypoperfused).sum() / (late.sum() + head.hypoperfused.sum())
    assert overlap > 0.7, overlap


@pytest.mark.parametrize("rule", ["contralateral", "mirror", "whole-normal", "by-tissue"])
def test_every_reference_of_the_config_gives_a_core(written, done, tmp_path, rule, monkeypatch):
    from corelab.perfusion import visit

    out, record, _ = done
    copied(out, record, tmp_path)
    monkeypatch.setattr(visit, "analyse_series", _once(visit.analyse_series))
    settings = {"core": {"reference": rule}, "figures": False}
    result = perfuse_visit(record, tmp_path, settings=PerfusionSettings.model_validate(settings))
    truth = written[0].core.sum()
    assert 0.5 * truth < mask(tmp_path, result, "core").sum() < 1.5 * truth
    assert result.masks[0].parameters["reference"] == rule


def test_the_schema_offers_what_the_room_knows():
    from corelab.perfusion.fit import ENGINES
    from corelab.perfusion.lesions import REFERENCES
    from corelab.study.schema import load_schema

    block = load_schema("config")["properties"]["perfusion"]["properties"]
    assert set(block["core"]["properties"]["reference"]["enum"]) == set(REFERENCES)
    for engine in (
        block["core"]["properties"]["engine"],
        block["hypoperfusion"]["properties"]["engine"],
        block["registry_engine"],
    ):
        assert set(engine["enum"]) == set(ENGINES)


def test_a_card_that_is_not_there_fails_the_job_and_not_the_scan(done, tmp_path, monkeypatch):
    from corelab.perfusion import accelerated

    def absent():
        raise ImportError("No module named 'torch'")

    monkeypatch.setattr(accelerated, "_cupy", absent)
    monkeypatch.setattr(accelerated, "_torch", absent)
    out, record, _ = done
    copied(out, record, tmp_path)
    with pytest.raises(accelerated.DeviceError, match=r"set perfusion\.device to cpu"):
        perfuse_visit(record, tmp_path, settings=PerfusionSettings(device="cuda"))


def copied(out, record, to):
    """The prepared scans and brain masks of a visit in another folder."""
    for path in (*(s.path for s in record.scans), *record.brain_masks.values()):
        (to / path).parent.mkdir(parents=True, exist_ok=True)
        (to / path).write_bytes((out / path).read_bytes())


def test_supplied_arterial_input_is_used(written, tmp_path):
    head, folder, files = written
    table = pd.DataFrame({"time_s": head.times_s, "value": head.aif})
    curve = write_table(table, folder / "aif.tsv", ["time_s", "value"], sort=False)
    record = prepared({"ctp": files[0], "aif": curve}, tmp_path)
    result = perfuse_visit(record, tmp_path, settings=PerfusionSettings(figures=False))
    assert result.parameters["aif"] == "supplied"
    assert result.parameters["partial_volume_scale"] == 1.0


def test_ready_made_maps_are_thresholded(written, tmp_path):
    head, folder, _ = written
    paths = {}
    for kind, values in {
        "cbf": head.cbf_ml_100g_min,
        "cbv": head.cbv_ml_100g,
        "tmax": (head.delay_s + head.mtt_s / 2) * head.tissue,
        "mask-brain": head.tissue.astype(np.uint8),
    }.items():
        paths[kind] = folder / f"{kind}.nii.gz"
        nib.save(nib.Nifti1Image(values, head.affine), paths[kind])
    record = prepared(paths, tmp_path)
    result = perfuse_visit(record, tmp_path, settings=PerfusionSettings())
    assert result.status == "ok", result.reason
    core, late = mask(tmp_path, result, "core"), mask(tmp_path, result, "hypoperfused")
    assert core.sum() == pytest.approx(head.core.sum(), rel=0.08)
    assert late.sum() == pytest.approx(head.hypoperfused.sum(), rel=0.08)
    assert result.masks[0].parameters["engine"] == "supplied"
    assert "lin2016" in result.registry.left_out  # there is no map of the delay


def test_nothing_rests_on_a_brain_mask_that_failed(done):
    out, record, _ = done
    ((grid, quality),) = record.brain_mask_quality.items()
    bad = replace(record, brain_mask_quality={grid: replace(quality, verdict="fail")})
    result = perfuse_visit(bad, out, settings=PerfusionSettings())
    assert result.status == "not_computable" and "brain mask" in result.reason
    assert {q.endpoint: q.status for q in result.quantities} == {
        "core_volume": "not_computable",
        "hypoperfused_volume": "not_computable",
    }


def test_a_doubtful_brain_mask_is_in_the_reason_of_every_number(done):
    from corelab.perfusion.visit import _Job

    folder, record, _ = done
    ((grid, quality),) = record.brain_mask_quality.items()
    warned = replace(record, brain_mask_quality={grid: replace(quality, verdict="warn")})
    quantity = Quantity("mismatch_ratio", "pipeline", 1.0, "ratio", reason="why")
    result = _Job(warned, folder, PerfusionSettings())
    result.masks, result.quantities = [Mask("core", "pipeline")], [quantity]
    result.warn(grid)
    assert result.masks[0].reason.startswith("the brain mask (from ctp")
    assert result.quantities[0].reason.startswith("why; the brain mask")


def test_series_without_bolus_is_a_status_not_a_crash(written, tmp_path):
    head, _, _ = written
    still = np.repeat(head.signal[..., :1], 20, axis=-1)
    still += np.random.default_rng(0).normal(0, 3, still.shape).astype(np.float32)
    image = nib.Nifti1Image(still, head.affine)
    image.header.set_zooms((*CASE.voxel_mm, 1.5))
    image.header.set_xyzt_units("mm", "sec")
    nib.save(image, tmp_path / "still.nii.gz")
    record = prepared({"ctp": tmp_path / "still.nii.gz"}, tmp_path)
    result = perfuse_visit(record, tmp_path, settings=PerfusionSettings())
    assert result.status == "failed"
    assert "arterial" in result.reason
    rows = [(q.endpoint, q.status, q.reason) for q in result.quantities]
    assert rows == [
        (name, "failed", result.reason) for name in ("core_volume", "hypoperfused_volume")
    ]


def test_visit_without_perfusion_is_not_computable():
    record = Prepared("01", "v")
    result = perfuse_visit(record, ".", settings=PerfusionSettings())
    assert result.status == "not_computable" and "no usable perfusion" in result.reason
    assert result.quantities == ()


def test_series_refused_before_this_stage_gives_rows_with_its_reason():
    scan = Scan("s", "ctp", status="failed", reason="the first axis is time")
    record = Prepared("01", "v", scans=(scan,))
    result = perfuse_visit(record, ".", settings=PerfusionSettings())
    assert result.status == "failed"
    assert {q.endpoint: q.reason for q in result.quantities} == {
        "core_volume": "ctp: the first axis is time",
        "hypoperfused_volume": "ctp: the first axis is time",
    }
