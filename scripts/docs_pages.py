"""Pages of the site that are written from the code: questions, glossary, settings, commands, public names.

A hook of MkDocs; nothing that a docstring, a setting or a question says is said a second time.
"""

import re
from typing import Any

import typer
from mkdocs.structure.files import File, Files
from typer.cli import get_docs_for_click

import scircuit
from scircuit.analysis.question import Question
from scircuit.analysis.registry import every_question
from scircuit.analysis.result import GLOSSARY
from scircuit.cli.app import app
from scircuit.config_file import template


def on_files(files: Files, config: Any) -> Files:
    """Add the written pages."""
    pages = {
        "questions.md": questions_page(),
        "glossary.md": glossary_page(),
        "settings.md": settings_page(),
        "commands.md": commands_page(),
        "api.md": api_page(),
    }
    for name, content in pages.items():
        files.append(File.generated(config, name, content=content))
    return files


def questions_page() -> str:
    """What a circuit can be asked."""
    text = "# Questions\n\n`scircuit analyze NAME RUN`, `run.ask(NAME)`; a figure of each is `scircuit.pl.NAME(run)`.\n"
    return text + "".join(map(_question, every_question().values()))


def _question(asked: Question) -> str:
    lines = [f"\n## {asked.name}\n", f"**{asked.title}.** {asked.asks}\n"]
    lines.append(f"- Definition: {asked.definition}")
    if asked.null_model:
        lines.append(f"- Null: {asked.null_model}")
    lines.append(f"- Figure: {asked.marks}")
    said = [asked.glossary, *(GLOSSARY[term] for term in asked.terms if term in GLOSSARY)]
    lines += [f"- {sentence[0].upper()}{sentence[1:]}" for sentence in said if sentence]
    numbers = [f"| `{name}` | {words} |" for name, words in asked.words.items()]
    if numbers:
        lines += ["\n| number | what it is |", "|---|---|", *numbers]
    return "\n".join(lines) + "\n"


def glossary_page() -> str:
    """Words of the report."""
    entries = (sentence.partition(": ") for sentence in GLOSSARY.values())
    return "# Glossary\n\n" + "\n".join(f"- **{word}**: {meaning}" for word, _, meaning in entries) + "\n"


def settings_page() -> str:
    """Every setting with its default, as `scircuit init` writes it."""
    lead = "What `scircuit init FILE` writes: every setting, its default and what it does."
    return f"# Settings\n\n{lead}\n\n```toml\n{template()}```\n"


def commands_page() -> str:
    """The help of every command."""
    command = typer.main.get_command(app)
    text = get_docs_for_click(obj=command, ctx=typer.Context(command), name="scircuit", title="Commands")
    return re.sub(r"<([A-Z_]+)>", r"&lt;\1&gt;", text)


def api_page() -> str:
    """Every public name with its docstring."""
    text = "# Python\n\nEvery public name of `scircuit`, and the rooms `scircuit.tl` and `scircuit.pl` for notebooks.\n"
    for name in scircuit.__all__:
        if name != "__version__":
            where = f"scircuit.{name}" if name in ("pl", "tl") else f"scircuit.{scircuit._NAMES[name]}.{name}"
            text += f"\n::: {where}\n"
    return text
