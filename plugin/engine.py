"""What an engine that asks for trimtab gets: this module puts the parts together, and no part imports it.

    a request    InputProcessor.process_inputs → steering's admission, then capture's
    a model      initialize_model → steering and capture arm the layers of what vLLM has built, whatever its class
    a start      `handshake` asks the workers, which prove that what is armed adds

Patches go to classes, and a process may hold several engines; so each patch asks first whether its own engine was
started with profiles or for capture, and leaves any other alone.

Leans on vllm/v1/engine/input_processor.py: InputProcessor.__init__ and process_inputs, and on
vllm/model_executor/model_loader/base_loader.py: initialize_model, imported there by name, through which the model of an
engine and its drafter are built; a decoder inside a multimodal model is built through vLLM's other names of it (0.29 to
0.32).
"""

from __future__ import annotations

import copy
import functools
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
from .config import SteeringConfig
from .control import authority, finished, spans
from .control.experiments import expose
from .control.served import registry_now
from .http import attached
from .model import arming, proven
from .requests import admission, beams, dose, front, kv
from .requests.decided import Chosen, entered_by
from .requests.sent_pictures import unsend
from .runners import handshake, lost, seeds, staging, v1, v2

if TYPE_CHECKING:
    from vllm.config import VllmConfig

__all__ = ["install"]


def install() -> None:
    """Put everything in its place in this process. Safe to call again.

    Raises:
        StartupError: a vLLM outside the range. ImportError, AttributeError: vLLM has renamed what we lean on.
    """
    check_vllm(installed_vllm())
    from vllm import envs
    from vllm.config import VllmConfig
    from vllm.model_executor.model_loader import base_loader
    from vllm.v1.engine.input_processor import InputProcessor

    # vLLM warns of variables that it does not know, and ends where --fail-on-environ-validation is given.
    envs.environment_variables.setdefault(SWITCH, lambda: os.environ.get(SWITCH))
    architectures.register()
    wrap(VllmConfig, "compute_hash", _hash)
    wrap(InputProcessor, "__init__", _start)
    wrap(InputProcessor, "process_inputs", _admit)
    wrap(base_loader, "initialize_model", _build)
    if registry_now not in admission.registry_source:
        admission.registry_source.append(registry_now)
    authority.install()
    kv.install()
    handshake.install()
    staging.install()
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
        front.install()
        attached.install()
        finished.install()
        spans.install()
        # Now, not at the first request: by then the folder may have changed, and every request would fail.
        authority.check(vllm_config, admission.registry_of(vllm_config))
        if authority.governs(vllm_config):
            beams.install()
    if capture_request.CaptureConfig.of(vllm_config) is not None:
        capture_calls.install_release()
    make(self, vllm_config, *args, **kwargs)


def _admit(process: Callable[..., Any], self: Any, *args: Any, **kwargs: Any) -> Any:
    request = process(self, *args, **kwargs)
    if not _asks(self.vllm_config):
        return request
    try:
        choose = functools.partial(admission.chosen_for, vllm_config=self.vllm_config)
        chosen = admission.admit(request, choose, most=dose.largest_addition(self.vllm_config.model_config.dtype))
        capture_request.admit(request, self.vllm_config)
    except Exception:
        unsend(self.renderer.mm_processor_cache, [feature.mm_hash for feature in request.mm_features or ()])
        raise
    if chosen is not None:
        finished.follow(request.sampling_params, _about(chosen))
        for tell in expose.admitted:
            tell(chosen, request.request_id)
    return request


def _about(chosen: Chosen) -> finished.About:
    entered = entered_by(chosen)
    if entered is None:
        return finished.About(chosen)
    # A forced arm is in no analysis, and in no metric of the experiment.
    part = ("", "") if entered.forced else (entered.experiment, entered.variation)
    return finished.About(chosen, *part, entered.exposure_id)


def _asks(vllm_config: VllmConfig) -> bool:
    """Whether an engine was started with profiles or for capture."""
    return SteeringConfig.of(vllm_config) is not None or capture_request.CaptureConfig.of(vllm_config) is not None


def _build(build: Callable[..., nn.Module], vllm_config: VllmConfig, *args: Any, **kwargs: Any) -> nn.Module:
    model = build(vllm_config, *args, **kwargs)
    model_config = kwargs.get("model_config") or vllm_config.model_config
    # Most drafters are built with an empty prefix as well.
    if _asks(vllm_config) and not kwargs.get("prefix") and model_config.runner_type != "draft":
        _arm(model, vllm_config)
    return model


def _arm(model: nn.Module, vllm_config: VllmConfig) -> None:
    arming.arm(model, vllm_config)
    capture_runners.arm(model, vllm_config)
    if vllm_config.parallel_config.rank == 0:
        proven.say(model, vllm_config)
    if vllm_config.use_v2_model_runner:
        # On the instance, so that the class stays vLLM's own for every other engine of this process.
        steered: Any = model
        steered.get_model_state_cls = functools.partial(_model_state, model)
    else:
        v1.on_step(v1.steer_step)
        v1.on_step(capture_runners.capture_step)
        v1.on_step(_keep_rewindable)


def _model_state(model: nn.Module) -> type:
    return capture_runners.capturing_state(model, v2.steered_model_state(model))


def _keep_rewindable(runner: Any, *step: Any) -> None:
    # A listener hears of every engine of its process, and one that did not ask keeps vLLM's own generators.
    if _asks(runner.vllm_config):
        seeds.keep_rewindable(runner, *step)
