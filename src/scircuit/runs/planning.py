"""What the trace of a run will take, before it runs."""

from scircuit.config import RunConfig
from scircuit.features.catalogue import Catalogue
from scircuit.runs.checks import check_inputs
from scircuit.runs.run import Run
from scircuit.runs.tokens import check_cells
from scircuit.runs.trace import traced
from scircuit.tracing.plan import Plan, plan_trace


def plan(config: RunConfig) -> Plan:
    """Forwards, multiply-adds, memory, disk and time of the run's trace; nothing is written.

    Raises
    ------
    ScircuitError
        When tokens, dictionaries or features are not there yet (the sources are chosen from them), or as the trace.
    """
    folder = Run.open(config)
    for name in ("tokens", "saes", "features"):
        folder.need(name)
    setup = folder.setup()
    check_cells(config)
    check_inputs(config, setup.model)
    features = Catalogue.read(folder.stage("features")).features
    return plan_trace(traced(config, setup, features))
