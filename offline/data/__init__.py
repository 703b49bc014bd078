"""Data of the field, made into our samples: `trimtab data`, see docs/data.md.

read_benchmark   VQAv2, COCO captions, POPE, MM-SafetyBench, through the readers that `evaluate` has
read_table       CSV, TSV or Parquet
read_folder      a Hub-style folder of pictures
Source, Columns  what they give, and which columns they look at
write_data       the split into train, dev and test, and its folder
parse_contrast   contrastive pairs
"""

from __future__ import annotations

from .benchmarks import read_benchmark
from .contrast import parse_contrast
from .source import Source
from .tables import Columns, read_folder, read_table
from .write import parse_shares, write_data

__all__ = [
    "Columns",
    "Source",
    "parse_contrast",
    "parse_shares",
    "read_benchmark",
    "read_folder",
    "read_table",
    "write_data",
]
