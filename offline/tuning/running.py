"""A server that runs already, as the server of a tuning: an admin key lets candidates come and go, one at a time."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import httpx

from trimtab.vectors import Profile, save_profile
from trimtab.vectors.errors import ProfileError, printable

from ..errors import EndpointError, SettingError
from ..evaluation.endpoint import Endpoint

__all__ = ["Running"]

_KEY_HEADER = "X-Steering-Admin-Key"
_PATIENCE = 180.0  # seconds for all workers to load a candidate
_TRANSIENT = ("created", "permission", "steering")  # of a model's card


class Running:
    """A running `trimtab-serve` with an admin key. Use it as a context, at whose end no candidate is left.

    A candidate is put into the server's folder of profiles, staged and activated when it is asked for first, and taken
    out when the next one is: so one candidate needs free rows at a time.
    """

    def __init__(self, endpoint: Endpoint, profiles: Path, admin_key: str, name: str | None = None) -> None:
        """endpoint: its address and key. profiles: its folder of profiles, as this machine sees it. name: of the model.

        Raises:
            EndpointError: it does not answer, or serves several models and none was named.
            SettingError: the folder is none.
        """
        if not profiles.is_dir():
            raise SettingError(f"{profiles}: is no folder; name the running server's folder of profiles")
        self._endpoint, self._profiles = endpoint, profiles
        self._client = httpx.Client(
            headers={"Authorization": f"Bearer {endpoint.api_key}", **endpoint.headers, _KEY_HEADER: admin_key},
            timeout=_PATIENCE,
        )
        self._held: Profile | None = None
        self._card = self._model(name)
        self.name: str = self._card["id"]

    @property
    def api_key(self) -> str:
        """What requests carry."""
        return self._endpoint.api_key

    def __enter__(self) -> Running:
        return self

    def __exit__(self, *raised: object) -> None:
        try:
            self._release()
        finally:
            self._client.close()

    def url(self) -> str:
        """The base URL, up to and with /v1."""
        return self._endpoint.base_url

    def hold(self, profile: Profile) -> None:
        """Let the server serve this candidate under its name, and no other one of ours.

        Raises:
            EndpointError: the server refuses it. SettingError: a profile of the server has that name.
        """
        if self._held is not None and self._held.digest == profile.digest and self._held.name == profile.name:
            return
        self._release()
        folder = self._profiles / profile.name
        if folder.exists():
            raise SettingError(
                f"{folder}: is there already, and a candidate has that name; call the steering otherwise, or delete "
                "the folder if a tuning that was killed has left it"
            )
        try:
            save_profile(profile, folder)
        except ProfileError as error:
            raise SettingError(f"the running server's folder of profiles cannot take a candidate: {error}") from error
        self._held = profile
        digest = f"sha256:{profile.digest}"
        self._post("stage", {"name": profile.name, "digest": digest})
        self._post("activate", {"name": profile.name, "digest": digest})

    def made_of(self) -> Mapping[str, str]:
        """What is known of the server that decides its answers."""
        card = {name: value for name, value in self._card.items() if name not in _TRANSIENT}
        version = self._get(self._endpoint.address.rstrip("/").removesuffix("/v1") + "/version")
        return {"server": self._endpoint.shown, "card": str(sorted(card.items())), "version": str(version)}

    def _release(self) -> None:
        held, self._held = self._held, None
        if held is not None:
            shutil.rmtree(self._profiles / held.name, ignore_errors=True)
            self._post("unload", {"name": held.name}, gone=(404,))  # a rescan may have been faster

    def _model(self, name: str | None) -> dict[str, Any]:
        cards = self._get(f"{self._endpoint.address}/models")["data"]
        models = {card["id"]: card for card in cards if card.get("parent") is None}
        if name is None and len(models) == 1:
            name = next(iter(models))
        if name not in models:
            told = ", ".join(map(repr, models))
            raise EndpointError(f"{self._endpoint.shown}: serves {printable(told)}; name one with --served-model-name")
        return dict(models[name])

    def _get(self, url: str) -> Any:
        try:
            return self._client.get(url).raise_for_status().json()
        except (httpx.HTTPError, ValueError) as error:
            raise EndpointError(f"{self._endpoint.shown}: cannot be asked what it serves ({error})") from error

    def _post(self, action: str, body: Mapping[str, str], gone: tuple[int, ...] = ()) -> None:
        try:
            reply = self._client.post(f"{self._endpoint.address}/steering/profiles/{action}", json=body)
        except httpx.HTTPError as error:
            raise EndpointError(f"{self._endpoint.shown}: did not answer to {action} ({error})") from error
        if reply.status_code == 404 and action == "stage" and "detail" in reply.text:
            raise EndpointError(f"{self._endpoint.shown}: has no admin routes; start it with an admin key")
        if reply.is_error and reply.status_code not in gone:
            raise EndpointError(f"{self._endpoint.shown}: refused to {action} {body['name']!r}: {_said(reply)}")


def _said(reply: httpx.Response) -> str:
    try:
        return printable(str(reply.json()["error"]["message"]))
    except (ValueError, KeyError, TypeError):
        return f"status {reply.status_code}"
