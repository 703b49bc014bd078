"""Who calls whom in vLLM: model runners V1 and V2, and the handshake of the processes."""
