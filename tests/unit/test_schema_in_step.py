"""The schema allows exactly what the packages read."""

import re

from corelab.agreement.phantoms import DEFAULT_LIMITS, LONGITUDINAL, WORST
from corelab.measurement.schedule import SCAN_OF_BIOMARKER
from corelab.settings.acquisition import FIELDS, QUANTITIES
from corelab.settings.schema import SCHEMAS, _schema_text
from corelab.study.schema import config_findings, load_schema


def test_acquisition_limits():
    acquisition = load_schema("config")["properties"]["acquisition"]
    (kinds,) = acquisition["patternProperties"].values()
    numbers, names = kinds["patternProperties"]
    for quantity in QUANTITIES:
        assert re.search(numbers, f"{quantity}_min") and re.search(numbers, f"{quantity}_max")
    assert not re.search(numbers, "colour_max")
    for field in FIELDS:
        assert re.search(names, f"{field}_one_of")
    assert set(kinds["properties"]) == {"b_values_include"}


def test_biomarkers_and_statistics_of_phantoms():
    trial = load_schema("config")["properties"]["acquisition"]["properties"]["trial"]
    assert set(trial["properties"]["same_modality"]["properties"]) == set(SCAN_OF_BIOMARKER)
    limits = load_schema("config")["properties"]["phantom_qa"]["properties"]["limits"]["items"]
    known = set(limits["properties"]["statistic"]["enum"])
    assert {limit.statistic for limit in DEFAULT_LIMITS} | set(LONGITUDINAL) | set(WORST) <= known


def test_presets_of_registration():
    from corelab.registration.presets import load_preset

    for preset in load_schema("config")["properties"]["registration"]["properties"]["preset"][
        "enum"
    ]:
        assert load_preset(preset)


def test_backends_of_registration():
    from corelab.registration.backends import BACKENDS

    registration = load_schema("config")["properties"]["registration"]["properties"]
    assert set(registration["backend"]["enum"]) == set(BACKENDS)


def test_engines_of_perfusion():
    from corelab.perfusion.fit import ENGINES

    perfusion = load_schema("config")["properties"]["perfusion"]["properties"]
    assert set(perfusion["registry_engine"]["enum"]) == set(ENGINES)


def test_schema_is_generated_from_the_models():
    assert (SCHEMAS / "config.schema.yaml").read_text() == _schema_text(), (
        "run `python -m corelab.settings.schema` and `python -m corelab.study.documentation`"
    )


def test_a_mistyped_name_of_a_limit_has_the_nearest_as_remedy():
    base = {"study": {"id": "a"}, "inputs": {"participants": "p"}}
    for block in (
        {"segmentation": {"infarct": {"limits": {"edge_shar": [1, 2]}}}},
        {"registration": {"limits": {"edge_share": 1}, "preset": "fast"}},
        {"perfusion": {"gates": {"aif_snrr": None}}},
    ):
        (found,) = config_findings(base | block)
        assert found.remedy.startswith(("did you mean", "known: ")), found
