"""Tensors of a PyTorch ``.pt`` file as NumPy arrays, without PyTorch.

    python tests/dev/read_torch.py model_1.pt model_1.npz

A development script: no rule uses it. It reads state dictionaries of both formats of ``torch.save``
(a ZIP archive since 1.6, before that a stream of pickles followed by the storages). A pickle can
run any code, so only the names that a state dictionary needs are resolved; others are refused.
"""

from __future__ import annotations

import pickle
import sys
import zipfile
from collections import OrderedDict
from pathlib import Path

import numpy as np

MAGIC = 0x1950A86A20F9469CFC6C
TYPES = {
    "DoubleStorage": "<f8",
    "FloatStorage": "<f4",
    "HalfStorage": "<f2",
    "LongStorage": "<i8",
    "IntStorage": "<i4",
    "ShortStorage": "<i2",
    "CharStorage": "i1",
    "ByteStorage": "u1",
    "BoolStorage": "?",
}


class _Tensor:
    """A view of a storage that may not be read yet."""

    def __init__(self, storage, offset, shape, stride, *_):
        self.storage, self.offset, self.shape, self.stride = storage, offset, shape, stride

    def array(self, storages):
        values = storages[self.storage]
        last = self.offset + sum((n - 1) * s for n, s in zip(self.shape, self.stride, strict=True))
        if 0 in self.shape:
            return np.empty(self.shape, values.dtype)
        if min((self.offset, *self.stride)) < 0 or last >= len(values):
            raise ValueError("a tensor goes beyond its storage")
        steps = [step * values.itemsize for step in self.stride]
        view = np.lib.stride_tricks.as_strided(values[self.offset :], self.shape, steps)
        return view.copy()


class _Reader(pickle.Unpickler):
    """Unpickler of a state dictionary and of nothing else."""

    def __init__(self, stream):
        super().__init__(stream)
        self.types = {}

    def find_class(self, module, name):
        if (module, name) == ("collections", "OrderedDict"):
            return OrderedDict
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return _Tensor
        if module in ("torch", "torch.storage") and name in TYPES:
            return TYPES[name]
        raise pickle.UnpicklingError(f"{module}.{name} is refused: not part of a state dictionary")

    def persistent_load(self, pid):
        self.types[str(pid[2])] = np.dtype(pid[1])
        return str(pid[2])


def read_torch(path):
    """Name -> array of a state dictionary.

    Raises
    ------
    ValueError, pickle.UnpicklingError
        If the file is of another format, or holds more than a state dictionary.
    """
    path = Path(path)
    found, storages = _archive(path) if zipfile.is_zipfile(path) else _stream(path)
    if not isinstance(found, dict):
        raise ValueError(f"{path.name} holds a {type(found).__name__}, not a state dictionary")
    other = [name for name, value in found.items() if not isinstance(value, _Tensor)]
    if other:
        raise ValueError(f"{path.name}: {other[:3]} are no tensors")
    return {str(name): tensor.array(storages) for name, tensor in found.items()}


def _archive(path):
    with zipfile.ZipFile(path) as archive:
        (name,) = [name for name in archive.namelist() if name.endswith("/data.pkl")]
        folder = name.removesuffix("data.pkl")
        with archive.open(name) as stream:
            reader = _Reader(stream)
            found = reader.load()
        storages = {
            key: np.frombuffer(archive.read(f"{folder}data/{key}"), kind)
            for key, kind in reader.types.items()
        }
    return found, storages


def _stream(path):
    with path.open("rb") as stream:
        try:
            magic = _Reader(stream).load()
        except pickle.UnpicklingError as error:
            raise ValueError(f"{path.name} is no file of torch.save") from error
        if magic != MAGIC:
            raise ValueError(
                f"{path.name} is no file of torch.save (nor a tar of PyTorch < 0.1.10)"
            )
        _Reader(stream).load()  # protocol
        _Reader(stream).load()  # byte order and sizes of the machine
        reader = _Reader(stream)
        found = reader.load()
        storages = {}
        for key in _Reader(stream).load():
            kind = reader.types[str(key)]
            count = int(np.frombuffer(stream.read(8), "<i8")[0])
            storages[str(key)] = np.frombuffer(stream.read(count * kind.itemsize), kind, count)
    return found, storages


def main(source, target):
    arrays = read_torch(source)
    np.savez(target, **arrays)
    for name, array in arrays.items():
        print(f"{name}\t{array.dtype}\t{array.shape}")


if __name__ == "__main__":
    main(*sys.argv[1:])
