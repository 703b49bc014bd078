from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.offline.worlds import tokenizer
from trimtab.offline.models.words import Answer, find_phrases, first_discriminating, words_in

TOKENIZER = tokenizer()


def decode(ids: list[int]) -> str:
    return str(TOKENIZER.decode(ids, skip_special_tokens=True))


def answer(text: str) -> Answer:
    return Answer.decode(TOKENIZER.encode(text, add_special_tokens=False), decode)


def test_a_word_is_found_by_its_boundaries_and_never_inside_another() -> None:
    found = find_phrases("No snow, nobody; no-one says: NO", ["no"])
    assert [(word.start, word.stop) for word in found] == [(0, 2), (30, 32)]


def test_a_phrase_is_found_as_a_whole_and_wins_over_its_first_word() -> None:
    assert [word.text for word in find_phrases("ice cream on ice", ["ice", "ice cream"])] == ["ice cream", "ice"]


def test_words_keep_their_apostrophes_and_lose_their_case() -> None:
    assert [word.text for word in words_in("Don't: it’s 3 o'clock.")] == ["don't", "it’s", "3", "o'clock"]


@settings(deadline=None)  # the first decode loads things
@given(st.text(alphabet="yesnowma 13.ü漢😀", max_size=20))
def test_every_character_of_a_text_is_written_by_tokens_that_decode_to_it(text: str) -> None:
    written = answer(text)
    assert written.text == text
    for word in words_in(text):
        span = written.tokens_of(word.start, word.stop)
        assert word.text in decode([written.tokens[i] for i in span]).lower()
        for shorter in (span[1:], span[:-1]):  # no smaller run of tokens would do
            assert word.text not in decode([written.tokens[i] for i in shorter]).lower()


def test_the_first_discriminating_token_comes_after_everything_that_is_shared() -> None:
    assert first_discriminating([7, 1], [[7, 3]]) == 1
    assert first_discriminating([7, 1, 4], [[7, 3], [7, 1, 5], [9]]) == 2
    assert first_discriminating([7], [[8]]) == 0
    assert first_discriminating([7], [[7, 8]]) == 0  # the beginning of its rival: its last token is all there is
