"""What masks outline: labels, their volumes, and the scans that show them."""

from __future__ import annotations

from dataclasses import dataclass, replace

_PERFUSION = ("ctp", "dsc", "cbf", "cbv", "mtt", "tmax", "ttp")


@dataclass(frozen=True)
class Label:
    """What a mask outlines.

    Attributes
    ----------
    name
        In the kind of a scan: ``mask-<name>``.
    volume
        Endpoint that holds its volume; empty: ``lesion_volume:<name>``.
    shown_by
        Kinds of scan that can show it; empty: any.
    drawn_on
        Kinds of scan on which it is drawn, best first.
    colour
        RGB, of the colours that colour-blind people can tell apart (Okabe and Ito).
    words
        In print; empty: the name.
    """

    name: str
    volume: str = ""
    shown_by: tuple[str, ...] = ()
    drawn_on: tuple[str, ...] = ()
    colour: tuple[int, int, int] = (240, 228, 66)
    words: str = ""


# fmt: off
_TABLE = (
    Label("infarct", "infarct_volume", ("dwi", "adc", "FLAIR", "T2w", "T1w", "ncct", "ctp", "dsc"),
          ("dwi", "FLAIR", "adc", "ncct"), (230, 159, 0)),
    Label("haematoma", "haematoma_volume", ("ncct", "gre"), ("ncct", "gre"), (204, 121, 167)),
    Label("hypodensity", words="CT hypodensity"),
    Label("core", "core_volume", _PERFUSION, (), (213, 94, 0), "ischaemic core"),
    Label("hypoperfused", "hypoperfused_volume", _PERFUSION, (), (86, 180, 233),
          "hypoperfused tissue"),
    Label("penumbra", "penumbra_volume", _PERFUSION, (), (0, 158, 115)),
    Label("enhancing", "enhancing_volume", ("T1c",), ("T1c",), (230, 159, 0), "enhancing tumour"),
    Label("oedema", "oedema_volume", ("FLAIR", "T2w"), ("FLAIR", "T2w"), (86, 180, 233)),
    Label("whole-tumour", "whole_tumour_volume", ("T1c", "FLAIR", "T2w"), ("FLAIR", "T2w", "T1c"),
          (0, 158, 115), "whole tumour"),
    Label("necrosis", "", ("T1c",), ("T1c",), (213, 94, 0)),
    Label("nonenhancing", "", ("T1c", "FLAIR", "T2w"), ("T1c", "FLAIR", "T2w"),
          words="non-enhancing tumour"),
    Label("tumourcore", "", ("T1c",), ("T1c",), (204, 121, 167), "tumour core"),
    Label("lesion", "lesion_volume"),
)
# fmt: on
LABELS = {one.name: one for one in _TABLE}
#: Kinds of scan that can show what is measured; labels that are not named may be drawn on any.
SHOWN_BY = {one.name: one.shown_by for one in _TABLE if one.shown_by} | {
    "net water uptake": ("ncct",)
}
#: Label -> endpoint that holds its volume.
VOLUME_ENDPOINTS = {one.name: one.volume for one in _TABLE if one.volume}


def label(name: str) -> Label:
    """The label of a name; one of the user's own has no properties.

    Examples
    --------
    >>> label("core").words, label("cavity").words, label("cavity").shown_by
    ('ischaemic core', 'cavity', ())
    """
    found = LABELS.get(name, Label(name))
    return found if found.words else replace(found, words=name)


def volume_endpoint(name: str) -> str:
    """Name of the endpoint that holds the volume of a mask label.

    Examples
    --------
    >>> volume_endpoint("infarct"), volume_endpoint("cavity")
    ('infarct_volume', 'lesion_volume:cavity')
    """
    return VOLUME_ENDPOINTS.get(name, f"lesion_volume:{name}")
