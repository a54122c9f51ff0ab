"""seg3d: posed RGB-D frames in, 3D instances and text answers out. No ROS import anywhere below."""

__version__ = "0.1.0"
