"""Experiments: which requests get which arm, and a log of who was given what.

assign    which arm a unit gets: a pure function
units     whose request it is
enter     how a request takes part, or why it may not
fits      whether a plan fits the profiles and the access policy
held      the plan that is in force, and the key of the units
expose    the log
command   `trimtab-serve experiments`
"""
