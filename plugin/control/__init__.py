"""What is served now, and to whom: the part of a server that an operator changes while it runs."""
