"""What is known about genes: gene sets, networks, disease genes, names and sources."""
