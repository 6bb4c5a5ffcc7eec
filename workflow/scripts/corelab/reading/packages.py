"""Pseudonymous packages of cases for readers.

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
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd

from corelab.imaging.nifti import packed as packed_image
from corelab.provenance.products import (
    atomic_path,
    file_sha256,
    read_table,
    write_table,
)
from corelab.reading.blinding import CLOSED, blinded_nifti, check_package, forbidden_tokens
from corelab.reading.presentation import Case, Shown, presentation_order, repeated_cases
from corelab.reading.reader_list import by_roles
from corelab.reading.reference_cases import (
    REFERENCE_VISIT,
    reference_cases,
    reference_images,
)
from corelab.reading.sampling import SAMPLE, stratified_sample
from corelab.records.images import Prepared
from corelab.records.reading import Package, Packages
from corelab.settings.reading import ReadingSample
from corelab.study.model import Study
from corelab.study.naming import bids_label
from corelab.terms.endpoints import unit_of
from corelab.terms.kinds import IMAGE_KINDS
from corelab.terms.labels import volume_endpoint

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
    "reference": "yes for a reference case, whose participant_id is its reference_id",
    "secret": "Key of the HMAC-SHA256 that makes the pseudonyms; never leaves this folder",
}


def _pseudonym(secret: str, *names: str) -> str:
    """First 16 characters of the HMAC-SHA256 of names under a secret (RFC 2104)."""
    text = "\x1f".join(names).encode("utf-8")
    return hmac.new(bytes.fromhex(secret), text, hashlib.sha256).hexdigest()[:16]


def _study_sample(study: Study) -> pd.DataFrame:
    """Participants read centrally; all where no sample is planned. Columns of SAMPLE."""
    planned = study.settings.reading.sample or ReadingSample(share=1)
    return stratified_sample(
        study.sheets["participants"],
        share=planned.share,
        strata=planned.strata or (),
        seed=study.settings.reading.seed,
    )


def _study_cases(study: Study) -> list[Case]:
    """Visits to be read: those with images, or in a study of tables those that they name.

    Only of the subjects that the sample draws (``reading.sample``).
    """
    sample = _study_sample(study)
    drawn = set(sample.loc[sample["drawn"] == "yes", "participant_id"])
    return [case for case in _every_case(study) if case.participant_id in drawn]


def _every_case(study: Study) -> list[Case]:
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


def _study_readers(study: Study) -> list[str]:
    """Readers who get a package: as configured, else those of the reads sheet."""
    configured = study.settings.reading.readers
    frame = study.sheets.get("reads")
    if configured or frame is None:
        return list(configured) or ["reader-1", "reader-2"]
    readers = by_roles(frame, "reader")["reader"].dropna().unique()
    return sorted(map(str, readers)) or ["reader-1", "reader-2"]


def _study_endpoints(study: Study) -> list[str]:
    """Endpoints of the read form."""
    settings = study.settings.reading
    if settings.endpoints:
        return list(settings.endpoints)
    found = {rule.endpoint for rule in settings.adjudication}
    frame = study.sheets.get("reads")
    if frame is not None:
        found |= set(by_roles(frame, "reader")["endpoint"].dropna())
    return sorted(found) or [volume_endpoint(label) for label in study.mask_labels]


def _kept_secret(key_path: Path) -> str:
    """The secret of an earlier key, so that pseudonyms stay; else a new one."""
    if key_path.is_file():
        kept = sorted(set(read_table(key_path)["secret"].dropna()))
        if len(kept) > 1:
            raise ValueError(f"{key_path} holds {len(kept)} secrets; restore the file")
        if kept:
            return kept[0]
    return secrets.token_hex(32)


def _build_key(shown: Iterable[Shown], secret: str) -> dict[tuple[Case, int], tuple[str, str]]:
    """Case and part -> pseudonyms of the case and of its subject.

    A case that is shown again, or in the second part of a hybrid presentation, has another
    pseudonym there, so that it is not known again.
    """
    key = {}
    for case, part in sorted({(item.case, item.part) for item in shown}):
        again = [f"repeat-{case.repeat}"] * (case.repeat > 1) + [f"part-{part}"] * (part > 1)
        # A reference case and a subject of one name are not one.
        kind = ["reference"] * case.reference
        own = _pseudonym(secret, case.participant_id, case.visit, *again, *kind)
        subject = _pseudonym(secret, "subject", case.participant_id, str(case.repeat), *kind)
        key[case, part] = f"case-{own}", f"subject-{subject}"
    if len({name for name, _ in key.values()}) < len(key):
        raise ValueError("two cases have one pseudonym; delete reading/key.tsv for a new secret")
    return key


def _prepared_images(
    records: Iterable[str | Path], kinds: Sequence[str] = ()
) -> dict[tuple[str, str], list[tuple[str, str]]]:
    """(participant_id, visit) -> kinds and paths of the conformed images, masks left out."""
    wanted = set(kinds or IMAGE_KINDS)
    images: dict[tuple[str, str], list[tuple[str, str]]] = {}
    for path in records:
        record = Prepared.read(path)
        usable = [(scan.kind, scan.file) for scan in record.scans if scan.usable]
        usable = [(kind, file) for kind, file in usable if kind in wanted]
        images[(record.participant_id, record.visit)] = sorted(usable)
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
    clean = packed_image(blinded_nifti(content))
    for target in targets:
        with atomic_path(target) as temporary:
            temporary.write_bytes(clean)


def _dictionary(columns: Mapping[str, str]) -> bytes:
    text = {name: {"Description": words} for name, words in columns.items()}
    return (json.dumps(text, indent=2, sort_keys=True, ensure_ascii=False) + "\n").encode()


#: What a package may hold besides images.
TABLES = {"cases.tsv": tuple(CASES), "form.tsv": tuple(FORM)}
DICTIONARIES = {"cases.json": _dictionary(CASES), "form.json": _dictionary(FORM)}


def write_packages(study: Study, records: Sequence[str | Path], folder: Path) -> Packages:
    """Write the packages of all readers and the key, and prove the packages blinded.

    ``records`` are ``prepare.json`` of the visits with images; packages go to
    ``reading/packages/<reader>/`` of ``folder``, the study's results folder.

    Raises BlindingFault if a package gives away what a reader must not know.
    """
    settings = study.settings.reading
    orders = _reading_orders(study)
    key_path = folder / "reading" / "key.tsv"
    secret = _kept_secret(key_path)
    key = _build_key((s for order in orders.values() for s in order), secret)
    rows = [
        (
            *(*names, case.participant_id, case.visit, str(case.repeat), str(part)),
            *("yes" if case.reference else "no", secret),
        )
        for (case, part), names in key.items()
    ]
    write_table(_frame(rows, KEY), key_path, KEY)
    key_path.chmod(0o600)
    write_table(_study_sample(study), folder / "reading" / "sample.tsv", SAMPLE)
    images = _images_of(study, records, folder)
    packages = {reader: folder / "reading" / "packages" / bids_label(reader) for reader in orders}
    for (case, _), (pseudonym, _) in key.items():
        for _, source, name in _image_names(pseudonym, images.get(_first(case), [])):
            _copy_blinded(Path(source), [package / name for package in packages.values()])
    tokens = forbidden_tokens(study)
    written: dict[str, Package] = {}
    for reader, order in orders.items():
        shown = [(item, *key[item.case, item.part]) for item in order]
        files = _write_package(study, shown, images, packages[reader], tokens)
        written[reader] = Package(len(order), files)
    return Packages(settings.presentation, settings.seed, len(tokens), written)


def _reading_orders(study: Study) -> dict[str, list[Shown]]:
    """The sequence of every reader: sampled cases, repeated ones and reference cases."""
    settings = study.settings.reading
    cases = _study_cases(study)
    if settings.repeat_share > 0:
        cases += repeated_cases(cases, share=settings.repeat_share, seed=settings.seed)
    cases += reference_cases(study)
    return {
        reader: presentation_order(
            cases,
            kind=settings.presentation,
            reader=reader,
            seed=settings.seed,
            visit_order=study.visit_order,
        )
        for reader in _study_readers(study)
    }


#: First reading of a case -> kinds and paths of its images.
_Images = Mapping[Case, Sequence[tuple[str, str]]]


def _first(case: Case) -> Case:
    return replace(case, repeat=1)


def _images_of(study: Study, records: Sequence[str | Path], folder: Path) -> _Images:
    """Kinds and paths of the images of every case."""
    kinds = study.settings.reading.kinds
    found = {
        Case(*key): [(kind, str(folder / path)) for kind, path in images]
        for key, images in _prepared_images(records, kinds).items()
    }
    wanted = set(kinds or IMAGE_KINDS)
    for name, images in reference_images(study).items():
        found[Case(name, REFERENCE_VISIT, 1, True)] = [
            (kind, path) for kind, path in images if kind in wanted
        ]
    return found


_NO_IMAGE: list[tuple[None, None, None]] = [(None, None, None)]


def _write_package(
    study: Study,
    shown: Sequence[tuple[Shown, str, str]],
    images: _Images,
    package: Path,
    tokens: Mapping[str, str],
) -> dict[str, str]:
    """Tables of one package, its proof of blinding, and the sha256 of its files."""
    presentation = study.settings.reading.presentation
    rows = [
        (
            *(item.position, item.part, item.screen, subject if item.linked else None),
            *(item.time_point, case, presentation, kind, name),
        )
        for item, case, subject in shown
        for kind, _, name in _image_names(case, images.get(_first(item.case), [])) or _NO_IMAGE
    ]
    write_table(_frame(rows, CASES), package / "cases.tsv", CASES, sort=False)
    form = [
        (item.position, case, endpoint, unit_of(endpoint) or None, None, None, None)
        for item, case, _ in shown
        for endpoint in _study_endpoints(study)
    ]
    write_table(_frame(form, FORM), package / "form.tsv", FORM, sort=False)
    check_package(package, TABLES, DICTIONARIES, tokens, {**CLOSED, "presentation": presentation})
    files = sorted(path for path in package.rglob("*") if path.is_file())
    return {p.relative_to(package).as_posix(): file_sha256(p) for p in files}


def _frame(rows: list[tuple[Any, ...]], columns: Mapping[str, str]) -> pd.DataFrame:
    return pd.DataFrame(rows, columns=list(columns), dtype=object)
