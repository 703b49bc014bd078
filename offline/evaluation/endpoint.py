"""Ask an OpenAI-compatible endpoint every question of a data set, many at once, and lose nothing.

An endpoint that is asked to steer must say in `X-Steering-*` headers that it did, with which profiles, strengths and
digests, and the same ones to the end; what answers without them did not steer, and the run stops.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import openai
from openai.types.chat import ChatCompletion
from tenacity import AsyncRetrying, RetryCallState, retry_if_exception, stop_after_delay, wait_random_exponential
from tqdm import tqdm

from trimtab.vectors.asked import NONE, Asked, parse

from ..errors import EndpointError
from ..states.samples import Sample
from .answers import Answered, AnswersFolder, Request, Served
from .data_url import UnreadablePicture, data_url

__all__ = ["Endpoint", "ask_all"]

_LONGEST_WAIT = 30.0


@dataclass(frozen=True)
class Endpoint:
    """base_url: up to and with /v1. timeout: of one request, in seconds. patience: how long one is tried again."""

    base_url: str
    api_key: str = "none"
    concurrency: int = 32
    timeout: float = 120.0
    patience: float = 300.0


def ask_all(
    endpoint: Endpoint,
    samples: Iterable[Sample],
    folder: AnswersFolder,
    *,
    progress: bool = False,
    warn: Callable[[str], None] = lambda message: None,
) -> None:
    """Ask what the folder lacks an answer to, and put each answer there as it comes.

    Raises:
        EndpointError: a request was refused (4xx), the endpoint did not answer for `patience` seconds, or it did not
            steer as it was asked to. The answers that came are in the folder.
    """
    missing = [sample for sample in samples if sample.id not in folder.answered]
    if not missing:
        return
    known = folder.request.samples
    with tqdm(total=known, initial=known - len(missing), unit="answer", disable=None if progress else True) as bar:
        try:
            asyncio.run(_Asking(endpoint, folder, bar, warn).all(missing))
        except ExceptionGroup as several:
            raise _first(several) from None


class _Asking:
    """One run: its client, the folder that answers go to, and the bar."""

    def __init__(self, endpoint: Endpoint, folder: AnswersFolder, bar: Any, warn: Callable[[str], None]) -> None:
        self._endpoint = endpoint
        self._folder = folder
        self._bar = bar
        self._warn = warn
        self._asked = parse(folder.request.steering)
        self._waiting = False

    async def all(self, missing: list[Sample]) -> None:
        client = openai.AsyncOpenAI(
            base_url=self._endpoint.base_url,
            api_key=self._endpoint.api_key,
            timeout=self._endpoint.timeout,
            max_retries=0,
        )
        async with client:
            todo = iter(missing)
            # A request that the endpoint refuses is refused once, not as often as there are questions at once.
            for sample in todo:
                if (await self._one(client, sample)).text is not None:
                    break
            async with asyncio.TaskGroup() as group:
                for _ in range(min(self._endpoint.concurrency, len(missing))):
                    group.create_task(self._work(client, todo))

    async def _work(self, client: openai.AsyncOpenAI, todo: Iterator[Sample]) -> None:
        for sample in todo:
            await self._one(client, sample)

    async def _one(self, client: openai.AsyncOpenAI, sample: Sample) -> Answered:
        try:
            body = await asyncio.to_thread(_body, sample, self._folder.request)
        except UnreadablePicture as error:
            answered = Answered(id=sample.id, skipped=str(error))
        else:
            answered = await self._answer(client, sample, body)
        self._folder.append(answered)
        self._bar.update()
        return answered

    async def _answer(self, client: openai.AsyncOpenAI, sample: Sample, body: dict[str, Any]) -> Answered:
        again = AsyncRetrying(
            retry=retry_if_exception(_may_pass),
            wait=wait_random_exponential(multiplier=0.5, max=_LONGEST_WAIT),
            stop=stop_after_delay(self._endpoint.patience),
            before_sleep=self._say_once,
            reraise=True,
        )
        try:
            raw: Any = await again(client.chat.completions.with_raw_response.create, **body)
            reply = raw.parse()
        except openai.APIStatusError as error:
            raise EndpointError(self._refused(sample, error)) from error
        except openai.APIConnectionError as error:
            raise EndpointError(
                f"{self._endpoint.base_url}: did not answer for {self._endpoint.patience:g} s ({_reason(error)}); "
                f"{len(self._folder.answered):,} of {self._folder.request.samples:,} answers are in "
                f"{self._folder.folder}, continue with --resume"
            ) from error
        except (openai.APIError, ValueError) as error:
            raise EndpointError(f"{self._endpoint.base_url}: its answer is no chat completion ({error})") from error
        self._waiting = False
        if not isinstance(reply, ChatCompletion) or not reply.choices:
            raise EndpointError(f"{self._endpoint.base_url}: its answer is no chat completion; is /v1 missing in it?")
        self._check_steering(raw.headers)
        choice = reply.choices[0]
        return Answered(id=sample.id, text=choice.message.content or "", cut=choice.finish_reason == "length")

    def _check_steering(self, headers: Mapping[str, str]) -> None:
        found = _served(headers)
        if not self._asked:
            if found is not None and found.profile != NONE:
                raise EndpointError(
                    f"{self._endpoint.base_url}: steered with {found.profile} though nothing was asked for"
                )
            return
        if found is None:
            raise EndpointError(
                f"{self._endpoint.base_url}: was asked to steer and answered without X-Steering-Profile, so it did "
                "not; ask a trimtab server, or leave --steering out"
            )
        if not _grants(found, self._asked):
            raise EndpointError(
                f"{self._endpoint.base_url}: steered with {found.profile} at {found.alpha}, which is not what was "
                f"asked for ({self._folder.request.steering!r})"
            )
        if self._folder.served is None:
            self._folder.note_served(found)
        elif self._folder.served != found:
            raise EndpointError(
                f"{self._endpoint.base_url}: steers with another profile than at the beginning of the run (digest "
                f"{found.digest}, not {self._folder.served.digest}); serve the first one again, or begin a new folder"
            )

    def _refused(self, sample: Sample, error: openai.APIStatusError) -> str:
        if _may_pass(error):
            return (
                f"{self._endpoint.base_url}: answered {error.status_code} for {self._endpoint.patience:g} s "
                f"({_reason(error)}); {len(self._folder.answered):,} of {self._folder.request.samples:,} answers are "
                f"in {self._folder.folder}, continue with --resume"
            )
        return f"{self._endpoint.base_url}: refused sample {sample.id} with {error.status_code}: {_reason(error)}"

    def _say_once(self, state: RetryCallState) -> None:
        if self._waiting or state.outcome is None:
            return
        self._waiting = True
        error = state.outcome.exception()
        self._warn(f"{self._endpoint.base_url}: {_reason(error)}; trying again for {self._endpoint.patience:g} s")


def _body(sample: Sample, request: Request) -> dict[str, Any]:
    """The arguments of a chat completion."""
    content: list[dict[str, Any]] = [{"type": "text", "text": request.prompt.replace("{question}", sample.question)}]
    if sample.image is not None:
        content.insert(0, {"type": "image_url", "image_url": {"url": data_url(sample.image)}})
    body = {
        "model": request.model,
        "messages": [{"role": "user", "content": content}],
        "temperature": request.temperature,
        "max_tokens": request.max_tokens,
    }
    return body if request.steering is None else {**body, "extra_body": {"steering": request.steering}}


def _may_pass(error: BaseException) -> bool:
    """Whether trying again makes sense: no connection, too many requests, or the server's own fault."""
    if isinstance(error, openai.APIStatusError):
        return error.status_code == 429 or error.status_code >= 500
    return isinstance(error, openai.APIConnectionError)


def _reason(error: BaseException | None) -> str:
    """The server's own sentence, or what the connection died of."""
    body = getattr(error, "body", None)
    if isinstance(body, dict) and body.get("message"):
        return str(body["message"])
    return str(getattr(error, "__cause__", None) or error)


def _served(headers: Mapping[str, str]) -> Served | None:
    profile = headers.get("x-steering-profile")
    if profile is None:
        return None
    return Served(profile=profile, alpha=headers.get("x-steering-alpha"), digest=headers.get("x-steering-digest"))


def _grants(found: Served, asked: tuple[Asked, ...]) -> bool:
    """Whether the headers name the profiles that were asked for, with a digest each, at the strengths asked for."""
    names, alphas, digests = (
        [part.strip() for part in (value or "").split(",")] for value in (found.profile, found.alpha, found.digest)
    )
    if names != [one.profile for one in asked] or len(alphas) != len(names) or not all(digests):
        return False
    try:
        strengths = [float(alpha) for alpha in alphas]
    except ValueError:
        return False
    return all(one.alpha in (None, strength) for one, strength in zip(asked, strengths, strict=True))


def _first(group: ExceptionGroup[Exception]) -> Exception:
    """The first error of the workers: the others met the same one, or were called off because of it."""
    first = group.exceptions[0]
    return _first(first) if isinstance(first, ExceptionGroup) else first
