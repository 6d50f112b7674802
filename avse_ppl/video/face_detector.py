"""Face detection in one video frame by insightface's SCRFD, and its weights."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

MODEL_VARIABLE = "AVSE_PPL_FACE_MODEL"

_MODELS = "~/.insightface/models"
_NAMES = ("det_500m.onnx", "det_2.5g.onnx", "det_10g.onnx", "scrfd_*.onnx")  # the fast ones first
_MIN_SCORE = 0.45
_OUTPUTS = 9  # score, box and keypoints at three strides


@dataclass(frozen=True, eq=False)
class Face:
    """Detected face of a video frame.

    Parameters
    ----------
    score
        Of the detection, in [0, 1].
    keypoints
        ``(5, 2)`` pixels, x and y of the eye, the eye, the nose tip, the mouth corner and the
        mouth corner, those on the left of an upright video frame first.
    """

    score: float
    keypoints: np.ndarray

    def scaled(self, scale: float) -> Face:
        """Face in a video frame `scale` times as large."""
        return Face(self.score, self.keypoints * scale)


class FaceDetector(Protocol):
    """Face detector: SCRFD, or a callable of yours."""

    def __call__(self, picture: np.ndarray, size_px: int) -> list[Face]:
        """Faces of a video frame.

        Parameters
        ----------
        picture
            ``(height, width, 3)`` uint8 in the order blue, green, red.
        size_px
            Longer side that the video frame is scaled to before the search, a multiple of 32.
        """
        ...


def find_face_model(face_model: str | os.PathLike[str] | None = None) -> Path:
    """Path of the weights of the face detector.

    Parameters
    ----------
    face_model
        The ONNX file, or a folder with one. None looks at the environment variable
        ``AVSE_PPL_FACE_MODEL``, then into insightface's own folder ``~/.insightface/models``.

    Raises
    ------
    FileNotFoundError
        If there are none; says how to get them.
    """
    stated = face_model if face_model is not None else os.environ.get(MODEL_VARIABLE) or None
    place = Path(stated if stated is not None else _MODELS).expanduser()
    if place.is_file():
        return place
    for name in _NAMES:
        for path in sorted(place.rglob(name)):
            return path
    raise FileNotFoundError(
        f"expected the weights of a face detector at '{place}', found none. They are not part of "
        'this package: run  python -c "from insightface.app import FaceAnalysis; '
        "FaceAnalysis('buffalo_s')\"  once (insightface fetches them; non-commercial research "
        f"only), or name an SCRFD .onnx file by face_model=, --face-model or {MODEL_VARIABLE}. "
        "Ready-made mouth crops need none: Lips.from_crops"
    )


def load_detector(path: Path, *, threads: int = 1) -> FaceDetector:
    """SCRFD detector from its weights, for video frames of any size.

    Raises
    ------
    ModuleNotFoundError
        If insightface or onnxruntime is not installed.
    ValueError
        If the file is not an SCRFD detector with keypoints.
    """
    try:
        from insightface.model_zoo.scrfd import SCRFD
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f"faces are found with insightface and onnxruntime, and {error.name} is missing; "
            "install them: pip install 'avse-ppl[video]'"
        ) from error
    import onnx
    import onnxruntime
    from google.protobuf.message import DecodeError

    expected = f"expected an SCRFD face detector with keypoints (9 outputs) in '{path}'"
    remedy = "insightface's det_500m.onnx or det_10g.onnx is one"
    try:
        model: Any = onnx.load(str(path))
    except DecodeError as error:
        raise ValueError(f"{expected}, found {error}; {remedy}") from error
    outputs = model.graph.output
    if len(outputs) != _OUTPUTS:
        raise ValueError(f"{expected}, found {len(outputs)} outputs; {remedy}")

    # Let the network take video frames of any size: some files are fixed to 640x640.
    _, _, height, width = model.graph.input[0].type.tensor_type.shape.dim
    height.dim_param, width.dim_param = "height", "width"
    for output in outputs:
        output.type.tensor_type.shape.dim[-2].dim_param = f"{output.name}_rows"
    del model.graph.value_info[:]

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    scrfd = SCRFD(session=session, static_shape_sessions=False)
    scrfd.det_thresh = _MIN_SCORE
    return _Scrfd(scrfd)


@dataclass(frozen=True)
class _Scrfd:
    scrfd: Any

    def __call__(self, picture: np.ndarray, size_px: int) -> list[Face]:
        boxes, keypoints = self.scrfd.detect(picture, input_size=(size_px, size_px))
        return [Face(float(box[4]), points) for box, points in zip(boxes, keypoints, strict=True)]
