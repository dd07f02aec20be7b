"""TLS: when certificates expire, which are accepted, and what a refused handshake costs nobody."""

import asyncio
import contextlib
import ssl
from pathlib import Path

import pytest
import trustme
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from hypothesis import given, settings
from hypothesis import strategies as st

from collectors import http as http_module
from collectors.base import CheckReport
from collectors.failures import Failure, Reason
from collectors.settings import TargetSettings, TlsConfig
from collectors.tls import Trace, not_after, tls_contexts
from health_exporter.simulators.wire import Answer, Server
from tests.support import pryv
from tests.tls_support import (
    HOST,
    Asked,
    Certificates,
    ask,
    chain_of,
    probing,
    strict_server,
    trusting,
    url_of,
)

OK = Answer(200, body=b"{}")
KINDS = ("good", "expired", "other_host", "self_signed", "far")
ACCEPTED = ("good", "far")


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return Certificates(tmp_path_factory.mktemp("certificates"))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("verify", [True, False])
async def test_the_expiry_of_a_certificate_is_known_accepted_or_not(
    certificates: Certificates, kind: str, verify: bool
) -> None:
    leaf = getattr(certificates, kind)
    async with Server(lambda _: OK, certificates.server(leaf)) as server:
        asked = await ask(pryv(url_of(server, HOST), **trusting(certificates, insecure_skip_verify=not verify)))
        accepted = kind in ACCEPTED or not verify
        assert asked.reason == (None if accepted else Reason.TLS)
        assert asked.report.status == (200 if accepted else None)
        assert asked.expiry == chain_of(leaf).not_valid_after_utc.timestamp()
        assert len(server.requests) == (1 if accepted else 0)
        assert server.accepted == (1 if accepted else 2)


async def test_a_refused_certificate_is_read_once_a_probe(certificates: Certificates) -> None:
    async with Server(lambda _: OK, certificates.server(certificates.expired)) as server:
        target = pryv(url_of(server, HOST), **trusting(certificates))
        asked = await ask_often(target, 3)
        assert [each.reason for each in asked] == [Reason.TLS] * 3
        assert server.accepted == 4
        assert not server.requests


async def ask_often(target: TargetSettings, times: int) -> list[Asked]:

    found = [Asked(CheckReport("a")) for _ in range(times)]

    async with probing(target) as http:

        async def one(asked: Asked) -> None:
            try:
                asked.reply = await http.ask(asked.report, "GET", http.origin(target.address), "/")
            except Failure as failure:
                asked.failure = failure

        await asyncio.gather(*(one(asked) for asked in found))
    return found


async def test_the_earliest_expiry_of_a_probe_is_given(certificates: Certificates) -> None:

    far = chain_of(certificates.far).not_valid_after_utc.timestamp()
    async with probing(pryv("https://localhost")) as http:
        for der, expiry in (
            (b"no certificate", None),
            (der_of(certificates.far), far),
            (der_of(certificates.expired), 1582979415.0),
            (der_of(certificates.far), 1582979415.0),
        ):
            http._keep_expiry([der])
            assert http.certificate_expiry == expiry


async def test_the_expiry_of_1970_is_no_missing_one(
    certificates: Certificates, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with probing(pryv("https://localhost")) as http:
        for expiry in (0.0, 5.0):
            monkeypatch.setattr(http_module, "not_after", lambda _, expiry=expiry: expiry)
            http._keep_expiry([b""])
    assert http.certificate_expiry == 0.0


async def test_the_whole_chain_counts_where_python_gives_it(certificates: Certificates) -> None:
    root = trustme.CA(key_type=trustme.KeyType.ECDSA)
    middle = root.create_child_ca(key_type=trustme.KeyType.ECDSA)
    leaf = middle.issue_cert(HOST, key_type=trustme.KeyType.ECDSA)
    ca_file = certificates.directory / "root.pem"
    root.cert_pem.write_to_path(str(ca_file))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    leaf.configure_cert(context)
    async with Server(lambda _: OK, context) as server:
        asked = await ask(pryv(url_of(server, HOST), tls_config={"ca_file": str(ca_file)}))
    assert asked.reply is not None
    sent = [x509.load_pem_x509_certificate(pem.bytes()) for pem in leaf.cert_chain_pems]
    counted = sent if hasattr(ssl.SSLObject, "get_unverified_chain") else sent[:1]
    assert asked.expiry == min(certificate.not_valid_after_utc.timestamp() for certificate in counted)


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
async def test_a_client_certificate_that_is_asked_for(certificates: Certificates, version: ssl.TLSVersion) -> None:
    context = certificates.server(certificates.good)
    context.minimum_version = context.maximum_version = version
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_verify_locations(str(certificates.ca_file))
    own = certificates.directory / "client.pem"
    certificates.issue("client").private_key_and_cert_chain_pem.write_to_path(str(own))
    with strict_server(context) as port:
        asked = await ask(pryv(f"https://localhost:{port}", **trusting(certificates)))
        assert asked.reason == Reason.TLS
        assert asked.report.status is None
        asked = await ask(pryv(f"https://localhost:{port}", **trusting(certificates, cert_file=str(own))))
        assert asked.reply is not None
        assert asked.reply.status == 200


async def test_versions_that_do_not_meet_are_a_tls_failure(certificates: Certificates) -> None:
    context = certificates.server(certificates.good)
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers("PSK")
    with strict_server(context) as port:
        assert (await ask(pryv(f"https://localhost:{port}", **trusting(certificates)))).reason == Reason.TLS


async def test_server_name_is_the_name_that_is_checked(certificates: Certificates) -> None:
    async with Server(lambda _: OK, certificates.server(certificates.other_host)) as server:
        tls = trusting(certificates, server_name="other.example.com")
        assert (await ask(pryv(url_of(server), **tls))).reply is not None


# not_after


def der_of(leaf: trustme.LeafCert) -> bytes:
    return ssl.PEM_cert_to_DER_cert(leaf.cert_chain_pems[0].bytes().decode())


DER = der_of(trustme.CA(key_type=trustme.KeyType.ECDSA).issue_cert(HOST, key_type=trustme.KeyType.ECDSA))


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, len(DER) - 1), st.integers(0, 255)), max_size=6), st.integers(0, len(DER)))
def test_a_mutilated_certificate_has_a_date_or_is_a_value_error(changes: list[tuple[int, int]], length: int) -> None:
    mutated = bytearray(DER)
    for at, value in changes:
        mutated[at] = value
    for data in (bytes(mutated), bytes(mutated[:length])):
        with contextlib.suppress(ValueError):
            assert isinstance(not_after(data), float)


@settings(deadline=None)
@given(st.binary(max_size=200))
def test_bytes_that_are_no_certificate_have_a_date_or_are_a_value_error(data: bytes) -> None:
    with contextlib.suppress(ValueError):
        assert isinstance(not_after(data), float)


def element(tag: int, content: bytes) -> bytes:
    return bytes((tag, len(content))) + content


@pytest.mark.parametrize(
    ("tag", "text", "seconds"),
    [
        (0x17, b"491231235959Z", 2524607999.0),
        (0x17, b"500101000000Z", -631152000.0),
        (0x18, b"20500101000000Z", 2524608000.0),
        (0x18, b"19700101000000Z", 0.0),
        (0x17, b"4912Z", None),
        (0x18, b"20501301000000Z", None),
        (0x17, b"\xff91231235959Z", None),
        (0x17, b"", None),
    ],
)
@pytest.mark.parametrize("version", [b"", element(0xA0, b"\x02\x01\x02")])
def test_both_forms_of_a_date_are_read(tag: int, text: bytes, seconds: float | None, version: bytes) -> None:
    validity = element(0x30, element(0x17, b"200101000000Z") + element(tag, text))
    fields = version + element(0x02, b"\x01") + element(0x30, b"") + element(0x30, b"") + validity
    certificate = element(0x30, element(0x30, fields))
    if seconds is None:
        with pytest.raises(ValueError):  # noqa: PT011 - the words are nobody's business
            not_after(certificate)
    else:
        assert not_after(certificate) == seconds


# Contexts


def test_files_that_cannot_be_used_are_named(certificates: Certificates, tmp_path: Path) -> None:
    empty, own = tmp_path / "empty.pem", tmp_path / "own.pem"
    empty.write_text("")
    leaf, other = certificates.issue("client"), certificates.issue("client")
    leaf.private_key_and_cert_chain_pem.write_to_path(str(own))
    cert, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    leaf.cert_chain_pems[0].write_to_path(str(cert))
    other.private_key_pem.write_to_path(str(key))
    gone = tmp_path / "gone.pem"
    for config, named in (
        (TlsConfig.model_construct(ca_file=empty), [empty]),
        (TlsConfig.model_construct(ca_file=gone), [gone, "No such file"]),
        (TlsConfig.model_construct(ca_file=key), [key]),
        (TlsConfig.model_construct(cert_file=empty), [empty]),
        (TlsConfig.model_construct(cert_file=cert), [cert]),
        (TlsConfig.model_construct(cert_file=cert, key_file=key), [cert, key, "MISMATCH"]),
        (TlsConfig.model_construct(cert_file=gone), [gone, "No such file"]),
    ):
        with pytest.raises(ValueError) as caught:  # noqa: PT011 - the words are checked below
            tls_contexts(config)
        assert all(str(part) in str(caught.value) for part in named), caught.value
    tls_contexts(TlsConfig.model_construct(cert_file=own))


def test_a_key_with_a_password_is_an_error_and_never_a_question(certificates: Certificates, tmp_path: Path) -> None:

    leaf = certificates.issue("client")
    key = serialization.load_pem_private_key(leaf.private_key_pem.bytes(), None)
    file = tmp_path / "locked.pem"
    file.write_bytes(
        leaf.cert_chain_pems[0].bytes()
        + key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(b"password"),
        )
    )
    with pytest.raises(ValueError, match=r"locked\.pem"):
        tls_contexts(TlsConfig.model_construct(cert_file=file))


@pytest.mark.parametrize(
    ("trace", "phases"),
    [
        (Trace(), {"connect": None}),
        (Trace(connect_begin=1), {"connect": 9}),
        (Trace(connect_begin=1, resolve_begin=2), {"resolve": 8}),
        (Trace(connect_begin=1, resolve_begin=2, resolve_end=3), {"resolve": 1, "connect": 7}),
        (Trace(connect_begin=1, tls_begin=4), {"connect": 3, "tls": 6}),
        (Trace(connect_begin=1, tls_begin=4, tls_end=6), {"connect": 3, "tls": 2}),
        (
            Trace(connect_begin=1, connected=6, tls_begin=4, tls_end=6, sent=7, headers=8),
            {"connect": 3, "tls": 2, "processing": 1, "transfer": 2},
        ),
    ],
)
def test_the_phases_of_a_trace(trace: Trace, phases: dict[str, float | None]) -> None:
    assert trace.phases(10) == {name: seconds for name, seconds in phases.items() if seconds is not None}
