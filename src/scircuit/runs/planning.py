"""What the trace of a run will take, before it runs."""

from scircuit.cells.tokens import TokenStore
from scircuit.config import RunConfig
from scircuit.features.catalogue import Catalogue
from scircuit.runs.checks import check_inputs
from scircuit.runs.inputs import open_model, open_saes, trace_settings
from scircuit.runs.probe import extra_interventions
from scircuit.runs.run import RunFolder
from scircuit.runs.tokens import check_cells, traced_cells
from scircuit.runs.trace import source_latents
from scircuit.tracing.plan import Plan, plan_trace


def plan(config: RunConfig) -> Plan:
    """Forwards, multiply-adds, memory, disk and time of the run's trace; nothing is written.

    Raises
    ------
    ScircuitError
        When tokens, dictionaries or features are not there yet (the sources are chosen from them), or as the trace.
    """
    folder = RunFolder.open(config)
    for name in ("tokens", "saes", "features"):
        folder.need(name)
    model = open_model(config)
    check_cells(config)
    check_inputs(config, model)
    store = TokenStore.read(folder.stage("tokens"))
    saes = open_saes(folder.stage("saes"), model)
    features = Catalogue.read(folder.stage("features")).features
    sources = source_latents(config, features, sorted(saes))
    cells = traced_cells(store, config)
    extra = extra_interventions(config, model, saes, cells, features, sources)
    return plan_trace(model, saes, cells, sources, settings=trace_settings(config), extra=extra)
