"""What an engine of the tests imports, but nothing of trimtab: `processes` forks engines from a process that has it."""

from importlib import import_module

for _name in (
    "vllm.entrypoints.llm",  # first, as a user would have it: transformers may come no sooner than torch
    "vllm.model_executor.models.llava",
    "vllm.v1.engine.core",
    "vllm.v1.engine.llm_engine",
    "vllm.v1.worker.cpu_model_runner",
    "vllm.v1.worker.cpu_worker",
    "tests.engine.host",
):
    import_module(_name)
