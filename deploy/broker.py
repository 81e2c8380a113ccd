"""The folder of Skerry's own MQTT broker: accounts are made, kept as hashes, and written as mosquitto reads them."""

from __future__ import annotations

import ipaddress
import os
import pwd
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from deploy import brokerd, machine, mosquitto
from deploy.errors import TrialError
from deploy.mosquitto import EDGECORE, Account, Lan

if TYPE_CHECKING:
    from cryptography import x509

LAN_DAYS = 3650


@dataclass(frozen=True, slots=True, kw_only=True)
class State:
    """What is kept in accounts.json.   lan: address and port of the listener for other machines; empty: none."""

    accounts: tuple[Account, ...] = ()
    anonymous: bool = False
    lan: tuple[str, int] | None = None


class Broker:
    """port: of the listener on loopback.   user: whom mosquitto becomes."""

    def __init__(self, folder: Path, port: int, *, user: str = "root") -> None:
        self.folder = folder
        self.port = port
        self._user = user

    @property
    def config(self) -> Path:
        return self.folder / brokerd.EVERYWHERE

    def command(self) -> list[str]:
        """How it is started: without a listener for other machines until that can be had."""
        return brokerd.command(machine.find("mosquitto") or "mosquitto", self.folder)

    @property
    def ca(self) -> Path:
        """For devices elsewhere to trust."""
        return self.folder / "ca.crt"

    def state(self) -> State:
        """Raises TrialError."""
        try:
            return msgspec.json.decode((self.folder / "accounts.json").read_bytes(), type=State)
        except FileNotFoundError:
            return State()
        except (OSError, msgspec.DecodeError) as error:
            raise TrialError(f"cannot read {self.folder / 'accounts.json'}: {error}") from error

    def password(self, name: str) -> str:
        """Of edgecore's account, or the one for applications on this machine; made when there is none."""
        file = self.folder / f"{name}.password"
        with suppress(FileNotFoundError):
            if any(account.name == name for account in self.state().accounts):
                return file.read_text().strip()
        password = secrets.token_urlsafe(24)
        self._keep(file, password + "\n")
        account = Account(name=name, hash=_hash(password), edgecore=name == EDGECORE)
        self._change(lambda state: _with(state, account))
        return password

    def add(self, name: str, *, device: str = "", topics: tuple[str, ...] = ()) -> str:
        """A new account, or a new password for one; the password, which cannot be shown again.  Raises TrialError."""
        mosquitto.check_account(name, device, topics)
        if name == EDGECORE:
            raise TrialError("that is edgecore's own account")
        password = secrets.token_urlsafe(24)
        account = Account(name=name, hash=_hash(password), device=device, topics=topics)
        self._change(lambda state: _with(state, account))
        return password

    def remove(self, name: str) -> None:
        """Raises TrialError when there is none, or it is edgecore's."""
        if name == EDGECORE:
            raise TrialError("that is edgecore's own account")
        if all(account.name != name for account in self.state().accounts):
            raise TrialError(f"there is no account {name}: `skerry mqtt list` shows them")
        self._change(
            lambda state: replace(state, accounts=tuple(each for each in state.accounts if each.name != name))
        )

    def set_anonymous(self, *, allowed: bool) -> None:
        self._change(lambda state: replace(state, anonymous=allowed))

    def set_lan(self, address: str, port: int) -> None:
        """Listen with TLS for other machines; port 0: no more.  Makes an authority of the broker's own.

        Raises TrialError, and leaves everything as it is, also for what the broker could not listen on: it would not start, and
        be there for nobody."""
        if port:
            _check_address(address)
            # where it listens already it holds the port itself
            if (address, port) != self.state().lan and (why := machine.can_listen(address, port)):
                raise TrialError(f"cannot listen on {address} port {port}: {why}")
            self._certify(address)
        self._change(lambda state: replace(state, lan=(address, port) if port else None))

    def write(self) -> None:
        """Bring mosquitto's files up to date with what is kept."""
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._write(self.state())

    def _change(self, change: object) -> None:
        assert callable(change), "a function of the state"
        with self._locked():
            state: State = change(self.state())
            self._keep(
                self.folder / "accounts.json",
                msgspec.json.format(msgspec.json.encode(state), indent=2).decode() + "\n",
            )
            self._write(state)

    def _write(self, state: State) -> None:
        lan = None
        if state.lan is not None:
            address, port = state.lan
            lan = Lan(
                address=address,
                port=port,
                certificate=self.folder / "lan.crt",
                key=self.folder / "lan.key",
            )

        def config(lan: Lan | None) -> str:
            return mosquitto.render_config(
                self.port, self.folder, anonymous=state.anonymous, lan=lan, user=self._user
            )

        self._keep(self.folder / "passwords", mosquitto.render_passwords(state.accounts))
        self._keep(self.folder / "acl", mosquitto.render_acl(state.accounts, anonymous=state.anonymous))
        self._keep(self.folder / brokerd.HERE, config(None))
        self._keep(self.config, config(lan))

    def _keep(self, path: Path, text: str) -> None:
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        unfinished = path.with_name(f".{path.name}.new")
        with os.fdopen(os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
            file.write(text)
            if path.suffix not in (".password", ".json") and path.name != "ca.key":
                self._show(file.fileno())
        unfinished.replace(path)

    def _show(self, file: int) -> None:
        """Let the broker read it also after it has given up root, and its folder."""
        with suppress(KeyError):
            group = pwd.getpwnam(self._user).pw_gid
            if group:
                os.fchown(file, -1, group)
                os.fchmod(file, 0o640)
                os.chown(self.folder, -1, group)
                self.folder.chmod(0o750)

    @contextmanager
    def _locked(self) -> Iterator[None]:
        import fcntl

        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        file = os.open(self.folder / ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield
        finally:
            os.close(file)

    def _certify(self, address: str) -> None:
        """An authority, once, and a certificate for this address."""
        import datetime

        from cryptography import x509
        from cryptography.hazmat.primitives import hashes, serialization
        from cryptography.hazmat.primitives.asymmetric import ec
        from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

        shown: x509.GeneralName = x509.IPAddress(ipaddress.ip_address(address))
        now = datetime.datetime.now(datetime.UTC) - datetime.timedelta(hours=1)

        def pem(key: ec.EllipticCurvePrivateKey) -> str:
            return key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            ).decode()

        def builder(subject: str, issuer: str, key: ec.EllipticCurvePrivateKey) -> x509.CertificateBuilder:
            return (
                x509.CertificateBuilder()
                .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, subject)]))
                .issuer_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, issuer)]))
                .public_key(key.public_key())
                .serial_number(x509.random_serial_number())
                .not_valid_before(now)
                .not_valid_after(now + datetime.timedelta(days=LAN_DAYS))
            )

        authority = "Skerry broker authority"
        ca_key_file = self.folder / "ca.key"
        if ca_key_file.exists():
            loaded = serialization.load_pem_private_key(ca_key_file.read_bytes(), None)
            assert isinstance(loaded, ec.EllipticCurvePrivateKey), "made here"
            ca_key = loaded
        else:
            ca_key = ec.generate_private_key(ec.SECP256R1())
            ca = (
                builder(authority, authority, ca_key)
                .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
                .sign(ca_key, hashes.SHA256())
            )
            self._keep(ca_key_file, pem(ca_key))
            self._keep(self.ca, ca.public_bytes(serialization.Encoding.PEM).decode())
        key = ec.generate_private_key(ec.SECP256R1())
        certificate = (
            builder("Skerry broker", authority, key)
            .add_extension(x509.SubjectAlternativeName([shown]), critical=False)
            .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
            .sign(ca_key, hashes.SHA256())
        )
        self._keep(self.folder / "lan.key", pem(key))
        self._keep(self.folder / "lan.crt", certificate.public_bytes(serialization.Encoding.PEM).decode())


def _check_address(address: str) -> None:
    """Raises TrialError for what is no address, or none by which a device could know this machine."""
    try:
        known = ipaddress.ip_address(address)
    except ValueError:
        raise TrialError(
            f"{address!r} is no address of this machine to listen on: write it as 192.168.1.10"
        ) from None
    if known.is_unspecified or known.is_multicast:
        raise TrialError(
            f"{address} stands for many addresses: name the one by which devices reach this machine"
        )


def _hash(password: str) -> str:
    return mosquitto.password_hash(password, secrets.token_bytes(12))


def _with(state: State, account: Account) -> State:
    others = [each for each in state.accounts if each.name != account.name]
    return replace(state, accounts=(*others, account))
