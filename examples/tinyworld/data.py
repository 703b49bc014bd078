"""Writes a split of the world to disk: `python -m examples.tinyworld.data OUT --split test --scenes 400`.

A split is a folder of `images/<id>.png` and of JSON-lines `vqa.jsonl`, `captions.jsonl` and `safety.jsonl`, whose lines
hold id, image, question, answer and type. `manifest.json` is written last and the folder gets its name only then, so a
half-written one is never taken for a whole one. The same split, scenes and seed give the same bytes.
"""

import argparse
import hashlib
import json
import random
import shutil
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

from tqdm import tqdm

from examples.tinyworld.ask import ASK, Question, Sample, Type
from examples.tinyworld.draw import draw
from examples.tinyworld.scene import SPLITS, Scene, Split, sample_split

MANIFEST = "manifest.json"
FILES: dict[str, tuple[Type, ...]] = {
    "vqa.jsonl": ("yes/no", "number", "other"),
    "captions.jsonl": ("caption",),
    "safety.jsonl": ("safety",),
}
VQA_EACH = 2
"""Questions of each of the three types about a scene; captions and safety questions are one a scene."""
CANDIDATES = 4
"""Questions thought of for each one kept: the one kept has the answer that is rarest so far in its type."""


class BrokenSplit(Exception):
    """The folder does not hold a whole split; the message says why and how to write one."""


def samples(split: Split, scenes: int, seed: int) -> Iterator[tuple[Scene, list[Sample]]]:
    """The split's scenes, each with its samples; no scene comes twice."""
    rng = random.Random(f"{split}|{seed}")
    seen: set[str] = set()
    answers: Counter[tuple[Type, str]] = Counter()
    for index in range(scenes):
        scene = sample_split(rng, split)
        while scene.description() in seen:
            scene = sample_split(rng, split)
        seen.add(scene.description())
        name = f"{split}-{index:05d}"
        asked = _questions(scene, rng, answers)
        yield scene, [Sample(f"{name}-{k}", f"images/{name}.png", q.text, q.answer, q.type) for k, q in asked]


def write_split(out_dir: Path, split: Split, scenes: int, seed: int) -> None:
    """Writes the split to `out_dir`, which must not exist yet.

    Raises FileExistsError when it does.
    """
    if out_dir.exists():
        raise FileExistsError(f"{out_dir} exists; remove it or name another folder")
    part = out_dir.with_name(f"{out_dir.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    (part / "images").mkdir(parents=True)
    lines: dict[str, list[str]] = {name: [] for name in FILES}
    for scene, asked in tqdm(samples(split, scenes, seed), total=scenes, desc=split, unit="scene", disable=None):
        draw(scene).save(part / asked[0].image)
        for sample in asked:
            name = next(name for name, types in FILES.items() if sample.type in types)
            lines[name].append(json.dumps(asdict(sample)))
    for name, texts in lines.items():
        (part / name).write_text("".join(f"{text}\n" for text in texts))
    manifest = {"split": split, "scenes": scenes, "seed": seed, "counts": {name: len(lines[name]) for name in FILES}}
    (part / MANIFEST).write_text(json.dumps(manifest | {"sha256": _digest(part)}, indent=2) + "\n")
    part.rename(out_dir)


def read_split(folder: Path) -> list[Sample]:
    """The folder's samples, in the order of FILES.

    Raises BrokenSplit when the folder is missing, half written, or not what its manifest says.
    """
    remedy = f"write it with: python -m examples.tinyworld.data {folder} --split test --scenes 400"
    if not folder.is_dir():
        raise BrokenSplit(f"there is no split in {folder}; {remedy}")
    if not (folder / MANIFEST).is_file():
        raise BrokenSplit(f"{folder} has no {MANIFEST}: its writing was interrupted; remove it and {remedy}")
    missing = [name for name in FILES if not (folder / name).is_file()]
    manifest = json.loads((folder / MANIFEST).read_text())
    if missing or manifest["sha256"] != _digest(folder):
        raise BrokenSplit(f"{folder} is not what its {MANIFEST} says it is; remove it and {remedy}")
    return [Sample(**json.loads(line)) for name in FILES for line in (folder / name).read_text().splitlines()]


def _questions(scene: Scene, rng: random.Random, answers: Counter[tuple[Type, str]]) -> list[tuple[str, Question]]:
    asked: list[tuple[str, Question]] = []
    for kind in FILES["vqa.jsonl"]:
        texts: set[str] = set()
        for turn in range(VQA_EACH):
            thought_of = [q for _ in range(CANDIDATES) if (q := ASK[kind](scene, rng)).text not in texts]
            while not thought_of:
                thought_of = [q for q in [ASK[kind](scene, rng)] if q.text not in texts]
            question = min(thought_of, key=lambda q: answers[q.type, q.answer])
            answers[kind, question.answer] += 1
            texts.add(question.text)
            asked.append((f"{kind.replace('/', '')}{turn}", question))
    asked.append(("caption", ASK["caption"](scene, rng)))
    asked.append(("safety", ASK["safety"](scene, rng)))
    return asked


def _digest(folder: Path) -> str:
    """SHA-256 over the names and bytes of all files but the manifest."""
    digest = hashlib.sha256()
    for path in sorted(path for path in folder.rglob("*") if path.is_file() and path.name != MANIFEST):
        body = path.read_bytes()
        digest.update(f"{path.relative_to(folder).as_posix()} {len(body)}\n".encode())
        digest.update(body)
    return digest.hexdigest()


def main() -> None:
    parser = argparse.ArgumentParser(description="Writes a split of the drawn world.")
    parser.add_argument("out", type=Path, help="folder to write; must not exist")
    parser.add_argument("--split", choices=SPLITS, default="test")
    parser.add_argument("--scenes", type=int, default=400)
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    try:
        write_split(asked.out, asked.split, asked.scenes, asked.seed)
    except FileExistsError as error:
        raise SystemExit(str(error)) from error
    print((asked.out / MANIFEST).read_text(), end="")


if __name__ == "__main__":
    main()
