"""From what a request asks for to what is served: request → admission → positions → kv."""
