"""Simulated scans: one NIfTI and its sidecar from the trial's seed and a row of the scans sheet.

Signal is mixed from tissue fractions in template space, carried into the scan's own grid by the
participant's deformation and the head's placement, averaged over the slice thickness, and given
the bias, blur and noise of its modality. Lesions change the parenchyma's part of the signal only.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any, cast

import nibabel as nib
import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from corelab.imaging import save_image
from corelab.phantom.contours import reader_contour
from corelab.phantom.ct_anatomy import (
    HU,
    HU_SHELL,
    beam_hardening,
    draw_ct_anatomy,
    hounsfield_head,
)
from corelab.phantom.design import DIFFUSION_KINDS, TrialSpec
from corelab.phantom.head import arteries, composite, linear_placed, veins
from corelab.phantom.kinetics import tissue_curves
from corelab.phantom.protocol import Protocol, protocol
from corelab.phantom.scene import Scene, View, build_scene, infarct_region, view_scan
from corelab.phantom.seeds import generator

Array = NDArray[np.float32]

B_VALUE_S_MM2 = 1000.0
#: ADC in mm2/s of normal tissue; that of the core is the participant's own.
ADC_MM2_S = {"grey": 0.83e-3, "white": 0.74e-3, "csf": 3.0e-3}
#: b0 signal relative to a proton density of 1 at TE 85 ms, TR 5 s, from T1 and T2 at 3 T.
_B0 = {"grey": 0.33, "white": 0.24, "csf": 0.66}
_B0_SHELL = {"film": 0.55, "marrow": 0.03, "scalp": 0.06, "muscle": 0.07, "eye": 0.6}
#: White-matter disease on diffusion: it shines through, but its water moves more freely.
_B0_DISEASE_GAIN, _ADC_DISEASE_MM2_S = 1.45, 1.1e-3
#: ADC of grey and white matter together.
_ADC_TISSUE_MM2_S = 0.78e-3
#: Oedema raises the b0 signal of the infarct, more so after days.
_B0_LESION_GAIN = {"baseline": 1.12, "day5": 1.35}
_T1W = {"film": 0.2, "bone": 0.03, "marrow": 0.42, "scalp": 0.85, "muscle": 0.38, "eye": 0.22}
_FLAIR = {"grey": 0.5, "white": 0.38, "csf": 0.07}
_FLAIR_SHELL = {"film": 0.1, "bone": 0.02, "marrow": 0.25, "scalp": 0.55, "muscle": 0.2, "eye": 0.1}
_DSC = {"grey": 0.50, "white": 0.42, "csf": 0.75}
_DSC_SHELL = {"film": 0.6, "marrow": 0.04, "scalp": 0.1, "muscle": 0.12, "eye": 0.6}
_HU_BLOOD = 64.0
#: Normal perfusion: CBF mL/100g/min and MTT s.
CBF_NORMAL = {"grey": 56.0, "white": 27.0}
MTT_NORMAL_S = {"grey": 4.2, "white": 4.8}
#: What the lesion leaves: CBF as a share of normal, MTT as a multiple, arterial delay in s.
#: Penumbral white matter keeps 64 % so that it stays above 35 % of the contralateral median
#: (below that the core would depend on the choice of reference, not on the core), and 30 % of that
#: median lies midway between core and penumbra, so that blur moves the border neither way.
CBF_SHARE = {
    "oligaemia": {"grey": 0.80, "white": 0.88},
    "penumbra": {"grey": 0.48, "white": 0.64},
    "core": {"grey": 0.14, "white": 0.15},
}
MTT_FACTOR = {"oligaemia": 1.2, "penumbra": 1.8, "core": 3.0}
#: With these, delay + MTT / 2 is 3 to 4 s outside and 8.5 to 9 s inside the border of the penumbra,
#: so that neither the engine nor the definition of Tmax decides which side of 6 s a voxel is on.
DELAY_S = {"oligaemia": 1.0, "penumbra": 4.8, "core": 6.5}
#: Change of relaxation rate per HU of the same bolus, tissue and blood (1/s per HU): grey matter
#: peaks at 6 to 9 1/s; blood has the smaller relaxivity.
_R2_TISSUE, _R2_BLOOD = 0.75, 0.17
#: Arbitrary units of an MR image per unit of signal.
_UNITS = 2000


def _noise(scene: Scene, visit: str, kind: str) -> np.random.Generator:
    return generator(scene.spec.seed, scene.participant.participant_id, visit, kind, "noise")


def rician(signal: Array, sigma: float, rng: np.random.Generator) -> Array:
    """Magnitude of a signal with noise of SD ``sigma`` in both channels."""
    real = signal + np.float32(sigma) * rng.standard_normal(signal.shape, np.float32)
    imaginary = np.float32(sigma) * rng.standard_normal(signal.shape, np.float32)
    return cast(Array, np.hypot(real, imaginary))


def bias_field(shape: tuple[int, int, int], rng: np.random.Generator, size: float) -> Array:
    """Smooth multiplicative field, 1 on average, within about +- ``size``."""
    axes = np.meshgrid(
        *(np.linspace(-1, 1, n, dtype=np.float32) for n in shape), indexing="ij", sparse=True
    )
    field = np.zeros(shape, np.float32)
    for axis in axes:
        a, b = rng.uniform(-0.5, 0.5, 2)
        field = field + np.float32(a) * axis + np.float32(b) * (axis**2 - np.float32(1 / 3))
    field *= np.float32(size) / np.abs(field).max()
    return cast(Array, np.exp(field))


@lru_cache(maxsize=1)  # b0, dwi and adc of a visit are one acquisition
def _diffusion_signals(scene: Scene, visit: str) -> tuple[Array, Array, View]:
    """Noisy b0 and diffusion-weighted signals of one acquisition, and their grid."""
    head, participant = scene.head, scene.participant
    view = view_scan(scene, visit, "dwi")
    inside = scene.lesion.fractions(view.template_mm, infarct_region(visit))[0]
    tissue_b0 = view.sample(
        head.grey * np.float32(_B0["grey"]) + head.white * np.float32(_B0["white"])
    )
    weight = {name: np.exp(-B_VALUE_S_MM2 * ADC_MM2_S[name]) for name in ADC_MM2_S}
    tissue_dwi = view.sample(
        head.grey * np.float32(_B0["grey"] * weight["grey"])
        + head.white * np.float32(_B0["white"] * weight["white"])
    )
    shell = {name: value for name, value in _B0_SHELL.items() if name not in ("film", "eye")}
    water = {"csf": _B0["csf"], "film": _B0_SHELL["film"], "eye": _B0_SHELL["eye"]}
    fluid = view.sample(composite(head, water))
    rest = view.sample(composite(head, shell)) * np.float32(scene.conditions.shell)
    fluid, tissue_b0, tissue_dwi = _diseased_diffusion(scene, view, fluid, tissue_b0, tissue_dwi)
    gain = np.float32(_B0_LESION_GAIN["baseline" if visit == "baseline" else "day5"])
    core = gain * np.float32(np.exp(-B_VALUE_S_MM2 * participant.adc_core_mm2_s))
    b0 = fluid + rest + tissue_b0 * (1 + (gain - 1) * inside)
    dwi = (
        fluid * np.float32(weight["csf"])
        + rest * np.float32(0.4)
        + tissue_dwi * (1 - inside)
        + tissue_b0 * core * inside
    )
    if scene.extras.pile_up is not None:
        moved = 1 + view.sample(scene.extras.pile_up)
        b0, dwi = b0 * moved, dwi * moved
    b0, dwi = view.average(b0), view.average(dwi)
    rng, noise = _noise(scene, visit, "diffusion"), scene.conditions.noise
    bias = bias_field(view.shape, rng, 0.12 * scene.conditions.bias)
    # dwi is the mean of three directions, hence the smaller noise.
    b0 = rician(b0 * bias, 0.0080 * noise, rng)
    dwi = rician(dwi * bias, 0.0046 * noise, rng)
    if scene.conditions.adc_gain != 1:
        # Different gains of the two images add a constant to every ADC.
        shift = B_VALUE_S_MM2 * _ADC_TISSUE_MM2_S * (scene.conditions.adc_gain - 1)
        b0 = b0 * np.float32(np.exp(shift))
    return b0, dwi, view


def _diseased_diffusion(
    scene: Scene, view: View, fluid: Array, tissue_b0: Array, tissue_dwi: Array
) -> tuple[Array, Array, Array]:
    """The signals with an old cavity (fluid) and white-matter disease (T2 and ADC raised)."""
    extras = scene.extras
    if extras.cavity is not None:
        cavity = view.sample(extras.cavity)
        fluid = fluid * (1 - cavity) + cavity * np.float32(_B0["csf"])
        tissue_b0, tissue_dwi = tissue_b0 * (1 - cavity), tissue_dwi * (1 - cavity)
    if extras.disease is not None:
        disease = view.sample(extras.disease)
        bright = 1 + np.float32(_B0_DISEASE_GAIN - 1) * disease
        slower = _ADC_DISEASE_MM2_S - ADC_MM2_S["white"]
        tissue_b0 = tissue_b0 * bright
        tissue_dwi = tissue_dwi * bright * np.exp(-np.float32(B_VALUE_S_MM2 * slower) * disease)
    return fluid, tissue_b0, tissue_dwi


def apparent_diffusion(b0: Array, dwi: Array) -> Array:
    """ADC in mm2/s from the signals, 0 where there is too little signal.

    Examples
    --------
    >>> adc = apparent_diffusion(np.ones((9, 3, 3)), np.full((9, 3, 3), np.exp(-0.8)))
    >>> round(float(adc[8, 1, 1]), 5)
    0.0008
    """
    signal = (ndimage.uniform_filter(b0, 3) > 0.10) & (dwi > 0) & (b0 > 0)
    ratio = np.log(np.where(signal, b0 / np.maximum(dwi, 1e-6), 1))
    return cast(Array, np.round(np.clip(ratio / B_VALUE_S_MM2, 0, 4e-3), 6).astype(np.float32))


def _anatomical(scene: Scene, visit: str, kind: str) -> tuple[Array, View]:
    """T1w or FLAIR signal."""
    head = scene.head
    view = view_scan(scene, visit, kind)
    inside = scene.lesion.fractions(view.template_mm, infarct_region(visit))[0]
    if kind == "T1w":
        # The template's own intensities keep the texture that fractions alone lack.
        brain = 0.55 * head.t1 + 0.45 * composite(head, {"grey": 0.6, "white": 0.86, "csf": 0.2})
        tissue = brain * np.minimum(head.tissue, 1)
        rest = brain - tissue + composite(head, _T1W)
        factor = -0.06 if visit == "baseline" else -0.28
    else:
        tissue = head.grey * np.float32(_FLAIR["grey"]) + head.white * np.float32(_FLAIR["white"])
        rest = composite(head, {"csf": _FLAIR["csf"], **_FLAIR_SHELL})
        factor = 0.06 if visit == "baseline" else 0.75
    normal, shine = view.sample(tissue), 1 + np.float32(factor) * inside
    fluid = view.sample(rest)
    if scene.extras.disease is not None:
        disease = view.sample(scene.extras.disease)
        shine = shine + np.float32(-0.15 if kind == "T1w" else 0.6) * disease * (1 - inside)
    if scene.extras.cavity is not None:
        cavity = view.sample(scene.extras.cavity)
        # A rim of gliosis: bright on FLAIR where the cavity's edge is half tissue.
        rim = np.float32(0.0 if kind == "T1w" else 2.4) * cavity * (1 - cavity)
        water = np.float32(_T1W["film"] if kind == "T1w" else _FLAIR["csf"])
        fluid = fluid * (1 - cavity) + water * cavity
        normal = normal * (1 - cavity) * (1 + rim)
    signal = view.average(fluid + normal * shine)
    rng, conditions = _noise(scene, visit, kind), scene.conditions
    bias = bias_field(view.shape, rng, (0.20 if kind == "T1w" else 0.15) * conditions.bias)
    noise = (0.022 if kind == "T1w" else 0.016) * conditions.noise
    return rician(signal * bias, noise, rng), view


def _hounsfield(scene: Scene, visit: str, view: View) -> Array:
    """Noise-free HU of the head without contrast agent, on the scan's grid."""
    head = scene.head
    region = infarct_region(visit)
    inside = scene.lesion.fractions(view.template_mm, region)[0]
    tissue = head.grey * np.float32(HU["grey"] + 1000) + head.white * np.float32(HU["white"] + 1000)
    tissue_sample = view.sample(tissue)
    parenchyma = view.sample(head.tissue)
    own = None
    if scene.conditions.ct_anatomy:
        own = draw_ct_anatomy(scene.spec.seed, scene.participant.participant_id)
        rest = view.sample(hounsfield_head(head, own) + 1000) - tissue_sample
    else:
        rest = view.sample(
            composite(head, {k: v + 1000.0 for k, v in {"csf": HU["csf"], **HU_SHELL}.items()})
        )
    # Water uptake lowers parenchyma by 2 HU within hours and by 8 HU within days.
    drop = np.float32(2.0 if visit == "baseline" else 8.0)
    hu = rest + tissue_sample - drop * inside * parenchyma - 1000
    for extra, value in ((scene.extras.cavity, HU["csf"]), (scene.extras.disease, 24.0)):
        if extra is not None:
            share = view.sample(extra) * parenchyma
            hu += share * (np.float32(value) - hu)
    if visit != "baseline" and scene.participant.lesion.haematoma_ml > 0:
        blood = scene.lesion.blood(view.template_mm)
        hu += blood * (np.float32(_HU_BLOOD) - hu)
    hu = view.average(hu)
    if own is not None:
        hu += beam_hardening(hu, np.sqrt((view.affine[:3, :3] ** 2).sum(axis=0)), own.streak)
    return hu


def _correlated(shape: tuple[int, ...], sd: float, rng: np.random.Generator) -> Array:
    """CT noise: white noise smoothed in plane with [1 2 1] / 4, scaled back to ``sd``."""
    noise = rng.standard_normal(shape, np.float32)
    for axis in (0, 1):
        moved = np.moveaxis(noise, axis, 0)
        inner = 2 * moved
        inner[1:] += moved[:-1]
        inner[:-1] += moved[1:]
        noise = np.moveaxis(inner, 0, axis)
    # The variance of [1 2 1] is 6 times that of white noise, once per axis.
    noise *= np.float32(sd / 6)
    return noise


@dataclass(frozen=True, eq=False)
class PerfusionTruth:
    """True perfusion on the grid of a perfusion scan, and the masks that follow from it.

    Attributes
    ----------
    cbf_ml_100g_min, cbv_ml_100g, mtt_s, delay_s
        Of the parenchyma in each voxel; 0 where there is none.
    tmax_s
        Arterial delay + MTT / 2, the truth of Kudo et al. 2013 (Radiology 267:201): regularised
        deconvolution, on which the threshold of 6 s was calibrated, finds the maximum of the
        residue function about there, and not at the delay alone.
    parenchyma
        Fraction.
    core, hypoperfused
        Masks: at least half of the voxel is core; at least half is parenchyma and its Tmax
        exceeds 6 s.
    """

    cbf_ml_100g_min: Array
    cbv_ml_100g: Array
    mtt_s: Array
    delay_s: Array
    tmax_s: Array
    parenchyma: Array
    core: NDArray[np.bool_]
    hypoperfused: NDArray[np.bool_]
    scene: Scene
    view: View

    @cached_property
    def artery(self) -> Array:
        """Fraction of arterial blood."""
        field = arteries(occluded_side=self.scene.lesion.plan.side)
        return self.view.average(self.view.sample(field))

    @cached_property
    def vein(self) -> Array:
        """Fraction of venous blood."""
        return self.view.average(self.view.sample(veins(self.scene.head)))


def perfusion_truth(scene: Scene, view: View) -> PerfusionTruth:
    """True perfusion of every voxel: parenchymal flow and volume averaged over the voxel.

    CBF and CBV carry a smooth 8 % log-normal variation; their ratio, the mean transit time, does
    not.
    """
    head, seed = scene.head, scene.spec.seed
    grey, white = view.sample(head.grey), view.sample(head.white)
    core, hypo, oligo = scene.lesion.fractions(
        view.template_mm, "core", "hypoperfused", "oligaemia"
    )
    share = {"core": core, "penumbra": hypo - core, "oligaemia": oligo - hypo}
    flow = np.zeros_like(grey)
    volume = np.zeros_like(grey)
    for tissue, fraction in (("grey", grey), ("white", white)):
        cbf, mtt = CBF_NORMAL[tissue], MTT_NORMAL_S[tissue]
        flow_share, volume_share = np.ones_like(grey), np.ones_like(grey)
        for region, part in share.items():
            flow_share += part * np.float32(CBF_SHARE[region][tissue] - 1)
            volume_share += part * np.float32(CBF_SHARE[region][tissue] * MTT_FACTOR[region] - 1)
        flow += fraction * flow_share * np.float32(cbf)
        volume += fraction * volume_share * np.float32(cbf * mtt / 60)
    parenchyma = view.average(grey + white)
    delay = sum(part * np.float32(DELAY_S[region]) for region, part in share.items())
    delay = view.average((grey + white) * delay) / np.maximum(parenchyma, np.float32(1e-3))
    rng = generator(seed, scene.participant.participant_id, "perfusion-texture")
    texture = ndimage.gaussian_filter(rng.standard_normal((50, 60, 48)), 1.2)
    texture = np.exp(0.08 * texture / texture.std()).astype(np.float32)
    middle = view.template_mm[..., view.samples // 2 :: view.samples]
    variation = linear_placed(texture, middle, 4.0)
    cbf_map = view.average(flow) * variation
    cbv_map = view.average(volume) * variation
    present = parenchyma > 0.02
    mtt_map = np.where(present, 60 * cbv_map / np.maximum(cbf_map, np.float32(1e-3)), 0)
    tmax = np.where(present, delay + mtt_map / 2, 0).astype(np.float32)
    return PerfusionTruth(
        cbf_ml_100g_min=np.where(present, cbf_map, 0),
        cbv_ml_100g=np.where(present, cbv_map, 0),
        mtt_s=mtt_map.astype(np.float32),
        delay_s=np.where(present, delay, 0).astype(np.float32),
        tmax_s=tmax,
        parenchyma=parenchyma,
        core=view.average((grey + white) * core) >= 0.5,
        hypoperfused=(parenchyma >= 0.5) & (tmax > 6),
        scene=scene,
        view=view,
    )


def _enhancement(
    truth: PerfusionTruth, scene: Scene, plan: Protocol
) -> tuple[NDArray[np.int_], Array]:
    """Voxels that enhance (flat index) and their tissue curves in HU, (t, n)."""
    where = np.flatnonzero((truth.parenchyma > 0.02) & (truth.cbv_ml_100g > 0.02))
    curves = tissue_curves(
        truth.cbv_ml_100g.ravel()[where],
        truth.mtt_s.ravel()[where],
        truth.delay_s.ravel()[where],
        plan.frame_times_s,
        scene.participant.bolus,
        scene.participant.residue,
    )
    return where, np.ascontiguousarray(curves.T)


def _ct_perfusion(scene: Scene, visit: str, plan: Protocol) -> tuple[NDArray[np.int16], View]:
    """HU of a CT perfusion scan, (nx, ny, nz, t)."""
    view = view_scan(scene, visit, "ctp")
    truth = perfusion_truth(scene, view)
    static = _hounsfield(scene, visit, view)
    where, curves = _enhancement(truth, scene, plan)
    times, bolus = plan.frame_times_s, scene.participant.bolus
    rng = _noise(scene, visit, "ctp")
    series = np.empty((plan.frames, *view.shape[::-1]), np.int16)  # as a file has it
    arterial, venous = bolus.arterial(times), bolus.venous(times)
    for frame in range(plan.frames):
        image = static + _correlated(view.shape, 5.0, rng)
        image.reshape(-1)[where] += curves[frame]
        image += truth.artery * np.float32(arterial[frame])
        image += truth.vein * np.float32(venous[frame])
        series[frame] = _whole(image).T
    return series.T, view


def _susceptibility(scene: Scene, visit: str, plan: Protocol) -> tuple[NDArray[np.int16], View]:
    """Signal of a gradient-echo DSC scan, (nx, ny, nz, t): S0 exp(-TE dR2*(t)), Rician noise."""
    head = scene.head
    view = view_scan(scene, visit, "dsc")
    truth = perfusion_truth(scene, view)
    static = view.average(view.sample(composite(head, {**_DSC, **_DSC_SHELL})))
    where, curves = _enhancement(truth, scene, plan)
    times, bolus = plan.frame_times_s, scene.participant.bolus
    rng = _noise(scene, visit, "dsc")
    static = static * bias_field(view.shape, rng, 0.12)
    echo_time_s = float(plan.sidecar["EchoTime"])
    series = np.empty((plan.frames, *view.shape[::-1]), np.int16)
    arterial, venous = bolus.arterial(times), bolus.venous(times)
    for frame in range(plan.frames):
        rate = truth.artery * np.float32(_R2_BLOOD * arterial[frame])
        rate += truth.vein * np.float32(_R2_BLOOD * venous[frame])
        rate.reshape(-1)[where] += np.float32(_R2_TISSUE) * curves[frame]
        signal = static * np.exp(np.float32(-echo_time_s) * rate)
        series[frame] = _whole(rician(signal, 0.008, rng) * np.float32(_UNITS)).T
    return series.T, view


def simulate_scan(
    spec: TrialSpec,
    participant_id: str,
    visit: str,
    kind: str,
    path: str | os.PathLike[str],
    *,
    reader: str | None = None,
    repeat: int = 1,
) -> Path:
    """Write one scan of the simulated trial and its JSON sidecar.

    Parameters
    ----------
    spec
        The trial.
    participant_id, visit, kind
        As in the scans sheet. ``mask-infarct`` needs a reader.
    path
        Where the NIfTI goes (``.nii.gz``).
    reader, repeat
        Whose contour a mask is, and of which read.

    Returns
    -------
    pathlib.Path
        ``path``.

    Raises
    ------
    KeyError
        If the trial has no such participant or kind of scan.

    Notes
    -----
    Units: HU for ``ncct`` and ``ctp`` (int16), mm2/s for ``adc`` (float32), arbitrary units for
    the other MR images (int16), 0 and 1 for masks.

    Examples
    --------
    >>> import tempfile
    >>> file = Path(tempfile.mkdtemp(), "sub-001_dwi.nii.gz")
    >>> nib.load(simulate_scan(TrialSpec.testing(), "001", "baseline", "dwi", file)).shape
    (77, 93, 27)
    """
    scene = build_scene(spec, participant_id)
    if kind.startswith("mask-"):
        mask, view = reader_contour(scene, visit, kind, reader, repeat)
        return _write(mask.astype(np.uint8), view, path, {"unit": "label", "Reader": reader})
    plan = protocol(spec, participant_id, visit, kind)
    sidecar: dict[str, Any] = {**plan.sidecar, "SliceThickness": plan.voxel_mm[2]}
    if plan.frames > 1:
        simulated = _ct_perfusion if kind == "ctp" else _susceptibility
        voxels, view = simulated(scene, visit, plan)
        sidecar["frame_times_s"] = sidecar["VolumeTiming"] = plan.frame_times_s.tolist()
    elif kind == "ncct":
        view = view_scan(scene, visit, kind)
        signal = _hounsfield(scene, visit, view)
        voxels = _whole(signal + _correlated(view.shape, 3.5, _noise(scene, visit, kind)))
    else:
        if kind in DIFFUSION_KINDS:
            b0, dwi, view = _diffusion_signals(scene, visit)
            if kind == "adc":
                return _write(apparent_diffusion(b0, dwi), view, path, {**sidecar, "unit": "mm2/s"})
            signal = b0 if kind == "b0" else dwi
        else:
            signal, view = _anatomical(scene, visit, kind)
        voxels = _whole(signal * np.float32(_UNITS))
    unit = "HU" if plan.sidecar["Modality"] == "CT" else "a.u."
    return _write(voxels, view, path, {**sidecar, "unit": unit}, plan.interval_s)


def _whole(signal: Array) -> NDArray[np.int16]:
    return np.clip(np.rint(signal), -1024, 32767).astype(np.int16)


def _write(
    voxels: NDArray[Any],
    view: View,
    path: str | os.PathLike[str],
    sidecar: dict[str, Any],
    interval_s: float = 0.0,
) -> Path:
    image = nib.Nifti1Image(voxels, view.affine)
    if voxels.ndim == 4:
        image.header["pixdim"][4] = interval_s
    named = {**sidecar, "simulated": True}
    for long, short in (("echo_time_s", "EchoTime"), ("repetition_time_s", "RepetitionTime")):
        if short in named:
            named[long] = named[short]
    return save_image(image, path, sidecar=named)
