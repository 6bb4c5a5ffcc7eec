"""Hostile and broken input: what must happen to each, in one list; and random input.

`must` is what is asked: `error` (the run stops, with a finding), `warning` (told, the study goes on),
`fault` (an image is refused in words), `refused` (an expression), `harmless` (taken as it is: nothing
is computed from it, and it forms no path). Never an exception without words, never a file outside the
results folder.
"""

import contextlib
import gzip
import resource
import struct
import tempfile
import time
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from workflow_runs import snakemake, tables_study

from corelab.imaging import ImageFault, load_image
from corelab.imaging.nifti import check_header
from corelab.records.images import ScanRow
from corelab.study.expression import ExpressionError, select
from corelab.study.findings import errors
from corelab.study.loading import StudyError, load_study
from corelab.study.naming import bids_label, derivative, session_entity, subject_entity
from corelab.study.preflight import _header_findings
from corelab.study.schema import repeated_keys
from corelab.study.sheets import read_sheet

READ = "participant_id\tvisit\tendpoint\treader\tvalue\n"
SCAN = "participant_id\tvisit\tkind\tpath\n"
P = "participant_id\n1\n"

#: name, sheets as text or bytes, what must happen, words that the findings must hold
SHEETS = [
    ("empty file", {"participants": b""}, "error", "empty"),
    ("only a line end", {"participants": b"\n"}, "error", "empty"),
    ("NUL bytes", {"participants": b"participant_id\n1\x00\n"}, "error", "NUL"),
    ("UTF-16", {"participants": "participant_id\n1\n".encode("utf-16")}, "error", "UTF-8"),
    ("Latin-1", {"participants": "participant_id\nMüller\n".encode("latin-1")}, "error", "UTF-8"),
    ("binary", {"participants": bytes(range(256))}, "error", "UTF-8"),
    ("a zip file (xlsx)", {"participants": b"PK\x03\x04" + bytes(60)}, "error", ""),
    ("commas for tabs", {"participants": b"participant_id,arm\n1,a\n"}, "error", "tab"),
    ("an HTML page", {"participants": b"<html><body>Sign in</body></html>"}, "error", "is HTML"),
    ("byte order mark", {"participants": b"\xef\xbb\xbfparticipant_id\n1\n"}, "harmless", ""),
    ("Windows line ends", {"participants": b"participant_id\r\n1\r\n"}, "harmless", ""),
    ("old Mac line ends", {"participants": b"participant_id\r1\r"}, "harmless", ""),
    ("a column twice", {"participants": b"participant_id\tarm\tarm\n1\ta\tb\n"}, "error", "twice"),
    ("too many cells", {"participants": b"participant_id\n1\t2\t3\n"}, "error", "3 cells"),
    ("too few cells", {"participants": b"participant_id\tarm\n1\n"}, "error", "1 cells"),
    ("no id column", {"participants": b"arm\na\n"}, "error", "participant_id"),
    ("an empty id", {"participants": b"participant_id\tarm\nn/a\ta\n"}, "error", "empty"),
    ("an id twice", {"participants": b"participant_id\n1\n1\n"}, "error", "listed 2 times"),
    ("two ids, one folder", {"participants": b"participant_id\n1\nsub-1\n"}, "error", "share"),
    ("an id that climbs", {"participants": b"participant_id\n../../etc/passwd\n"}, "error", "allowed form"),
    ("an absolute id", {"participants": b"participant_id\n/etc/passwd\n"}, "error", "allowed form"),
    ("an id of dots", {"participants": b"participant_id\n..\n"}, "harmless", ""),
    ("a script without a slash in an id", {"participants": b"participant_id\n<script>x\n"}, "harmless", ""),
    ("a script in an id", {"participants": b"participant_id\n<script>x</script>\n"}, "error", "allowed form"),
    ("a shell in an id", {"participants": b"participant_id\n$(rm -rf ~);`id`\n"}, "harmless", ""),
    ("a template in an id", {"participants": b"participant_id\n{wildcards.x}{{7*7}}\n"}, "harmless", ""),
    ("a formula in an id", {"participants": b"participant_id\n=HYPERLINK(\"x\")\n"}, "warning", "spreadsheet"),
    ("a formula in an arm", {"participants": b"participant_id\tarm\n1\t@SUM(A1)\n"}, "warning", "spreadsheet"),
    ("a command formula", {"participants": b"participant_id\tsite\n1\t+cmd|' /C calc'!A0\n"}, "warning", "spreadsheet"),
    ("look-alike ids (full width)", {"participants": "participant_id\nA1\nＡ1\n".encode()}, "warning", "looks like"),
    ("look-alike ids (case)", {"participants": b"participant_id\na1\nA1\n"}, "warning", "looks like"),
    ("look-alike ids (Cyrillic)", {"participants": "participant_id\nPA1\nРА1\n".encode()}, "warning", "looks like"),
    ("an invisible character", {"participants": "participant_id\nA\u200b1\nA1\n".encode()}, "warning", "looks like"),
    ("text right to left", {"participants": "participant_id\nA\u202e1\nA1\n".encode()}, "warning", "looks like"),
    ("a very long id", {"participants": b"participant_id\n" + b"9" * 5000 + b"\n"}, "error", "allowed form"),
    ("an id of one million lines", {"participants": b"participant_id\n" + b"1\n" * 50_000}, "error", "listed"),
    ("an unlisted subject", {"participants": P, "reads": READ + "2\tv\tinfarct_volume\tr\t1\n"}, "error", "not in the participants sheet"),
    ("a value with a unit", {"participants": P, "reads": READ + "1\tv\tinfarct_volume\tr\t3 mL\n"}, "error", "not a number"),
    ("a decimal comma", {"participants": P, "reads": READ + "1\tv\tinfarct_volume\tr\t3,5\n"}, "error", "not a number"),
    ("an infinite value", {"participants": P, "reads": READ + "1\tv\tinfarct_volume\tr\tinf\n"}, "error", "finite"),
    ("NaN as text", {"participants": P, "reads": READ + "1\tv\tinfarct_volume\tr\tNaN\n"}, "error", "finite"),
    ("a hexadecimal value", {"participants": P, "reads": READ + "1\tv\tinfarct_volume\tr\t0x1F\n"}, "error", "not a number"),
    ("an underscore in a number", {"participants": P, "reads": READ + "1\tv\tinfarct_volume\tr\t1_0\n"}, "error", "not a number"),
    ("Arabic digits", {"participants": P, "reads": READ + "1\tv\tinfarct_volume\tr\t١٢\n"}, "error", "not a number"),
    ("a value beyond any", {"participants": P, "reads": READ + "1\tv\tinfarct_volume\tr\t1e300\n"}, "warning", "more than a brain"),
    ("a negative volume", {"participants": P, "reads": READ + "1\tv\tinfarct_volume\tr\t-3\n"}, "error", "negative"),
    ("one value twice", {"participants": P, "reads": READ + "1\tv\tinfarct_volume\tr\t1\n1\tv\tinfarct_volume\tr\t2\n"}, "error", "twice"),
    ("a repeat of none", {"participants": P, "reads": READ.strip() + "\trepeat\n1\tv\tinfarct_volume\tr\t1\t0\n"}, "error", "repeat"),
    ("a kind that is none", {"participants": P, "scans": SCAN + "1\tv\trm -rf\tx.nii\n"}, "error", "kind"),
    ("a label that climbs", {"participants": P, "scans": SCAN + "1\tv\tmask-../../x\tx.nii\n"}, "error", "kind"),
    ("a visit that climbs", {"participants": P, "scans": SCAN + "1\t../../v\tadc\tx.nii\n"}, "error", "none of the 1 files"),
    ("a NUL in a path", {"participants": P, "scans": SCAN + "1\tv\tadc\ta\x00b\n"}, "error", "NUL"),
    ("a path too long", {"participants": P, "scans": SCAN + "1\tv\tadc\t" + "x" * 9000 + "\n"}, "error", "none of the 1 files"),
    ("a device as a scan", {"participants": P, "scans": SCAN + "1\tv\tadc\t/dev/zero\n"}, "warning", "not a regular file"),
    ("a folder as a scan", {"participants": P, "scans": SCAN + "1\tv\tadc\t/tmp\n"}, "warning", "folder"),
    ("an impossible date", {"participants": P, "scans": SCAN.strip() + "\tacquired_at\n1\tv\tadc\tx\t2024-13-05\n"}, "error", "acquired_at"),
    ("death before progression", {"participants": P, "events": "participant_id\tendpoint\ttime_days\tevent\n1\tos\t9\t1\n1\tpfs\t90\t1\n"}, "error", "longer than survival"),
    ("an event of 2", {"participants": P, "events": "participant_id\tendpoint\ttime_days\tevent\n1\tos\t9\t2\n"}, "error", "not one of"),
    ("a grade off its scale", {"participants": P, "outcomes": "participant_id\tvisit\toutcome\tvalue\n1\tv\tmrs\t9\n"}, "error", "runs from"),
]  # fmt: skip


def findings_of(folder, sheets, config=None):
    """All findings of a study, preflight of the images included."""
    from corelab.imaging.nifti import check_header
    from corelab.study.preflight import preflight_findings

    config = {"study": {"id": "s"}, **(config or {}), "results_dir": str(folder / "results")}
    config["inputs"] = {}
    for name, content in sheets.items():
        path = folder / f"{name}.tsv"
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        config["inputs"][name] = str(path)
    study = load_study(config)
    return study, preflight_findings(study, check_header)


@pytest.mark.parametrize(
    ("name", "sheets", "must", "messages"),
    SHEETS,
    ids=[case[0].replace(" ", "-") for case in SHEETS],
)
def test_sheets(tmp_path, name, sheets, must, messages):
    start = time.process_time()
    study, found = findings_of(tmp_path, sheets)
    text = "\n".join(map(str, found))
    wrong = {"error": errors(found), "warning": [f for f in found if f.severity == "warning"]}
    if must == "harmless":
        assert not errors(found), text
    else:
        hit = [f for f in wrong[must] if messages in str(f)]
        assert hit, f"wanted {must} with {messages!r}, found:\n{text}"
        assert all(f.remedy and f.sheet for f in hit)
        assert must == "error" or not errors(found), text
    for subject in study.participants:
        path = Path(derivative(subject, "../v", "anat", "mask", label="../../x"))
        assert ".." not in path.parts and not path.is_absolute()
        assert len(path.name.encode()) <= 255 or must == "error"
    assert time.process_time() - start < 20


CONFIGS = [
    ("unknown key", {"regstration": {}}, "did you mean 'registration'"),
    ("a list for a block", {"registration": [1]}, "registration"),
    ("text for a number", {"perfusion": {"core": {"below": "0.3"}}}, "perfusion.core.below"),
    ("a number out of range", {"perfusion": {"core": {"below": 3}}}, "perfusion.core.below"),
    ("not a number", {"perfusion": {"core": {"below": float("nan")}}}, "perfusion.core.below"),
    ("a study that climbs", {"study": {"id": "../up"}}, "study.id"),
    ("a study with a slash", {"study": {"id": "a/b"}}, "study.id"),
    ("a study of dots", {"study": {"id": ".."}}, "study.id"),
    ("a study with a line end", {"study": {"id": "a\n"}}, "study.id"),
    ("an analysis that climbs", {"analyses": [{"id": "../x", "type": "agreement", "endpoint": "e", "sources": ["a", "b"]}]}, "analyses.0.id"),
    ("an analysis without its key", {"analyses": [{"id": "a", "type": "agreement", "endpoint": "e"}]}, "sources"),
    ("an analysis of no type", {"analyses": [{"id": "a", "type": "magic", "endpoint": "e"}]}, "analyses.0.type"),
    ("analyses as text", {"analyses": "all of them"}, "analyses"),
    ("no study", {"study": None}, "study"),
    ("a config of nothing", {"inputs": {}}, "participants"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("name", "config", "messages"), CONFIGS, ids=[case[0].replace(" ", "-") for case in CONFIGS]
)
def test_configs(tmp_path, name, config, messages):
    (tmp_path / "p.tsv").write_text(P)
    whole = {"study": {"id": "s"}, "inputs": {"participants": str(tmp_path / "p.tsv")}, **config}
    with pytest.raises(StudyError) as caught:
        load_study(whole)
    assert messages in str(caught.value) and "Traceback" not in str(caught.value)


def test_yaml_tags_are_no_commands(tmp_path):
    """A tag that makes an object, a bomb of aliases, and text that is no mapping."""
    mark = tmp_path / "mark"
    bomb = "a: &a [x,x,x,x,x,x,x,x,x]\n" + "".join(
        f"{chr(98 + n)}: &{chr(98 + n)} [{','.join(['*' + chr(97 + n)] * 9)}]\n" for n in range(7)
    )
    for number, text in enumerate(
        (f'study: !!python/object/apply:os.system ["touch {mark}"]\n', bomb)
    ):
        path = tmp_path / f"{number}.yaml"
        path.write_text(text)
        done = snakemake("-n", "--configfile", str(path))
        assert done.returncode != 0 and not mark.exists()
        assert len(done.stdout) < 200_000
    assert "stand for more than" in done.stdout


def test_a_config_that_contains_itself_is_refused(tmp_path):
    text = "study: &s {id: x, more: [*s], id: y}\ninputs: {participants: p.tsv}\n"
    with pytest.raises(StudyError, match="or for themselves"):
        load_study(yaml.safe_load(text))
    path = tmp_path / "config.yaml"
    path.write_text(text)
    assert [finding.column for finding in repeated_keys(path)] == ["study.id"]


# --- images ------------------------------------------------------------------------------------


def nifti(shape=(8, 9, 7), **fields):
    image = nib.Nifti1Image(
        np.random.default_rng(0).normal(100, 9, shape).astype(np.float32), np.eye(4)
    )
    buffer = bytearray(image.to_bytes())
    header = nib.Nifti1Header(bytes(buffer[:348]), check=False)
    for name, value in fields.items():
        header[name] = value
    buffer[:348] = header.binaryblock
    return bytes(buffer)


def filled(*values):
    """An image of a few values, one after the other."""
    voxels = np.resize(np.array(values, np.float32), (8, 9, 7))
    voxels[0, 0, 0] = 0
    return bytes(nib.Nifti1Image(voxels, np.eye(4)).to_bytes())


def damaged_gzip():
    whole = bytearray(gzip.compress(nifti(), mtime=0))
    whole[len(whole) // 2] ^= 0xFF
    return bytes(whole)


IMAGES = [
    ("nothing", lambda: b""),
    ("zeros", lambda: bytes(1000)),
    ("text", lambda: b"this is not an image"),
    ("a page of a portal", lambda: b"<!DOCTYPE html><title>Log in</title>" * 20),
    ("gzip of nothing", lambda: gzip.compress(b"")),
    ("half a gzip", lambda: gzip.compress(nifti())[:300]),
    ("half an image in a whole gzip", lambda: gzip.compress(nifti()[:900])),
    ("a flipped bit", damaged_gzip),
    ("a zip bomb", lambda: gzip.compress(nifti() + bytes(80 * 2**20))),
    ("a gzip in a gzip", lambda: gzip.compress(gzip.compress(nifti()))),
    ("a huge header", lambda: gzip.compress(nifti(dim=[3, 32767, 32767, 32767, 1, 1, 1, 1]))),
    ("seven dimensions", lambda: gzip.compress(nifti(dim=[7, 8, 9, 7, 9, 9, 9, 9]))),
    ("eight dimensions", lambda: gzip.compress(nifti(dim=[8, 8, 9, 7, 1, 1, 1, 1]))),
    ("a size of zero", lambda: gzip.compress(nifti(dim=[3, 0, 9, 7, 1, 1, 1, 1]))),
    ("a size below zero", lambda: gzip.compress(nifti(dim=[3, -8, 9, 7, 1, 1, 1, 1]))),
    ("an unknown type", lambda: gzip.compress(nifti(datatype=4242))),
    ("data that begin nowhere", lambda: gzip.compress(nifti(vox_offset=1e12))),
    ("data before the file", lambda: gzip.compress(nifti(vox_offset=-400))),
    ("an offset of no number", lambda: gzip.compress(nifti(vox_offset=np.nan))),
    ("a matrix of no numbers", lambda: gzip.compress(nifti(srow_x=[np.nan] * 4))),
    ("a flat matrix", lambda: gzip.compress(nifti(srow_z=[0, 0, 0, 0]))),
    ("voxels of a kilometre", lambda: gzip.compress(nifti(srow_x=[1e6, 0, 0, 0], srow_y=[0, 1e6, 0, 0], srow_z=[0, 0, 1e6, 0]))),
    ("an infinite slope", lambda: gzip.compress(nifti(scl_slope=np.inf, scl_inter=0))),
    ("a slope of minus infinity", lambda: gzip.compress(nifti(scl_slope=-np.inf, scl_inter=0))),
    ("an infinite intercept", lambda: gzip.compress(nifti(scl_slope=1, scl_inter=np.inf))),
    ("an infinite intercept of no slope", lambda: gzip.compress(nifti(scl_slope=0, scl_inter=-np.inf))),
    ("an intercept of no number", lambda: gzip.compress(nifti(scl_slope=2, scl_inter=np.nan))),
    ("values that nothing measures", lambda: gzip.compress(filled(3e38))),
    ("such values beside no number", lambda: gzip.compress(filled(-3e38, np.nan, 3e38))),
    ("a range of one bit beside no number", lambda: gzip.compress(filled(16777216, np.nan, 16777218))),
    ("a wrong magic", lambda: gzip.compress(nifti(magic=b"xx"))),
    ("the end of a header only", lambda: struct.pack("<i", 348)),
    ("a pickle", lambda: b"\x80\x04\x95\x1c\x00\x00\x00\x00\x00\x00\x00\x8c\x05posix\x94."),
]  # fmt: skip


@pytest.mark.parametrize(("name", "content"), IMAGES, ids=[c[0].replace(" ", "-") for c in IMAGES])
def test_images(tmp_path, name, content):
    path = tmp_path / "a.nii.gz"
    path.write_bytes(content())
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(ImageFault) as caught:
        load_image(path)
    assert caught.value.message and caught.value.remedy
    grown_mb = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    assert grown_mb < 200, f"{grown_mb:.0f} MB for a file of {path.stat().st_size} bytes"
    assert [one.name for one in tmp_path.iterdir()] == ["a.nii.gz"]


SCALES = [pair for pair in IMAGES if "slope" in pair[0] or "intercept" in pair[0]]


@pytest.mark.parametrize(("name", "content"), SCALES, ids=[c[0].replace(" ", "-") for c in SCALES])
def test_the_input_checks_flag_impossible_scale_factors(tmp_path, name, content):
    """Already from the header, as a finding of the sheet's row, before anything is computed."""
    path = tmp_path / "a.nii.gz"
    path.write_bytes(content())
    row = ScanRow("dwi", str(path), "s1", source="a.nii.gz", line=2, exists=True)
    (found,) = _header_findings([row], "scans.tsv", check_header)
    assert found.severity == "warning" and "scale factors" in found.message


def test_the_corpus_is_large_enough():
    assert len(SHEETS) + len(CONFIGS) + len(IMAGES) >= 60


# --- random input ------------------------------------------------------------------------------

SLOW_HOST = settings(
    max_examples=120,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)


@SLOW_HOST
@given(st.binary(max_size=400))
def test_any_bytes_are_a_sheet_or_a_finding(content):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "a.tsv")
        path.write_bytes(content)
        frame, found = read_sheet(path, "a.tsv")
        assert (frame is None) <= bool(found)
        assert all(one.message and one.remedy for one in found)


@SLOW_HOST
@given(st.lists(st.lists(st.text(max_size=8), min_size=1, max_size=5), min_size=1, max_size=6))
def test_any_table_is_a_study_or_findings(rows):
    text = "participant_id\tvisit\tendpoint\treader\tvalue\n"
    text += "\n".join("\t".join(cells) for cells in rows)
    with tempfile.TemporaryDirectory() as folder:
        encoded = text.encode("utf-8", "replace")
        _, found = findings_of(Path(folder), {"participants": P, "reads": encoded})
        assert all(one.message and one.remedy for one in found)


@SLOW_HOST
@given(st.integers(0, 351), st.binary(min_size=1, max_size=8))
def test_any_damage_of_a_header_is_a_fault_or_an_image(at, content):
    raw = bytearray(nifti((4, 4, 4)))
    raw[at : at + len(content)] = content
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "a.nii")
        path.write_bytes(raw)
        try:
            image = load_image(path)
        except ImageFault as fault:
            assert fault.message and fault.remedy
        else:
            assert np.isfinite(np.asarray(image.dataobj)).all()


@SLOW_HOST
@given(st.text(min_size=1, max_size=40), st.text(min_size=1, max_size=40))
def test_no_id_forms_a_path(one, two):
    for entity in (subject_entity(one), session_entity(one), f"desc-{bids_label(one)}"):
        assert "/" not in entity and "\x00" not in entity and entity not in {".", ".."}
    if bids_label(one) == bids_label(two):
        assert one == two


WORDS = st.sampled_from(
    ["age", "arm", "gone", "==", "!=", "<", ">=", "and", "or", "not", "in", "(", ")", "[", "]", ",",
     '"a"', "1", "-1", "1e999", "9" * 400, "None", "True", "lambda", ":", "+", "**", ".", "__class__",
     "import", ":=", "\n", "\x00", "if", "else", "~", "await", "yield", "*"]
)  # fmt: skip


@SLOW_HOST
@given(st.lists(WORDS, max_size=14).map(" ".join))
def test_expressions_of_any_words_select_or_are_refused(text):
    table = pd.DataFrame({"age": ["1", None], "arm": ["a", None]})
    with contextlib.suppress(ExpressionError):
        chosen = select(text, table)
        assert chosen.dtype == bool and len(chosen) == 2


@pytest.mark.parametrize(
    "text",
    ["(" * 900 + "age" + ")" * 900, "-" * 1900 + "1 < age", "age < " + "-" * 1900 + "1",
     "not " * 480 + "age", "age in [" * 200, " or ".join(["age > 1"] * 200),
     "age > " + "9" * 1500, "age in " + "[" * 150 + "1" + "]" * 150],
)  # fmt: skip
def test_deep_expressions_end_in_words(text):
    table = pd.DataFrame({"age": ["1", None]})
    with contextlib.suppress(ExpressionError):
        assert select(text, table).dtype == bool


# --- the whole workflow ------------------------------------------------------------------------


def test_no_output_leaves_the_results_folder(tmp_path):
    """Ids that climb and ids of a shell, through the planned paths of every job."""
    config = tables_study(tmp_path / "study")
    content = yaml.safe_load(config.read_text())
    scan = tmp_path / "x.nii.gz"
    scan.write_bytes(b"x")
    sheets = {
        "participants": "participant_id\n..\n$(touch x)\n<b>\n",
        "scans": SCAN + f"..\t..\tadc\t{scan}\n",
    }
    for name, text in sheets.items():
        (tmp_path / f"{name}.tsv").write_text(text)
    content["inputs"] = {name: str(tmp_path / f"{name}.tsv") for name in sheets}
    content["analyses"] = []
    config.write_text(yaml.safe_dump(content))
    messages = snakemake("-n", "--quiet", "progress", "--configfile", str(config)).stdout
    lines = [line for line in messages.splitlines() if "Missing output files:" in line]
    assert any("/prepare.json" in line for line in lines), messages[-3000:]
    assert not [line for line in lines if "/.." in line or "$(" in line or "<b>" in line]
