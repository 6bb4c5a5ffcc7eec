"""The schema allows exactly what the rooms read."""

import re

from corelab.imaging.acquisition import QUANTITIES
from corelab.segmentation.settings import DEFAULTS
from corelab.study.schema import load_schema, with_defaults


def test_segmentation_keys():
    sections = load_schema("config")["properties"]["segmentation"]["properties"]
    assert set(sections) - {"consensus"} == set(DEFAULTS)
    for name, values in DEFAULTS.items():
        assert set(sections[name]["properties"]) == set(values), name


def test_acquisition_limits():
    acquisition = load_schema("config")["properties"]["acquisition"]
    (kinds,) = acquisition["patternProperties"].values()
    (pattern,) = kinds["patternProperties"]
    for quantity in QUANTITIES:
        assert re.search(pattern, f"{quantity}_min") and re.search(pattern, f"{quantity}_max")
    assert not re.search(pattern, "colour_max")


def test_presets_of_registration():
    from corelab.registration.presets import load_preset

    for preset in load_schema("config")["properties"]["registration"]["properties"]["preset"][
        "enum"
    ]:
        assert load_preset(preset)


def test_engines_of_perfusion():
    from corelab.perfusion.fit import METHODS

    full = with_defaults({"study": {"id": "a"}, "inputs": {"participants": "p"}})["perfusion"]
    assert full["core"]["engine"] in METHODS and full["hypoperfusion"]["engine"] in METHODS
    perfusion = load_schema("config")["properties"]["perfusion"]["properties"]
    assert set(perfusion["registry_engine"]["enum"]) == set(METHODS)


def test_keys_of_perfusion():
    from corelab.perfusion.visit import DEFAULTS as ROOM

    perfusion = load_schema("config")["properties"]["perfusion"]["properties"]
    assert set(perfusion) == set(ROOM)
    for block in ("core", "hypoperfusion"):
        assert set(perfusion[block]["properties"]) == set(ROOM[block])
    full = with_defaults({"study": {"id": "a"}, "inputs": {"participants": "p"}})["perfusion"]
    assert full == ROOM
