"""Sparse autoencoders: variants, training, files, quality. Tensors in, tensors out."""

from scircuit.sae.adapter import as_sae, as_saes
from scircuit.sae.base import LinearSAE, SaeConfig, SparseAutoencoder, require_traceable
from scircuit.sae.checkpoint import load_saes, read_manifest, save_saes
from scircuit.sae.jumprelu import JumpReLUSAE
from scircuit.sae.latents import Latents
from scircuit.sae.metrics import QualityAccumulator, SaeQuality, loss_recovered
from scircuit.sae.mixing import mix
from scircuit.sae.readers import read_sae, read_saes
from scircuit.sae.settings import SaeTraining
from scircuit.sae.stability import Stability, one_gene_share, stability, top_gene_share
from scircuit.sae.topk import TopKSAE
from scircuit.sae.training import train_many, train_saes

__all__ = [
    "JumpReLUSAE",
    "Latents",
    "LinearSAE",
    "QualityAccumulator",
    "SaeConfig",
    "SaeQuality",
    "SaeTraining",
    "SparseAutoencoder",
    "Stability",
    "TopKSAE",
    "as_sae",
    "as_saes",
    "load_saes",
    "loss_recovered",
    "mix",
    "one_gene_share",
    "read_manifest",
    "read_sae",
    "read_saes",
    "require_traceable",
    "save_saes",
    "stability",
    "top_gene_share",
    "train_many",
    "train_saes",
]
