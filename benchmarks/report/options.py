"""The command-line options that benchmarks share."""

from __future__ import annotations

import argparse


def make_parser(benchmark: str, description: str | None) -> argparse.ArgumentParser:
    """The parser of `python -m benchmarks.NAME`, with `--repeats`."""
    parser = argparse.ArgumentParser(prog=f"python -m benchmarks.{benchmark}", description=description)
    parser.add_argument("--repeats", type=int, default=3, help="values of each figure (default: 3)")
    return parser


def add_device(parser: argparse.ArgumentParser) -> None:
    """Add `--device`."""
    parser.add_argument("--device", default="cpu", help="cpu (default), cuda or cuda:N")
