"""What /metrics of a server says."""

from __future__ import annotations

from prometheus_client.parser import text_string_to_metric_families

from tests.engine.server import Server

Numbers = dict[tuple[str, ...], float]


def numbers(server: Server) -> Numbers:
    """Every sample by its name and the values of its labels."""
    return {
        (sample.name, *(f"{label}={word}" for label, word in sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(server.http.get("/metrics").text)
        for sample in family.samples
    }


def grown(before: Numbers, after: Numbers) -> Numbers:
    found = {name: value - before.get(name, 0.0) for name, value in after.items()}
    return {name: value for name, value in found.items() if value}
