"""A driver file as a wheel, which `pip install` puts onto a board.  Pure.

The module's name is the file's; the entry point `skerry.drivers` says which protocol it is for, so that `mapper supervise`
starts it when a Device of that protocol comes.   Source: PyPA, binary distribution format (wheel 1.0)."""

import base64
import hashlib
import io
import re
import zipfile

from mappers.framework.errors import DriverError

GROUP = "skerry.drivers"
_VERSION = re.compile(r"\d+(\.\d+){0,3}((a|b|rc)\d+)?")
_LONG_AGO = (1980, 1, 1, 0, 0, 0)  # the same file makes the same wheel


def wheel(module: str, source: str, protocol: str, version: str) -> tuple[str, bytes]:
    """File name and content.   module: a Python identifier.   Raises: DriverError."""
    if not module.isidentifier():
        raise DriverError(f"{module}.py cannot be imported: use letters, digits and underscores")
    if _VERSION.fullmatch(version) is None:
        raise DriverError(f"{version!r} is no version such as 1.0.2")
    if any(char in protocol for char in "=[]\n") or not protocol.strip():
        raise DriverError(f"protocol {protocol!r} cannot be the name of an entry point")
    name = f"skerry_driver_{module.strip('_').lower()}"
    info = f"{name}-{version}.dist-info"
    files = {
        f"{module}.py": source,
        f"{info}/METADATA": (
            "Metadata-Version: 2.1\n"
            f"Name: {name.replace('_', '-')}\n"
            f"Version: {version}\n"
            f"Summary: Skerry driver for {' '.join(protocol.split())}\n"
            "Requires-Dist: skerry\n"
        ),
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: mapper package\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{info}/entry_points.txt": f"[{GROUP}]\n{protocol} = {module}\n",
    }
    lines = [f"{path},sha256={_hash(text)},{len(text.encode())}" for path, text in files.items()]
    files[f"{info}/RECORD"] = "\n".join([*lines, f"{info}/RECORD,,", ""])
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for path, text in files.items():
            entry = zipfile.ZipInfo(path, _LONG_AGO)
            entry.external_attr = 0o644 << 16
            archive.writestr(entry, text)
    return f"{name}-{version}-py3-none-any.whl", out.getvalue()


def _hash(text: str) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b"=").decode()
