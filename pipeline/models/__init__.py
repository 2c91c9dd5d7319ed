"""Using what was trained: networks as folders that stock timm loads, and scores of new images."""
