"""The documentation's site: `make docs` builds it from the Markdown here."""

project = "perfkit"
project_copyright = "the perfkit authors"
extensions = ["myst_parser"]
source_suffix = {".md": "markdown"}
myst_enable_extensions = ["colon_fence"]
myst_heading_anchors = 3
html_theme = "furo"
html_title = "perfkit"
html_static_path: list[str] = []
# Indented blocks are commands, not Python.
highlight_language = "text"
