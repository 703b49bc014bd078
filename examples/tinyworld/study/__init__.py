"""Steering studies through the server, see README.md in this folder; `make study` runs all of them.

*.yaml     configurations of `trimtab tune`: words, kinds, style, choosing, gender, safety
prepare    the data and the fine-tune that they need
stability  vectors from 50 samples
toward     the shipped model toward what a fine-tune for places and one for colors changed
lab        what these two work on

Each sets a null control beside what it measures: random vectors of the same norms.
"""
