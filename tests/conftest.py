"""Order of the tests over workers: whole files, the long ones first."""

#: Rough CPU seconds of the files that take longest, for their order alone: a worker that starts
#: one of them last would work alone at the end.
SECONDS = {
    "integration/test_images.py": 400,
    "integration/test_central_reading.py": 230,
    "integration/test_faults.py": 200,
    "integration/test_reruns.py": 180,
    "integration/test_bad_apple.py": 150,
    "integration/test_privacy.py": 100,
    "integration/test_disturbed_perfusion.py": 100,
    "dag/test_dag.py": 120,
    "dag/test_planning.py": 100,
    "acceptance/test_registration_accuracy.py": 120,
    "unit/test_registration_stages.py": 90,
    "unit/test_glioblastoma.py": 80,
}
#: What the others are taken for, by folder; doctests of the library fill the gaps at the end.
FOLDER_SECONDS = {"integration/": 60, "dag/": 40, "acceptance/": 20, "unit/": 10}


def seconds(path: str) -> int:
    """Expected CPU seconds of a test file."""
    known = (
        cost for part, cost in {**SECONDS, **FOLDER_SECONDS}.items() if f"tests/{part}" in path
    )
    return next(known, 0)


def pytest_collection_modifyitems(items):
    """Start what takes minutes before what takes seconds, so that no worker waits at the end."""
    items.sort(key=lambda item: -seconds(str(item.path)))
