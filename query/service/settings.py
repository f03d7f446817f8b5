"""Settings of `clipsieve serve`."""

import re
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import ClassVar

from pydantic import Field, SecretStr, field_validator
from pydantic_settings import CliPositionalArg

from pipeline.errors import ConfigError
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
    """Second indexed store of the same images, to show both rankings side by side."""

    host: str = "127.0.0.1"
    """Address to listen on. 0.0.0.0 stands for all addresses of this machine."""

    port: int = Field(default=8000, ge=0, le=65535)
    """Port to listen on. 0 stands for any free one."""

    root_path: str = ""
    """Prefix of the addresses behind a proxy, such as /photos. The proxy may take it off or leave it."""

    device: DeviceChoice = "auto"
    """Where to embed queries and to search. auto embeds on the CPU, and searches on a GPU if FAISS sees one."""

    warm_images: bool = True
    """Load the image tower at the start, which takes some seconds and up to 1 GB of memory. Otherwise it is loaded with
    the first uploaded image, and other uploads wait for it."""

    text_cache: int = Field(default=10_000, ge=0)
    """Number of recent texts whose vectors are kept in memory. 0 keeps none."""

    thumb_cache: int = Field(default=64_000_000, ge=0)
    """Bytes of memory for recent thumbnails. 0 keeps none."""

    refresh_s: float = Field(default=2.0, gt=0)
    """Look for a new index and for deleted images every so many seconds."""

    partial: bool = False
    """Serve an index that does not cover the whole store."""

    token: SecretStr | None = None
    """Token that clients need: programs send it as `Authorization: Bearer`, people type it into a form. Other users of
    this machine can see flags, so set it in the environment: CLIPSIEVE_SERVE_TOKEN."""

    host_name: tuple[str, ...] = ()
    """Host name under which clients reach the service, besides localhost and IP addresses. Repeatable."""

    allow_origin: tuple[str, ...] = ()
    """Other web origin whose pages may use the service, such as https://example.org. Repeatable."""

    trusted_proxies: str = "127.0.0.1"
    """IP addresses of proxies whose X-Forwarded headers are believed, separated by commas. * stands for all."""

    max_in_flight: int = Field(default=64, ge=1)
    """Most requests that are answered at a time. Further ones are refused with status 429."""

    max_upload: int = Field(default=20_000_000, ge=1)
    """Most bytes of a request, such as an uploaded image."""

    max_pixels: int = Field(default=50_000_000, ge=1)
    """Most pixels of an uploaded image."""

    timeout_s: float = Field(default=30.0, gt=0)
    """Most seconds that a request may take."""

    drain_s: float = Field(default=0.0, ge=0)
    """Accept connections for so many seconds after SIGTERM, so that load balancers notice the end."""

    access_log: bool = False
    """Log a line for each request. It shows what was searched for."""

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
                raise ValueError(
                    f"{one.strip()!r} is not an IP address or network; expected addresses separated by commas, or *"
                ) from error
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
            # not a ValueError, whose message would show the token
            raise ConfigError(
                f"the token has {len(value.get_secret_value())} characters, expected at least {SHORTEST_TOKEN}; make "
                "one with `python -c 'import secrets; print(secrets.token_urlsafe())'`"
            )
        return value

    @property
    def is_local(self) -> bool:
        """Whether only this machine can reach it."""
        try:
            return ip_address(self.host).is_loopback
        except ValueError:
            return self.host == "localhost"
