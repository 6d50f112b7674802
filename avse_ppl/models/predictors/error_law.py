"""Error law of a predictor: the power of its error, from the mixture and the prediction."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, pad

from avse_ppl.signal.stft import Spectrogram, Stft
from avse_ppl.utils.files import atomic_path, read_json

LAWS = Path(__file__).parent / "laws"
_FLOOR = 1e-5  # of powers, where a mixture has a mean of 1
_KEPT, _REMOVED = 0.2, 0.03  # shares of the powers that are the error, where nothing was fitted
_UNKNOWN = 2.0  # how much wider the law is of a predictor of which nothing is known
_FEATURES = 16
_HIDDEN = 48


class ErrorLaw(nn.Module):
    r"""Power of the error of a predictor, bin by bin.

    .. math:: s_{ft} - \hat s_{ft} \sim N_c(0, E_{ft}), \quad
        \log E = \log\left(0.2 \overline{|\hat s|^2} + 0.03 \overline{|x - \hat s|^2}\right)
        + h(\phi)

    with bars for averages over neighbouring bins and :math:`\phi` features of the mixture x and the
    prediction: log powers of what was kept and what was removed, in the bin, around it, over time
    and over the recording, and the frequency. The network h is fitted to the errors of one
    predictor on simulated mixtures, see `avse_ppl.training.phases.error_law.fit_error_law`; without
    it, :math:`h = \log 2`, a wide law for a predictor of which nothing is known.

    Parameters
    ----------
    fitted
        Whether the network is there.

    Examples
    --------
    >>> mixture = Stft().analyse(torch.randn(4000).numpy())
    >>> ErrorLaw()(mixture, 0.5 * mixture.values).shape
    torch.Size([1, 513, 17])
    """

    def __init__(self, fitted: bool = False) -> None:
        super().__init__()
        self.fitted = fitted
        self.network: nn.Sequential | None = None
        if fitted:
            self.network = nn.Sequential(
                nn.Linear(_FEATURES, _HIDDEN), nn.SiLU(),
                nn.Linear(_HIDDEN, _HIDDEN), nn.SiLU(), nn.Linear(_HIDDEN, 1),
            )  # fmt: skip
            self.centre: Tensor
            self.spread: Tensor
            self.register_buffer("centre", torch.zeros(_FEATURES))
            self.register_buffer("spread", torch.ones(_FEATURES))

    def forward(self, mixture: Spectrogram, predicted: Tensor) -> Tensor:
        """Log power of the error, ``(recording, freq, time)``, of predictions of that shape."""
        features = make_features(mixture.values, predicted, mixture.stft)
        base = compute_base(features)
        if self.network is None:
            return base + math.log(_UNKNOWN)
        off: Any = self.network((features - self.centre) / self.spread)
        return base + off[..., 0]

    def save(self, folder: str | Path, card: Mapping[str, Any] | None = None) -> Path:
        """Write ``law.safetensors``, ``law.json`` and, with a card, ``README.md`` into a folder."""
        from safetensors.torch import save

        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        card = dict(card or {})
        tensors = {
            key: value.detach().cpu().contiguous() for key, value in self.state_dict().items()
        }
        text = {"fitted": self.fitted, "stft": asdict(Stft()), "card": card}
        files = {
            "law.safetensors": save(tensors),
            "law.json": f"{json.dumps(text, indent=2)}\n".encode(),
        }
        if card:
            lines = [f"# Error law of {card.get('name', 'a predictor')}", ""]
            lines += [f"- **{key}**: {value}" for key, value in card.items()]
            files["README.md"] = ("\n".join(lines) + "\n").encode()
        return write_files(folder, files)


def write_files(folder: Path, files: Mapping[str, bytes]) -> Path:
    """Write files into a folder, each at once."""
    for name, content in files.items():
        with atomic_path(folder / name) as temporary:
            temporary.write_bytes(content)
    return folder


def load_tensors(module: nn.Module, file: Path, what: str) -> None:
    """Load the state of a module from a file.

    Raises
    ------
    ValueError
        If the file is damaged, or holds that of another module.
    """
    from safetensors.torch import load

    try:
        module.load_state_dict(load(file.read_bytes()))
    except Exception as error:  # a damaged file can raise nearly anything here
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise ValueError(f"{file} is not {what}: {reason}") from None
    module.eval().requires_grad_(False)


def load_error_law(name: str | Path) -> ErrorLaw:
    """Load an error law: the name of a shipped one, or a folder that ``save`` has written.

    Raises
    ------
    FileNotFoundError
        If there is none.
    ValueError
        If a file is damaged.

    Examples
    --------
    >>> load_error_law("deepfilternet").fitted
    True
    """
    folder = LAWS / str(name) if (LAWS / str(name) / "law.json").is_file() else Path(name)
    if not (folder / "law.json").is_file():
        raise FileNotFoundError(
            f"{folder} holds no law.json; expected a folder written by 'avse-ppl predictors fit'"
        )
    config = read_json(folder / "law.json", "error law of this library")
    law = ErrorLaw(bool(config.get("fitted", False)))
    load_tensors(law, folder / "law.safetensors", "an error law")
    return law


def has_shipped_law(name: str) -> bool:
    """Whether the library ships an error law of that predictor.

    Examples
    --------
    >>> has_shipped_law("nobody")
    False
    """
    return (LAWS / name / "law.json").is_file()


def make_features(mixture: Tensor, predicted: Tensor, stft: Stft) -> Tensor:
    """Features of each bin, ``(recording, freq, time, feature)``, of STFTs in units of the mixture.

    Parameters
    ----------
    mixture, predicted
        ``(recording, freq, time)``, complex.
    stft
        Their front end.
    """
    removed = mixture - predicted
    kept, heard, gone = (v.real.square() + v.imag.square() for v in (predicted, mixture, removed))

    def compress(power: Tensor) -> Tensor:
        return 0.25 * (power + _FLOOR).log()

    shape = mixture.shape
    freq = torch.linspace(0.0, 1.0, shape[1], device=mixture.device, dtype=kept.dtype)
    nyquist_hz = 0.5 * stft.sample_rate_hz
    mel = torch.log1p(freq * nyquist_hz / 700.0) / math.log1p(nyquist_hz / 700.0)
    columns = [
        compress(kept), compress(smooth(kept, 3, 3)), compress(smooth(heard, 3, 3)),
        compress(smooth(gone, 3, 3)), compress(gone),
        *(compress(smooth(power, 9, 9)) for power in (kept, heard, gone)),
        compress(smooth(kept, 3, 31)), compress(smooth(gone, 3, 31)),
        compress(kept.mean(2, keepdim=True)), compress(gone.mean(2, keepdim=True)),
        compress(kept.mean((1, 2), keepdim=True)), compress(gone.mean((1, 2), keepdim=True)),
        freq[:, None], mel[:, None],
    ]  # fmt: skip
    return torch.stack([column.expand(shape) for column in columns], -1)


def compute_base(features: Tensor) -> Tensor:
    """Log power of the error of a predictor of usual quality, from the features of each bin."""
    kept, removed = 4.0 * features[..., 1], 4.0 * features[..., 3]
    return torch.logaddexp(kept + math.log(_KEPT), removed + math.log(_REMOVED))


def smooth(power: Tensor, over_freq: int, over_time: int) -> Tensor:
    """Average over odd numbers of bins and frames, the edges repeated."""
    f, t = over_freq // 2, over_time // 2
    padded = pad(power[:, None], (t, t, f, f), mode="replicate")
    return avg_pool2d(padded, (over_freq, over_time), 1)[:, 0]
