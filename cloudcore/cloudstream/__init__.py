"""The cloud end of logs, exec, attach and port-forward: a kubelet endpoint for each node."""
