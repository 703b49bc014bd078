"""The HTTP side: routes, guard and metrics."""
