"""Real patients through the workflow, against experts, networks and the eye (docs/real_data.md)."""

from __future__ import annotations

import pytest
import real_data
from helpers import data_folder

pytestmark = [pytest.mark.acceptance, pytest.mark.slow]


def check_figures(case, figures):
    """Keep the figures for the page, then fail with every limit that is broken."""
    real_data.keep(case, figures)
    assert real_data.unmet(figures) == []


def test_stroke(tmp_path):
    data = data_folder()
    results = real_data.run(real_data.stroke_study(tmp_path, data))
    network = "DAGMNet_CH3_Lesion_Predict.nii.gz"
    figures = [
        *real_data.infarct_figures(
            results, "ADS01", real_data.DEVELOP, data / f"stroke/ads_subject01/Subject01_{network}"
        ),
        *real_data.infarct_figures(
            results,
            "ADS02",
            real_data.USED_AGAIN,
            data / f"stroke/ads_subject02/Subject02_{network}",
        ),
        *real_data.isles_figures(results),
        *real_data.ct_figures(results),
    ]
    check_figures("stroke", figures)


def test_glioma(tmp_path):
    data = data_folder()
    results = real_data.run(real_data.glioma_study(tmp_path, data))
    check_figures("glioma", real_data.glioma_figures(results, data))


def test_head_of_another_template(tmp_path):
    data = data_folder()
    check_figures("colin", real_data.colin_figures(tmp_path, data))


def test_brain_masks(tmp_path):
    check_figures("brain", real_data.brain_figures(data_folder(), tmp_path))


def test_planted_lesions(tmp_path):
    check_figures("recovery", real_data.recovery_figures(tmp_path, data_folder()))
