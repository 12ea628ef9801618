"""bench/engine: the networks of stages/ beside diffusers', at the sizes of a real model."""
