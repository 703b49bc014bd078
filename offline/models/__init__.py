"""A model that is read: its answers, its states, its vocabulary and its words."""
