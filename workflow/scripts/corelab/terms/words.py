"""Words for people: names of columns, endpoints and groups in tables and figures."""

from __future__ import annotations

from corelab.terms.endpoints import ENDPOINT_UNITS
from corelab.terms.labels import label

#: Words that are not written in small letters.
ACRONYMS = {
    word.lower(): word
    for word in (
        "ASPECTS", "CBV", "CBF", "MTT", "Tmax", "NIHSS", "mRS", "AUC", "ADC", "DWI", "FLAIR", "CT",
        "MRI", "MNI", "RANO", "mRANO", "ICH", "HIR", "RCBF", "SD", "HU", "SNR", "ROC", "BMI", "AIF",
        "VOF", "CNR", "ICC", "T1w", "T1c", "T2w", "Dice", "Jacobian",
    )
}  # fmt: skip


def label_words(name: object) -> str:
    """A name of a column, endpoint or outcome for people, with its acronyms.

    Examples
    --------
    >>> label_words("cbv_index"), label_words("nihss"), label_words("auc"), label_words("age")
    ('CBV index', 'NIHSS', 'AUC', 'Age')
    """
    words = [ACRONYMS.get(word.lower(), word) for word in str(name).replace("_", " ").split()]
    text = " ".join(words)
    first = words[0] if words else ""
    return text if first.lower() in ACRONYMS else text[:1].upper() + text[1:]


def in_sentence(words: str) -> str:
    """A label within a sentence: small first letter, unless it is an acronym.

    Examples
    --------
    >>> in_sentence("Infarct volume"), in_sentence("CBV index"), in_sentence("ASPECTS")
    ('infarct volume', 'CBV index', 'ASPECTS')
    """
    first = words.partition(" ")[0]
    return words if first.lower() in ACRONYMS else words[:1].lower() + words[1:]


def endpoint_words(name: object) -> str:
    """How an endpoint, or several with commas between, is written for people.

    Examples
    --------
    >>> endpoint_words("infarct_volume"), endpoint_words("lesion_volume:tumourcore")
    ('Infarct volume', 'Lesion volume (tumour core)')
    >>> endpoint_words("aspects"), endpoint_words("cbv_index,core_volume")
    ('ASPECTS', 'CBV index, core volume')
    """
    if not name or name == "n/a":
        return ""
    words: list[str] = []
    for part in str(name).split(","):
        stem, _, detail = part.strip().partition(":")
        text = label_words(stem) + (f" ({label(detail).words})" if detail else "")
        words.append(in_sentence(text) if words else text)
    return ", ".join(words)


def group_words(group: object) -> str:
    """A group of a statistics row for people: pair, contrast, level or term; nothing for all.

    Examples
    --------
    >>> group_words("arm=high|arm=placebo"), group_words("reader-1|reader-2"), group_words("all")
    ('high vs placebo', 'reader-1 vs reader-2', '')
    >>> group_words("q=0.50|arm=high"), group_words("arm=high"), group_words("core_volume|nihss")
    ('quantile 0.50, high', 'high', 'core volume vs NIHSS')
    >>> group_words("arm=high|arm=placebo|delta=2")
    'high vs placebo, delta=2'
    """
    text = "" if group is None or group == "all" else str(group)
    parts = text.split("|")
    if parts[0].startswith("q="):
        rest = [part.rpartition("=")[2] for part in parts[1:]]
        return ", ".join([f"quantile {parts[0][2:]}", *rest])
    stem = parts[0].partition("=")[0] if "=" in parts[0] else None
    pair = [part for part in parts if part.startswith(f"{stem}=")] if stem is not None else []
    rest = [part for part in parts if part not in pair] if pair else []
    pair = [part.partition("=")[2] for part in pair] or [
        in_sentence(endpoint_words(part))
        if part.partition(":")[0] in ENDPOINT_UNITS or part.lower() in ACRONYMS
        else part
        for part in parts
    ]
    return ", ".join([" vs ".join(pair), *rest])
