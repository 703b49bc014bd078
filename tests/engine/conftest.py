"""The model, profiles made of its own activations, and the engines that most laws share."""

from __future__ import annotations

import shutil
import warnings
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest
import torch

from examples.tinyworld.data import write_split
from tests.engine import lawbook
from tests.engine.engine import ROOT, Engine
from tests.engine.governed import UNIT_SECRET, planned, written
from tests.engine.reference import Reference
from tests.engine.server import Server
from tests.hub import COMMIT, in_cache
from trimtab.offline.concepts import class_means, kmeans
from trimtab.offline.states import LastPrompt, LayerStates, load_states, represent
from trimtab.offline.steering import coarse_profile, fine_profile
from trimtab.offline.steering.fine import ConceptWarning
from trimtab.offline.steering.watching import watching_profile
from trimtab.vectors import AlphaRange, Gate, Profile, Registry, save_profile
from trimtab.vectors.experiments.unit import UNIT_KEY
from trimtab.vectors.manifest import Positions

MIDDLE, LAST = 2, 5
SEATS = 32  # requests in a batch of the court
BOTH_WAYS = AlphaRange(default=1.0, min=-2.0, max=2.0)


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    # Engines have processes of their own; the reference beside them must not fight for their cores.
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of tinyworld's model: a training may replace the folder while the tests run."""
    return shutil.copytree(ROOT / "examples/tinyworld/model", tmp_path_factory.mktemp("engine") / "model")


@pytest.fixture(scope="session")
def reference(model: Path) -> Reference:
    return Reference(model)


@pytest.fixture(scope="session")
def rows(reference: Reference, tmp_path_factory: pytest.TempPathFactory) -> dict[int, LayerStates]:
    """The stream at the last prompt position of a few hundred questions, by layer."""
    folder = tmp_path_factory.mktemp("activations")
    write_split(folder / "dev", "dev", 40, seed=1)
    represent(reference.reader, folder / "dev" / "vqa.jsonl", LastPrompt(), (MIDDLE, LAST), folder / "rows")
    return {layer: load_states(folder / "rows", layer) for layer in (MIDDLE, LAST)}


@pytest.fixture(scope="session")
def profiles(rows: dict[int, LayerStates], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of profiles: {coarse, fine}-{middle, last}-{answer, all}, one for pictures, a yes-to-no, and one that
    adds nothing and only watches.

    The fine ones have a row for every concept (each answer becomes the next one in the alphabet), so that a wrong row
    shows at every position.
    """
    folder = tmp_path_factory.mktemp("profiles")
    warnings.simplefilter("ignore", ConceptWarning)  # a middle layer hardly knows the answer yet; any row will do
    positions: tuple[Positions, ...] = ("answer", "all")
    for where, layer in (("middle", MIDDLE), ("last", LAST)):
        for at in positions:
            for profile in _coarse_and_fine(rows[layer], where, at):
                save_profile(profile, folder / profile.name)
    concepts = class_means(rows[LAST])
    looks = coarse_profile("coarse-last-image", [rows[LAST]], {"yes": "no"}, positions="image", alpha=BOTH_WAYS)
    save_profile(looks, folder / looks.name)
    yes_to_no = fine_profile("yes-to-no", [(rows[LAST], concepts)], {"yes": "no"}, alpha=BOTH_WAYS)
    save_profile(yes_to_no, folder / yes_to_no.name)
    watched = [(rows[MIDDLE], kmeans(rows[MIDDLE], 4, seed=0))]
    save_profile(watching_profile("watched", watched, gate=Gate(scope="sequence")), folder / "watched")
    return folder


def _coarse_and_fine(rows: LayerStates, where: str, at: Positions) -> Iterator[Profile]:
    yield coarse_profile(f"coarse-{where}-{at}", [rows], {"yes": "no"}, positions=at, alpha=BOTH_WAYS)
    concepts = class_means(rows)
    words = sorted(concepts.labels)
    mapping = dict(pairwise([*words, words[0]]))
    yield fine_profile(f"fine-{where}-{at}", [(rows, concepts)], mapping, positions=at, alpha=BOTH_WAYS)


@pytest.fixture(scope="session")
def registry(profiles: Path) -> Registry:
    return Registry.open(profiles)


@pytest.fixture(scope="session")
def engine(model: Path, profiles: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    """Eager, float32, prefix caching on, as vLLM's default has it."""
    with Engine(tmp_path_factory.mktemp("log") / "eager.log", model, profiles) as running:
        yield running


@pytest.fixture(scope="session")
def plain(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    """The same in a process that loads no plugin and steers nothing."""
    with Engine(tmp_path_factory.mktemp("log") / "plain.log", model, None, plugin=False) as running:
        yield running


@pytest.fixture(scope="session")
def laws(reference: Reference, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of the profiles that `lawbook` makes."""
    folder = tmp_path_factory.mktemp("laws")
    for profile in lawbook.profiles(reference):
        save_profile(profile, folder / profile.name)
    return folder


@pytest.fixture(scope="session")
def law(laws: Path) -> Registry:
    return Registry.open(laws)


@pytest.fixture(scope="session")
def court(model: Path, laws: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    """An engine that serves them, with room for one profile more."""
    log = tmp_path_factory.mktemp("log") / "court.log"
    with Engine(log, model, laws, arm={"rows": 2}, max_num_seqs=SEATS) as running:
        yield running


@pytest.fixture(scope="session")
def server(model: Path, profiles: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Its profiles come from a repository of the Hub, at a commit. It reads tool calls out of answers."""
    home = tmp_path_factory.mktemp("server")
    in_cache(profiles, home / "hub" / "models--tests--profiles")
    hub = {"HF_HUB_CACHE": str(home / "hub")}
    tools = ("--enable-auto-tool-choice", "--tool-call-parser=pythonic")
    running = Server(home / "server.log", model, f"hf://tests/profiles@{COMMIT}", *tools, env=hub)
    yield running
    if running.process.poll() is None:
        running.stop()


@pytest.fixture(scope="session")
def governed_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the files of `governed` are: policy.yaml, plan.yaml, shelf, state, exposures, server.log."""
    return tmp_path_factory.mktemp("governed")


@pytest.fixture(scope="session")
def governed(model: Path, profiles: Path, governed_home: Path) -> Iterator[Server]:
    """A server with an access policy and an experiment, which follows the files of both, and its profiles at a URL.

    A reasoning parser reads its answers.
    """
    home = governed_home
    shelf = shutil.copytree(profiles, home / "shelf")
    (home / "policy.yaml").write_text(written())
    (home / "plan.yaml").write_text(planned())
    files = (f"--steering-policy={home}/policy.yaml", f"--steering-experiments={home}/plan.yaml")
    folders = (f"--steering-state={home}/state", f"--steering-exposures={home}/exposures", "--steering-refresh=0.2")
    settings = (*files, *folders, "--reasoning-parser=granite")
    running = Server(home / "server.log", model, f"file://{shelf}", *settings, env={UNIT_KEY: UNIT_SECRET})
    yield running
    if running.process.poll() is None:
        running.stop()
