"""From a model's activations to steering profiles."""
