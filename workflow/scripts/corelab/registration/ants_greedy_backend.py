"""ANTsPy for rigid and affine fits, Greedy for the deformable one."""

from __future__ import annotations

from corelab.registration.ants_backend import AntsRegistrar
from corelab.registration.greedy_backend import GreedyRegistrar
from corelab.registration.presets import Preset
from corelab.registration.registrar import Fit, Registrar, Transform


class AntsGreedyRegistrar(Registrar):
    """Linear fits by mutual information (ANTsPy), deformable ones by local correlation (Greedy).

    The steps of a preset are those of the backends ``ants`` and ``greedy``.

    Examples
    --------
    >>> from corelab.registration.presets import load_preset
    >>> AntsGreedyRegistrar(load_preset("fast")).name
    'ants_greedy'
    """

    name = "ants_greedy"

    def __init__(self, preset: Preset, seed: int = 1) -> None:
        super().__init__(preset, seed)
        self._linear = AntsRegistrar(preset, seed)
        self._deformable = GreedyRegistrar(preset, seed)

    @classmethod
    def missing(cls) -> tuple[str, str] | None:
        """Reason why one of the two cannot be used."""
        return AntsRegistrar.missing() or GreedyRegistrar.missing()

    def _fit(self, fit: Fit) -> Transform:
        part = self._deformable if fit.is_deformable else self._linear
        return part._fit(fit)
