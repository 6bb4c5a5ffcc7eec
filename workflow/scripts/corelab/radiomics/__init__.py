"""Image + mask -> features: normalisation, derived images, texture. Filled by the glioma study."""
