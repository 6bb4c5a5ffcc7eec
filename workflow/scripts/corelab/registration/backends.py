"""The registration backends by their names in the config."""

from __future__ import annotations

from collections.abc import Mapping

from corelab.registration.ants_backend import AntsRegistrar
from corelab.registration.ants_greedy_backend import AntsGreedyRegistrar
from corelab.registration.greedy_backend import GreedyRegistrar
from corelab.registration.nipype_backends import AntsProgramRegistrar, FlirtRegistrar
from corelab.registration.presets import RegistrationSettings
from corelab.registration.registrar import Registrar
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
    >>> from corelab.registration.settings import registration_settings
    >>> registrar(registration_settings({"backend": "ants"})).name
    'ants'
    """
    return BACKENDS[settings.backend](settings.preset, settings.seed)
