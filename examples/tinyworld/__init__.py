"""A drawn world and a tiny multimodal LLM trained on it from scratch, small enough for tests and demonstrations."""
