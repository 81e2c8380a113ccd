"""The one door to the Kubernetes API: list, watch, get, create, replace, patch and delete with raw bodies.

The `kubernetes` package finds the server and the credentials (kubeconfig, exec plugins, in-cluster tokens that are read
again) and holds the pool of connections; no object is ever built from what it answers.  It blocks, so it lives in threads
here: a small pool for requests, one thread for each watch.  What comes out of this file are bytes, `Object`s and the errors
of cloudcore.errors."""

from __future__ import annotations

import asyncio
import contextlib
import io
import logging
import os
import random
import re
import threading
import weakref
from collections.abc import AsyncIterator, Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import msgspec
import urllib3
import yaml
from kubernetes.client import ApiClient, Configuration
from kubernetes.config import ConfigException, kube_config
from kubernetes.config.incluster_config import load_incluster_config
from kubernetes.config.kube_config import load_kube_config
from kubernetes.utils.keepalive import tcp_keepalive_socket_options

from beehive.errors import ConfigError, ProtocolError, Unavailable
from beehive.message import UNREADABLE
from beehive.rbac import User
from cloudcore.errors import Status, from_status, unavailable
from cloudcore.objects import Kind, Object, Unread, read, sketch

log = logging.getLogger(__name__)

REQUEST_THREADS = 8
REQUEST_TIMEOUT_S = 30.0
CONNECT_TIMEOUT_S = 5.0
MAX_BODY_BYTES = 64 * 1024 * 1024
"""Of one answer.  Lists come in pages of PAGE objects of at most 1.5 MiB each; in practice a page is a few MiB."""
PAGE = 250
MAX_LINE_BYTES = 8 * 1024 * 1024
"""Of one watch event: an object is at most 1.5 MiB in etcd, more as JSON with escapes."""
WATCH_S = (240, 480)
"""A watch is asked to end after a random time in this range, so that those of many clients do not end together."""
WATCH_GRACE_S = 15.0
"""How long after that a watch may stay open and silent: then it is dead, whatever TCP says."""
KEEPALIVE_IDLE_S, KEEPALIVE_INTERVAL_S, KEEPALIVE_COUNT = 10, 5, 3
"""TCP's own probes: a connection whose other end is gone without a word is noticed in 25 s."""

JSON = "application/json"
MERGE = "application/merge-patch+json"
STRATEGIC = "application/strategic-merge-patch+json"
JSON_PATCH = "application/json-patch+json"


@dataclass(frozen=True, slots=True)
class Page:
    """A whole list: its objects, the version to watch from, and what is in it and cannot be read."""

    objects: list[Object]
    version: str
    unread: list[Unread] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class WatchEvent:
    """type: ADDED, MODIFIED, DELETED, or BOOKMARK (which carries only a version).   unread: in place of an object."""

    type: str
    version: str
    object: Object | None
    unread: Unread | None = None


class _ListMeta(msgspec.Struct, frozen=True, kw_only=True):
    resourceVersion: str = ""
    continue_: str | None = msgspec.field(default=None, name="continue")


class _List(msgspec.Struct, frozen=True, kw_only=True):
    metadata: _ListMeta = _ListMeta()
    items: list[msgspec.Raw] | None = None


class _Event(msgspec.Struct, frozen=True, kw_only=True):
    type: str
    object: msgspec.Raw


class _Versioned(msgspec.Struct, frozen=True, kw_only=True):
    metadata: _ListMeta = _ListMeta()


_list = msgspec.json.Decoder(_List)
_event = msgspec.json.Decoder(_Event)
_status = msgspec.json.Decoder(Status)
_versioned = msgspec.json.Decoder(_Versioned)


def load(kubeconfig: str = "", master: str = "") -> Configuration:
    """Find the API: the named kubeconfig, else the pod's own service account, else KUBECONFIG or ~/.kube/config.

    Raises ConfigError with one sentence when none can be used."""
    configuration = Configuration()
    try:
        if kubeconfig:
            load_kube_config(config_file=kubeconfig, client_configuration=configuration, persist_config=False)
        elif os.environ.get("KUBERNETES_SERVICE_HOST"):
            load_incluster_config(client_configuration=configuration)
        else:
            load_kube_config(client_configuration=configuration, persist_config=False)
    except (ConfigException, OSError, ValueError, KeyError, TypeError, yaml.YAMLError) as error:
        where = kubeconfig or os.environ.get("KUBECONFIG", "")
        if not where and not Path("~/.kube/config").expanduser().exists():
            raise ConfigError(
                "there is no kubeconfig: set KUBECONFIG, or kubeAPIConfig.kubeConfig in cloudcore.yaml "
                "(with --standalone, cloudcore brings its own API, and writes admin.kubeconfig into its dataDir)"
            ) from error
        where = where or "~/.kube/config"
        raise ConfigError(f"cannot use the kubeconfig {where}: {_short(error)}") from error
    _hold_in_memory(configuration)
    if master:
        configuration.host = master
    configuration.retries = False
    configuration.connection_pool_maxsize = REQUEST_THREADS + 32
    configuration.socket_options = tcp_keepalive_socket_options(
        idle=KEEPALIVE_IDLE_S, interval=KEEPALIVE_INTERVAL_S, count=KEEPALIVE_COUNT
    )
    return configuration


def _hold_in_memory(configuration: Configuration) -> None:
    """Keep no key in a temporary file, where a process that is killed leaves it for ever.

    What a kubeconfig holds itself, and does not name a file for, the package writes to files, since `ssl` reads only those."""
    made = set(kube_config._temp_files.values())
    for name in ("ssl_ca_cert", "cert_file", "key_file"):
        path = getattr(configuration, name)
        if path in made:
            held = os.memfd_create(name)
            os.write(held, Path(path).read_bytes())
            weakref.finalize(configuration, os.close, held)
            setattr(configuration, name, f"/proc/self/fd/{held}")
    # what the package does itself at an orderly end: it removes them, and forgets that it made them
    kube_config._cleanup_temp_files()


class Kube:
    """A client.  End it with `close`."""

    def __init__(self, configuration: Configuration, *, threads: int = REQUEST_THREADS) -> None:
        self.host = str(configuration.host).rstrip("/")
        self._configuration = configuration
        self._client = ApiClient(configuration)
        self._pool: urllib3.PoolManager = self._client.rest_client.pool_manager
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix="kube")
        self._auth = threading.Lock()
        self._watches: set[_WatchThread] = set()
        self._rng = random.Random()
        self._abandoned: dict[str, asyncio.Event] = {}
        self.requests = 0
        """Made so far; watches are not counted."""

    async def close(self) -> None:
        for watch in list(self._watches):
            watch.stop()
        for watch in list(self._watches):
            await asyncio.to_thread(watch.join, 2.0)
        self._threads.shutdown(wait=False, cancel_futures=True)
        # clear alone leaves idle connections to the garbage collector
        for key in self._pool.pools.keys():  # noqa: SIM118  (it is no dict and cannot be iterated)
            if (pool := self._pool.pools.get(key)) is not None:
                pool.close()
        self._pool.clear()

    # -- requests ------------------------------------------------------------------------------------------------

    async def get(self, kind: Kind, name: str, namespace: str = "") -> Object:
        """Raises ApiNotFound and the other ApiErrors."""
        return read(kind, await self.request("GET", kind.path(namespace, name)))

    async def create(
        self, kind: Kind, body: bytes, namespace: str = "", *, name: str = "", subresource: str = ""
    ) -> Object:
        """Raises ApiExists when the name is taken."""
        return read(kind, await self.request("POST", kind.path(namespace, name, subresource), body=body))

    async def replace(self, kind: Kind, name: str, body: bytes, namespace: str = "") -> Object:
        """PUT: with metadata.resourceVersion in `body` this is a compare-and-swap, and raises ApiConflict."""
        return read(kind, await self.request("PUT", kind.path(namespace, name), body=body))

    async def patch(
        self,
        kind: Kind,
        name: str,
        body: bytes,
        namespace: str = "",
        *,
        form: str = MERGE,
        subresource: str = "",
    ) -> Object:
        """`form`: MERGE, STRATEGIC or JSON_PATCH."""
        path = kind.path(namespace, name, subresource)
        return read(kind, await self.request("PATCH", path, body=body, content_type=form))

    async def delete(self, kind: Kind, name: str, namespace: str = "", *, options: bytes = b"{}") -> None:
        """`options`: metav1.DeleteOptions."""
        await self.request("DELETE", kind.path(namespace, name), body=options)

    async def list_all(
        self,
        kind: Kind,
        namespace: str = "",
        *,
        query: Mapping[str, str] | None = None,
        user: User | None = None,
    ) -> Page:
        """Every object, read page by page from one version.  Raises ApiGone when the server dropped that version meanwhile."""
        objects: list[Object] = []
        unread: list[Unread] = []
        token = ""
        while True:
            asked = {"limit": str(PAGE), **(query or {})}
            if token:
                asked["continue"] = token
            body = await self.request("GET", kind.path(namespace), query=asked, user=user)
            try:
                page = _list.decode(body)
            except UNREADABLE as error:
                raise unavailable(f"the answer is no list: {error}", doing=f"list {kind.plural}") from error
            for item in page.items or ():
                try:
                    objects.append(read(kind, bytes(item)))
                except ProtocolError as error:
                    unread.append(sketch(kind, bytes(item), str(error)))
            token = page.metadata.continue_ or ""
            if not token:
                return Page(objects, page.metadata.resourceVersion, unread)

    async def current_version(
        self,
        kind: Kind,
        namespace: str = "",
        *,
        query: Mapping[str, str] | None = None,
        user: User | None = None,
    ) -> str:
        """The version that the API is at now: a list without a version is never older than what anybody was told."""
        body = await self.request(
            "GET", kind.path(namespace), query={**(query or {}), "limit": "1"}, user=user
        )
        try:
            return _versioned.decode(body).metadata.resourceVersion
        except UNREADABLE as error:
            raise unavailable(f"the answer is no list: {error}", doing=f"list {kind.plural}") from error

    async def request(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str] | None = None,
        body: bytes | None = None,
        content_type: str = JSON,
        timeout_s: float = REQUEST_TIMEOUT_S,
        user: User | None = None,
    ) -> bytes:
        """One request; the body of a 2xx answer.  `user`: in whose name.  Raises ApiError leaves."""
        self.requests += 1
        doing = f"{method.lower()} {path}"
        changes = method in ("PATCH", "PUT")
        while changes and (earlier := self._abandoned.get(path)) is not None:
            await earlier.wait()
        work = self._threads.submit(
            self._blocking, method, path, query, body, content_type, timeout_s, doing, user
        )
        try:
            return await asyncio.wrap_future(work)
        except asyncio.CancelledError:
            if changes and not work.cancel() and not work.done():
                self._abandon(path, work)
            raise

    def _abandon(self, path: str, work: Future[bytes]) -> None:
        """Nobody waits for this change any more, and it goes on: it must not come after what is asked of that object next."""
        loop = asyncio.get_running_loop()
        done = self._abandoned[path] = asyncio.Event()

        def forget() -> None:
            del self._abandoned[path]
            done.set()

        def over(_: Future[bytes]) -> None:
            with contextlib.suppress(RuntimeError):  # the loop has ended meanwhile
                loop.call_soon_threadsafe(forget)

        work.add_done_callback(over)

    def _blocking(
        self,
        method: str,
        path: str,
        query: Mapping[str, str] | None,
        body: bytes | None,
        content_type: str,
        timeout_s: float,
        doing: str,
        user: User | None,
    ) -> bytes:
        try:
            response = self._open(method, path, query, body, content_type, timeout_s, user)
            try:
                data = _read_bounded(response, MAX_BODY_BYTES)
            except BaseException:
                response.close()
                raise
            response.release_conn()
        except Unavailable:
            raise
        except (urllib3.exceptions.HTTPError, OSError, ConfigException) as error:
            raise unavailable(_short(error), doing=doing) from error
        if response.status >= 300:
            raise from_status(
                _failure(response.status, data), doing=doing, retry_after_s=_retry_after(response)
            )
        return data

    def _open(
        self,
        method: str,
        path: str,
        query: Mapping[str, str] | None,
        body: bytes | None,
        content_type: str,
        read_timeout_s: float,
        user: User | None = None,
    ) -> urllib3.BaseHTTPResponse:
        headers = urllib3.HTTPHeaderDict({"Accept": JSON, "User-Agent": "skerry-cloudcore"})
        if user is not None:
            headers["Impersonate-User"] = user.name
            for group in user.groups:
                headers.add("Impersonate-Group", group)
        if body is not None:
            headers["Content-Type"] = content_type
        with self._auth:
            # may run an exec plugin or read a token file again
            token = self._configuration.get_api_key_with_prefix("authorization", alias="BearerToken")
        if token:
            headers["Authorization"] = token
        elif self._configuration.username:
            headers["Authorization"] = self._configuration.get_basic_auth_token()
        url = self.host + path + (f"?{urlencode(query)}" if query else "")
        return self._pool.request(
            method,
            url,
            body=body,
            headers=headers,
            retries=False,
            redirect=False,
            preload_content=False,
            timeout=urllib3.Timeout(connect=CONNECT_TIMEOUT_S, read=read_timeout_s),
        )

    # -- watch ---------------------------------------------------------------------------------------------------

    async def watch(
        self,
        kind: Kind,
        version: str,
        namespace: str = "",
        *,
        query: Mapping[str, str] | None = None,
        user: User | None = None,
    ) -> AsyncIterator[list[WatchEvent]]:
        """What happens after `version`, in batches as they arrive.  Ends when the server ends it, which it does now and then.

        Raises ApiGone when `version` is too old, ApiUnavailable when the connection breaks: go on from the last one seen."""
        seconds = self._rng.randint(*WATCH_S)
        asked = {
            "watch": "1",
            "resourceVersion": version,
            "allowWatchBookmarks": "true",
            "timeoutSeconds": str(seconds),
            **(query or {}),
        }
        path = kind.path(namespace)
        doing = f"watch {kind.plural}"
        thread = _WatchThread(
            lambda: self._open("GET", path, asked, None, JSON, seconds + WATCH_GRACE_S, user),
            kind,
            doing,
            asyncio.get_running_loop(),
        )
        self._watches.add(thread)
        thread.start()
        try:
            while (batch := await thread.next()) is not None:
                yield batch
        finally:
            thread.stop()
            self._watches.discard(thread)


class _WatchThread(threading.Thread):
    """Reads one watch and hands over what it read in batches, one batch at a time: a slow reader slows the server down."""

    def __init__(
        self,
        open_: Callable[[], urllib3.BaseHTTPResponse],
        kind: Kind,
        doing: str,
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        super().__init__(name=doing, daemon=True)
        self._open = open_
        self._kind = kind
        self._doing = doing
        self._loop = loop
        self._batches: asyncio.Queue[list[WatchEvent] | BaseException | None] = asyncio.Queue()
        self._room = threading.Semaphore(8)  # batches on their way
        self._response: urllib3.BaseHTTPResponse | None = None
        self._stopped = threading.Event()

    async def next(self) -> list[WatchEvent] | None:
        got = await self._batches.get()
        self._room.release()
        if isinstance(got, BaseException):
            raise got
        return got

    def stop(self) -> None:
        """From the loop's thread: make the reader end soon."""
        self._stopped.set()
        self._room.release()
        response = self._response
        if response is not None:
            # not open any more, or not yet: the reader sees _stopped
            with contextlib.suppress(ValueError, RuntimeError, OSError):
                response.shutdown()

    def run(self) -> None:
        result: BaseException | None = None
        try:
            self._run()
        except Unavailable as error:
            result = error
        except (urllib3.exceptions.HTTPError, OSError, ConfigException) as error:
            result = unavailable(_short(error), doing=self._doing)
        except BaseException as error:  # the thread's boundary: whoever waits must hear of it
            result = error
        self._put(result)

    def _run(self) -> None:
        response = self._response = self._open()
        try:
            if response.status >= 300:
                data = _read_bounded(response, MAX_LINE_BYTES)
                raise from_status(
                    _failure(response.status, data), doing=self._doing, retry_after_s=_retry_after(response)
                )
            buffer = bytearray()
            while not self._stopped.is_set():
                data = response.read1(256 * 1024)
                if not data:
                    break
                buffer += data
                end = buffer.rfind(b"\n")
                if end < 0:
                    if len(buffer) > MAX_LINE_BYTES:
                        raise unavailable(f"an event has over {MAX_LINE_BYTES} bytes", doing=self._doing)
                    continue
                lines = bytes(buffer[:end]).split(b"\n")
                del buffer[: end + 1]
                # an error event comes last: what was before it has to arrive first
                batch, failure = self._events(lines)
                if batch:
                    self._put(batch)
                if failure is not None:
                    raise failure
            if buffer.strip() and not self._stopped.is_set():
                raise unavailable("the stream ended within an event", doing=self._doing)
        finally:
            response.close()

    def _events(self, lines: list[bytes]) -> tuple[list[WatchEvent], Exception | None]:
        batch: list[WatchEvent] = []
        for line in lines:
            if not line.strip():
                continue
            try:
                event = _event.decode(line)
                raw = bytes(event.object)
                if event.type == "BOOKMARK":
                    batch.append(
                        WatchEvent("BOOKMARK", _versioned.decode(raw).metadata.resourceVersion, None)
                    )
                    continue
            except UNREADABLE as error:
                return batch, unavailable(f"an event cannot be read: {error}", doing=self._doing)
            if event.type == "ERROR":
                return batch, from_status(_failure(500, raw), doing=self._doing)
            try:
                found = read(self._kind, raw)
            except ProtocolError as error:
                unread = sketch(self._kind, raw, str(error))
                if event.type != "DELETED":
                    batch.append(WatchEvent(event.type, unread.version, None, unread))
                elif (gone := unread.tombstone()) is not None:
                    batch.append(WatchEvent(event.type, unread.version, gone))
                else:
                    # what went cannot be made out: only a list can tell
                    lost = Status(code=410, reason="Expired", message=f"a deletion cannot be read: {error}")
                    return batch, from_status(lost, doing=self._doing)
                continue
            batch.append(WatchEvent(event.type, found.version, found))
        return batch, None

    def _put(self, item: list[WatchEvent] | BaseException | None) -> None:
        if isinstance(item, list):
            while not self._room.acquire(timeout=1.0):
                if self._stopped.is_set():
                    return
        if self._stopped.is_set():
            return
        # the loop may be closed already when a daemon ends
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._batches.put_nowait, item)


def _read_bounded(response: urllib3.BaseHTTPResponse, limit: int) -> bytes:
    out = io.BytesIO()
    for chunk in response.stream(64 * 1024):
        out.write(chunk)
        if out.tell() > limit:
            raise unavailable(f"the answer has over {limit} bytes")
    return out.getvalue()


def _failure(code: int, data: bytes) -> Status:
    try:
        status = _status.decode(data)
    except UNREADABLE:
        # a proxy's page, or `404 page not found`
        return Status(code=code, message=data[:256].decode("utf-8", "replace").strip() or f"HTTP {code}")
    return status


def _retry_after(response: urllib3.BaseHTTPResponse) -> float | None:
    text = response.headers.get("Retry-After", "")
    return min(float(text), 300.0) if text.isdecimal() else None


_UNCONNECTED = re.compile(
    r"HTTPS?Connection\(host='([^']*)', port=(\d+)\): "
    r"Failed to establish a new connection: (?:\[Errno -?\d+\] )?(.*)"
)


def _short(error: Any) -> str:
    text = str(getattr(error, "reason", None) or error)
    text = _UNCONNECTED.sub(r"no connection to \1:\2: \3", text)
    return text.replace("\n", " ")[:256]
