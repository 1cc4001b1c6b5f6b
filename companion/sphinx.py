"""The Sphinx extension of the book.

A built page loads nothing from another host. The charts' JavaScript is bundled once, MathJax is copied beside it, and
every chart has a static twin for print and for readers without JavaScript.
"""

import dataclasses
import functools
import hashlib
import html
import importlib.metadata
import json
import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

from docutils import nodes
from sphinx.ext import viewcode
from sphinx.util import logging
from sphinx.util.docutils import SphinxRole

import cpadapt
from companion import PROJECT, quantities, statements
from cpadapt.analysis.charts import VEGA_LITE_MIME
from cpadapt.errors import InputError

log = logging.getLogger(__name__)

SCRIPTS = {
    "chart": "charts.bundle.js",
    "linked-frontier": "linked_frontier.js",
    "planner": "planner.js",
    "stepper": "stepper.js",
    "three-seeds": "three_seeds.js",
}
"""The scripts that pages load for their elements, by the elements' class."""

VEGA_LITE = "6.4"
"""The version of Vega-Lite that draws the charts here, as in Altair; notebooks name an older one for JupyterLab."""

STATIC_WIDTH = 640
"""The width of a chart's static twin in pixels; the live chart is as wide as its column."""


def draw_charts(app: Any, page: str, source: list[str]) -> None:
    """Give each chart of an executed notebook its figure in HTML, before Sphinx reads the page.

    MyST-NB takes a renderer of Vega-Lite only from an entry point, which would affect every book of the environment.

    Args:
        app: Sphinx's application.
        page: the page's name.
        source: a list with the page's text, which is replaced in place.
    """
    if app.env.doc2path(page).endswith(".ipynb"):
        notebook = json.loads(source[0])
        for cell in notebook["cells"]:
            for output in cell.get("outputs", ()):
                data = output.get("data", {})
                if VEGA_LITE_MIME in data:
                    data["text/html"] = figure(data.pop(VEGA_LITE_MIME))  # MyST-NB does not know this type
        source[0] = json.dumps(notebook)


def still(spec: dict[str, Any], width: int = STATIC_WIDTH) -> str:
    """A chart as static SVG, with text and lines in `currentColor`; of several side by side each has that width."""
    import vl_convert

    def fixed(chart: dict[str, Any]) -> dict[str, Any]:
        return {**chart, "width": width} if chart.get("width") == "container" else chart

    if "concat" in spec:
        spec = {**spec, "concat": [fixed(each) for each in spec["concat"]]}
    drawn: str = vl_convert.vegalite_to_svg(fixed(spec), vl_version=VEGA_LITE)
    return drawn


SMALL_WIDTH = 320
"""The same of a chart that is one of several side by side."""


def figure(spec: dict[str, Any], width: int = STATIC_WIDTH) -> str:
    """A chart in a page, with its static twin and its specification, from which `book/assets/charts.js` draws it.

    Of several charts that are concatenated each is drawn for itself, so that a phone has them one below the other.
    They have no parameters, which Altair would keep for all of them.
    """
    if "concat" in spec:
        alone = {"concat", "columns", "description", "resolve"}
        shared = {name: value for name, value in spec.items() if name not in alone}
        label = html.escape(spec.get("description", ""), quote=True)
        drawn = "".join(figure({**shared, **each, "width": "container"}, SMALL_WIDTH) for each in spec["concat"])
        return f'<figure class="charts" role="group" aria-label="{label}">{drawn}</figure>'
    spec = {**spec, "$schema": f"https://vega.github.io/schema/vega-lite/v{VEGA_LITE}.json"}
    drawn = still(spec, width)
    # Several drawings share a page, so their internal names must differ.
    mark = hashlib.sha256(drawn.encode()).hexdigest()[:8]
    drawn = re.sub(r'(id="|url\(#)(clip|gradient)', rf"\g<1>{mark}-\2", drawn)
    label = html.escape(spec.get("description", ""), quote=True)
    # An end tag within the data would end the script element.
    data = json.dumps(spec, separators=(",", ":")).replace("</", "<\\/")
    return (
        f'<figure class="chart" role="group" aria-label="{label}"><div class="chart-live"></div>'
        f'<div class="chart-still">{drawn}</div><script type="application/json">{data}</script></figure>'
    )


def pictures() -> dict[str, str]:
    """The README's picture, which is the first page's figure, as SVG for light and dark, by file name."""
    from companion import model_size
    from cpadapt.analysis import charts

    charts.enable()
    # Room for names that another font than ours makes longer.
    spec = {**model_size.first_chart().to_dict(), "padding": {"left": 20, "top": 5, "right": 5, "bottom": 5}}
    drawn = still(spec, SMALL_WIDTH)
    inks = {"light": "#1f2328", "dark": "#e6edf3"}
    return {f"gains-{scheme}.svg": drawn.replace("currentColor", ink) + "\n" for scheme, ink in inks.items()}


def repository() -> tuple[str, str] | None:
    """Address and branch of the repository on GitHub, from GitHub's runner or from git's origin; else `None`."""
    if name := os.environ.get("GITHUB_REPOSITORY"):
        return f"https://github.com/{name}", os.environ.get("GITHUB_REF_NAME", "main")
    command = ["git", "-C", str(PROJECT), "remote", "get-url", "origin"]
    try:
        origin = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None
    match = re.fullmatch(r"(?:https://github\.com/|git@github\.com:)([\w.-]+/[\w.-]+?)(?:\.git)?/?", origin)
    return (f"https://github.com/{match[1]}", "main") if match else None


def _link_repository(app: Any, config: Any) -> None:
    """Add buttons to the repository and to Binder, if the repository is on GitHub."""
    options = config.html_theme_options
    if found := repository():
        address, branch = found
        options |= {
            "repository_url": address,
            "repository_branch": branch,
            "use_repository_button": True,
            "use_issues_button": True,
        }
    else:
        options.pop("launch_buttons", None)


@functools.cache
def _state() -> str:
    """Which version of the book this is: cpadapt's, and the commit with its date."""
    command = ["git", "-C", str(PROJECT), "log", "-1", "--format=commit %h of %cs"]
    try:
        commit = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        commit = "no commit known"
    return f"cpadapt {cpadapt.__version__}, {commit}. Apache-2.0."


def _say_state(app: Any, pagename: str, templatename: str, context: dict[str, Any], doctree: Any) -> None:
    """Say it below every page. As a theme's option, with each commit all pages would have to be written anew."""
    context["theme_extra_footer"] = _state()


def _write_scripts(app: Any) -> None:
    import mathjax
    import vl_convert

    if app.builder.format != "html":
        return
    static = Path(app.outdir) / "_static"
    (static / "mathjax").mkdir(parents=True, exist_ok=True)
    source = Path(mathjax.__file__).parent / "static/mathjax/es5/tex-svg-full.js"
    shutil.copyfile(source, static / "mathjax" / source.name)
    snippet, made = (PROJECT / "book/assets/charts.js").read_text(encoding="utf-8"), static / "charts.bundle.js"
    given = f"{snippet} {VEGA_LITE} {importlib.metadata.version('vl-convert-python')}"
    mark = f"// {hashlib.sha256(given.encode()).hexdigest()}\n"
    if made.exists() and made.read_text(encoding="utf-8").startswith(mark):
        return
    bundle = vl_convert.javascript_bundle(snippet, vl_version=VEGA_LITE)
    # Wrapped in a function, because its names would otherwise be global in the page.
    made.write_text(f"{mark}(() => {{{bundle}}})();\n", encoding="utf-8")


def _spare_code_pages(app: Any, env: Any) -> None:
    """Leave out viewcode's pages where each is newer than its module: it imports all modules to find that out."""
    for name in (name.replace(".", "/") for name, found in getattr(env, "_viewcode_modules", {}).items() if found):
        page = Path(app.outdir) / "_modules" / f"{name}.html"
        code = [path for path in (PROJECT / f"{name}.py", PROJECT / name / "__init__.py") if path.exists()]
        if not code or not page.exists() or page.stat().st_mtime < code[0].stat().st_mtime:
            return
    for listener in list(app.events.listeners["html-collect-pages"]):
        if listener.handler is viewcode.collect_pages:
            app.disconnect(listener.id)


def _add_scripts(app: Any, pagename: str, templatename: str, context: dict[str, Any], doctree: Any) -> None:
    for element, script in SCRIPTS.items():
        if f'class="{element}"' in context.get("body", ""):
            app.add_js_file(script, loading_method="defer")


def _mend_lists(app: Any, pagename: str, templatename: str, context: dict[str, Any], doctree: Any) -> None:
    """Make no lists of what readers of a screen would be told are lists and have no items."""
    if "body" in context:
        body = context["body"].replace('<div role="list" class="citation-list">', "<div>")
        # A signature of several lines is definitions without terms.
        context["body"] = re.sub(
            r"<dl>\s*(<dd>.*?)</dl>",
            lambda found: found[1].replace("<dd>", '<span class="sig-one">').replace("</dd>", "</span>"),
            body,
            flags=re.S,
        )


def _lighten(app: Any, pagename: str, templatename: str, context: dict[str, Any], doctree: Any) -> None:
    """Take the element around each word out of signatures, with which the reference weighs a sixth more."""
    if "body" in context:
        context["body"] = re.sub(
            r'<dt class="sig .*?</dt>',
            lambda found: re.sub(r'<span class="pre">([^<]*)</span>', r"\1", found[0]),
            context["body"],
            flags=re.S,
        )


def _describe(app: Any, pagename: str, templatename: str, context: dict[str, Any], doctree: Any) -> None:
    """Say what a page asks and answers, its first two paragraphs, to search engines and to whom a link is sent."""
    if doctree is None:
        return
    opening = [paragraph.astext() for paragraph in doctree.findall(nodes.paragraph)][:2]
    said = html.escape(" ".join(" ".join(opening).split()), quote=True)
    title = html.escape(next(doctree.findall(nodes.title)).astext(), quote=True)
    described = {
        "property": {"og:title": title, "og:description": said, "og:type": "article"},
        "name": {"description": said},
    }
    context["metatags"] += "".join(
        f'<meta {kind}="{name}" content="{content}" />\n'
        for kind, named in described.items()
        for name, content in named.items()
    )


def _leave_out_signature(
    app: Any, what: str, name: str, obj: Any, options: Any, signature: str, returns: str
) -> tuple[str, None] | None:
    """Remove the signature of a data class, whose fields are listed with types and defaults."""
    fields_follow = dataclasses.is_dataclass(obj) or getattr(obj, "_is_protocol", False)
    return ("", None) if what == "class" and options.get("members") and fields_follow else None


class PrintedNumber(nodes.inline):  # type: ignore[misc]
    """A number in a page, with its name and its source."""


class PrintNumber(SphinxRole):
    """The role {q}`noise.lead.sst2|full`, a quantity as `companion.quantities.Quantity.text` formats it."""

    def run(self) -> tuple[list[Any], list[Any]]:
        """The number, or a warning if there is no quantity of that name."""
        name, _, style = self.text.partition("|")
        try:
            found = quantities.value(name)
            printed = found.text(style)
        except InputError as error:
            log.warning("%s", error, location=self.get_location())
            return [nodes.Text(self.text)], []
        self.env.note_dependency(str(quantities.kept(name.partition(".")[0])))
        return [PrintedNumber(printed, printed, quantity=name, title=found.about)], []


class Claim(SphinxRole):
    """The role {says}`noise.lead.sst2.low > 0`, a predicate that the page claims (`companion.statements`)."""

    def run(self) -> tuple[list[Any], list[Any]]:
        """Nothing, and a warning if the claim is false."""
        try:
            statements.check(self.text, quantities.everything())
        except InputError as error:
            log.warning("%s", error, location=self.get_location())
        return [], []


def _open_number(writer: Any, node: PrintedNumber) -> None:
    attributes = {"data-quantity": node["quantity"], "title": node["title"]}
    writer.body.append(writer.starttag(node, "span", "", CLASS="quantity", **attributes))


def _close_number(writer: Any, node: PrintedNumber) -> None:
    writer.body.append("</span>")


def setup(app: Any) -> dict[str, Any]:
    """Register the extension with Sphinx."""
    app.add_js_file("scrolling.js", loading_method="defer")
    app.add_node(PrintedNumber, override=True, html=(_open_number, _close_number))
    app.add_role("q", PrintNumber())
    app.add_role("says", Claim())
    app.connect("config-inited", _link_repository)
    app.connect("builder-inited", _write_scripts)
    app.connect("source-read", draw_charts)
    app.connect("env-updated", _spare_code_pages)
    app.connect("html-page-context", _add_scripts)
    app.connect("html-page-context", _describe)
    app.connect("html-page-context", _say_state)
    app.connect("html-page-context", _mend_lists)
    app.connect("html-page-context", _lighten)
    app.connect("autodoc-process-signature", _leave_out_signature)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
