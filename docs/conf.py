# SPDX-License-Identifier: Apache-2.0
"""Settings of Sphinx, for `make docs`."""

import importlib.metadata
import os
import subprocess
import sys

from docutils import nodes
from docutils.parsers.rst import Directive

project = "Heddle"
copyright = "the Heddle authors"
release = importlib.metadata.version("heddle-fpga")
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
exclude_patterns = ["_build"]
myst_heading_anchors = 3
templates_path: list[str] = []

html_theme = "furo"
html_title = f"Heddle {release}"
html_static_path = ["_static"]
html_css_files = ["tables.css"]
html_show_sphinx = False

# The reference follows the code: what `__all__` names is shown, in the order of the source, with
# the types of the annotations.
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_preserve_defaults = True
napoleon_google_docstring = False
napoleon_use_ivar = True


class Commands(Directive):
    """``{commands}``: every command of the command line with the help that it prints."""

    def run(self) -> list[nodes.Node]:
        from typer.main import get_command

        from heddle.cli import app

        environment = os.environ | {"COLUMNS": "88", "TERM": "dumb"}
        sections = []
        for name in ("", *get_command(app).commands):
            command = [*filter(None, ["heddle", name]), "--help"]
            # As a process of its own: commands of other parts print and leave by themselves.
            text = subprocess.run([sys.executable, "-P", "-m", *command], env=environment,
                                  capture_output=True, text=True, check=True).stdout
            title = " ".join(command[:-1])
            section = nodes.section(ids=[nodes.make_id(f"help-{title}")], names=[f"help {title}"])
            section += nodes.title(text=title)
            section += nodes.literal_block(text, text.rstrip(), language="text")
            sections.append(section)
        return sections


#: Comments on attributes before Napoleon, which takes what is before a colon for a type.
_COMMENTS: dict[str, list[str]] = {}


def _keep(app, what, name, obj, options, lines) -> None:
    if what in ("attribute", "data"):
        _COMMENTS[name] = list(lines)


def _restore(app, what, name, obj, options, lines) -> None:
    if name in _COMMENTS:
        lines[:] = _COMMENTS.pop(name)


def setup(app) -> None:
    """Called by Sphinx."""
    app.add_directive("commands", Commands)
    app.connect("autodoc-process-docstring", _keep, priority=400)       # Napoleon has 500
    app.connect("autodoc-process-docstring", _restore, priority=600)
