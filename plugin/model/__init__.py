"""The model: the operator, the tables of the profiles, the armed layers and the self-check."""
