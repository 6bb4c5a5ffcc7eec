"""Phantom: the digital trial, whose truth is known because it was simulated.

:class:`TrialSpec` is the design; :func:`write_sheets` writes what a study gives the workflow,
:func:`simulate_scan` one of its images, :func:`write_truth` what the workflow is to recover.
:func:`scan_to_template` is the true mapping of each scan to MNI space.
"""

from corelab.phantom.anatomy import Anatomy, make_anatomy
from corelab.phantom.design import Participant, TrialSpec, enrol
from corelab.phantom.protocol import placement
from corelab.phantom.scans import build_scene, scan_to_template, simulate_scan, template_to_scan
from corelab.phantom.trial import sheets, write_sheets
from corelab.phantom.truth import (
    template_mask,
    trial_truth,
    true_masks,
    write_truth,
    write_truth_images,
)

__all__ = [
    "Anatomy",
    "Participant",
    "TrialSpec",
    "build_scene",
    "enrol",
    "make_anatomy",
    "placement",
    "scan_to_template",
    "sheets",
    "simulate_scan",
    "template_mask",
    "template_to_scan",
    "trial_truth",
    "true_masks",
    "write_sheets",
    "write_truth",
    "write_truth_images",
]
