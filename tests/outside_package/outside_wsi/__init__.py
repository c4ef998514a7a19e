"""A reader, a method and an exporter for wsi-attention, added by entry points alone."""
