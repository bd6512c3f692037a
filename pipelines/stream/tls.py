"""Certificates: the operator's own, or one that is made here, which browsers warn of once."""

from __future__ import annotations

import datetime
import ipaddress
import os
import socket
import ssl
from collections.abc import Iterable
from pathlib import Path
from typing import Any

_DAYS = 397  # browsers take no longer ones
_NAMES = ("videoprune-cert.pem", "videoprune-key.pem")
SELF_SIGNED = "self-signed"


def certificate_files(tls: str, folder: Path, hosts: Iterable[str]) -> tuple[Path, Path]:
    """Certificate and key for `--tls`: CERT,KEY as they are, or `self-signed`, made in `folder` unless it has them.

    hosts: names and addresses that it is for. Raises ValueError for files that do not fit.
    """
    if tls == SELF_SIGNED:
        cert, key = (folder / name for name in _NAMES)
        if not (cert.exists() and key.exists()):
            _write_self_signed(cert, key, hosts)
    else:
        given = [Path(part) for part in tls.split(",")]
        if len(given) != 2:
            raise ValueError(f"tls={tls!r}; allowed: {SELF_SIGNED}, or CERT,KEY")
        cert, key = given
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(cert, key)
    except (OSError, ssl.SSLError) as error:
        raise ValueError(f"tls={tls!r}: {cert} and {key} are no certificate and its key ({error})") from None
    return cert, key


def _write_self_signed(cert: Path, key: Path, hosts: Iterable[str]) -> None:
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import NameOID

    secret = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "videoprune, self-signed")])
    now = datetime.datetime.now(datetime.UTC)
    wanted = dict.fromkeys(["localhost", "127.0.0.1", "::1", socket.gethostname(), *hosts])
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(secret.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(days=_DAYS))
        .add_extension(x509.SubjectAlternativeName([_general(host) for host in wanted]), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .sign(secret, hashes.SHA256())
    )
    pem = secret.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    cert.parent.mkdir(parents=True, exist_ok=True)
    with open(os.open(key, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
        file.write(pem)
    cert.write_bytes(made.public_bytes(serialization.Encoding.PEM))


def _general(host: str) -> Any:
    from cryptography import x509

    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)
