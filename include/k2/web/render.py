"""The pages as HTML. Everything is escaped, and nothing is fetched from anywhere: style and script are in the page, behind a nonce."""

from __future__ import annotations

import functools
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markdown_it import MarkdownIt

from k2.supervision.ledger import STEPS

TEMPLATES = Path(__file__).parent / "templates"


def csp(nonce: str) -> str:
    """What a browser may do with the pages: run and use what carries this nonce, ask this server, and show them in Airflow alone."""
    return (
        f"default-src 'none'; style-src 'nonce-{nonce}'; script-src 'nonce-{nonce}'; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'self'"
    )


def ago(moment: datetime | None, now: datetime) -> str:
    """How long ago: 4 s, 12 min, 3 h 5 min, 9 d."""
    return "never" if moment is None else span((now - moment).total_seconds())


def span(seconds: float | None) -> str:
    """A time that has passed, without false precision."""
    if seconds is None:
        return "–"
    whole = max(0, int(seconds))
    if whole < 120:
        return f"{whole} s"
    if whole < 7200:
        return f"{whole // 60} min"
    return f"{whole // 3600} h {whole % 3600 // 60} min" if whole < 172_800 else f"{whole // 86_400} d"


def seconds(value: float | None) -> str:
    """A duration that was measured."""
    return "–" if value is None else f"{value:.1f} s" if value < 120 else span(value)


def minutes(value: float) -> str:
    return f"{value / 60:.1f} min"


def clock(moment: datetime | None) -> str:
    return "–" if moment is None else f"{moment.astimezone(UTC):%m-%d %H:%M:%S}"


def number(value: float | None) -> str:
    return "–" if value is None else f"{value:,.0f}"


def plain(value: Any) -> str:
    """A JSON value of the audit log in one line."""
    if isinstance(value, dict):
        return ", ".join(f"{key} {plain(inner)}" for key, inner in value.items())
    return "–" if value is None else value if isinstance(value, str) else json.dumps(value, default=str)


@functools.cache
def environment() -> Environment:
    made = Environment(loader=FileSystemLoader(TEMPLATES), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    made.filters |= {"span": span, "seconds": seconds, "minutes": minutes, "clock": clock, "number": number, "plain": plain}
    made.globals |= {"ago": ago, "STEPS": STEPS, "style": (TEMPLATES / "style.css").read_text(), "script": (TEMPLATES / "refresh.js").read_text()}
    return made


def page(template: str, **values: Any) -> str:
    """One page. `root` is where the pages are mounted, `airflow` where Airflow is, both without a slash at their end."""
    return environment().get_template(template).render(**values)


def markdown(text: str) -> str:
    """A document of this project as HTML: headings can be linked to, and HTML in it is shown and not obeyed."""
    parser = MarkdownIt("js-default", {"linkify": False, "html": False})
    tokens = parser.parse(text)
    for place, token in enumerate(tokens):
        if token.type == "heading_open":
            token.attrSet("id", anchor(tokens[place + 1].content))
    return str(parser.renderer.render(tokens, parser.options, {}))


def anchor(heading: str) -> str:
    """The fragment by which a heading is linked to."""
    return "".join(c if c.isalnum() else "-" for c in heading.lower())
