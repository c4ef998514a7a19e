"""TRT (Su et al., BMVC 2022): docs/methods/trt.md."""
