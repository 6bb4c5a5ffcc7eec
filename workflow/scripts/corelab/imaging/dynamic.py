"""Frames of a dynamic DICOM series: which image belongs to which time, and when each was taken.

The order comes from the place and the acquisition time of every image, never from its number:
numbers run backwards, slice by slice or anyhow, and a converter that trusts them mixes frames
without a word.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from corelab.imaging.dicom import DicomFile, Series, single_frames
from corelab.imaging.faults import ImageFault

#: Kinds of series that are followed over time.
DYNAMIC_KINDS = ("ctp", "dsc")
#: Positions that differ by less are one slice place (the table does not stop at the same tenth).
_SAME_PLACE_MM = 0.1
#: Slices of a frame that are taken at times further apart than this have delays of their own.
_SAME_TIME_S = 0.05
#: A slice this share of the frame interval off the time of its frame is not of that frame.
_OTHER_FRAME = 0.75
#: Delays that change from frame to frame by more than this share of the interval are reported.
_UNSTEADY = 0.25
_EXPORT_AGAIN = "export the whole series again, and compare the number of images with the scanner's"


@dataclass(frozen=True)
class TimeTable:
    """Images of a dynamic series in the order of their times.

    Attributes
    ----------
    frames
        Frame -> its files by rising place along the slice normal.
    times_s
        Start of every frame from the first; None where the headers have no rising times.
    slice_times_s
        Seconds from the start of a frame to each place; None where all are taken at once.
    notes
        What is odd.
    """

    frames: tuple[tuple[DicomFile, ...], ...]
    times_s: tuple[float, ...] | None
    slice_times_s: tuple[float, ...] | None
    notes: tuple[str, ...]

    def within_files(self) -> bool:
        """Whether every image is a frame of an enhanced file."""
        return all("frame" in file.facts for frame in self.frames for file in frame)

    def numbered(self) -> bool:
        """Whether the image numbers follow frames, and places within them up or down."""
        up = [_number(file) for frame in self.frames for file in frame]
        down = [_number(file) for frame in self.frames for file in reversed(frame)]
        return any(all(np.diff(numbers) > 0) for numbers in (up, down))


def time_table(series: Series) -> TimeTable | None:
    """Sort the images of a dynamic series by place and time.

    Returns
    -------
    TimeTable or None
        None if the series is no dynamic one, or if places are not given.

    Raises
    ------
    ImageFault
        If a place lacks an image that others have, or the times of a frame's slices do not fit
        together.

    Examples
    --------
    >>> from pathlib import Path
    >>> files = tuple(DicomFile("a", Path("a"), facts={"position": z, "time_s": 2.0 * t + z / 10,
    ...               "frames": 1}) for z in (0.0, 5.0) for t in (2, 0, 1))
    >>> table = time_table(Series("1", 1, "", "CT", "ctp", files))
    >>> table.times_s, table.slice_times_s
    ((0.0, 2.0, 4.0), (0.0, 0.5))
    >>> time_table(Series("1", 1, "", "CT", "ctp", files[1:]))
    Traceback (most recent call last):
    corelab.imaging.faults.ImageFault: series 1 is incomplete: frame 3 (4 s) lacks 1 of 2 slices...
    """
    files = single_frames(series.files)
    if series.kind not in DYNAMIC_KINDS or any(f.facts.get("position") is None for f in files):
        return None
    places = _by_place(files)
    if max(map(len, places)) == 1:
        return None
    clock = _clock(places)
    ordered = [sorted(own, key=lambda file: _key(file, clock)) for own in places]
    if len({len(own) for own in ordered}) > 1:
        raise _incomplete(series, ordered, clock)
    frames = tuple(zip(*ordered, strict=True))
    if clock is None:
        return TimeTable(frames, None, None, ())
    times = np.array([[file.facts[clock] for file in own] for own in ordered])
    return TimeTable(frames, *_frame_times(series, times))


def _by_place(files: Sequence[DicomFile]) -> list[list[DicomFile]]:
    """Files of each slice place, places rising."""
    places: list[list[DicomFile]] = []
    last = -np.inf
    for file in sorted(files, key=lambda file: (file.facts["position"], file.name)):
        if file.facts["position"] - last > _SAME_PLACE_MM:
            places.append([])
        last = file.facts["position"]
        places[-1].append(file)
    return places


def _clock(places: Sequence[Sequence[DicomFile]]) -> str | None:
    """Header value that distinguishes the images of one place in time."""
    for name in ("time_s", "trigger_s"):
        values = [[file.facts.get(name) for file in own] for own in places]
        if all(None not in own and len(set(own)) == len(own) for own in values):
            return name
    return None


def _key(file: DicomFile, clock: str | None) -> tuple[Any, ...]:
    facts = file.facts
    own = (facts.get("temporal") or 0, facts.get("acquisition") or 0, _number(file), file.name)
    return own if clock is None else (facts[clock], *own)


def _number(file: DicomFile) -> int:
    return int(file.facts.get("instance") or 0)


def _frame_times(
    series: Series, times: NDArray[np.float64]
) -> tuple[tuple[float, ...] | None, tuple[float, ...] | None, tuple[str, ...]]:
    """Start of every frame, delay of every place and notes from times of shape (place, frame)."""
    start = np.median(times, axis=0)
    delay = np.median(times - start, axis=1)
    start = np.median(times - delay[:, np.newaxis], axis=0)
    steps = np.diff(start)
    if (steps <= 0).any():
        return None, None, ("the acquisition times of the frames do not rise and were not used",)
    off = np.abs(times - start - delay[:, np.newaxis])
    nearest = np.minimum(np.append(steps, np.inf), np.insert(steps, 0, np.inf))
    if (off > _OTHER_FRAME * nearest).any():
        place, frame = np.unravel_index(int((off / nearest).argmax()), off.shape)
        raise ImageFault(
            f"series {series.number}: slice {place + 1} of frame {frame + 1} was taken "
            f"{off[place, frame]:.3g} s before or after the others of its frame: images are "
            "missing at several places, or their times are wrong",
            _EXPORT_AGAIN,
        )
    notes = []
    if (off > np.maximum(_UNSTEADY * nearest, _SAME_TIME_S)).any():
        notes.append(
            f"the delays of the slices change from frame to frame by up to {off.max():.3g} s; "
            "their median was used"
        )
    start, delay = start + delay.min(), delay - delay.min()
    shown = tuple(round(float(value), 4) for value in start - start[0])
    delays = (
        tuple(round(float(value), 4) for value in delay) if np.ptp(delay) > _SAME_TIME_S else None
    )
    return shown, delays, tuple(notes)


def _incomplete(
    series: Series, ordered: Sequence[Sequence[DicomFile]], clock: str | None
) -> ImageFault:
    """Says which frames lack slices, by time where there is one."""
    counts = [len(own) for own in ordered]
    usual = max(counts, key=lambda count: (counts.count(count), count))
    words = [
        f"{counts.count(count)} of {len(counts)} slice places have {count} images"
        for count in sorted(set(counts), key=counts.count)
    ]
    if clock is not None and usual == max(counts):
        lacking = _lacking([[file.facts[clock] for file in own] for own in ordered], usual)
        words = [
            f"frame {frame + 1} ({time:g} s) lacks {count} of {len(counts)} slices"
            for (frame, time), count in list(lacking.items())[:5]
        ] or words
        if len(lacking) > 5:
            words.append(f"{len(lacking) - 5} more frames lack some")
    return ImageFault(f"series {series.number} is incomplete: {'; '.join(words)}", _EXPORT_AGAIN)


def _lacking(times: Sequence[Sequence[float]], usual: int) -> Mapping[tuple[int, float], int]:
    """(frame, seconds) -> number of places without an image at that time."""
    whole = np.median([own for own in times if len(own) == usual], axis=0)
    reach = 0.5 * float(np.diff(whole).min(initial=np.inf))
    found: dict[tuple[int, float], int] = {}
    for own in times:
        if len(own) == usual:
            continue
        ends = (own[0] - whole[0], own[-1] - whole[-1])
        known = np.array(own) - min(ends, key=abs)
        for frame in np.flatnonzero(np.abs(whole[:, np.newaxis] - known).min(axis=1) > reach):
            key = int(frame), round(float(whole[frame] - whole[0]), 3)
            found[key] = found.get(key, 0) + 1
    return dict(sorted(found.items()))
