"""What makes an object of a built-in kind unacceptable: `table` says which rules a kind has."""
