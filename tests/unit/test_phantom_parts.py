"""Small parts of the simulated trials, each by an example whose answer is known."""

import numpy as np

from corelab.phantom.design import TrialSpec, enrol, find, infarct_volume_ml, seen_at
from corelab.phantom.head import _enlarge, _template_folder
from corelab.phantom.protocol import protocol
from corelab.phantom.scans import apparent_diffusion
from corelab.phantom.scene import infarct_region
from corelab.phantom.trial import scan_path, true_aspects
from corelab.settings.study import PhantomSettings

SPEC = TrialSpec()


def test_the_design():
    assert TrialSpec.from_settings(PhantomSettings(trial="stroke", seed=7)).seed == 7
    assert TrialSpec.testing().imaged == ("001", "002", "004")
    people = enrol(SPEC)
    assert len(people) == 36 and people[6].participant_id == "007"
    visits = ("baseline", "day5", "day90")
    assert [seen_at(find(SPEC, "017"), v) for v in visits] == [True, False, False]
    person = people[0]
    grown = person.lesion.core_ml + person.growth_ml
    assert infarct_volume_ml(person, "day5") == grown and 0 <= true_aspects(person) <= 10
    assert [infarct_region(v) for v in ("baseline", "day5")] == ["core", "infarct"]
    assert scan_path("001", "baseline", "adc").endswith("/dwi/sub-001_ses-baseline_adc.nii.gz")
    assert protocol(SPEC, "001", "baseline", "dwi").voxel_mm == (1.2, 1.2, 5.0)


def test_the_template_is_enlarged_between_its_voxels():
    assert _template_folder().name == "data"
    assert _enlarge(np.array([[[0.0, 2.0]]])).ravel().tolist() == [0.0, 1.0, 2.0]


def test_no_adc_without_signal():
    b0 = np.ones((9, 3, 3), np.float32)
    b0[:5] = 0.01
    adc = apparent_diffusion(b0, b0 * np.float32(np.exp(-0.8)))
    assert (round(float(adc[8, 1, 1]), 5), float(adc[0, 1, 1])) == (0.0008, 0.0)
