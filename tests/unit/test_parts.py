"""Parts of a job: each with its log and entry, done again when something of it changed, and then alone."""

from dataclasses import replace

import pytest

from corelab.provenance.ledger import Entry, Place, failures
from corelab.provenance.parts import Part, run_part
from corelab.provenance.products import write_text


@pytest.fixture
def part(tmp_path):
    place = Place(tmp_path, "draw", "a")
    folder = tmp_path / "exhibits" / "analysis_a"
    outputs = (f"{folder}.json", str(folder))
    return Part(place, "one", (), outputs, "c1")


def draw(part, *figures):
    """Write the exhibit and figures beside it, and count the calls."""

    def work():
        print("drawn", len(figures))
        write_text("{}", part.outputs[0])
        for name in figures:
            write_text(name, f"{part.outputs[1]}/{name}")

    return work


def test_a_part_is_done_once_and_again_when_it_is_made_from_something_else(part, tmp_path, capfd):
    with capfd.disabled():  # Python's stdout is then the file descriptor that goes to the log
        assert run_part(part, draw(part, "x.svg", "y.svg"))
    assert part.place.log.read_text() == "drawn 2\n"
    kept = part.place.entry.read_bytes()
    assert not run_part(part, draw(part, "z.svg")) and part.place.entry.read_bytes() == kept
    assert run_part(replace(part, made_from="two"), draw(part, "z.svg"))
    # What it made before is gone, as after a job of Snakemake.
    assert [path.name for path in (tmp_path / "exhibits" / "analysis_a").iterdir()] == ["z.svg"]
    assert Entry.read(part.place.entry).made_from == "two"


@pytest.mark.parametrize("name", ["analysis_a.json", "analysis_a/x.svg"])
@pytest.mark.parametrize("other", [None, "edited"])
def test_a_product_that_is_not_as_it_was_left_is_made_again(part, tmp_path, name, other):
    run_part(part, draw(part, "x.svg"))
    file = tmp_path / "exhibits" / name
    before = file.read_bytes()
    file.unlink() if other is None else file.write_text(other)
    assert run_part(part, draw(part, "x.svg")) and file.read_bytes() == before


def test_an_error_is_in_the_log_and_entry_of_the_part_and_ends_the_job(part, tmp_path, capfd):
    def fails():
        raise OSError("no space left")

    other = replace(part, place=replace(part.place, name="b"), outputs=(str(tmp_path / "b.json"),))
    run_part(other, lambda: write_text("b", other.outputs[0]) and None)
    with capfd.disabled(), pytest.raises(OSError, match="no space left"):
        run_part(part, fails)
    assert "Traceback" in part.place.log.read_text()
    assert [(one.step, one.log) for one in failures(tmp_path)] == [("draw", str(part.place.log))]
    assert run_part(part, draw(part, "x.svg")) and failures(tmp_path) == []
    # The entry of one part has no file of another.
    left = Entry.read(part.place.entry)
    assert str(tmp_path / "b.json") not in {**left.outputs, **left.beside}
