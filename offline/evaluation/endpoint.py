"""Ask an OpenAI-compatible endpoint every question of a data set, many at once, and lose nothing.

An endpoint that is asked to steer must say in `X-Steering-*` headers that it did, with which profiles, strengths and
digests, and the same ones to the end; what answers without them did not steer, and the run stops.

A sample that the endpoint refuses for good, such as one that is too long, is put aside with the endpoint's words. When
the first three are refused, or more than `max_refused`, the run stops: then it is not the sample that is wrong.
"""

from __future__ import annotations

import asyncio
from base64 import b64encode
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote, urlsplit, urlunsplit

import openai
from openai._base_client import make_request_options
from openai._constants import RAW_RESPONSE_HEADER
from openai.types.chat import ChatCompletion
from tenacity import AsyncRetrying, RetryCallState, retry_if_exception, stop_before_delay, wait_random_exponential

from trimtab.vectors.asked import NONE, parse

from ..errors import EndpointError
from ..images import UnreadableImage
from ..progress import progress as shown
from ..states.samples import Sample
from .answers import Answered, AnswersFolder, RunRequest
from .attempts import may_pass, reason_of, retry_after
from .data_url import data_url
from .steered import grants, served_by

__all__ = ["Endpoint", "ask_all"]

_LONGEST_WAIT = 30.0
_FIRST = 3
_OF_ONE_SAMPLE = (400, 413, 422)
"""Statuses that speak of this request; 401, 403, 404 and others speak of all of them."""
_OF_ALL = ("model", "steering")
"""Fields of a request that all have in common: a refusal that names one of them concerns every sample."""


class _Refused(Exception):
    """A sample was refused for good; its message is the endpoint's."""


@dataclass(frozen=True)
class Endpoint:
    """base_url: up to and with /v1. timeout: of one request, in seconds. patience: how long one is tried again.

    max_refused: how many samples may be refused for good; one in a hundred and at least ten where it is None.
    """

    base_url: str
    api_key: str = field(default="none", repr=False)
    concurrency: int = 32
    timeout: float = 120.0
    patience: float = 300.0
    max_refused: int | None = None

    @property
    def shown(self) -> str:
        """base_url as it may be written down: without user, password and query."""
        parts = urlsplit(self.base_url)
        return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))

    @property
    def address(self) -> str:
        """base_url without user and password, which aiohttp takes from no URL beside a key."""
        parts = urlsplit(self.base_url)
        return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))

    @property
    def headers(self) -> dict[str, str]:
        """Basic authorisation in the place of the key, where base_url has a user."""
        user, _, _ = urlsplit(self.base_url).netloc.rpartition("@")
        return {"Authorization": f"Basic {b64encode(unquote(user).encode()).decode()}"} if user else {}

    def refusals_allowed(self, samples: int) -> int:
        return max(10, samples // 100) if self.max_refused is None else self.max_refused


def ask_all(
    endpoint: Endpoint,
    samples: Iterable[Sample],
    folder: AnswersFolder,
    *,
    progress: bool = False,
    label: str = "",
    warn: Callable[[str], None] = lambda message: None,
) -> None:
    """Ask what the folder lacks an answer to, and put each answer there as it comes.

    progress: show how far it is; with a `label` it stands before the bar, which goes away when all is done.

    Raises:
        EndpointError: more requests were refused than may be, the endpoint did not answer for `patience` seconds, or it
            did not steer as it was asked to. The answers that came are in the folder.
    """
    missing = folder.missing(samples)
    if not missing:
        return
    known = folder.request.samples
    what = f"{label:<34}" if label else "evaluate"
    done = known - len(missing)
    with shown(what, known, done, unit="answer", show=progress, leave=not label) as advance:
        try:
            asyncio.run(_Asking(endpoint, folder, advance, warn).all(missing))
        except ExceptionGroup as several:
            raise _first(several) from None


class _Asking:
    """One run: its client, the folder that answers go to, and the bar."""

    def __init__(
        self, endpoint: Endpoint, folder: AnswersFolder, advance: Callable[[int], None], warn: Callable[[str], None]
    ) -> None:
        self._endpoint = endpoint
        self._folder = folder
        self._advance = advance
        self._warn = warn
        self._asked = parse(folder.request.steering)
        self._waiting = False
        self._not_before = 0.0
        self._refused = 0
        self._got_one = any(one.text is not None for one in folder.answered.values())

    async def all(self, missing: list[Sample]) -> None:
        client = openai.AsyncOpenAI(
            base_url=self._endpoint.address,
            api_key=self._endpoint.api_key,
            default_headers=self._endpoint.headers,
            timeout=self._endpoint.timeout,
            max_retries=0,
            http_client=openai.DefaultAioHttpClient(),  # half of httpx's work per request
        )
        async with client:
            todo = iter(missing)
            # What the endpoint refuses of every sample is refused a few times, not as often as there are questions.
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
        except UnreadableImage as error:
            answered = Answered(id=sample.id, skipped=str(error))
        else:
            try:
                answered = await self._answer(client, sample, body)
            except _Refused as error:
                answered = self._put_aside(sample, str(error))
        self._folder.append(answered)
        self._advance(1)
        return answered

    async def _answer(self, client: openai.AsyncOpenAI, sample: Sample, body: dict[str, Any]) -> Answered:
        again = AsyncRetrying(
            retry=retry_if_exception(may_pass),
            wait=self._wait,
            stop=stop_before_delay(self._endpoint.patience),
            before_sleep=self._say_once,
            reraise=True,
        )
        try:
            raw: Any = await again(self._create, client, body)
            reply = raw.parse()
        except openai.APIStatusError as error:
            if error.status_code in _OF_ONE_SAMPLE and getattr(error, "param", None) not in _OF_ALL:
                raise _Refused(self._why(error)) from error
            raise EndpointError(self._failed(sample, error)) from error
        except openai.APIConnectionError as error:
            raise EndpointError(
                f"{self._endpoint.shown}: did not answer for {self._endpoint.patience:g} s ({self._why(error)}); "
                f"{len(self._folder.answered):,} of {self._folder.request.samples:,} answers are in "
                f"{self._folder.folder}, continue with --resume"
            ) from error
        except (openai.APIError, ValueError) as error:
            raise EndpointError(
                f"{self._endpoint.shown}: its answer is no chat completion ({self._clean(str(error))})"
            ) from error
        self._waiting = False
        if not isinstance(reply, ChatCompletion) or not reply.choices:
            raise EndpointError(f"{self._endpoint.shown}: its answer is no chat completion; is /v1 missing in it?")
        self._check_steering(raw.headers)
        self._got_one = True
        choice = reply.choices[0]
        text = choice.message.content or ""
        extra = choice.message.model_extra or {}
        reasoned = not text.strip() and bool(extra.get("reasoning") or extra.get("reasoning_content"))
        return Answered(id=sample.id, text=text, cut=choice.finish_reason == "length", reasoned=reasoned)

    async def _create(self, client: openai.AsyncOpenAI, body: dict[str, Any]) -> Any:
        loop = asyncio.get_running_loop()
        while (left := self._not_before - loop.time()) > 0:  # the endpoint asked all of us to wait
            await asyncio.sleep(left)
        # What `chat.completions.with_raw_response.create` does, without looking at every field of the body, which takes
        # longer than all the rest: questions are asked by the ten thousand, often on the machine that answers them.
        raw = make_request_options(extra_headers={RAW_RESPONSE_HEADER: "true"})
        return await client.post("/chat/completions", cast_to=ChatCompletion, body=body, options=raw)

    def _wait(self, state: RetryCallState) -> float:
        """Random and growing, and never less than the endpoint's Retry-After."""
        asked = retry_after(state.outcome.exception() if state.outcome else None)
        own = float(wait_random_exponential(multiplier=0.5, max=_LONGEST_WAIT)(state))
        if asked <= self._endpoint.patience:
            self._not_before = max(self._not_before, asyncio.get_running_loop().time() + asked)
        return max(own, asked)

    def _put_aside(self, sample: Sample, reason: str) -> Answered:
        """Count a refused sample.

        Raises:
            EndpointError: too many were refused.
        """
        self._refused += 1
        allowed = self._endpoint.refusals_allowed(self._folder.request.samples)
        if self._refused > allowed or (not self._got_one and self._refused >= _FIRST):
            raise EndpointError(
                f"{self._endpoint.shown}: refused sample {sample.id} and {self._refused - 1:,} more: {reason}; mend "
                "what it says, or allow more with --max-refused, and continue with --resume"
            )
        return Answered(id=sample.id, skipped=f"the endpoint refused it: {reason}")

    def _why(self, error: BaseException | None) -> str:
        return self._clean(reason_of(error))

    def _clean(self, text: str) -> str:
        """A sentence without the key and without the user and password of the address."""
        user, _, _ = urlsplit(self._endpoint.base_url).netloc.rpartition("@")
        password = user.partition(":")[2]
        for secret in (self._endpoint.api_key, user, password, unquote(password)):
            if secret and secret != "none":
                text = text.replace(secret, "***")
        return text

    def _check_steering(self, headers: Mapping[str, str]) -> None:
        found = served_by(headers)
        if not self._asked:
            if found is not None and found.profile != NONE:
                raise EndpointError(
                    f"{self._endpoint.shown}: steered with {found.profile} though nothing was asked for"
                )
            return
        if found is None:
            raise EndpointError(
                f"{self._endpoint.shown}: was asked to steer and answered without X-Steering-Profile, so it did "
                "not; ask a trimtab server, or leave --steering out"
            )
        if not grants(found, self._asked):
            raise EndpointError(
                f"{self._endpoint.shown}: steered with {found.profile} at {found.alpha}, which is not what was "
                f"asked for ({self._folder.request.steering!r})"
            )
        if self._folder.served is None:
            self._folder.note_served(found)
        elif self._folder.served != found:
            raise EndpointError(
                f"{self._endpoint.shown}: steers with another profile than at the beginning of the run (digest "
                f"{found.digest}, not {self._folder.served.digest}); serve the first one again, or begin a new folder"
            )

    def _failed(self, sample: Sample, error: openai.APIStatusError) -> str:
        if may_pass(error):
            return (
                f"{self._endpoint.shown}: answered {error.status_code} for {self._endpoint.patience:g} s "
                f"({self._why(error)}); {len(self._folder.answered):,} of {self._folder.request.samples:,} answers are "
                f"in {self._folder.folder}, continue with --resume"
            )
        return f"{self._endpoint.shown}: refused sample {sample.id} with {error.status_code}: {self._why(error)}"

    def _say_once(self, state: RetryCallState) -> None:
        if self._waiting or state.outcome is None:
            return
        self._waiting = True
        error = state.outcome.exception()
        self._warn(f"{self._endpoint.shown}: {self._why(error)}; trying again for {self._endpoint.patience:g} s")


def _body(sample: Sample, request: RunRequest) -> dict[str, Any]:
    """The body of a chat completion."""
    content: list[dict[str, Any]] = [{"type": "text", "text": request.prompt.replace("{question}", sample.question)}]
    if sample.image is not None:
        content.insert(0, {"type": "image_url", "image_url": {"url": data_url(sample.image)}})
    body = {
        "model": request.model,
        "messages": [{"role": "user", "content": content}],
        "temperature": request.temperature,
        "max_tokens": request.max_tokens,
    }
    steering = {} if request.steering is None else {"steering": request.steering}
    return {**body, **(request.extra or {}), **steering}


def _first(group: ExceptionGroup[Exception]) -> Exception:
    """The first error of the workers: the others met the same one, or were called off because of it."""
    first = group.exceptions[0]
    return _first(first) if isinstance(first, ExceptionGroup) else first
