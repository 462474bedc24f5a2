"""Recovery points: their manifests, their rows, their proof, and looking at them."""
