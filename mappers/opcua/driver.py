"""Nodes of an OPC UA server.   Settings: README.md beside this file."""

from pathlib import Path

from mappers.framework.convert import Value
from mappers.framework.driver import Driver, DriverError, Property, Settings
from mappers.opcua.client import Connection, Server

_MODES = ("Sign", "SignAndEncrypt")
_POLICIES = ("Basic256Sha256", "Aes128Sha256RsaOaep", "Aes256Sha256RsaPss", "Basic128Rsa15", "Basic256")


def server_of(settings: Settings) -> Server:
    """Read a Device's connection settings.  Raises: DriverError."""
    url = settings.text("url")
    if not url.startswith("opc.tcp://"):
        raise DriverError(f"setting 'url' is not like opc.tcp://host:4840: {url[:64]!r}")
    policy, mode = settings.text("securityPolicy", "") or "None", settings.text("securityMode", "") or "None"
    certificate, key = settings.text("certificate", ""), settings.text("privateKey", "")
    security = ""
    if policy != "None" or mode != "None":
        if policy not in _POLICIES or mode not in _MODES:
            raise DriverError("settings 'securityPolicy' and 'securityMode' do not go together")
        if not certificate or not key:
            raise DriverError("a secured connection needs settings 'certificate' and 'privateKey'")
        parts = [policy, mode, certificate, key, settings.text("remoteCertificate", "")]
        security = ",".join(part for part in parts if part)
    user = "" if certificate else settings.text("userName", "")  # a certificate goes first, as in KubeEdge
    return Server(
        url=url,
        user=user,
        password=_password(settings.text("password", "")) if user else "",
        security=security,
        timeout_s=min(max(settings.number("timeout", 4.0), 0.1), 60.0),
    )


def _password(path: str) -> str:
    """The setting is the path of a file, which ends in a newline or does not."""
    try:
        return Path(path).read_text().removesuffix("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise DriverError(f"setting 'password' names no readable file: {error}") from error


class OpcUa(Driver):
    """One server."""

    protocol = "opcua"

    async def open(self) -> None:
        self.connection = Connection(server_of(self.settings))
        try:
            await self.connection.open()
        except BaseException:
            await self.connection.close()
            raise

    async def close(self) -> None:
        await self.connection.close()

    async def read(self, prop: Property) -> Value:
        return await self.connection.read(prop.settings.text("nodeID"))

    async def write(self, prop: Property, value: Value) -> None:
        await self.connection.write(prop.settings.text("nodeID"), value)
