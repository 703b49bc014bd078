"""A Prometheus that scrapes a server with the rules of `ops`, and the panels of the dashboard drawn from it.

Needs the program `prometheus` on the PATH (Debian: `apt-get install prometheus`).
"""

from __future__ import annotations

import json
import math
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import yaml

from tests.engine.engine import ROOT
from tests.engine.server import MODEL_NAME
from tests.reliability.served import until

OPS = ROOT / "ops"
_EVERY = 1  # seconds between two scrapes
_PLACES = {"$__rate_interval": "20s", "$model_name": MODEL_NAME}  # every other variable: all there is


class Query(NamedTuple):
    """One query of a panel. name: of a line in it."""

    panel: str
    expression: str
    name: str
    unit: str


def queries() -> list[Query]:
    """Those of the dashboard, with its variables filled in as Grafana does."""
    board = json.loads((OPS / "grafana" / "trimtab.json").read_text())
    panels = [panel for panel in board["panels"] if panel["type"] != "row"]
    return [
        Query(panel["title"], _filled(one["expr"]), one["legendFormat"], panel["fieldConfig"]["defaults"]["unit"])
        for panel in panels
        for one in panel["targets"]
    ]


def _filled(expression: str) -> str:
    for place, value in _PLACES.items():
        expression = expression.replace(place, value)
    for name in ("instance", "profile", "experiment"):
        expression = expression.replace(f"${name}", ".*")
    assert "$" not in expression, expression
    return expression


class Prometheus:
    """Asks a running Prometheus."""

    def __init__(self, http: httpx.Client) -> None:
        self._http = http

    def now(self, expression: str) -> list[float]:
        """The values of a query, one per series that has a number."""
        found = self._get("query", query=expression)["result"]
        values = [float(series["value"][1]) for series in found]
        return [value for value in values if not math.isnan(value)]

    def over(self, expression: str, seconds: float) -> list[tuple[dict[str, str], list[float], list[float]]]:
        """Labels, times and values of each series over the last seconds."""
        end = time.time()
        found = self._get("query_range", query=expression, start=end - seconds, end=end, step=_EVERY)["result"]
        return [
            (series["metric"], [at - end for at, _ in series["values"]], [float(one) for _, one in series["values"]])
            for series in found
        ]

    def rules(self) -> list[dict[str, Any]]:
        return [rule for group in self._get("rules")["groups"] for rule in group["rules"]]

    def _get(self, what: str, **words: Any) -> Any:
        reply = self._http.get(f"/api/v1/{what}", params=words)
        assert reply.status_code == 200, reply.text
        return reply.json()["data"]


@contextmanager
def prometheus(home: Path, target: str) -> Iterator[Prometheus]:
    """Scrapes a server, host:port, while the block runs. home: an empty folder for its files."""
    program = shutil.which("prometheus")
    if program is None:
        raise RuntimeError("Prometheus is not installed; on Debian: apt-get install prometheus")
    config = yaml.safe_load((OPS / "prometheus" / "prometheus.yml").read_text())
    config["global"] = {"scrape_interval": f"{_EVERY}s", "evaluation_interval": f"{_EVERY}s"}
    config["rule_files"] = [str(OPS / "prometheus" / name) for name in config["rule_files"]]
    config["scrape_configs"][0]["static_configs"][0]["targets"] = [target]
    (home / "prometheus.yml").write_text(yaml.safe_dump(config))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    words = (f"--config.file={home}/prometheus.yml", f"--storage.tsdb.path={home}/data")
    with (home / "prometheus.log").open("w") as log:
        process = subprocess.Popen([program, *words, f"--web.listen-address={address}"], stdout=log, stderr=log)
    try:
        with httpx.Client(base_url=f"http://{address}", timeout=30) as http:
            until(lambda: process.poll() is not None or _answers(http))
            yield Prometheus(http)
    finally:
        process.terminate()
        process.wait(30)


def _answers(http: httpx.Client) -> bool:
    try:
        return http.get("/-/ready").status_code == 200
    except httpx.TransportError:
        return False


def draw(scraped: Prometheus, seconds: float, file: Path) -> None:
    """The panels of the dashboard as a picture, from what was scraped in the last seconds."""
    from matplotlib.figure import Figure

    titles = list(dict.fromkeys(query.panel for query in queries()))
    columns = 3
    figure = Figure(figsize=(15, 2.6 * math.ceil(len(titles) / columns)), layout="constrained")
    axes = figure.subplots(math.ceil(len(titles) / columns), columns, squeeze=False).ravel()
    for axis, title in zip(axes, titles, strict=False):
        drawn: list[float] = []
        for query in (query for query in queries() if query.panel == title):
            for labels, times, values in scraped.over(query.expression, seconds):
                name = query.name
                for label, word in labels.items():
                    name = name.replace(f"{{{{{label}}}}}", "server" if label == "instance" else word)
                drawn += values
                axis.plot(times, values, linewidth=1.2, label=name[:40])
        axis.set_title(title, fontsize=9)
        axis.set_ylim(0, 1.3 * max((value for value in drawn if not math.isnan(value)), default=0) or 1)
        axis.tick_params(labelsize=7)
        if axis.get_legend_handles_labels()[1]:
            axis.legend(fontsize=5.5, loc="upper left", ncols=2)
    for axis in axes[len(titles) :]:
        axis.set_axis_off()
    figure.supxlabel("seconds", fontsize=8)
    figure.savefig(file, dpi=80)
