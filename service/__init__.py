"""The service: accepts studies over HTTP, runs their trials through Ray Tune, mirrors them to MLflow."""

__version__ = "0.1.0"
