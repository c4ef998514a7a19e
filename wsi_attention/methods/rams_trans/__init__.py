"""RAMS-Trans (Hu et al., ACM MM 2021): docs/methods/rams_trans.md."""
