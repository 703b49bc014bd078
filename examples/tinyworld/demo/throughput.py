"""Steered (fine) and unsteered tokens per second from the same server, in alternating runs."""

from __future__ import annotations

import statistics
import time
from pathlib import Path
from typing import Any

from tqdm import tqdm

from examples.tinyworld.data import read_split
from examples.tinyworld.demo.client import UNSTEERED, Client, How
from examples.tinyworld.demo.profiles import GENDER

PAIRS = 5
REQUESTS = 32
LENGTH = 64
"""Tokens per answer: long ones, so that the engine and not the reading of requests is what is measured.

Five short pairs show that nothing is badly wrong; `make bench` measures."""


def throughput(client: Client, folder: Path) -> dict[str, Any]:
    """Medians of tokens per second and of the ratios of the pairs; who goes first alternates too."""
    samples = [sample for sample in read_split(folder) if sample.type == "caption"][:REQUESTS]
    ways = {"plain": UNSTEERED, "steered": How(GENDER, 1.0)}
    for how in ways.values():  # fill the caches that both share
        client.tokens(folder, samples, how, length=LENGTH)
    runs: dict[str, list[float]] = {"plain": [], "steered": []}
    for pair in tqdm(range(PAIRS), desc="throughput", unit="pair", leave=False):
        for way in ways if pair % 2 == 0 else reversed(ways):
            started = time.perf_counter()
            tokens = client.tokens(folder, samples, ways[way], length=LENGTH)
            runs[way].append(tokens / (time.perf_counter() - started))
    ratios = [steered / plain for plain, steered in zip(runs["plain"], runs["steered"], strict=True)]
    return {
        "plain": statistics.median(runs["plain"]),
        "steered": statistics.median(runs["steered"]),
        "ratio": statistics.median(ratios),
        "pairs": ratios,
    }
