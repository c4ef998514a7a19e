"""Files and stores behind a URL, in few ranged requests."""
