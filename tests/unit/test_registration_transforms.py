"""Transforms: direction, LPS and RAS, and our own applying against that of ANTs."""

import nibabel as nib
import numpy as np
import pytest
from scipy import ndimage

from corelab.imaging.template import template_image
from corelab.registration import apply_transforms, transform_points
from corelab.registration.ants_backend import ants_library, to_ants
from corelab.registration.nipype_backends import fsl_to_world
from corelab.registration.quality import (
    expected_volume_ml,
    field_quality,
    local_scale,
    normalised_mutual_information,
    overlap,
)
from corelab.registration.registrar import Transform
from corelab.registration.subject import _on_template, _OnAnchor
from corelab.registration.transforms import (
    RAS_LPS,
    Affine,
    Warp,
    jacobian_determinant,
    read_affine,
    read_steps,
    read_warp,
    write_affine,
    write_warp,
)


def turn(axis: int, degrees: float) -> np.ndarray:
    angle = np.deg2rad(degrees)
    i, j = [a for a in range(3) if a != axis]
    matrix = np.eye(4)
    matrix[i, i] = matrix[j, j] = np.cos(angle)
    matrix[i, j], matrix[j, i] = -np.sin(angle), np.sin(angle)
    return matrix


#: Rotation, scaling, shear and shift: no symmetry in which a wrong sign could hide.
ANALYTIC = turn(0, 12) @ turn(2, -20) @ np.diag([1.1, 0.9, 1.05, 1.0])
ANALYTIC[:3, 3] = 4.0, -7.0, 2.5


def oblique(sizes=(1.5, 2.0, 3.0), flip=False) -> np.ndarray:
    affine = turn(1, 25) @ turn(0, -10) @ np.diag([*sizes, 1.0])
    affine[:3, 3] = -20.0, 30.0, 11.0
    if flip:  # LAS: the first of 30 voxels is the rightmost
        mirror = np.diag([-1.0, 1, 1, 1])
        mirror[0, 3] = 29
        affine = affine @ mirror
    return affine


def blobs(affine: np.ndarray, shape=(30, 26, 20), seed=3) -> nib.Nifti1Image:
    noise = np.random.default_rng(seed).standard_normal(shape)
    return nib.Nifti1Image(ndimage.gaussian_filter(noise, 2).astype(np.float32) * 100, affine)


def smooth_warp(affine: np.ndarray, shape=(24, 24, 24), mm=4.0) -> Warp:
    noise = np.random.default_rng(5).standard_normal((3, *shape))
    field = np.stack([ndimage.gaussian_filter(part, 4) for part in noise])
    return Warp((field * mm / np.abs(field).max()).astype(np.float32), affine)


def import_ants():
    """The whole of ANTsPy, with the one thread of the workflow."""
    ants_library()
    import ants

    return ants


class TestFiles:
    def test_affine_comes_back_to_the_last_digit_of_rounding(self, tmp_path):
        back = read_affine(write_affine(ANALYTIC, tmp_path / "a.mat"))
        np.testing.assert_allclose(back, ANALYTIC, atol=1e-12)

    def test_affine_file_means_the_same_to_ants(self, tmp_path):
        ants = import_ants()
        path = write_affine(ANALYTIC, tmp_path / "a.mat")
        point = np.array([11.0, -23.0, 37.0])
        lps = np.diag([-1, -1, 1])
        theirs = lps @ np.array(
            ants.apply_ants_transform_to_point(ants.read_transform(str(path)), lps @ point)
        )
        by_hand = ANALYTIC[:3, :3] @ point + ANALYTIC[:3, 3]
        np.testing.assert_allclose(theirs, by_hand, atol=1e-9)
        np.testing.assert_allclose(transform_points(point[None], [path])[0], by_hand, atol=1e-9)

    def test_affine_of_ants_with_a_centre_is_read(self, tmp_path):
        ants = import_ants()
        centre = np.array([5.0, -8.0, 13.0])
        transform = ants.create_ants_transform(
            transform_type="AffineTransform",
            dimension=3,
            matrix=turn(2, 30)[:3, :3],
            translation=[1.0, 2.0, 3.0],
            center=list(centre),
        )
        ants.write_transform(transform, str(tmp_path / "c.mat"))
        lps = np.diag([-1, -1, 1])
        point = np.array([3.0, 4.0, 5.0])
        want = lps @ (turn(2, 30)[:3, :3] @ (lps @ point - centre) + centre + [1.0, 2.0, 3.0])
        np.testing.assert_allclose(transform_points(point[None], [tmp_path / "c.mat"])[0], want)

    def test_same_content_same_bytes(self, tmp_path):
        warp = smooth_warp(np.diag([2.0, 2, 2, 1]))
        for name in ("a", "b"):
            write_affine(ANALYTIC, tmp_path / f"{name}.mat")
            write_warp(warp, tmp_path / f"{name}.nii.gz")
        for suffix in (".mat", ".nii.gz"):
            assert (tmp_path / f"a{suffix}").read_bytes() == (tmp_path / f"b{suffix}").read_bytes()

    def test_other_files_are_refused_in_words(self, tmp_path):
        from scipy import io

        io.savemat(tmp_path / "x.mat", {"a": np.eye(2)})
        with pytest.raises(ValueError, match="no 3D matrix transform"):
            read_affine(tmp_path / "x.mat")
        nib.save(nib.Nifti1Image(np.zeros((3, 3, 3), np.float32), np.eye(4)), tmp_path / "x.nii.gz")
        with pytest.raises(ValueError, match="not a displacement field"):
            read_warp(tmp_path / "x.nii.gz")
        with pytest.raises(ValueError, match="cannot be inverted"):
            read_steps([tmp_path / "x.nii.gz"], [True])


class TestDirection:
    def test_list_for_an_image_maps_points_from_fixed_to_moving(self):
        # The moving image has one bright voxel at world (10, 0, 0). The matrix says that the
        # fixed point (4, 0, 0) lies there: so the voxel must turn up at (4, 0, 0).
        data = np.zeros((21, 5, 5), np.float32)
        data[20, 2, 2] = 1
        affine = np.eye(4)
        affine[:3, 3] = -10, -2, -2
        shift = np.eye(4)
        shift[0, 3] = 6
        image = nib.Nifti1Image(data, affine)
        moved = apply_transforms(image, image, [Affine(shift)], "nearest")
        world = affine @ [*np.argwhere(np.asarray(moved.dataobj))[0], 1]
        assert world[:3].tolist() == [4.0, 0.0, 0.0]
        assert transform_points(np.array([[4.0, 0, 0]]), [Affine(shift)]).tolist() == [[10, 0, 0]]

    def test_list_is_walked_from_first_to_last(self, tmp_path):
        scale, shift = np.diag([2.0, 1, 1, 1]), np.eye(4)
        shift[0, 3] = 1
        files = [write_affine(scale, tmp_path / "s.mat"), write_affine(shift, tmp_path / "t.mat")]
        assert transform_points(np.array([[3.0, 0, 0]]), files)[0, 0] == 7.0
        assert transform_points(np.array([[3.0, 0, 0]]), files[::-1])[0, 0] == 8.0

    def test_conversion_to_ants_keeps_every_voxel_where_it_is(self):
        ants = import_ants()
        for flip in (False, True):
            image = blobs(oblique(flip=flip))
            kept = to_ants(image)
            theirs = ants.from_pointer(kept.pointer)
            index = (7, 11, 5)
            point = np.array(ants.transform_index_to_physical_point(theirs, index))
            world = image.affine @ [*index, 1]
            np.testing.assert_allclose(point * [-1, -1, 1], world[:3], atol=1e-4)
            assert theirs.numpy()[index] == np.asarray(image.dataobj)[index]
            lps = np.asarray(theirs.direction) * np.asarray(theirs.spacing)
            np.testing.assert_allclose(RAS_LPS[:3, :3] @ lps, image.affine[:3, :3], atol=1e-5)
            np.testing.assert_allclose(
                RAS_LPS[:3, :3] @ theirs.origin, image.affine[:3, 3], atol=1e-5
            )

    def test_flirt_matrix_means_the_same_for_las_and_ras(self):
        # One world transform, seen from a RAS and a LAS grid, has two FLIRT matrices but one meaning.
        ras = nib.Nifti1Image(np.zeros((10, 12, 14)), np.diag([2.0, 2, 2, 1]))
        las_affine = np.diag([-2.0, 2, 2, 1])
        las_affine[0, 3] = 18
        las = nib.Nifti1Image(np.zeros((10, 12, 14)), las_affine)
        np.testing.assert_allclose(fsl_to_world(np.eye(4), ras, las), np.eye(4), atol=1e-12)
        lift = np.eye(4)
        lift[2, 3] = 5.0
        assert fsl_to_world(lift, las, las)[2, 3] == pytest.approx(5.0)


class TestAgainstAnts:
    """Second computation: antsApplyTransforms on the same files."""

    @pytest.mark.parametrize("flip", [False, True])
    def test_image_through_warp_and_matrix(self, tmp_path, flip):
        ants = import_ants()
        moving, fixed = blobs(oblique(flip=flip)), blobs(oblique((2.0, 2.0, 2.0)), (28, 24, 24), 9)
        grid = np.diag([3.0, 3.0, 3.0, 1.0])
        grid[:3, 3] = -40, -10, -40
        files = [
            write_warp(smooth_warp(grid), tmp_path / "w.nii.gz"),
            write_affine(np.linalg.inv(ANALYTIC), tmp_path / "a.mat"),
        ]
        flags = [False, True]
        ours = np.asarray(apply_transforms(moving, fixed, files, inverted=flags).dataobj)
        kept = [to_ants(fixed), to_ants(moving)]
        theirs = ants.apply_transforms(
            *(ants.from_pointer(image.pointer) for image in kept),
            [str(file) for file in files],
            interpolator="linear",
            whichtoinvert=flags,
        ).numpy()
        # ITK has no half-voxel rim of zeros around an image as we have: compare within.
        inner = (
            np.asarray(
                apply_transforms(
                    nib.Nifti1Image(
                        np.pad(np.ones([n - 2 for n in moving.shape], np.float32), 1), moving.affine
                    ),
                    fixed,
                    files,
                    "linear",
                    inverted=flags,
                ).dataobj
            )
            == 1
        )
        assert inner.sum() > 500
        assert np.abs(theirs[inner]).max() > 5
        np.testing.assert_allclose(ours[inner], theirs[inner], atol=2e-2)

    def test_points_through_warp_and_matrix(self, tmp_path):
        import pandas as pd

        ants = import_ants()
        grid = np.diag([3.0, 3.0, 3.0, 1.0])
        files = [
            write_warp(smooth_warp(grid), tmp_path / "w.nii.gz"),
            write_affine(ANALYTIC, tmp_path / "a.mat"),
        ]
        points = np.random.default_rng(1).uniform(5, 60, (50, 3))
        table = pd.DataFrame(points * [-1, -1, 1], columns=["x", "y", "z"])
        theirs = ants.apply_transforms_to_points(3, table, [str(file) for file in files])
        theirs = theirs[["x", "y", "z"]].to_numpy() * [-1, -1, 1]
        np.testing.assert_allclose(transform_points(points, files), theirs, atol=1e-4)


class TestApply:
    def test_label_keeps_a_sphere_s_volume_better_than_2_percent(self):
        grid = np.indices((40, 40, 40)) - 19.5
        sphere = (np.sqrt((grid**2).sum(0)) < 15).astype(np.uint8)
        image = nib.Nifti1Image(sphere, np.eye(4))
        centred = turn(0, 17)
        centred[:3, 3] = 19.5 - centred[:3, :3] @ np.full(3, 19.5)
        moved = apply_transforms(image, image, [Affine(centred)], "label")
        assert moved.get_data_dtype() == np.uint8
        assert np.asarray(moved.dataobj).sum() == pytest.approx(sphere.sum(), rel=0.02)

    def test_several_labels_stay_labels(self):
        data = np.zeros((12, 12, 12), np.uint8)
        data[2:6], data[6:10] = 1, 4
        image = nib.Nifti1Image(data, np.eye(4))
        shift = np.eye(4)
        shift[0, 3] = 0.4
        moved = np.asarray(apply_transforms(image, image, [Affine(shift)], "label").dataobj)
        assert set(np.unique(moved)) == {0, 1, 4}

    def test_part_of_the_grid_that_is_left_out_is_zero_anyway(self):
        image, fixed = blobs(oblique()), blobs(oblique((2.0, 2.0, 2.0)), (40, 40, 40))
        matrix = Affine(ANALYTIC)
        field = Warp(np.zeros((3, 4, 4, 4), np.float32), np.diag([50.0, 50, 50, 1]))
        boxed = np.asarray(apply_transforms(image, fixed, [matrix]).dataobj)
        whole = np.asarray(apply_transforms(image, fixed, [field, matrix]).dataobj)
        np.testing.assert_allclose(boxed, whole, atol=1e-4)

    def test_masks_on_the_template_are_those_of_the_whole_grid(self):
        """Places are computed in blocks around each mask, as far as the field can reach."""
        field = np.diag([6.0, 6.0, 6.0, 1.0])
        field[:3, 3] = -60, -80, -40
        fit = Transform("deformable", ANALYTIC, smooth_warp(field, mm=25.0))
        places = _OnAnchor(fit)
        back = [Affine(turn(1, 7))]
        steps = [Affine(np.linalg.inv(back[0].matrix))]
        for seed, corner in ((3, (-20.0, 30.0, 11.0)), (4, (40.0, -90.0, 40.0)), (5, (0, 0, 900))):
            affine = oblique()
            affine[:3, 3] = corner
            data = (np.asarray(blobs(affine, seed=seed).dataobj) > 8).astype(np.uint8)
            mask = nib.Nifti1Image(data, affine)
            found = _on_template(mask, steps, back, places)
            every_fifth = template_image().slicer[::5, ::5, ::5]
            due = apply_transforms(mask, every_fifth, [*fit.to_fixed, *steps], "label")
            thin = np.asarray(found.dataobj)[::5, ::5, ::5]
            np.testing.assert_array_equal(thin, np.asarray(due.dataobj))
            assert np.asarray(found.dataobj).any() == (seed != 5)

    def test_empty_mask_gives_empty_mask(self):
        empty = nib.Nifti1Image(np.zeros((5, 5, 5), np.uint8), np.eye(4))
        assert not np.asarray(apply_transforms(empty, empty, [], "label").dataobj).any()

    def test_wrong_use_is_told(self):
        image = blobs(np.eye(4))
        with pytest.raises(ValueError, match="interpolation 'cubic'"):
            apply_transforms(image, image, [], "cubic")
        with pytest.raises(ValueError, match="expected \\(n, 3\\)"):
            transform_points(np.zeros(3), [])


class TestQuality:
    def test_independent_images_share_no_information(self):
        rng = np.random.default_rng(1)
        # 1 for infinitely many values; the bias of 32 x 32 bins on 200 000 is below 0.002.
        value = normalised_mutual_information(rng.normal(size=200000), rng.normal(size=200000))
        assert 1.0 < value < 1.002

    def test_overlap_is_dice(self):
        a = np.zeros((40, 40, 40), np.uint8)
        b = a.copy()
        a[5:25, 5:35, 5:35], b[10:30, 5:35, 5:35] = 1, 1
        images = [nib.Nifti1Image(data, np.eye(4)) for data in (a, b)]
        dice, seen = overlap(*images, [], [])
        assert dice == pytest.approx(2 * (a & b).sum() / (a.sum() + b.sum()), abs=0.01)
        assert seen == 1.0

    def test_folding_is_seen(self):
        field = np.zeros((3, 20, 20, 20), np.float32)
        field[0] = -1.5 * np.arange(20)[:, None, None]  # x -> x - 1.5 x: mirrored
        brain = nib.Nifti1Image(np.ones((20, 20, 20), np.uint8), np.eye(4))
        warp = Warp(field, np.eye(4))
        found = field_quality(Transform("deformable", np.eye(4), warp, warp), brain)
        assert found["folds"] == 1.0
        assert found["jacobian_min"] == pytest.approx(-0.5)

    def test_expected_volume_through_a_stretch(self):
        # Template x -> subject 1.25 x around 0: the subject is larger, MNI volume is 1/1.25.
        grid = np.indices((41, 41, 41)).astype(np.float32) - 20
        field = np.zeros((3, 41, 41, 41), np.float32)
        field[0] = 0.25 * grid[0]
        affine = np.eye(4)
        affine[:3, 3] = -20
        warp = Warp(field, affine)
        assert jacobian_determinant(warp)[20, 20, 20] == pytest.approx(1.25)
        mask = nib.Nifti1Image((np.abs(grid) <= 8).all(0).astype(np.uint8), affine)
        back = [Affine(np.diag([0.8, 1, 1, 1]))]
        native_ml = np.asarray(mask.dataobj).sum() / 1000
        assert expected_volume_ml(mask, back, local_scale(warp), 1.0) == pytest.approx(
            native_ml / 1.25, rel=1e-3
        )
