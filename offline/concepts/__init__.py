"""Concept dictionaries: how they are made, how good they are, and what their concepts stand for."""
