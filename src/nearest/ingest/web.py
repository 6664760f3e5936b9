"""Web pages: one GET, with limits on size, time and redirects, and not to private addresses.

A page can redirect to, or its name resolve to, an address inside the network of whoever reads it (server-side
request forgery). So every address on the way is looked up here, refused unless it is public, and connected to as
looked up; `private` allows the others. Behind a proxy names are the proxy's to look up.
"""

from __future__ import annotations

import ipaddress
import mimetypes
import socket
import time
from pathlib import Path, PurePosixPath
from types import ModuleType
from typing import TYPE_CHECKING

from nearest.errors import InvalidInput, MissingDependency, Unreadable

if TYPE_CHECKING:
    import httpx

MAX_BYTES = 256 << 20
SECONDS = 60.0  # for all of it
MAX_REDIRECTS = 5
_AGENT = "nearest (vector search; reads single pages on request)"
_EXTENSIONS = {"text/html": ".html", "text/plain": ".txt", "text/markdown": ".md", "application/xhtml+xml": ".html"}


def address(url: str) -> str:
    """The URL without user, password and fragment: the id of its document."""
    return str(_parsed(url).copy_with(userinfo=b"", fragment=None))


def fetch(url: str, folder: Path, private: bool) -> Path:
    """The page as a file in the folder, with the extension of its content type. Raises Unreadable, saying why."""
    httpx = _client()
    deadline = time.monotonic() + SECONDS
    target = _parsed(url)
    try:
        with httpx.Client(timeout=SECONDS / 2, headers={"User-Agent": _AGENT}) as client:
            for _ in range(MAX_REDIRECTS + 1):
                pinned, host = _pinned(target, private)
                auth = (target.username, target.password) if target.userinfo else None
                request = client.build_request(
                    "GET", pinned, headers={"Host": host}, extensions={"sni_hostname": target.host}
                )
                response = client.send(request, auth=auth, stream=True)
                try:
                    if response.has_redirect_location:
                        target = _parsed(str(target.copy_with(userinfo=b"").join(response.headers["Location"])))
                        continue
                    if response.status_code != 200:
                        raise Unreadable(f"the server said {response.status_code} {response.reason_phrase}".strip())
                    path = folder / f"page{_extension(response.headers.get('Content-Type', ''), target)}"
                    _save(response, path, deadline)
                    return path
                finally:
                    response.close()
    except httpx.TimeoutException:
        raise Unreadable(f"the server did not answer within {SECONDS / 2:.0f} s") from None
    except (httpx.HTTPError, httpx.InvalidURL, InvalidInput) as error:
        raise Unreadable(f"could not be fetched: {error}") from None
    raise Unreadable(f"redirects more than {MAX_REDIRECTS} times")


def _client() -> ModuleType:
    try:
        import httpx
    except ImportError as error:
        raise MissingDependency("reading a URL needs httpx; run: pip install 'nearest[readers]'") from error
    return httpx


def _parsed(url: str) -> httpx.URL:
    client = _client()
    try:
        parsed: httpx.URL = client.URL(url)
    except client.InvalidURL as error:
        raise InvalidInput(f"{url!r} is no URL: {error}") from None
    if parsed.scheme not in ("http", "https") or not parsed.host:
        raise InvalidInput(f"{url!r} is not the URL of a web page")
    return parsed


def _pinned(url: httpx.URL, private: bool) -> tuple[httpx.URL, str]:
    """The URL with an address that was looked up and allowed in place of the name, and the name for the server."""
    import urllib.request  # slow to import, and few runs need it

    name = url.netloc.decode()
    if urllib.request.getproxies().get(url.scheme) and not urllib.request.proxy_bypass(url.host):
        return url.copy_with(userinfo=b""), name
    try:
        found = socket.getaddrinfo(
            url.host, url.port or (443 if url.scheme == "https" else 80), type=socket.SOCK_STREAM
        )
    except (OSError, UnicodeError) as error:
        raise Unreadable(f"{url.host} cannot be looked up: {error}") from None
    addresses = [ipaddress.ip_address(str(where[4][0]).partition("%")[0]) for where in found]
    if not private:
        for each in addresses:
            real = getattr(each, "ipv4_mapped", None) or each
            if not real.is_global or real.is_multicast:
                raise Unreadable(
                    f"{url.host} is {real}, an address of a private network; if that is meant, allow it: "
                    "--private, or private=True"
                )
    return url.copy_with(userinfo=b"", host=str(addresses[0])), name


def _extension(content_type: str, url: httpx.URL) -> str:
    """By the content type; where that says little, by the path."""
    kind = content_type.partition(";")[0].strip().lower()
    by_path = PurePosixPath(url.path).suffix.lower()
    if kind in ("", "application/octet-stream", "binary/octet-stream") or (kind == "text/plain" and by_path):
        return by_path
    return _EXTENSIONS.get(kind) or mimetypes.guess_extension(kind) or by_path


def _save(response: httpx.Response, path: Path, deadline: float) -> None:
    size = 0
    with path.open("wb") as file:
        for block in response.iter_bytes(1 << 16):
            size += len(block)
            if size > MAX_BYTES:
                raise Unreadable(f"is over {MAX_BYTES >> 20} MiB")
            if time.monotonic() > deadline:
                raise Unreadable(f"took over {SECONDS:.0f} s to fetch")
            file.write(block)
