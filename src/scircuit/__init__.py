"""Causal circuits between sparse-autoencoder features inside single-cell foundation models.

Every public name is listed here and loaded when first used; `import scircuit` alone imports neither torch nor
pandas.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from scircuit._version import __version__

_NAMES = {
    "Circuit": "circuits.circuit",
    "EdgeRule": "circuits.rule",
    "FoundationModel": "models.base",
    "HookedModel": "models.hooked",
    "Intervention": "tracing.engines.interventions",
    "Latents": "sae.latents",
    "Run": "runs.run",
    "RunConfig": "config",
    "SaeTraining": "sae.settings",
    "ScircuitError": "errors",
    "TokenBatch": "cells.batch",
    "TokenStore": "cells.tokens",
    "TraceSettings": "tracing.settings",
    "build_catalogue": "features.catalogue",
    "build_circuit": "circuits.build",
    "check_adapter": "models.parity",
    "demo": "runs.demo",
    "doctor": "health",
    "enrich": "features.enrichment",
    "gene_rows": "models.stream",
    "label_features": "features.labels",
    "list_checkpoints": "models.registry",
    "load_config": "config_file",
    "load_model": "models.load",
    "load_saes": "sae.checkpoint",
    "load_study": "study.config",
    "measure_quality": "features.quality",
    "packaged_programs": "knowledge.gmt",
    "parse_config": "config_file",
    "plan_study": "study.plan",
    "read_gmt": "knowledge.gmt",
    "residuals": "models.stream",
    "run": "runs.stages",
    "run_study": "study.run",
    "save_saes": "sae.checkpoint",
    "select_sources": "features.sources",
    "tokenize": "cells.tokens",
    "trace": "tracing.tracer",
    "train_saes": "sae.training",
    "write_report": "report.page",
}

_MODULES = ("pl", "tl")
"""Figures, and tools that leave their results in an AnnData."""

__all__ = ["__version__", *sorted([*_NAMES, *_MODULES])]

if TYPE_CHECKING:
    from scircuit import pl, tl
    from scircuit.cells.batch import TokenBatch
    from scircuit.cells.tokens import TokenStore, tokenize
    from scircuit.circuits.build import build_circuit
    from scircuit.circuits.circuit import Circuit
    from scircuit.circuits.rule import EdgeRule
    from scircuit.config import RunConfig
    from scircuit.config_file import load_config, parse_config
    from scircuit.errors import ScircuitError
    from scircuit.features.catalogue import build_catalogue
    from scircuit.features.enrichment import enrich
    from scircuit.features.labels import label_features
    from scircuit.features.quality import measure_quality
    from scircuit.features.sources import select_sources
    from scircuit.health import doctor
    from scircuit.knowledge.gmt import packaged_programs, read_gmt
    from scircuit.models.base import FoundationModel
    from scircuit.models.hooked import HookedModel
    from scircuit.models.load import load_model
    from scircuit.models.parity import check_adapter
    from scircuit.models.registry import list_checkpoints
    from scircuit.models.stream import gene_rows, residuals
    from scircuit.report.page import write_report
    from scircuit.runs.demo import demo
    from scircuit.runs.run import Run
    from scircuit.runs.stages import run
    from scircuit.sae.checkpoint import load_saes, save_saes
    from scircuit.sae.latents import Latents
    from scircuit.sae.settings import SaeTraining
    from scircuit.sae.training import train_saes
    from scircuit.study.config import load_study
    from scircuit.study.plan import plan_study
    from scircuit.study.run import run_study
    from scircuit.tracing.engines.interventions import Intervention
    from scircuit.tracing.settings import TraceSettings
    from scircuit.tracing.tracer import trace


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return import_module(f"scircuit.{name}")
    if name not in _NAMES:
        raise AttributeError(f"module 'scircuit' has no attribute {name!r}")
    return getattr(import_module(f"scircuit.{_NAMES[name]}"), name)


def __dir__() -> list[str]:
    return list(__all__)
