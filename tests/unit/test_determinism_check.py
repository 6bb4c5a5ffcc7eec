"""What `make determinism` lets pass between two Pythons: versions that a study states, no more."""

import hashlib
import json
import sys

import pytest
from helpers import REPOSITORY

sys.path.append(str(REPOSITORY / "tests" / "determinism"))
from pythons import unexplained


def products(python, estimate="1.25", page="same"):
    """A study's products: its versions are stated in a text, a PDF of it and the manifest."""
    text = f"Python {python}, matplotlib 3.11.2; {page}\n".encode()
    found = {
        "s/statistics/agreement.tsv": f"icc\t{estimate}\n".encode(),
        "s/report/index.html": text,
        "s/report/report.pdf": b"%PDF " + hashlib.sha256(text).digest(),
    }
    rows = [
        {"path": name, "bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
        for name, data in found.items()
    ]
    manifest = {
        "products": rows,
        "products_sha256": hashlib.sha256(json.dumps(rows).encode()).hexdigest(),
        "software": {"python": python, "matplotlib": "3.11.2"},
    }
    return found | {"s/provenance/manifest.json": json.dumps(manifest).encode()}


def test_stated_versions_and_what_follows_from_them_may_differ():
    different, wrong = unexplained(products("3.11.2"), products("3.12.10"))
    assert len(different) == 3 and wrong == []


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        ({"estimate": "1.26"}, ["s/statistics/agreement.tsv"]),
        ({"page": "another"}, ["s/report/index.html", "s/report/report.pdf"]),
    ],
)
def test_anything_else_is_named(changed, named):
    _, wrong = unexplained(products("3.11.2"), products("3.12.1", **changed))
    assert wrong == named


def test_a_product_that_is_not_there_is_named():
    fewer = products("3.12.1")
    del fewer["s/statistics/agreement.tsv"]
    _, wrong = unexplained(products("3.11.2"), fewer)
    assert "s/statistics/agreement.tsv" in wrong
