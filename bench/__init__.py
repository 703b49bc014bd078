"""What steering costs: `python -m bench.serving` beside plain vLLM, `python -m bench.host` on the host alone."""
