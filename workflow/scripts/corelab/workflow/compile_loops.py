"""Compile the library before the first study, so that no job has to: run by ``make env``."""

from __future__ import annotations

import compileall

import corelab.imaging.kernels
import corelab.imaging.meshnet_kernels
import corelab.perfusion.kernels
from corelab.provenance.compiled import compile_ahead

if __name__ == "__main__":
    compileall.compile_dir(corelab.__path__[0], quiet=1)
    compile_ahead()
