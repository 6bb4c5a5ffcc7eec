"""Lock and change log: what is edited, cut or not logged is detected and named."""

import json
from dataclasses import replace

import pandas as pd
import pytest

from corelab.provenance.products import read_json, write_json
from corelab.reading.adjudication import adjudicate, rules_of
from corelab.reading.change_log import LogFault, _sealed, append_change, head_path, main, verify_log
from corelab.reading.lock import _signature_of, make_lock, row_key, row_text, verify_lock
from corelab.reading.rereview import EVIDENCES, rereview_faults
from corelab.reading.study_reads import _standing_lines
from corelab.records.reading import Change, Lock
from corelab.settings.reading import AdjudicationRule, ReadingSettings, Rereview

RULES = rules_of([AdjudicationRule(endpoint="aspects", grades_differ=True)])
CHARTER = ReadingSettings(presentation="simultaneous", seed=1)


def reads():
    columns = ["participant_id", "visit", "endpoint", "reader", "value", "unit"]
    rows = [
        (person, "day5", "aspects", reader, "8", None)
        for person in ("001", "002", "003")
        for reader in ("r1", "r2")
    ]
    return pd.DataFrame(rows, columns=columns, dtype=object)


def change(log, row, field="value", old="8", new="7", **more):
    given = {
        "reason": "new_key_image",
        "text": "thin slices arrived",
        "who": "A. Reader",
        "when": "2025-03-01T12:00:00Z",
        **more,
    }
    return append_change(log, row=row, field=field, old=old, new=new, **given)


class Invalid(Exception):
    """The reads do not stand against their lock."""


LockFault = Invalid
CONTOURS = {"sub-001_ses-day5_mask-infarct_reader-r1": "ab" * 32}


@pytest.fixture
def locked(tmp_path):
    """Lock the reads; returns a function that holds given reads against the lock."""
    path, log = tmp_path / "lock.json", tmp_path / "change_log.jsonl"
    make_lock(reads(), adjudicate(reads(), RULES)[0], CHARTER, contours=CONTOURS).write(path)

    def held(sheet, charter=CHARTER, contours=CONTOURS, **more):
        final = adjudicate(sheet, RULES)[0]
        standing, audit = verify_lock(path, sheet, final, log, charter, contours=contours, **more)
        assert (standing.state == "invalid") == bool(standing.faults)
        if standing.faults:
            assert standing.banner.startswith("INVALID")
            assert "INVALID" in set(audit["verdict"])
            raise Invalid("\n".join(_standing_lines(standing)))
        assert standing.banner is None
        return audit.set_index("row")

    held(reads())
    return held, path, log


KEY = "001|day5|aspects|r1|1|reader"


def test_lock_depends_on_content_alone(locked):
    hold, path, _ = locked
    before = path.read_bytes()
    shuffled = reads().sample(frac=1, random_state=1)
    audit = hold(shuffled[shuffled.columns[::-1]])
    assert path.read_bytes() == before
    assert set(audit["verdict"]) == {"locked"}
    assert "locked_at" not in read_json(path)


def test_a_change_without_an_entry_is_named(locked):
    hold, *_ = locked
    sheet = reads()
    sheet.loc[0, "value"] = "7"
    with pytest.raises(LockFault) as caught:
        hold(sheet)
    assert "INVALID" in str(caught.value)
    assert f"{KEY}: the row was changed without an entry" in str(caught.value)
    assert "001|day5|aspects: the final read changed" in str(caught.value)
    assert "002|" not in str(caught.value)


def test_rows_taken_out_and_added_are_named(locked):
    hold, *_ = locked
    sheet = reads()
    extra = sheet.iloc[[0]].assign(reader="r9")
    with pytest.raises(LockFault, match=r"001\|day5\|aspects\|r9\|1\|reader: the row was added"):
        hold(pd.concat([sheet, extra]))
    with pytest.raises(LockFault, match=r"r1\|1\|reader: the row was taken out"):
        hold(sheet.iloc[1:])


def test_a_logged_change_is_explained_and_the_lock_stays(locked):
    hold, path, log = locked
    before = path.read_bytes()
    sheet = reads()
    change(log, KEY)
    change(log, KEY, old="7", new="6", when="2025-03-02T12:00:00Z")
    sheet.loc[0, "value"] = "6"
    audit = hold(sheet)
    assert audit.loc[KEY, ["verdict", "changes"]].tolist() == ["explained", 2]
    assert path.read_bytes() == before
    sheet.loc[0, "value"] = "5"
    with pytest.raises(LockFault, match="says value became 6, but it is 5"):
        hold(sheet)


def test_a_logged_change_explains_its_field_only(locked):
    hold, _, log = locked
    change(log, KEY)
    sheet = reads()
    sheet["read_at"] = None
    sheet.loc[0, ["value", "read_at"]] = ["7", "2025-01-01"]
    with pytest.raises(LockFault, match="changed without an entry"):
        hold(sheet)


def test_an_entry_without_a_change_is_named(locked):
    hold, _, log = locked
    change(log, KEY)
    with pytest.raises(LockFault, match="log entry 1 says value became 7, but it is 8"):
        hold(reads())


def test_rows_can_be_added_and_taken_out_with_an_entry(locked):
    hold, _, log = locked
    sheet = reads()
    cells = {**sheet.iloc[0].to_dict(), "reader": "r9", "role": "adjudicator"}
    change(log, row_key(cells), field="row", old=None, new=row_text(cells))
    audit = hold(
        pd.concat([sheet, pd.DataFrame([cells])]).astype(object).where(lambda f: f.notna(), None)
    )
    assert audit.loc[row_key(cells), "verdict"] == "explained"
    old = row_text(sheet.iloc[5].to_dict())
    gone = row_key(sheet.iloc[5].to_dict())
    change(log, gone, field="row", old=old, new=None, when="2025-03-03T00:00:00Z")
    kept = pd.concat([sheet.iloc[:5], pd.DataFrame([cells])]).astype(object)
    audit = hold(kept.where(kept.notna(), None))
    assert audit.loc[gone, "sha256"] is None


def test_a_contour_is_locked_too(locked):
    hold, _, log = locked
    (name,) = CONTOURS
    with pytest.raises(Invalid, match=f"contour.{name}: the row was changed without an entry"):
        hold(reads(), contours={name: "cd" * 32})
    with pytest.raises(Invalid, match="the row was taken out without an entry"):
        hold(reads(), contours={})
    change(log, f"contour|{name}", field="sha256", old="ab" * 32, new="cd" * 32)
    assert (
        hold(reads(), contours={name: "cd" * 32}).loc[f"contour|{name}", "verdict"] == "explained"
    )


def test_a_signed_lock_cannot_be_made_anew_without_the_key(locked):
    hold, path, _ = locked
    lock, key = Lock.read(path), b"k" * 32
    with pytest.raises(Invalid, match="does not bear the signature"):
        hold(reads(), key=key)
    replace(lock, signature=_signature_of(lock, key)).write(path)
    hold(reads(), key=key)
    with pytest.raises(Invalid, match="does not bear the signature"):
        hold(reads(), key=b"x" * 32)
    with pytest.raises(Invalid, match="not the one whose hash"):
        hold(reads(), CHARTER.model_copy(update={"lock_sha256": "0" * 64}))
    hold(reads(), CHARTER.model_copy(update={"lock_sha256": lock.lock_sha256}))


def test_a_lock_that_is_gone_or_broken_is_invalid(locked):
    hold, path, log = locked
    path.write_text("{")
    with pytest.raises(Invalid, match="the lock itself was edited or is gone"):
        hold(reads())
    write_json({"open": ["nothing is locked"]}, path)
    change(log, KEY)
    with pytest.raises(Invalid, match="logs changes after a lock, but the lock is gone"):
        hold(reads())


def test_a_read_dated_after_the_lock_needs_an_entry(tmp_path):
    path, log = tmp_path / "lock.json", tmp_path / "change_log.jsonl"
    sheet = reads().assign(read_at="2025-02-01T10:00:00Z")
    sheet.loc[0, "read_at"] = "2025-03-05T10:00:00Z"
    final = adjudicate(sheet, RULES)[0]
    settings = ReadingSettings(locked_at="2025-03-01T00:00:00Z")
    make_lock(sheet, final, settings).write(path)
    standing, _ = verify_lock(path, sheet, final, log, settings)
    assert standing.state == "invalid" and len(standing.faults) == 1
    assert f"{KEY}: read after the lock of 2025-03-01" in standing.faults[0]


def test_a_re_review_needs_all_its_evidences(locked):
    hold, *_ = locked
    again = reads()
    evidence = dict.fromkeys(EVIDENCES, "document 7, 2025-03-01")
    full = {"reason": "loss_of_credibility", "evidence": evidence}
    assert rereview_faults(again, Rereview(**full)) == []
    for name in EVIDENCES:
        for text in ("", None):
            part = {**full, "evidence": {**evidence, name: text}}
            (fault,) = rereview_faults(again, Rereview(**part))
            assert f"the evidence {name} is missing" in fault
    for reason in ("discordance", "unfavourable"):
        (fault,) = rereview_faults(again, Rereview(**{**full, "reason": reason}))
        assert "is not allowed" in fault
        with pytest.raises(Invalid, match="is not allowed"):
            hold(reads(), rereview=[fault])


def test_edited_lock_and_changed_charter(locked):
    hold, path, _ = locked
    with pytest.raises(LockFault, match="settings changed after the lock: seed"):
        hold(reads(), charter=CHARTER.model_copy(update={"seed": 2}))
    lock = read_json(path)
    less = {key: digest for key, digest in lock["reads"].items() if key != KEY}
    for edited in ({**lock, "reads": less}, {**lock, "remark": "ok"}, {"reads": lock["reads"]}):
        write_json(edited, path)
        with pytest.raises(LockFault, match="the lock itself was edited"):
            hold(reads())


@pytest.fixture
def log(tmp_path):
    path = tmp_path / "change_log.jsonl"
    for day in range(1, 5):
        change(path, KEY, old=str(day), new=str(day + 1), when=f"2025-03-0{day}T12:00:00Z")
    return path


def test_chain_holds(log):
    assert [entry.number for entry in verify_log(log)] == [1, 2, 3, 4]


def lines_of(log):
    return log.read_text().splitlines()


def test_an_edited_line_is_named(log):
    lines = lines_of(log)
    lines[1] = lines[1].replace("A. Reader", "B. Reader")
    log.write_text("\n".join(lines) + "\n")
    with pytest.raises(LogFault, match="line 2 was edited"):
        verify_log(log)


def test_a_line_sealed_anew_breaks_the_next(log):
    lines = lines_of(log)
    entry = _sealed(replace(Change.from_json(json.loads(lines[1])), who="B. Reader"))
    lines[1] = json.dumps(entry.to_json())
    log.write_text("\n".join(lines) + "\n")
    with pytest.raises(LogFault, match="line 3 does not follow"):
        verify_log(log)


@pytest.mark.parametrize(
    "edit", [{"what": None}, {"what": {"row": KEY}}, {"remark": "ok"}, {"why": "because"}]
)
def test_a_line_with_other_parts_than_an_entry_is_named(log, edit):
    lines = lines_of(log)
    lines[2] = json.dumps({**json.loads(lines[2]), **edit})
    log.write_text("\n".join(lines) + "\n")
    with pytest.raises(LogFault, match="line 3 was edited: an entry has number, what"):
        verify_log(log)


@pytest.mark.parametrize(
    ("cut", "message"), [(0, "line 1 does not"), (2, "line 3 does not"), (3, "end was cut")]
)
def test_a_cut_line_is_named(log, cut, message):
    lines = lines_of(log)
    del lines[cut]
    log.write_text("\n".join(lines) + "\n")
    with pytest.raises(LogFault, match=message):
        verify_log(log)


def test_a_half_line_and_a_log_taken_away(log):
    log.write_text(log.read_text()[:-40])
    with pytest.raises(LogFault, match="line 4 is no whole entry"):
        verify_log(log)
    log.unlink()
    with pytest.raises(LogFault, match="was removed"):
        verify_log(log)
    head_path(log).unlink()
    assert verify_log(log) == []


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"reason": "typo"}, "one of the reasons"),
        ({"text": " "}, "in words"),
        ({"who": ""}, "'who' is empty"),
        ({"when": "2025-03-09"}, "must be UTC"),
        ({"when": "2025-03-09T12:00:00+09:00"}, "must be UTC"),
        ({"when": "2025-02-01T12:00:00Z"}, "before the last entry"),
        ({"old": "7"}, "changes nothing"),
    ],
)
def test_an_entry_without_its_evidence_is_refused(log, wrong, message):
    before = log.read_bytes()
    with pytest.raises(LogFault, match=message):
        change(log, KEY, **{"when": "2025-03-09T12:00:00Z", **wrong})
    assert log.read_bytes() == before


def test_a_broken_log_takes_no_more_entries_and_holds_no_lock(locked):
    hold, _, log = locked
    change(log, KEY)
    log.write_text(log.read_text().replace("thin", "thick"))
    with pytest.raises(LogFault, match="line 1 was edited"):
        change(log, KEY)
    with pytest.raises(LockFault, match="line 1 was edited"):
        hold(reads())


def test_the_log_taken_away_with_its_head_leaves_the_change_unexplained(locked):
    hold, _, log = locked
    sheet = reads()
    change(log, KEY)
    sheet.loc[0, "value"] = "7"
    hold(sheet)
    log.unlink()
    head_path(log).unlink()
    with pytest.raises(LockFault, match="changed without an entry"):
        hold(sheet)


def test_command_line(tmp_path):
    log = tmp_path / "change_log.jsonl"
    main(
        [str(log), "--row", KEY, "--field", "value", "--old", "8", "--new", "7"]
        + [
            "--reason",
            "charter_listed",
            "--text",
            "see 9.3",
            "--who",
            "A",
            "--when",
            "2025-03-01T00:00:00Z",
        ]
    )
    assert verify_log(log)[0].what.new == "7"
