"""Sheets as spreadsheets leave them: read rightly, or one message that says what to do."""

import pytest
import yaml

from corelab.study.cells import level_text, number
from corelab.study.loading import StudyError, load_study

PEOPLE = "participant_id\tarm\tage\n001\tA\t61\n002\tB\t62\n003\tA\t63\n"
VALUES = "participant_id\tvisit\tendpoint\tsource\tvalue\tunit\n" + "".join(
    f"{n}\tday5\tinfarct_volume\tc\t{value}\tmL\n" for n, value in (("001", 12.5), ("002", 13))
)
ANALYSIS = {
    **{"id": "a", "type": "comparison", "endpoint": "infarct_volume", "by": "arm"},
    **{"method": "ancova", "covariates": ["age"], "source": "c"},
}


def study_of(folder, people=PEOPLE, values=VALUES, **analysis):
    for name, text in (("participants", people), ("measurements", values)):
        content = text if isinstance(text, bytes) else text.encode()
        (folder / f"{name}.tsv").write_bytes(content)
    config = {
        "study": {"id": "s"},
        "inputs": {
            "participants": str(folder / "participants.tsv"),
            "measurements": [str(folder / "measurements.tsv")],
        },
        "analyses": [ANALYSIS | analysis],
    }
    return load_study(config)


def output(study):
    return [f.message for f in study.findings if f.severity != "note"]


@pytest.mark.parametrize(
    ("people", "message"),
    [
        (PEOPLE.encode("utf-16"), "the file is UTF-16 text, as of Excel's 'Unicode text'"),
        (PEOPLE.replace("A", "위약").encode("cp949"), "not UTF-8 text (byte 27)"),
        (PEOPLE.replace("\t", ";"), "the header has semicolons and no tabs"),
        (PEOPLE.replace("\t", ","), "the header has commas and no tabs"),
        (PEOPLE.replace("\t", "   "), "the header has blanks and no tabs"),
        (b"PK\x03\x04\x14\x00\x06\x00", "the file is an Excel workbook (or another archive)"),
        (b"<html><table>", "the file is HTML or XML"),
        (
            PEOPLE.replace("arm", '"arm"').replace("age", '"age"'),
            'names of columns are in quotation marks ("arm", "age")',
        ),
        *(
            (f"{above}\n{PEOPLE}", "a title, a remark or merged cells stand above the names of the columns")
            for above in ("Table 1: patients", "# exported, 2024", "\tBaseline\t", "Baseline\t\t")
        ),
    ],
)  # fmt: skip
def test_a_sheet_that_is_no_table_is_one_finding(tmp_path, people, message):
    assert output(study_of(tmp_path, people)) == [message]


@pytest.mark.parametrize(
    ("cell", "message"),
    [
        ("12.5 mL", "it has a unit or a word (write the number alone)"),
        ("12,5", "it has a comma (write a decimal point, and no mark for thousands)"),
        ("1,234.5", "it has marks for thousands (write digits and a decimal point alone)"),
        ("1\u00a0234", "it has marks for thousands (write digits and a decimal point alone)"),
        ("12%", "it has a percent sign (write the number alone)"),
        ("<5", "it is a limit, and no value (write the value, or name it in the key recode)"),
        ("#DIV/0!", "it is the error of a spreadsheet program (write the number, or n/a)"),
        ("\u221212.5", "it has a minus sign of another script (write -12.5)"),
        ("１２", "it has digits of another script (write 12)"),
        ("١٢", "it has digits of another script (write 12)"),
    ],
)
def test_a_cell_that_is_nearly_a_number_is_one_finding(tmp_path, cell, message):
    with pytest.raises(ValueError, match="not a number"):
        number(cell)
    study = study_of(tmp_path, values=VALUES.replace("12.5", cell))
    assert not study.sound and output(study) == [f"not a number: {message}"]


@pytest.mark.parametrize("written", ["1", "1.0", "sub-001", "001\u200b", "0001"])
def test_an_id_that_a_spreadsheet_changed_is_recognised(tmp_path, written):
    study = study_of(tmp_path, values=VALUES.replace("001\t", f"{written}\t"))
    (found,) = [f for f in study.findings if f.severity == "error"]
    assert found.value == written and found.remedy.endswith("(did you mean '001'?)")


def test_blanks_byte_order_mark_and_empty_lines_are_read(tmp_path):
    people = "\ufeff" + PEOPLE.replace("001\t", "001 \u00a0\t").replace("\n", "\r\n") + "\t\t\r\n"
    study = study_of(tmp_path, people)
    assert study.sound and study.participants == ("001", "002", "003")


@pytest.mark.parametrize("unit", ["µL", "μL", "㎕", "ul"])
def test_micro_and_one_letter_units_are_read(tmp_path, unit):
    study = study_of(tmp_path, values=VALUES.replace("mL", unit))
    assert study.sound and set(study.sheets["measurements"]["unit"]) == {"uL"}


@pytest.mark.parametrize(
    ("column", "level"), [("치료군", "위약"), ("治疗组", "安慰剂"), ("Treatment arm", "A, high")]
)
def test_columns_and_levels_of_any_script_are_names(tmp_path, column, level):
    people = PEOPLE.replace("arm", column).replace("\tA\t", f"\t{level}\t")
    study = study_of(tmp_path, people, by=column, reference=level)
    assert study.sound and output(study) == []


def test_accents_composed_or_behind_their_letter_look_alike(tmp_path):
    people = PEOPLE.replace("\tA\t", "\tplac\u00e9bo\t").replace("\tB\t", "\tplace\u0301bo\t")
    assert "looks like the arm" in output(study_of(tmp_path, people))[0]


def test_cells_in_quotation_marks_are_reported(tmp_path):
    study = study_of(tmp_path, PEOPLE.replace("\tA\t", '\t"A, high"\t'))
    assert output(study) == ["cells in quotation marks (2 rows), which count as a part of them"]


def test_long_codes_stay_apart():
    codes = "1234567890123456788", "1234567890123456789"
    assert [level_text(code) for code in codes] == list(codes)


def test_numbers_where_names_are_meant_are_named_in_lists_too(tmp_path):
    text = "{id: a, type: agreement, endpoint: e, sources: [1, 2], alpha: 5e-2}"
    with pytest.raises(StudyError) as error:
        study_of(tmp_path, **yaml.safe_load(text))
    assert "YAML reads this word as a number" in str(error.value)
    assert "put it in quotes: '1'" in str(error.value)
    assert "write it without quotes, as a plain number: 0.05" in str(error.value)
