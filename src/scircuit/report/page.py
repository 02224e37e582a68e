"""The report: one HTML file that opens from disk, with its figures, its data and its script inside."""

from collections.abc import Container, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

from scircuit._io import atomic
from scircuit._version import __version__
from scircuit.analysis.answers import Answer
from scircuit.analysis.positive_control import seen
from scircuit.circuits.artefacts import Artefacts
from scircuit.circuits.grades import nothing_specific
from scircuit.circuits.specificity import is_decoy
from scircuit.report import provenance, sections
from scircuit.report.answers import UNANSWERED, answers
from scircuit.report.blocks import Section, slug
from scircuit.report.carried import packed
from scircuit.report.comparison import comparison_sections, read_comparison
from scircuit.report.engine import engine_sections
from scircuit.report.reading import named
from scircuit.report.script import script
from scircuit.report.validation import screen_sections
from scircuit.report.verdicts import verdicts

TEMPLATES = files("scircuit.report") / "templates"


def write_report(
    out: str | Path,
    runs: Sequence[str | Path | Artefacts],
    comparison: str | Path | None = None,
    first: Sequence[Section] = (),
    grade: str | None = None,
) -> Path:
    """Write `index.html` into the folder `out`: one run, or several side by side.

    Parameters
    ----------
    out
        Folder of the report; made when it is not there. An `index.html` in it is replaced.
    runs
        The runs or their folders, in the order in which they stand on the page. Nothing is computed: what they were
        not asked (`scircuit.Run.ask`, `scircuit analyze`) is not on it.
    comparison
        Folder of a comparison of these runs (`runs.compare.compare`), which gets its own sections.
    first
        Sections of the caller's, ahead of those of the runs.
    grade
        Show the wider circuit of this grade (`reproducible`, `sizeable`) in picture and tables. Answers stay those that
        the runs were asked for.

    Returns
    -------
    Path
        The file written. The same artefacts give the same bytes.

    Raises
    ------
    ScircuitError
        When there is no run, two runs share a name, or an artefact is missing or does not fit.
    """
    opened = named(runs)
    if grade is not None:
        opened = [run.showing(grade) for run in opened]
    path = Path(out) / "index.html"
    page = _render(opened, () if comparison is None else read_comparison(comparison), first)
    with atomic(path) as temporary:
        temporary.write_text(page, encoding="utf-8")
    return path


def page_sections(runs: Sequence[Artefacts], comparison: Sequence[Answer] = ()) -> list[Section]:
    """The sections of the page in their order."""
    return [
        sections.picture(runs),
        sections.strongest_edges(runs),
        sections.layer_pairs(runs),
        sections.sources(runs),
        *answers(runs),
        *comparison_sections(comparison),
        *screen_sections(runs),
        *engine_sections(runs),
        sections.sae_quality(runs),
    ]


def _render(runs: Sequence[Artefacts], comparison: Sequence[Answer] = (), first: Sequence[Section] = ()) -> str:
    from jinja2 import Environment, FunctionLoader, StrictUndefined

    environment = Environment(
        loader=FunctionLoader(lambda name: (TEMPLATES / name).read_text(encoding="utf-8")),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.policies["json.dumps_kwargs"] = {"allow_nan": False, "separators": (",", ":")}
    sections = page_sections(runs, comparison)
    return environment.get_template("page.html").render(
        version=__version__,
        runs=[run_facts(run, {section.id for section in sections}) for run in runs],
        overview=provenance.overview_table(runs),
        record=provenance.record_table(runs),
        first=first,
        sections=sections,
        has_controls=any(is_decoy(run.circuit().tests).any() for run in runs),
        data={slug(run.name): {"name": run.name, "packed": packed(run, len(runs))} for run in runs},
        style=(TEMPLATES / "style.css").read_text(encoding="utf-8"),
        script=script(),
    )


def run_facts(run: Artefacts, places: Container[str]) -> dict[str, Any]:
    """What the first screen says of a run; `places` are the ids of the sections to which it may lead."""
    told = [v if v.place in places else v._replace(place=UNANSWERED) for v in verdicts(run)]
    return {
        "name": run.name,
        "tested": provenance.tested(run),
        "said": nothing_specific(run.provenance(), seen(run.root)),
        "grades": provenance.grade_rows(run),
        "verdicts": [verdict for verdict in told if not verdict.refused],
        "unanswered": [verdict for verdict in told if verdict.refused],
        "facts": [fact for fact in provenance.headline(run) if fact.n != provenance.NOT_ASKED],
    }
