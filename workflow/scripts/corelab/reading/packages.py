"""Pseudonymous packages of cases for readers, and the way back from their forms.

A package holds pseudonyms only. The key that leads back to subject and visit, and the secret
from which the pseudonyms are made, stay in ``reading/key.tsv`` outside all packages.
"""

from __future__ import annotations

import gzip
import hashlib
import hmac
import json
import secrets
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from corelab.provenance.products import (
    atomic_path,
    file_sha256,
    read_json,
    read_table,
    write_table,
)
from corelab.reading.blinding import CLOSED, blinded_nifti, check_package, forbidden_tokens
from corelab.reading.presentation import Case, Shown, presentation_order, repeated_cases
from corelab.study.columns import ENDPOINT_UNITS, volume_endpoint
from corelab.study.model import IMAGE_KINDS, Study
from corelab.study.naming import bids_label

CASES = {
    "position": "Place in the sequence; read in this order",
    "part": "1, or 2 for what is read after part 1 is confirmed",
    "screen": "Cases with the same number are looked at together",
    "subject": "Pseudonym of the subject, n/a where cases are not to be linked",
    "time_point": "Number of the visit in time, n/a where it is not to be known",
    "case": "Pseudonym of the case",
    "presentation": "How the cases are presented",
    "kind": "Kind of scan",
    "image": "File in this package, n/a where the study has no images",
}
FORM = {
    "position": "Place in the sequence",
    "case": "Pseudonym of the case",
    "endpoint": "What is to be read",
    "unit": "Unit of the value",
    "value": "To fill in; n/a if the case cannot be evaluated",
    "not_evaluable_reason": "To fill in where there is no value",
    "read_at": "To fill in: time at which the read was confirmed, ISO 8601",
}
KEY = {
    "case": "Pseudonym of the case",
    "subject": "Pseudonym of the subject",
    "participant_id": "Subject identifier",
    "visit": "Visit name",
    "repeat": "1, or 2 for a case shown again",
    "part": "Part of the presentation",
    "secret": "Key of the HMAC-SHA256 that makes the pseudonyms; never leaves this folder",
}
_COMPRESSION = 4


def pseudonym(secret: str, *names: str) -> str:
    """First 16 characters of the HMAC-SHA256 of names under a secret (RFC 2104).

    Examples
    --------
    >>> pseudonym("00ff", "001", "day5")
    'd10ee9c1beb9976b'
    """
    text = "\x1f".join(names).encode("utf-8")
    return hmac.new(bytes.fromhex(secret), text, hashlib.sha256).hexdigest()[:16]


def study_cases(study: Study) -> list[Case]:
    """What is to be read: visits with images, or in a study of tables the visits that they name."""
    if study.image_visits:
        return [Case(*key) for key in study.image_visits]
    found: set[tuple[str, str]] = set()
    for name in ("reads", "measurements"):
        frame = study.sheets.get(name)
        if frame is not None and {"participant_id", "visit"} <= set(frame.columns):
            pairs = frame[["participant_id", "visit"]].dropna()
            found |= set(pairs.itertuples(index=False, name=None))
    listed = set(study.participants)
    return [Case(*key) for key in sorted(found) if key[0] in listed]


def study_readers(study: Study) -> list[str]:
    """Readers who get a package: as configured, else those of the reads sheet."""
    configured = study.config["reading"]["readers"]
    frame = study.sheets.get("reads")
    if configured or frame is None:
        return list(configured) or ["reader-1", "reader-2"]
    readers = _read_by_readers(frame)["reader"].dropna().unique()
    return sorted(map(str, readers)) or ["reader-1", "reader-2"]


def study_endpoints(study: Study) -> list[str]:
    """Endpoints of the read form."""
    settings = study.config["reading"]
    if settings["endpoints"]:
        return list(settings["endpoints"])
    found = {rule["endpoint"] for rule in settings["adjudication"]}
    frame = study.sheets.get("reads")
    if frame is not None:
        found |= set(_read_by_readers(frame)["endpoint"].dropna())
    return sorted(found) or [volume_endpoint(label) for label in study.mask_labels]


def _read_by_readers(frame: pd.DataFrame) -> pd.DataFrame:
    if "role" not in frame:
        return frame
    return frame[frame["role"].isna() | (frame["role"] == "reader")]


def _kept_secret(key_path: Path) -> str:
    """The secret of an earlier key, so that pseudonyms stay; else a new one."""
    if key_path.is_file():
        kept = sorted(set(read_table(key_path)["secret"].dropna()))
        if len(kept) > 1:
            raise ValueError(f"{key_path} holds {len(kept)} secrets; restore the file")
        if kept:
            return kept[0]
    return secrets.token_hex(32)


def build_key(shown: Iterable[Shown], secret: str) -> pd.DataFrame:
    """Pseudonym of every case; columns :data:`KEY`.

    A case that is shown again, or in the second part of a hybrid presentation, has another
    pseudonym there, so that it is not known again.
    """
    rows = []
    for case, part in sorted({(item.case, item.part) for item in shown}):
        again = [f"repeat-{case.repeat}"] * (case.repeat > 1) + [f"part-{part}"] * (part > 1)
        names = (case.participant_id, case.visit, *again)
        subject = ("subject", case.participant_id, str(case.repeat))
        rows.append(
            (
                f"case-{pseudonym(secret, *names)}",
                f"subject-{pseudonym(secret, *subject)}",
                *(case.participant_id, case.visit, str(case.repeat), str(part), secret),
            )
        )
    key = pd.DataFrame(rows, columns=list(KEY), dtype=object)
    if key["case"].duplicated().any():
        raise ValueError("two cases have one pseudonym; delete reading/key.tsv for a new secret")
    return key


def prepared_images(
    records: Iterable[str | Path], kinds: Sequence[str] = ()
) -> dict[tuple[str, str], list[tuple[str, str]]]:
    """(participant_id, visit) -> kinds and paths of the conformed images, masks left out."""
    wanted = set(kinds or IMAGE_KINDS)
    images: dict[tuple[str, str], list[tuple[str, str]]] = {}
    for path in records:
        record = read_json(path)
        usable = [
            (scan["kind"], scan["path"])
            for scan in record["scans"]
            if scan["status"] == "ok" and scan["kind"] in wanted and scan["path"]
        ]
        images[(record["participant_id"], record["visit"])] = sorted(usable)
    return images


def _image_names(case: str, images: Sequence[tuple[str, str]]) -> list[tuple[str, str, str]]:
    """(kind, source, name in the package); images of one kind are numbered."""
    named, count = [], dict.fromkeys((kind for kind, _ in images), 0)
    for kind, source in images:
        count[kind] += 1
        number = f"-{count[kind]}" if count[kind] > 1 else ""
        named.append((kind, source, f"images/{case}_{kind}{number}.nii.gz"))
    return named


def _copy_blinded(source: Path, targets: Sequence[Path]) -> None:
    packed = source.read_bytes()
    content = gzip.decompress(packed) if packed[:2] == b"\x1f\x8b" else packed
    clean = gzip.compress(blinded_nifti(content), _COMPRESSION, mtime=0)
    for target in targets:
        with atomic_path(target) as temporary:
            temporary.write_bytes(clean)


def _dictionary(columns: Mapping[str, str]) -> bytes:
    text = {name: {"Description": words} for name, words in columns.items()}
    return (json.dumps(text, indent=2, sort_keys=True, ensure_ascii=False) + "\n").encode()


#: What a package may hold besides images.
TABLES = {"cases.tsv": tuple(CASES), "form.tsv": tuple(FORM)}
DICTIONARIES = {"cases.json": _dictionary(CASES), "form.json": _dictionary(FORM)}


def write_packages(study: Study, records: Sequence[str | Path], folder: Path) -> dict[str, Any]:
    """Write the packages of all readers and the key, and prove the packages blinded.

    Parameters
    ----------
    study
        As read; its ``reading`` settings say how.
    records
        ``prepare.json`` of the visits with images; none for a study of tables.
    folder
        The study's results folder; packages go to ``reading/packages/<reader>/``.

    Returns
    -------
    dict
        Presentation, seed, and by reader the number of cases and the sha256 of each file.

    Raises
    ------
    BlindingFault
        If a package gives away what a reader must not know.
    """
    settings = study.config["reading"]
    cases = study_cases(study)
    if settings["repeat_share"] > 0:
        cases += repeated_cases(cases, share=settings["repeat_share"], seed=settings["seed"])
    orders = {
        reader: presentation_order(
            cases,
            kind=settings["presentation"],
            reader=reader,
            seed=settings["seed"],
            visit_order=study.visit_order,
        )
        for reader in study_readers(study)
    }
    key_path = folder / "reading" / "key.tsv"
    key = build_key((s for order in orders.values() for s in order), _kept_secret(key_path))
    write_table(key, key_path, KEY)
    key_path.chmod(0o600)
    names: dict[tuple[str, str, int, int], tuple[str, str]] = {
        (row["participant_id"], row["visit"], int(row["repeat"]), int(row["part"])): (
            row["case"],
            row["subject"],
        )
        for row in key.to_dict("records")
    }
    images = prepared_images(records, settings["kinds"])
    packages = {reader: folder / "reading" / "packages" / bids_label(reader) for reader in orders}
    for (participant_id, visit, _, _), (case, _) in names.items():
        for _, source, name in _image_names(case, images.get((participant_id, visit), [])):
            _copy_blinded(folder / source, [package / name for package in packages.values()])
    tokens = forbidden_tokens(study)
    summary: dict[str, Any] = {}
    for reader, order in orders.items():
        package = packages[reader]
        shown = [
            (item, *names[(item.case.participant_id, item.case.visit, item.case.repeat, item.part)])
            for item in order
        ]
        listed = _case_rows(shown, images, settings["presentation"])
        write_table(_frame(listed, CASES), package / "cases.tsv", CASES, sort=False)
        form = _form_rows(shown, study_endpoints(study))
        write_table(_frame(form, FORM), package / "form.tsv", FORM, sort=False)
        closed = {**CLOSED, "presentation": settings["presentation"]}
        check_package(package, TABLES, DICTIONARIES, tokens, closed)
        files = sorted(path for path in package.rglob("*") if path.is_file())
        summary[reader] = {
            "cases": len(order),
            "files": {p.relative_to(package).as_posix(): file_sha256(p) for p in files},
        }
    return {
        "presentation": settings["presentation"],
        "seed": settings["seed"],
        "searched_for": len(tokens),
        "readers": summary,
    }


def _frame(rows: list[dict[str, Any]], columns: Mapping[str, str]) -> pd.DataFrame:
    return pd.DataFrame(rows, columns=list(columns), dtype=object)


def _case_rows(
    shown: Iterable[tuple[Shown, str, str]],
    images: Mapping[tuple[str, str], Sequence[tuple[str, str]]],
    presentation: str,
) -> list[dict[str, Any]]:
    """Rows of cases.tsv: one per image, one without an image where a case has none."""
    rows = []
    for item, case, subject in shown:
        named = _image_names(case, images.get((item.case.participant_id, item.case.visit), []))
        files: list[tuple[str | None, str | None]] = [(kind, name) for kind, _, name in named]
        for kind, name in files or [(None, None)]:
            rows.append(
                {
                    "position": item.position,
                    "part": item.part,
                    "screen": item.screen,
                    "subject": subject if item.linked else None,
                    "time_point": item.time_point,
                    "case": case,
                    "presentation": presentation,
                    "kind": kind,
                    "image": name,
                }
            )
    return rows


def _form_rows(
    shown: Iterable[tuple[Shown, str, str]], endpoints: Sequence[str]
) -> list[dict[str, Any]]:
    return [
        {
            "position": item.position,
            "case": case,
            "endpoint": endpoint,
            "unit": ENDPOINT_UNITS.get(endpoint.split(":")[0]),
            "value": None,
            "not_evaluable_reason": None,
            "read_at": None,
        }
        for item, case, _ in shown
        for endpoint in endpoints
    ]


def reads_from_form(form: pd.DataFrame, key: pd.DataFrame, reader: str) -> pd.DataFrame:
    """A filled-in form as rows of the reads sheet.

    Parameters
    ----------
    form
        ``form.tsv`` as the reader sent it back.
    key
        ``reading/key.tsv``.
    reader
        Whose form it is.

    Returns
    -------
    pandas.DataFrame
        Columns of the reads sheet. The second part of a hybrid presentation has the repeat 2
        (with repeated cases: 2 and 4 are the second parts of 1 and 3).

    Raises
    ------
    ValueError
        If the form names a case that the key does not know, or one line twice.
    """
    known = key.set_index("case")
    unknown = sorted(set(form["case"]) - set(known.index))
    if unknown:
        raise ValueError(f"the form of {reader} names cases that the key does not know: {unknown}")
    if form.duplicated(["case", "endpoint"]).any():
        raise ValueError(f"the form of {reader} has a case and endpoint twice; keep one line")
    parts = int(known["part"].astype(int).max()) if len(known) else 1
    rows = []
    for line in form.to_dict("records"):
        case = known.loc[line["case"]]
        rows.append(
            {
                "participant_id": case["participant_id"],
                "visit": case["visit"],
                "endpoint": line["endpoint"],
                "reader": reader,
                "value": line["value"],
                "unit": line["unit"],
                "repeat": str((int(case["repeat"]) - 1) * parts + int(case["part"])),
                "role": "reader",
                "read_at": line["read_at"],
                "presentation_order": str(line["position"]),
            }
        )
    return pd.DataFrame(rows)
