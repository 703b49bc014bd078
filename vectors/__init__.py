"""Steering artefacts: format, validation, algebra and registry."""
