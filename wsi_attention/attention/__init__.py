"""The papers' equations: tensors in, tensors out; no modules, no state, no files."""
