"""What steering costs. Programs: `serving` beside plain vLLM, `hooks` beside the published way, `host` without a model,
`op` by itself, `gpu_step` in a decode step on a GPU, and `gpu` at the shape of a 7B model."""
