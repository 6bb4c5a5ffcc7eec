"""Speed as ratios against a plain reference in the same run: `make bench`.

A ratio says more than seconds, because machines differ. Each benchmark prints what was measured,
CPU seconds of ours and of the reference, and their ratio.
"""

from __future__ import annotations

import importlib
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path[:0] = [str(Path(__file__).resolve().parents[1]), str(Path(__file__).resolve().parent)]


def cpu_seconds(function: Callable[[], Any], repeats: int = 3) -> float:
    """Least CPU time of some runs, s."""
    best = float("inf")
    for _ in range(repeats):
        start = time.process_time()
        function()
        best = min(best, time.process_time() - start)
    return best


def output(name: str, ours_s: float, reference: str, reference_s: float) -> None:
    print(
        f"{name:<58} {ours_s:8.3f} s   {reference} {reference_s:8.3f} s   "
        f"ratio {reference_s / ours_s:8.1f}",
        flush=True,
    )


def icc_of_many_features() -> None:
    """ICC(A,1) of 2 000 features x 100 subjects x 5 readers, against pingouin feature by feature."""
    import numpy as np
    import pandas as pd
    import pingouin as pg

    from corelab.agreement.icc import intraclass_correlation_many

    rng = np.random.default_rng(1)
    ratings = rng.normal(size=(2000, 100, 1)) + 0.3 * rng.normal(size=(2000, 100, 5))
    ours = cpu_seconds(lambda: intraclass_correlation_many(ratings))
    few = 10

    def reference() -> None:
        for feature in ratings[:few]:
            long = (
                pd.DataFrame(feature).reset_index().melt("index", var_name="rater", value_name="v")
            )
            pg.intraclass_corr(long, "index", "rater", "v")

    output(
        "ICC of 2 000 features x 100 subjects x 5 readers",
        ours,
        "pingouin, extrapolated",
        cpu_seconds(reference, 1) * len(ratings) / few,
    )


def sheet_validation() -> None:
    """Sheets of 9 000 participants and 27 000 scans, against jsonschema row by row."""
    import tempfile

    import jsonschema

    from corelab.study.loading import load_study
    from corelab.study.schema import load_schema

    folder = Path(tempfile.mkdtemp())
    people = [f"{n:05d}" for n in range(9000)]
    (folder / "p.tsv").write_text("participant_id\n" + "\n".join(people) + "\n")
    rows = [f"{p}\tv{k}\tadc\t{p}{k}.nii.gz" for p in people for k in range(3)]
    (folder / "s.tsv").write_text("participant_id\tvisit\tkind\tpath\n" + "\n".join(rows) + "\n")
    config = {
        "study": {"id": "s"},
        "inputs": {"participants": str(folder / "p.tsv"), "scans": str(folder / "s.tsv")},
    }
    ours = cpu_seconds(lambda: load_study(config))
    schema = load_schema("sheets")["properties"]["scans"]
    validator = jsonschema.Draft202012Validator(schema)
    header = ["participant_id", "visit", "kind", "path"]
    few = rows[:1000]

    def reference() -> None:
        for row in few:
            list(validator.iter_errors(dict(zip(header, row.split("\t"), strict=True))))

    output(
        "reading and checking 27 000 scan rows",
        ours,
        "jsonschema by row, extrapolated",
        cpu_seconds(reference, 1) * len(rows) / len(few),
    )


def frequency_maps() -> None:
    """A frequency map of 100 masks on the 1 mm grid, against stacking them all in memory."""
    import nibabel as nib
    import numpy as np

    from corelab.measurement.frequency import frequency_map

    rng = np.random.default_rng(1)
    masks = []
    for _ in range(100):
        voxels = np.zeros((157, 189, 136), np.uint8)
        x, y, z = rng.integers(40, 90, 3)
        voxels[x : x + 20, y : y + 20, z : z + 20] = 1
        masks.append(nib.Nifti1Image(voxels, np.eye(4)))
    ours = cpu_seconds(lambda: frequency_map(masks, enrolled=100, denominator="mapped"), 1)
    reference = cpu_seconds(
        lambda: np.mean([np.asanyarray(m.dataobj) > 0 for m in masks], axis=0), 1
    )
    output("frequency map of 100 masks (4 M voxels each)", ours, "numpy mean of a stack", reference)


def main() -> None:
    """Run all benchmarks, those of the packages that have a file of their own too."""
    icc_of_many_features()
    sheet_validation()
    frequency_maps()
    for path in sorted(Path(__file__).parent.glob("bench_*.py")):
        print(f"--- {path.stem}", flush=True)
        importlib.import_module(path.stem).main()


if __name__ == "__main__":
    main()
