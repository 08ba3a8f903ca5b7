"""Code for operators on images: every tile computes its part of the image, for all channels."""
