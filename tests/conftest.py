"""Order of the tests over workers: whole files, the long ones first."""

#: Files whose tests run the workflow or long computations; what is left fills the gaps at the end.
LONG_FIRST = ("tests/integration/", "tests/dag/", "tests/acceptance/", "tests/unit/")


def pytest_collection_modifyitems(items):
    """Start what takes minutes before what takes seconds, so that no worker waits at the end."""

    def place(item):
        path = str(item.path)
        return next((n for n, part in enumerate(LONG_FIRST) if part in path), len(LONG_FIRST))

    items.sort(key=place)
