"""The certificate: how far the label of the sum over all tiles is settled by those that were read; docs/certificate.md.

Numbers alone: it knows attention, scores and classes, and nothing of slides or networks.
"""
