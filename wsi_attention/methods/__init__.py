"""The published methods: a paper is a folder, or a file where that is enough."""
