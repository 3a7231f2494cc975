"""What the environment and `.env` say of keys, addresses, proxies and certificates, checked before it is used.

Client libraries find a fault in one of these only when they are sending, in words that name no variable, and some of
them print a key while they do.
"""

from __future__ import annotations

import os
from functools import cache
from pathlib import Path

from vivace.errors import UsageError
from vivace.output.secrets import masked, note_password

PROXIES = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY")
CERTIFICATE_FILES = ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")
CERTIFICATE_FOLDERS = ("SSL_CERT_DIR",)
MOST_PORT = 65_535


def load_surroundings() -> None:
    """Read `.env`, and see that calls over the network can be made with what the environment says of it.

    Raises:
        UsageError: they cannot; the variable is named.
    """
    from dotenv import load_dotenv

    load_dotenv(Path(".env"))
    for name, value in list(os.environ.items()):
        if name.upper() in PROXIES and value:
            _check_proxy(name, value)
        elif name in CERTIFICATE_FILES and value:
            _check_certificates(name, value)
        elif name in CERTIFICATE_FOLDERS and value and not Path(value).is_dir():
            raise UsageError(f"{name} names the folder '{value}', which is not there; correct it or unset it.")
    _check_exceptions()


def read_key(name: str) -> str | None:
    """The key in a variable, without the blanks and line ends around it; None where it is not set.

    Raises:
        UsageError: it cannot be sent; the variable is named, and not the key.
    """
    key = os.environ.get(name, "").strip()
    if not key:
        return None
    if (fault := key_fault(key)) is not None:
        raise UsageError(f"{name} {fault}: set it anew, in the environment or in .env.")
    return key


def key_fault(key: str) -> str | None:
    """Why a key cannot be sent in a header, to follow its variable's name; None where it can."""
    if key[0] in "\"'`" or key[-1] in "\"'`":
        return "has quotes around the key, which would be sent with it"
    if any(character in "\r\n" for character in key):
        return "has a line break in the middle of the key"
    if any(character.isspace() for character in key):
        return "has a blank in the middle of the key"
    if not all("!" <= character <= "~" for character in key):
        return "holds a character that no key has"
    return None


def settle_keys(provider: str) -> None:
    """Take the blanks and line ends from the keys of a provider in the environment, where its library reads them.

    Raises:
        UsageError: one cannot be sent; the variable is named.
    """
    for name in list(os.environ):
        is_theirs = name.startswith(f"{provider.upper()}_") or name in ("GOOGLE_API_KEY", "HF_TOKEN")
        if is_theirs and name.endswith(("_API_KEY", "_TOKEN")) and (key := read_key(name)) is not None:
            os.environ[name] = key


def checked_address(address: str, role: str, variable: str | None = None) -> str:
    """The address of a server as it is asked, without blanks around it.

    Args:
        address: as a person wrote it.
        role: whose address it is, for messages.
        variable: the one that it comes from; None for a flag or a spec.

    Raises:
        UsageError: it is no address, or carries what would be stored.
    """
    import httpx

    address = address.strip()
    what = f"The address '{masked(address)}' of the {role}" + (f" in {variable}" if variable else "")
    try:
        url = httpx.URL(address)
        host = url.host  # read here, for a name that says it is encoded may be none
    except (httpx.InvalidURL, UnicodeError) as error:
        raise UsageError(f"{what} is not an HTTP URL ({masked(str(error)).rstrip('.')}).") from None
    if url.scheme not in ("http", "https") or not host:
        raise UsageError(f"{what} is not an HTTP URL, like http://127.0.0.1:8000/v1.")
    if url.port is not None and not 0 < url.port <= MOST_PORT:
        raise UsageError(f"{what} has no port between 1 and {MOST_PORT}.")
    if url.userinfo or url.query or url.fragment:
        carrier = f"The address of the {role}" + (f" in {variable}" if variable else "")
        raise UsageError(
            f"{carrier} carries a password or a query, which would be stored; leave them out, and set the provider's "
            "key in the environment or in .env."
        )
    return address


def _check_proxy(name: str, value: str) -> None:
    import httpx

    shown = masked(value)
    try:
        proxy = httpx.Proxy(value if "://" in value else f"http://{value}")
        host = proxy.url.host
    except (httpx.InvalidURL, ValueError):
        raise UsageError(f"{name} is '{shown}', no proxy's address; write http://HOST:PORT or unset it.") from None
    port = proxy.url.port
    if not host or (port is not None and not 0 < port <= MOST_PORT):
        raise UsageError(f"{name} is '{shown}', which has no host or no port; write http://HOST:PORT or unset it.")
    note_password((proxy.raw_auth or (b"", b""))[1].decode(errors="replace"), host)
    if proxy.url.scheme.startswith("socks"):
        from importlib.util import find_spec

        if find_spec("socksio") is None:
            raise UsageError(
                f"{name} asks for a SOCKS proxy ('{shown}'), which needs a further package: "
                "pip install 'httpx[socks]', or unset it."
            )


def _check_certificates(name: str, value: str) -> None:
    fault = _certificate_fault(value)
    if fault is not None:
        raise UsageError(f"{name} names '{value}' for certificates, and {fault}; correct it or unset it.")


@cache
def _certificate_fault(path: str) -> str | None:
    import ssl

    if Path(path).is_dir():
        return None  # some clients take a folder, too
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(path)
    except ssl.SSLError:
        return "the file holds none"
    except OSError as error:
        return f"it cannot be read ({error.strerror})"
    return None


def _check_exceptions() -> None:
    """See that NO_PROXY can be read by the client, which does so only where a proxy or it is set."""
    import httpx

    name = next((name for name in ("no_proxy", "NO_PROXY") if os.environ.get(name)), None)
    if name is None:
        return
    try:
        httpx.Client(verify=False).close()
    except (httpx.InvalidURL, ValueError):
        raise UsageError(f"{name} is '{masked(os.environ[name])}', which is no list of hosts; correct it.") from None
