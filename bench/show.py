"""Prints and draws what `bench.serving` found."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from bench.cases import HEADLINE, OVER_COARSE

__all__ = ["plot", "table"]


def table(found: dict[str, Any], console: Console) -> None:
    """The headline with its targets, then every concurrency."""
    targets = found["targets"]
    headline = Table(title="Throughput over plain vLLM")
    for name in ("case", "ratio", "95 % interval", "pairs", "target (upper end)", ""):
        headline.add_column(name, justify="left" if name in ("case", "") else "right")
    parts = ("ratio", "interval", "pairs")
    rows = {key: [found[part][key] for part in parts] for key in HEADLINE}
    for key, (ratio, interval, pairs) in {**rows, OVER_COARSE: [found[OVER_COARSE][part] for part in parts]}.items():
        target = targets.get(key)
        verdict = "" if target is None else "[green]held[/]" if target["held"] else "[red]missed[/]"
        headline.add_row(
            key, f"{ratio:.4f}", _interval(interval), str(pairs), f"≥ {target['least']}" if target else "", verdict
        )
    console.print(headline)
    for concurrency, cases in sorted(found["details"]["concurrency"].items(), key=lambda item: int(item[0])):
        details = Table(
            title=f"{concurrency} at once, {found['details']['tokens']} tokens an answer: ratios over plain"
        )
        names = ("case", "tokens/s", "throughput", "time to first token", "time per token", "µs more per token")
        for name in names:
            details.add_column(name, justify="left" if name == "case" else "right")
        for key, metrics in cases.items():
            cells = [f"{m['ratio']:.3f} {_interval(m['interval'], 3)}" for m in metrics.values()]
            more = 1e6 * (metrics["tpot"]["ratio"] - 1) * metrics["tpot"]["base"]
            details.add_row(key, f"{metrics['throughput']['other']:.0f}", *cells, f"{more:+.0f}")
        console.print(details)
    equal = "equal" if targets["prefix_cache_hits"]["held"] else "[red]not equal[/]"
    hits = Table(title=f"Prompt tokens from the prefix cache: {equal}")
    for name in found["details"]["prefix_cache_hits"]:
        hits.add_column(name, justify="right")
    hits.add_row(*(f"{100 * share:.1f} %" for share in found["details"]["prefix_cache_hits"].values()))
    console.print(hits)


def plot(found: dict[str, Any], path: Path) -> None:
    """A dot with its interval for each key of the headline; the band is plain vLLM against itself."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    keys = [key for key in HEADLINE if key != "aa"]
    figure, axes = pyplot.subplots(figsize=(7, 3.2), layout="constrained")
    axes.axvspan(*found["interval"]["aa"], color="0.85", label="plain against itself")
    axes.axvline(1, color="0.5", linewidth=0.8)
    for height, key in enumerate(reversed(keys)):
        low, high = found["interval"][key]
        axes.plot((low, high), (height, height), color="C0")
        axes.plot(found["ratio"][key], height, "o", color="C0")
        if key in found["targets"]:
            axes.plot(found["targets"][key]["least"], height, "|", color="C3", markersize=14)
    axes.set_yticks(range(len(keys)), list(reversed(keys)))
    axes.set_ylim(-0.6, len(keys) - 0.4)
    axes.set_xlabel("throughput over plain vLLM (dot: median, line: 95 % interval, red: target)")
    axes.legend(loc="best")
    figure.savefig(path)
    pyplot.close(figure)


def _interval(interval: list[float], digits: int = 4) -> str:
    return f"{interval[0]:.{digits}f} to {interval[1]:.{digits}f}"
