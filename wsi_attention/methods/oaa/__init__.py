"""OAA and OAA+ (Jiang et al., ICCV 2019): docs/methods/oaa.md."""
