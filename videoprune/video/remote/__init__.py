"""Videos that lie elsewhere, at addresses that fsspec knows, fetched into a bounded folder of this machine."""
