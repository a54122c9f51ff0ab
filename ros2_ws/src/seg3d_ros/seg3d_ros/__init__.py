"""The ROS 2 node of seg3d: converts, synchronises, looks up poses, publishes. No algorithm lives here."""
