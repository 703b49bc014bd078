"""Serves steering profiles on vLLM. Importing this package is cheap: torch imports it at its own start."""
