"""Steering studies through the server: `python -m examples.tinyworld.study --out out/study [--part …]`.

lab        pictures, states of the residual stream, and the folders they lie in
exam       the questions of a split, asked through the server; an answer that was had is kept
trial      one steering at many strengths and layers: dev → operating point → test
words      yes → no, 1 → 3, white → black; layer × alpha; diversity against alpha
kinds      to yes/no, to number, to other
style      captions toward places and toward colors
choosing   which concept to which, by steering a dev set
stability  vectors from 50 samples
gender     gender → neutral captions
toward     the shipped model toward what a fine-tune for places and one for colors changed
safety     a fine-tune that answers at warning signs, brought back to refusal

Every part writes findings (`trimtab.offline.findings`) into OUT/run, and sets a null control beside what it measures:
random vectors of the same norms.
"""
