"""The page around the sections: tables, headings, style. Whatever is data goes through `text`."""

from collections.abc import Iterable, Sequence
from html import escape

STYLE = """
:root{color-scheme:light dark;--line:#8884;--soft:#8881;--mark:#dc2626}
body{font:15px/1.5 system-ui,sans-serif;max-width:1080px;margin:2rem auto;padding:0 1rem}
h1{margin-bottom:0}h2{margin-top:2.2rem;border-bottom:1px solid var(--line)}
table{border-collapse:collapse;margin:.8rem 0;font-size:13.5px}
th,td{padding:.25rem .6rem;border-bottom:1px solid var(--line);text-align:left;vertical-align:top}
.n{font-variant-numeric:tabular-nums;white-space:nowrap}
small{opacity:.7}.good{color:#059669}.bad{color:#dc2626}
.legend span{margin-right:1.2rem}
.legend i{display:inline-block;width:.8em;height:.8em;border-radius:50%;margin-right:.35em}
.scroll{overflow-x:auto}.row{display:flex;flex-wrap:wrap;gap:1rem}.lead{font-size:17px}
svg{max-width:100%;height:auto;font:11px system-ui,sans-serif;fill:currentColor}
svg .label{text-anchor:end}svg .end{text-anchor:end;font-size:10px}svg .tick{text-anchor:middle;font-size:10px}
svg .title{text-anchor:middle;font-size:12px}svg .grid{stroke:var(--line)}
svg .mark{stroke:var(--mark);stroke-dasharray:4 3}
svg .axis{stroke:currentColor;fill:none;opacity:.5}
"""


def text(value: object, most: int = 400) -> str:
    """Return data as HTML text, cut after `most` characters."""
    whole = str(value)
    return escape(whole if len(whole) <= most else f"{whole[:most]} ...")


def page(title: str, lead: str, sections: Iterable[tuple[str, str]]) -> str:
    """Return the whole document; sections are (heading, HTML), and an empty one is left out."""
    body = "".join(f"<section><h2>{text(heading)}</h2>{html}</section>\n" for heading, html in sections if html)
    policy = "default-src 'none'; style-src 'unsafe-inline'"
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f"<title>{text(title)}</title><style>{STYLE}</style></head>\n<body><h1>{text(title)}</h1>{lead}\n{body}"
        "</body></html>\n"
    )


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table of cells that are HTML already, or nothing when there is no row."""
    top = "".join(f"<th>{cell}</th>" for cell in head)
    lines = "".join(f"<tr>{''.join(f'<td>{cell}</td>' for cell in row)}</tr>" for row in rows)
    return (
        f'<div class="scroll"><table><thead><tr>{top}</tr></thead><tbody>{lines}</tbody></table></div>' if lines else ""
    )


def details(summary: str, html: str) -> str:
    """Return HTML folded away behind a line."""
    return f"<details><summary>{text(summary)}</summary>{html}</details>" if html else ""


def share(value: float, interval: tuple[float, float] | None = None, sign: str = "") -> str:
    """Return a proportion (with `sign` "+" a difference of two) as per cent, with its interval."""
    shape = f"{sign}.1%"
    return _number(format(value, shape), interval and (format(interval[0], shape), format(interval[1], shape)))


def number(value: float, interval: tuple[float, float] | None = None) -> str:
    """Return a number with four digits, with its interval."""
    return _number(f"{value:.4g}", interval and (f"{interval[0]:.4g}", f"{interval[1]:.4g}"))


def _number(value: str, interval: tuple[str, str] | None) -> str:
    shown = f" <small>[{interval[0]}, {interval[1]}]</small>" if interval else ""
    return f'<span class="n">{value}{shown}</span>'
