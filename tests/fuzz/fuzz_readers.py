"""Coverage-guided fuzzing of the readers of headers and sheets: never a crash without words.

    pip install atheris        # not in requirements.lock: 30 MB that only this needs
    python tests/fuzz/fuzz_readers.py header -max_total_time=600
    python tests/fuzz/fuzz_readers.py sheet  -max_total_time=600

The corpus begins with the hostile files of tests/unit/test_hostile.py. An input that ends in anything
but a fault or findings in words is left in the working directory by atheris (crash-...).
"""

from __future__ import annotations

import gzip
import sys
import tempfile
from pathlib import Path

import atheris

REPOSITORY = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(REPOSITORY / "workflow" / "scripts"), str(REPOSITORY / "tests")]
sys.path.append(str(REPOSITORY / "tests" / "unit"))

with atheris.instrument_imports(include=["corelab", "nibabel"]):
    import numpy as np

    from corelab.imaging import ImageFault, load_image
    from corelab.imaging.nifti import check_header
    from corelab.study.loading import StudyError, load_study
    from corelab.study.sheets import read_sheet

FOLDER = Path(tempfile.mkdtemp(prefix="corelab-fuzz-"))


def one_header(content: bytes) -> None:
    """Bytes as a plain and as a packed file: a fault in words, or a finite image."""
    for name, raw in (("a.nii", content), ("a.nii.gz", gzip.compress(content, 1))):
        path = FOLDER / name
        path.write_bytes(raw)
        try:
            check_header(path, kind="dwi")
            image = load_image(path)
        except ImageFault as fault:
            assert fault.message and fault.remedy
        else:
            assert np.isfinite(np.asarray(image.dataobj)).all()


def one_sheet(content: bytes) -> None:
    """Bytes as the participants sheet and as the scans sheet of a study."""
    path = FOLDER / "a.tsv"
    path.write_bytes(content)
    _, found = read_sheet(path, "a.tsv")
    assert all(one.message and one.remedy for one in found)
    for sheet in ("participants", "scans", "reads"):
        inputs = {"participants": str(FOLDER / "p.tsv"), sheet: str(path)}
        (FOLDER / "p.tsv").write_text("participant_id\n1\n")
        try:
            study = load_study({"study": {"id": "s"}, "inputs": inputs})
        except StudyError as error:
            assert error.findings
        else:
            assert all(one.message for one in study.findings)


def corpus(what: str) -> Path:
    """The hostile files that are known, as the fuzzer's beginning."""
    import test_hostile

    folder = FOLDER / f"corpus-{what}"
    folder.mkdir()
    if what == "header":
        contents = [content() for _, content in test_hostile.IMAGES] + [test_hostile.nifti()]
    else:
        contents = [
            one if isinstance(one, bytes) else str(one).encode()
            for _, sheets, _, _ in test_hostile.SHEETS
            for one in sheets.values()
        ]
    for number, content in enumerate(contents):
        if len(content) < 2**16:
            (folder / str(number)).write_bytes(content)
    return folder


def main() -> None:
    """Fuzz what is asked for."""
    what = sys.argv[1] if len(sys.argv) > 1 else ""
    targets = {"header": one_header, "sheet": one_sheet}
    if what not in targets:
        raise SystemExit(__doc__)
    atheris.Setup([sys.argv[0], *sys.argv[2:], str(corpus(what))], targets[what])
    atheris.Fuzz()


if __name__ == "__main__":
    main()
