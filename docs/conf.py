# SPDX-License-Identifier: Apache-2.0
"""Settings of Sphinx, for `make docs`."""

project = "Heddle"
copyright = "the Heddle authors"
extensions = ["myst_parser"]
exclude_patterns = ["_build"]
myst_heading_anchors = 3
html_theme = "alabaster"
html_theme_options = {"page_width": "70em", "description": "GPT cards for FPGAs with HBM"}
