"""BYOL pretraining (Grill et al. 2020, arXiv 2006.07733) in Keras 3, independent of the backend."""
