"""A flow distilled to few calls of the denoiser, against its teacher's and shorter ones untrained.

Give the folder of a student, written by ``avse-ppl train latent-diffusion --distil``, and name the
parts to run (flows, svi) or run both; each prints as it goes.
"""

from __future__ import annotations

import argparse
import copy
import warnings
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from common import SHARED, mean_scores, quality, row, score, timed
from torch import Tensor

from avse_ppl import NMF, SVI, Scene, Stft, load_speech
from avse_ppl.data import dev_manifest, realise
from avse_ppl.models.networks.distilled_flow import FewCallsNetwork
from avse_ppl.models.weights.io import PRETRAINED, load_network, load_shared

DRAWS, FRAMES = 4, 160  # of white noise, and their length, 2.6 s
TEACHER = "latent-diffusion"


def priors(folder: Path) -> dict[str, Any]:
    """Teacher, its flow with fewer steps of either rule, and student, as speech priors."""
    teacher: Any = load_speech(TEACHER)
    student: Any = load_speech(folder)
    calls = student.network.calls
    found = {"teacher, Heun, 12 calls": teacher}
    for steps in sorted({4, max(1, calls // 2)}, reverse=True):
        shorter = copy.deepcopy(teacher.network)
        shorter.steps = steps
        found[f"teacher, Heun, {2 * steps} calls"] = replace(teacher, network=shorter)
    network, config = load_network(PRETRAINED / TEACHER)
    untrained = FewCallsNetwork(Stft().freq, **config["settings"], calls=calls)
    load_shared(untrained, network)
    untrained.eval().requires_grad_(False)
    found[f"teacher, Euler, {calls} calls"] = replace(teacher, network=untrained)
    found[f"student, {calls} calls"] = student
    return found


def mixtures() -> list[Any]:
    """Nine mixtures of the development set, all at -5 dB."""
    return [realise(entry, SHARED / "data") for entry in dev_manifest(SHARED / "data")[::12]]


def clean_latents(network: Any) -> list[Tensor]:
    """What the encoder finds in the speech of those mixtures, ``(1, latent, time)`` each."""
    found = []
    for mixture in mixtures():
        values = Stft().forward(torch.from_numpy(mixture.speech)[None].float())
        power = values.real.square() + values.imag.square()
        found.append(network.infer(power / power.mean())[0])
    return found


def rms(x: Tensor) -> float:
    """Root mean square."""
    return float(x.square().mean().sqrt())


def flows(folder: Path) -> Iterator[str]:
    """How far the end points are from the teacher's, and how far each map inverts."""
    yield row("flow", "z of white u, gap in sd", "z of speech's u", "u of white z, gap in sd",
              "z of speech, there and back", "CPU ms for 1 s of audio")  # fmt: skip
    yield row(*["---"] * 6)
    some = priors(folder)
    teacher = some["teacher, Heun, 12 calls"].network
    torch.manual_seed(0)
    white = torch.randn(DRAWS, teacher.latent, FRAMES)
    latents = clean_latents(teacher)
    speech = [teacher.innovations(z) for z in latents]
    ends, spoken = teacher.latents(white), [teacher.latents(u) for u in speech]
    for name, prior in some.items():
        flow = prior.network
        made, _, cpu_s = timed(lambda f=flow: f.latents(white))
        gap = rms(made - ends) / rms(ends)
        again = [flow.latents(u) for u in speech]
        far = rms(torch.cat([(a - b)[0] for a, b in zip(again, spoken, strict=True)], -1))
        far /= rms(torch.cat([z[0] for z in spoken], -1))
        back = rms(flow.innovations(made) - white)
        round_trip = [(flow.latents(flow.innovations(z)) - z)[0] for z in latents]
        trip = rms(torch.cat(round_trip, -1)) / rms(torch.cat([z[0] for z in latents], -1))
        cost_ms = 1000 * cpu_s / (DRAWS * FRAMES * 256 / 16000)
        yield row(name, *(f"{x:.3f}" for x in (gap, far, back, trip)), f"{cost_ms:.0f}")


def svi(folder: Path) -> Iterator[str]:
    """SI-SDR, PESQ and ESTOI by SVI through each flow, and what it costs."""
    yield row("prior", "SI-SDR / PESQ / ESTOI", "CPU s for 1 s of audio")
    yield row(*["---"] * 3)
    some = mixtures()
    routine = SVI(steps=13, waveforms=False, moment_draws=20, k_hat_draws=0)
    seconds = sum(len(m.mixture) for m in some) / 16000
    yield row("(input)", quality(mean_scores([score(m.speech, m.mixture) for m in some])), 0)
    for name, prior in {"tcvae": load_speech("tcvae"), **priors(folder)}.items():
        scene = Scene(prior, NMF(2))
        found, _, cpu_s = timed(
            lambda s=scene: [routine(s, m.mixture, seed=0).enhance() for m in some]
        )
        scores = [score(m.speech, estimate) for m, estimate in zip(some, found, strict=True)]
        yield row(name, quality(mean_scores(scores)), f"{cpu_s / seconds:.2f}")


def main() -> None:
    """Print the tables that were asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("student", type=Path, help="folder of the distilled prior")
    parser.add_argument("parts", nargs="*", default=["flows", "svi"])
    asked = parser.parse_args()
    warnings.simplefilter("ignore", UserWarning)
    torch.set_num_threads(1)
    makes = {"flows": flows, "svi": svi}
    for part in asked.parts:
        with torch.set_grad_enabled(part == "svi"):
            for line in makes[part](asked.student):
                print(line, flush=True)
        print()


if __name__ == "__main__":
    main()
