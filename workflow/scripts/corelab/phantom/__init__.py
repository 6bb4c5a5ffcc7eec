"""Phantom: the digital trial, whose truth is known because it was simulated."""

from corelab.phantom.anatomy import Anatomy, make_anatomy
from corelab.phantom.design import Participant, TrialSpec, enrol
from corelab.phantom.protocol import placement
from corelab.phantom.scans import simulate_scan
from corelab.phantom.scene import build_scene
from corelab.phantom.trial import sheets, write_sheets
from corelab.phantom.truth import trial_truth, true_masks, write_truth

__all__ = [
    "Anatomy",
    "Participant",
    "TrialSpec",
    "build_scene",
    "enrol",
    "make_anatomy",
    "placement",
    "sheets",
    "simulate_scan",
    "trial_truth",
    "true_masks",
    "write_sheets",
    "write_truth",
]
