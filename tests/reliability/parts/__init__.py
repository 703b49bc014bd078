"""One module per part, with `run(work, share)`.

work: a folder for what it writes, the same for all parts of a run. share: how much of it to do, 1 for the whole and 0.1
for a tenth. The result is what out/reliability.json says of the part; its list "wrong", empty or absent where all is
well, has a sentence for each thing that did not hold.
"""
