"""One module a family of shipped models: how they are trained, saved and measured. Each defines ``RECIPES``."""
