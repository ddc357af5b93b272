# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
How Sphinx builds these pages, and pydoctor the reference beside them.
"""

import sys
from importlib import metadata
from pathlib import Path

HERE = Path(__file__).parent
CHECKOUT = HERE.parent

# For inventories.py here, and reference.py, which pydoctor imports.
sys.path.insert(0, str(HERE))

import inventories  # noqa: E402

project = "twisted_heartbeat"
author = "twisted_heartbeat contributors"
copyright = author
release = metadata.version(project)

extensions = ["myst_parser", "sphinx.ext.intersphinx", "pydoctor.sphinx_ext.build_apidocs"]
myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 3
exclude_patterns = ["_build"]
html_theme = "furo"
html_title = f"{project} {release}"
html_static_path = ["_static"]
html_css_files = ["brand.css"]

# Written, not fetched: the documentation builds without a network.
_external = {
    inventory: inventories.write(HERE / "_build" / f"{inventory.project}.inv", inventory)
    for inventory in inventories.ALL
}
intersphinx_mapping = {
    inventory.project: (inventory.url, str(path)) for inventory, path in _external.items()
}

pydoctor_url_path = "api/"
pydoctor_args = [
    f"--project-name={project}",
    f"--project-version={release}",
    f"--project-base-dir={CHECKOUT}",
    "--system-class=reference.System",
    "--docformat=epytext",
    "--theme=readthedocs",
    "--html-output={outdir}/api",
    "--warnings-as-errors",
    *(f"--intersphinx-file={path}::{inv.url}" for inv, path in _external.items()),
    str(CHECKOUT / project),
]
