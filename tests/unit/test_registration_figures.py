"""Figures of fits and masks, the ranking of the cohort, and brain masks that are shared."""

from __future__ import annotations

import json
from dataclasses import replace

import nibabel as nib
import numpy as np
import pytest

from corelab.records.images import AcquisitionRow, BrainQuality, Prepared, Scan, Transform
from corelab.records.subjects import Anchor, Chain, Checked, Normalised
from corelab.records.visits import VisitRecords
from corelab.registration import share_brain_masks, template_brain_mask, template_image
from corelab.registration.figures import contact_sheet, quality_figures, quality_table
from corelab.registration.transforms import Affine, apply_transforms, write_affine


def fit(name, dice=0.95, information=1.2, edges=0.6, status="ok", reason=None):
    quality = {"dice": dice, "mutual_information": information, "edge_correlation": edges}
    anchor = Anchor("baseline", "g1", "T1w")
    return Checked(*(name, status, reason, anchor), method="syn", lesion="mask", quality=quality)


def test_failed_fits_come_first_then_what_stands_out():
    cohort = [
        fit(f"{n:02d}", dice=0.95 + 0.001 * (n % 5), edges=0.6 + 0.01 * (n % 7)) for n in range(12)
    ]
    cohort += [fit("odd", edges=0.2), fit("bad", status="failed", reason="dice 0.4 is below")]
    table = quality_table(cohort)
    assert table["participant_id"].tolist()[:2] == ["bad", "odd"]
    assert table["rank"].tolist() == list(range(1, 15))
    assert table.set_index("participant_id").loc["odd", "worst_z"] < -3
    # Another kind of fit is no outlier of this one, and four of a kind are too few to tell.
    thick = [replace(fit(f"thick{n}", dice=0.8 + n / 1000), method="affine") for n in range(4)]
    mixed = quality_table([*cohort, *thick]).set_index("participant_id")
    assert mixed.loc["odd", "worst_z"] == table.set_index("participant_id").loc["odd", "worst_z"]
    assert mixed.loc[[f"thick{n}" for n in range(4)], "worst_z"].isna().all()
    # The order of the records has no say.
    assert (
        quality_table(cohort[::-1])["participant_id"].tolist() == table["participant_id"].tolist()
    )


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """One subject: a coarse T1w in template space moved by 6 mm, its brain and a lesion mask."""
    folder = tmp_path_factory.mktemp("results")
    affine = np.diag([3.0, 3.0, 3.0, 1.0])
    affine[:3, 3] = -98, -134, -72
    grid = nib.Nifti1Image(np.zeros((66, 78, 63), np.float32), affine)
    shift = np.eye(4)
    shift[2, 3] = 6.0  # template point z lies at scan point z + 6
    back = [Affine(np.linalg.inv(shift))]
    lesion = np.zeros(template_image().shape, np.uint8)
    lesion[55:75, 110:130, 80:100] = 1
    for name, image, how in (
        ("t1", template_image(), "linear"),
        ("brain", template_brain_mask(), "label"),
        ("lesion", nib.Nifti1Image(lesion, template_image().affine), "label"),
    ):
        nib.save(apply_transforms(image, grid, back, how), folder / f"{name}.nii.gz")
    write_affine(shift, folder / "fit.mat")
    scan = Scan("s1", "T1w", grid="g1", path="t1.nii.gz")
    mask = Scan(
        *("s2", "mask-infarct", "infarct", "r1"), grid="g1", path="lesion.nii.gz", on_kind="T1w"
    )
    prepare = Prepared(
        *("01", "baseline"), scans=(scan, mask), reference="g1", brain_masks={"g1": "brain.nii.gz"}
    )
    visits = [VisitRecords("baseline", prepare)]
    normalised = Normalised(
        "01",
        method="affine",
        anchor=Anchor("baseline", "g1", "T1w"),
        quality={"dice": 0.96, "mutual_information": 1.3, "edge_correlation": 0.7,
                 "jacobian_min": 0.8, "jacobian_max": 1.2},
        transforms={"baseline": {"g1": Chain(("fit.mat",), (False,), ("fit.mat",), (True,))}},
    )  # fmt: skip
    return folder, visits, normalised


def test_figures_are_drawn_with_the_same_bytes_each_time(study):
    folder, visits, normalised = study
    record = quality_figures(visits, normalised, folder)
    paths = [record.fit, record.tile, record.masks["baseline"]]
    first = [(folder / path).read_bytes() for path in paths]
    assert all(data.startswith(b"\x89PNG") for data in first)
    quality_figures(visits, normalised, folder)
    assert first == [(folder / path).read_bytes() for path in paths]
    json.dumps(record.to_json())
    table = quality_table([record])
    contact_sheet([record], table, folder, folder / "quality" / "sheet.png")
    assert (folder / "quality" / "sheet.png").stat().st_size > 5000


def test_a_failed_fit_is_drawn_and_a_subject_without_images_is_told(study):
    folder, visits, normalised = study
    failed = replace(normalised, status="failed", reason="dice 0.4 is below", transforms={})
    assert (folder / quality_figures(visits, failed, folder).fit).is_file()
    nothing = replace(failed, status="not_computable", anchor=None)
    record = quality_figures([], nothing, folder)
    assert record.fit is None and record.masks == {}
    table = quality_table([record])
    contact_sheet([record], table, folder, folder / "none.png")
    assert table.loc[0, "status"] == "not_computable"


def test_a_warning_ranks_before_sound_fits_and_stands_on_the_tile(study):
    from corelab.registration.figures import _tile_words

    folder, visits, normalised = study
    quality = {**normalised.quality, "ventricle_offset_mm": 5.04, "dice": 0.99}
    warned = replace(normalised, participant_id="02", quality=quality, warning="walls 5 mm off")
    table = quality_table(
        [quality_figures(visits, record, folder) for record in (normalised, warned)]
    )
    assert table["participant_id"].tolist() == ["02", "01"]
    assert table.loc[0, "warning"] == "walls 5 mm off"
    assert table.loc[0, "ventricle_offset_mm"] == 5.04
    assert "ventricles 5.0 mm off" in _tile_words(table.to_dict("records")[0])


def test_the_edges_lie_on_the_scan_when_the_fit_is_right(study):
    from corelab.registration.figures import _planes, _template_planes, template_edges

    folder, _, normalised = study
    image = nib.load(folder / "t1.nii.gz")
    chain = normalised.transforms["baseline"]["g1"]
    outline = [template_edges(plane) for plane in _template_planes()]

    def steepness(given):
        planes = _planes(image, given, folder)
        steep = [np.linalg.norm(np.gradient(plane), axis=0) for plane in planes]
        return np.mean([s[edges].mean() for s, edges in zip(steep, outline, strict=True)])

    assert steepness(chain) > 1.3 * steepness(None)


class TestSharedBrainMasks:
    def record(self, folder, *, source="b0", verdict="pass", status="ok"):
        shift = np.eye(4)
        shift[0, 3] = 3.0  # reference point x lies at grid point x + 3
        write_affine(shift, folder / "derivatives" / "a.mat")
        data = np.zeros((20, 20, 20), np.uint8)
        data[5:15, 5:15, 5:15] = 1
        for name, mask in (("good", data), ("weak", np.ones_like(data))):
            path = folder / "derivatives" / f"{name}.nii.gz"
            nib.save(nib.Nifti1Image(mask, np.diag([3.0, 3, 3, 1])), path)
        return Prepared(
            *("01", "v"),
            brain_masks={"g1": "derivatives/good.nii.gz", "g2": "derivatives/weak.nii.gz"},
            brain_mask_quality={
                "g1": BrainQuality("T1w", volume_ml=27.0),
                "g2": BrainQuality(source, volume_ml=216.0, verdict=verdict),
            },
            transforms={
                "g1": Transform("g1"),
                "g2": Transform("g1", "derivatives/a.mat", "rigid", status=status),
            },
        )

    def mask(self, folder):
        return np.argwhere(np.asarray(nib.load(folder / "derivatives" / "weak.nii.gz").dataobj))

    def test_b0_takes_the_mask_of_the_t1_to_where_the_brain_is(self, tmp_path):
        (tmp_path / "derivatives").mkdir()
        found = share_brain_masks(self.record(tmp_path), tmp_path).brain_mask_quality["g2"]
        assert found.source == "T1w of g1" and found.own_volume_ml == 216.0
        places = self.mask(tmp_path)
        assert places.min(axis=0).tolist() == [6, 5, 5] and places.max(axis=0).tolist() == [
            15,
            14,
            14,
        ]

    @pytest.mark.parametrize(
        "given", [{"source": "FLAIR"}, {"source": "supplied"}, {"status": "failed"}]
    )
    def test_sound_supplied_and_unaligned_masks_stay(self, tmp_path, given):
        (tmp_path / "derivatives").mkdir()
        record = self.record(tmp_path, **given)
        assert share_brain_masks(record, tmp_path).brain_mask_quality == record.brain_mask_quality
        assert len(self.mask(tmp_path)) == 8000

    def test_a_leak_is_mended_whatever_the_kind(self, tmp_path):
        (tmp_path / "derivatives").mkdir()
        record = self.record(tmp_path, source="FLAIR", verdict="fail")
        found = share_brain_masks(record, tmp_path).brain_mask_quality["g2"]
        assert found.source == "T1w of g1"

    def test_rows_of_the_masks_are_in_the_acquisition_table(self, tmp_path):
        (tmp_path / "derivatives").mkdir()
        record = self.record(tmp_path, verdict="warn", status="failed")
        quality = dict(record.brain_mask_quality)
        quality["g2"] = replace(quality["g2"], kind="b0", limits_ml=(900.0, 1800.0))
        record = replace(
            record,
            scans=(Scan("s2", "b0", grid="g2"),),
            acquisition=(AcquisitionRow("b0", "readable", "yes", "yes", "pass"),),
            brain_mask_quality=quality,
        )
        rows = share_brain_masks(record, tmp_path).acquisition
        assert [(row.criterion, row.verdict) for row in rows] == [
            ("readable", "pass"),
            ("brain_mask", "fail"),
            ("brain_in_field", "pass"),
        ]
        assert rows[1].value == 216.0 and "check it" in rows[1].reason
