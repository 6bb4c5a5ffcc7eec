"""Networks that the user supplies: reading, running, and what is recorded of them."""

import hashlib
import json

import jsonschema
import nibabel as nib
import numpy as np
import pytest
from helpers import prepare_rows
from scipy import ndimage, special

from corelab.imaging import meshnet, meshnet_kernels
from corelab.imaging.meshnet import WeightsError, network_mask, predict, read_meshnet
from corelab.segmentation.external import BackendError
from corelab.segmentation.visit import segment_visit
from corelab.settings.config import Config
from corelab.settings.prepare import PrepareSettings
from corelab.settings.segmentation import SegmentationSettings
from corelab.study.models import model_files, model_findings
from corelab.study.schema import load_schema

SIZE = 24
DILATIONS = (1, 4, 2)


def layer(kind, name, before, **config):
    nodes = [[[before, 0, 0, {}]]] if before else []
    return {"class_name": kind, "config": {"name": name, **config}, "inbound_nodes": nodes}


def conv(name, before, filters, *, size=3, dilation=1, bias=True):
    return layer(
        "Conv3D",
        name,
        before,
        filters=filters,
        kernel_size=[size] * 3,
        strides=[1] * 3,
        dilation_rate=[dilation] * 3,
        padding="same",
        data_format="channels_last",
        activation="linear",
        use_bias=bias,
    )


@pytest.fixture
def written(tmp_path):
    """A tiny random network in the TensorFlow.js layers format; its folder and its arrays."""

    def make(*, normalised=False, activation="elu", batch_norm=False, seed=1, channels=4):
        rng = np.random.default_rng(seed)
        arrays, entries = {}, [layer("InputLayer", "input", None)]
        entries[0]["config"]["batch_input_shape"] = [None, SIZE, SIZE, SIZE, 1]
        inputs, before = 1, "input"
        for number, dilation in enumerate(DILATIONS):
            name = f"conv3d_{number}" + ("_gn" if normalised else "")
            entries.append(conv(name, before, channels, dilation=dilation, bias=not normalised))
            arrays[f"{name}/kernel"] = rng.normal(0, 0.3, (3, 3, 3, inputs, channels))
            if not normalised:
                arrays[f"{name}/bias"] = rng.normal(0, 0.3, channels)
            before = name
            if batch_norm and number == 0:
                entries.append(layer("BatchNormalization", "bn", before, epsilon=1e-3))
                before = "bn"
                for part in ("gamma", "beta", "moving_mean"):
                    arrays[f"bn/{part}"] = rng.normal(1, 0.3, channels)
                arrays["bn/moving_variance"] = rng.uniform(0.5, 2, channels)
            entries.append(layer("Activation", f"act_{number}", before, activation=activation))
            inputs, before = channels, f"act_{number}"
        entries.append(conv("output", before, 3, size=1))
        arrays["output/kernel"] = rng.normal(0, 1, (1, 1, 1, channels, 3))
        arrays["output/bias"] = rng.normal(0, 0.3, 3)
        arrays = {name: array.astype("<f4") for name, array in arrays.items()}
        model = {
            "modelTopology": {"model_config": {"class_name": "Functional", "config": {"layers": entries}}},
            "weightsManifest": [
                {
                    "paths": ["model.bin"],
                    "weights": [
                        {"name": name, "shape": list(array.shape), "dtype": "float32"}
                        for name, array in arrays.items()
                    ],
                }
            ],
        }  # fmt: skip
        folder = tmp_path / "network"
        folder.mkdir(exist_ok=True)
        (folder / "model.json").write_text(json.dumps(model))
        (folder / "model.bin").write_bytes(b"".join(a.tobytes() for a in arrays.values()))
        return folder, arrays

    return make


def plainly(arrays, volume, *, normalised=False, activation="elu", batch_norm=False):
    """The same network, tap by tap in float64."""
    acts = {
        "elu": lambda v: np.where(v > 0, v, np.expm1(v)),
        "relu": lambda v: np.maximum(v, 0),
        "gelu": lambda v: 0.5 * v * (1 + special.erf(v / np.sqrt(2))),
    }
    state = volume[None].astype(float)
    names = [name.removesuffix("/kernel") for name in arrays if name.endswith("/kernel")]
    for number, name in enumerate(names):
        kernel = arrays[f"{name}/kernel"].astype(float)
        last = name == "output"
        step = 1 if last else DILATIONS[number]
        reach = kernel.shape[0] // 2
        out = np.zeros((kernel.shape[4], *volume.shape))
        padded = np.pad(state, [(0, 0)] + [(step * reach,) * 2] * 3)
        for tap in np.ndindex(kernel.shape[:3]):
            part = tuple(slice(t * step, t * step + SIZE) for t in tap)
            out += np.einsum("io,izyx->ozyx", kernel[tap], padded[(slice(None), *part)])
        if f"{name}/bias" in arrays:
            out += arrays[f"{name}/bias"].astype(float)[:, None, None, None]
        if batch_norm and number == 0:
            g, b, m, v = (
                arrays[f"bn/{part}"].astype(float)[:, None, None, None]
                for part in ("gamma", "beta", "moving_mean", "moving_variance")
            )
            out = g * (out - m) / np.sqrt(v + 1e-3) + b
        if normalised and not last:
            mean = out.mean((1, 2, 3), keepdims=True)
            out = (out - mean) / np.sqrt(out.var((1, 2, 3), keepdims=True) + 1e-5)
        state = out if last else acts[activation](out)
    return state


WHOLE = (slice(0, SIZE),) * 3


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"activation": "relu", "batch_norm": True},
        {"activation": "gelu", "normalised": True},
        {"channels": 3},
        {"channels": 7},
    ],
)
def test_labels_are_those_of_a_plain_convolution(written, options):
    folder, arrays = written(**options)
    volume = np.random.default_rng(2).random((SIZE,) * 3).astype(np.float32)
    options = {key: value for key, value in options.items() if key != "channels"}
    scores = plainly(arrays, volume, **options)
    ordered = np.sort(scores, axis=0)
    clear = ordered[-1] - ordered[-2] > 1e-3
    labels = predict(read_meshnet(folder), volume, WHOLE)
    assert clear.mean() > 0.98 and len(np.unique(labels)) > 1
    assert np.array_equal(labels[clear], scores.argmax(0)[clear])


def test_same_bytes_each_time(written):
    network = read_meshnet(written(normalised=True, activation="gelu")[0])
    volume = np.random.default_rng(3).random((SIZE,) * 3).astype(np.float32)
    assert predict(network, volume, WHOLE).tobytes() == predict(network, volume, WHOLE).tobytes()


def test_a_box_gives_what_the_whole_grid_gives(written):
    network = read_meshnet(written()[0])
    volume = np.zeros((SIZE,) * 3, np.float32)
    volume[10:14, 10:14, 10:14] = np.random.default_rng(4).random((4, 4, 4))
    # Reach of the layers is 7 voxels: the box is exact where the grid's border is out of reach.
    box = (slice(2, 22), slice(1, 23), slice(0, 24))
    whole, part = predict(network, volume, WHOLE), predict(network, volume, box)
    inner = (slice(9, 15),) * 3
    assert np.array_equal(whole[inner], part[inner]) and len(np.unique(whole[inner])) > 1


def test_erf():
    x = np.linspace(-5, 5, 2001, dtype=np.float32)
    ours = np.array([meshnet_kernels.erf(value) for value in x])
    assert np.abs(ours - special.erf(x)).max() < 1e-6


def test_image_of_any_orientation_and_voxel_size(monkeypatch):
    """The grid is LIA at 1 mm, and a mask comes back to where the object is."""
    network = meshnet.MeshNet((), (64, 64, 64), {})
    seen = {}

    def bright(network, volume, box):
        seen["volume"] = volume
        return (volume > 0.5).astype(np.uint8)

    monkeypatch.setattr(meshnet, "predict", bright)
    affine = np.array([[0, -2.0, 0, 20], [1.5, 0, 0, -20], [0, 0, 3.0, -15], [0, 0, 0, 1]])
    values = np.zeros((26, 20, 10), np.float32)
    values[4:12, 5:15, 2:6] = 100
    image = nib.Nifti1Image(values, affine)
    mask = network_mask(network, image, "dwi", scaling="minmax")
    assert np.array_equal(mask, values > 0)
    grid = meshnet._grid(image, (64, 64, 64))
    assert nib.aff2axcodes(grid) == ("L", "I", "A")
    inside = nib.affines.apply_affine(
        np.linalg.inv(grid), affine[:3, :3] @ [8, 10, 4] + affine[:3, 3]
    )
    assert seen["volume"][tuple(np.rint(inside).astype(int))] == 1
    assert not network_mask(network, nib.Nifti1Image(values * 0, affine), "dwi").any()


def test_top_of_a_long_scan_is_kept():
    image = nib.Nifti1Image(np.zeros((10, 10, 400), np.uint8), np.eye(4))
    grid = meshnet._grid(image, (256, 256, 256))
    top = nib.affines.apply_affine(grid, [0, -0.5, 0])[2]
    assert top == pytest.approx(399.5)


def test_ct_window_and_scaling(monkeypatch):
    monkeypatch.setattr(meshnet, "predict", lambda n, volume, box: (volume > 0.3).astype(np.uint8))
    values = np.full((20, 20, 20), -1000.0)
    values[5:15, 5:15, 5:15] = 40
    values[5:15, 5:15, 15:17] = 1500
    network = meshnet.MeshNet((), (32, 32, 32), {})
    mask = network_mask(network, nib.Nifti1Image(values, np.eye(4)), "ncct", scaling="minmax")
    # (40 + 100) / 400 is 0.35; without the window it would be 0.42 of 2500 HU, air included.
    assert np.array_equal(mask, values > 0)
    with pytest.raises(ValueError, match="scaling is 'z'; known are quantile, minmax"):
        network_mask(network, nib.Nifti1Image(values, np.eye(4)), "ncct", scaling="z")


# --- faults ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda f, m: (f / "model.bin").unlink(), "model.bin: the file is missing"),
        (lambda f, m: (f / "model.bin").write_bytes(b"0" * 40), "ends before"),
        (lambda f, m: (f / "model.json").write_text("{"), "not a TensorFlow.js layers model"),
        (lambda f, m: m["weightsManifest"][0]["weights"][0].update(dtype="uint8"), "float32"),
        (lambda f, m: layers(m)[1]["config"].update(strides=[2, 2, 2]), "stride 1"),
        (lambda f, m: layers(m)[1].update(class_name="MaxPooling3D"), "not supported"),
        (lambda f, m: layers(m)[3].update(inbound_nodes=[[["input", 0, 0, {}]]]), "branches"),
        (lambda f, m: layers(m)[2]["config"].update(activation="swish"), "swish"),
        (lambda f, m: layers(m)[0]["config"].update(batch_input_shape=[None, 8, 8, 8, 2]), "one channel"),
    ],
)  # fmt: skip
def test_a_network_that_cannot_be_run_says_why(written, change, words):
    folder, _ = written()
    model = json.loads((folder / "model.json").read_text())
    before = json.dumps(model)
    change(folder, model)
    if json.dumps(model) != before:
        (folder / "model.json").write_text(json.dumps(model))
    with pytest.raises(WeightsError, match=words):
        read_meshnet(folder)


def layers(model):
    return model["modelTopology"]["model_config"]["config"]["layers"]


# --- configuration -----------------------------------------------------------------------------


def config_of(**blocks):
    return Config.model_validate({"study": {"id": "a"}, "inputs": {"participants": "p"}, **blocks})


def test_default_needs_no_weights():
    config = config_of()
    assert config.brain_extraction.plain() == {"method": "classical", "weights": None}
    assert list(model_findings(config)) == []


def test_findings_before_computing(written, tmp_path):
    folder, _ = written()
    (found,) = model_findings(config_of(brain_extraction={"method": "mindgrab"}))
    assert found.severity == "error" and "no weights are named" in found.message
    gone = {"method": "mindgrab", "weights": str(tmp_path / "model.json")}
    (found,) = model_findings(config_of(brain_extraction=gone))
    assert found.severity == "error" and "model.json is missing" in found.message
    entry = {"id": "net", "label": "lesion", "kind": "meshnet", "inputs": {"T2w": "t2.nii.gz"}}
    entry["weights"] = str(folder / "model.json")
    (found,) = model_findings(config_of(segmentation={"external": [entry]}))
    assert found.severity == "note" and found.column == "segmentation.external.0.weights"
    (folder / "model.bin").unlink()
    (found,) = model_findings(config_of(segmentation={"external": [entry]}))
    assert found.severity == "error" and found.message.startswith("model.bin is missing")
    assert [path.name for path in model_files(folder)] == ["model.json", "model.bin"]


def test_two_entries_that_would_write_one_file():
    entry = {"id": "net", "label": "oedema", "inputs": {"FLAIR": "b.nii"},
             "command": ["program"], "output": "mask.nii"}  # fmt: skip
    other = {**entry, "label": "necrosis"}
    assert not list(model_findings(config_of(segmentation={"external": [entry, other]})))
    (found,) = model_findings(config_of(segmentation={"external": [entry, other, entry]}))
    assert found.severity == "error" and "pipeline:net" in found.message


def test_schema_of_an_entry():
    schema = load_schema("config")["properties"]["segmentation"]["properties"]["external"]
    entry = {"id": "net", "label": "lesion", "kind": "meshnet", "inputs": {"T2w": "a.nii"}}
    jsonschema.validate([{**entry, "weights": "model.json"}], schema)
    for wrong in (entry, {**entry, "weights": "w", "inputs": {"T2w": "a.nii", "dwi": "b.nii"}}):
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate([wrong], schema)


# --- in the stages -----------------------------------------------------------------------------


@pytest.fixture
def scan(tmp_path):
    rng = np.random.default_rng(5)
    head = ndimage.gaussian_filter(rng.random((20, 20, 20)), 2)
    head[:3] = 0
    path = tmp_path / "t2.nii.gz"
    nib.save(nib.Nifti1Image((1000 * head).astype(np.float32), np.eye(4)), path)
    return {"participant_id": "1", "visit": "v", "kind": "T2w", "path": str(path), "scan_id": "s"}


def test_brain_mask_by_a_network(written, scan, tmp_path):
    folder, _ = written()
    settings = {"brain_extraction": {"method": "mindgrab", "weights": str(folder)}}
    record = prepare_rows([scan], tmp_path, settings=PrepareSettings.model_validate(settings))
    assert record.brain_mask_quality["g1"].method == "mindgrab"
    path = tmp_path / record.brain_masks["g1"]
    beside = json.loads((path.parent / path.name.replace(".nii.gz", ".json")).read_text())
    digest = hashlib.sha256((folder / "model.bin").read_bytes()).hexdigest()
    text = json.dumps(beside)
    assert digest in text and "unknown weights" in text
    (folder / "model.bin").unlink()
    with pytest.raises(WeightsError, match="missing"):
        prepare_rows([scan], tmp_path, settings=PrepareSettings.model_validate(settings))
    plain = prepare_rows([scan], tmp_path)
    assert plain.brain_mask_quality["g1"].method == "classical"


def test_network_as_a_segmenter(written, scan, tmp_path):
    folder, _ = written()
    brain = {**scan, "kind": "mask-brain", "path": str(tmp_path / "brain.nii.gz"), "scan_id": "b"}
    nib.save(nib.Nifti1Image(np.ones((20, 20, 20), np.uint8), np.eye(4)), brain["path"])
    record = prepare_rows([scan, brain], tmp_path)
    entry = {"id": "net", "kind": "meshnet", "label": "lesion", "inputs": {"T2w": "t2.nii.gz"}}
    entry |= {"weights": str(folder), "label_values": [1]}
    found = segment_visit(
        record, tmp_path, disease="stroke", settings=SegmentationSettings(external=[entry])
    )
    (mask,) = [mask for mask in found.masks if mask.source == "pipeline:net"]
    assert mask.status == "ok" and mask.quality["model"] == "unknown weights"
    assert set(mask.quality["files_sha256"]) == {"model.json", "model.bin"}
    (folder / "model.json").unlink()
    with pytest.raises(BackendError, match=r"'net': .*model\.json: the file is missing"):
        segment_visit(
            record, tmp_path, disease="stroke", settings=SegmentationSettings(external=[entry])
        )
