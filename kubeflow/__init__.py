"""The same pipeline on Kubeflow Pipelines: compile, submit, schedule, and the entry point of its containers."""
