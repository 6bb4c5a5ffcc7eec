"""Cohort jobs of an imaged study at scale: CPU seconds and memory of each.

python tests/bench/bench_imaged.py [VISITS ...]

The first participant of the finished demo (`make demo`; another folder by CORELAB_DEMO), two visits
with seven scans, under many names: records and sheets as they are but for the names. Images are one
tiny image, so that the cost of many visits is measured, not that of voxels (`bench_scale.py maps`).
The report is not made: it draws every subject (docs/scale.md).
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import yaml

sys.path.insert(0, str(Path(__file__).resolve().parent))
from bench_scale import REPOSITORY, print_jobs, run_jobs

DEMO = Path(os.environ.get("CORELAB_DEMO", REPOSITORY / "results" / "demo"))
#: Participant that stands for all, and its visits with images.
MODEL, VISITS_EACH = "001", 2
#: What the whole study waits for; the report, and what waits for it, apart.
FIRST = ("endpoints", "statistics", "submission", "trace_table")
LAST = ("manifest", "verified")
#: Analyses of the demo's plan that are made: of values, of masks, of arms.
ANALYSES = ("inter_reader", "contours", "growth_by_arm")


def _renamed(text: str, person: str) -> str:
    return text.replace(f"sub-{MODEL}", f"sub-{person}").replace(f'"{MODEL}"', f'"{person}"')


def write_sheets(config: dict[str, Any], folder: Path, people: list[str]) -> None:
    """Sheets of all participants; the arms and covariates of the demo take turns."""
    for name, given in config["inputs"].items():
        path = REPOSITORY / (given if isinstance(given, str) else given[0])
        header, *lines = path.read_text(encoding="utf-8").splitlines()
        own = [line.split("\t", 1)[1] for line in lines if line.startswith(f"{MODEL}\t")]
        if name == "scans":
            own = [row.replace(f"\tsub-{MODEL}", f"\t{folder}/scans/sub-{MODEL}") for row in own]
        if name == "participants":
            turns = [line.split("\t", 1)[1] for line in lines]
            rows = [f"{p}\t{turns[n % len(turns)]}" for n, p in enumerate(people)]
        else:
            rows = [f"{p}\t{_renamed(row, p)}" for p in people for row in own]
        written = folder / f"{name}.tsv"
        written.write_text("\n".join([header, *rows]) + "\n", encoding="utf-8")
        config["inputs"][name] = str(written) if isinstance(given, str) else [str(written)]


def link_files(source: Path, target: Path, people: list[str], image: Path) -> None:
    """Records with the names of each participant; everything else as links."""
    model = source / f"sub-{MODEL}"
    files = [path for path in sorted(model.rglob("*")) if path.is_file()]
    folders = [path for path in [model, *sorted(model.rglob("*"))] if path.is_dir()]
    records = {path for path in files if path.parent.name.startswith(("ses-", "sub-"))}
    texts = {path: path.read_text(encoding="utf-8") for path in records if path.suffix == ".json"}
    for person in people:
        for path in folders:
            Path(target, _renamed(str(path.relative_to(source)), person)).mkdir(parents=True)
        # One for each participant: a file system limits the links to one file.
        own = Path(target, f"sub-{person}", image.name)
        shutil.copyfile(image, own)
        for path in files:
            place = Path(target, _renamed(str(path.relative_to(source)), person))
            if path in texts:
                place.write_text(_renamed(texts[path], person), encoding="utf-8")
            elif path.name.endswith(".nii.gz"):
                place.hardlink_to(own)
            else:
                place.hardlink_to(path)
    # All made at one time: none is older than what it is made from.
    moment = time.time()
    for path in texts:
        for person in people:
            place = Path(target, _renamed(str(path.relative_to(source)), person))
            os.utime(place, (moment, moment))


def multiplied(folder: Path, visits: int) -> Path:
    """Config of the study with so many visits."""
    config = yaml.safe_load((REPOSITORY / "config" / "config.yaml").read_text(encoding="utf-8"))
    config.pop("phantom")
    config["analyses"] = [one for one in config["analyses"] if one["id"] in ANALYSES]
    people = [f"{n:05d}" for n in range(visits // VISITS_EACH)]
    image = folder / "tiny.nii.gz"
    voxels = np.ones((8, 8, 8), np.uint8)
    nib.save(nib.Nifti1Image(voxels, np.diag([20.0, 20.0, 20.0, 1.0])), image)
    write_sheets(config, folder, people)
    config["results_dir"] = str(folder / "results")
    link_files(DEMO / "phantom", folder / "scans", people, image)
    link_files(DEMO / "derivatives", folder / "results" / "demo" / "derivatives", people, image)
    path = folder / "config.yaml"
    path.write_text(yaml.safe_dump(config), encoding="utf-8")
    return path


def imaged(visits: int) -> None:
    """All cohort jobs but the report, each in its process."""
    with tempfile.TemporaryDirectory(dir=DEMO.parent) as name:
        folder = Path(name)
        config, usage = multiplied(folder, visits), folder / "usage.tsv"
        planning = run_jobs(config, FIRST, usage)
        report, moment = folder / "results" / "demo" / "report", time.time() + 5
        report.mkdir(exist_ok=True)
        for file in ("index.html", "review.html", "report.pdf", "analysis_results.tsv"):
            (report / file).touch()
            os.utime(report / file, (moment, moment))
        planning = max(planning, run_jobs(config, LAST, usage))
        print(f"{visits:>6} visits, Snakemake itself {planning:8.1f} CPU s", flush=True)
        print_jobs(visits, usage)


def main() -> None:
    """At the requested sizes; a small one in ``make bench``."""
    if not (DEMO / "derivatives" / f"sub-{MODEL}" / "measure.json").is_file():
        print("skipped: no finished demo in results/demo")
        return
    for size in [int(word) for word in sys.argv[1:]] or [200]:
        imaged(size)


if __name__ == "__main__":
    main()
