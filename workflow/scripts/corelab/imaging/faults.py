"""The fault of one file: a status of that file, never the end of a run."""

from __future__ import annotations


class ImageFault(ValueError):
    """A file that cannot be used, with the reason and the remedy in plain words.

    Attributes
    ----------
    message
        What is wrong, with the value found and why it matters.
    remedy
        How to fix it.

    Examples
    --------
    >>> str(ImageFault("a.nii is empty", "copy it again"))
    'a.nii is empty. Remedy: copy it again'
    """

    def __init__(self, message: str, remedy: str) -> None:
        super().__init__(f"{message}. Remedy: {remedy}")
        self.message = message
        self.remedy = remedy
