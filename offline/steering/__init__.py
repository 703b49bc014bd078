"""From states and dictionaries to steering profiles, and how strong to steer."""
