"""Where the files lie that the library reads besides its modules: schemas, presets, resources."""

from __future__ import annotations

import sys
from pathlib import Path


def _root() -> Path:
    clone = Path(__file__).resolve().parents[4]
    installed = Path(sys.prefix) / "share" / "corelab"
    return clone if (clone / "workflow" / "schemas").is_dir() else installed


#: The clone of the repository; of an installed library (``pip install .``) the same folders below
#: ``share/corelab`` of its environment.
ROOT = _root()


def own_weights(task: str) -> Path:
    """Weights of the network of a task that is part of Corelab; facts of its training lie beside.

    Examples
    --------
    >>> own_weights("brain").relative_to(ROOT).as_posix()
    'resources/models/brain/weights.npz'
    """
    return ROOT / "resources" / "models" / task / "weights.npz"
