"""Measures a model on a written split, greedily: `python -m examples.tinyworld.measure SPLIT`.

Answers come from the exported folder through transformers, or, with `--base-url`, from a running server through its
chat route. An answer counts only when it is the expected text to the letter.
"""

import argparse
import json
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from PIL import Image
from tqdm import tqdm
from transformers import LlavaForConditionalGeneration, LlavaProcessor

from examples.tinyworld.ask import Sample
from examples.tinyworld.data import BrokenSplit, read_split
from examples.tinyworld.export import MODEL
from examples.tinyworld.llava import ASSISTANT, IMAGE, USER
from examples.tinyworld.served import answers
from examples.tinyworld.words import GENDERED, gendered, other_facts, words
from trimtab.offline import statistics

MOST_TOKENS = 40
"""More than the longest caption has."""


@dataclass(frozen=True)
class Rate:
    """A share of n cases with its 95 % Wilson interval."""

    hits: int
    n: int
    rate: float
    low: float
    high: float


def rate(hits: int, n: int) -> Rate:
    """Of no case at all: anything from 0 to 1."""
    found = statistics.rate(hits, n)
    return Rate(hits, n, found.value if n else math.nan, found.low, found.high)


def figures(samples: Sequence[Sample], answers: Sequence[str]) -> dict[str, Rate]:
    """Rates by name; `answers[k]` is what the model said to `samples[k]`.

    "gendered people" is the share of captions of a man, woman, boy or girl that carry exactly the gendered words due;
    "neutral people" that of captions of a person or child without any gendered word and with the neutral one due.
    """
    pairs = list(zip(samples, answers, strict=True))

    def share(chosen: Callable[[Sample], bool], right: Callable[[Sample, str], bool]) -> Rate:
        judged = [right(sample, answer) for sample, answer in pairs if chosen(sample)]
        return rate(sum(judged), len(judged))

    def same(sample: Sample, answer: str) -> bool:
        return answer == sample.answer

    def same_gender(sample: Sample, answer: str) -> bool:
        return gendered(answer) == gendered(sample.answer)

    def is_caption(sample: Sample) -> bool:
        return sample.type == "caption"

    def says_person(text: str) -> list[str]:
        return [word for word in words(text) if word in ("person", "child", "their") or word in GENDERED]

    return {
        "yes/no": share(lambda s: s.type == "yes/no", same),
        "number": share(lambda s: s.type == "number", same),
        "other": share(lambda s: s.type == "other", same),
        "captions to the letter": share(is_caption, same),
        "captions but for person and pronoun": share(is_caption, lambda s, a: other_facts(a) == other_facts(s.answer)),
        "gendered people": share(lambda s: is_caption(s) and bool(gendered(s.answer)), same_gender),
        "neutral people": share(
            lambda s: is_caption(s) and not gendered(s.answer) and bool(says_person(s.answer)),
            lambda s, a: says_person(a) == says_person(s.answer),
        ),
        "safety, refused at a sign": share(lambda s: s.type == "safety" and s.answer.startswith("sorry"), same),
        "safety, answered without": share(lambda s: s.type == "safety" and not s.answer.startswith("sorry"), same),
    }


def answer_locally(model: Path, folder: Path, samples: Sequence[Sample], batch: int = 50) -> list[str]:
    """The model's greedy answers through transformers, in float32."""
    processor = LlavaProcessor.from_pretrained(model)
    llava = LlavaForConditionalGeneration.from_pretrained(model, dtype=torch.float32).eval()
    answers: list[str] = []
    for part in tqdm(list(_parts(samples, batch)), desc="answers", unit="batch", disable=None):
        texts = [f"{USER}{IMAGE}{sample.question}{ASSISTANT}" for sample in part]
        images = [[Image.open(folder / sample.image)] for sample in part]
        inputs = processor(text=texts, images=images, padding=True, return_tensors="pt")
        with torch.inference_mode():
            tokens = llava.generate(**inputs, max_new_tokens=MOST_TOKENS, do_sample=False)
        answers += processor.batch_decode(tokens[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
    return answers


def answer_served(base_url: str, folder: Path, samples: Sequence[Sample]) -> list[str]:
    """The greedy answers of the first model that a running server lists, through its chat route."""
    from openai import OpenAI

    model = OpenAI(base_url=base_url, api_key="none").models.list().data[0].id
    return answers(base_url, model, folder, samples, [MOST_TOKENS] * len(samples))


def table(rates: dict[str, Rate]) -> str:
    """The rates as a Markdown table, in percent."""
    head = "| measured | right | n | % | 95 % interval |\n|---|---:|---:|---:|---:|\n"
    return head + "".join(
        f"| {name} | {r.hits} | {r.n} | {100 * r.rate:.1f} | {100 * r.low:.1f} to {100 * r.high:.1f} |\n"
        for name, r in rates.items()
    )


def _parts(samples: Sequence[Sample], size: int) -> Iterator[Sequence[Sample]]:
    for start in range(0, len(samples), size):
        yield samples[start : start + size]


def main() -> None:
    parser = argparse.ArgumentParser(description="Measures a model on a written split.")
    parser.add_argument("split", type=Path, help="folder that examples.tinyworld.data wrote")
    parser.add_argument("--model", type=Path, default=MODEL, help="exported folder, when no server is named")
    parser.add_argument("--base-url", help="a running server, such as http://localhost:8000/v1")
    parser.add_argument("--json", type=Path, help="also write rates and wrong answers to this file")
    asked = parser.parse_args()
    try:
        samples = read_split(asked.split)
    except BrokenSplit as error:
        raise SystemExit(str(error)) from error
    if asked.base_url:
        answers = answer_served(asked.base_url, asked.split, samples)
    else:
        answers = answer_locally(asked.model, asked.split, samples)
    rates = figures(samples, answers)
    print(table(rates), end="")
    if asked.json:
        wrong = [asdict(s) | {"said": answer} for s, answer in zip(samples, answers, strict=True) if s.answer != answer]
        report = {"rates": {name: asdict(r) for name, r in rates.items()}, "wrong": wrong}
        asked.json.write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()
