"""Contract suites and synthetic slides; they ship with the package."""
