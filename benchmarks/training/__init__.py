"""Training, validation and prediction of skinseg beside its peers: `python -m benchmarks.training --help`."""
