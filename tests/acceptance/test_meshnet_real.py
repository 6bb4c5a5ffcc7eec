"""Networks with real weights: against the mask that the network's makers give, and on one head."""

from __future__ import annotations

import nibabel as nib
import numpy as np
import pytest
from helpers import data_folder, prepare_rows

from corelab.imaging.meshnet import network_mask, read_meshnet
from corelab.segmentation.visit import segment_visit
from corelab.settings.segmentation import SegmentationSettings

pytestmark = [pytest.mark.acceptance, pytest.mark.slow]


def test_t2_lesion_is_that_of_brainchop(tmp_path):
    folder = data_folder("models/t2lesion")
    scan = {"participant_id": "1", "visit": "v", "kind": "T2w", "scan_id": "s"}
    scan["path"] = str(folder / "M2265_T2w.nii.gz")
    record = prepare_rows([scan], tmp_path)
    entry = {"id": "t2lesion", "kind": "meshnet", "label": "lesion", "inputs": {"T2w": "t2.nii"}}
    entry["weights"] = str(folder / "model.json")
    found = segment_visit(
        record, tmp_path, disease="stroke", settings=SegmentationSettings(external=[entry])
    )
    (mask,) = [mask for mask in found.masks if mask.source == "pipeline:t2lesion"]
    assert mask.status == "ok" and mask.quality["model"] == "t2lesion"
    assert mask.quality["volume_ml"] == pytest.approx(34.917, abs=0.01)
    ours = nib.as_closest_canonical(nib.load(tmp_path / mask.path))
    theirs = nib.as_closest_canonical(nib.load(folder / "M2265_lesion_meshnet_check.nii.gz"))
    assert np.allclose(ours.affine, theirs.affine, atol=1e-3)
    ours, theirs = np.asarray(ours.dataobj) > 0, np.asarray(theirs.dataobj) > 0
    assert 2 * (ours & theirs).sum() / (ours.sum() + theirs.sum()) > 0.9999


def test_mindgrab_on_colin27():
    """One component that holds brain and outer fluid; not lower, and not with the face."""
    network = read_meshnet(data_folder("models/mindgrab"))
    image = nib.load(data_folder("registration/afids") / "ch2.nii.gz")
    mask = network_mask(network, image, "T1w")
    assert network.known["model"] == "mindgrab"
    assert 1900 < mask.sum() / 1000 < 2060  # 2,002 mL with the whole grid computed
    inside = nib.affines.apply_affine(np.linalg.inv(image.affine), [[0, 0, 20], [30, -60, -30]])
    outside = nib.affines.apply_affine(np.linalg.inv(image.affine), [[0, 85, -30], [0, -20, 95]])
    at = lambda points: mask[tuple(np.rint(points).astype(int).T)]  # noqa: E731
    assert at(inside).all() and not at(outside).any()
