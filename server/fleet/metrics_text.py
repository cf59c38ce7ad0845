"""The metrics of all replicas in one text."""

from __future__ import annotations

from collections.abc import Mapping


def merge(texts: Mapping[str, bytes]) -> bytes:
    """One text in Prometheus's format of those of all replicas, by their names; each series gets the label `replica`.

    The lines of one metric stand together, as the format demands.
    """
    heads: dict[str, list[str]] = {}
    series: dict[str, list[str]] = {}
    for replica, text in texts.items():
        family = ""
        for line in text.decode().splitlines():
            if line.startswith("# "):
                family = line.split(" ", 3)[2]
                lines = heads.setdefault(family, [])
                if line not in lines:
                    lines.append(line)
            elif line:
                series.setdefault(family, []).append(_labelled(line, replica))
    merged = [line for family, lines in heads.items() for line in (*lines, *series.get(family, ()))]
    return ("\n".join(merged) + "\n").encode()


def _labelled(line: str, replica: str) -> str:
    """The line of a series; the name of a metric has neither a brace nor a space."""
    name, brace, rest = line.partition("{")
    if brace:
        return f'{name}{{replica="{replica}",{rest}'
    name, _, value = line.partition(" ")
    return f'{name}{{replica="{replica}"}} {value}'
