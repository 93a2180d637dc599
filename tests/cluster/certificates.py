"""An authority of our own and certificates for nodes, as docs/cluster.md has them."""

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, EllipticCurvePrivateKey, generate_private_key
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from service.settings import write_private


class Authority:
    """Signs certificates for addresses, and writes them into a folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._key = generate_private_key(SECP256R1())
        self._name = _named("Ray's nodes")
        (folder / "ca.crt").write_bytes(self._signed(self._name, self._key, (), is_ca=True))

    def variables(self, *addresses: str) -> Mapping[str, str]:
        """What a Ray node with these addresses is told."""
        key, name = generate_private_key(SECP256R1()), addresses[0]
        certificate, private = self._folder / f"{name}.crt", self._folder / f"{name}.key"
        certificate.write_bytes(self._signed(_named(name), key, addresses, is_ca=False))
        write_private(private, key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode())
        return {
            "RAY_USE_TLS": "1",
            "RAY_TLS_SERVER_CERT": str(certificate),
            "RAY_TLS_SERVER_KEY": str(private),
            "RAY_TLS_CA_CERT": str(self._folder / "ca.crt"),
        }

    def _signed(self, name: x509.Name, key: EllipticCurvePrivateKey, addresses: Iterable[str], *, is_ca: bool) -> bytes:
        now = datetime.now(UTC)
        names = [x509.DNSName("localhost"), *(x509.IPAddress(ip_address(one)) for one in addresses)]
        builder = (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(self._name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(hours=1))
            .not_valid_after(now + timedelta(days=1))
            .add_extension(x509.BasicConstraints(ca=is_ca, path_length=None), critical=True)
            .add_extension(x509.SubjectAlternativeName(names), critical=False)
        )
        return builder.sign(self._key, hashes.SHA256()).public_bytes(Encoding.PEM)


def _named(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
