"""Vendored JavaScript: unchanged, licensed, small."""

from __future__ import annotations

import hashlib
import json

from corelab.reporting.viewer import ASSETS, MAX_VOXELS, averaging

VENDOR = ASSETS / "vendor"


def _entries():
    return json.loads((ASSETS / "vendor.json").read_text(encoding="utf-8"))["files"]


def test_every_vendored_file_is_listed_with_its_digest_and_licence():
    entries = _entries()
    assert {entry["file"] for entry in entries} == {path.name for path in VENDOR.iterdir()}
    for entry in entries:
        data = (VENDOR / entry["file"]).read_bytes()
        assert hashlib.sha256(data).hexdigest() == entry["sha256"], entry["file"]
        assert len(data) == entry["size_bytes"]
        assert entry["version"] and entry["licence"] and entry["source"]
        for name in entry["licence_files"]:
            assert (VENDOR / name).is_file()


def test_vendored_files_are_below_four_megabytes():
    assert sum(path.stat().st_size for path in VENDOR.iterdir()) < 4_000_000


def test_licence_texts_are_whole():
    own = (VENDOR / "LICENSE-niivue.txt").read_text(encoding="utf-8")
    assert "BSD 2-Clause License" in own and "POSSIBILITY OF SUCH DAMAGE" in own
    bundled = (VENDOR / "LICENSE-niivue-bundled.txt").read_text(encoding="utf-8")
    for name in ("gl-matrix", "nifti-reader-js", "fflate", "zarrita", "Roboto"):
        assert name in bundled


def test_viewer_source_has_no_carriage_return_that_a_browser_would_change():
    assert b"\r" not in (VENDOR / "niivue.umd.js").read_bytes()


def test_averaging_makes_any_volume_small_enough():
    import math

    for shape, spacing in (((512, 512, 300), (0.45, 0.45, 0.6)), ((256, 256, 192), (1, 1, 1))):
        factors = averaging(shape, spacing)
        assert math.prod(n // f for n, f in zip(shape, factors, strict=True)) <= MAX_VOXELS
