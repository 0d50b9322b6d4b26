"""Train and evaluate multimodal retrieval models on the losses of transphere."""
