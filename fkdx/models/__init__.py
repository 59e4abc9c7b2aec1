"""Teachers: a model, its images and its answers (`teacher`); its origin (`zoo`, `heads`, `maps`)."""
