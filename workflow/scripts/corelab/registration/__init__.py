"""Registration: moving image, fixed image -> transform; and the two stages made of it.

:func:`align_visit` brings the grids of a visit together, :func:`normalise_subject` brings a
subject to MNI152. Both work through one interface, :class:`Registrar`, behind which the backends
stand; their programs are loaded only when a fit is due.
"""

from corelab.imaging.template import template_brain_mask, template_image
from corelab.registration.backends import registrar
from corelab.registration.brain import share_brain_masks
from corelab.registration.presets import load_preset
from corelab.registration.registrar import (
    BackendMissing,
    Registrar,
    RegistrationFault,
    Transform,
)
from corelab.registration.subject import normalise_subject
from corelab.registration.transforms import apply_transforms, transform_points
from corelab.registration.visit import align_visit

__all__ = [
    "BackendMissing",
    "Registrar",
    "RegistrationFault",
    "Transform",
    "align_visit",
    "apply_transforms",
    "load_preset",
    "normalise_subject",
    "registrar",
    "share_brain_masks",
    "template_brain_mask",
    "template_image",
    "transform_points",
]
