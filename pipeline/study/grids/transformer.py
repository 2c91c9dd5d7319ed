"""Tables 11, 12 and 18: ResNet-50 with ViT-B, ViT-L and DeiT-B, and the Transformers supervised.

    python -m pipeline.launch --grid transformer

25 pretraining runs, 65 fine-tunes; 10 are those of `main`. Printed: 0.853 (ViT-L) to 0.8894 (ViT-B) on the autoimmune
set, 0.9844 (DeiT) on brain MRI.
"""

from __future__ import annotations

from pipeline.study import experiments, paper

DATASETS = experiments.datasets("transformer", "transformer_supervised")
SEEDS = len(paper.SEEDS)
IMAGE_SIZE = paper.IMAGE_SIZE
entries = experiments.entries("transformer", "transformer_supervised")
