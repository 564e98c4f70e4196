"""MediaPipe's face detector, its 478 landmarks and its 52 blendshape scores in plain PyTorch."""
