"""The edge end of logs, exec, attach and port-forward."""
