"""Devices with a JSON interface over HTTP.   Settings: README.md beside this file."""

import time
from pathlib import Path
from typing import Any
from urllib.parse import urljoin

from mappers.framework import http, jsonpath
from mappers.framework.convert import Value
from mappers.framework.driver import DeviceError, Driver, DriverError, Property

_READS = ("GET", "POST")
_WRITES = ("POST", "PUT", "PATCH", "GET")


class Http(Driver):
    """One device.  Its methods are plain: they run in the device's own thread."""

    protocol = "http"

    def open(self) -> None:  # type: ignore[override]
        self.url = http.check_url(self.settings.text("url"))
        self.timeout_s = self.settings.number("timeout", 5.0)
        self.keep_s = self.settings.number("maxAge", 0.2)
        self.ca = self.settings.get("ca")
        self.headers = {"Accept": "application/json"}
        extra = self.settings.get("headers", {})
        if not isinstance(extra, dict):
            raise DriverError("setting 'headers' is not a mapping")
        self.headers.update({str(k): str(v) for k, v in extra.items()})
        user = self.settings.text("userName", "")
        if user:
            self.headers["Authorization"] = http.basic(user, self._password())
        self.seen: dict[tuple[str, str, str], tuple[float, Any]] = {}

    def _password(self) -> str:
        """KubeEdge's manifests name a file, so that no secret stands in them."""
        path = Path(self.settings.text("password", ""))
        try:
            return path.read_text().removesuffix("\n")
        except (OSError, UnicodeDecodeError) as error:
            raise DriverError(f"setting 'password' names no readable file: {error}") from error

    def read(self, prop: Property) -> Value:  # type: ignore[override]
        settings = prop.settings
        method = _one_of(settings.text("method", "GET"), _READS, "method")
        key = (method, settings.text("path"), settings.text("body", ""))
        at, document = self.seen.get(key, (float("-inf"), None))
        if time.monotonic() - at > self.keep_s:  # many properties, one document, one request
            document = jsonpath.decode(self._ask(method, key[1], key[2]))
            self.seen[key] = (time.monotonic(), document)
        return jsonpath.find(document, settings.text("jsonPath", "$"))

    def write(self, prop: Property, value: Value) -> None:  # type: ignore[override]
        settings = prop.settings
        method = _one_of(settings.text("writeMethod", "POST"), _WRITES, "writeMethod")
        body = jsonpath.fill(settings.text("writeBody", '{"' + prop.name + '":${value}}'), value)
        self.seen.clear()
        self._ask(method, settings.text("writePath", settings.get("path")), "" if method == "GET" else body)

    def _ask(self, method: str, path: str, body: str) -> bytes:
        url = urljoin(self.url, path)
        if not url.startswith(("http://", "https://")) or _origin(url) != _origin(self.url):
            raise DriverError(f"setting 'path' leads to another machine: {path[:64]!r}")
        headers = self.headers | ({"Content-Type": "application/json"} if body else {})
        answer = http.request(
            method,
            url,
            body=body.encode() if body else None,
            headers=headers,
            timeout_s=self.timeout_s,
            ca=self.ca,
        )
        if answer.status >= 500:
            raise DeviceError(f"{path}: the device answers {answer.status}")
        if not 200 <= answer.status < 300:
            raise DriverError(f"{path}: the device answers {answer.status}")
        return answer.body


def _origin(url: str) -> str:
    return "/".join(url.split("/", 3)[:3])


def _one_of(value: str, known: tuple[str, ...], key: str) -> str:
    if value.upper() not in known:
        raise DriverError(f"setting {key!r} is not one of {', '.join(known)}: {value[:64]!r}")
    return value.upper()
