"""Training and benchmarking of learned 3D cores, offline; imports `seg3d_core`, never the other way round."""
