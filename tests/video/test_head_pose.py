"""Geometry: smoothing, alignment with the mean face, pose, frontal crops."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from avse_ppl.video.frontalisation import cut_frontal_crop
from avse_ppl.video.head_pose import SOLID_FACE, estimate_poses, project_points
from avse_ppl.video.mouth_alignment import (
    MEAN_FACE,
    compute_sharpness,
    cut_crop,
    estimate_crop_transform,
    smooth_trajectories,
)

TIME_S = np.arange(60) / 25.0


def head(n_frames: int = 60) -> np.ndarray:
    """A head that turns: roll, pitch, yaw (radians), log scale and place."""
    time_s = TIME_S[:n_frames]
    return np.column_stack(
        [
            0.3 * np.sin(time_s),
            0.2 * np.cos(time_s),
            0.6 * np.sin(1.5 * time_s),
            0.1 * time_s,
            100 + 10 * time_s,
            80 - 5 * time_s,
        ]
    )


def turned(points: np.ndarray, angle: float, scale: float, shift: np.ndarray) -> np.ndarray:
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    return scale * points @ turn.T + shift


@pytest.mark.parametrize("angle", [0.0, 0.4, np.pi / 2, np.pi])
def test_any_similar_face_comes_onto_the_mean_face(angle):
    keypoints = turned(MEAN_FACE, angle, 2.5, np.array([300.0, 200.0]))
    transform = estimate_crop_transform(keypoints)
    assert np.allclose(keypoints @ transform[:, :2].T + transform[:, 2], MEAN_FACE)


def test_the_middle_of_the_mouth_comes_to_its_place():
    keypoints = 2.0 * MEAN_FACE + np.random.default_rng(0).normal(size=(5, 2)) * 4
    transform = estimate_crop_transform(keypoints)
    mouth = transform[:, :2] @ keypoints[3:].mean(axis=0) + transform[:, 2]
    assert mouth == pytest.approx(MEAN_FACE[3:].mean(axis=0))


@pytest.mark.parametrize("factor", [1, 3, 7])
def test_cutting_out_shrinks_without_moving(factor):
    crop = np.random.default_rng(0).integers(0, 255, (88, 88), dtype=np.uint8)
    crop = cv2.GaussianBlur(crop, (0, 0), 4)
    large = cv2.resize(crop, None, fx=factor, fy=factor, interpolation=cv2.INTER_CUBIC)
    large = cv2.copyMakeBorder(large, 20, 20, 30, 30, cv2.BORDER_REPLICATE)
    middle = (factor - 1) / 2.0
    transform = np.array([[1.0, 0.0, -30.0 - middle], [0.0, 1.0, -20.0 - middle]]) / factor
    assert np.abs(cut_crop(large, transform).astype(int) - crop)[3:-3, 3:-3].max() <= 3


def test_outside_the_picture_the_edge_repeats():
    grey = np.full((40, 40), 77, np.uint8)
    assert np.all(cut_crop(grey, np.array([[1.0, 0.0, 60.0], [0.0, 1.0, -200.0]])) == 77)


def test_a_blurred_crop_is_less_sharp():
    crop = np.random.default_rng(0).integers(0, 255, (88, 88), dtype=np.uint8)
    assert compute_sharpness(cv2.GaussianBlur(crop, (0, 0), 2)) < 0.1 * compute_sharpness(crop)


def test_smoothing_takes_out_jitter_and_keeps_gaps():
    noise = np.random.default_rng(0).normal(size=(60, 2))
    noise[20:25] = np.nan
    smoothed = smooth_trajectories(noise, TIME_S)
    assert np.nanstd(smoothed) < 0.5 * np.nanstd(noise)
    assert np.array_equal(np.isnan(smoothed), np.isnan(noise))


def test_the_pose_of_a_solid_face_is_found():
    parameters = head()
    poses = estimate_poses(project_points(SOLID_FACE, parameters), TIME_S)
    truth = np.rad2deg(parameters[:, 2::-1])
    assert np.abs(poses.degrees - truth).max() < 0.5
    assert poses.confidence.min() > 0.99


def test_signs_of_the_pose():
    for column, axis, sign in ((2, 0, 1), (1, 1, -1)):
        parameters = np.zeros((1, 6))
        parameters[0, column] = 0.3
        nose = (
            project_points(SOLID_FACE, parameters)[0, 2]
            - project_points(SOLID_FACE, 0 * parameters)[0, 2]
        )
        assert sign * nose[axis] > 5


def test_one_misplaced_keypoint_hardly_turns_the_head():
    parameters = head()
    keypoints = project_points(SOLID_FACE, parameters)
    noise = np.random.default_rng(0).normal(size=keypoints.shape)
    plain = estimate_poses(keypoints + noise, TIME_S)
    keypoints[20:24, 3] += 30.0
    poses = estimate_poses(keypoints + noise, TIME_S)
    assert np.abs(poses.degrees - plain.degrees)[20:24].max() < 5.0
    assert poses.confidence[20:24].max() < poses.confidence[:20].min() + 0.1


def test_where_there_is_no_face_there_is_no_pose():
    keypoints = project_points(SOLID_FACE, head())
    keypoints[10:20] = np.nan
    poses = estimate_poses(keypoints, TIME_S)
    assert np.array_equal(np.isnan(poses.degrees[:, 0]), np.isnan(keypoints[:, 0, 0]))
    assert not poses.confidence[10:20].any()
    assert np.isnan(estimate_poses(keypoints[10:20], TIME_S[10:20]).degrees).all()


def test_a_frontal_face_stays_as_it_is():
    crop = np.random.default_rng(0).integers(0, 255, (88, 88)).astype(np.float32)
    crop = cv2.GaussianBlur(crop, (0, 0), 5).astype(np.uint8)
    picture = cv2.copyMakeBorder(crop, 60, 60, 60, 60, cv2.BORDER_REPLICATE)
    parameters = np.array([0.0, 0.0, 0.0, 0.0, 104.0, 70.0])
    frontal = cut_frontal_crop(picture, MEAN_FACE + 60.0, parameters)
    assert np.abs(frontal.astype(int) - crop)[3:-3, 3:-3].max() <= 3


def test_a_turned_face_is_shown_from_the_front():
    """The far half of a turned mouth is narrower in the picture, and not in the frontal crop."""
    parameters = np.array([0.0, 0.0, 0.5, 0.0, 150.0, 120.0])
    keypoints = project_points(SOLID_FACE, parameters[None])[0]
    picture = np.zeros((240, 300), np.uint8)
    left, right = keypoints[3:]
    cv2.line(picture, tuple(left.astype(int)), tuple(right.astype(int)), 255, 3)
    width = [
        np.ptp(np.flatnonzero(crop.max(axis=0) > 100))
        for crop in (
            cut_crop(picture, estimate_crop_transform(keypoints)),
            cut_frontal_crop(picture, keypoints, parameters),
        )
    ]
    assert width[1] > width[0] + 2
    assert width[1] == pytest.approx(np.ptp(MEAN_FACE[3:, 0]), abs=6)
