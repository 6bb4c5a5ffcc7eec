"""The JSON beside an image: read so that no fault of it stops a job."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from corelab.imaging.nifti import sidecar_path

#: Byte order marks and the encodings that they announce.
_MARKS = {b"\xef\xbb\xbf": "utf-8-sig", b"\xff\xfe": "utf-16", b"\xfe\xff": "utf-16"}


def read_sidecar(image: Path) -> tuple[dict[str, Any], list[str]]:
    """Fields of the JSON beside an image, and what is wrong with it.

    Returns
    -------
    fields
        Name -> value; empty where there is no sidecar or it cannot be used. Numbers that are not
        finite (``NaN``, which JSON does not know, or ``1e999``) are left out.
    notes
        One sentence per fault.

    Examples
    --------
    >>> import tempfile
    >>> folder = tempfile.TemporaryDirectory(); path = Path(folder.name, "a.nii.gz")
    >>> _ = sidecar_path(path).write_text('{"EchoTime": 0.09, "RepetitionTime": NaN}')
    >>> read_sidecar(path)
    ({'EchoTime': 0.09}, ['the sidecar a.json has no finite number in RepetitionTime, which was
    not used'])
    >>> _ = sidecar_path(path).write_text('[1, 2]'); read_sidecar(path)[1]
    ['the sidecar a.json holds a list, not an object of names and values, and was not used']
    """
    path = sidecar_path(image)
    if not path.is_file():
        return {}, []
    notes: list[str] = []
    try:
        raw = path.read_bytes()
        encoding = next((name for mark, name in _MARKS.items() if raw.startswith(mark)), "utf-8")
        try:
            text = raw.decode(encoding)
        except UnicodeDecodeError:
            text = raw.decode("latin-1")
            notes.append(f"the sidecar {path.name} is not UTF-8 and was read as Latin-1")
        content = json.loads(text, strict=False)
    except (ValueError, OSError, RecursionError) as error:
        return {}, [f"the sidecar {path.name} cannot be read ({error}) and was not used"]
    if not isinstance(content, dict):
        word = "a list" if isinstance(content, list) else "a single value"
        return {}, [
            f"the sidecar {path.name} holds {word}, not an object of names and values, and was "
            "not used"
        ]
    odd = sorted(name for name, value in content.items() if not _finite(value))
    if odd:
        notes.append(
            f"the sidecar {path.name} has no finite number in {', '.join(odd)}, which was not used"
        )
    return {name: value for name, value in content.items() if name not in odd}, notes


def read_b_values(image: Path) -> tuple[list[float] | None, list[str]]:
    """Diffusion weightings in the ``.bval`` beside an image (s/mm2), and what is wrong with them.

    Examples
    --------
    >>> import tempfile
    >>> folder = tempfile.TemporaryDirectory(); path = Path(folder.name, "a.nii.gz")
    >>> read_b_values(path)
    (None, [])
    >>> _ = sidecar_path(path).with_suffix(".bval").write_text("0 1000"); read_b_values(path)
    ([0.0, 1000.0], [])
    >>> _ = sidecar_path(path).with_suffix(".bval").write_text("0 nan"); read_b_values(path)
    (None, ['a.bval holds no list of finite numbers and was not used'])
    """
    path = sidecar_path(image).with_suffix(".bval")
    if not path.is_file():
        return None, []
    try:
        values = finite_numbers(path.read_text(encoding="utf-8-sig").split())
    except (OSError, ValueError):
        values = None
    return values, [] if values else [
        f"{path.name} holds no list of finite numbers and was not used"
    ]


def finite_numbers(values: Any) -> list[float] | None:
    """The values as finite numbers; None where they are not a list of such.

    Examples
    --------
    >>> finite_numbers(["0", 1000]), finite_numbers([0, "x"]), finite_numbers("12")
    ([0.0, 1000.0], None, None)
    """
    if not isinstance(values, list):
        return None
    try:
        numbers = [float(value) for value in values]
    except (TypeError, ValueError):
        return None
    return numbers if numbers and all(map(math.isfinite, numbers)) else None


def _finite(value: Any) -> bool:
    """Whether all numbers of a value are finite."""
    if isinstance(value, float):
        return math.isfinite(value)
    if isinstance(value, list):
        return all(map(_finite, value))
    return all(map(_finite, value.values())) if isinstance(value, dict) else True
