"""Replicas of the server on Ray Serve: `trimtab serve --replicas N`. Ray is imported in this room only."""
