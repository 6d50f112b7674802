"""Torch modules of the learned priors: plain functions of tensors, no probability in them."""

from avse_ppl.models.networks.dynamic import DynamicNetwork
from avse_ppl.models.networks.lips import LipsNetwork
from avse_ppl.models.networks.rvae import RvaeNetwork
from avse_ppl.models.networks.tcvae import TcvaeNetwork
from avse_ppl.models.networks.vae import VaeNetwork

__all__ = ["DynamicNetwork", "LipsNetwork", "RvaeNetwork", "TcvaeNetwork", "VaeNetwork"]
