"""A package with a toy of each kind is found in schema, run, report and docs without another edit."""

import ast
import json
import os
import subprocess
import sys

import pytest
from helpers import REPOSITORY
from toy_package import write_package

from corelab.terms import plugins

SCRIPTS = REPOSITORY / "workflow" / "scripts"


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """A folder as pip would leave it."""
    return write_package(tmp_path_factory.mktemp("site"))


def run(site, program):
    """What a program prints as JSON, with the toys on the path."""
    path = os.pathsep.join(map(str, (SCRIPTS, site)))
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", program],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": path, "PYTHONDONTWRITEBYTECODE": "1"},
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


def test_schema_and_docs_have_the_names(site):
    found = run(
        site,
        """
import json
from corelab.study.documentation import config_readme
from corelab.study.schema import config_findings
config = {
    "study": {"id": "s"}, "inputs": {"participants": "p.tsv"},
    "perfusion": {"core": {"engine": "toy_engine"}},
    "registration": {"backend": "toy_backend"},
    "brain_extraction": {"method": "toy_extractor"},
    "segmentation": {"external": [
        {"id": "t", "kind": "toy_segmenter", "label": "infarct", "inputs": {"dwi": "d.nii"}}]},
    "analyses": [{"id": "a", "type": "toy_type", "toy_factor": 3}],
}
wrong = {**config, "registration": {"backend": "toy_engine"}}
print(json.dumps([
    [str(f) for f in config_findings(config)], len(config_findings(wrong)), config_readme()]))
""",
    )
    right, wrong, text = found
    assert right == [] and wrong == 1
    for name in ("engine", "backend", "segmenter", "extractor", "type", "factor"):
        assert f"toy_{name}" in text


def test_the_toys_run(site):
    found = run(
        site,
        """
import json
import nibabel as nib, numpy as np, pandas as pd
from corelab.imaging.prepare import EXTRACTORS
from corelab.perfusion import fit_perfusion
from corelab.registration.backends import BACKENDS
from corelab.registration.presets import load_preset
from corelab.segmentation.external import SEGMENTERS
from corelab.measurement.selection import Tables
from corelab.plan.run import run
from corelab.settings.analyses import spec_of
from corelab.settings.segmentation import BrainExtractionSettings, ExternalProgram

t = np.arange(40.0)
artery = np.clip(t - 8, 0, None) ** 3 * np.exp(-np.clip(t - 8, 0, None) / 1.5)
maps = fit_perfusion(0.04 * artery, t, artery, "concentration", "toy_engine")
box = np.zeros((9, 9, 9), np.float32)
box[3:6, 3:6, 3:6] = np.arange(27).reshape(3, 3, 3) + 1
image = nib.Nifti1Image(box, np.eye(4))
preset = load_preset("testing")
entry = ExternalProgram(id="t", label="infarct", inputs={"dwi": "d.nii"})
segmenter = SEGMENTERS["toy_segmenter"](entry, np.eye(4))
mask, fit = EXTRACTORS["toy_extractor"](BrainExtractionSettings())[0](image, "T1w")
tables = Tables(pd.DataFrame(), pd.DataFrame({"participant_id": ["1"]}))
frame = run(spec_of({"id": "a", "type": "toy_type", "toy_factor": 3}), tables)
print(json.dumps([
    float(maps.tmax_s), float(maps.cbf_ml_100g_min),
    BACKENDS["toy_backend"](preset).rigid(image, image).kind, preset.lesion("toy_backend"),
    segmenter({"dwi": box}, box > 0, (1, 1, 1), {}).source, int(mask.sum()),
    frame[["statistic", "estimate"]].to_numpy().tolist()]))
""",
    )
    assert found == [2.0, 60.0, "rigid", "mask", "pipeline:t", 27, [["toy_ratio", 3.0]]]


def test_the_report_has_the_words_and_the_version(site):
    found = run(
        site,
        """
import json
from corelab.provenance.manifest import software_versions as recorded
from corelab.reporting.methods import software_versions
from corelab.reporting.ars import SPECS
from corelab.terms.statistics import registered
one = registered("toy_ratio")
print(json.dumps([one.words, one.no_effect, recorded()["corelab-toy"],
    dict(software_versions())["corelab-toy"], SPECS["toy_type"].kind.title]))
""",
    )
    assert found == ["Toy ratio", 1.0, "1.5", "1.5", "Toy analysis"]


def test_an_edit_of_the_toy_reruns_the_rules_that_use_it(site):
    program = f"""
import json
from corelab.provenance.digest import digest_of_script, _modules_of
from pathlib import Path
scripts = Path({str(SCRIPTS)!r})
print(json.dumps({{n: digest_of_script(str(scripts / f"{{n}}.py"))
    for n in ("perfuse", "segment", "prepare", "normalise", "analyse", "report", "verify")}}))
"""
    users = {
        "toy_corelab.py": {"perfuse", "segment", "prepare", "normalise"},
        "toy_analysis.py": {"analyse", "report"},
    }
    for file, rules in users.items():
        before = run(site, program)
        with (site / file).open("a") as written:
            written.write("\n# edited\n")
        after = run(site, program)
        changed = {name for name in before if before[name] != after[name]}
        assert rules <= changed and "verify" not in changed
        assert changed <= set().union(*users.values())
        assert file != "toy_analysis.py" or changed == rules


def test_two_packages_with_one_name_are_refused(site, tmp_path):
    info = tmp_path / "other-1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: other\nVersion: 1\n")
    (info / "entry_points.txt").write_text("[corelab.engines]\nosvd = other:engine\n")
    program = """
import json
from corelab.terms.plugins import PluginError, names
try:
    names("engines")
except PluginError as error:
    print(json.dumps(str(error)))
"""
    assert "osvd" in run(tmp_path, program)


def test_each_registry_is_opened_once_and_has_the_listed_names():
    opened = []
    for path in sorted((SCRIPTS / "corelab").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "registry":
                opened.append(ast.literal_eval(node.args[0]))
    assert sorted(opened) == sorted(plugins.BUILT_IN)
    with pytest.raises(ValueError, match="listed names"):
        plugins.registry("engines", {"osvd": 1})
