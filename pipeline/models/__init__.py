"""Using trained networks: as folders that stock timm loads, and for the scores of new images."""
