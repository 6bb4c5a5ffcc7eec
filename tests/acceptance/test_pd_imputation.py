"""Reference-based imputation of the antidepressant trial against SAS's five macros.

CAMIS, "Reference-Based Multiple Imputation (joint modelling): Continuous Data" (SAS page), table of
the contrast at visit 7 with 5000 imputations: estimate, standard error and p.
"""

import pandas as pd
import pytest
from helpers import data_folder, run

from corelab.measurement.selection import Tables

pytestmark = [pytest.mark.acceptance, pytest.mark.slow]
SAS = {
    "mar": (-2.825, 1.123, 0.0130),
    "cr": (-2.400, 1.115, 0.0330),
    "j2r": (-2.144, 1.136, 0.0611),
    "cir": (-2.481, 1.115, 0.0276),
}
IMPUTATIONS = 2000
#: Monte-Carlo standard error of an estimate with that number: SD between data sets 0.42.
ERROR = 0.42 / IMPUTATIONS**0.5


@pytest.fixture(scope="module")
def trial():
    folder = data_folder().parent / "cases" / "statistics" / "c08_antidepressant_mmrm_mi"
    if not folder.is_dir():
        pytest.skip(f"the antidepressant trial is missing: {folder}")
    values = pd.read_csv(folder / "measurements.tsv", sep="\t").assign(region="all", status="ok")
    people = pd.read_csv(folder / "participants.tsv", sep="\t")
    visits = ("baseline", "w4", "w5", "w6", "w7")
    return Tables(values, people, visit_order=visits, baseline="baseline")


@pytest.mark.parametrize("strategy", SAS)
def test_the_contrast_at_visit_7(strategy, trial):
    row = run(
        {
            "id": "a",
            "type": "comparison",
            "endpoint": "hamd17",
            "derivation": "change",
            "by": "arm",
            "reference": "PLACEBO",
            "covariates": ["gender"],
            "visit": "w7",
            "method": "multiple_imputation",
            "imputations": IMPUTATIONS,
            "imputation": strategy,
        },
        trial,
    ).iloc[0]
    estimate, error, p = SAS[strategy]
    assert row["estimate"] == pytest.approx(estimate, abs=3.5 * ERROR)
    width = (row["ci_high"] - row["ci_low"]) / 2 / 1.98
    assert width == pytest.approx(error, rel=0.02)
    assert row["p_value"] == pytest.approx(p, abs=0.006)
