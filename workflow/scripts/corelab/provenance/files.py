"""Files that are complete or absent, and their digests.

Only the standard library is used, because jobs import this before threads are set.
"""

from __future__ import annotations

import hashlib
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

TEMPORARY = ".tmp-"
#: Files that this process has put in their place.
WRITTEN: set[str] = set()


def file_sha256(path: str | os.PathLike[str]) -> str:
    """SHA-256 of a file's bytes, as hexadecimal text."""
    with open(path, "rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


@contextmanager
def atomic_path(path: str | os.PathLike[str], *, durable: bool = True) -> Iterator[Path]:
    """Give a temporary path beside ``path``; rename it to ``path`` if the block succeeds.

    The temporary name keeps the suffixes (``.nii.gz``), because writers choose the format by them.
    If anything fails, ``path`` is either the old file or the whole new one. ``durable``: flushed to
    disk first.

    Examples
    --------
    >>> import tempfile
    >>> target = Path(tempfile.mkdtemp(), "x.txt")
    >>> with atomic_path(target) as temporary:
    ...     _ = temporary.write_text("whole")
    >>> target.read_text(), len(list(target.parent.iterdir()))
    ('whole', 1)
    """
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f"{TEMPORARY}{secrets.token_hex(6)}-{target.name}")
    try:
        yield temporary
        if durable:
            with open(temporary, "rb+") as handle:
                os.fsync(handle.fileno())
        os.replace(temporary, target)
        WRITTEN.add(str(target.absolute()))
    finally:
        with suppress(FileNotFoundError):
            temporary.unlink()
