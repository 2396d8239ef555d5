"""What the data is: numpy in, numpy out. Imports no torch, no MLflow, no Prefect."""
