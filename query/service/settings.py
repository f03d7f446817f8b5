"""Settings of `clipsieve serve`."""

import re
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import ClassVar

from pydantic import Field, SecretStr, field_validator
from pydantic_settings import CliPositionalArg

from pipeline.model.spec import DeviceChoice
from pipeline.settings.load import Settings

SHORTEST_TOKEN = 16


class ServeSettings(Settings):
    """Serve search over indexed stores: a page for people, an HTTP interface for programs."""

    GROUPS: ClassVar[dict[str, tuple[str, ...]]] = {
        "what": ("store", "store2", "host", "port", "root_path"),
        "how fast": ("device", "warm_images", "text_cache", "thumb_cache", "refresh_s"),
        "safety": (
            *("partial", "token", "host_name", "allow_origin", "trusted_proxies"),
            *("max_in_flight", "max_upload", "max_pixels", "timeout_s", "drain_s"),
        ),
        "watching": ("access_log",),
    }

    store: CliPositionalArg[Path]
    """Indexed store."""

    store2: CliPositionalArg[Path | None] = None
    """Second indexed store of the same images, to compare the two rankings side by side."""

    host: str = "127.0.0.1"
    """Address to listen on. 0.0.0.0 stands for all addresses of this machine."""

    port: int = Field(default=8000, ge=0, le=65535)
    """Port to listen on. 0 stands for any free one."""

    root_path: str = ""
    """Prefix of the addresses behind a proxy, such as /photos. The proxy may take it off or leave it."""

    device: DeviceChoice = "auto"
    """Where to embed queries and to search. auto embeds on the CPU, and searches on a GPU if FAISS sees one."""

    warm_images: bool = True
    """Load the image tower at the start: some seconds, and memory of 1 GB. Otherwise the first image that is searched
    for takes as long, and others wait with it."""

    text_cache: int = Field(default=10_000, ge=0)
    """Texts whose vectors are kept in memory. 0 keeps none."""

    thumb_cache: int = Field(default=64_000_000, ge=0)
    """Bytes of memory for thumbnails."""

    refresh_s: float = Field(default=2.0, gt=0)
    """Seconds between looks for a new index or deleted images."""

    partial: bool = False
    """Serve an index that does not cover the whole store."""

    token: SecretStr | None = None
    """Ask clients for this token, as `Authorization: Bearer` or in a login form. Other users of this machine can see
    flags, so set it in the environment: CLIPSIEVE_SERVE_TOKEN."""

    host_name: tuple[str, ...] = ()
    """Host name under which clients reach this, besides localhost and IP addresses. Repeatable."""

    allow_origin: tuple[str, ...] = ()
    """Web origin whose pages may ask, such as https://example.org. Repeatable."""

    trusted_proxies: str = "127.0.0.1"
    """IP addresses of proxies whose X-Forwarded headers count, separated by commas. * stands for all."""

    max_in_flight: int = Field(default=64, ge=1)
    """Requests that are answered at a time. More of them are refused with status 429."""

    max_upload: int = Field(default=20_000_000, ge=1)
    """Bytes of a request, such as an image."""

    max_pixels: int = Field(default=50_000_000, ge=1)
    """Pixels of an image that a client sends."""

    timeout_s: float = Field(default=30.0, gt=0)
    """Seconds that a request may take."""

    drain_s: float = Field(default=0.0, ge=0)
    """Seconds between the signal to end and the last connection that is accepted, for load balancers to notice."""

    access_log: bool = False
    """Print a line for each request. It holds the texts that are searched for."""

    @field_validator("host_name", "allow_origin", mode="before")
    @classmethod
    def _one_or_more(cls, value: object) -> object:
        return (value,) if isinstance(value, str) else value

    @field_validator("host_name")
    @classmethod
    def _check_host_names(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for name in value:
            if not re.fullmatch(r"[A-Za-z0-9._-]+", name):
                raise ValueError(f"expected a name without scheme and port, such as search.example.org, not {name!r}")
        return value

    @field_validator("allow_origin")
    @classmethod
    def _check_origins(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for origin in value:
            if not re.fullmatch(r"https?://([a-z0-9._-]+|\[[0-9a-f:.]+\])(:\d+)?", origin):
                raise ValueError(f"expected an origin as browsers send it, such as https://example.org, not {origin!r}")
        return value

    @field_validator("trusted_proxies")
    @classmethod
    def _check_proxies(cls, value: str) -> str:
        for one in value.split(","):
            try:
                if one.strip() not in ("", "*"):
                    ip_network(one.strip())
            except ValueError as error:
                raise ValueError(f"{one.strip()!r} is no IP address or network; expected some, or *") from error
        return value

    @field_validator("root_path")
    @classmethod
    def _check_root_path(cls, value: str) -> str:
        if value.strip("/") and not value.startswith("/"):
            raise ValueError("expected a path that begins with /")
        return value.rstrip("/")

    @field_validator("token")
    @classmethod
    def _check_token(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None and len(value.get_secret_value()) < SHORTEST_TOKEN:
            raise ValueError(
                f"expected at least {SHORTEST_TOKEN} characters; make one with "
                "`python -c 'import secrets; print(secrets.token_urlsafe())'`"
            )
        return value

    @property
    def is_local(self) -> bool:
        """Whether only this machine can reach it."""
        try:
            return ip_address(self.host).is_loopback
        except ValueError:
            return self.host == "localhost"
