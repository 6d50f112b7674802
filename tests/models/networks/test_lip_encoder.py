"""The visual encoder, its way to speech frames, and variations of mouth crops."""

import numpy as np
import pytest
import torch

from avse_ppl.models.networks.lip_encoder import LipEncoder, downsample_crops, resample_features
from avse_ppl.models.weights.io import load_lip_encoder, save_lip_encoder
from avse_ppl.training.augment import augment_crops


def test_features_of_each_picture():
    network = LipEncoder(features=6, width=4).eval()
    crops = torch.randint(0, 255, (2, 7, 88, 88), dtype=torch.uint8)
    assert network(crops).shape == (2, 6, 7)
    assert torch.equal(network(crops), network.encode_downsampled(downsample_crops(crops)))


def test_frames_lie_between_pictures():
    features = torch.arange(5.0)[None, None]  # picture k has the value k
    time_s = torch.tensor([0.0, 0.02, 0.1, 0.16])
    gate, value = resample_features(features, torch.ones(1, 5), time_s)[0]
    assert gate.tolist() == [1.0] * 4
    assert torch.allclose(value, torch.tensor([0.0, 0.5, 2.5, 4.0]))


def test_a_missing_picture_closes_the_gate_on_both_its_sides():
    present = torch.ones(1, 5)
    present[0, 2] = 0.0
    time_s = torch.arange(10) * 0.02
    gate = resample_features(torch.ones(1, 3, 5), present, time_s)[0, 0]
    assert gate.tolist() == [1, 1, 1, 0, 0, 0, 1, 1, 1, 1]


def test_nothing_is_seen_past_the_last_picture_or_without_any():
    time_s = torch.tensor([0.0, 0.19, 0.2, 1.0])
    assert resample_features(torch.ones(1, 3, 5), torch.ones(1, 5), time_s)[0, 0].tolist() == [
        1,
        1,
        0,
        0,
    ]
    assert not resample_features(torch.ones(1, 3, 0), torch.ones(1, 0), time_s).any()


def test_weights_come_back(tmp_path):
    network = LipEncoder(features=6, width=4).eval()
    save_lip_encoder(tmp_path, network, name="small", card={"licence": "none"})
    again, config = load_lip_encoder(tmp_path)
    crops = torch.randint(0, 255, (1, 3, 88, 88), dtype=torch.uint8)
    assert torch.equal(again(crops), network(crops))
    assert config["use"] == "lips"
    assert "Visual encoder" in (tmp_path / "README.md").read_text()


def test_other_weights_are_no_visual_encoder():
    with pytest.raises(ValueError, match="expected 'lips'"):
        load_lip_encoder("tcvae")


def test_crops_vary_by_the_seed_and_stay_pictures():
    images = downsample_crops(torch.randint(0, 255, (3, 4, 88, 88), dtype=torch.uint8))
    one, same, other = (augment_crops(images, torch.Generator().manual_seed(s)) for s in (1, 1, 2))
    assert torch.equal(one, same)
    assert not torch.allclose(one, other)
    assert one.shape == images.shape
    assert bool(one.isfinite().all())
    assert float(one.abs().max()) < 10


def test_a_clips_pictures_vary_together():
    still = downsample_crops(torch.randint(0, 255, (1, 1, 88, 88), dtype=torch.uint8)).expand(
        1, 6, 44, 44
    )
    varied = augment_crops(still, torch.Generator().manual_seed(3))[0]
    between = np.std((varied - varied.mean(0)).numpy())
    assert between < 0.2  # the grain only
