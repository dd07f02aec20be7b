"""Pryv.io v2: the checks of the operators' health-check guide, and those that see what the guide's cannot.

Source: the health-check guide and the API reference of Pryv.io; behaviour measured on open-pryv.io 2.0.0-pre.4. What
each check proves, what it cannot, and what it costs the server: docs/pryv.md.

In a single-core deployment the user's calls go to {url}/{username}/. In a multi-core one they go to
https://{username}.{domain}/, connected to this core's address whatever DNS says about the name.
"""

import re
import socket
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from ipaddress import IPv4Address, ip_address
from typing import Annotated, Any, ClassVar, Literal, get_args

from pydantic import AfterValidator, BeforeValidator, Field, WithJsonSchema
from yarl import URL

from collectors import dns
from collectors.base import Check, CheckReport, Clock, Collector, Conclusion, Sample, gauge
from collectors.failures import Failure, Reason, reason_of
from collectors.http import Http, Origin, Reply
from collectors.replies import ReplyModel, check_status, parse, read_document
from collectors.secrets import Secret
from collectors.settings import (
    CheckList,
    Duration,
    Model,
    PositiveDuration,
    SecretFile,
    SecretText,
    TargetSettings,
    Url,
    check_host,
    kept_free,
    one_of,
    parse_url,
)

CheckName = Literal["dns", "registration", "platform", "storage", "hfs", "series", "service_info", "access"]
CHECKS: tuple[CheckName, ...] = get_args(CheckName)


# --- settings -------------------------------------------------------------------------------------------------------


def _username(name: str) -> str:
    if not re.fullmatch(r"[a-z0-9-]{5,60}", name):
        raise ValueError("a Pryv username has 5 to 60 of the characters a-z 0-9 -")
    return name


def _domain(name: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9.-]+", name):
        raise ValueError("not a domain name")
    return check_host(name).lower()


def _name_server(text: object) -> dns.NameServer:
    if not isinstance(text, str):
        raise ValueError("not an address and port")  # noqa: TRY004
    try:
        return dns.NameServer.parse(text)
    except ValueError:
        raise ValueError("not an IP address with a port: write 192.0.2.53:53 or [2001:db8::1]:53") from None


def _ipv4(text: str) -> str:
    try:
        return str(IPv4Address(text))
    except ValueError:
        raise ValueError("not an IPv4 address: only A records are asked") from None


_TEXT = WithJsonSchema({"type": "string"})
NameServerAddress = Annotated[dns.NameServer, BeforeValidator(_name_server), _TEXT]


class DnsSettings(Model):
    """Which name servers are asked about the user's name, and what they must answer."""

    nameservers: Annotated[tuple[NameServerAddress, ...], Field(strict=False)] = ()
    expect: Annotated[tuple[Annotated[str, AfterValidator(_ipv4)], ...], Field(strict=False)] = ()
    timeout: PositiveDuration = 2.0


@dataclass(frozen=True, slots=True)
class Account:
    """The health account and where it is asked for."""

    username: str
    token: str = field(repr=False)
    url: URL
    domain: str | None
    register_url: URL


def parse_api_endpoint(text: str) -> Account:
    """Read a Pryv apiEndpoint: https://{token}@{username}.{domain}/ or https://{token}@{host}/{username}/.

    Raises ValueError; its message does not repeat the text, which holds the token.
    """
    wrong = ValueError("not an apiEndpoint: https://{token}@{username}.{domain}/ or https://{token}@{host}/{username}/")
    try:
        written = URL(text)
        token, host = written.user, written.host
        url = parse_url(str(written.with_user(None).with_path("/")))
    except ValueError:
        raise wrong from None
    path = written.path.strip("/")
    if not token or written.password is not None or host is None or written.query_string or "/" in path:
        raise wrong
    if path:
        return Account(_username(path), token, url, None, url / "reg")
    username, _, domain = host.partition(".")
    # A user's own name has no /reg below it; the name reg.{domain} stands for it on every core.
    return Account(_username(username), token, url, _domain(domain), url.with_host(f"reg.{domain}"))


def _api_endpoint(secret: Secret) -> Secret:
    return secret.require(parse_api_endpoint)


class Settings(TargetSettings):
    """A Pryv.io core and the health account on it."""

    ADDRESS_KEYS: ClassVar[tuple[str, ...]] = ("url", "api_endpoint", "api_endpoint_file")

    collector: Literal["pryv"]
    username: Annotated[str, AfterValidator(_username)] | None = None
    token: SecretText | None = None
    token_file: SecretFile | None = None
    api_endpoint: Annotated[SecretText, AfterValidator(_api_endpoint)] | None = None
    api_endpoint_file: Annotated[SecretFile, AfterValidator(_api_endpoint)] | None = None
    domain: Annotated[str, AfterValidator(_domain)] | None = None
    register_url: Url | None = None
    dns: DnsSettings = DnsSettings()
    checks: CheckList[CheckName] | None = None
    storage_interval: Duration = 60.0
    access_interval: Duration = 300.0
    auth_backoff: Duration = 60.0

    @classmethod
    def rules(cls, written: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
        """Ask for the account in one of its two forms, and keep the header of the token free."""
        yield from super().rules(written)
        endpoint = written.get("api_endpoint") or written.get("api_endpoint_file")
        if endpoint:
            for key in ("username", "token", "token_file", "domain"):
                if written.get(key) is not None:
                    yield key, f"{key} is a part of the api endpoint: give one of them"
        else:
            if written.get("username") is None:
                yield "", "missing key username"
            yield from one_of(written, "token", "token_file")
        checks = written.get("checks")
        if not endpoint and not written.get("domain") and isinstance(checks, list) and "dns" in checks:
            yield "checks", "the check dns needs domain: a single-core deployment has no name for each user"
        plain_register = str(written.get("register_url", "")).lower().startswith("http:")
        if written.get("proxy_url") and written.get("domain") and plain_register:
            yield "register_url", "domain with a proxy needs https here: a proxy would rewrite the Host of plain http"
        if written.get("basic_auth") is not None:
            yield "basic_auth", "basic_auth cannot be used here: Pryv takes its token in the same header"
        yield from kept_free(written, "Authorization", "Pryv takes its token in it")

    @property
    def account(self) -> Account:
        """The account, as the config and the secret files have it now."""
        endpoint = self.api_endpoint or self.api_endpoint_file
        if endpoint is not None:
            account = parse_api_endpoint(endpoint.get())
            register = self.register_url or account.register_url
            return Account(account.username, account.token, account.url, account.domain, register)
        token = self.token or self.token_file
        assert self.url is not None, "the rules of the model ask for them"
        assert self.username is not None, "the rules of the model ask for them"
        assert token is not None, "the rules of the model ask for them"
        return Account(self.username, token.get(), self.url, self.domain, self.register_url or self.url / "reg")

    @property
    def address(self) -> URL:
        """The URL of the core, or of the account's name."""
        return self.account.url

    def check_names(self) -> tuple[str, ...]:
        """Return the checks of this target: those listed, or all (dns only with a domain)."""
        default = CHECKS if self.account.domain is not None else CHECKS[1:]
        return tuple(name for name in CHECKS if name in (self.checks or default))


# --- replies --------------------------------------------------------------------------------------------------------


class Meta(ReplyModel):
    """`meta` of nearly every answer; serverTime in Unix seconds."""

    apiVersion: str | None = None  # noqa: N815
    serverTime: float | None = None  # noqa: N815
    serial: str | None = None


class Registration(ReplyModel):
    """GET {register}/{username}/check_username."""

    reserved: bool


class Hosting(ReplyModel):
    """One hosting: `available` is a flag set by its admin, no sign of life."""

    available: bool | None = None


class Zone(ReplyModel):
    """A zone of hostings."""

    hostings: dict[str, Hosting]


class Region(ReplyModel):
    """A region of zones."""

    zones: dict[str, Zone]


class Hostings(ReplyModel):
    """GET {register}/hostings."""

    regions: dict[str, Region]


class Events(ReplyModel):
    """GET events; meta comes last in the stream."""

    events: list[Any]
    meta: Meta


class Features(ReplyModel):
    """Features of the deployment that differ from the default."""

    noHF: bool = False  # noqa: N815


class ServiceInfo(ReplyModel):
    """GET {register}/service/info."""

    name: str | None = None
    version: str | None = None
    serial: str | None = None
    features: Features = Features()
    meta: Meta = Meta()


class Permission(ReplyModel):
    """One permission of an access; without streamId one on a feature."""

    streamId: str | None = None  # noqa: N815
    level: str | None = None


class AccessInfo(ReplyModel):
    """GET access-info; expires in Unix seconds, absent if it never does. The reply holds the token itself."""

    type: str
    permissions: list[Permission] | None = None
    expires: float | None = None


# --- metrics --------------------------------------------------------------------------------------------------------

INFO = gauge(
    "pryv_info",
    "The deployment (/service/info: meta.apiVersion, serial, name)",
    "api_version",
    "serial",
    "name",
)
CLOCK_SKEW = gauge(
    "pryv_clock_skew_seconds",
    "Clock of the server minus clock of the exporter (meta.serverTime of the quickest answer, against the middle of"
    " the exchange)",
)
USERNAME_REGISTERED = gauge(
    "pryv_username_registered", "1 if the core knows the health account (/{username}/check_username: reserved)"
)
HFS_ENABLED = gauge(
    "pryv_hfs_enabled", "1 if the deployment serves high-frequency series (/service/info: not features.noHF)"
)
TOKEN_EXPIRY = gauge(
    "pryv_token_expiry_timestamp_seconds",
    "When the access token expires, Unix time; absent if it never does (/access-info: expires)",
)
TOKEN_INFO = gauge(
    "pryv_token_info",
    "The access of the token: its type, and its level on all streams, none if it has no such permission, full for a"
    " personal token (/access-info: type, permissions)",
    "access_type",
    "level",
)
HOSTING_AVAILABLE = gauge(
    "pryv_hosting_available",
    "1 if every hosting of that id is marked available; a flag set by its admin, no sign of life (/hostings:"
    " available)",
    "hosting",
    naming="hosting",
)
DNS_ANSWERS = gauge("pryv_dns_answers", "A records of {username}.{domain}")
DNS_TTL = gauge("pryv_dns_ttl_seconds", "Smallest TTL on the way to the A records of {username}.{domain}")


# --- the collector --------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class Memory:
    """What a target remembers: the last service info's noHF, the refused token and until when it is not sent."""

    no_hfs: bool = False
    refused_token: str | None = None
    refused_until: float = 0.0


SERIES = "/events/nonexistent/series"


class Pryv(Collector[Settings, Memory]):
    """One probe of one Pryv.io core."""

    kind = "pryv"
    settings_model = Settings
    metrics = (
        INFO,
        CLOCK_SKEW,
        USERNAME_REGISTERED,
        HFS_ENABLED,
        TOKEN_EXPIRY,
        TOKEN_INFO,
        HOSTING_AVAILABLE,
        DNS_ANSWERS,
        DNS_TTL,
    )

    def __init__(self, settings: Settings, memory: Memory, http: Http, clock: Clock) -> None:
        """Work out where user and registration calls go."""
        super().__init__(settings, memory, http, clock)
        self.account = settings.account
        self._skews: list[tuple[float, float]] = []
        self._no_hfs: bool | None = None
        core = self.account.url
        if self.account.domain is None:
            self._user_path = f"/{self.account.username}"
            self._user = http.origin(core)
            self._register = http.origin(self.account.register_url)
        else:
            own_name = URL.build(scheme=core.scheme, host=f"{self.account.username}.{self.account.domain}")
            self._user_path = ""
            self._user = http.origin(own_name, connect_to=core)
            elsewhere = self.account.register_url.host != core.host
            self._register = http.origin(self.account.register_url, connect_to=core if elsewhere else None)

    @staticmethod
    def new_memory() -> Memory:
        """Return the memory of a target that was never probed."""
        return Memory()

    def checks(self) -> tuple[Check, ...]:
        """Return the configured checks; those that write audit rows in the server have an interval."""
        settings = self.settings
        known = (
            Check("dns", self.dns),
            Check("registration", self.registration),
            Check("platform", self.platform),
            Check("storage", self.storage, interval=settings.storage_interval, recall=self.recall_token),
            Check("hfs", self.hfs),
            Check("series", self.series),
            Check("service_info", self.service_info),
            Check("access", self.access, interval=settings.access_interval, recall=self.recall_access),
        )
        names = settings.check_names()
        return tuple(check for check in known if check.name in names)

    def conclude(self, reports: Mapping[str, CheckReport]) -> Conclusion:
        """Leave out hfs and series where the deployment has no HFS; give the skew by the quickest answer."""
        conclusion = Conclusion()
        no_hfs = self.memory.no_hfs if self._no_hfs is None else self._no_hfs
        if no_hfs:
            conclusion.left_out = {"hfs", "series"} & set(reports)
        if self._skews:
            conclusion.samples.append(Sample(CLOCK_SKEW, (), min(self._skews)[1]))
        return conclusion

    async def dns(self, report: CheckReport) -> None:
        """Ask for the A records of {username}.{domain}: there, and every one expected."""
        settings = self.settings.dns
        answer = await dns.addresses_of(
            f"{self.account.username}.{self.account.domain}", settings.nameservers, settings.timeout
        )
        report.add(DNS_ANSWERS, len(answer.addresses))
        report.add(DNS_TTL, answer.ttl)
        expected = settings.expect or await self._core_addresses()
        if strangers := [address for address in answer.addresses if expected and address not in expected]:
            raise Failure(Reason.UNHEALTHY, f"{len(strangers)} of {len(answer.addresses)} addresses are not expected")

    async def registration(self, report: CheckReport) -> None:
        """GET {register}/{username}/check_username: the core's own user index knows the account."""
        document = await self._get(report, self._register, f"/{self.account.username}/check_username", "reserved")
        reserved = parse(Registration, document).reserved
        report.add(USERNAME_REGISTERED, reserved)
        if not reserved:
            raise Failure(Reason.NOT_FOUND, "the core does not know the account: reserved is false")

    async def platform(self, report: CheckReport) -> None:
        """GET {register}/hostings: read from the platform database, unlike check_username."""
        document = await self._get(report, self._register, "/hostings", "regions")
        available: dict[str, bool] = {}
        for region in parse(Hostings, document).regions.values():
            for zone in region.zones.values():
                for name, hosting in zone.hostings.items():
                    if hosting.available is not None:
                        available[name] = available.get(name, True) and hosting.available
        for name, yes in available.items():
            report.add(HOSTING_AVAILABLE, yes, hosting=name)

    async def storage(self, report: CheckReport) -> None:
        """GET events?limit=1: authentication and base storage. Writes an audit row."""
        document = await self._get_with_token(report, "/events?limit=1", "events", HTTPStatus.OK)
        self._accept_token()
        parse(Events, document)

    async def hfs(self, report: CheckReport) -> None:
        """OPTIONS of a series: something answers where the HFS should, as the guide asks; no token is needed."""
        reply = await self._ask(report, "OPTIONS", self._user, self._user_path + SERIES)
        if reply.status < 300 and _is_page_or_greeting(reply):  # noqa: PLR2004
            raise Failure(Reason.WRONG_TARGET, f"status {reply.status}, but the body is not that of the HFS")
        if reply.status == HTTPStatus.MISDIRECTED_REQUEST or not (
            200 <= reply.status < 300 or 400 <= reply.status < 500  # noqa: PLR2004
        ):
            check_status(reply, ())

    async def series(self, report: CheckReport) -> None:
        """GET of a series that does not exist: the HFS worker must look up token and event to say so."""
        document = await self._get_with_token(report, SERIES, "error", HTTPStatus.NOT_FOUND, HTTPStatus.OK)
        if "meta" in document:
            raise Failure(Reason.WRONG_TARGET, "the API worker answers instead of the HFS worker")
        message = _error_message(document)
        if message.startswith("Unknown user"):
            raise Failure(Reason.NOT_FOUND, "the HFS worker does not know the account")
        if not message.startswith("Unknown event"):
            raise Failure(Reason.WRONG_TARGET, "the HFS worker looked for another path: a host name taken for a user?")

    async def service_info(self, report: CheckReport) -> None:
        """GET {register}/service/info: what is deployed. Touches no storage."""
        document = await self._get(report, self._register, "/service/info", "api")
        info = parse(ServiceInfo, document)
        self.memory.no_hfs = self._no_hfs = info.features.noHF
        report.add(HFS_ENABLED, not info.features.noHF)
        report.add(
            INFO,
            1,
            api_version=info.meta.apiVersion or info.version or "",
            serial=info.serial or info.meta.serial or "",
            name=info.name or "",
        )

    async def access(self, report: CheckReport) -> None:
        """GET access-info: what the token may do and when it expires. Writes an audit row."""
        document = await self._get_with_token(report, "/access-info", "type", HTTPStatus.OK)
        self._accept_token()
        access = parse(AccessInfo, document)
        if access.expires is not None:
            report.add(TOKEN_EXPIRY, access.expires)
        if access.permissions is None:
            level = "full" if access.type == "personal" else "none"
        else:
            levels = [entry.level for entry in access.permissions if entry.streamId == "*" and entry.level]
            level = levels[0] if levels else "none"
        report.add(TOKEN_INFO, 1, access_type=access.type, level=level)

    def recall_token(self, _: CheckReport) -> bool:
        """Hold on to what is remembered unless the token has been refused since; then it is asked after the backoff."""
        if self.memory.refused_token != self.account.token:
            return True
        if self.clock.monotonic() < self.memory.refused_until:
            raise Failure(Reason.AUTH, "the token has been refused since this was asked")
        return False

    def recall_access(self, report: CheckReport) -> bool:
        """Refuse a remembered access whose time is over, too."""
        holds = self.recall_token(report)
        expires = [sample.number for sample in report.samples.values() if sample.metric is TOKEN_EXPIRY]
        if holds and expires and expires[0] <= self.clock.wall():
            raise Failure(Reason.AUTH, "the token has expired since access-info was last asked")
        return holds

    async def _core_addresses(self) -> tuple[str, ...]:
        host = str(self.account.url.host)
        try:
            return (host,) if ip_address(host).version == 4 else ()  # noqa: PLR2004
        except ValueError:
            pass
        try:
            found = await self.http.client.lookups.addresses(host, socket.AF_INET)
        except OSError as error:
            raise Failure(Reason.DNS, f"the core's own name has no address ({reason_of(error)})") from error
        return tuple(address for address, _ in found)

    async def _get(self, report: CheckReport, origin: Origin, path: str, key: str) -> Any:
        reply = await self._ask(report, "GET", origin, path)
        return await self._document(reply, key, (HTTPStatus.OK,))

    async def _get_with_token(self, report: CheckReport, path: str, key: str, *promised: HTTPStatus) -> Any:
        """Ask with the token, unless it was refused a moment ago.

        Every request with a bad token costs the server an audit row, and one with a broken audit store a worker.
        """
        memory, token = self.memory, self.account.token
        if memory.refused_token == token and self.clock.monotonic() < memory.refused_until:
            report.remembered = True
            raise Failure(Reason.AUTH, "the token was refused a moment ago and is not sent again yet")
        reply = await self._ask(report, "GET", self._user, self._user_path + path, {"Authorization": token})
        try:
            return await self._document(reply, key, promised)
        except Failure as failure:
            if failure.reason is Reason.AUTH:
                memory.refused_token = token
                memory.refused_until = self.clock.monotonic() + self.settings.auth_backoff
            raise

    def _accept_token(self) -> None:
        """Forget a refusal, on the API worker's word: the HFS worker goes on accepting a deleted token."""
        if self.memory.refused_token == self.account.token:
            self.memory.refused_token = None

    async def _ask(
        self, report: CheckReport, method: str, origin: Origin, path: str, headers: Mapping[str, str] | None = None
    ) -> Reply:
        return await self.http.ask(report, method, origin, path, headers)

    async def _document(self, reply: Reply, key: str, promised: tuple[HTTPStatus, ...]) -> Any:
        document = await read_document(self.http.client, reply, _marks(key), promised)
        meta = document.get("meta")
        if meta is not None and (server_time := parse(Meta, meta).serverTime) is not None:
            self._skews.append((reply.took, server_time - reply.middle))
        return document


def _marks(key: str) -> Callable[[Any], bool]:
    """Return the test whether a document is Pryv's: `meta`, an error with an id, or the key that was asked for."""

    def is_ours(document: Any) -> bool:
        if not isinstance(document, dict) or "cheersFrom" in document:
            return False
        error = document.get("error")
        return isinstance(document.get("meta"), dict) or key in document or (isinstance(error, dict) and "id" in error)

    return is_ours


def _error_message(document: Any) -> str:
    error = document.get("error")
    message = error.get("message") if isinstance(error, dict) else None
    return message if isinstance(message, str) else ""


def _is_page_or_greeting(reply: Reply) -> bool:
    begin = reply.body[:1024].lstrip().lower()
    return begin.startswith((b"<!doctype", b"<html")) or b"cheersfrom" in begin or b"cheers from" in begin
