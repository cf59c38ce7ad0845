"""A report as tables on a terminal."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from mapping_cache.reports.map_report import KIND_ORDER

_MEANINGS = {
    "exact": "the same text",
    "special": "special tokens such as the end of a turn, matched by surface or role",
    "prefix": "the nearest token is the beginning of this one",
    "extension": "the nearest token begins with this one",
    "edit": "the nearest token by edit distance",
    "unmatched": "no similar token in the steering vocabulary",
}


def render_report(
    report: dict[str, Any],
    console: Console | None = None,
    *,
    base: str = "the base",
    steering: str = "the steering model",
) -> None:
    """Prints a report of `map_report` as tables; `base` and `steering` are the names in its headings."""
    console = console or Console()
    console.print(Text(f"From {base} to {steering}: {report['quality']}", style="bold"))
    console.print(Text(report["verdict"]))
    sections = [
        ("The base's tokens by their nearest match in the steering vocabulary", _counts_table(report))
    ]
    if not report["identity"]:
        sections = [
            (
                "The base's tokens in the sample texts: in both vocabularies, and cut alike by both tokenizers",
                _text_table(report),
            ),
            *sections,
            (
                "The base's tokens by similarity to their nearest match (1 is the same)",
                _histogram_table(report),
            ),
        ]
    if report["worst"]:
        sections.append(
            (
                "Frequent tokens of the sample texts that are matched worst, with their nearest match",
                _worst_table(report),
            )
        )
    for title, table in sections:
        # rich would wrap a table's own title to the table's width.
        console.print()
        console.print(Text(title, style="bold"))
        console.print(table)


def _token_text(described: dict[str, Any] | None) -> Text:
    if described is None:
        return Text("none")
    if described["text"] is None:
        return Text(f"part of a character ({described['bytes']})")
    return Text(repr(described["text"]))


def _counts_table(report: dict[str, Any]) -> Table:
    table = Table("match", "meaning")
    for heading in ("steered", "not steered"):
        table.add_column(heading, justify="right")
    for kind in KIND_ORDER:
        steered, nearest = report["counts"][kind], report["nearest_counts"][kind]
        name = kind
        if kind == "unmatched":
            name, steered = "none", 0
        if nearest:
            table.add_row(name, _MEANINGS[kind], f"{steered:,}", f"{nearest - steered:,}")
    unsteered = report["counts"]["unmatched"]
    table.add_section()
    table.add_row("in all", _total(report), f"{report['base_size'] - unsteered:,}", f"{unsteered:,}")
    return table


def _total(report: dict[str, Any]) -> str:
    """The share of the base's vocabulary that is steered, as a phrase."""
    share = 1 - report["counts"]["unmatched"] / max(report["base_size"], 1)
    return f"{share:.0%} of the base's tokens, frequent and rare alike"


def _histogram_table(report: dict[str, Any]) -> Table:
    table = Table("similarity")
    table.add_column("tokens", justify="right")
    table.add_column("")
    largest = max([entry["tokens"] for entry in report["similarity"]], default=0)
    for entry in report["similarity"]:
        whole = entry["from"] == entry["to"]
        label = f"{entry['from']:.1f}" if whole else f"{entry['from']:.1f} to {entry['to']:.1f}"
        table.add_row(label, f"{entry['tokens']:,}", "\u2588" * round(40 * entry["tokens"] / max(largest, 1)))
    return table


def _text_table(report: dict[str, Any]) -> Table:
    table = Table("text")
    for heading in ("tokens", "in both", "cut alike"):
        table.add_column(heading, justify="right")
    for entry in report["text"]["languages"]:
        table.add_row(entry["language"], *_shares(entry))
    table.add_section()
    table.add_row("all", *_shares(report["text"]))
    return table


def _shares(entry: dict[str, Any]) -> tuple[str, str, str]:
    return f"{entry['tokens']:,}", f"{entry['exact']:.0%}", f"{entry['in_step']:.0%}"


def _worst_table(report: dict[str, Any]) -> Table:
    table = Table("token", "nearest")
    for heading in ("times", "similarity"):
        table.add_column(heading, justify="right")
    for row in report["worst"]:
        similarity = "" if row["nearest"] is None else f"{row['similarity']:.2f}"
        table.add_row(_token_text(row), _token_text(row["nearest"]), str(row["count"]), similarity)
    return table
