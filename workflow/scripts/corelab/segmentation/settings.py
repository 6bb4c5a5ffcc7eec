"""Thresholds of every segmentation, with units in their names, and how a user's replace them.

``limits`` gives for a threshold the limit that shrinks the mask and the one that lets it grow; the
volumes at both stand beside the volume itself.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

#: What small clusters have to meet (see :func:`corelab.segmentation.tissue.drop_artefacts`).
_ARTEFACTS: dict[str, Any] = {
    "artefact_below_ml": 5.0,
    "asymmetry_z": 1.0,
    "midline_mm": 6.0,
    "rim_mm": 3.0,
}

_INFARCT: dict[str, Any] = {
    **_ARTEFACTS,
    "b_value_s_mm2": 1000.0,
    "smooth_mm": 1.2,
    "csf_adc_above_mm2_s": 1.2e-3,
    "signal_floor": 0.4,
    "normal_adc_mm2_s": [650e-6, 1000e-6],
    "adc_tolerance": 0.12,
    "adc_seed_below_mm2_s": 620e-6,
    "adc_grow_below_mm2_s": 720e-6,
    "restriction_seed": 5.0,
    "restriction_grow": 4.0,
    "local_reach_mm": 8.0,
    "dwi_local_z": 6.0,
    "dwi_local_z_grow": 3.0,
    "bright_share": 0.5,
    "bright_adc_below_mm2_s": 1000e-6,
    "skull_base_mm": 16.0,
    "dwi_only_z_seed": 3.5,
    "dwi_only_z_grow": 2.2,
    "edge_share": 0.45,
    "mixed_adc_below_mm2_s": 1000e-6,
    "mixed_share": 0.6,
    "min_seed_ml": 0.02,
    "min_cluster_ml": 0.1,
    "min_conspicuous_ml": 0.03,
    "z_conspicuous": 5.0,
    "z_peak": 3.5,
    "limits": {
        "adc_seed_below_mm2_s": [600e-6, 640e-6],
        "adc_grow_below_mm2_s": [670e-6, 770e-6],
        "restriction_grow": [4.5, 3.0],
        "edge_share": [0.6, 0.2],
        "mixed_adc_below_mm2_s": [850e-6, 1300e-6],
        "mixed_share": [0.75, 0.3],
        "bright_share": [0.65, 0.25],
    },
}

DEFAULTS: dict[str, dict[str, Any]] = {
    "infarct": _INFARCT,
    "infarct_strict": {
        **_INFARCT,
        "adc_below_mm2_s": 620e-6,
        "dwi_z_above": 0.5,
        "limits": {"adc_below_mm2_s": [600e-6, 640e-6]},
    },
    "infarct_flair": {
        **_ARTEFACTS,
        "smooth_mm": 1.0,
        "csf_below_share": 0.55,
        "z_seed": 3.0,
        "z_grow": 2.0,
        "edge_share": 0.45,
        "min_seed_ml": 0.05,
        "min_cluster_ml": 0.2,
        "min_conspicuous_ml": 0.1,
        "z_conspicuous": 6.0,
        "z_peak": 3.0,
        "limits": {"z_grow": [2.3, 1.8], "edge_share": [0.55, 0.35]},
    },
    "infarct_ncct": {
        "smooth_mm": 5.0,
        "parenchyma_below_tissue_hu": 14.0,
        "difference_seed_hu": 4.0,
        "difference_seed_z": 3.0,
        "edge_share": 0.5,
        "rim_mm": 4.0,
        "midline_mm": 6.0,
        "min_seed_ml": 2.0,
        "min_cluster_ml": 10.0,
        "slice_above_mm": 5.0,
        "symmetry_below": 0.97,
        "both_sides_share": 0.3,
        "cavity_share": 0.35,
        "cavity_radius_mm": 4.0,
        "cavity_ml": 1.0,
        "cavity_rim_mm": 8.0,
        "limits": {"difference_seed_hu": [4.5, 3.5], "edge_share": [0.6, 0.4]},
    },
    "haematoma": {
        "artefact_below_ml": 5.0,
        "asymmetry_hu": 8.0,
        "midline_mm": 6.0,
        "rim_mm": 3.0,
        "smooth_mm": 1.0,
        "hu_seed_above": 50.0,
        "hu_grow_above": 44.0,
        "hu_below": 100.0,
        "edge_share": 0.45,
        "sheet_radius_mm": 2.5,
        "bone_above_hu": 150.0,
        "beyond_mask_mm": 1.0,
        "calcification_ml": 0.01,
        "calcification_rim_mm": 2.0,
        "faint_hu_above": 44.0,
        "faint_excess_hu": 11.0,
        "faint_asymmetry_hu": 5.0,
        "faint_radius_mm": 4.0,
        "faint_flag_hu": 55.0,
        "tissue_expected_hu": 33.0,
        "csf_expected_hu": 10.0,
        "calibration_flag_hu": 5.0,
        "background_flag_hu": 6.0,
        "min_cluster_ml": 0.3,
        "prior_tolerance_mm": 6.0,
        "sheet_tolerance_mm": 4.0,
        "sheet_excess_hu": 27.0,
        "core_radius_mm": 1.5,
        "core_ml": 0.3,
        "core_reach_mm": 4.0,
        "core_extent_mm": 5.0,
        "calcifying_below_ml": 1.0,
        "limits": {"edge_share": [0.55, 0.35]},
    },
    "haematoma_gre": {
        "artefact_below_ml": 5.0,
        "asymmetry_loss": 0.15,
        "midline_mm": 6.0,
        "rim_mm": 3.0,
        "smooth_mm": 1.0,
        "loss_seed_above": 0.6,
        "loss_grow_above": 0.45,
        "sheet_radius_mm": 3.0,
        "min_cluster_ml": 0.5,
        "limits": {"loss_seed_above": [0.65, 0.55], "loss_grow_above": [0.5, 0.4]},
    },
    "enhancing": {
        "artefact_below_ml": 10.0,
        "asymmetry_z": 1.0,
        "midline_mm": 6.0,
        "rim_mm": 4.0,
        "smooth_mm": 0.7,
        "z_seed": 3.0,
        "z_grow": 2.0,
        "z_seed_t1c_only": 2.5,
        "z_grow_t1c_only": 1.2,
        "edge_share": 0.4,
        "vessel_radius_mm": 2.0,
        "beside_oedema_mm": 3.0,
        "beyond_oedema_mm": 8.0,
        "rim_in_lesion_mm": 3.0,
        "settle_mm": 0.8,
        "surround_percentile": 90.0,
        "min_inside_ml": 1.0,
        "flag_bright_above_ml": 10.0,
        "min_seed_ml": 0.05,
        "min_cluster_ml": 0.2,
        "min_conspicuous_ml": 0.2,
        "z_conspicuous": 99.0,
        "z_peak": 3.0,
        "limits": {
            "edge_share": [0.55, 0.2],
            "surround_percentile": [97.0, 75.0],
            "z_grow_t1c_only": [1.5, 0.9],
        },
    },
    "oedema": {
        "artefact_below_ml": 10.0,
        "asymmetry_z": 1.0,
        "midline_mm": 6.0,
        "rim_mm": 3.0,
        "smooth_mm": 1.5,
        "csf_below_share": 0.55,
        "t2_fluid_z": 8.0,
        "z_seed": 2.2,
        "z_grow": 1.3,
        "edge_share": 0.42,
        "opening_mm": 2.0,
        "min_seed_ml": 0.5,
        "min_cluster_ml": 1.0,
        "min_conspicuous_ml": 1.0,
        "min_share_of_largest": 0.1,
        "z_conspicuous": 99.0,
        "z_peak": 3.0,
        "both_sides_share": 0.3,
        "limits": {"z_grow": [1.6, 1.1], "edge_share": [0.54, 0.3]},
    },
}


def merged_settings(settings: Mapping[str, Any] | None) -> dict[str, dict[str, Any]]:
    """The user's settings over :data:`DEFAULTS`, section by section.

    A threshold that the user sets and that has default limits keeps these only while it lies
    between them; else its limits are dropped, since they no longer enclose it.

    Raises
    ------
    ValueError
        With an unknown section or key, or a value that is not a number.

    Examples
    --------
    >>> merged_settings({"haematoma": {"min_cluster_ml": 1.0}})["haematoma"]["min_cluster_ml"]
    1.0
    >>> merged_settings({"infarct": {"edge_share": 0.9}})["infarct"]["limits"].get("edge_share")
    """
    merged = {section: dict(values) for section, values in DEFAULTS.items()}
    for section, values in (settings or {}).items():
        if section not in merged:
            raise ValueError(
                f"segmentation has no section '{section}'; it has {', '.join(sorted(merged))}"
            )
        for key, value in values.items():
            _check(section, key, value)
            merged[section][key] = value
    for section, values in merged.items():
        given = (settings or {}).get(section, {})
        values["limits"] = {
            name: list(pair)
            for name, pair in values["limits"].items()
            if name in given.get("limits", {}) or min(pair) <= values[name] <= max(pair)
        }
    return merged


def _check(section: str, key: str, value: Any) -> None:
    known = DEFAULTS[section]
    if key not in known:
        raise ValueError(
            f"segmentation.{section} has no key '{key}'; it has {', '.join(sorted(known))}"
        )
    if key == "limits":
        wrong = [name for name, pair in value.items() if name not in known or len(pair) != 2]
        if wrong:
            raise ValueError(
                f"segmentation.{section}.limits: {', '.join(wrong)} is no threshold of this "
                "section, or has not two limits"
            )
    elif isinstance(known[key], list) != isinstance(value, list) or isinstance(value, (str, bool)):
        raise ValueError(
            f"segmentation.{section}.{key} is {value!r}; it takes "
            f"{'a list of numbers' if isinstance(known[key], list) else 'a number'}"
        )
