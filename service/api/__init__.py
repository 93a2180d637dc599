"""HTTP only: a route validates, records intent in the store and answers. No Ray, no torch, no MLflow in this process."""
