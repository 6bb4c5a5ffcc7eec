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
