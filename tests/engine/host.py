"""An engine in a process of its own, which takes commands from a pipe and replies to them, all in JSON.

The tests ask every engine through this one program: with and without the plugin, eager and compiled, under both model
runners. `tests.engine.engine` is the other end.
"""

from __future__ import annotations

import json
import os
import sys
import traceback
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

from examples.tinyworld.draw import draw
from tests.engine.asking import Answer, Ask, Refusal, scene_of

_MOST_STEPS = 10_000


def serve(commands: Connection, options: Mapping[str, Any]) -> NoReturn:
    """Start the engine, say that it is ready or why not, and answer commands until the other end of the pipe closes."""
    if os.environ.get("TRITON_INTERPRET"):
        _show_triton_a_cpu()
    try:
        host = Host(**options)
    except Exception as error:
        commands.send(json.dumps({"refused": asdict(_refusal(error))}))
        raise
    commands.send(json.dumps({"ready": True}))
    while True:
        try:
            command = json.loads(commands.recv())
        except EOFError:
            break
        try:
            reply = {"reply": getattr(host, command.pop("do"))(**command)}
        except Exception as error:
            traceback.print_exc()  # into the log
            reply = {"refused": asdict(_refusal(error))}
        commands.send(json.dumps(reply))
    if os.environ.get("VLLM_ENABLE_V1_MULTIPROCESSING") == "1":
        host.end()
    os._exit(0)  # there is nothing to save, and an orderly end takes seconds


class Host:
    """Public methods are the commands."""

    def end(self) -> None:
        """End the engine's own process, which would go on for ever."""
        self.llm.llm_engine.engine_core.shutdown()

    def __init__(
        self, model: str, profiles: str | None, arm: dict[str, Any], capture: list[int], llm: dict[str, Any]
    ) -> None:
        from vllm import LLM

        if os.environ.get("TESTS_INSPECT_HERE"):
            _inspect_here()
        if profiles is not None:
            from trimtab.plugin import engine_args

            llm = {**llm, **engine_args(profiles, model=model, **arm)}
            if lost := os.environ.get("TESTS_LOSE_LAYER"):
                _lose_layer(int(lost))
        if capture:
            from trimtab.plugin.capture import capture_args

            llm |= capture_args(capture, model=model, additional_config=llm.get("additional_config"))
        self.llm: Any = LLM(model, **llm)
        self.damaged: list[tuple[Any, Any]] = []

    def ask(self, asks: list[dict[str, Any]], preempt: Sequence[int] = ()) -> list[dict[str, Any]]:
        """Put every request to the engine at its step, and run it until all are answered or refused.

        preempt: the steps before which every running request is sent back to the queue; its blocks stay cached.
        """
        waiting = [(number, Ask.of_json(found)) for number, found in enumerate(asks)]
        numbers: dict[str, int] = {}
        replies: dict[int, Any] = {}
        leaving: list[str] = []
        step = 0
        while waiting or self.llm.llm_engine.has_unfinished_requests():
            for number, ask in [entry for entry in waiting if entry[1].late <= step]:
                waiting.remove((number, ask))
                try:
                    numbers[self._enqueue(ask)] = number
                except Exception as error:
                    replies[number] = _refusal(error)
            for number, ask in enumerate(map(Ask.of_json, asks)):
                if ask.abort == step:
                    self.llm.llm_engine.abort_request([name for name, known in numbers.items() if known == number])
                    replies[number] = Refusal("Aborted", f"at step {step}")
                if ask.leaves == step:
                    leaving += [name for name, known in numbers.items() if known == number]
                    replies[number] = Refusal("Aborted", f"in step {step}")
            if step in preempt:
                self._preempt()
            step += 1
            if step > _MOST_STEPS:
                raise RuntimeError("the engine has requests that it never finishes")
            if leaving:
                gone = [name for name in self._scheduler.requests if name.partition("-")[0] in leaving]
                self.llm.llm_engine.engine_core.engine_core.aborts_queue.put_nowait(gone)
            outputs = self.llm.llm_engine.step()
            self.llm.llm_engine.abort_request(leaving)
            for output in outputs:
                if output.finished and output.request_id not in leaving:
                    replies[numbers[output.request_id]] = _answer(output)
        return [asdict(replies[number]) for number in range(len(asks))]

    def chat(self, asks: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """All of them in one `LLM.chat`, as a user would write it: asks for the same share one SamplingParams."""
        found = [Ask.of_json(ask) for ask in asks]
        params: dict[str, Any] = {}
        shared = [params.setdefault(repr(replace(ask, text="", scene=None)), _params(ask)) for ask in found]
        outputs = self.llm.chat([_turns(ask) for ask in found], shared, use_tqdm=False)
        return [asdict(_answer(output)) for output in outputs]

    def capture(self, asks: list[dict[str, Any]], positions: str, out: str) -> list[dict[str, Any]]:
        """`capture` with all of them; the rows go to files in the folder `out`, one a request."""
        from trimtab.plugin.capture import capture

        found = [Ask.of_json(ask) for ask in asks]
        prompts = [_turns(ask) if ask.ids is None else {"prompt_token_ids": list(ask.ids)} for ask in found]
        captured = capture(self.llm, prompts, positions=positions, sampling_params=[_params(a) for a in found])
        return [_captured(one, Path(out) / f"{number}.npz") for number, one in enumerate(captured)]

    def write_states(self, asks: list[dict[str, Any]], folder: str) -> None:
        """`capture` the last prompt positions of all of them and `write_states`."""
        from trimtab.plugin.capture import capture, write_states

        found = [Ask.of_json(ask) for ask in asks]
        write_states(
            self.llm,
            capture(self.llm, [_turns(ask) for ask in found], sampling_params=[_params(ask) for ask in found]),
            Path(folder),
        )

    def kept(self) -> dict[str, int]:
        """Bytes of captured rows that wait to be taken, by request."""
        return dict(self.llm.collective_rpc("trimtab_capture_kept")[0])

    def release(self) -> None:
        """Let go of them."""
        self.llm.collective_rpc("trimtab_capture_release", args=(list(self.kept()),))

    def abandon(self, asks: list[dict[str, Any]], steps: int) -> list[dict[str, int]]:
        """Start all of them, run a few steps, abort: what is kept before and after."""
        names = [self._enqueue(Ask.of_json(ask)) for ask in asks]
        for _ in range(steps):
            self.llm.llm_engine.step()
        before = self.kept()
        self.llm.llm_engine.abort_request(names)
        while self.llm.llm_engine.has_unfinished_requests():
            self.llm.llm_engine.step()
        return [before, self.kept()]

    def interrupt(self, asks: list[dict[str, Any]], steps: int) -> list[Any]:
        """Interrupt a `capture` of all positions after some steps: what is kept then, and what the engine still has."""
        engine, before = self.llm.llm_engine, {}
        step = engine.step

        def stepping() -> Any:
            nonlocal steps
            steps -= 1
            if steps < 0:
                before.update(self.kept())
                raise KeyboardInterrupt
            return step()

        engine.step = stepping
        try:
            self.capture(asks, "all", "")
        except KeyboardInterrupt:
            del engine.step
        return [before, self.kept(), engine.has_unfinished_requests()]

    def forget(self) -> bool:
        """Empty the prefix cache."""
        return bool(self.llm.reset_prefix_cache())

    def chunk(self, size: int) -> None:
        """From now on read prompts in pieces of at most `size` tokens; 0 reads them at once."""
        self._scheduler.scheduler_config.long_prefill_token_threshold = size

    def preemptions(self) -> int:
        """How often a running request was sent back to the queue."""
        return sum(int(metric.value) for metric in self.llm.get_metrics() if metric.name == "vllm:num_preemptions")

    def speculated(self) -> dict[str, int]:
        """How many tokens were drafted, and how many of them were accepted, since the engine started."""
        counted = {metric.name: metric for metric in self.llm.get_metrics()}
        return {name: int(counted[f"vllm:spec_decode_num_{name}_tokens"].value) for name in ("draft", "accepted")}

    def drafter(self) -> list[str]:
        """The classes that a draft model is made of; none where no model drafts (V1 only)."""
        runner = self.llm.llm_engine.model_executor.driver_worker.worker.model_runner
        model = getattr(runner.drafter, "model", None)
        if model is None:
            return []
        return sorted({f"{type(module).__module__}.{type(module).__name__}" for module in model.modules()})

    def reuse_names(self) -> None:
        """Name requests from 0 again; with VLLM_DISABLE_REQUEST_ID_RANDOMIZATION the core sees the same names."""
        self.llm.request_counter = type(self.llm.request_counter)()

    def runner(self) -> dict[str, Any]:
        """Which model runner serves: the module of its class, and the class that keeps its model's state (V2 only)."""
        found = self.llm.llm_engine.model_executor.driver_worker.worker.model_runner
        state = getattr(found, "model_state", None)
        return {"modules": [base.__module__ for base in type(found).__mro__], "state": type(state).__name__}

    def modules(self) -> list[str]:
        """What of trimtab this process has imported."""
        return sorted(name for name in sys.modules if name.startswith("trimtab."))

    def concepts(self) -> dict[str, float]:
        """What /metrics would say of concepts: the positions of each, and the drift, by profile and layer."""
        from prometheus_client import REGISTRY

        from trimtab.plugin.runners.concepts import counts_of

        counts = counts_of(self.llm.llm_engine.model_executor.driver_worker.worker.model_runner)
        assert counts is not None
        counts.read()
        samples = [sample for family in REGISTRY.collect() for sample in family.samples]
        wanted = ("trimtab_concept_active_total", "trimtab_concept_drift")
        return {
            "/".join(sample.labels[label] for label in ("profile", "layer", "concept") if label in sample.labels): (
                sample.value
            )
            for sample in samples
            if sample.name in wanted
        }

    def armed(self) -> dict[str, Any]:
        """What arming did to the model."""

        def look(model: Any) -> dict[str, Any]:
            from trimtab.plugin.model.arming import tables_of
            from trimtab.plugin.model.tables import LayerTable
            from trimtab.plugin.steps.entries import TokenEntries

            language_model = model.get_language_model() if hasattr(model, "get_language_model") else model
            tables = tables_of(model)
            modules = list(model.modules())
            return {
                "layers": [f"{type(layer).__module__}.{type(layer).__name__}" for layer in language_model.model.layers],
                "tabled": sorted(module.layer for module in modules if isinstance(module, LayerTable)),
                "token_entries": sum(isinstance(module, TokenEntries) for module in modules),
                "tables": None if tables is None else sorted(tables.layers),
                "inner_tables": language_model is not model and tables_of(language_model) is not None,
                "rows": {} if tables is None else {n: len(table.rows) for n, table in tables.layers.items()},
            }

        return dict(self.llm.apply_model(look)[0])

    def load(self, folder: str) -> str:
        """Put one more profile into the tables of the running model, and let requests name it, whoever had its name."""
        from trimtab.plugin.model.arming import tables_of
        from trimtab.plugin.requests import admission
        from trimtab.vectors import Registry, load_profile

        profile = load_profile(Path(folder))
        self.llm.apply_model(lambda model: tables_of(model).load(profile))  # type: ignore[union-attr]
        known = admission.registry_of(self.llm.llm_engine.vllm_config)
        assert known is not None
        larger = Registry([*(other for other in known.values() if other.name != profile.name), profile])
        setattr(admission, "registry_of", lambda vllm_config: larger)  # noqa: B010
        return profile.digest

    def damage(self, digest: str) -> None:
        """Put an infinity into all that a profile adds, on the device, as no profile that loads has it."""
        from trimtab.plugin.model.arming import tables_of

        def hit(model: Any) -> None:
            tables = tables_of(model)
            assert tables is not None
            for table in tables.layers.values():
                first, count, _ = table.slots[tables.slots[digest]].tolist()
                added = table.rows[first + count : first + count + max(count, 1)] if first >= 0 else table.rows[:0]
                self.damaged.append((added, added.clone()))
                added[:, 0] = float("inf")

        self.llm.apply_model(hit)

    def mend(self) -> None:
        """End all damage."""
        while self.damaged:
            added, before = self.damaged.pop()
            added.copy_(before)

    def compilations(self) -> dict[str, Any]:
        """Everything that vLLM and torch count when they compile."""
        from torch._dynamo.utils import counters
        from vllm.compilation.counter import compilation_counter

        dynamo = {name: sum(counts.values()) for name, counts in counters.items() if name in ("frames", "stats")}
        return {**asdict(compilation_counter), **dynamo}

    def show(self, asks: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """A batch of `tests.engine.pictured.Shown`."""
        from tests.engine.pictured import served

        return [asdict(_answer(output)) for output in served(self.llm, asks)]

    def conformance(self, what: str, **arguments: Any) -> Any:
        """A command of `tests.conformance.serving.Serving`."""
        from tests.conformance.serving import Serving

        if not hasattr(self, "serving"):
            self.serving = Serving(self.llm)
        return getattr(self.serving, what)(**arguments)

    def inside(self, what: str, **arguments: Any) -> Any:
        """A command of `tests.architectures.inside.Inside`."""
        from tests.architectures.inside import Inside

        if not hasattr(self, "within"):
            self.within = Inside(self.llm)
        return getattr(self.within, what)(**arguments)

    def _enqueue(self, ask: Ask) -> str:
        more = {"lora_request": _lora(ask), "priority": ask.priority or None, "use_tqdm": False}
        if ask.ids is not None:
            (name,) = self.llm.enqueue([_tokenised(ask)], _params(ask), **more)
        else:
            (name,) = self.llm.enqueue_chat([_turns(ask)], _params(ask), **more)
        return str(name).partition("-")[0]

    @property
    def _scheduler(self) -> Any:
        return self.llm.llm_engine.engine_core.engine_core.scheduler

    def _preempt(self) -> None:
        """To the end of the queue: whoever waits comes first, and takes what those who leave had in the batch."""
        scheduler = self._scheduler
        sent_back = scheduler.running[::-1]
        while scheduler.running:
            scheduler._preempt_request(scheduler.running.pop(), 0.0, drop_stale_output=True)
        scheduler.prev_step_scheduled_req_ids.clear()
        scheduler.waiting.remove_requests(sent_back)
        for request in sent_back:
            scheduler.waiting.add_request(request)


def _turns(ask: Ask) -> list[Any]:
    content: list[dict[str, Any]] = [{"type": "text", "text": ask.text}]
    pictures: list[dict[str, Any]] = [{"type": "image_pil", "image_pil": draw(scene_of(seed))} for seed in ask.pictures]
    if ask.url is not None:
        pictures.append({"type": "image_url", "image_url": {"url": ask.url}})
    return [{"role": "user", "content": [*pictures, *content]}]


def _tokenised(ask: Ask) -> dict[str, Any]:
    prompt: dict[str, Any] = {"prompt_token_ids": list(ask.ids or ())}
    if ask.pictures:
        prompt["multi_modal_data"] = {"image": [draw(scene_of(seed)) for seed in ask.pictures]}
    if ask.salt is not None:
        prompt["cache_salt"] = ask.salt
    return prompt


def _params(ask: Ask) -> Any:
    from vllm import SamplingParams
    from vllm.sampling_params import StructuredOutputsParams

    settings = {
        "temperature": 0.0 if ask.n == 1 else 1.0,
        "seed": None if ask.n == 1 else 0,
        "n": ask.n,
        "max_tokens": ask.max_tokens,
        "ignore_eos": ask.ignore_eos,
        "logprobs": -1 if ask.full else None,
        "detokenize": not ask.full,  # a whole distribution would be spelt token by token
        "extra_args": ask.extra_args or None,
        **ask.sampling,
    }
    if "logit_bias" in settings:
        settings["logit_bias"] = {int(token): bias for token, bias in settings["logit_bias"].items()}
    if "structured_outputs" in settings:
        settings["structured_outputs"] = StructuredOutputsParams(**settings["structured_outputs"])
    return SamplingParams(**settings)


def _lora(ask: Ask) -> Any:
    if ask.lora is None:
        return None
    from vllm.lora.request import LoRARequest

    name = Path(ask.lora).name
    return LoRARequest(name, 1 + sum(name.encode()), ask.lora)


def _answer(output: Any) -> Answer:
    first = output.outputs[0]
    return Answer(
        prompt=list(output.prompt_token_ids),
        cached=output.num_cached_tokens,
        text=first.text,
        all_tokens=[list(one.token_ids) for one in output.outputs],
        logprobs=list(_by_token(first.logprobs or [])),
        prompt_logprobs=list(_by_token((output.prompt_logprobs or [])[1:])),
        texts=[one.text for one in output.outputs],
        error=str(first.stop_reason) if first.finish_reason == "error" else None,
    )


def _captured(one: Any, path: Path) -> dict[str, Any]:
    np.savez(path, positions=one.positions, **{str(layer): values for layer, values in one.rows.items()})
    return {"prompt": one.prompt, "tokens": one.tokens, "text": one.text, "path": str(path)}


def _by_token(steps: Any) -> Iterator[list[float]]:
    for step in steps:
        yield [step[token].logprob for token in sorted(step)]


def _refusal(error: Exception) -> Refusal:
    return Refusal(type(error).__name__, str(error), getattr(error, "parameter", None))


def _lose_layer(layer: int) -> None:
    """Leave out the addition of a layer that counts as armed, as a stale graph would."""
    from trimtab.plugin.model import arming as wrapper

    arm = wrapper._arm_layer
    setattr(wrapper, "_arm_layer", lambda module, table: None if table.layer == layer else arm(module, table))  # noqa: B010


def _inspect_here() -> None:
    """Let vLLM ask a model's class for its interfaces in this process: it would start one that imports vLLM anew."""
    from vllm.model_executor.models import registry

    def inspect(self: Any) -> Any:
        return registry._ModelInfo.from_model_cls(self.load_model_cls())

    setattr(registry._LazyRegisteredModel, "inspect_model_cls", inspect)  # noqa: B010


def _show_triton_a_cpu() -> None:
    """Let vLLM take Triton's interpreter for a device, so that model runner V2 runs here. Before vllm is imported."""
    import triton.backends
    from triton.backends import Backend

    class Driver:
        is_active = staticmethod(lambda: True)

    triton.backends.backends = {"cpu": Backend(compiler=None, driver=Driver)}
