"""The demo: `python -m examples.tinyworld.demo --out out`, which is what `make demo` runs.

profiles    questions about the world → dictionaries and profiles, with the offline CLI
server      `python serve.py` on them, started and stopped
client      questions over HTTP through the `openai` package
before_after  a few answers without steering and with it
vqa         the paper's table on the test split
gender      gender → neutral captions
throughput  steered against unsteered tokens a second
show        what a person reads
"""
