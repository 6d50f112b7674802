"""Torch modules of the learned priors: plain functions of tensors, no probability in them."""

from avse_ppl.models.networks.lip_encoder import LipEncoder
from avse_ppl.models.networks.rvae import RvaeNetwork
from avse_ppl.models.networks.sequential import SequentialVaeNetwork
from avse_ppl.models.networks.tcvae import TcvaeNetwork
from avse_ppl.models.networks.vae import VaeNetwork

__all__ = ["LipEncoder", "RvaeNetwork", "SequentialVaeNetwork", "TcvaeNetwork", "VaeNetwork"]
