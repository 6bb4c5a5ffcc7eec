"""The development script that reads PyTorch files without PyTorch."""

import io
import pickle
import struct
import zipfile
from collections import OrderedDict

import numpy as np
import pytest
from dev.read_torch import MAGIC, read_torch
from helpers import data_folder

WHOLE = np.arange(24, dtype="<f4").reshape(2, 3, 4)
COUNT = np.array([7], "<i8")


class Tensor:
    def __init__(self, kind, key, size, offset, shape, stride):
        self.kind, self.key, self.size = kind, key, size
        self.rest = (offset, shape, stride, False, OrderedDict())


def dumped(values, *, archive, rebuild="torch._utils _rebuild_tensor_v2"):
    """Pickle of a state dictionary as torch.save writes it, by hand-made opcodes."""
    out = io.BytesIO()

    def plain(value):
        out.write(pickle.dumps(value, 2)[2:-1])

    def name(text):
        out.write(b"c" + text.replace(" ", "\n").encode() + b"\n")

    out.write(b"\x80\x02")
    name("collections OrderedDict")
    out.write(b")R(")
    for key, tensor in values.items():
        plain(key)
        name(rebuild)
        out.write(b"((")
        plain("storage")
        name(f"torch {tensor.kind}")
        for part in (tensor.key, "cpu", tensor.size):
            plain(part)
        if not archive:
            plain(None)
        out.write(b"tQ")
        for part in tensor.rest[:3]:
            plain(part)
        out.write(b"\x89")
        name("collections OrderedDict")
        out.write(b")RtR")
    out.write(b"u.")
    return out.getvalue()


TENSORS = {
    "path.conv.weight": Tensor("FloatStorage", "0", 24, 0, (2, 3, 4), (12, 4, 1)),
    "path.part": Tensor("FloatStorage", "0", 24, 12, (4, 3), (1, 4)),
    "bn.num_batches_tracked": Tensor("LongStorage", "1", 1, 0, (), ()),
}


def stream(path, values=TENSORS, **options):
    parts = [pickle.dumps(part, 2) for part in (MAGIC, 1001, {"little_endian": True})]
    parts += [dumped(values, archive=False, **options), pickle.dumps(["0", "1"], 2)]
    parts += [struct.pack("<q", 24), WHOLE.tobytes(), struct.pack("<q", 1), COUNT.tobytes()]
    path.write_bytes(b"".join(parts))
    return path


def archive(path, values=TENSORS, **options):
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("model/data.pkl", dumped(values, archive=True, **options))
        file.writestr("model/data/0", WHOLE.tobytes())
        file.writestr("model/data/1", COUNT.tobytes())
    return path


@pytest.mark.parametrize("write", [stream, archive])
def test_both_formats(tmp_path, write):
    found = read_torch(write(tmp_path / "model.pt"))
    assert list(found) == list(TENSORS)
    assert np.array_equal(found["path.conv.weight"], WHOLE)
    assert np.array_equal(found["path.part"], WHOLE[1].T)
    assert found["bn.num_batches_tracked"] == 7 and found["bn.num_batches_tracked"].shape == ()


@pytest.mark.parametrize("write", [stream, archive])
def test_other_code_is_refused(tmp_path, write):
    with pytest.raises(pickle.UnpicklingError, match=r"os\.system is refused"):
        read_torch(write(tmp_path / "model.pt", rebuild="os system"))


def test_other_files_and_views_beyond_the_storage(tmp_path):
    (tmp_path / "a.pt").write_bytes(b"no pickle")
    with pytest.raises(ValueError, match=r"a\.pt is no file of torch\.save"):
        read_torch(tmp_path / "a.pt")
    far = {"far": Tensor("FloatStorage", "0", 24, 20, (2, 4), (4, 1))}
    with pytest.raises(ValueError, match="beyond its storage"):
        read_torch(archive(tmp_path / "b.pt", far))


@pytest.mark.acceptance
def test_blast_ct():
    found = read_torch(data_folder("models/blast_ct") / "model_1.pt")
    assert len(found) == 189
    assert all(np.isfinite(array).all() for array in found.values())
    assert sum(array.size for array in found.values()) > 1e6
