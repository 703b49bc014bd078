"""What trimtab leans on in vLLM: every file and name, how it is used and where. The one table of it.

A release of vLLM is served with (`versions.SUPPORTED`) once each row was read in its source; for these rows that was
done in the releases of `READ_IN`. tests/plugin/test_seams.py holds the table to the installed vLLM and to our own
imports: a renamed seam is one failed test that names the row, and nothing of vLLM is imported without one.

The oldest is 0.29 because two rows begin there: `resolve_model_state_cls` (before it, nothing tells which state class a
model would get under model runner V2, so that we would have to decide it in vLLM's place) and the argument parser in
`entrypoints/launchers`.
"""

from __future__ import annotations

from typing import NamedTuple

__all__ = ["READ_IN", "SEAMS", "Seam"]

READ_IN = ("0.29.0", "0.30.0", "0.31.0", "0.32.0")


class Seam(NamedTuple):
    """One name of vLLM, and what of it is used.

    file: below `vllm/`, a module or a package. attributes: of `name`, separated by spaces. how: official (a documented
    way in), called, read, subclassed, or wrapped (replaced by a function of ours that calls it). used: our modules,
    separated by spaces. since: the first release that has it, where that is not the oldest of all.
    """

    file: str
    name: str
    attributes: str
    how: str
    used: str
    since: str = READ_IN[0]


_MODELS = "model_executor/models"
_CHAT = "entrypoints/openai/chat_completion"

SEAMS = (
    # The model, and what is armed in it.
    # Imported by name where the model of an engine is built; what is built inside of a model uses other names of it.
    Seam("model_executor/model_loader/base_loader.py", "initialize_model", "", "wrapped", "engine"),
    Seam("model_executor/layers/attention_layer_base.py", "AttentionLayerBase", "", "read", "model.layers"),
    Seam("config/compilation.py", "CompilationConfig", "static_forward_context", "read", "model.arming"),
    Seam("config/model.py", "ModelConfig", "get_total_num_hidden_layers", "called", "model.arming"),
    Seam("model_executor/models/utils.py", "PPMissingLayer", "", "read", "model.arming model.layers"),
    Seam("model_executor/models/interfaces.py", "SupportsMultiModal", "get_language_model", "called", "model.layers"),
    # The models that this vLLM lacks.
    Seam(
        "model_executor/models/registry.py",
        "ModelRegistry",
        "register_model get_supported_archs",
        "official",
        "architectures.brought",
    ),
    Seam("multimodal", "MULTIMODAL_REGISTRY", "register_processor", "official", "architectures.idefics2"),
    Seam(f"{_MODELS}/interfaces.py", "SupportsMultiModal", "embed_multimodal", "official", "architectures.idefics2"),
    Seam(
        f"{_MODELS}/interfaces.py",
        "SupportsMultiModal",
        "configure_mm_token_handling _mark_tower_model _mark_language_model",
        "called",
        "architectures.idefics2",
    ),
    Seam(f"{_MODELS}/interfaces.py", "SupportsLoRA", "packed_modules_mapping", "official", "architectures.idefics2"),
    Seam(f"{_MODELS}/interfaces.py", "SupportsPP", "", "official", "architectures.idefics2"),
    Seam(f"{_MODELS}/module_mapping.py", "MultiModelKeys", "from_string_field", "called", "architectures.idefics2"),
    Seam(f"{_MODELS}/utils.py", "AutoWeightsLoader", "load_weights", "called", "architectures.idefics2"),
    Seam(f"{_MODELS}/utils.py", "WeightsMapper", "orig_to_new_prefix", "called", "architectures.idefics2"),
    Seam(f"{_MODELS}/utils.py", "init_vllm_registered_model", "", "called", "architectures.idefics2"),
    Seam(f"{_MODELS}/utils.py", "maybe_prefix", "", "called", "architectures.idefics2"),
    Seam(
        f"{_MODELS}/idefics2_vision_model.py",
        "Idefics2VisionTransformer",
        "embeddings apply_encoder_attention_mask",
        "called",
        "architectures.idefics2",
    ),
    Seam(
        f"{_MODELS}/idefics2_vision_model.py",
        "Idefics2VisionEmbeddings",
        "patch_embedding num_patches_per_side",
        "read",
        "architectures.idefics2",
    ),
    Seam(
        "multimodal/processing",
        "BaseMultiModalProcessor",
        "_postprocess_prompt _postprocess_hf_mm_data _get_mm_fields_config _get_prompt_updates",
        "subclassed",
        "architectures.idefics2_inputs",
    ),
    Seam(
        "multimodal/processing",
        "BaseProcessingInfo",
        "get_hf_processor get_hf_config get_supported_mm_limits get_mm_max_tokens_per_item",
        "subclassed",
        "architectures.idefics2_inputs",
    ),
    Seam(
        "multimodal/processing",
        "BaseDummyInputsBuilder",
        "get_dummy_text get_dummy_mm_data _get_dummy_images",
        "subclassed",
        "architectures.idefics2_inputs",
    ),
    Seam("multimodal/processing", "PromptReplacement", "", "called", "architectures.idefics2_inputs"),
    Seam("multimodal/processing", "PromptUpdateDetails", "select_token_id", "called", "architectures.idefics2_inputs"),
    Seam("multimodal/inputs.py", "MultiModalFieldConfig", "batched", "called", "architectures.idefics2_inputs"),
    # The configuration.
    Seam("config/vllm.py", "VllmConfig", "additional_config", "official", "config"),
    Seam("config/vllm.py", "VllmConfig", "__post_init__", "wrapped", "asking"),
    Seam("config/vllm.py", "VllmConfig", "compute_hash", "wrapped", "engine"),
    Seam("config/vllm.py", "VllmConfig", "model_config", "read", "engine compat.features model.arming"),
    Seam("config/vllm.py", "VllmConfig", "parallel_config cache_config load_config", "read", "compat.features"),
    Seam("config/vllm.py", "VllmConfig", "kv_transfer_config weight_transfer_config", "read", "compat.features"),
    Seam("config/vllm.py", "VllmConfig", "speculative_config", "read", "compat.features"),
    Seam("config/vllm.py", "VllmConfig", "scheduler_config compilation_config", "read", "model.arming"),
    Seam("config/vllm.py", "VllmConfig", "use_v2_model_runner", "read", "engine"),
    Seam("config/vllm.py", "get_current_vllm_config", "", "called", "runners.v2"),
    Seam("config/model.py", "ModelConfig", "model revision", "read", "config"),
    Seam("config/model.py", "ModelConfig", "runner_type is_diffusion is_encoder_decoder", "read", "compat.features"),
    Seam("config/model.py", "ModelConfig", "runner_type", "read", "engine"),
    Seam("config/model.py", "ModelConfig", "dtype get_hidden_size", "read", "model.arming"),
    Seam(
        "config/parallel.py", "ParallelConfig", "prefill_context_parallel_size use_ubatching", "read", "compat.features"
    ),
    Seam("config/parallel.py", "ParallelConfig", "use_sequence_parallel_moe", "read", "compat.features"),
    Seam("config/parallel.py", "ParallelConfig", "pipeline_parallel_size", "read", "runners.handshake"),
    Seam("config/parallel.py", "ParallelConfig", "rank", "read", "engine"),
    Seam("config/model.py", "ModelConfig", "hf_text_config dtype", "read", "compat.features"),
    Seam("config/model.py", "ModelConfig", "hf_config", "read", "model.proven"),
    Seam("config/cache.py", "CacheConfig", "kv_sharing_fast_prefill", "read", "compat.features"),
    Seam("config/load.py", "LoadConfig", "load_format", "read", "compat.features"),
    Seam("config/load.py", "LoadConfig", "download_dir", "read", "config capture.folder"),
    Seam("config/scheduler.py", "SchedulerConfig", "max_num_batched_tokens max_num_seqs", "read", "model.arming"),
    Seam("config/compilation.py", "CompilationConfig", "max_cudagraph_capture_size", "read", "model.arming"),
    Seam("envs.py", "VLLM_PLUGINS", "", "read", "config serve"),
    Seam("envs.py", "VLLM_USE_MODELSCOPE", "", "read", "config"),
    # Gets our own variable, which vLLM would warn of.
    Seam("envs.py", "environment_variables", "", "called", "engine"),
    Seam("envs.py", "VLLM_SKIP_MODEL_NAME_VALIDATION", "", "read", "requests.model_names"),
    Seam("envs.py", "VLLM_USE_RUST_FRONTEND", "", "read", "compat.features"),
    # A request on its way in.
    Seam("v1/engine/input_processor.py", "InputProcessor", "__init__ process_inputs", "wrapped", "engine"),
    Seam("v1/engine/input_processor.py", "InputProcessor", "vllm_config renderer", "read", "engine"),
    Seam("entrypoints/llm.py", "LLM", "beam_search", "wrapped", "requests.beams"),
    Seam("entrypoints/llm.py", "LLM", "llm_engine", "read", "requests.beams"),
    Seam("v1/engine", "EngineCoreRequest", "sampling_params mm_features resumable", "read", "requests.admission"),
    Seam("v1/engine", "EngineCoreRequest", "prompt_token_ids prompt_embeds", "read", "requests.admission"),
    Seam(
        "sampling_params.py",
        "SamplingParams",
        "extra_args",
        "official",
        "requests.admission requests.fields requests.front requests.kv runners.v1 runners.v2",
    ),
    Seam("renderers/base.py", "BaseRenderer", "mm_processor_cache", "read", "engine requests.front"),
    # A module until 0.30, a package since.
    Seam("multimodal/cache", "BaseMultiModalProcessorCache", "clear_cache", "called", "requests.sent_pictures"),
    Seam("multimodal/cache", "ShmObjectStoreSenderCache", "_shm_cache", "read", "requests.sent_pictures"),
    Seam(
        "distributed/device_communicators/shm_object_storage.py",
        "SingleWriterShmObjectStorage",
        "key_index writer_flag",
        "read",
        "requests.sent_pictures",
    ),
    Seam("multimodal/inputs.py", "MultiModalFeatureSpec", "mm_hash", "read", "engine"),
    Seam("multimodal/inputs.py", "MultiModalFeatureSpec", "mm_position", "read", "requests.admission"),
    Seam("multimodal/inputs.py", "PlaceholderRange", "offset length is_embed", "read", "requests.positions"),
    Seam("exceptions.py", "VLLMValidationError", "parameter", "called", "requests.admission"),
    Seam("exceptions.py", "GracefulHTTPError", "", "called", "requests.admission"),
    Seam("exceptions.py", "VLLMNotFoundError", "", "called", "http.doors"),
    # The cached blocks that it may share: looked up where it is defined, and imported by name elsewhere.
    Seam("v1/core/kv_cache_utils.py", "generate_block_hash_extra_keys", "", "wrapped", "requests.kv"),
    Seam("v1/core/block_pool.py", "generate_block_hash_extra_keys", "", "wrapped", "requests.kv"),
    Seam(
        "v1/simple_kv_offload/manager.py",
        "generate_block_hash_extra_keys",
        "",
        "wrapped",
        "requests.kv",
        since="0.30.0",
    ),
    # Its rows in the batch of a step, under either model runner.
    Seam("v1/worker/gpu_model_runner.py", "GPUModelRunner", "_prepare_inputs", "wrapped", "runners.v1"),
    Seam("v1/worker/gpu_model_runner.py", "GPUModelRunner", "get_model input_batch requests", "read", "runners.v1"),
    Seam("v1/worker/gpu_input_batch.py", "InputBatch", "req_ids num_computed_tokens_cpu", "read", "runners.v1"),
    Seam("v1/core/sched/output.py", "SchedulerOutput", "scheduled_new_reqs", "read", "runners.v1"),
    Seam("v1/worker/gpu_input_batch.py", "InputBatch", "generators", "read", "runners.seeds"),
    Seam("v1/worker/gpu_input_batch.py", "CachedRequestState", "generator", "read", "runners.seeds"),
    Seam("v1/worker/gpu_input_batch.py", "CachedRequestState", "sampling_params", "read", "runners.v1"),
    # The class that it finds, or the model's own `get_model_state_cls`, is what ours extends.
    Seam("v1/worker/gpu/model_states", "resolve_model_state_cls", "", "called", "runners.v2"),
    Seam("v1/worker/gpu/model_states/interface.py", "ModelState", "add_request", "official", "runners.v2"),
    Seam("v1/worker/gpu/model_states/interface.py", "ModelState", "remove_request", "official", "runners.v2"),
    Seam("v1/worker/gpu/model_states/interface.py", "ModelState", "prepare_inputs", "official", "runners.v2"),
    Seam("v1/worker/gpu/input_batch.py", "InputBatch", "num_reqs req_ids", "read", "runners.v2"),
    Seam("v1/worker/gpu/input_batch.py", "InputBatch", "num_computed_tokens_np", "read", "runners.v2"),
    Seam("v1/worker/gpu/input_batch.py", "InputBatch", "num_scheduled_tokens", "read", "runners.v2"),
    Seam("v1/worker/gpu/model_runner.py", "GPUModelRunner", "finish_requests", "wrapped", "runners.v2"),
    Seam("v1/worker/gpu/model_runner.py", "GPUModelRunner", "model_state", "read", "runners.v2"),
    Seam("v1/core/sched/output.py", "SchedulerOutput", "finished_req_ids preempted_req_ids", "read", "runners.v2"),
    Seam("v1/core/sched/output.py", "NewRequestData", "req_id sampling_params", "read", "runners.v2"),
    # Rows that leave. WorkerBase gets methods that `collective_rpc` calls.
    Seam("v1/engine/llm_engine.py", "LLMEngine", "abort_request", "wrapped", "capture.calls"),
    Seam("distributed", "get_tensor_model_parallel_rank", "", "called", "capture.runners"),
    Seam("sampling_params.py", "SamplingParams", "skip_reading_prefix_cache", "official", "capture.request"),
    Seam("entrypoints/llm.py", "LLM", "llm_engine", "official", "capture.work"),
    # What opens a picture for the chat route.
    Seam("multimodal/media/image.py", "ImageMediaIO", "load_file", "called", "capture.work"),
    # The error of a request whose steering is lost, from the worker through the scheduler to who asked.
    Seam("v1/worker/gpu_model_runner.py", "GPUModelRunner", "sample_tokens", "wrapped", "runners.lost"),
    Seam("v1/worker/gpu/model_runner.py", "GPUModelRunner", "sample_tokens", "wrapped", "runners.lost"),
    Seam("v1/worker/gpu/model_runner.py", "GPUModelRunner", "get_model", "called", "runners.lost"),
    Seam("v1/outputs.py", "ModelRunnerOutput", "req_ids", "read", "runners.lost"),
    Seam("v1/outputs.py", "AsyncModelRunnerOutput", "get_output", "called", "runners.lost"),
    Seam("v1/core/sched/scheduler.py", "Scheduler", "update_from_output", "wrapped", "runners.lost"),
    Seam("v1/core/sched/scheduler.py", "Scheduler", "finish_requests", "called", "runners.lost"),
    Seam("v1/core/sched/scheduler.py", "Scheduler", "requests kv_cache_config", "read", "runners.lost"),
    Seam("v1/core/kv_cache_manager.py", "KVCacheManager", "get_block_ids evict_blocks", "called", "runners.lost"),
    Seam("v1/core/kv_cache_manager.py", "KVCacheManager", "block_pool", "read", "runners.lost"),
    Seam("v1/core/block_pool.py", "BlockPool", "num_gpu_blocks null_block", "read", "runners.lost"),
    Seam("v1/core/sched/output.py", "NewRequestData", "req_id num_computed_tokens", "read", "runners.lost"),
    Seam("v1/core/sched/output.py", "CachedRequestData", "req_ids num_computed_tokens", "read", "runners.lost"),
    Seam("v1/kv_cache_interface.py", "KVCacheSpec", "block_size", "read", "runners.lost"),
    Seam("v1/request.py", "Request", "client_index is_finished request_id sampling_params", "read", "runners.lost"),
    Seam("v1/request.py", "RequestStatus", "FINISHED_ERROR", "read", "runners.lost"),
    Seam("v1/engine", "FinishReason", "ERROR", "read", "runners.lost"),
    Seam("v1/engine", "EngineCoreOutputs", "outputs", "read", "runners.lost"),
    Seam("v1/engine", "EngineCoreOutput", "new_token_ids new_logprobs", "read", "runners.lost"),
    Seam("v1/engine", "EngineCoreOutput", "finish_reason stop_reason", "read", "runners.lost"),
    Seam("outputs.py", "CompletionOutput", "stop_reason", "read", "requests.lost"),
    Seam("exceptions.py", "GenerationError", "", "called", "requests.lost"),
    # Where the counts of concepts are read, between two steps.
    Seam("v1/worker/gpu_model_runner.py", "GPUModelRunner", "execute_model", "wrapped", "runners.concepts"),
    Seam("v1/worker/gpu/model_runner.py", "GPUModelRunner", "execute_model", "wrapped", "runners.concepts"),
    Seam("v1/worker/gpu_model_runner.py", "GPUModelRunner", "get_model vllm_config", "read", "runners.concepts"),
    Seam("v1/core/sched/output.py", "SchedulerOutput", "total_num_scheduled_tokens", "read", "runners.concepts"),
    Seam("config/parallel.py", "ParallelConfig", "rank tensor_parallel_size", "read", "runners.concepts"),
    Seam("config/model.py", "ModelConfig", "enable_sleep_mode", "read", "runners.concepts"),
    Seam("v1/worker/worker_base.py", "WorkerBase", "model_runner", "read", "runners.staging"),
    # What a front end keeps of a request until it ends.
    Seam(
        "v1/engine/output_processor.py",
        "OutputProcessor",
        "add_request abort_requests _update_stats_from_finished",
        "wrapped",
        "control.finished",
    ),
    Seam("v1/engine/output_processor.py", "OutputProcessor", "request_states", "read", "control.finished"),
    Seam("v1/engine/output_processor.py", "OutputProcessor", "do_tracing", "wrapped", "control.spans"),
    Seam("v1/engine/output_processor.py", "RequestState", "stats external_req_id", "read", "control.spans"),
    Seam("v1/engine", "EngineCoreOutput", "trace_headers", "read", "control.spans"),
    Seam("tracing", "instrument_manual", "", "called", "control.spans"),
    Seam("tracing", "extract_trace_context", "", "called", "control.spans"),
    Seam(
        "v1/engine/output_processor.py",
        "RequestState",
        "stats prompt_len num_cached_tokens detokenizer",
        "read",
        "control.finished",
    ),
    Seam(
        "v1/metrics/stats.py",
        "RequestStateStats",
        "num_generation_tokens arrival_time queued_ts scheduled_ts first_token_ts last_token_ts first_token_latency",
        "read",
        "control.finished",
    ),
    Seam("v1/metrics/stats.py", "IterationStats", "iteration_timestamp", "read", "control.finished"),
    Seam("v1/engine/parallel_sampling.py", "ParentRequest", "sampling_params", "read", "control.finished"),
    # A version of a profile that comes into a running engine. WorkerBase gets two methods.
    Seam("v1/engine/core.py", "EngineCore", "collective_rpc", "wrapped", "runners.staging"),
    Seam("v1/engine/core.py", "EngineCore", "scheduler", "read", "runners.staging"),
    Seam("v1/core/sched/scheduler.py", "Scheduler", "requests", "read", "runners.staging"),
    Seam("v1/request.py", "Request", "sampling_params", "read", "runners.staging"),
    Seam("v1/worker/worker_base.py", "WorkerBase", "get_model vllm_config", "read", "runners.staging"),
    Seam("engine/protocol.py", "EngineClient", "collective_rpc check_health", "official", "http.admin"),
    # The checks before anything is served.
    Seam("v1/executor/abstract.py", "Executor", "compile_or_warm_up_model", "wrapped", "runners.handshake"),
    Seam("v1/executor/abstract.py", "Executor", "collective_rpc vllm_config", "called", "runners.handshake"),
    Seam("v1/worker/worker_base.py", "WorkerBase", "model_runner", "read", "runners.handshake"),
    Seam("v1/worker/gpu_model_runner.py", "GPUModelRunner", "_dummy_run", "called", "model.dummy"),
    Seam("v1/worker/gpu/model_runner.py", "GPUModelRunner", "_dummy_run", "called", "model.dummy"),
    Seam("v1/worker/gpu/model_runner.py", "GPUModelRunner", "cudagraph_manager", "read", "model.dummy"),
    Seam("v1/worker/gpu/cudagraph_utils.py", "CudaGraphManager", "_graphs_captured", "read", "model.dummy"),
    Seam("config/compilation.py", "CUDAGraphMode", "NONE", "read", "model.dummy"),
    Seam("compilation/decorators.py", "support_torch_compile", "", "read", "model.dummy"),
    # Blocks of their own for dummy requests.
    Seam("model_executor/layers/mamba/abstract.py", "MambaBase", "kv_cache", "read", "model.blocks"),
    Seam("v1/kv_cache_interface.py", "KVCacheConfig", "num_blocks kv_cache_groups", "read", "model.blocks"),
    Seam(
        "v1/worker/block_table.py", "MultiGroupBlockTable", "add_row commit_block_table clear", "called", "model.blocks"
    ),
    Seam("v1/worker/gpu/block_table.py", "BlockTables", "get_dummy_block_tables", "wrapped", "model.blocks"),
    Seam("v1/worker/gpu_model_runner.py", "GPUModelRunner", "_dummy_run", "wrapped", "runners.v1"),
    # The server. WorkerBase gets a method that `collective_rpc` calls.
    Seam("v1/worker/worker_base.py", "WorkerBase", "get_model", "called", "runners.handshake"),
    Seam("engine/protocol.py", "EngineClient", "vllm_config", "read", "http.doors"),
    Seam("engine/protocol.py", "EngineClient", "collective_rpc", "official", "runners.handshake"),
    Seam(
        "plugins/endpoint_plugins/interface.py", "EndpointPlugin", "attach_router init_state", "official", "http.doors"
    ),
    # Looked up where it is defined, and imported by name where a server is started.
    Seam("plugins/endpoint_plugins/interface.py", "init_endpoint_plugins_state", "", "wrapped", "http.attached"),
    Seam(
        "entrypoints/launchers/api_server/app_state.py",
        "init_endpoint_plugins_state",
        "",
        "wrapped",
        "http.attached",
    ),
    # A prompt that is rendered, and the request classes that keep unknown fields.
    Seam("v1/engine/async_llm.py", "AsyncLLM", "generate", "wrapped", "requests.front"),
    Seam("inputs/engine.py", "MultiModalInput", "mm_placeholders mm_hashes prompt_token_ids", "read", "requests.front"),
    Seam("inputs/engine.py", "EmbedsInput", "prompt_embeds", "read", "requests.front"),
    Seam(
        f"{_CHAT}/protocol.py",
        "ChatCompletionRequest",
        "to_sampling_params to_beam_search_params",
        "wrapped",
        "requests.fields",
    ),
    Seam(
        "entrypoints/openai/completion/protocol.py",
        "CompletionRequest",
        "to_sampling_params to_beam_search_params",
        "wrapped",
        "requests.fields",
    ),
    Seam(
        "entrypoints/openai/responses/protocol.py",
        "ResponsesRequest",
        "to_sampling_params",
        "wrapped",
        "requests.fields",
    ),
    # Text fields of a form are unknown fields, too.
    Seam(
        "entrypoints/speech_to_text/transcription/protocol.py",
        "TranscriptionRequest",
        "to_sampling_params to_beam_search_params",
        "wrapped",
        "requests.fields",
    ),
    Seam(
        "entrypoints/speech_to_text/translation/protocol.py",
        "TranslationRequest",
        "to_sampling_params to_beam_search_params",
        "wrapped",
        "requests.fields",
    ),
    Seam(
        "entrypoints/anthropic/serving.py",
        "AnthropicServingMessages",
        "_build_base_request",
        "wrapped",
        "requests.fields",
    ),
    # Where a request says whose it is.
    Seam(
        f"{_CHAT}/protocol.py",
        "ChatCompletionRequest",
        "user session_id messages",
        "read",
        "control.experiments.units",
    ),
    Seam(
        "entrypoints/openai/responses/protocol.py",
        "ResponsesRequest",
        "user session_id input instructions previous_response_id",
        "read",
        "control.experiments.units",
    ),
    Seam(
        "entrypoints/openai/completion/protocol.py",
        "CompletionRequest",
        "user session_id",
        "read",
        "control.experiments.units",
    ),
    Seam("entrypoints/anthropic/protocol.py", "AnthropicMessagesRequest", "metadata", "read", "requests.fields"),
    # The first thing that each serving class does with a request, where a profile is read from the model's name.
    Seam("entrypoints/serve/engine/serving.py", "BaseServing", "_check_model", "wrapped", "requests.model_names"),
    Seam("entrypoints/serve/engine/serving.py", "BaseServing", "models", "read", "requests.model_names"),
    Seam(
        "entrypoints/openai/models/serving.py",
        "OpenAIServingModels",
        "engine_client base_model_paths lora_requests",
        "read",
        "requests.model_names",
    ),
    Seam(
        "entrypoints/openai/models/serving.py", "OpenAIServingModels", "show_available_models", "wrapped", "http.cards"
    ),
    Seam("entrypoints/serve/engine/protocol.py", "ModelCard", "", "called", "http.cards"),
    # The routes that ours stand for, their request classes, and what an answer is.
    Seam(f"{_CHAT}/api_router.py", "router", "routes", "read", "http.steered"),
    Seam("entrypoints/openai/completion/api_router.py", "router", "routes", "read", "http.steered"),
    Seam("entrypoints/openai/responses/api_router.py", "router", "routes", "read", "http.steered"),
    Seam("entrypoints/anthropic/api_router.py", "router", "routes", "read", "http.steered"),
    Seam(f"{_CHAT}/protocol.py", "ChatCompletionRequest", "", "subclassed", "http.steered"),
    Seam(f"{_CHAT}/protocol.py", "BatchChatCompletionRequest", "", "subclassed", "http.steered requests.model_names"),
    Seam("entrypoints/openai/completion/protocol.py", "CompletionRequest", "", "subclassed", "http.steered"),
    Seam("entrypoints/openai/responses/protocol.py", "ResponsesRequest", "", "subclassed", "http.steered"),
    Seam("entrypoints/anthropic/protocol.py", "AnthropicMessagesRequest", "", "subclassed", "http.steered"),
    Seam("entrypoints/openai/responses/protocol.py", "ResponsesResponse", "from_request", "wrapped", "http.told"),
    # Called before the stream of a response begins, which asks the engine in it.
    Seam(
        "entrypoints/openai/responses/serving.py",
        "OpenAIServingResponses",
        "_generate_with_builtin_tools",
        "wrapped",
        "requests.front",
    ),
    Seam(f"{_CHAT}/protocol.py", "ChatCompletionRequest", "use_beam_search", "read", "requests.front"),
    Seam(
        "renderers/online_renderer.py",
        "OnlineRenderer",
        "preprocess_chat preprocess_completion",
        "wrapped",
        "requests.front",
    ),
    Seam("renderers/online_renderer.py", "OnlineRenderer", "renderer", "read", "requests.front"),
    Seam("renderers/base.py", "BaseRenderer", "config", "read", "requests.front"),
    Seam("entrypoints/serve/utils/api_utils.py", "cli_env_setup", "", "called", "serve"),
    Seam("entrypoints/cli/serve.py", "ServeSubcommand", "cmd", "called", "serve"),
    Seam("engine/arg_utils.py", "EngineArgs", "shutdown_timeout", "read", "serve"),
    Seam("entrypoints/launchers/cli_args.py", "make_arg_parser", "", "called", "serve"),
    Seam("entrypoints/launchers/cli_args.py", "validate_parsed_serve_args", "", "called", "serve"),
    Seam("utils/argparse_utils.py", "FlexibleArgumentParser", "", "called", "serve"),
    # The doctor.
    Seam("engine/arg_utils.py", "EngineArgs", "create_engine_config", "official", "doctor.look"),
    Seam("model_executor/model_loader/utils.py", "initialize_model", "", "called", "doctor.look"),
    Seam("config/vllm.py", "set_current_vllm_config", "", "called", "doctor.look"),
    Seam("utils/torch_utils.py", "set_default_torch_dtype", "", "called", "doctor.look"),
    Seam("distributed/parallel_state.py", "init_distributed_environment", "", "called", "doctor.look"),
    Seam("distributed/parallel_state.py", "ensure_model_parallel_initialized", "", "called", "doctor.look"),
    Seam("distributed/parallel_state.py", "cleanup_dist_env_and_memory", "", "called", "doctor.look"),
    Seam("entrypoints/llm.py", "LLM", "generate", "official", "doctor.trial"),
    Seam("inputs", "TokensPrompt", "prompt_token_ids", "official", "doctor.trial"),
)
