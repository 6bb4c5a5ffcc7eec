"""The registration backends by their names in the config."""

from __future__ import annotations

from collections.abc import Mapping

from corelab.registration.ants_backend import AntsRegistrar
from corelab.registration.ants_greedy_backend import AntsGreedyRegistrar
from corelab.registration.greedy_backend import GreedyRegistrar
from corelab.registration.nipype_backends import AntsProgramRegistrar, FlirtRegistrar
from corelab.registration.presets import load_preset
from corelab.registration.registrar import Registrar
from corelab.settings.registration import RegistrationSettings
from corelab.terms.plugins import registry

#: Name in the config -> class. The modules load the program behind a backend when it is used.
BACKENDS: Mapping[str, type[Registrar]] = registry(
    "registrars",
    {
        backend.name: backend
        for backend in (
            AntsGreedyRegistrar,
            AntsRegistrar,
            GreedyRegistrar,
            FlirtRegistrar,
            AntsProgramRegistrar,
        )
    },
)


def registrar(settings: RegistrationSettings) -> Registrar:
    """Backend that the settings name.

    Raises
    ------
    BackendMissing
        If its program is not installed.

    Examples
    --------
    >>> registrar(RegistrationSettings(backend="ants")).name
    'ants'
    """
    return BACKENDS[settings.backend](load_preset(settings.preset), settings.seed)
