"""What several tests share."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]


def data_folder(name: str = "") -> Path:
    """Folder of real data with known answers, or a skip that says why.

    It is named by CORELAB_TEST_DATA; beside a checkout with ../shared/data that is used.
    """
    root = Path(os.environ.get("CORELAB_TEST_DATA") or REPOSITORY.parent / "shared" / "data")
    folder = root / name
    if not folder.exists():
        pytest.skip(f"real data missing: {folder} (set CORELAB_TEST_DATA to its folder)")
    return folder


def clear_digest_caches():
    """Forget the files that code digests were computed from: they have changed since."""
    from corelab.provenance import digest

    for cached in (
        digest._module_file,
        digest._content,
        digest._data_files,
        digest.digest_of_script,
    ):
        cached.cache_clear()


def planned(entry, **more):
    """An entry of a plan as the specification of its type.

    Without an id it is ``a``, a comparison is by arm; keys that are None are left out.
    """
    from corelab.settings.analyses import spec_of

    arms = {"by": "arm"} if entry.get("type") == "comparison" else {}
    given = {"id": "a", **arms, **entry, **more}
    return spec_of({key: value for key, value in given.items() if value is not None})


def prepare_rows(rows, folder, **options):
    """Record of the visit that rows of the scans sheet, as mappings, make."""
    from corelab.imaging import prepare_visit
    from corelab.records.images import ScanRow

    return prepare_visit([ScanRow.from_row(row) for row in rows], folder, **options)


def run(entry, tables):
    """Statistics rows of an analysis that is written as in a plan."""
    from corelab.plan.run import run as run_spec

    return run_spec(planned(entry), tables)
