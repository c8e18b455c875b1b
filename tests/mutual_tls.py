"""An HTTPS API that lets in whoever presents a certificate of one authority, and the vault that is this authority."""

import datetime as dt
import ipaddress
import json
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from deploy.servers.openbao import OpenBao
from deploy.servers.vault_pki import MOUNT
from tests.gateways import NO_TLS


@dataclass(frozen=True, slots=True)
class Visit:
    """One request: the name and serial number of the certificate, and the connection it came by."""

    name: str
    serial: int
    connection: int


@dataclass(frozen=True, slots=True)
class Club:
    """The API.

    Attributes:
        certificate: what it says it is, in PEM.
        visits: requests, in order.
    """

    origin: str
    certificate: Path
    visits: list[Visit] = field(default_factory=list)


def authority(bao: OpenBao) -> str:
    """The certificate of the vault's authority, in PEM."""
    return _public(bao, f"{MOUNT}/ca/pem").text


def revoked(bao: OpenBao) -> set[int]:
    """The serial numbers on the vault's revocation list."""
    found = x509.load_pem_x509_crl(_public(bao, f"{MOUNT}/crl/pem").content)
    return {one.serial_number for one in found}


def _public(bao: OpenBao, path: str) -> httpx.Response:
    with httpx.Client(transport=httpx.HTTPTransport(uds=str(bao.socket), verify=NO_TLS)) as vault:
        return vault.get(f"http://localhost/v1/{path}")


@contextmanager
def club(folder: Path, trusted: str) -> Iterator[Club]:
    """Serve on loopback; ``trusted`` signs its visitors' certificates. ``folder`` gets the server's own."""
    visits: list[Visit] = []

    class Door(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            shown = self.connection.getpeercert()
            name = dict(pair for part in shown["subject"] for pair in part)["commonName"]
            visits.append(Visit(name, int(shown["serialNumber"], 16), self.client_address[1]))
            body = json.dumps({"hello": name}).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def do_POST(self) -> None:
            self.do_GET()

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the library's name
            """Say nothing."""

    tls, certificate = own_certificate(folder)
    tls.verify_mode = ssl.CERT_REQUIRED
    tls.load_verify_locations(cadata=trusted)
    with ThreadingHTTPServer(("127.0.0.1", 0), Door) as server:
        server.socket = tls.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield Club(f"https://127.0.0.1:{server.server_port}", certificate, visits)
        finally:
            server.shutdown()
            thread.join()


def own_certificate(folder: Path) -> tuple[ssl.SSLContext, Path]:
    """A server's certificate for 127.0.0.1, signed by itself: ``club.pem``, and with its key ``club-key.pem``."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "club")])
    now = dt.datetime.now(dt.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - dt.timedelta(days=1))
        .not_valid_after(now + dt.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .sign(key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    shown, both = folder / "club.pem", folder / "club-key.pem"
    shown.write_bytes(certificate.public_bytes(pem))
    secret = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    both.write_bytes(certificate.public_bytes(pem) + secret)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(both)
    return context, shown
