"""What an engine that asks for trimtab gets: this module puts the parts together, and no part imports it.

    a request    InputProcessor.process_inputs → steering's admission, then capture's
    a model      a subclass of vLLM's class: steering and capture arm its layers, and give the model runner their state
    a start      `handshake` asks the workers; requests of a model class that is not ours stop the engine

Patches go to classes, and a process may hold several engines; so each patch asks first whether its own engine was
started with profiles or for capture, and leaves any other alone.

Leans on vllm/v1/engine/input_processor.py: InputProcessor.__init__ and process_inputs, and on
vllm/model_executor/models/registry.py: ModelRegistry.register_model, official (0.29 to 0.32).
"""

from __future__ import annotations

import copy
import importlib
import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from torch import nn

from . import architectures
from .asking import STEERING_KEY, SWITCH
from .capture import calls as capture_calls
from .capture import request as capture_request
from .capture import runners as capture_runners
from .compat.versions import check_vllm, installed_vllm
from .compat.wrapping import wrap
from .config import ARCHITECTURES, SteeringConfig, check_architecture
from .errors import StartupError
from .http import attached
from .model import arming
from .requests import admission, dose, front, kv
from .requests.sent_pictures import unsend
from .runners import handshake, lost, seeds, v1, v2

if TYPE_CHECKING:
    from vllm.config import VllmConfig

__all__ = ["check_registered", "install", "register_models"]


def install() -> None:
    """Put everything in its place in this process. Safe to call again.

    Raises:
        StartupError: a vLLM outside the range. ImportError, AttributeError: vLLM has renamed what we lean on.
    """
    check_vllm(installed_vllm())
    from vllm import envs
    from vllm.config import VllmConfig
    from vllm.v1.engine.input_processor import InputProcessor

    # vLLM warns of variables that it does not know, and ends where --fail-on-environ-validation is given.
    envs.environment_variables.setdefault(SWITCH, lambda: os.environ.get(SWITCH))
    register_models()
    architectures.register()
    wrap(VllmConfig, "compute_hash", _hash)
    wrap(InputProcessor, "__init__", _start)
    wrap(InputProcessor, "process_inputs", _admit)
    kv.install()
    handshake.install()
    lost.end_lost()
    capture_runners.install()


def _hash(original: Callable[..., str], self: VllmConfig, *args: Any, **kwargs: Any) -> str:
    """The key of the compile cache, without what no compiled graph depends on.

    vLLM would take a hash from `additional_config` itself were it no dictionary; but some of its models look into it
    only if it is one, and it has to survive as JSON.
    """
    config = SteeringConfig.of(self)
    if config is None:
        return original(self, *args, **kwargs)
    shown = copy.copy(self)
    shown.additional_config = {**self.additional_config, STEERING_KEY: config.compiled()}  # type: ignore[dict-item]
    return original(shown, *args, **kwargs)


def _start(make: Callable[..., None], self: Any, vllm_config: VllmConfig, *args: Any, **kwargs: Any) -> None:
    if _asks(vllm_config):
        check_registered(vllm_config.model_config)
        front.install()
        attached.install()
        # Now, not at the first request: by then the folder may have changed, and every request would fail.
        admission.registry_of(vllm_config)
    if capture_request.CaptureConfig.of(vllm_config) is not None:
        capture_calls.install_release()
    make(self, vllm_config, *args, **kwargs)


def _admit(process: Callable[..., Any], self: Any, *args: Any, **kwargs: Any) -> Any:
    request = process(self, *args, **kwargs)
    if not _asks(self.vllm_config):
        return request
    try:
        if admission.mentions_steering(request):
            most = dose.largest_addition(self.vllm_config.model_config.dtype)
            admission.admit(request, admission.registry_of(self.vllm_config), most=most)
        capture_request.admit(request, self.vllm_config)
    except Exception:
        unsend(self.renderer.mm_processor_cache, [feature.mm_hash for feature in request.mm_features or ()])
        raise
    return request


def _asks(vllm_config: VllmConfig) -> bool:
    """Whether an engine was started with profiles or for capture."""
    return SteeringConfig.of(vllm_config) is not None or capture_request.CaptureConfig.of(vllm_config) is not None


def register_models() -> None:
    """Register our subclasses under the names of vLLM's classes; they are made when they are first needed."""
    from vllm import ModelRegistry

    for architecture in ARCHITECTURES:
        ModelRegistry.register_model(architecture, f"{__name__}:{architecture}")


def check_registered(model: Any) -> None:
    """Refuse an engine whose model class is not ours, before it starts: nothing would be armed.

    Raises:
        StartupError: an architecture that is not covered, or a class that `--model-class-overrides` or another plugin
            put over ours.
    """
    from vllm import ModelRegistry

    check_architecture(model.architecture)
    registered = ModelRegistry.models.get(model.architecture)
    if getattr(registered, "module_name", None) != __name__:
        raise StartupError(
            f"something has registered another class for {model.architecture}, which trimtab would not arm; start "
            "without --model-class-overrides and without the other plugin, or without profiles"
        )


def __getattr__(name: str) -> Any:
    """Makes the subclass that `register_models` promised."""
    if name not in ARCHITECTURES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    made = _steered(getattr(importlib.import_module(ARCHITECTURES[name]), name))
    globals()[name] = made
    return made


def _steered(base: type[nn.Module]) -> type[nn.Module]:
    class Steered(base):  # type: ignore[misc, valid-type]
        def __init__(self, *, vllm_config: VllmConfig, prefix: str = "", **kwargs: Any) -> None:
            super().__init__(vllm_config=vllm_config, prefix=prefix, **kwargs)
            if not prefix:
                _arm(self, vllm_config)

        def get_model_state_cls(self) -> type:
            return capture_runners.capturing_state(self, v2.steered_model_state(self, base))

    Steered.__name__ = Steered.__qualname__ = base.__name__
    return Steered


def _arm(model: nn.Module, vllm_config: VllmConfig) -> None:
    """Arm what is built with an empty prefix.

    A LLaVA builds its Llama through this same registry as "language_model", a drafter is built as "draft_model".
    """
    arming.arm(model, vllm_config)
    capture_runners.arm(model, vllm_config)
    if not vllm_config.use_v2_model_runner and _asks(vllm_config):
        v1.on_step(v1.steer_step)
        v1.on_step(capture_runners.capture_step)
        v1.on_step(_keep_rewindable)


def _keep_rewindable(runner: Any, *step: Any) -> None:
    # A listener hears of every engine of its process, and one that did not ask keeps vLLM's own generators.
    if _asks(runner.vllm_config):
        seeds.keep_rewindable(runner, *step)
