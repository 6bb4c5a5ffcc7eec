"""Codes, words and numbers of the participants sheet, from the sheet to the design matrix."""

from __future__ import annotations

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from corelab.measurement.selection import NotComputable
from corelab.pharmacodynamics.analysis_set import typed
from corelab.plan.runner import EVERY, tables_of
from corelab.provenance.products import write_table
from corelab.study.cells import is_numeric, number, numbers
from corelab.study.columns import MEASUREMENTS
from corelab.study.expression import select
from corelab.study.loading import load_study
from corelab.study.units import common_units, unify


@pytest.mark.parametrize(
    ("expression", "chosen"),
    [
        ('site != "01"', [False, True, True, False]),
        ('site == "01"', [True, False, False, False]),
        ('site not in ["01"]', [False, True, True, False]),
        ('site != 1', [False, True, True, False]),
        ('stratum == "1"', [True, False, True, False]),
        ('stratum != "1"', [False, True, False, True]),
    ],
)  # fmt: skip
@pytest.mark.parametrize("read_as_numbers", [False, True])
def test_quoted_codes_select_the_same_before_and_after_reading(expression, chosen, read_as_numbers):
    table = pd.DataFrame({"site": ["01", "02", "03", None], "stratum": ["1", "2", "1", "2"]})
    if read_as_numbers:
        for column in table:
            if is_numeric(table[column]):
                table[column] = numbers(table[column])
    assert select(expression, table).tolist() == chosen


def test_codes_and_words_stay_levels():
    assert typed(pd.Series(["01", "1", None])).tolist() == ["01", "1", None]
    assert typed(pd.Series(["none", "aspirin", "NA", "n/a"])).tolist() == [
        "none", "aspirin", "NA", None,
    ]  # fmt: skip


@pytest.mark.parametrize("slip", [".", "-", ">21", "12,5", "NA", "unknown"])
def test_one_slip_does_not_make_a_covariate_a_factor(slip):
    cells = pd.Series(["4", "7", slip, "12", "n/a"], name="nihss")
    with pytest.raises(NotComputable, match="nihss holds numbers and"):
        typed(cells)
    assert typed(cells, categorical=True).notna().sum() == 4


def test_one_parser_of_numbers():
    assert number("89+", capped=True) == 89 and number(" 1e-3 ") == 0.001
    for wrong in ("１２", "1_0", "0x10", "nan", "inf", "89+", "1.2.3", "", "+", "1e999"):
        with pytest.raises(ValueError, match="not a"):
            number(wrong)


def test_capped_ages_are_numbers_in_an_analysis():
    assert typed(pd.Series(["70", "89+", ">89"], name="age")).tolist() == [70.0, 89.0, 89.0]


def units_study(**columns):
    return {"exposures": pd.DataFrame({"exposure": "auc", **columns}, index=range(2, 5))}


def test_convertible_units_of_one_quantity_become_one():
    sheets = units_study(value=["1.5", "900", "2"], unit=["µg/ml", "ng/mL", "ug/mL"])
    (note,) = unify(sheets, {"exposures": "e.tsv"}, common_units(sheets))
    assert (note.severity, note.sheet, note.row) == ("note", "e.tsv", 3)
    assert sheets["exposures"]["value"].tolist() == ["1.5", "0.9", "2"]
    assert sheets["exposures"].loc[3, "unit"] == "ug/mL"


@pytest.mark.parametrize(
    ("units", "row"), [(["mg/dL", "mmol/L", "mg/dL"], 3), (["mg/dL", "g/L", None], 4)]
)
def test_units_that_cannot_be_joined_are_an_error(units, row):
    sheets = units_study(value=["1", "2", "3"], unit=units)
    wrong = [f for f in unify(sheets, {}, common_units(sheets)) if f.severity == "error"]
    assert [f.row for f in wrong] == [row]


def test_one_unit_and_none_beside_it_pass():
    sheets = units_study(value=["1", "2", "3"], unit=["ng/mL", None, "ng/mL"])
    assert list(unify(sheets, {}, common_units(sheets))) == []


CELLS = st.sampled_from(
    ["01", "1", "10", "007", "none", "NA", "nan", "N/A", "n/a", "yes", "no", "1.0", "1.5", "-3"]
    + ["1e2", "a b", "Ä", "drug α", "0", "<5"]
)


@settings(max_examples=40, deadline=None)
@given(
    column=st.sampled_from(["site", "arm", "stratum", "prior"]),
    cells=st.lists(CELLS, min_size=1, max_size=8),
    encoding=st.sampled_from(["utf-8", "utf-8-sig"]),
    end=st.sampled_from(["\n", "\r\n"]),
)
def test_preflight_and_analyses_see_the_same_rows_and_levels(
    tmp_path_factory, column, cells, encoding, end
):
    folder = tmp_path_factory.mktemp("sheet")
    lines = [f"participant_id\t{column}", *(f"0{n}\t{cell}" for n, cell in enumerate(cells))]
    (folder / "participants.tsv").write_bytes((end.join(lines) + end).encode(encoding))
    write_table(pd.DataFrame(columns=list(MEASUREMENTS)), folder / "m.tsv", MEASUREMENTS)
    study = load_study(
        {"study": {"id": "s"}, "inputs": {"participants": str(folder / "participants.tsv")}}
    )
    assert study.sound
    sheet = study.sheets["participants"].reset_index(drop=True)
    read = tables_of(EVERY, study, folder / "m.tsv", None).participants
    assert read["participant_id"].tolist() == [f"0{n}" for n in range(len(cells))]
    present = [cell for cell in cells if cell != "n/a"]
    assert read[column].isna().tolist() == [cell == "n/a" for cell in cells]
    for level in present:
        for operator in (
            f'== "{level}"',
            f'!= "{level}"',
            f'in ["{level}"]',
            f'not in ["{level}"]',
        ):
            expression = f"{column} {operator}"
            assert select(expression, sheet).tolist() == select(expression, read).tolist(), cells
    levels = typed(sheet[column], categorical=True)
    assert levels.tolist() == [None if cell == "n/a" else cell for cell in cells]
