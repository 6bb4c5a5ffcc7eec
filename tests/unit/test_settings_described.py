"""Every threshold of the segmentation says what it means."""

from corelab.settings.schema import _config_schema


def test_every_threshold_of_the_segmentation_is_described():
    blocks = _config_schema()["properties"]["segmentation"]["properties"]
    bare = [
        f"{block}.{name}"
        for block, rule in blocks.items()
        for name, key in rule.get("properties", {}).items()
        if not key.get("description")
    ]
    assert not bare
    rules = blocks["oedema"]["properties"]
    assert rules["z_peak"]["description"].startswith("Least peak z score of a cluster, and")
