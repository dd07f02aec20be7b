"""Simulated Pryv.io v2 cores: the calls a health check makes, with the answers measured on open-pryv.io 2.0.0-pre.4.

A core is two kinds of worker behind one port: API workers, and the HFS worker that serves `.../events/{id}/series`,
reached through an ingress which lower-cases header names. Users live in PostgreSQL. The platform database (rqlite)
holds which user lives on which core; a single core asks PostgreSQL as well for that.
"""

# ruff: noqa: S105 - the tokens are simulated

import asyncio
import base64
import binascii
import hashlib
import json
import re
import time
from collections.abc import Awaitable, Mapping
from dataclasses import dataclass
from ssl import SSLContext
from typing import Any, Literal, Self
from urllib.parse import unquote

from health_exporter.simulators.wire import Answer, Close, Faults, Hang, Raw, Reply, Request, Reset, Service, render

API_VERSION = "2.0.0-pre.4"
SERIAL = "2026112101"
ACCESS_ID = "simulatedaccess000000001"
CREATED = 1795295995.355
FRESH_CONNECTIONS_PER_STUCK = 12
"""With one of two API workers frozen, one of so many fresh connections gets no answer."""

USERNAME = re.compile(r"[a-z0-9][a-z0-9-]{3,58}[a-z0-9]")
SERIES = re.compile(r"/(?:[^/]+/)?events/[^/]+/series/?")

CORS = (
    ("Access-Control-Allow-Methods", "POST, GET, PUT, DELETE, OPTIONS"),
    ("Access-Control-Allow-Headers", "Authorization, Content-Type"),
    ("Access-Control-Expose-Headers", "API-Version"),
    ("Access-Control-Max-Age", "31536000"),
    ("Access-Control-Allow-Credentials", "true"),
    ("API-Version", API_VERSION),
)
JSON = "application/json; charset=utf-8"
POSTGRES_REFUSED = "connect ECONNREFUSED 127.0.0.1:5432"
PLATFORM_REFUSED = "fetch failed"
UNEXPECTED = (
    "An unexpected error occurred. Our bad! Please accept our humble apologies and notify us if it happens repeatedly."
    " Thank you."
)
NO_TOKEN = 'The access token is missing: expected an "Authorization" header or an "auth" query string parameter.'
BAD_USERNAME = "Username should have between 5 and 60 characters and contain lowercase letters or numbers or dashes"
BAD_FORMAT = "The parameters' format is invalid."
WRONG_CORE = 'User "{}" is hosted on a different core. Retry the request against the URL in `coreUrl`.'


def _page(status: int, title: str, server: str = "nginx/1.22.1") -> Answer:
    html = f"<html>\r\n<head><title>{title}</title></head>\r\n<body>\r\n<center><h1>{title}</h1></center>\r\n"
    html += f"<hr><center>{server}</center>\r\n</body>\r\n</html>\r\n"
    return Answer(status, (("Server", server), ("Content-Type", "text/html")), html.encode())


PROXY_ANSWERS: Mapping[str, Answer] = {
    "login_page": _page(200, "Sign in"),
    "redirect": Answer(302, (("Location", "https://login.example.com/?next=/"), ("Content-Type", "text/html"))),
    "rate_limit": _page(429, "429 Too Many Requests"),
    "garbage": Answer(200, (("Content-Type", "application/json"),), b'{"meta": {"apiVersion'),
}
BAD_GATEWAY = _page(502, "502 Bad Gateway")
GATEWAY_TIMEOUT = _page(504, "504 Gateway Time-out")
INGRESS_502 = Answer(
    502,
    (("content-type", "application/json"),),
    b'{"error":{"id":"unexpected-error","message":"HFS upstream unreachable"}}',
    chunked=True,
)


@dataclass(slots=True)
class PryvFaults(Faults):
    """What is broken in a core; every field may change while it runs, the defaults are a healthy core.

    postgres and platform: refused fails at once, frozen and hanging never answer.
    events_table: locked answers after `lock_seconds`; only a token with permissions reads it.
    audit: broken kills the API worker at the next refused token; back after `restart_seconds`.
    api_worker: dead refuses connections; frozen never answers, the HFS does.
    hfs_worker: stuck still answers OPTIONS; off is a core configured without HFS.
    proxy: what stands before the core, and what it answers instead.
    hfs_routing: api sends the series calls to the API worker.
    token: a revoked one is still good for the HFS, which remembers it until restarted.
    token_expires: Unix seconds, None for never. token_level: none is a token without permissions.
    clock_offset: seconds added to serverTime. reset_mid_answer: half of an answer, then RST.
    """

    postgres: Literal["up", "refused", "frozen"] = "up"
    events_table: Literal["ok", "broken", "locked"] = "ok"
    lock_seconds: float = 8.0
    audit: Literal["ok", "broken"] = "ok"
    restart_seconds: float = 1.3
    platform: Literal["up", "refused", "hanging"] = "up"
    api_worker: Literal["up", "dead", "frozen", "one_of_two_frozen"] = "up"
    hfs_worker: Literal["up", "dead", "frozen", "stuck", "off"] = "up"
    proxy: Literal["none", "nginx", "login_page", "redirect", "rate_limit", "garbage"] = "none"
    hfs_routing: Literal["hfs", "api"] = "hfs"
    account: Literal["present", "deleted"] = "present"
    token: Literal["valid", "revoked", "expired"] = "valid"
    token_expires: float | None = None
    token_level: Literal["read", "manage", "none"] = "read"
    personal_token: bool = False
    clock_offset: float = 0.0
    reset_mid_answer: bool = False


class _SilenceError(Exception):
    """The request gets no answer."""


class _StorageError(Exception):
    """A database refused; the text is the one the server would report."""


class _RefusedError(Exception):
    """The request is answered with an error; `audited` refusals are written to the audit log."""

    def __init__(self, status: int, error: Mapping[str, object], access: str = "", *, audited: bool = False) -> None:
        self.status = status
        self.error = error
        self.access = access
        self.audited = audited


def _refused(status: int, error_id: str, message: str, access: str = "", *, audited: bool = False) -> _RefusedError:
    return _RefusedError(status, {"id": error_id, "message": message}, access, audited=audited)


def _unknown_user(name: str) -> _RefusedError:
    return _refused(404, "unknown-resource", f'Unknown user "{name}"')


def _unknown_resource() -> _RefusedError:
    return _refused(404, "unknown-resource", "Unknown resource ")


def _unknown_event(name: str, access: str = "") -> _RefusedError:
    return _refused(404, "unknown-resource", f'Unknown event "{name}"', access)


def _expired(access: str) -> _RefusedError:
    return _refused(403, "forbidden", "Access has expired.", access, audited=True)


def _bad_token() -> _RefusedError:
    return _refused(403, "invalid-access-token", "Cannot find access from token.", audited=True)


def _given_token(request: Request) -> str | None:
    """Return the token of `T`, `Bearer T`, `Basic base64(T:)` or `?auth=T`; an empty header is an empty token."""
    header = request.headers.get("authorization")
    if header is None:
        return request.query.get("auth")
    scheme, _, rest = header.partition(" ")
    if scheme.lower() == "basic" and rest:
        try:
            return base64.b64decode(rest).decode("latin-1").partition(":")[0]
        except binascii.Error:
            return ""
    return rest if scheme.lower() == "bearer" and rest else header


def _answer(request: Request, status: int, kind: str, body: bytes, access: str = "") -> Answer:
    """Return an answer with the headers of an API or HFS worker, in their order."""
    etag = base64.b64encode(hashlib.sha1(body, usedforsecurity=False).digest()).decode()[:27]
    return Answer(
        status,
        (
            *_common(request, access),
            ("Content-Type", kind),
            ("Content-Length", str(len(body))),
            ("ETag", f'W/"{len(body):x}-{etag}"'),
        ),
        body,
    )


def _common(request: Request, access: str) -> tuple[tuple[str, str], ...]:
    origin = ("Access-Control-Allow-Origin", request.headers.get("origin", "*"))
    return (origin, *CORS, ("Pryv-Access-Id", access)) if access else (origin, *CORS)


def _dump(value: object) -> str:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False)


class PryvCore(Service):
    """One core with one user; without a deployment it is the only core.

    `domain` gives users their own host names (`{user}.{domain}`), else the user is in the path (dnsLess).
    """

    def __init__(
        self,
        username: str = "healthmetrics01",
        token: str = "simulated-read-token",  # noqa: S107
        *,
        domain: str | None = None,
        core_id: str = "single",
        name: str = "Simulated Pryv",
        deployment: "PryvDeployment | None" = None,
        ssl: SSLContext | None = None,
    ) -> None:
        super().__init__(self._handle, ssl)
        self.username = username
        self.token = token
        self.domain = domain
        self.core_id = core_id
        self.name = name
        self.deployment = deployment
        self.faults = PryvFaults()
        self._reserved: set[str] = set()
        self._restarting: asyncio.TimerHandle | None = None
        self._hfs_fresh = False
        self._hfs_stuck = False
        self._hfs_knows_token = True

    async def start(self, host: str = "127.0.0.1", port: int = 0) -> None:
        """Listen; port 0 takes a free one."""
        await super().start(host, port)
        self.faults.on_change = self._open_or_shut
        self._open_or_shut()

    async def stop(self) -> None:
        """Close everything; a deployment still lists the core as available."""
        self.faults.on_change = None
        if self._restarting:
            self._restarting.cancel()
            self._restarting = None
        await super().stop()

    def restart_api(self) -> None:
        """Restart the API worker: it no longer remembers which users it has seen."""
        self._reserved.clear()

    def restart_hfs(self) -> None:
        """Restart the HFS worker: it forgets a revoked token, and hangs for good if it first meets a dead database."""
        self._hfs_fresh = True
        self._hfs_stuck = self._hfs_knows_token = False

    def _open_or_shut(self) -> None:
        if self._restarting or (self.faults.api_worker == "dead" and self.faults.proxy == "none"):
            self.server.cut()
        else:
            self.server.reopen()

    def _crash(self) -> None:
        """Let the API worker die, and its supervisor start another."""
        self.restart_api()
        self._restarting = asyncio.get_running_loop().call_later(self.faults.restart_seconds, self._restarted)
        self._open_or_shut()

    def _restarted(self) -> None:
        self._restarting = None
        self._open_or_shut()

    # The way of a request: proxy, ingress, worker.

    def _handle(self, request: Request) -> Reply | Awaitable[Reply]:
        faults = self.faults
        if faults.proxy in PROXY_ANSWERS:
            return PROXY_ANSWERS[faults.proxy]
        reply: Reply | Awaitable[Reply]
        try:
            if faults.hfs_routing == "hfs" and SERIES.fullmatch(request.path):
                reply = self._hfs(request)
            elif faults.api_worker == "dead":  # the port is open only because a proxy stands before it
                reply = BAD_GATEWAY
            else:
                reply = self._api(request)
        except _SilenceError:
            reply = Hang()
        if faults.reset_mid_answer and isinstance(reply, Answer):
            data = render(reply)
            return Raw(data[: len(data) - max(1, len(reply.body) // 2)], Reset())
        return reply

    def _hfs(self, request: Request) -> Reply:
        """Answer through the ingress, or through an nginx that does its work."""
        worker, nginx = self.faults.hfs_worker, self.faults.proxy == "nginx"
        if worker in ("dead", "off"):
            return BAD_GATEWAY if nginx else INGRESS_502
        try:
            answer = self._series(request)
        except _SilenceError:
            return GATEWAY_TIMEOUT if nginx else Hang()
        except _StorageError as down:
            answer = self._error(request, _RefusedError(500, {"id": f"Error: {down}"}), meta=False)
        except _RefusedError as refused:
            answer = self._error(request, refused, meta=False)
        headers = answer.headers
        return Answer(answer.status, headers, answer.body, lower_case=not nginx)

    def _api(self, request: Request) -> Reply | Awaitable[Reply]:
        worker = self.faults.api_worker
        stuck = worker == "one_of_two_frozen" and request.connection % FRESH_CONNECTIONS_PER_STUCK == 0
        if worker == "frozen" or stuck:
            raise _SilenceError
        if request.method == "OPTIONS":
            return _answer(request, 200, "text/plain; charset=utf-8", b"OK")
        try:
            return self._route(request)
        except _StorageError as down:
            return self._error(request, _refused(500, "unexpected-error", f"Unexpected error: {down}"))
        except _RefusedError as refused:
            if refused.audited and self.faults.audit == "broken":
                self._crash()
                return Close()
            return self._error(request, refused, meta=refused.status != 421)  # noqa: PLR2004

    # The API worker.

    def _route(self, request: Request) -> Reply | Awaitable[Reply]:
        parts = [unquote(part) for part in self._path(request).split("/") if part]
        if request.method not in ("GET", "HEAD"):
            raise _unknown_resource()
        values: Mapping[str, object]
        match parts:
            case [] | [_]:  # the one is taken for a user name and need not exist
                return self._greeting(request)
            case ["service", "info"] if self.domain:
                values = self._service_info()
            case ["reg", "service", "info"]:
                values = self._service_info()
            case ["reg", "hostings"]:
                values = self._hostings()
            case ["reg", "cores"]:
                values = self._home_core(request)
            case ["reg", name, "check_username"]:
                values = {"reserved": self._username_reserved(name)}
            case ["reg", email, "check_email"]:
                values = self._check_email(email)
            case ["system", *_]:
                raise _unknown_resource()
            case _:
                return self._user(request, parts[0], parts[1:])
        return self._json(request, values)

    def _path(self, request: Request) -> str:
        """Return the path with what the host name adds: `/reg` or the user name, if the host is under the domain."""
        host = request.headers.get("host", "").partition(":")[0].lower()
        label, _, zone = host.partition(".")
        if not self.domain or zone != self.domain:
            return request.path
        cores = self.deployment.cores if self.deployment else (self.core_id,)
        if label in cores or not (label == "reg" or USERNAME.fullmatch(label)):
            return request.path
        prefix = f"/{label}"
        return request.path if request.path.startswith(prefix) else prefix + request.path

    def _user(self, request: Request, user: str, rest: list[str]) -> Reply | Awaitable[Reply]:
        """Answer a call under a user: home core first, then the account, then the access."""
        try:
            if self.deployment:
                self._need_platform()
                home = self.deployment.home(user)
                if home and home is not self:
                    error = {"id": "wrong-core", "message": WRONG_CORE.format(user), "coreUrl": f"{home.url}/"}
                    raise _RefusedError(421, error)
            if rest == ["service", "info"]:
                return self._json(request, self._service_info())
            self._need_postgres()
        except _StorageError:
            raise _refused(500, "unexpected-error", UNEXPECTED) from None
        if not self.lives_here(user):
            raise _unknown_user(user)
        match rest:
            case ["events"]:
                return self._events(request, self._access(request))
            case ["events", event, "series"]:
                raise _unknown_event(event, self._access(request))
            case ["access-info"]:
                access = self._access(request)
                return self._json(request, self._access_info(access), access)
        raise _unknown_resource()

    def _access(self, request: Request) -> str:
        """Return the id of the access whose token is given."""
        token = _given_token(request)
        if token is None:
            raise _refused(401, "invalid-access-token", NO_TOKEN, audited=True)
        if token != self.token or self.faults.token == "revoked":
            raise _bad_token()
        if self._token_expired():
            raise _expired(ACCESS_ID)
        return ACCESS_ID

    def _token_expired(self) -> bool:
        expires = self.faults.token_expires
        return self.faults.token == "expired" or (expires is not None and expires <= self._now())

    def _events(self, request: Request, access: str) -> Reply | Awaitable[Reply]:
        faults = self.faults
        limit = request.query.get("limit", "1")
        if not limit.isdigit():
            data = [{"code": "INVALID_TYPE", "params": [["number"]], "message": "must be number", "path": "#/limit"}]
            error = {"id": "invalid-parameters-format", "message": BAD_FORMAT, "data": data}
            raise _RefusedError(400, error, access, audited=True)
        if faults.personal_token:  # the first event comes from another store
            return self._stream(request, access, [self._attached_files()])
        if faults.token_level == "none":
            return self._json(request, {"events": []}, access)
        if faults.events_table == "broken":
            message = 'Error from data store "local": Unexpected error: relation "events" does not exist'
            raise _refused(500, "unexpected-error", message, access)
        if faults.events_table == "locked":
            return self._stream_later(request, access)
        return self._stream(request, access, [])

    async def _stream_later(self, request: Request, access: str) -> Reply:
        await asyncio.sleep(self.faults.lock_seconds)
        return self._stream(request, access, [])

    def _stream(self, request: Request, access: str, events: list[Any]) -> Answer:
        """Return events as they are streamed: chunked, without charset and ETag, `meta` last."""
        body = f'{{"events":{_dump(events)}, "meta": {_dump(self._meta())}}}'.encode()
        return Answer(200, (*_common(request, access), ("Content-Type", "application/json")), body, chunked=True)

    def _attached_files(self) -> dict[str, object]:
        now = self._now()
        return {
            "id": ":_system:attachedFiles",
            "streamIds": [":_system:attachedFiles"],
            "type": "data-quantity/b",
            "content": 0,
            "time": now,
            "created": now,
            "createdBy": "system",
            "modified": now,
            "modifiedBy": "system",
        }

    def _access_info(self, access: str) -> dict[str, object]:
        faults = self.faults
        creator = "system" if faults.personal_token else "simulatedaccess000000000"
        info: dict[str, object] = {"type": "personal", "name": "pryv-metrics"}
        if not faults.personal_token:
            none = faults.token_level == "none"
            permissions = [
                {"streamId": ":_system:account", "level": "none"},
                {"level": faults.token_level, "streamId": "*"},
                {"streamId": f":_audit:access-{access}", "level": "read"},
            ]
            info = {"type": "shared", "name": "metricsRead", "permissions": [] if none else permissions}
        info |= {"id": access, "token": self.token}
        info |= {} if faults.token_expires is None else {"expires": faults.token_expires}
        info |= {"created": CREATED, "createdBy": creator, "modified": CREATED, "modifiedBy": creator}
        return info | {"user": {"username": self.username}}

    def _username_reserved(self, name: str) -> bool:
        """Tell whether the user lives on this core; a worker that has once seen a user asks no more."""
        if not USERNAME.fullmatch(name):
            data = [{"code": "username-invalid", "message": BAD_USERNAME, "path": "#/username", "param": "username"}]
            raise _RefusedError(400, {"id": "invalid-parameters-format", "message": BAD_FORMAT, "data": data})
        if self.faults.account == "deleted":
            self._reserved.discard(self.username)
        if name not in self._reserved:
            self._need_postgres()
            if not self.lives_here(name):
                return False
            self._reserved.add(name)
        return True

    def _check_email(self, email: str) -> dict[str, object]:
        self._need_platform()
        user, _, host = email.partition("@")
        if host == "example.com" and self._home(user):
            message = f'An user with email "{email}" already exists'
            raise _RefusedError(409, {"id": "item-already-exists", "message": message, "data": {"email": email}})
        return {"reserved": False}

    def _home_core(self, request: Request) -> dict[str, object]:
        user = request.query.get("username")
        if not user:
            raise _refused(400, "invalid-parameters-format", 'provide "username" or "email" as query parameter')
        self._need_platform()
        home = self._home(user)
        if not home:
            raise _unknown_user(user)
        return {"core": {"url": f"{home.url}/" if self.deployment else f"{home.url}/{user}/"}}

    def _hostings(self) -> dict[str, object]:
        self._need_platform()
        if not self.deployment:
            return _regions("default", "Default", "default", "Default", {"default": _hosting("Default", self)})
        cores = self.deployment.cores
        hostings = {
            name: _hosting(name.replace("-", " ").title(), cores.get(core) if core else None)
            for name, core in self.deployment.hostings.items()
        }
        return _regions("europe", "Europe", "ch", "Switzerland", hostings)

    def _service_info(self) -> dict[str, object]:
        url, domain = self.url, self.domain
        features = {"contentQueries": True} | ({"noHF": True} if self.faults.hfs_worker == "off" else {})
        return {
            "access": f"https://access.{domain}/access/" if domain else f"{url}/reg/access/",
            "name": self.name,
            "serial": SERIAL,
            "eventTypes": "https://example.com/event-types/flat.json",
            "home": url,
            "support": url,
            "terms": url,
            "assets": {"definitions": f"{url}/assets.json"},
            "api": f"https://{{username}}.{domain}/" if domain else f"{url}/{{username}}/",
            "register": f"https://reg.{domain}/" if domain else f"{url}/reg/",
            "features": features,
            "version": API_VERSION,
        }

    def _greeting(self, request: Request) -> Answer:
        if "text/html" in request.headers.get("accept", ""):
            text = f"# Cheers from the Pryv API!\n\n- API version: {API_VERSION}\n- Server time: {self._now()}\n\n"
            text += "Learn more at https://pryv.github.io/"
            return _answer(request, 200, "text/html; charset=utf-8", text.encode())
        return self._json(request, {"cheersFrom": "Pryv API", "learnMoreAt": "https://pryv.github.io/"})

    # The HFS worker.

    def _series(self, request: Request) -> Answer:
        """Answer a series call; every event is unknown."""
        if self.faults.hfs_worker == "frozen":
            raise _SilenceError
        if request.method == "OPTIONS":
            return _answer(request, 200, "text/plain; charset=utf-8", b"OK")
        # The first label of the host is taken for the user if it looks like one, even where users are in the path.
        label, path = request.headers.get("host", "").partition(".")[0], request.path
        if USERNAME.fullmatch(label.lower()) and not path.startswith(f"/{label}"):
            path = f"/{label}{path}"
        match [unquote(part) for part in path.split("/") if part]:
            case [user, "events", event, "series"]:
                raise self._series_refusal(request, user, event)
        raise _unknown_resource()

    def _series_refusal(self, request: Request, user: str, event: str) -> _RefusedError:
        token = _given_token(request)
        if token is None:
            return _refused(401, "missing-header", 'Missing expected header "authorization"')
        self._need_hfs_storage()
        if not self.lives_here(user):
            return _unknown_user(user)
        if self.faults.token != "revoked":
            self._hfs_knows_token = True
        if token != self.token or not self._hfs_knows_token:
            return _bad_token()
        return _expired("") if self._token_expired() else _unknown_event(event)

    def _need_hfs_storage(self) -> None:
        """Ask the databases; a fresh worker that finds one of them down never recovers."""
        if self._hfs_stuck or self.faults.hfs_worker == "stuck":
            raise _SilenceError
        fresh, self._hfs_fresh = self._hfs_fresh, False
        if self.deployment and self.faults.platform != "up":
            self._hfs_stuck = fresh
            raise _SilenceError
        self._hfs_stuck = fresh and self.faults.postgres == "refused"
        self._need_postgres()

    # What the workers ask.

    def _need_postgres(self) -> None:
        if self.faults.postgres == "frozen":
            raise _SilenceError
        if self.faults.postgres == "refused":
            raise _StorageError(POSTGRES_REFUSED)

    def _need_platform(self) -> None:
        if self.faults.platform == "hanging":
            raise _SilenceError
        if self.faults.platform == "refused":
            raise _StorageError(PLATFORM_REFUSED)
        if not self.deployment:
            self._need_postgres()

    def lives_here(self, user: str) -> bool:
        """Tell whether the user has an account on this core."""
        return user == self.username and self.faults.account == "present"

    def _home(self, user: str) -> "PryvCore | None":
        if self.deployment:
            return self.deployment.home(user)
        return self if self.lives_here(user) else None

    def _now(self) -> float:
        return round(time.time() + self.faults.clock_offset, 3)

    def _meta(self) -> dict[str, object]:
        return {"apiVersion": API_VERSION, "serverTime": self._now(), "serial": SERIAL}

    def _json(self, request: Request, values: Mapping[str, object], access: str = "") -> Answer:
        return _answer(request, 200, JSON, _dump({"meta": self._meta(), **values}).encode(), access)

    def _error(self, request: Request, refused: _RefusedError, *, meta: bool = True) -> Answer:
        values = {"error": refused.error} | ({"meta": self._meta()} if meta else {})
        return _answer(request, refused.status, JSON, _dump(values).encode(), refused.access)


def _hosting(name: str, core: PryvCore | None) -> dict[str, object]:
    return {"name": name, "available": core is not None, "availableCore": f"{core.url}/" if core else ""}


def _regions(region: str, region_name: str, zone: str, zone_name: str, hostings: object) -> dict[str, object]:
    return {"regions": {region: {"name": region_name, "zones": {zone: {"name": zone_name, "hostings": hostings}}}}}


class PryvDeployment:
    """Cores that share a platform: which user lives where, the hostings, the names for a DNS server.

    `homes` maps a core to its user, whose token is `{username}-token`. The cores listen on 127.0.0.1, 127.0.0.2, ...,
    so that DNS answers tell them apart. A core that stopped stays registered: hostings, cores and DNS still name it.
    `hostings` maps a hosting to its core, None for a hosting without one, and may change while running.
    """

    def __init__(self, domain: str = "pryv.test", homes: Mapping[str, str] | None = None) -> None:
        self.domain = domain
        homes = homes or {"core-a": "usera01", "core-b": "userb01"}
        self.cores = {
            core: PryvCore(user, f"{user}-token", domain=domain, core_id=core, deployment=self)
            for core, user in homes.items()
        }
        self.hostings: dict[str, str | None] = {core.replace("core", "host", 1): core for core in homes}

    def home(self, user: str) -> PryvCore | None:
        """Return the core of a user, None for an unknown one."""
        return next((core for core in self.cores.values() if core.lives_here(user)), None)

    def records(self) -> dict[str, list[str]]:
        """Return the addresses the DNS of the deployment answers, by name without the domain."""
        addresses = {name: [core.server.host] for name, core in self.cores.items()}
        everywhere = [address for one in addresses.values() for address in one]
        users = {
            core.username: addresses[name] for name, core in self.cores.items() if core.faults.account == "present"
        }
        services = dict.fromkeys(("reg", "access", "mfa", "lsc"), everywhere)
        return {**services, "core": everywhere[:1], **addresses, **users}

    async def start(self) -> None:
        """Start every core."""
        for number, core in enumerate(self.cores.values(), 1):
            await core.start(f"127.0.0.{number}")

    async def stop(self) -> None:
        """Stop every core."""
        for core in self.cores.values():
            await core.stop()

    async def __aenter__(self) -> Self:
        """Start."""
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        """Stop."""
        await self.stop()
