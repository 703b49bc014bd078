"""COCO captions: CIDEr and BLEU, words that name a gender, variety.

    DATA/*captions*.json   captions_val2014.json, or one in its form: images, and annotations with captions of them
    pictures               by their file_name, in the folder of pictures, DATA/val2014, DATA/images or DATA

CIDEr and BLEU come from pycocoevalcap, on words that a tokenizer of our own finds. The official evaluation runs the
Stanford tokenizer in Java; figures differ slightly from its own.
"""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...errors import DataError
from ...states.samples import Sample
from ...statistics import mean
from ..benchmark import Answers, Scores, digest_of, one_file, picture, read_json
from ..captions import ByGender
from ..gender import Lexicon

__all__ = ["CocoCaptions", "cider_and_bleu", "read_coco", "tokenised"]

RESULTS = "captions_results.json"
_TOKEN = re.compile(
    r"o'clock\b|n't\b|'(?:s|re|ve|d|ll|m)\b|\w+(?=n't\b)|\d+(?:[.,:]\d+)+|can(?=not\b)|(?<=\bcan)not\b"
    r"|\w+(?:[-/]\w+)*|[&$%#+=*]|-[lr][rsc]b-"
)
_BRACKETS = {mark: f" -{name}b- " for mark, name in zip("()[]{}", ("lr", "rr", "ls", "rs", "lc", "rc"), strict=True)}
_MARKS = str.maketrans({"’": "'", **_BRACKETS})  # the official evaluation counts brackets as words, under these names


def tokenised(caption: str) -> str:
    """Words of a caption in lower case, parted by spaces, without punctuation: "it's" is "it 's", "isn't" "is n't"."""
    return " ".join(_TOKEN.findall(caption.lower().translate(_MARKS)))


def cider_and_bleu(
    said: Mapping[str, str], references: Mapping[str, Sequence[str]]
) -> tuple[list[float], dict[str, float]]:
    """CIDEr of each caption, in the order of `said`, and BLEU-1 to 4 of all (from 0 to 1).

    Each caption needs a reference. CIDEr weighs words by how few of these captions' references have them: figures of
    different sets of pictures cannot be compared, and that of a single picture is 0.
    """
    from pycocoevalcap.bleu.bleu import Bleu
    from pycocoevalcap.cider.cider import Cider

    candidates = {one: [tokenised(caption)] for one, caption in said.items()}
    truths = {one: [tokenised(reference) for reference in references[one]] for one in said}
    _, each = Cider().compute_score(truths, candidates)
    bleu, _ = Bleu(4).compute_score(truths, candidates, verbose=0)
    return [float(score) for score in each], {f"BLEU-{n}": float(score) for n, score in enumerate(bleu, start=1)}


@dataclass(frozen=True)
class CocoCaptions(ByGender):
    """references: the captions of people, by image id, which is the sample's."""

    digest: str
    samples: tuple[Sample, ...]
    references: dict[str, tuple[str, ...]]
    lexicon: Lexicon
    most_tokens: int = 64
    prompt: str = "Describe the image in one short sentence."

    def score(self, answers: Answers) -> Scores:
        said = {one.id: answers[one.id] for one in self.samples if one.id in answers}
        each, bleu = cider_and_bleu(said, self.references)
        captions = list(said.values())
        results = [{"image_id": int(one), "caption": caption} for one, caption in said.items()]
        return Scores(
            measured={
                "CIDEr": mean(each),
                **self.kinds(captions),
            },
            plain={
                **bleu,
                "gendered words": float(sum(len(self.lexicon.words(caption)) for caption in captions)),
            },
            notes=(
                "CIDEr and BLEU are pycocoevalcap's on words of a tokenizer without Java; the official evaluation's "
                "figures differ slightly.",
                "CIDEr's interval takes the weights of words as given.",
            ),
            submission={RESULTS: json.dumps(results) + "\n"},
        )


def read_coco(folder: Path, images: Path | None = None, lexicon: Lexicon | None = None) -> CocoCaptions:
    """Read the captions file of a folder; pictures without a caption are left out.

    Raises:
        DataError: the file is missing or of another form; names it.
    """
    path = one_file(folder, "*captions*.json")
    content = read_json(path)
    references: dict[str, list[str]] = defaultdict(list)
    try:
        for one in content["annotations"]:
            references[str(int(one["image_id"]))].append(str(one["caption"]))
        places = [images] if images else [folder / "val2014", folder / "images", folder]
        samples = tuple(_sample(one, places) for one in content["images"] if references.get(str(int(one["id"]))))
    except (LookupError, TypeError, ValueError) as error:
        raise DataError(
            f"{path}: is not in the form of COCO captions (at {error}); expected images with id and file_name, and "
            "annotations with image_id and caption"
        ) from error
    truths = {one.id: tuple(references[one.id]) for one in samples}
    return CocoCaptions(digest_of(path), samples, truths, lexicon or Lexicon())


def _sample(one: dict[str, Any], places: list[Path]) -> Sample:
    name = str(one["file_name"])
    return Sample(id=str(int(one["id"])), question="caption", image=picture(places, name), type="caption")
