"""Small parts of study, settings, terms and workflow, each by an example of a known answer."""

from types import SimpleNamespace
from typing import Annotated

import pandas as pd
import pytest
import yaml

from corelab.settings.analyses import spec_of
from corelab.settings.analyses.base import AnalysisSpec
from corelab.settings.analyses.keys import unread
from corelab.settings.base import Registered, Settings, fingerprint
from corelab.settings.config import Config
from corelab.settings.schema import _config_schema
from corelab.settings.segmentation import GreHaematomaThresholds
from corelab.study import bids, cells, checks, models, naming, schema, units
from corelab.study.central import central_findings
from corelab.study.documentation import config_readme
from corelab.study.expression import select
from corelab.study.findings import Finding, at, errors, findings_frame, in_config
from corelab.study.mask_flags import flag_title, needs_attention
from corelab.study.plan_figures import figure_kinds
from corelab.study.sheets import _scan_identifier
from corelab.terms.results import Estimate, StatisticRow, join_notes, not_computable
from corelab.terms.statistics import family_of, registered
from corelab.workflow.session import _shown_by_snakemake, is_dry_run

SINGLE = {"study": {"id": "a", "design": "single_arm"}, "inputs": {"participants": "p"}}


def test_layouts_of_folders(tmp_path):
    (tmp_path / "UPENN-GBM-00001_11").mkdir()
    assert bids._layout_of(tmp_path) == "upenn-gbm"


def test_index_of_a_folder(tmp_path):
    folder = tmp_path / "sub-1" / "ses-a" / "dwi"
    folder.mkdir(parents=True)
    (folder / "sub-1_ses-a_adc.nii.gz").touch()
    found, unknown = bids._index_bids(tmp_path)
    assert found.values.tolist() == [
        ["sub-1", "a", "adc", "sub-1/ses-a/dwi/sub-1_ses-a_adc.nii.gz", None, None, "native", None]
    ]
    assert not unknown


def test_a_config_to_start_from(tmp_path):
    text = bids._starting_config(tmp_path / "My set", tmp_path / "index", {"T1c", "FLAIR"})
    content = yaml.safe_load(text)
    assert content["study"] == {"id": "My-set", "title": "My set", "disease": "glioma"}


def test_words_about_a_cell():
    assert cells._problem("12.5 mL") == (
        "not a number: it has a unit or a word (write the number alone)"
    )


def test_a_single_arm_trial_is_read_centrally():
    (found,) = central_findings(Config(**SINGLE), {}, {})
    assert "blinded independent central review" in found.message


def test_a_bad_cell_of_a_column_that_is_used_is_an_error():
    bad = at("p.tsv", 2, "age", "old", "not a number", "correct it")
    config = {"study": {"id": "s"}, "inputs": {"participants": "p.tsv"}}
    names = {"participants": "p.tsv"}
    used = Config(**config, analyses=[{"population": "age > 60"}])
    assert [checks.weighed([bad], c, names)[0].severity for c in (Config(**config), used)] == [
        "warning",
        "error",
    ]


def test_names_that_look_alike():
    assert checks._looks_like("РА\u200b1") == checks._looks_like("pa1")
    assert checks._bare_id("sub-007") == checks._bare_id("7.0") == checks._bare_id("7")


def test_findings():
    found = in_config("recovery.seed", "x", "not a number", "write a number")
    assert str(found) == (
        "error: config, column recovery.seed, value 'x': not a number. Remedy: write a number."
    )
    note = Finding("note", "a", None, None, None, "m", "r")
    assert errors([note]) == [] and findings_frame([note]).shape == (1, 7)


def test_flags_of_masks():
    assert (needs_attention("no_t1"), needs_attention("open_ring")) == (False, True)
    assert flag_title("adc_not_low", 3.21) == "bright on DWI without a low ADC (3.2 mL)"


def test_identifiers_and_paths():
    row = {"participant_id": "1", "visit": "day5", "kind": "mask-infarct", "reader": "r1"}
    assert _scan_identifier(row, 2) == "sub-1_ses-day5_mask-infarct_reader-r1_run-2"
    assert [naming.session_entity(v) for v in ("day5", "ses-1")] == ["ses-day5", "ses-1"]
    assert str(naming.visit_folder("01", "day5")) == "derivatives/sub-01/ses-day5"
    mask = naming.derivative("01", "day5", "dwi", "mask", label="infarct")
    assert mask.endswith("/dwi/sub-01_ses-day5_label-infarct_mask.nii.gz")
    assert naming.region_name(1, "ACAL") == "1_ACAL"


def test_networks_of_the_lock_file():
    known = models._known_files()
    assert {row["model"] for row in known.values()} == {"mindgrab", "t2lesion"}
    assert models.known_model({"model.json": "0" * 64}) is None
    assert [p.name for p in models.model_files("no/such/folder/model.json")] == ["model.json"]


def test_schemas():
    assert schema.load_schema("config")["required"] == ["study", "inputs"]
    below = _config_schema()["properties"]["perfusion"]["properties"]["core"]["properties"]["below"]
    assert below == {
        "description": "Core is below this fraction of the reference",
        "type": "number",
        "exclusiveMinimum": 0,
        "maximum": 1,
        "default": 0.3,
    }
    assert "`perfusion.core.below`" in config_readme()


def test_values_and_keys_of_a_config(tmp_path):
    shared = [1, 2]
    assert schema._values({"a": shared, "b": [shared, shared]}, {}) == 11
    (found,) = schema._keys_without_text({"recode": {"mrs": {1: 6}}})
    assert found.column == "recode.mrs.1" and "reads this key as a number" in found.message
    path = tmp_path / "a.yaml"
    path.write_text("study: {id: a, id: b}")
    assert [(f.row, f.column) for f in schema.repeated_keys(path)] == [(1, "study.id")]


def test_units_as_they_are_written():
    written = ("µg/ml", "cm²", " ng / mL")
    assert [units._plain_unit(one) for one in written] == ["ug/mL", "cm2", "ng/mL"]


def test_a_missing_value_meets_no_comparison():
    table = pd.DataFrame({"arm": ["low", "high", None]})
    assert select('arm != "high"', table).tolist() == [True, False, False]
    assert select('not arm == "high"', table).tolist() == [True, False, False]


def test_figures_of_an_overlap():
    plan = {"id": "o", "type": "overlap", "label": "infarct"}
    assert figure_kinds(spec_of(plan), images=True) == ["contours"]


def test_settings():
    class Toy(Settings):
        engine: Annotated[str, Registered("engines")] = "bayes"

    with pytest.raises(ValueError, match="'bay' is not one of"):
        Toy(engine="bay")
    assert fingerprint({"b": 1, "a": 2}) == fingerprint({"a": 2, "b": 1})
    assert GreHaematomaThresholds(limits={}).at_limit(0) is None
    assert AnalysisSpec(id="a", type="").sheets == ["participants", "covariates"]
    (problem,) = unread({"type": "survival", "method": "finegry"})
    assert problem[1] == "an analysis of type survival does not know 'finegry'"


def test_rows_and_estimates():
    assert join_notes("a", "", "b") == "a; b"
    assert StatisticRow.of({"statistic": "bias", "estimate": 1.0}).estimate == 1
    row = not_computable("bias", "one reader").within("odd", visit="day1")
    assert (row.note, row.visit) == ("not_computable: one reader", "day1")
    found = Estimate(0.5, 0.4, 0.6, n=3, method="mean")
    assert found.times(100.0).ci_high == 60
    row = found.row("bias", group="a|b")
    assert (row.estimate, row.n, row.method, row.group) == (0.5, 3, "mean", "a|b")


def test_statistics_made_of_others():
    assert registered("dice_median").words == "Dice, median"
    assert registered("conformance:bias").words == "Conformance:bias"
    assert (family_of("mean", "family"), family_of("power")) == (("mean", "median"), ())


def test_arguments_and_messages_of_snakemake():
    given = (["snakemake", "-np"], ["--dry-run"], ["-c1"])
    assert [is_dry_run(one) for one in given] == [True, True, False]
    ended = SimpleNamespace(event="LogEvent.job_finished", msg="")
    assert not _shown_by_snakemake(ended)
    assert _shown_by_snakemake(SimpleNamespace(event=None, msg="Building DAG of jobs..."))
