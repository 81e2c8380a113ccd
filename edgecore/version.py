"""Which edgecore this is.  A constant: reading the package's metadata costs memory that a daemon keeps."""

VERSION = "0.1.0"

KUBELET_VERSION = f"v1.32.0-skerry.{VERSION}"
"""What the Node says of its kubelet.  The number in front is the API that pods are understood by."""
