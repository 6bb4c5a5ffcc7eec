"""Order of the tests over workers, and what they compute once for all of them."""

import fcntl
import os
import shutil
from types import SimpleNamespace

# As every job sets it, and before numpy is loaded: two workers with two threads each on two cores
# wait for one another in loops that take CPU time (a small mixed model: 15 s instead of 2 s).
THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
os.environ |= dict.fromkeys((*THREADS, "ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS"), "1")

import pytest  # noqa: E402
from workflow_runs import copy_of_repository, snakemake, tables_study  # noqa: E402

#: CPU seconds of the files that take longest, for their order alone: a worker that starts one of
#: them last would work alone at the end.
SECONDS = {
    "integration/test_images.py": 95,
    "integration/test_faults.py": 85,
    "acceptance/test_registration_accuracy.py": 80,
    "integration/test_reruns.py": 60,
    "acceptance/test_segmentation_truth.py": 60,
    "unit/test_pd_error_rates.py": 60,
    "acceptance/test_reporting_browser.py": 45,
    "unit/test_imaging_brain.py": 35,
    "dag/test_dag.py": 30,
    "integration/test_central_reading.py": 30,
    "unit/test_segmentation_visit.py": 28,
    "unit/test_registration_stages.py": 28,
    "unit/test_registration_contract.py": 28,
    "acceptance/test_real_examples.py": 28,
    "unit/test_pd_keys.py": 25,
    "dag/test_contents.py": 18,
    "integration/test_privacy.py": 15,
    "unit/test_reporting_report.py": 15,
    "unit/test_hostile.py": 15,
}
#: What the others are taken for, by folder; doctests of the library fill the gaps at the end.
FOLDER_SECONDS = {"integration/": 20, "dag/": 10, "acceptance/": 15, "contract/": 10, "unit/": 5}


def seconds(path: str) -> int:
    """Expected CPU seconds of a test file."""
    known = (
        cost for part, cost in {**SECONDS, **FOLDER_SECONDS}.items() if f"tests/{part}" in path
    )
    return next(known, 0)


def pytest_collection_modifyitems(items):
    """Start what takes minutes before what takes seconds, so that no worker waits at the end."""
    items.sort(key=lambda item: -seconds(str(item.path)))


@pytest.fixture(scope="session")
def tables_run(tmp_path_factory):
    """The study of tables, run once to the end in a copy of the repository, whichever worker asks.

    Returns ``repository`` and ``config``, for test_reruns.py alone, which edits them and their
    results; and ``log`` and ``manifest``, texts of the undisturbed run, for all.
    """
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "tables_run"
    folder.mkdir(exist_ok=True)
    repository, config, log = folder / "repository", folder / "study/config.yaml", folder / "log"
    manifest = folder / "manifest.json"
    with open(folder / "lock", "w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        if not log.is_file():
            shutil.rmtree(repository, ignore_errors=True)
            done = snakemake(
                "--configfile",
                str(tables_study(config.parent)),
                cwd=copy_of_repository(repository),
            )
            assert done.returncode == 0, done.stdout[-6000:]
            made = config.parent / "results/tables/provenance/manifest.json"
            shutil.copy2(made, manifest)
            log.write_text(done.stdout)
    return SimpleNamespace(
        repository=repository, config=config, log=log.read_text(), manifest=manifest.read_text()
    )
