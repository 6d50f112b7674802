"""Predictors that are ONNX models, called as a small description file says."""

from __future__ import annotations

import hashlib
import json
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from avse_ppl.models.predictors.adapters import adapt_enhancer
from avse_ppl.models.validation import (
    check_count,
    check_not_negative,
    check_share,
    check_speeds,
    unknown_name,
)

KINDS = ("waveform", "mask", "spectrum")
WINDOWS = ("hann", "sqrt-hann", "hamming", "rectangular")
VALUES = ("complex", "magnitude", "power", "log-power")  # of the spectrum that the model takes
CALLS = ("frame", "whole")
_SPECTRAL_AXES = ("batch", "channel", "freq", "time", "part")
_WAVE_AXES = ("batch", "channel", "sample")
_DTYPES = {"tensor(float)": np.float32, "tensor(double)": np.float64, "tensor(float16)": np.float16}
_FLOOR = 1e-12


@dataclass(frozen=True)
class Tie:
    """An input or output of the model that holds the signal: its name and its axes."""

    name: str
    axes: tuple[str, ...]


@dataclass(frozen=True)
class OnnxDescription:
    """How an ONNX model is called.

    Parameters
    ----------
    model
        File, relative to the description.
    sample_rate_hz
        Of the waveforms that it was trained with.
    kind
        What it returns: a ``"waveform"``, for a waveform; the ``"spectrum"`` of speech, or a
        ``"mask"`` that its spectrum is multiplied with, for that of the mixture.
    input, output
        Name and axes of the signal: ``batch``, ``channel`` (both of length 1), ``sample``; or
        ``freq``, ``time``, ``part`` (real and imaginary).
    call
        ``"whole"`` sequence at once, or one ``"frame"`` a call: of the STFT, or of
        ``block_samples`` of a waveform.
    caches
        Input of each state that goes from call to call, and the output that it comes from.
        States start as zeros.
    cache_shapes
        Shapes of states, where the model leaves them open.
    n_fft, hop, window
        Front end; frames are centred, ``"hann"``, ``"sqrt-hann"``, ``"hamming"`` or
        ``"rectangular"``. Synthesis is by the same window, so that analysis is undone.
    values
        What the model takes: ``"complex"``, ``"magnitude"``, ``"power"`` or ``"log-power"``.
    block_samples
        Samples of a frame of a waveform.
    delay_samples
        How many samples the answer is late.
    lead_in_s, backward_weight, speeds
        How much of the beginning it hears backwards first, seconds, how much its answer to the
        recording backwards counts, and at which speeds it hears the recording again, see
        `adapt_enhancer`.
    name
        For messages; by default that of the file.
    """

    model: str
    sample_rate_hz: int
    kind: str
    input: Tie
    output: Tie
    call: str = "whole"
    caches: Mapping[str, str] = field(default_factory=dict)
    cache_shapes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    n_fft: int = 0
    hop: int = 0
    window: str = "hann"
    values: str = "complex"
    block_samples: int = 0
    delay_samples: int = 0
    lead_in_s: float = 0.0
    backward_weight: float = 0.0
    speeds: Sequence[float] = ()
    name: str = ""

    def __post_init__(self) -> None:
        """Check each field, and that they go together."""
        check_count("sample_rate_hz", self.sample_rate_hz)
        check_count("delay_samples", self.delay_samples, 0)
        check_not_negative("lead_in_s", self.lead_in_s)
        check_share("backward_weight", self.backward_weight)
        check_speeds("speeds", self.speeds)
        for what, value, known in (
            ("kind", self.kind, KINDS), ("window", self.window, WINDOWS),
            ("values", self.values, VALUES), ("call", self.call, CALLS),
        ):  # fmt: skip
            if value not in known:
                raise unknown_name(what, value, known)
        waveform = self.kind == "waveform"
        allowed = _WAVE_AXES if waveform else _SPECTRAL_AXES
        needed = {"sample"} if waveform else {"freq", "time"}
        for role, tie in (("input", self.input), ("output", self.output)):
            axes = set(tie.axes)
            if len(axes) < len(tie.axes) or not needed <= axes <= set(allowed):
                raise ValueError(
                    f"{role}.axes are {list(tie.axes)}; expected each of {sorted(needed)} once, "
                    f"and of {', '.join(allowed)} no others"
                )
        if waveform:
            if self.call == "frame":
                check_count("block_samples", self.block_samples)
            return
        check_count("n_fft", self.n_fft, 2)
        check_count("hop", self.hop)
        if 2 * self.hop > self.n_fft:
            raise ValueError(f"hop is {self.hop}; expected at most half of n_fft, {self.n_fft}")
        if ("part" in self.input.axes) != (self.values == "complex"):
            raise ValueError(
                f"input.axes are {list(self.input.axes)} with values {self.values!r}; expected an "
                "axis 'part' where the values are complex, and none where they are not"
            )
        if self.kind == "spectrum" and "part" not in self.output.axes:
            raise ValueError(
                f"output.axes are {list(self.output.axes)}; expected an axis 'part' of a spectrum. "
                "Is it a mask?"
            )


def read_description(path: str | Path) -> OnnxDescription:
    """Read the description of an ONNX model, TOML or JSON.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If it cannot be parsed, a field is missing, unknown or of another type, or two do not go
        together.
    """
    path = Path(path)
    content = path.read_bytes()
    try:
        text = content.decode("utf-8")
        found: Any = json.loads(text) if path.suffix.lower() == ".json" else tomllib.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is no {path.suffix[1:].upper()}: {error}") from error
    try:
        description = parse_fields(found)
    except (ValueError, TypeError) as error:
        raise ValueError(f"{path}: {error}") from error
    return description if description.name else replace(description, name=path.stem)


def parse_fields(found: Any) -> OnnxDescription:
    """Description from the tables of its file.

    Raises
    ------
    ValueError, TypeError
        As `read_description` does.
    """
    known = {one.name: one for one in fields(OnnxDescription)}
    if not isinstance(found, dict):
        raise TypeError(f"expected fields {', '.join(known)}; found {type(found).__name__}")
    for name in found:
        if name not in known:
            raise unknown_name("field", name, known)
    required = [n for n, f in known.items() if f.default is f.default_factory is MISSING]
    missing = [name for name in required if name not in found]
    if missing:
        raise ValueError(f"expected the field {missing[0]!r}, which is missing")
    values = dict(found)
    for name in ("input", "output"):
        tie = found[name]
        if (
            not isinstance(tie, dict)
            or set(tie) != {"name", "axes"}
            or not isinstance(tie["name"], str)
            or not isinstance(tie["axes"], list)
            or not all(isinstance(axis, str) for axis in tie["axes"])
        ):
            raise TypeError(f'{name} is {tie!r}; expected {{ name = "...", axes = ["...", ...] }}')
        values[name] = Tie(tie["name"], tuple(tie["axes"]))
    caches = found.get("caches", {})
    if not isinstance(caches, dict) or not all(isinstance(c, str) for c in caches.values()):
        raise TypeError(f"caches are {caches!r}; expected the output of each input that is a state")
    shapes = found.get("cache_shapes", {})
    if not isinstance(shapes, dict) or not set(shapes) <= set(caches):
        raise TypeError(f"cache_shapes are {shapes!r}; expected shapes of some of {list(caches)}")
    for name, shape in shapes.items():
        if not isinstance(shape, list):
            raise TypeError(f"the shape of {name!r} is {shape!r}; expected a list of lengths")
        for length in shape:
            check_count(f"a length of {name!r}", length)
    values["cache_shapes"] = {name: tuple(shape) for name, shape in shapes.items()}
    for name in ("model", "kind", "call", "window", "values", "name"):
        if not isinstance(values.get(name, ""), str):
            raise TypeError(f"{name} is {values[name]!r}; expected a text")
    return OnnxDescription(**values)


@dataclass(frozen=True)
class OnnxEnhancer:
    """Enhancer by an ONNX model.

    Parameters
    ----------
    description
        How it is called.
    session
        Of onnxruntime.
    digest
        Of the file of the model, which tells models of one name apart.
    """

    description: OnnxDescription
    session: Any = field(repr=False, compare=False)
    digest: str = ""

    @property
    def name(self) -> str:
        """Name for messages and reports."""
        return self.description.name

    def __call__(self, wave: np.ndarray, sample_rate_hz: int) -> np.ndarray:
        """Speech ``(sample,)`` in a mixture ``(sample,)``, at its rate and in time with it."""
        one = self.description
        adapted = adapt_enhancer(
            self.enhance_own,
            sample_rate_hz=one.sample_rate_hz,
            delay_samples=one.delay_samples,
            lead_in_s=one.lead_in_s,
            backward_weight=one.backward_weight,
            speeds=one.speeds,
        )
        return adapted(wave, sample_rate_hz)

    def enhance_own(self, wave: np.ndarray, sample_rate_hz: int) -> np.ndarray:
        """Answer of the model ``(sample,)`` at its own rate, as late as it comes."""
        one = self.description
        if one.kind == "waveform":
            block = one.block_samples if one.call == "frame" else max(1, len(wave))
            padded = np.pad(wave, (0, -len(wave) % block))
            frames = padded.reshape(-1, block)
            found = self.run_frames(list(frames), ("sample",), ("sample",))
            return np.concatenate(found)[: len(wave)]
        window = make_window(one.window, one.n_fft)
        # Reflected at both ends, which takes more than half a window.
        padded = torch.from_numpy(np.pad(wave, (0, max(0, one.n_fft - len(wave)))))
        spectrum = torch.stft(padded, one.n_fft, one.hop, window=window, return_complex=True)
        values = convert_values(spectrum, one.values)
        axes = ("freq", "time", "part") if one.values == "complex" else ("freq", "time")
        width = 1 if one.call == "frame" else values.shape[1]
        inputs = [values[:, t : t + width] for t in range(0, values.shape[1], width)]
        complex_output = "part" in one.output.axes
        own_axes = ("freq", "time", "part") if complex_output else ("freq", "time")
        found = np.concatenate(self.run_frames(inputs, own_axes, axes), 1)
        answer = torch.from_numpy(np.ascontiguousarray(found))
        if complex_output:
            answer = torch.view_as_complex(answer.contiguous())
        if answer.shape != spectrum.shape:
            raise ValueError(
                f"output {one.output.name!r} has {tuple(answer.shape)} frequencies and frames for "
                f"{tuple(spectrum.shape)}; expected as many"
            )
        speech = spectrum * answer if one.kind == "mask" else answer.to(spectrum.dtype)
        back = torch.istft(speech, one.n_fft, one.hop, window=window, length=len(padded))
        return back[: len(wave)].numpy()

    def run_frames(
        self, frames: Sequence[np.ndarray], out: tuple[str, ...], into: tuple[str, ...]
    ) -> list[np.ndarray]:
        """Run the model on frame after frame, its states carried along.

        Parameters
        ----------
        frames
            One array each, with the axes ``into``.
        out
            Axes of what comes back.
        into
            Axes of the frames.
        """
        one = self.description
        types = {i.name: _DTYPES[i.type] for i in self.session.get_inputs()}
        shapes = find_cache_shapes(one, self.session)
        states = {name: np.zeros(shape, types[name]) for name, shape in shapes.items()}
        names = [one.output.name, *one.caches.values()]
        found = []
        for frame in frames:
            given = order_axes(frame, into, one.input.axes)
            given = np.ascontiguousarray(given, types[one.input.name])
            answer, *after = self.session.run(names, {one.input.name: given, **states})
            states = dict(zip(one.caches, after, strict=True))
            found.append(drop_axes(answer, one.output.axes, out).astype(np.float32))
        return found


def load_onnx(path: str | Path) -> OnnxEnhancer:
    """Load an ONNX model by its description, and try it on a little noise.

    Examples
    --------
    >>> load_onnx("gtcrn.toml")  # doctest: +SKIP

    Raises
    ------
    FileNotFoundError
        If the description or the model is missing.
    ImportError
        If onnxruntime is not installed.
    ValueError
        If the description is not one, the model cannot be loaded, or they do not go together.
    """
    path = Path(path)
    description = read_description(path)
    model = path.parent / description.model
    if not model.is_file():
        raise FileNotFoundError(2, "no model that the description names", str(model))
    try:
        import onnxruntime
    except ImportError:
        raise ImportError(
            "ONNX models need an optional part: pip install 'avse-ppl[predictors]'"
        ) from None
    options = onnxruntime.SessionOptions()
    # A frame is too little work to share; a whole recording takes the threads that torch has.
    options.intra_op_num_threads = 1 if description.call == "frame" else torch.get_num_threads()
    options.inter_op_num_threads = 1
    options.log_severity_level = 4
    try:
        session = onnxruntime.InferenceSession(
            str(model), options, providers=["CPUExecutionProvider"]
        )
    except Exception as error:  # classes of its own, for whatever is in the file
        raise ValueError(f"{model} is no model of ONNX: {str(error).splitlines()[0]}") from error
    check_names(description, session)
    digest = hashlib.sha256(model.read_bytes()).hexdigest()[:16]
    enhancer = OnnxEnhancer(description, session, digest)
    length = max(description.n_fft, description.block_samples, 1) * 8
    length = max(length, description.sample_rate_hz // 4)
    noise = np.random.default_rng(0).normal(0.0, 0.05, length).astype(np.float32)
    try:
        found = enhancer.enhance_own(noise, description.sample_rate_hz)
    except Exception as error:
        text = " ".join(str(error).split())
        raise ValueError(f"{model} does not run as {path} describes it: {text}") from error
    if found.shape != noise.shape:
        raise ValueError(
            f"{model} returned {found.shape} for {noise.shape} as {path} describes it; expected "
            "as many samples"
        )
    return enhancer


def check_names(description: OnnxDescription, session: Any) -> None:
    """Raise ``ValueError`` unless a description names what the model has, and all that it takes."""
    inputs = {one.name: one for one in session.get_inputs()}
    outputs = {one.name: one for one in session.get_outputs()}
    for what, names, known in (
        ("input", [description.input.name, *description.caches], inputs),
        ("output", [description.output.name, *description.caches.values()], outputs),
    ):
        for name in names:
            if name not in known:
                raise unknown_name(f"{what} of {description.model}", name, known)
    for name, one in inputs.items():
        if name != description.input.name and name not in description.caches:
            raise ValueError(
                f"input {name!r} of {description.model} is not described; expected it in caches, "
                "with the output that it comes from"
            )
        if one.type not in _DTYPES:
            raise ValueError(
                f"input {name!r} of {description.model} is of type {one.type}; expected one of "
                f"{', '.join(_DTYPES)}"
            )
    for tie, known in ((description.input, inputs), (description.output, outputs)):
        if len(known[tie.name].shape) not in (0, len(tie.axes)):
            raise ValueError(
                f"{tie.name!r} of {description.model} has shape {known[tie.name].shape}; the "
                f"description gives it the axes {list(tie.axes)}"
            )
    find_cache_shapes(description, session)


def find_cache_shapes(description: OnnxDescription, session: Any) -> dict[str, tuple[int, ...]]:
    """Shapes of the states of a model.

    Raises
    ------
    ValueError
        If neither the model nor the description states one.
    """
    found = {}
    for one in session.get_inputs():
        if one.name not in description.caches:
            continue
        shape = description.cache_shapes.get(one.name, tuple(one.shape))
        if not all(isinstance(length, int) for length in shape):
            raise ValueError(
                f"state {one.name!r} of {description.model} has the open shape {list(shape)}; "
                "state it in cache_shapes"
            )
        found[one.name] = shape
    return found


def make_window(name: str, n_fft: int) -> Tensor:
    """Window of an STFT, periodic, ``(sample,)``.

    Examples
    --------
    >>> make_window("hann", 4).tolist()
    [0.0, 0.5, 1.0, 0.5]
    """
    if name == "rectangular":
        return torch.ones(n_fft)
    if name == "hamming":
        return torch.hamming_window(n_fft)
    window = torch.hann_window(n_fft)
    return window.sqrt() if name == "sqrt-hann" else window


def convert_values(spectrum: Tensor, values: str) -> np.ndarray:
    """What a model takes of a spectrum: ``(freq, time)``, or with real and imaginary part last."""
    if values == "complex":
        return torch.view_as_real(spectrum).numpy()
    if values == "magnitude":
        return spectrum.abs().numpy()
    power = spectrum.real.square() + spectrum.imag.square()
    return (power if values == "power" else (power + _FLOOR).log()).numpy()


def order_axes(array: np.ndarray, axes: tuple[str, ...], wanted: tuple[str, ...]) -> np.ndarray:
    """Array with its axes in the order that a model wants, and its own of length 1.

    Examples
    --------
    >>> order_axes(np.zeros((3, 5)), ("freq", "time"), ("batch", "time", "freq")).shape
    (1, 5, 3)
    """
    kept = [axes.index(axis) for axis in wanted if axis in axes]
    moved = array.transpose(kept)
    return moved.reshape([array.shape[axes.index(a)] if a in axes else 1 for a in wanted])


def drop_axes(array: np.ndarray, axes: tuple[str, ...], wanted: tuple[str, ...]) -> np.ndarray:
    """Array of a model with the wanted axes alone, in their order.

    Raises
    ------
    ValueError
        If it has other axes, or one that is dropped is longer than 1.
    """
    spare = tuple(i for i, axis in enumerate(axes) if axis not in wanted)
    if array.ndim != len(axes) or any(array.shape[i] != 1 for i in spare):
        raise ValueError(
            f"the output has shape {array.shape}; the description gives it the axes {list(axes)}, "
            f"of which {[axes[i] for i in spare]} have length 1"
        )
    left = [axis for axis in axes if axis in wanted]
    return np.squeeze(array, spare).transpose([left.index(axis) for axis in wanted])
