"""The examples' client: answers in the order of their questions, whatever length each may have."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from examples.tinyworld.ask import Sample
from examples.tinyworld.served import answers
from tests.offline.fake_endpoint import FakeEndpoint, question_of
from trimtab.offline.errors import EndpointError

SAMPLES = [Sample(f"{n}", "one.png", f"question {n}", "", "caption" if n % 3 else "yes/no") for n in range(12)]
LENGTHS = [40 if one.type == "caption" else 6 for one in SAMPLES]


def test_answers_come_in_the_order_of_the_questions_and_with_what_was_asked(tmp_path: Path) -> None:
    Image.effect_noise((8, 8), 50).save(tmp_path / "one.png")
    server = FakeEndpoint()
    try:
        steering = {"profile": "p", "alpha": 0.35}
        said = answers(server.url, "m", tmp_path, SAMPLES, LENGTHS, steering=steering, extra={"logit_bias": {"7": 1.0}})
        assert said == [one.question for one in SAMPLES]
        assert {question_of(body): body["max_tokens"] for body in server.seen} == {
            one.question: length for one, length in zip(SAMPLES, LENGTHS, strict=True)
        }
        assert all(body["steering"] == steering and body["logit_bias"] == {"7": 1.0} for body in server.seen)
        server.mute = True
        with pytest.raises(EndpointError, match="without X-Steering-Profile"):
            answers(server.url, "m", tmp_path, SAMPLES, LENGTHS, steering="p")
        with pytest.raises(FileNotFoundError, match=r"one\.png"):
            answers(server.url, "m", tmp_path / "nowhere", SAMPLES, LENGTHS)
    finally:
        server.stop()
